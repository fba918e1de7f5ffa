"""Memory-mapped text columns in a file, passed to Polars through the Arrow C data interface.

Polars reads Arrow files into memory, but uses data from this interface in place. The file has the two buffers of
Arrow's large string layout, 64-bit offsets and then UTF-8 bytes, and no name: the mapping keeps the bytes until the
last column that uses them is gone, and a killed process leaves nothing behind.

https://arrow.apache.org/docs/format/CDataInterface.html
"""

from __future__ import annotations

import ctypes
import tempfile
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.files import TMPDIR, nameless, writable

SLICE = 50_000  # texts joined at a time while writing


class _Schema(ctypes.Structure):
    pass


class _Array(ctypes.Structure):
    pass


_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.c_void_p),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.c_void_p),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

_alive: dict[int, tuple[Any, ...]] = {}  # the data behind exported arrays, until these are released


@_Release
def _release_array(address: int) -> None:
    array = _Array.from_address(address)
    _alive.pop(array.private_data, None)
    array.release = None


@_Release
def _release_schema(address: int) -> None:
    _Schema.from_address(address).release = None


def map_texts(texts: pl.Series, folder: str | None = None) -> pl.Series:
    """The same texts (no nulls), kept in an unlinked file under ``folder`` (default: the system's) instead of memory.

    Raises CacheError if the file cannot be written.
    """
    folder = folder or tempfile.gettempdir()
    with nameless(folder) as file, writable(folder, TMPDIR):
        sizes = texts.str.len_bytes().to_numpy().astype(np.int64)
        file.write(np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]).data)
        for part in texts.to_frame().iter_slices(SLICE):
            file.write(part.to_series().str.join("").cast(pl.Binary)[0])
        file.flush()
        bytes_of_file = np.memmap(file, np.uint8, mode="r")
    start = 8 * (len(texts) + 1)
    column: Any = _Texts(bytes_of_file[:start], bytes_of_file[start:], len(texts))
    return pl.Series(column).alias(texts.name)


class _Texts:
    """A large string array over two buffers, exported through the Arrow C data interface."""

    def __init__(self, offsets: NDArray[np.uint8], data: NDArray[np.uint8], length: int) -> None:
        self._offsets, self._data, self._length = offsets, data, length
        self._shells: list[ctypes.Structure] = []  # the consumer moves their content out while this object lives

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, ...]:
        schema = _Schema(b"U", b"", None, 0, 0, None, None, ctypes.cast(_release_schema, ctypes.c_void_p), None)
        pointers = (ctypes.c_void_p * 3)(None, self._offsets.ctypes.data, self._data.ctypes.data)
        key = id(pointers)
        array = _Array(self._length, 0, 0, 3, 0, pointers, None, None)
        array.release = ctypes.cast(_release_array, ctypes.c_void_p)
        array.private_data = key
        _alive[key] = (pointers, self._offsets, self._data)
        self._shells += [schema, array]
        return tuple(
            _new_capsule(ctypes.addressof(shell), name, None)
            for shell, name in ((schema, b"arrow_schema"), (array, b"arrow_array"))
        )
