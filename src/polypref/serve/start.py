"""Builds the server that ``polypref serve`` runs, from a scorer's folder, a store and, if given, bounds.

The scorer that answers is the one that the store says is in force. The folder that is given is put in force where the
store never had it: it is the first one, or somebody fitted it by hand. Where the store had it before, something took
its place, such as a refit, and that stays in force.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from polypref import artifact, scorers
from polypref.bounds.bounds_file import load_bounds
from polypref.bounds.load_safety import safety_from
from polypref.errors import PolyprefError
from polypref.features.protocol import Encoder
from polypref.learners.protocol import Scorer
from polypref.serve.core import FLOOR, Core, pool_of
from polypref.serve.follow import Follower, tried
from polypref.serve.refitting.folders import Folders, folders_of, known_to
from polypref.serve.remembered import Remembered
from polypref.serve.store.contract import Conflict, InForceRow, Store
from polypref.serve.store.opened import opened
from polypref.terminal import say


@dataclass(frozen=True)
class Within:
    """The file of the bounds, the policy hash that it must have, and the reward of what they hold back."""

    bounds: Path | None = None
    pin: str | None = None
    floor: float = FLOOR


NO_BOUNDS = Within()


def core_of(
    folder: Path,
    store: str | Path,
    *,
    within: Within = NO_BOUNDS,
    encoder: str | None = None,
    scorers_at: Path | None = None,
    encrypt: bool = False,
    allow_network: bool = False,
) -> Core:
    """The scorer in use, and what follows the store where its scorers have folders (``folders.folders_of``).

    Raises ArtifactError, SettingsError, StoreError.
    """
    scorers.metadata(folder)  # refuses what is no saved scorer before a store is made
    calibrated = None if within.bounds is None else load_bounds(within.bounds, within.pin)
    safety = None if calibrated is None else safety_from(calibrated.file, allow_network)
    folders, memory = folders_of(store, scorers_at), dict[str, Encoder]()
    keeps = opened(store, encrypt)
    try:

        def load(digest: str) -> Scorer:
            return _remembering(partial(_load, folders, folder, digest, allow_network), encoder, memory)

        given = artifact.digest_of(folder, scorers.KIND)
        digest = given if folders is None else registered(keeps, folders, folder, load)
        scorer = load(digest)
        bounded = calibrated.bind(scorer, safety) if calibrated and safety else None
        core = Core(scorer, digest, keeps, bounded, within.floor)
        tried(core.in_force)
        warmed(core)
        core.follower = None if folders is None else Follower(core, load)
    except BaseException:
        keeps.close()
        raise
    return core


def warmed(core: Core) -> None:
    """Encode a text that no cache has, so that models are loaded before the first request; a failure is told.

    What failed is tried again, by requests and by ``/health``.
    """
    pool, _ = pool_of("a prompt", [f"a text of {uuid.uuid4().hex}"])
    try:
        core.in_force.prepare(pool)
    except PolyprefError as error:
        core.encoder_fails = True
        say(f"new texts cannot be encoded yet: {error}")


def _load(
    folders: Folders | None, folder: Path, digest: str, allow_network: bool, encoder: Encoder | str | None
) -> Scorer:
    if folders is None:
        return scorers.load(folder, encoder, allow_network=allow_network)
    return folders.load(digest, encoder, allow_network=allow_network)


def _remembering(
    load: Callable[[Encoder | str | None], Scorer], encoder: str | None, memory: dict[str, Encoder]
) -> Scorer:
    """A scorer whose encoder keeps features in memory; ``memory`` has those of earlier ones, by identity."""
    scorer = load(encoder)
    own = scorers.encoder_of(scorer)
    return scorer if own is None else load(memory.setdefault(own.identity, Remembered(own)))


def registered(store: Store, folders: Folders, folder: Path, load: Callable[[str], Scorer]) -> str:
    """The hash of the scorer in force, after ``folder`` was put in force if the store never had it."""
    given = artifact.digest_of(folder, scorers.KIND)
    while given not in _had(rows := store.scorers()):
        folders.add(folder)
        before = rows[-1].hash if rows else None
        row = InForceRow(hash=given, why="served", before=before, data={"folder": folder.name})
        try:
            store.put_in_force(row, known_to(load(given))).result()
        except Conflict:  # another process was faster
            continue
    return rows[-1].hash


def _had(rows: Sequence[InForceRow]) -> set[str]:
    """All hashes of scorers that were in force, also those that they had before they forgot people."""
    return {digest for row in rows for digest in (row.hash, *row.data.get("was", []))}
