"""Save and load: a folder with ``manifest.json`` (settings, versions, hashes) and ``arrays.safetensors``. Never pickle.

Covered: an interrupted save leaves no half-written folder under the final name; a changed or foreign file is refused.
Not covered: concurrent writers of the same path (the last one wins).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.errors import ArtifactError, CacheError

FORMAT = 1


def save(path: Path | str, kind: str, config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Write an artifact of ``kind`` to the folder ``path``, replacing one of that kind.

    Raises ArtifactError where anything else is there, CacheError when the folder cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    payload = to_bytes({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    manifest = {"format": FORMAT, "kind": kind, "sha256": sha256(payload).hexdigest(), "config": dict(config)}
    ensure_replaceable(path, kind)
    folder = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        (folder / "arrays.safetensors").write_bytes(payload)
        write_json(folder / "manifest.json", manifest)
        if path.exists():
            shutil.rmtree(path)
        os.replace(folder, path)
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror}. Free the space or choose another folder.") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def ensure_replaceable(path: Path | str, kind: str) -> None:
    """Raise ArtifactError where ``path`` holds something that is no artifact of ``kind``: work must not be lost."""
    path = Path(path)
    if path.exists() and (found := kind_of(path)) != kind:
        what = "is not a polypref artifact" if found is None else f"holds a {found}, not a {kind}"
        raise ArtifactError(f"{path} exists and {what}; choose another path or remove it.")


def load(path: Path | str, kind: str) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read back ``(config, arrays)`` of an artifact of ``kind``.

    Raises ArtifactError when there is none, it is of another kind or format, or its arrays were changed.
    """
    from safetensors.numpy import load as from_bytes

    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        payload = (path / "arrays.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a polypref artifact ({error}); expected a folder made by save.") from error
    if manifest.get("format") != FORMAT or manifest.get("kind") != kind:
        found = f"kind {manifest.get('kind')!r}, format {manifest.get('format')!r}"
        raise ArtifactError(f"{path} holds {found}; expected kind {kind!r}, format {FORMAT}.")
    if sha256(payload).hexdigest() != manifest.get("sha256"):
        raise ArtifactError(f"{path}/arrays.safetensors was changed after it was saved; fit and save it again.")
    return manifest["config"], from_bytes(payload)


def kind_of(path: Path | str) -> str | None:
    """What a folder says that it holds, by its manifest alone; None where there is no manifest to read."""
    try:
        manifest = json.loads((Path(path) / "manifest.json").read_text())
    except (OSError, ValueError):
        return None
    return manifest.get("kind") if isinstance(manifest, dict) else None


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all (a temporary file, then a rename)."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    os.replace(partial, path)
