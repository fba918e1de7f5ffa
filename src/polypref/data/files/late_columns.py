"""Keys of a JSONL file that first stand behind the lines that were looked at, found without parsing the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from polypref.data.files.limits import Limits
from polypref.data.files.textfiles import blocks

COLON, QUOTE, SPACE = ord(":"), ord('"'), ord(" ")


def later_keys(path: str, wanted: Sequence[str], limits: Limits) -> list[str]:
    """Which of the keys ``wanted`` stand in any line's own object, in the order given."""
    marks = {key: f'"{key}"'.encode() for key in wanted}
    found: set[str] = set()
    if not marks:
        return []
    for _, block in blocks(path, limits):
        for key, end in _ends(block, {key: mark for key, mark in marks.items() if key not in found}):
            if key not in found and _has(block, end, key):
                found.add(key)
    return [key for key in wanted if key in found]


def _ends(block: bytes, marks: dict[str, bytes]) -> Iterator[tuple[str, int]]:
    """Each key and where its closing quote stands, if a colon follows; inside a text quotes would be escaped."""
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
    """Whether the line around ``at`` is an object with ``key`` in itself and not in something nested."""
    start, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
    line = block[start : end if end >= 0 else len(block)]
    try:
        return key in msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
