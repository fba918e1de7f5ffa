"""Builds the server that ``polypref serve`` runs, from a scorer's folder, a store and, if given, bounds."""

from __future__ import annotations

from pathlib import Path

from polypref import artifact, scorers
from polypref.bounds.bounds_file import load_bounds
from polypref.bounds.load_safety import safety_from
from polypref.learners.protocol import Scorer
from polypref.serve.core import FLOOR, Core
from polypref.serve.open_store import opened
from polypref.serve.remembered import Remembered


def core_of(
    folder: Path,
    store: str | Path,
    *,
    bounds: Path | None = None,
    pin: str | None = None,
    floor: float = FLOOR,
    encoder: str | None = None,
    allow_network: bool = False,
) -> Core:
    """The scorer in use. Raises ArtifactError, SettingsError, StoreError."""
    scorer, digest = loaded(folder, encoder, allow_network)
    bounded = None
    if bounds is not None:
        calibrated = load_bounds(bounds, pin)
        bounded = calibrated.bind(scorer, safety_from(calibrated.file, allow_network))
    return Core(scorer, digest, opened(store), bounded, floor)


def loaded(folder: Path, encoder: str | None, allow_network: bool) -> tuple[Scorer, str]:
    """The scorer, whose encoder keeps features in memory, and the hash of its folder."""
    scorer = scorers.load(folder, encoder, allow_network=allow_network)
    own = scorers.encoder_of(scorer)
    if own is not None:
        scorer = scorers.load(folder, Remembered(own), allow_network=allow_network)
    return scorer, artifact.digest_of(folder, scorers.KIND)
