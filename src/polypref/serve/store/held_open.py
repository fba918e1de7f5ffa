"""Reads the files of an open SQLite store past SQLite, without taking away its locks.

A process that closes any descriptor of a file gives up all of its POSIX locks on it, those of its connections to SQLite
too. Another process then takes itself for the last one that has the store open, and removes, when it closes the store,
the write-ahead log into which this one goes on writing: what was acknowledged afterwards would be gone with the next
start. So the descriptors that are opened here stay open, one for each file, until the file is deleted or the process
ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from polypref.regular_files import ensure_regular

CHUNK = 1 << 24  # bytes that are read at once

_kept: dict[tuple[int, int], int] = {}  # by device and number of the file
_lock = threading.Lock()


def pieces(path: Path, overlap: int) -> Iterator[bytes]:
    """A file's content, piece by piece; each begins with the last ``overlap`` bytes of the one before.

    Nothing comes for a file that is not there. Raises OSError for one that cannot be read.
    """
    try:
        found = _descriptor(path)
    except FileNotFoundError:
        return
    at, before = 0, b""
    while read := os.pread(found, CHUNK, at):
        yield before + read
        at += len(read)
        before = (before + read)[-overlap:] if overlap else b""


def _descriptor(path: Path) -> int:
    """The descriptor of a file that stays open."""
    with _lock:
        for key, one in list(_kept.items()):
            if not os.fstat(one).st_nlink:  # deleted: nobody else can open it
                os.close(_kept.pop(key))
        about = path.stat()
        ensure_regular(about.st_mode, path)
        key = about.st_dev, about.st_ino
        if key not in _kept:
            opened = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            about = os.fstat(opened)  # of another file, if it was replaced in between
            key = about.st_dev, about.st_ino
            _kept.setdefault(key, opened)
        return _kept[key]
