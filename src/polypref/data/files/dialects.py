"""How a CSV file deviates from RFC 4180, told by its first lines: escaped quotes, spaces behind separators, a title."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from polypref.errors import InputError
from polypref.wording import shown

SEPARATED = ",\t;|"  # the separators that are found without being declared
BEFORE = 50  # lines in which the header is looked for


def refuse_title(path: str, lines: Sequence[tuple[int, bytes]]) -> None:
    """Raise InputError for a title or a remark above the header: one field, where the lines behind have several."""
    fields = [max(line.count(one) for one in SEPARATED.encode()) for _, line in lines[:BEFORE]]
    if fields[0] or len(fields) < 3 or b'"' in lines[0][1]:
        return
    at = next((k for k, count in enumerate(fields[:-1]) if count >= 2 and fields[k + 1] == count), None)
    if at is not None:
        raise InputError(
            f"{path}: line {lines[0][0]} is {shown(lines[0][1])}, and line {lines[at][0]} has {fields[at] + 1} fields: "
            f"a title may stand above the header. Leave it out: tail -n +{lines[at][0]} FILE > NEW."
        )


def is_escaped(lines: Sequence[str], separator: str, width: int) -> bool:
    """Whether the first lines are rows of ``width`` fields only if a backslash escapes the quote behind it."""
    if not any('\\"' in line for line in lines):
        return False
    doubled = [line.replace('\\"', '""') for line in lines]
    return not _are_rows(lines, separator, width) and _are_rows(doubled, separator, width)


def is_spaced(lines: Sequence[str], separator: str, width: int) -> bool:
    """Whether the first lines are rows of ``width`` fields only if quotes may open behind a space."""
    if separator == " " or not any(f'{separator} "' in line for line in lines):
        return False
    return not _are_rows(lines, separator, width) and _are_rows(lines, separator, width, spaced=True)


def _are_rows(lines: Sequence[str], separator: str, width: int, spaced: bool = False) -> bool:
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=spaced)
    try:
        return all(len(row) == width or not any(row) for row in reader)
    except csv.Error as error:
        return "unexpected end" in str(error)  # the first lines end within a record
