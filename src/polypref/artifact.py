"""Save and load: a folder with ``manifest.json`` (settings, hashes) and ``arrays-<hash>.safetensors``. Never pickle.

The manifest is replaced last and names its arrays by their hash, so it decides by one rename which artifact is there.

Covered: a process killed at any system call of a save leaves the whole old artifact or the whole new one, and the next
save removes what it left; saves of one path at a time, one after the other; files of the user's own in the folder stay;
a changed or foreign file is refused. Not covered: who changes manifest and arrays together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref import files
from polypref.errors import ArtifactError

FORMAT = 2
MANIFEST = "manifest.json"
ARRAYS = re.compile(r"arrays(-[0-9a-f]{64})?\.safetensors")  # without a hash: written by format 1
TRIES = 20  # readings that a save may come between


def save(path: Path | str, kind: str, config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Write an artifact of ``kind`` to the folder ``path``, replacing one of that kind.

    Raises ArtifactError where anything else is there, CacheError when the folder cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    payload = to_bytes({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    digest = sha256(payload).hexdigest()
    manifest = {"format": FORMAT, "kind": kind, "sha256": digest, "config": dict(config)}
    ensure_replaceable(path, kind)
    files.made(path)
    own = path / f"arrays-{digest}.safetensors"
    with files.alone(path):
        files.write(own, payload)
        files.write_json(path / MANIFEST, manifest)
        for old in path.iterdir():
            if ARRAYS.fullmatch(old.name) and old != own:
                with suppress(OSError):  # the next save tries again
                    old.unlink()


def ensure_replaceable(path: Path | str, kind: str) -> None:
    """Raise ArtifactError where ``path`` holds something that is no artifact of ``kind``: work must not be lost.

    An empty folder, and what a killed first save left, hold nothing.
    """
    path = Path(path)
    if path.exists() and (found := kind_of(path)) != kind and not _is_unfinished(path):
        what = "is not a polypref artifact" if found is None else f"holds a {found}, not a {kind}"
        raise ArtifactError(f"{path} exists and {what}; choose another path or remove it.")


def load(path: Path | str, kind: str) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read back ``(config, arrays)`` of an artifact of ``kind``.

    Raises ArtifactError when there is none, it is of another kind or format, or its arrays were changed.
    """
    from safetensors.numpy import load as from_bytes

    path = Path(path)
    manifest, payload = _read(path, kind)
    if sha256(payload).hexdigest() != manifest.get("sha256"):
        raise ArtifactError(f"the arrays in {path} were changed after they were saved; fit and save it again.")
    return manifest["config"], from_bytes(payload)


def _read(path: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    """Manifest and arrays that belong together, though a save may replace them meanwhile."""
    for _ in range(TRIES):
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            given, name = (manifest["kind"], manifest["format"]), f"arrays-{manifest['sha256']}.safetensors"
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is not a polypref artifact ({error}); expected a folder made by save."
            ) from error
        if given != (kind, FORMAT):
            found = f"kind {given[0]!r}, format {given[1]!r}"
            raise ArtifactError(f"{path} holds {found}; expected kind {kind!r}, format {FORMAT}.")
        if not ARRAYS.fullmatch(name):
            raise ArtifactError(f"{path / MANIFEST} names no arrays; fit and save it again.")
        with suppress(FileNotFoundError):  # replaced after the manifest was read
            return manifest, (path / name).read_bytes()
    raise ArtifactError(f"the arrays that {path / MANIFEST} names are missing; fit and save it again.")


def _is_unfinished(path: Path) -> bool:
    names = [found.name for found in path.iterdir()] if path.is_dir() else [""]
    return all(ARRAYS.fullmatch(name) or files.PARTIAL.fullmatch(name) for name in names)


def kind_of(path: Path | str) -> str | None:
    """What a folder says that it holds, by its manifest alone; None where there is no manifest to read."""
    try:
        manifest = json.loads((Path(path) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest.get("kind") if isinstance(manifest, dict) else None
