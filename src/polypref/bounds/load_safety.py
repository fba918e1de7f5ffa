"""The safety scorer that a bounds file names, loaded from its folder."""

from __future__ import annotations

from polypref.bounds.bounds_file import BoundsFile
from polypref.bounds.detector import Detector
from polypref.bounds.safety import Answers
from polypref.errors import SettingsError
from polypref.scorers import load


def safety_from(file: BoundsFile, allow_network: bool = False) -> Answers:
    """The safety scorer that the bounds name: a detector, or any saved scorer."""
    folder = file.safety
    try:
        there = (folder / "manifest.json").exists()
    except OSError as error:
        raise SettingsError(
            f"{file.path} names a safety scorer that cannot be read ({error.strerror}): {str(folder)[:200]}. Give "
            "another folder."
        ) from error
    if not there:
        raise SettingsError(
            f"{file.path} names the safety scorer {folder}, which does not exist. Train a small one: polypref bounds "
            f"detector {file.path} --slates FILE; or name a folder with a saved scorer of safety."
        )
    reads = Detector.load if Detector.is_in(folder) else load
    return reads(folder, allow_network=allow_network)
