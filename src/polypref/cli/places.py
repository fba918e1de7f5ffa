"""Which settings name files and folders, and where these are if a settings file names them: relative to that file.

A setting names a place if its type is a path or its help calls its value FILE, DIR, FOLDER, PATH or SUITE. One whose
help also says NAME may be something else, and is a place only if something is there; so is what follows ``hf:`` and
``pretrained:``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

CALLED = {"FILE", "DIR", "FOLDER", "PATH", "SUITE"}
MODEL = re.compile(r"((?:^|\+)(?:hf|pretrained):)([^+]+)")


def names_place(hint: Any) -> bool:
    """Whether values of a setting of this annotated type are paths."""
    return _of_paths(hint) or bool(CALLED & _words(hint))


def beside(folder: Path, hint: Any, value: str) -> str:
    """A value of a setting, with its path taken from ``folder`` unless it is absolute, an address or a name."""
    if not names_place(hint):
        return MODEL.sub(lambda found: found[1] + _there(folder, found[2]), value)
    if "=" in value and "FOLDER" in _words(hint) and not (folder / value).exists():  # NAME=FOLDER
        name, _, place = value.partition("=")
        return f"{name}={_joined(folder, place)}"
    if MODEL.match(value):
        return MODEL.sub(lambda found: found[1] + _there(folder, found[2]), value)
    return _there(folder, value) if "NAME" in _words(hint) else _joined(folder, value)


def _joined(folder: Path, place: str) -> str:
    return place if "://" in place or place.startswith("~") else str(folder / place)


def _there(folder: Path, place: str) -> str:
    joined = _joined(folder, place)
    return joined if Path(joined).exists() else place


def _of_paths(hint: Any) -> bool:
    return hint is Path or any(_of_paths(part) for part in get_args(hint))


def _words(hint: Any) -> set[str]:
    """The words that the help has for the value."""
    found = [getattr(part, "metavar", None) for part in getattr(hint, "__metadata__", ())]
    return {word for text in found if text for word in re.findall(r"\w+", text)}
