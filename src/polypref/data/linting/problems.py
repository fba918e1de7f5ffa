"""Problems of single rows: counted by kind, with one example each with its file, line, value and next step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.errors import InputError
from polypref.wording import shown

REPEATED = 3  # times that a value occurs which is no slip
SLIPS = 0.1  # unreadable labels, all different, as a share of the readable ones, that are no slips any more
MOST_VALUES = 100  # different unreadable labels that are counted


@dataclass(frozen=True)
class RowProblem:
    """``count`` rows of one kind; ``text`` describes the first in one line. Kept rows lack only the faulty value."""

    name: str
    count: int
    file: str
    line: int
    text: str
    kept: bool = False


class ProblemLog:
    """Collects the row problems of one read."""

    def __init__(self) -> None:
        self._found: dict[str, RowProblem] = {}
        self._sides: set[float] = set()
        self._unread: Counter[str] = Counter()
        self._can_read = self._cannot_read = 0

    @property
    def rows(self) -> int:
        """Rows that could not be used."""
        return sum(problem.count for problem in self._found.values() if not problem.kept)

    @property
    def problems(self) -> tuple[RowProblem, ...]:
        """One entry per kind, most frequent first."""
        return tuple(sorted(self._found.values(), key=lambda problem: -problem.count))

    def add(self, name: str, file: str, lines: NDArray[np.integer] | list[int], text: str, kept: bool = False) -> None:
        """Count rows of one kind; ``text`` says what is wrong with the first of ``lines`` and what to do."""
        if not len(lines):
            return
        seen = self._found.get(name)
        if seen is not None:
            self._found[name] = replace(seen, count=seen.count + len(lines))
            return
        line = int(lines[0])
        told = f"line {line} of {file}: {text}"
        self._found[name] = RowProblem(name, len(lines), file, line, told, kept)

    def labels(self, label: pl.Series, unread: pl.Series) -> None:
        """Count what labels say: ``label`` as numbers (null: unreadable), ``unread`` the unreadable as written."""
        self._sides.update(label.drop_nulls().unique().to_list())
        self._can_read += len(label) - label.null_count()
        self._cannot_read += len(unread) - unread.null_count()
        if len(self._unread) < MOST_VALUES:
            counts = unread.alias("value").drop_nulls().value_counts().sort(-pl.col("count").cast(pl.Int64), "value")
            self._unread.update(dict(counts.head(MOST_VALUES).iter_rows()))

    def refuse_one_side(self, file: str, column: str) -> None:
        """Raise InputError if all readable labels prefer one side, and what cannot be read is more than slips: a value
        that is repeated, or many values. The file means something else by its labels; what is left would look valid."""
        sides = self._sides - {0.5}
        value, count = max(self._unread.items(), key=lambda item: item[1], default=("", 0))
        many = self._cannot_read >= max(REPEATED, SLIPS * self._can_read)
        if len(sides) == 1 and (count >= REPEATED or many):
            side = "response_a" if sides == {1.0} else "response_b"
            said = f"{count:,} say" if count >= REPEATED else f"{self._cannot_read:,} cannot, such as"
            raise InputError(
                f'{file}: every label in column "{column}" that can be read prefers {side}, and {said} '
                f"{shown(value)}, which is none of A, B and tie (1, 0, 0.5). Write A, B or tie in that column."
            )

    def merge(self, other: ProblemLog, file: str) -> None:
        """Add the counts of another log for ``file``."""
        for problem in other.problems:
            seen = self._found.get(problem.name) or replace(problem, count=0, file=file)
            self._found[problem.name] = replace(seen, count=seen.count + problem.count)
