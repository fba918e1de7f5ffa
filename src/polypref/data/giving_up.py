"""When the reading of a file is given up: as soon as more than half of its rows so far are of no use.

A file is judged at its end, and before that once ``limits.unusable_rows`` rows, or as many KiB, were read. So rubbish
costs a million rows or a GiB, or as much again as what stands in front of it and can be used, however long it goes on.

Not covered: a file whose rows can be used, but only behind a million that cannot; ``--limits unusable_rows`` reads it.
"""

from __future__ import annotations

import re

from polypref.data.files.limits import Limits, over
from polypref.data.files.textfiles import Batch
from polypref.data.linting.problems import Tally, short
from polypref.errors import InputError

EMPTY = 20  # so many empty lines count as a row of no use
ADVICE = "--limits unusable_rows=NUMBER reads more of them."


def is_enough(rows: int, size: int, limits: Limits) -> bool:
    """Whether ``rows`` rows of ``size`` bytes are enough to judge a file by, though it goes on."""
    return max(rows, size >> 10) > limits.unusable_rows


class ReadSoFar:
    """What was read of one file: rows, which of them cannot be used (``unusable``), empty lines, bytes."""

    def __init__(self, path: str, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.unusable = Tally()
        self.rows = self.useful = self.empty = self.size = 0

    def add(self, batch: Batch, useful: int) -> None:
        """Count a batch, ``useful`` rows of which say something. Raises InputError to give up the file."""
        self.rows += batch.rows
        self.useful += min(useful, batch.rows)
        self.empty += batch.empty
        self.size += batch.size
        rows = self.rows + self.empty // EMPTY
        if 2 * self.useful < rows and is_enough(rows, self.size, self.limits):
            self.refuse_if_most("the first ", f" {ADVICE}")
            raise InputError(
                f"only {self.useful:,} of the first {self.rows + self.empty:,} lines of {short(self.path)} are of use. "
                f"Is it the right file? {ADVICE}"
            )

    def add_whole(self, batch: Batch) -> None:
        """Count a batch of a file that is read whole. Raises InputError when it is larger than such files may be."""
        self.add(batch, batch.rows)
        if self.size > self.limits.whole_bytes:
            what = f"{short(self.path)} holds at least {self.size:,} bytes"
            raise over(what, self.limits.whole_bytes, "whole_bytes")

    def refuse_any(self, why: str) -> None:
        """Raise InputError when a row cannot be used; ``why`` says what all of them are needed for."""
        bad = self.unusable
        if bad.rows:
            first = re.sub(r"[;.] the row is left out\.$", "", bad.problems[0].text, flags=re.IGNORECASE)
            raise InputError(f"{bad.rows:,} rows of {short(self.path)} cannot be read, {why}: {first}.")

    def refuse_if_most(self, read: str = "", advice: str = "") -> None:
        """Raise InputError when more than half of the rows cannot be used."""
        bad = self.unusable
        if 2 * bad.rows > self.rows:
            worst = next(problem for problem in bad.problems if not problem.kept)
            raise InputError(
                f"{bad.rows:,} of {read}{self.rows:,} rows cannot be used; the first: {worst.text}{advice}"
            )
