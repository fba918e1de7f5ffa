"""The one place that reads files whole: regular ones, of a bounded size, and none outside the folder they belong to.

Covered: a pipe is not waited for, a device is not opened, a file that grows or has no end is read to the size that it
had; a link that leads out of a folder from elsewhere is not followed. Not covered: who changes a folder while it is
read; ``artifact`` and ``features.hf`` name what they read by its content.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from polypref.errors import SettingsError

LARGEST = 1 << 26  # bytes of a file of settings or results


def content_of(path: Path | str, most: int = LARGEST, *, within: Path | None = None) -> bytes:
    """A regular file of at most ``most`` bytes, whole.

    ``within``  the folder from elsewhere that it belongs to: a link out of it is refused. None: links are followed.

    Raises FileNotFoundError, OSError, whose ``strerror`` says why, for anything else that it is, and ValueError for a
    path with NUL.
    """
    with opened(path, within=within) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes; expected at most {most:,}", str(path))
        return file.read(size)  # Python makes room for as much as it is asked for


@contextmanager
def opened(path: Path | str, *, within: Path | None = None) -> Iterator[BufferedReader]:
    """A regular file to be read piece by piece. Raises as ``content_of`` does."""
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    place = Path(path)
    if within is not None:
        ensure_within(place, within)
        place, flags = place.resolve(), flags | getattr(os, "O_NOFOLLOW", 0)
    ensure_regular(place.stat().st_mode, path)  # opening a device may do something
    with open(os.open(place, flags), "rb") as file:  # noqa: PTH123
        ensure_regular(os.fstat(file.fileno()).st_mode, path)
        yield file


def expanded(path: Path | str) -> Path:
    """``path`` with the home folder that ``~`` stands for. Raises SettingsError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{path}: the home folder that ~ stands for is not known; give the whole path.") from error


def ensure_within(path: Path, folder: Path) -> None:
    """Raise OSError where ``path`` is, or lies behind, a link out of ``folder``."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # a circle of links, as older versions of Python tell it
        inside = False
    if not inside:
        raise OSError(errno.EXDEV, f"it is a link out of {folder}, and only files in that folder are read", str(path))


def ensure_regular(mode: int, path: Path | str) -> None:
    """Raise OSError where a file's ``st_mode`` is not that of a regular file."""
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def memory() -> int:
    """Bytes of this machine's memory, as far as it says: the most that arrays can take."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 40
