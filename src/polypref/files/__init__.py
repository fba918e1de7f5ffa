"""All writing to disk: atomic files and folders, locks, temporary files, and one error if that fails.

A file is written next to its place as ``.NAME.<random>.partial``, synced, and renamed; then the folder is synced. Its
writer holds a lock on it, which ends with the process in any case. The next write into the folder removes partial files
that no process holds. ``locks`` keeps two runs from writing one folder; ``failures`` has the error.

Covered: a process killed at any system call, and a power cut, leave the complete old or the complete new file; a full
or read-only disk, an impossible path, and a device as the target (``/dev/stdout``). Not covered: file systems without
locks, where leftovers of a killed writer are removed after a day; disks that report data as written too early; Windows,
where none of this was tested.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from polypref.errors import SettingsError
from polypref.files.failures import ANOTHER, FORBIDDEN, FULL, OTHER_OUT, cannot_write, writable
from polypref.files.locks import alone, held_for_run, hold, is_at

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "ANOTHER",
    "FORBIDDEN",
    "FULL",
    "MARK",
    "OTHER_OUT",
    "PARTIAL",
    "TABLES",
    "TMPDIR",
    "Output",
    "alone",
    "cannot_write",
    "encoded",
    "held_for_run",
    "is_device",
    "made",
    "nameless",
    "new_folder",
    "owned",
    "sweep",
    "temporary",
    "writable",
    "write",
    "write_json",
    "write_table",
    "writing",
]
TABLES = (".jsonl", ".csv", ".parquet")
PARTIAL = re.compile(r"\..*\.[0-9a-f]{16}\.partial", re.DOTALL)
MARK = ".polypref"
MARKED = "polypref writes the results in this folder, and replaces them when it runs again.\n"
TEMPORARY = re.compile(r"polypref-[0-9a-f]{16}")
ABANDONED_SECONDS = 86_400.0  # if locks do not work
TMPDIR = "set TMPDIR to another folder"
LONGEST_STEM = 200  # bytes of a name that its partial file repeats; most file systems allow 255 in total


# --- files


def write(path: Path | str, content: bytes | str, elsewhere: str = ANOTHER) -> None:
    """Write a file atomically; text as UTF-8, a lone surrogate as its escape.

    ``elsewhere`` is the next step given in the error if this place cannot be used. Raises CacheError.
    """
    with writing(path, elsewhere) as output:
        output.write(content)


def write_json(path: Path | str, content: object, elsewhere: str = ANOTHER) -> None:
    """Write JSON atomically. Raises CacheError, and ValueError for a number that is not finite."""
    write(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", elsewhere)


def write_table(path: Path | str, table: pl.DataFrame, elsewhere: str = ANOTHER) -> None:
    """Write a table atomically, in the format of the file's ending. Raises CacheError."""
    write(path, encoded(table, Path(path).suffix), elsewhere)


def encoded(table: pl.DataFrame, suffix: str) -> bytes:
    """A table in the format of a file's ending, one of TABLES."""
    assert suffix in TABLES, suffix
    buffer = io.BytesIO()
    if suffix == ".parquet":
        table.write_parquet(buffer)
    elif suffix == ".csv":
        table.write_csv(buffer)
    else:
        table.write_ndjson(buffer)
    return buffer.getvalue()


class Output:
    """The writer that ``writing`` yields. Only its own writes count as disk failures, not the caller's code."""

    def __init__(self, file: BinaryIO, path: Path, elsewhere: str) -> None:
        self._file, self._path, self._elsewhere = file, path, elsewhere

    def write(self, content: bytes | str) -> None:
        """Raises CacheError."""
        raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        with writable(self._path, self._elsewhere):
            self._file.write(raw)


@contextmanager
def writing(path: Path | str, elsewhere: str = ANOTHER) -> Iterator[Output]:
    """A file written piece by piece, which appears under its name when the block ends without an error.

    Missing folders are created. A link is replaced, not followed; a device is written to directly. Raises CacheError.
    """
    path = Path(path)
    if is_device(path):
        with writable(path, elsewhere):
            device = open(path, "wb", buffering=0, opener=_at_once)  # noqa: SIM115
        with device:
            yield Output(device, path, elsewhere)
        return
    with writable(path, elsewhere):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, number = _begun(path)
    file = os.fdopen(number, "wb")
    try:
        yield Output(file, path, elsewhere)
        with writable(path, elsewhere):
            file.flush()
            os.fsync(number)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        with suppress(OSError):  # a failed flush was reported above
            file.close()
        with suppress(OSError):  # it is gone because it was renamed
            partial.unlink()


def is_device(path: Path) -> bool:
    """Whether ``path`` is a device or a pipe, which is written to directly."""
    place = Path(os.path.abspath(path))  # noqa: PTH100 - /dev/stdout is a link, and must stay one here
    if place.parts[1:2] in (("dev",), ("proc",)) and not place.is_relative_to("/dev/shm"):
        return place.exists() and not place.is_dir()
    with suppress(OSError, ValueError):
        mode = place.lstat().st_mode
        return stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode)
    return False


def _at_once(path: str, flags: int) -> int:
    """Open for writing; a pipe without a reader is an error instead of an endless wait."""
    number = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(number, True)
    return number


def _begun(path: Path) -> tuple[Path, int]:
    """A partial file for ``path`` that this process holds, and its descriptor."""
    sweep(path.parent)
    while True:
        partial = _beside(path)
        number = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
        if hold(number) is not False and is_at(number, partial):
            return partial, number
        os.close(number)  # another process removed it as abandoned before it was locked


def _beside(path: Path) -> Path:
    stem = os.fsdecode(os.fsencode(path.name)[:LONGEST_STEM])
    return path.with_name(f".{stem}.{os.urandom(8).hex()}.partial")


# --- folders


def made(folder: Path | str, elsewhere: str = ANOTHER) -> Path:
    """``folder``, created with its parents if missing. Raises CacheError."""
    folder = Path(folder)
    with writable(folder, elsewhere):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def new_folder(path: Path, elsewhere: str = ANOTHER) -> Iterator[Path]:
    """A folder to fill, which replaces ``path`` when the block ends without an error.

    For reproducible content: a process killed between two renames leaves nothing at ``path``. Raises CacheError.
    """
    with writable(path, elsewhere), ExitStack() as stack:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        partial = stack.enter_context(_held_folder(lambda: _beside(path), 0o777))
        yield partial
        for file in partial.rglob("*"):
            _sync(file)
        _sync(partial)
        if path.exists():
            os.replace(path, old := _beside(path))
            os.replace(partial, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(partial, path)
        _sync(path.parent)


@contextmanager
def owned(folder: Path | str | None, names: Collection[str], elsewhere: str = ANOTHER) -> Iterator[None]:
    """Mark ``folder``, which exists, as written by polypref; the mark goes if the block leaves nothing else there.

    ``names`` are the files and folders that the block writes. None: no folder. Raises SettingsError if one of them
    exists in a folder without the mark or is a link to a folder, CacheError if the folder cannot be written.
    """
    if folder is None or not names:
        yield
        return
    folder = Path(folder)
    mark = folder / MARK
    for name in names:
        if (folder / name).is_symlink() and (folder / name).is_dir():
            raise SettingsError(f"{folder / name} is a link to another folder; remove it, or choose another folder.")
    if not mark.exists():
        for name in names:
            if (folder / name).exists() or (folder / name).is_symlink():
                raise SettingsError(
                    f"{folder / name} exists and polypref did not write it; choose another folder, or move it."
                )
        write(mark, MARKED, elsewhere)
    try:
        yield
    finally:
        with suppress(OSError):  # a folder that cannot be listed keeps its mark
            if [one.name for one in folder.iterdir()] == [MARK]:
                mark.unlink()


@contextmanager
def temporary() -> Iterator[Path]:
    """A temporary folder that only its owner can read, removed at the end of the block.

    Leftovers of killed processes are removed first. Raises CacheError.
    """
    root = Path(tempfile.gettempdir())
    with ExitStack() as stack:
        with writable(root, TMPDIR):
            sweep(root, TEMPORARY)
            folder = stack.enter_context(_held_folder(lambda: root / f"polypref-{os.urandom(8).hex()}", 0o700))
        yield folder


@contextmanager
def nameless(folder: Path | str | None = None) -> Iterator[BinaryIO]:
    """A file that only this process can open, under ``folder`` (default: the system's temporary one).

    It ends with the process. The caller reports disk errors, see ``writable``. Raises CacheError.
    """
    folder = folder or tempfile.gettempdir()
    with writable(folder, TMPDIR):
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    with file:
        yield file


@contextmanager
def _held_folder(name: Callable[[], Path], mode: int) -> Iterator[Path]:
    while True:
        folder = name()
        folder.mkdir(mode)
        number = os.open(folder, os.O_RDONLY)
        if hold(number) is not False and is_at(number, folder):
            break
        os.close(number)  # another process removed it as abandoned before it was locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # already gone if it was renamed
        os.close(number)


# --- leftovers of killed writers


def sweep(folder: Path, pattern: re.Pattern[str] = PARTIAL) -> None:
    """Remove the partial files and folders in ``folder`` that no process holds."""
    with suppress(OSError), os.scandir(folder) as entries:  # folders that cannot be listed are not cleaned
        for entry in entries:
            if pattern.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_abandoned(Path(entry.path))


def _remove_abandoned(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(number)
        held = hold(number)
        if held or (held is None and time.time() - status.st_mtime > ABANDONED_SECONDS):
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
    finally:
        os.close(number)


def _sync(path: Path) -> None:
    """Sync a folder's entries, or a file, to disk."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not listed
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(number)
