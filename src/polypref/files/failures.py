"""The one error of everything that is written: ``cannot write PATH: REASON. NEXT STEP.``"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polypref.errors import CacheError, PolyprefError

ANOTHER, OTHER_OUT = "choose another folder", "choose another --out"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
UNTOLD = ("PytorchStreamWriter failed", "iostream error")  # what torch says of a write that fails, without the reason


@contextmanager
def writable(path: Path | str, elsewhere: str = ANOTHER) -> Iterator[None]:
    """System errors in the block become a CacheError about ``path``, also those reraised by a library."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, elsewhere) from error
    except ValueError as error:  # a NUL or a lone surrogate in the name
        if _is_name(path):
            raise
        raise CacheError(f"cannot write {str(path)!r}: it is not a file name. Choose another one.") from error
    except Exception as error:
        retold = next((code for code in (*FULL, *FORBIDDEN) if os.strerror(code) in str(error)), None)
        retold = errno.ENOSPC if any(said in str(error) for said in UNTOLD) else retold
        if retold is None or isinstance(error, PolyprefError):
            raise
        raise cannot_write(path, OSError(retold, os.strerror(retold)), elsewhere) from error


def cannot_write(path: Path | str, error: OSError, elsewhere: str = ANOTHER) -> CacheError:
    """``cannot write PATH: REASON. NEXT STEP.``"""
    if error.errno in FULL:
        step = f"Free the space or {elsewhere}"
    elif error.errno in FORBIDDEN:
        step = f"Make it writable or {elsewhere}"
    elif error.errno == errno.ENAMETOOLONG:
        step = "Choose a shorter name"
    else:
        step = elsewhere[:1].upper() + elsewhere[1:]
    # a folder that cannot be created because a file has its name
    reason = os.strerror(errno.ENOTDIR) if error.errno == errno.EEXIST else error.strerror or error
    return CacheError(f"cannot write {path}: {reason}. {step}.")


def _is_name(path: Path | str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False
