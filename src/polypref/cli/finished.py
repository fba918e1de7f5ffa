"""One rule for every command that fills a folder: a finished result of other settings is replaced only if asked.

The mark in the folder holds, for each command that finished there, the settings that decided the result, and the hashes
of the files that it read. The same settings write again; cells that are stored are used again in any case.

Covered: files of other content under the same name, equal files under other names. Not covered: results of Python's
functions, and of versions that left no record; what a server or the hub answers.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from polypref import artifact, strict_json
from polypref.cli.places import names_place
from polypref.cli.shared import WritesFolder
from polypref.errors import ArtifactError, SettingsError
from polypref.files import MARK, MARKED, write_json
from polypref.regular_files import content_of, opened

# Settings that decide no figure, and whom a person asks for, which no record may hold.
UNDECIDING = ("out", "force", "quiet", "workers", "cache", "allow_network", "limits", "figures", "user", "estimate")
SHOWN = 3  # settings that differ

Settings = dict[str, Any]


@contextmanager
def once(command: WritesFolder, name: str, again: str) -> Iterator[None]:
    """Refuse to replace a finished result of other settings, and record this one's if the block ends without an error.

    One that is replaced by force has no record meanwhile: a killed run leaves files of both, and these are no result.
    Nothing is asked where the folder is also one that the command reads. Raises SettingsError and CacheError.
    """
    if fills_in_place(command):
        yield
        return
    settings = settings_of(command)
    ensure_same(command, name, settings, again)
    had = _records(command.out)
    replaced = name in had and had[name] != settings
    if replaced:
        _write(command, {one: was for one, was in had.items() if one != name})
    try:
        yield
    except BaseException:  # a run that ends by itself may have replaced nothing
        if replaced:
            _write(command, had)
        raise
    if command.finishes():
        record(command, name, settings)


def settings_of(command: WritesFolder) -> Settings:
    """What decides the command's result, as JSON: values, and for files and folders a list of [name, hash or None]."""
    hints = get_type_hints(type(command), include_extras=True)
    found: Settings = {}
    for one in fields(command):
        if one.name in UNDECIDING:
            continue
        value = getattr(command, one.name)
        values = list(value) if isinstance(value, tuple) else [] if value is None else [value]
        if names_place(hints[one.name]):
            found[one.name] = [[str(place), _content(str(place))] for place in values]
        else:
            found[one.name] = values
    return found


def ensure_same(command: WritesFolder, name: str, settings: Settings, again: str) -> None:
    """Raise SettingsError if the folder holds a finished result of ``name`` with other ``settings``.

    ``again``  the command that was typed, to which --force may be added.
    """
    if command.force:
        return
    had = _records(command.out).get(name)
    if not isinstance(had, Mapping):
        return
    differs = [text for key in settings if key in had and (text := _difference(key, had[key], settings[key]))]
    if differs:
        more = f"; and {len(differs) - SHOWN} more" if len(differs) > SHOWN else ""
        raise SettingsError(
            f"{command.out} holds a finished {name} of other settings: {'; '.join(differs[:SHOWN])}{more}. Choose "
            f"another --out, or replace it: {again} --force"
        )


def record(command: WritesFolder, name: str, settings: Settings) -> None:
    """Write into the folder's mark what decided the result that ``name`` finished. Raises CacheError."""
    _write(command, {**_records(command.out), name: settings})


def _write(command: WritesFolder, finished: Mapping[str, Any]) -> None:
    write_json(command.out / MARK, {"about": MARKED.strip(), "finished": finished})


def fills_in_place(command: WritesFolder) -> bool:
    """Whether the folder is also one that the command reads, and so is meant to be replaced."""
    hints = get_type_hints(type(command), include_extras=True)
    places = [
        getattr(command, one.name) for one in fields(command) if names_place(hints[one.name]) and one.name != "out"
    ]
    return any(isinstance(place, Path) and place.resolve() == command.out.resolve() for place in places)


def _records(folder: Path) -> Mapping[str, Any]:
    try:
        mark = strict_json.loads(content_of(folder / MARK))
    except (OSError, ValueError, RecursionError):  # no mark, or one of an earlier version
        return {}
    found = mark.get("finished") if isinstance(mark, dict) else None
    return found if isinstance(found, dict) else {}


def _difference(key: str, was: Any, now: Sequence[Any]) -> str:
    """How a setting differs, in words; empty if it does not."""
    flag = f"--{key.replace('_', '-')}" if key != "files" else "the file"
    if not isinstance(was, list) or was == list(now):
        return ""
    if not all(isinstance(one, list) and len(one) == 2 for one in [*was, *now]):
        return f"{flag} was {_shown(was)}, now {_shown(now)}"
    names, hashes = ([[one[at] for one in places] for places in (was, now)] for at in (0, 1))
    if None in hashes[0] or None in hashes[1]:
        return "" if names[0] == names[1] else f"{flag} was {_shown(names[0])}, now {_shown(names[1])}"
    if sorted(hashes[0]) == sorted(hashes[1]):
        return ""
    if names[0] == names[1]:
        return f"{flag} {_shown(names[1])} has another content than then"
    return f"{flag} was {_shown(names[0])}, now {_shown(names[1])}"


def _shown(values: Sequence[Any]) -> str:
    return " ".join(map(str, values)) or "not given"


def _content(place: str) -> str | None:
    """Hash of a file, of all files that a pattern matches, or of a saved folder; None if that is not known here."""
    path = Path(place)
    try:
        if path.is_dir():
            return artifact.digest_of(path, artifact.kind_of(path) or "")
        matching = [place] if path.exists() else sorted(glob.glob(place, recursive=True))  # noqa: PTH207
        return "+".join(map(_hash, matching)) or None
    except (OSError, ValueError, ArtifactError):  # the command itself says what is wrong
        return None


def _hash(path: str) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
