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
        if len(self._unread) < MOST_VALUES:
            counts = unread.drop_nulls().value_counts()
            self._unread.update(dict(counts.head(MOST_VALUES).iter_rows()))

    def refuse_one_side(self, file: str, column: str) -> None:
        """Raise InputError if all readable labels prefer one side and another value is repeated: the file means
        something else by its labels, and what is left would look valid."""
        sides = self._sides - {0.5}
        value, count = max(self._unread.items(), key=lambda item: item[1], default=("", 0))
        if len(sides) == 1 and count >= REPEATED:
            side = "response_a" if sides == {1.0} else "response_b"
            raise InputError(
                f'{file}: every label in column "{column}" that can be read prefers {side}, and {count:,} say '
                f"{shown(value)}, which is none of A, B and tie (1, 0, 0.5). Write A, B or tie in that column."
            )

    def merge(self, other: ProblemLog, file: str) -> None:
        """Add the counts of another log for ``file``."""
        for problem in other.problems:
            seen = self._found.get(problem.name) or replace(problem, count=0, file=file)
            self._found[problem.name] = replace(seen, count=seen.count + problem.count)
