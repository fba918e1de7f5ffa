"""Stored units of a study: which are whole, and what becomes of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from polypref.errors import ArtifactError
from polypref.terminal import say


def is_whole(path: Path, read: Callable[[], object], again: str) -> bool:
    """Whether ``read`` takes the file; one that it refuses is removed, with the message ``again`` and why."""
    if not path.exists():
        return False
    try:
        read()
    except ArtifactError as error:
        say(f"{again}: {error}")
        path.unlink()
        return False
    return True
