"""What ``polypref fit`` writes beside a saved scorer, ``fit.json``, and the encoder that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from polypref import features
from polypref.errors import ArtifactError, SettingsError
from polypref.features.protocol import Encoder

FACTS = "fit.json"  # what was fitted, on what, with which encoder


def read_facts(folder: Path) -> dict[str, object]:
    """The content of ``fit.json``; empty when the folder was made by ``polypref.save``.

    Raises ArtifactError when it is there and unreadable.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / FACTS} cannot be read ({error}); fit and save it again.") from error
    if not isinstance(facts, dict):
        raise ArtifactError(f"{folder / FACTS} holds no JSON object; fit and save it again.")
    return facts


def encoder_for(folder: Path, given: Encoder | str | None = None) -> Encoder:
    """The encoder of the scorer in ``folder``: the one ``given``, or else the one that ``fit.json`` names.

    Raises ArtifactError when there is no scorer, SettingsError when no encoder is known or it gives other features than
    those that the scorer was fitted on.
    """
    if not (folder / "manifest.json").exists():
        what = "holds no saved scorer" if folder.is_dir() else "is no folder of a saved scorer"
        raise ArtifactError(f"{folder} {what}. Make one: polypref fit FILE --out {folder}, or polypref.save in Python.")
    facts = read_facts(folder)
    named = facts.get("encoder") if given is None else given
    if named is None:
        raise SettingsError(
            f"{folder} does not say which encoder it was fitted with; add --encoder NAME, or in Python "
            f'load("{folder}", "NAME").'
        )
    encoder = cast(Encoder, features.encoder(named) if isinstance(named, str) else named)
    fitted = facts.get("encoder_identity", encoder.identity)
    if fitted != encoder.identity:
        raise SettingsError(
            f"{folder} was fitted on the features of [{fitted}], and {encoder.name} now gives those of "
            f"[{encoder.identity}]; fit it again or give the encoder it was fitted with."
        )
    return encoder
