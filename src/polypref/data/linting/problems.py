"""Problems of single rows: counted by kind, with one example each with its file, line, value and next step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


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

    def merge(self, other: ProblemLog, file: str) -> None:
        """Add the counts of another log for ``file``."""
        for problem in other.problems:
            seen = self._found.get(problem.name) or replace(problem, count=0, file=file)
            self._found[problem.name] = replace(seen, count=seen.count + problem.count)
