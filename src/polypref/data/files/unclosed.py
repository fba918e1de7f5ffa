"""Quotes in CSV that are never closed, or closed by the next stray one: the rows between become one text.

Such a file can be legal CSV, and then nothing but the lines of that text tells: they look like rows of the file. A text
with a table in it does not, unless the table has the same columns and the same users.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from polypref.errors import InputError

NEWLINE = ord("\n")
MANY = 50  # lines of as many fields as the file has columns: no text has so many


def ensure_closed(
    path: str, line: int, lines: Sequence[str], separator: str, known: Sequence[Collection[str]] | None, width: int
) -> None:
    """Raise InputError if a quote in the record of these ``lines``, the first of which is ``line``, swallowed rows.

    ``known``: the values of each of the file's ``width`` columns. None: the record is broken, so that lines with as
    many fields as the file has columns are evidence enough.
    """
    inside = lines[1:] if known is None else lines[1:-1]
    like_rows = [one.count(separator) == width - 1 for one in inside]
    first = _rows_begin(inside, like_rows, separator, known)
    if first is None:
        return
    opened = _opening(lines[: first + 1])
    raise InputError(
        f"line {line + opened} of {path}: a quote may never be closed; {len(lines) - 1 - opened:,} lines behind it, "
        "which look like rows, would be one text. Close it, or double it if it belongs to the text."
    )


def _rows_begin(
    inside: Sequence[str], like_rows: Sequence[bool], separator: str, known: Sequence[Collection[str]] | None
) -> int | None:
    """The first of the lines ``inside`` a record that are rows of the file."""
    if known is None:
        return like_rows.index(True) if inside and 2 * sum(like_rows) >= len(inside) else None
    run = matched = 0
    for place, (one, is_like) in enumerate(zip(inside, like_rows, strict=True)):
        run = run + 1 if is_like else 0
        matched = matched + 1 if is_like and _matches(one, separator, known) else 0
        if matched >= 2:
            return place - matched + 1
        if run >= MANY:
            return place - run + 1
    return None


def _matches(line: str, separator: str, known: Sequence[Collection[str]]) -> bool:
    """Whether values of a line occur in the same columns of other rows: a word, or two numbers."""
    cells = [cell.strip().strip('"') for cell in line.split(separator)]
    same = [cell for cell, values in zip(cells, known, strict=True) if cell and cell in values]
    return len(same) >= 2 or any(len(cell) >= 2 and not cell.isdigit() for cell in same)


def _opening(lines: Sequence[str]) -> int:
    """The place of the line whose quote is open behind the last of ``lines``."""
    quotes, opened = 0, 0
    for place, one in enumerate(lines):
        own = one.count('"')
        quotes += own
        if own and quotes % 2:
            opened = place
    return opened


def suspicious(data: bytes, starts: NDArray[np.int64], separator: int, width: int) -> NDArray[np.int64]:
    """The records, of those at ``starts``, with two lines in a row inside that have as many fields as columns."""
    byte = np.frombuffer(data, np.uint8)
    newline = np.flatnonzero(byte == NEWLINE)
    if len(newline) <= len(starts):
        return np.zeros(0, np.int64)
    before = np.searchsorted(np.flatnonzero(byte == separator), newline)
    alike = np.diff(before, prepend=0) == width - 1
    first = np.searchsorted(newline, starts)
    alike[first] = False
    alike[first[1:] - 1] = False
    alike[-1] = False
    found = np.flatnonzero(alike[:-1] & alike[1:])
    return np.unique(np.searchsorted(first, found, side="right") - 1)
