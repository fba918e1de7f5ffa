"""Saves and loads artifacts: folders with ``manifest.json`` (settings, hashes) and ``arrays-<hash>.safetensors``.

Nothing is pickled. The manifest has the SHA-256 of the arrays and of itself, so the loaded content equals the saved
one, to the bit; its own hash names the artifact. The manifest is replaced last and names its arrays by hash, so a
single rename switches to the new artifact.

Covered: a process killed at any system call of a save leaves the complete old or the complete new artifact, and the
next save removes leftovers; saves to one path happen one at a time; only a manifest whose hash fits, the arrays that it
names and arrays that are named by their own hash are replaced or removed, so the user's own files stay, whatever their
names; a changed, damaged or foreign file is refused in one line; links, pipes and devices are not read, and sizes are
limited. Not covered: someone who changes an artifact and rehashes it; its content still fits its ``schema.Layout``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref import files
from polypref.errors import ArtifactError, reason
from polypref.files.locks import LOCK_FILE
from polypref.regular_files import content_of, memory, opened
from polypref.strict_json import canonical, parse

FORMAT = 3
LARGEST_MANIFEST = 1 << 27  # bytes: ids of some four million users
LARGEST_HEADER = 1 << 24  # bytes: names, types and shapes of arrays
MANIFEST = "manifest.json"
ARRAYS = re.compile(r"arrays-([0-9a-f]{64})\.safetensors")
TRIES = 20  # attempts to read while saves interfere
DTYPES = ("bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64")


def save(path: Path | str, kind: str, config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Write an artifact of ``kind`` to the folder ``path``, replacing one of that kind.

    Raises ArtifactError if anything else is there or ``config`` is too large, CacheError if the folder cannot be
    written.
    """
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    payload = to_bytes({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    digest = sha256(payload).hexdigest()
    manifest = sealed({"format": FORMAT, "kind": kind, "config": dict(config), "arrays": digest})
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if len(text.encode()) > LARGEST_MANIFEST:
        raise ArtifactError(f"{path}: the ids of so many users do not fit into one artifact; save fewer together.")
    replaced = _replaceable(path, kind)
    own = path / f"arrays-{digest}.safetensors"
    with files.alone(path):
        if own.name != replaced and not _is_ours(own) and (own.exists() or own.is_symlink()):
            raise ArtifactError(f"{own} exists and polypref did not write it; choose another path or remove it.")
        files.write(own, payload)
        files.write(path / MANIFEST, text)
        for old in path.iterdir():
            if old != own and (old.name == replaced or _is_ours(old)):
                with suppress(OSError):  # the next save tries again
                    old.unlink()


def remove_leftovers(path: Path | str, kind: str) -> list[str]:
    """Remove what interrupted saves left in an artifact's folder; returns the names of the files.

    Raises ArtifactError unless an artifact of ``kind`` is there, CacheError if a file cannot be removed.
    """
    path = Path(path)
    with files.alone(path):
        own = f"arrays-{_manifest(path, kind)['arrays']}.safetensors"
        with files.writable(path):
            before = {one.name for one in path.iterdir()}
            files.sweep(path)
            for old in path.iterdir():
                if old.name != own and _is_ours(old):
                    old.unlink()
            return sorted(before - {one.name for one in path.iterdir()})


def ensure_replaceable(path: Path | str, kind: str) -> None:
    """Raise ArtifactError if ``path`` contains anything but an artifact of ``kind``, so that no work is lost.

    An empty folder, and leftovers of a killed first save, count as nothing.
    """
    _replaceable(Path(path), kind)


def _replaceable(path: Path, kind: str) -> str | None:
    """Name of the arrays of the artifact in ``path``; None: nothing is there. Raises as ``ensure_replaceable``."""
    with files.writable(path):
        if not path.exists() or _is_unfinished(path):
            return None
        manifest = _written(path)
    if manifest is None or manifest["kind"] != kind:
        what = "is not a polypref artifact" if manifest is None else f"holds a {manifest['kind']}, not a {kind}"
        raise ArtifactError(f"{path} exists and {what}; choose another path or remove it.")
    return f"arrays-{manifest.get('arrays')}.safetensors"


def _written(path: Path) -> dict[str, Any] | None:
    """The manifest in ``path``, of any format; None unless its hash shows that polypref wrote it."""
    try:
        manifest = parse(_content(path / MANIFEST, LARGEST_MANIFEST), str(path))
    except (ArtifactError, FileNotFoundError):
        return None
    return manifest if isinstance(manifest, dict) and "kind" in manifest and is_sealed(manifest) else None


def _is_ours(path: Path) -> bool:
    """Whether a file of arrays has the hash that its name states."""
    if not (named := ARRAYS.fullmatch(path.name)):
        return False
    try:
        with opened(path, within=path.parent) as file:
            _sized(file, path)
            return hashlib.file_digest(file, "sha256").hexdigest() == named[1]
    except (OSError, ArtifactError):  # no regular file, none that can be read, or no arrays
        return False


def load(path: Path | str, kind: str) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read back ``(config, arrays)`` of an artifact of ``kind`` as they were saved; check them with a ``Layout``.

    Raises ArtifactError if it is missing, of another kind or format, or changed.
    """
    path = Path(path)
    manifest, payload = _read(path, kind)
    if sha256(payload).hexdigest() != manifest["arrays"]:
        raise ArtifactError(f"the arrays in {path} were changed after they were saved; {_again(kind)}.")
    return manifest["config"], _unpacked(payload, path)


def digest_of(path: Path | str, kind: str) -> str:
    """SHA-256 of everything in an artifact, 64 hex digits; ``load`` refuses arrays that do not match it.

    Raises ArtifactError as ``load`` does.
    """
    return _manifest(Path(path), kind)["sha256"]


def kind_of(path: Path | str) -> str | None:
    """The kind that a folder's manifest states; None without a readable manifest."""
    try:
        manifest = parse(_content(Path(path) / MANIFEST, LARGEST_MANIFEST), str(path))
    except (ArtifactError, FileNotFoundError):
        return None
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    return kind if isinstance(kind, str) else None


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its own SHA-256 under ``sha256``. Raises ValueError for numbers that are not finite."""
    return {**body, "sha256": sha256(canonical(dict(body)).encode()).hexdigest()}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Whether an object's ``sha256`` matches the rest of it."""
    body = {name: value for name, value in content.items() if name != "sha256"}
    return content.get("sha256") == sealed(body)["sha256"]


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that a file of a ``sealed`` one holds, without its hash. Raises ArtifactError."""
    try:
        found = parse(content_of(path), str(path))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({reason(error)}).") from error
    if not isinstance(found, dict) or not is_sealed(found):
        raise ArtifactError(f"{path} was changed after it was written: its hash does not fit.")
    return {name: value for name, value in found.items() if name != "sha256"}


def _read(path: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    """Manifest and arrays that belong together, even if a save replaces them meanwhile."""
    for _ in range(TRIES):
        manifest = _manifest(path, kind)
        with suppress(FileNotFoundError):  # replaced after the manifest was read
            return manifest, _arrays(path / f"arrays-{manifest['arrays']}.safetensors")
    raise ArtifactError(f"the arrays that {path / MANIFEST} names are missing; {_again(kind)}.")


def _manifest(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = parse(_content(path / MANIFEST, LARGEST_MANIFEST), str(path / MANIFEST))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not a polypref artifact: there is no {path / MANIFEST}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise ArtifactError(f"{path} is not a polypref artifact: its manifest names no kind.")
    if content["kind"] != kind:
        raise ArtifactError(f"{path} holds kind {content['kind'][:60]!r}; expected kind {kind!r}.")
    if content.get("format") != FORMAT or type(content["format"]) is not int:
        raise ArtifactError(
            f"{path} was written by another version of polypref, in format {str(content.get('format'))[:20]}; this one "
            f"reads format {FORMAT}: {_again(kind)}."
        )
    if content.keys() != {"format", "kind", "config", "arrays", "sha256"} or not is_sealed(content):
        raise ArtifactError(f"{path / MANIFEST} was changed after it was saved: its hash does not fit; {_again(kind)}.")
    if not isinstance(content["config"], dict) or not re.fullmatch("[0-9a-f]{64}", str(content["arrays"])):
        raise ArtifactError(f"{path / MANIFEST} names no settings or no arrays; {_again(kind)}.")
    return content


def _again(kind: str) -> str:
    return "fit and save it again" if kind == "scorer" else "make it again"


def _unpacked(payload: bytes, path: Path) -> dict[str, NDArray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        arrays = from_bytes(payload)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type unknown to numpy
        raise ArtifactError(f"{path} holds no arrays that polypref has written ({error}); make it again.") from error
    if odd := next((name for name, array in arrays.items() if array.dtype.name not in DTYPES), None):
        raise ArtifactError(f"{path}: the array {odd[:60]!r} has the type {arrays[odd].dtype}, which none has.")
    return arrays


def _content(path: Path, most: int) -> bytes:
    with _readable(path):
        return content_of(path, most, within=path.parent)


def _arrays(path: Path) -> bytes:
    with _readable(path), opened(path, within=path.parent) as file:
        size = _sized(file, path)
        if size > memory():
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than this machine's memory", str(path))
        return file.read(size)


def _sized(file: BufferedReader, path: Path) -> int:
    """Bytes of a file of arrays, which may be sparse. Raises ArtifactError where its header states another size."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    header = parse(file.read(length), str(path)) if 0 < length < min(size, LARGEST_HEADER) else None
    stated = 8 + length
    for name, one in header.items() if isinstance(header, dict) else [("", None)]:
        if name != "__metadata__":
            ends = one.get("data_offsets") if isinstance(one, dict) else None
            if not isinstance(ends, list) or len(ends) != 2 or type(ends[1]) is not int:
                raise ArtifactError(f"{path} holds no arrays that polypref has written; make it again.")
            stated = max(stated, 8 + length + ends[1])
    if stated != size:
        raise ArtifactError(f"{path} has {size:,} bytes, and its arrays {stated:,}; make it again.")
    file.seek(0)
    return size


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises FileNotFoundError, and ArtifactError for a file that is not read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _is_unfinished(path: Path) -> bool:
    """Whether a folder is empty, or holds only what a killed first save leaves."""
    if not path.is_dir() or (path / MANIFEST).exists():
        return False
    return all(
        files.PARTIAL.fullmatch(found.name) or found.name == LOCK_FILE or _is_ours(found) for found in path.iterdir()
    )
