"""A table of results: figures of each learner by metric, cohort and training size.

A figure that was not measured is None, never 0; a missing row is None too; two rows where one is expected are an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from math import isfinite, nan
from typing import Any, Literal, Self

from polypref.errors import InputError

METRIC, COHORT = "accuracy_micro", "all"  # defaults of look-ups
ROW = ("learner", "size", "cohort", "metric", "value", "lo", "hi", "se", "n_users", "n_comparisons", "seeds")
GAIN = (*ROW, "baseline", "p", "variance_parts")
SHUFFLED = (*GAIN, "arm")
PLACEBO = (*SHUFFLED, "better", "worse", "tested")


@dataclass(frozen=True)
class ResultRow:
    """One figure of one learner with its 95 % interval; in a table of gains, the difference to ``baseline``.

    ``size``    training comparisons, or those of a new person; None: all there are.
    ``value``   None if it could not be measured; ``lo``, ``hi``, ``se`` are None if its error is unknown.
    ``p``       two-sided, for no gain; ``variance_parts``: the sources of the variance.
    ``arm``     the training data, if not the real ones.
    ``better``, ``worse``, ``tested``  users counted one by one.
    """

    learner: str
    size: int | None = None
    cohort: str = COHORT
    metric: str = METRIC
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    se: float | None = None
    n_users: int | None = None
    n_comparisons: int | None = None
    seeds: int | None = None
    baseline: str | None = None
    p: float | None = None
    variance_parts: Mapping[str, float] | None = None
    arm: str | None = None
    better: int | None = None
    worse: int | None = None
    tested: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """A row from JSON; unknown keys are ignored. Raises InputError for a value of another kind."""
        if not isinstance(row, Mapping) or not isinstance(row.get("learner"), str):
            raise InputError(
                f"a row of results names no learner: {str(row)[:80]}; expected learner, metric, value, ..."
            )
        known: dict[str, Any] = {name: row[name] for name in _NAMES if row.get(name) is not None}
        for name, value in known.items():
            if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
                raise InputError(
                    f"a row of results has {name} {str(value)[:80]!r}; expected {_EXPECTED[_KINDS[name]]}."
                )
        unknown = [name for name, value in known.items() if isinstance(value, float) and not isfinite(value)]
        return cls(**{name: value for name, value in known.items() if name not in unknown})

    def as_dict(self, names: Iterable[str]) -> dict[str, Any]:
        """The fields called ``names``, by name."""
        return {name: getattr(self, name) for name in names}

    @property
    def bounded(self) -> BoundedRow | None:
        """The row itself if value, interval and counts are known; else None."""
        needed = (self.value, self.lo, self.hi, self.n_users, self.n_comparisons)
        return None if None in needed else BoundedRow(**vars(self))

    @property
    def ends(self) -> dict[str, float | None]:
        """``lo`` and ``hi``, as ``wording.interval`` takes them."""
        return {"lo": self.lo, "hi": self.hi}

    @property
    def kind(self) -> Literal["better", "worse", "unclear"]:
        """The side of zero of a gain's interval; unclear if it contains zero or is missing."""
        if self.lo is None or self.hi is None:
            return "unclear"
        return "better" if self.lo > 0 else "worse" if self.hi < 0 else "unclear"


@dataclass(frozen=True)
class BoundedRow(ResultRow):
    """A row whose value and interval are known."""

    value: float = nan
    lo: float = nan
    hi: float = nan
    n_users: int = 0
    n_comparisons: int = 0


_NAMES = tuple(field.name for field in fields(ResultRow))
_TEXT, _NUMBER, _SHARES = (str,), (int, float), (dict,)
_KINDS: dict[str, tuple[type, ...]] = dict.fromkeys(_NAMES, _NUMBER) | {"variance_parts": _SHARES}
_KINDS |= dict.fromkeys(("learner", "cohort", "metric", "baseline", "arm"), _TEXT)
_EXPECTED = {_TEXT: "a text", _NUMBER: "a number", _SHARES: "shares by name"}


@dataclass(frozen=True)
class ResultTable:
    """Rows in their order."""

    rows: tuple[ResultRow, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """Rows from JSON. Raises InputError as ``ResultRow.of`` does."""
        return cls(tuple(map(ResultRow.of, rows)))

    def __iter__(self) -> Iterator[ResultRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __add__(self, other: ResultTable) -> ResultTable:
        return ResultTable(self.rows + other.rows)

    def as_dicts(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """The rows as JSON, with the keys ``names``."""
        return [row.as_dict(names) for row in self.rows]

    @cached_property
    def learners(self) -> list[str]:
        """In the order of their first rows."""
        return list(dict.fromkeys(row.learner for row in self.rows))

    @cached_property
    def sizes(self) -> list[int]:
        """Measured sizes, ascending."""
        return sorted({row.size for row in self.rows if row.size is not None})

    @cached_property
    def full(self) -> int | None:
        """The largest size; None: a row of all the data, or no row at all."""
        return None if any(row.size is None for row in self.rows) or not self.rows else self.sizes[-1]

    @cached_property
    def metrics(self) -> set[str]:
        return {row.metric for row in self.rows}

    def where(self, **wanted: Any) -> ResultTable:
        """The rows whose fields equal ``wanted``."""
        return ResultTable(tuple(r for r in self.rows if all(getattr(r, name) == w for name, w in wanted.items())))

    def at_full(self) -> ResultTable:
        """The rows at the largest size."""
        return self.where(size=self.full)

    def at(self, learner: str, metric: str = METRIC, cohort: str = COHORT, size: int | None = None) -> ResultRow | None:
        """The single row of a learner, at the table's largest size if none is given; None if there is none.

        Raises InputError if several rows match.
        """
        found = self._index.get((learner, metric, cohort, self.full if size is None else size), [])
        return _only(found)

    @cached_property
    def _index(self) -> dict[tuple[str, str, str, int | None], list[ResultRow]]:
        found: dict[tuple[str, str, str, int | None], list[ResultRow]] = {}
        for row in self.rows:
            found.setdefault((row.learner, row.metric, row.cohort, row.size), []).append(row)
        return found

    def by_learner(self, metric: str | None = METRIC, cohort: str = COHORT) -> dict[str, ResultRow]:
        """Each learner's single row at the largest size, if any. Raises InputError if several match."""
        rows = self.where(metric=metric, cohort=cohort).at_full()
        return {name: row for name in rows.learners if (row := _only(list(rows.where(learner=name))))}


def _only(found: list[ResultRow]) -> ResultRow | None:
    if len(found) > 1:
        row = found[0]
        what = f"{row.learner}, {row.metric}, {row.cohort}, size {row.size}"
        raise InputError(f"{len(found)} rows of results match {what}; expected one. Run polypref compare again.")
    return found[0] if found else None
