"""Limits of what a file from elsewhere may use of this machine; ordinary files stay below, and users can raise them.

Covered: compressed files that grow without end, endless lines and records, nesting, absurd numbers of columns or
attributes. Not covered: ordinary sizes; ten million rows of preferences are read whatever they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from polypref.errors import InputError, SettingsError, unknown_name


@dataclass(frozen=True)
class Limits:
    """Limits of one file.

    ``line_bytes``      bytes of one line or CSV record, and of space between two rows.
    ``columns``         columns of a CSV or Parquet file; different keys among the first lines of a JSONL file.
    ``attribute_keys``  different keys of the users' attributes.
    ``depth``           levels of lists and objects within a chat or an attribute.
    ``whole_bytes``     decompressed bytes of a file that is read whole: a published set, a suite, slates.
    ``unusable_rows``   rows, or KiB, read of a file while more than half of its rows are unusable.
    """

    line_bytes: int = 16 << 20
    columns: int = 10_000
    attribute_keys: int = 1_000
    depth: int = 64
    whole_bytes: int = 512 << 20
    unusable_rows: int = 1_000_000


NAMES = tuple(field.name for field in fields(Limits))


def parse_limits(pairs: Sequence[str]) -> Limits:
    """``NAME=NUMBER`` words to limits. Raises SettingsError for another name or a value that is not positive."""
    found: dict[str, int] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--limits {pair}: expected NAME=NUMBER, as in --limits line_bytes=100000000.")
        if name not in NAMES:
            raise unknown_name("limit in --limits", name, NAMES)
        if not (value.isascii() and value.isdigit() and int(value[:18]) > 0 and len(value) <= 18):
            raise SettingsError(f"--limits {pair}: expected a whole number above 0.")
        found[name] = int(value)
    return Limits(**found)


def over(what: str, most: int, name: str, advice: str = "") -> InputError:
    """The error for exceeding the limit ``name``."""
    hint = f" {advice}" if advice else ""
    return InputError(f"{what}, more than {most:,}.{hint} --limits {name}=NUMBER raises the limit.")
