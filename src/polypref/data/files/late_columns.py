"""Late columns: keys of a JSONL file that first occur after its first lines, found while it is read.

The roles of columns are decided before a file is read. If a key that would change them occurs late, ``watched`` ends
the reading, which starts again with that key known (``read_again``). So a file without late keys is read once, no file
is read further than its reader would, and the order of rows does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from polypref.data.files.documents import json_blocks
from polypref.data.files.limits import Limits
from polypref.data.giving_up import is_enough

COLON, QUOTE, SPACE = ord(":"), ord('"'), ord(" ")
AHEAD = 64 << 20  # bytes searched for more such keys after the first one

Result = TypeVar("Result")


class LateColumns(Exception):
    """Columns first occur after the lines that decided the file's layout."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


def read_again(attempt: Callable[[tuple[str, ...]], Result]) -> Result:
    """The result of ``attempt``, which gets the known late columns and is repeated for each new ones."""
    late: tuple[str, ...] = ()
    while True:
        try:
            return attempt(late)
        except LateColumns as found:
            assert not set(found.names) & set(late), found
            late += found.names


def watched(stream: Iterable[tuple[int, bytes]], wanted: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """The blocks of ``stream`` unchanged, until a line's own object has one of the keys ``wanted``.

    It then raises LateColumns with all of them that occur there or in as many bytes again, so that repeated reading
    stays proportional to the total.
    """
    marks = {key: f'"{key}"'.encode() for key in wanted}
    if not marks:
        yield from stream
        return
    size, found = 0, set()
    left = AHEAD
    for line, block in stream:
        found |= _keys_in(block, {key: mark for key, mark in marks.items() if key not in found})
        if not found:
            yield line, block
            size += len(block)
            left = max(size, AHEAD)
        left -= len(block)
        if found and left < 0:
            break
    if found:
        raise LateColumns([key for key in wanted if key in found])


def look_on(path: str, wanted: Sequence[str], limits: Limits) -> None:
    """Raise LateColumns for keys ``wanted`` in a file that is useless without them, unless it is given up before."""
    size = 0
    for line, block in watched(json_blocks(path, limits), wanted) if wanted else ():
        size += len(block)
        if is_enough(line, size, limits):
            return


def _keys_in(block: bytes, marks: dict[str, bytes]) -> set[str]:
    found: set[str] = set()
    for key, end in _ends(block, marks):
        if key not in found and _has(block, end, key):
            found.add(key)
    return found


def _ends(block: bytes, marks: dict[str, bytes]) -> Iterator[tuple[str, int]]:
    """Each key and the place of its closing quote, if a colon follows; inside a text quotes would be escaped."""
    byte = np.frombuffer(block, np.uint8)
    colon = np.flatnonzero(byte == COLON)
    end = colon - 1
    end -= byte[end] == SPACE
    end = end[(end >= 4) & (byte[end] == QUOTE)]
    tail = _tails(byte, end)
    wanted: dict[int, list[str]] = {}
    for key, mark in marks.items():
        if len(mark) < 5:
            yield from ((key, found.start() + len(mark) - 1) for found in re.finditer(re.escape(mark) + rb" ?:", block))
            continue
        wanted.setdefault(int.from_bytes(mark[-5:-1], "little"), []).append(key)
    likely = np.isin(tail, np.array(list(wanted), np.uint32))
    for last, at in zip(tail[likely].tolist(), end[likely].tolist(), strict=True):
        for key in wanted[last]:
            if block.endswith(marks[key], 0, at + 1):
                yield key, at


def _tails(byte: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The four bytes before each closing quote as one number."""
    parts = [byte[end - back].astype(np.uint32) << np.uint32(8 * (4 - back)) for back in (1, 2, 3, 4)]
    return parts[0] | parts[1] | parts[2] | parts[3]


def _has(block: bytes, at: int, key: str) -> bool:
    """Whether the line around ``at`` is an object with ``key`` at its top level."""
    start, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
    line = block[start : end if end >= 0 else len(block)]
    try:
        return key in msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
