"""The values of one column of a file with their counts, and what the user says they mean (``--labels``)."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from polypref.data.rows import words
from polypref.errors import SettingsError
from polypref.wording import counted, shown

MOST = 10_000  # different values that are counted one by one
LISTED = 8  # values in a message
REPEATED = 2  # times that a value occurs which is no slip
SLIPS = 0.1  # unreadable values, each once, as a share of the readable ones, that are no slips any more
FEW_SLIPS = 3  # so many are no slips in a small file either

SIDES = {"a": "A", "b": "B", "tie": "tie", "skip": "skip"}
PAIR = re.compile(r"\s*(.*?)\s*=\s*(A|B|tie|skip|[+-]?\d+(?:\.\d+)?)\s*(?:,|$)", re.IGNORECASE)
SCALE = re.compile(r"scale(?::([+-]?\d+(?:\.\d+)?)\.\.([+-]?\d+(?:\.\d+)?))?")
EXPECTED = (
    'expected "1=A,2=B,0=tie" (A, B, tie, skip, or for ratings a number), index, scale, scale:LOW..HIGH, '
    "decimal-comma or thousands"
)

Kind = Literal["", "values", "index", "scale", "decimal-comma", "thousands"]


class Vocabulary:
    """The distinct values of a column as written, without space around them, and how often each occurs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rows = self.absent = self.others = self.others_unknown = 0
        self.low, self.high = float("inf"), float("-inf")

    def add(self, column: pl.Series) -> int:
        """Count a batch of texts (null: absent); returns how many are absent."""
        text = column.str.strip_chars().fill_null("").alias("value")
        absent = 0
        for value, count in text.value_counts().iter_rows():
            if value == "":
                absent += count
                continue
            found = words.meaning(value)
            if isinstance(found, words.Number):
                self.low, self.high = min(self.low, found.value), max(self.high, found.value)
            if value in self.counts or len(self.counts) < MOST:
                self.counts[value] += count
            else:
                self.others += count
                self.others_unknown += count * (found is None)
        self.absent += absent
        self.rows += len(column)
        return absent

    def __str__(self) -> str:
        """``"1" (52 rows), "2" (68) and 3 other values``."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        listed = [f"{shown(value, 30)} ({count:,})" for value, count in ordered[:LISTED]]
        if more := len(ordered) - len(listed):
            listed.append(f"{counted(more, 'other values')}{' or more' if self.others else ''}")
        if self.absent:
            listed.append(f"nothing ({self.absent:,})")
        return " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def are_slips(unknown: Iterable[int], readable: int) -> bool:
    """Whether unreadable values with these counts are slips of the pen: none repeated, and few."""
    counts = list(unknown)
    return max(counts, default=0) < REPEATED and sum(counts) < max(FEW_SLIPS, SLIPS * readable)


@dataclass(frozen=True)
class Told:
    """What the user says the values mean. ``values``: what each stands for, by ``key``; ``ends`` of a scale."""

    text: str = ""
    kind: Kind = ""
    values: Mapping[str | float, str | float] = field(default_factory=dict)
    ends: tuple[float, float] | None = None

    def of(self, value: str) -> str | float | None:
        """What the value stands for: A, B, tie, skip or a number; None if nothing is said about it."""
        return self.values.get(key(value))


def key(value: str) -> str | float:
    """What makes two values the same: 1 and 1.0, A and a."""
    value = value.strip().casefold()
    return words.as_float(value) if words.NUMBER.fullmatch(value) else value


def told(text: str) -> Told:
    """The setting ``--labels``. Raises SettingsError."""
    plain = text.strip()
    if not plain:
        return Told()
    if plain in ("index", "decimal-comma", "thousands"):
        return Told(text, plain)
    if scale := SCALE.fullmatch(plain):
        ends = (float(scale[1]), float(scale[2])) if scale[1] else None
        if ends and ends[0] == ends[1]:
            raise SettingsError(f"--labels {plain}: expected two different ends, as in scale:1..7.")
        return Told(text, "scale", ends=ends)
    values: dict[str | float, str | float] = {}
    at = 0
    while at < len(plain):
        found = PAIR.match(plain, at)
        if found is None:
            raise SettingsError(f"--labels {shown(plain)[1:-1]}: {EXPECTED}.")
        meant = SIDES.get(found[2].lower())
        if values.setdefault(key(found[1]), meant or float(found[2])) != (meant or float(found[2])):
            raise SettingsError(f"--labels {shown(plain)[1:-1]}: {shown(found[1])} is given two meanings.")
        at = found.end()
    return Told(text, "values", values)


def mapping(pairs: Iterable[tuple[str, str]]) -> str:
    """The flag that gives each value its meaning, quoted for a shell."""
    text = ",".join(f"{value}={side}" for value, side in pairs)
    return f"--labels {shlex.quote(text)}" if re.search(r'["$`\\!]', text) else f'--labels "{text}"'
