"""Decides when to stop reading a file: as soon as more than half of its rows so far are unusable.

A file is checked at its end, and before that once ``limits.unusable_rows`` rows, or as many KiB, were read. So rubbish
costs at most a million rows or a GiB, or as much as the usable part before it, however long it is.

Not covered: a file whose usable rows come only after a million unusable ones; ``--limits unusable_rows`` reads it.
"""

from __future__ import annotations

import re

from polypref.data.files.limits import Limits, over
from polypref.data.files.textfiles import Batch
from polypref.data.linting.problems import ProblemLog
from polypref.errors import InputError
from polypref.wording import are, counted

EMPTY = 20  # this many empty lines count as an unusable row
ADVICE = "--limits unusable_rows=NUMBER reads more of them."


def is_enough(rows: int, size: int, limits: Limits) -> bool:
    """Whether ``rows`` rows of ``size`` bytes are enough to check a file before its end."""
    return max(rows, size >> 10) > limits.unusable_rows


class ReadSoFar:
    """Counts of what was read of one file: rows, unusable ones (``unusable``), empty lines, bytes."""

    def __init__(self, path: str, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.unusable = ProblemLog()
        self.rows = self.useful = self.empty = self.size = 0

    def add(self, batch: Batch, useful: int) -> None:
        """Count a batch with ``useful`` usable rows. Raises InputError to give up the file."""
        self.rows += batch.rows
        self.useful += min(useful, batch.rows)
        self.empty += batch.empty
        self.size += batch.size
        rows = self.rows + self.empty // EMPTY
        if 2 * self.useful < rows and is_enough(rows, self.size, self.limits):
            self.refuse_if_most("the first ", f" {ADVICE}")
            raise InputError(
                f"only {self.useful:,} of the first {counted(self.rows + self.empty, 'lines')} of "
                f"{self.path} {are(self.useful)} usable. "
                f"Is it the right file? {ADVICE}"
            )

    def add_whole(self, batch: Batch) -> None:
        """Count a batch of a file that is read whole. Raises InputError if it is larger than allowed."""
        self.add(batch, batch.rows)
        if self.size > self.limits.whole_bytes:
            what = f"{self.path} holds at least {counted(self.size, 'bytes')}"
            raise over(what, self.limits.whole_bytes, "whole_bytes")

    def refuse_any(self, why: str) -> None:
        """Raise InputError if a row is unusable; ``why`` says why all rows are needed."""
        bad = self.unusable
        if bad.rows:
            first = re.sub(r"[;.] the row is left out\.$", "", bad.problems[0].text, flags=re.IGNORECASE)
            raise InputError(f"{counted(bad.rows, 'rows')} of {self.path} cannot be read, {why}: {first}.")

    def refuse_if_most(self, read: str = "", advice: str = "") -> None:
        """Raise InputError if more than half of the rows are unusable."""
        bad = self.unusable
        if 2 * bad.rows > self.rows:
            worst = next(problem for problem in bad.problems if not problem.kept)
            raise InputError(
                f"{bad.rows:,} of {read}{counted(self.rows, 'rows')} cannot be used; the first: {worst.text}{advice}"
            )
