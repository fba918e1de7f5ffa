"""The rows of one batch on their way to canonical form, which every step reads and replaces."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.files.textfiles import Batch
from polypref.data.linting.problems import ProblemLog
from polypref.data.rows.layouts import Layout
from polypref.wording import shown

Reader = Callable[[pl.Series], tuple[pl.Series, pl.Series]]


class Rows:
    """The rows of one batch while they are brought to canonical form: columns by role, and who is dropped why.

    ``nested``: the roles whose column holds lists or objects, not texts that may look like them.
    """

    def __init__(
        self, batch: Batch, layout: Layout, file: str, problem_log: ProblemLog, limits: Limits | None = None
    ) -> None:
        self.layout, self.file, self.problem_log, self.limits = layout, file, problem_log, limits or Limits()
        self.nested = frozenset(role for role, name in layout.names.items() if name in batch.nested)
        self.untyped = batch.untyped
        self.frame = batch.frame.select(
            pl.Series("line", batch.line_B), *(pl.col(name).alias(role) for role, name in layout.names.items())
        )

    def has(self, role: str) -> bool:
        """Whether the rows have a column for ``role``."""
        return role in self.frame.columns

    def set(self, **columns: pl.Series) -> None:
        """Replace or add columns."""
        self.frame = self.frame.with_columns(**columns)

    def drop(self, name: str, bad: pl.Series, role: str, expected: str) -> None:
        """Leave out the rows marked ``bad`` and count them as ``name``."""
        if bad.any():
            self._tell(name, bad, role, f"expected {expected}. The row is left out.", kept=False)
            self.frame = self.frame.filter(~bad)

    def note(self, name: str, odd: pl.Series, text: str) -> None:
        """Count the rows marked ``odd``, which are kept, as ``name``."""
        if odd.any():
            lines = self.frame["line"].filter(odd).to_numpy()
            self.problem_log.add(name, self.file, lines, f"{text} The row is kept.", kept=True)

    def _tell(self, name: str, bad: pl.Series, role: str, text: str, kept: bool) -> None:
        value = self.frame[role].filter(bad)[0]
        found = "missing" if value is None else shown(value)
        column = self.layout.names.get(role, role)
        lines = self.frame["line"].filter(bad).to_numpy()
        self.problem_log.add(name, self.file, lines, f'"{column}" is {found}; {text}', kept=kept)

    def read_optional(self, role: str, reader: Reader, expected: str) -> None:
        """Replace a column by what ``reader`` makes of it; rows whose value cannot be read are kept without it."""
        value, bad = reader(self.frame[role])
        if bad.any():
            self._tell(f"unreadable {role}", bad, role, f"expected {expected}. The row is kept without it.", kept=True)
        self.set(**{role: value})
