"""Locks on files and folders: two processes never write one place at a time.

A lock is the system's, on the folder itself. It leaves no file and ends with its process, also after SIGKILL. What
holds a folder may lock it again, in the same thread.

Not covered: file systems that cannot lock a folder, such as NFS. There the lock is on a file ``.lock`` in the folder,
which stays there, and the process that holds it cannot be named.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from polypref.errors import SettingsError
from polypref.files.failures import ANOTHER, writable

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:
    LOCK_EX = LOCK_NB = 0  # type: ignore[misc]

    def flock(fd: Any, operation: int, /) -> None:
        """Behave as on a file system without locks."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


LOCK_FILE = ".lock"
NO_FOLDER_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EISDIR, errno.EACCES)

_Identity = tuple[int, int]  # device and inode of a folder
_held: ContextVar[frozenset[_Identity]] = ContextVar("held folders", default=frozenset())


@contextmanager
def held_for_run(folder: Path | str | None, who: str = "run", elsewhere: str = ANOTHER) -> Iterator[None]:
    """Lock the folder that a run writes until the block or the process ends; None: nothing to lock.

    The folder is created if missing, and removed again if the block leaves it empty. Raises SettingsError, naming the
    process, if another ``who`` holds it, and CacheError.
    """
    if folder is None:
        yield
        return
    folder = Path(folder)
    with writable(folder, elsewhere):
        created = [place for place in (folder, *folder.parents) if not place.exists()]
    with _locked(folder, who, elsewhere):
        try:
            yield
        finally:
            for place in created:
                with suppress(OSError):  # something was written there
                    place.rmdir()


@contextmanager
def alone(folder: Path, elsewhere: str = ANOTHER) -> Iterator[None]:
    """Wait for the lock of ``folder`` and hold it until the block or the process ends; for work of a moment.

    Raises CacheError.
    """
    with _locked(folder, None, elsewhere):
        yield


@contextmanager
def _locked(folder: Path, who: str | None, elsewhere: str) -> Iterator[None]:
    """``who`` is named in the error if another process holds the folder; None: wait for it."""
    with ExitStack() as stack:
        with writable(folder, elsewhere):
            while (identity := _taken(folder, stack, wait=who is None)) is None:
                stack.close()  # its last holder left it empty and removed it
        if not identity:
            where = f"{_holder(folder)} is writing {folder}"
            raise SettingsError(f"another {who}{where}; wait for it, or {elsewhere}.")
        token = _held.set(_held.get() | {identity})
        stack.callback(_held.reset, token)
        yield


def _taken(folder: Path, stack: ExitStack, wait: bool) -> _Identity | tuple[()] | None:
    """Lock the folder until ``stack`` is closed: its identity, () if another holds it, None if it was removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        identity = _identity(folder)
        if identity not in _held.get() and not _lock(folder, stack, wait):
            return ()
        return identity if _identity(folder) == identity else None
    return None


def _identity(folder: Path) -> _Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _lock(folder: Path, stack: ExitStack, wait: bool) -> bool:
    """Whether the folder is now locked until ``stack`` is closed. Raises OSError."""
    try:
        number = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, number)
        flock(number, LOCK_EX if wait else LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_FOLDER_LOCKS:
            raise
        return _lock_file(folder / LOCK_FILE, stack, wait)
    return True


def _lock_file(path: Path, stack: ExitStack, wait: bool) -> bool:
    from filelock import FileLock, Timeout

    try:
        stack.enter_context(FileLock(path).acquire(timeout=-1 if wait else 0))
    except Timeout:
        return False
    return True


def _holder(folder: Path) -> str:
    """`` (process 12, since 2026-11-29 21:10:04)`` for the holder of a folder's lock; "" where Linux does not tell."""
    with suppress(OSError, StopIteration, ValueError):
        device, inode = _identity(folder)
        place = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
        locks = map(str.split, Path("/proc/locks").read_text().splitlines())
        process = next(int(words[4]) for words in locks if words[1] == "FLOCK" and words[5] == place)
        return f" (process {process}{_since(process)})"
    return ""


def _since(process: int) -> str:
    """When a process started, in local time; "" if it has ended."""
    with suppress(OSError, StopIteration, ValueError):
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        seconds = int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
        return f", since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}"
    return ""


def hold(number: int) -> bool | None:
    """Lock an open file or folder until it is closed; False: another process holds it, None: locks do not work here."""
    try:
        flock(number, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_at(number: int, path: Path) -> bool:
    """Whether an open file or folder is still the one at ``path``."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(number), path.stat())
    return False
