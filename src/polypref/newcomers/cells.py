"""Cells of the new-users grid: a route fitted on seen users learns every new user from a few comparisons.

A route is a learner. Its scorer serves a new person by ``adapt`` or, without that, as a stranger. A cell holds the
answers at all sizes and is stored by content hash, as in ``evaluation.cells``.

Suffixes here: ``_A`` numbers of judgements given, ``_V`` new users.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.data.thumbs import tested
from polypref.errors import PolyprefError
from polypref.learners.protocol import Adapts, Scorer, Serves, log_odds
from polypref.newcomers.active import asked_order
from polypref.newcomers.hold_out import Newcomers, hold_out
from polypref.runs.cell_store import StoredCells
from polypref.schema import Array, Json, Layout

KIND = "new-users-cell"
FULL = "individual"  # the route that is also fitted on all of a new user's comparisons, as the reference

Size = int | None  # comparisons of each new user; None: all they have


@dataclass(frozen=True)
class Cell:
    """``learner`` by name and ``seed``; ``asked``: a new user's comparisons come in the order of ``active``."""

    learner: str
    seed: int
    asked: bool = False

    def __str__(self) -> str:
        return f"{self.learner}{', asked' if self.asked else ''}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A cell's stored outcome: ``margin_AH`` on the new users' test rows for each size, NaN if a user has fewer.

    ``adapt_ms_A`` is the mean time to learn one user, NaN without users.
    """

    serves: str
    selection: dict[str, Any]
    seconds: float
    margin_AH: NDArray[np.float32]
    adapt_ms_A: NDArray[np.float64]


class _Fields(TypedDict):
    cell: dict[str, Json]
    serves: Serves
    selection: dict[str, Json]
    seconds: float


@dataclass(frozen=True, eq=False)
class Job(StoredCells):
    """``share`` of the users is new; ``sizes`` ascend, and None is last if ``FULL`` takes part."""

    kind: ClassVar[str] = KIND
    layout: ClassVar[Layout] = Layout(
        _Fields, {"margin_AH": Array(("A", "H"), "float32", finite=False), "adapt_ms_A": Array(("A",), finite=False)}
    )

    share: float
    sizes: tuple[Size, ...]

    @cached_property
    def _newcomers(self) -> dict[int, Newcomers]:
        return {}

    def newcomers(self, seed: int) -> Newcomers:
        """The new users of a seed, split and checked once."""
        if seed not in self._newcomers:
            self._newcomers[seed] = hold_out(self.comparisons, self.rule, seed, self.share)
        return self._newcomers[seed]

    def content(self, cell: Cell) -> dict[str, Any]:
        """See ``StoredCells``."""
        return {"cell": [cell.learner == FULL, cell.seed, cell.asked], "cut": [self.rule, self.share, list(self.sizes)]}


def run(job: Job, cell: Cell) -> None:
    """Fit one route, learn the new users at every size, score their test rows and store the outcome."""
    started = time.perf_counter()
    cut = job.newcomers(cell.seed)
    train, valid = job.comparisons.take(cut.train_rows), job.comparisons.take(cut.valid_rows)
    scorer = job.learners[cell.learner].fit(train, encoder=job.encoder, seed=cell.seed, valid=valid)
    if cell.asked:
        cut = asked_order(scorer, job.comparisons, cut, max((s for s in job.sizes if s is not None), default=0))
    test = tested(job.comparisons, cut.test_rows)
    strangers_H = log_odds(scorer, test).value_Q
    found = [_at_size(job, cut, scorer, test, strangers_H, size, cell) for size in job.sizes]
    config = {
        "cell": asdict(cell),
        "serves": scorer.serves,
        "selection": dict(scorer.selection),
        "seconds": time.perf_counter() - started,
    }
    arrays = {
        "margin_AH": np.stack([margin_H for margin_H, _ in found]).astype(np.float32),
        "adapt_ms_A": np.array([ms for _, ms in found]),
    }
    job.save(cell, config, arrays)


def _at_size(
    job: Job,
    cut: Newcomers,
    scorer: Scorer,
    test: Comparisons,
    strangers_H: NDArray[np.float64],
    size: Size,
    cell: Cell,
) -> tuple[NDArray[np.float64], float]:
    """Margins of the test rows of the users who have ``size`` comparisons (NaN: others), and milliseconds per user."""
    enough_V = cut.count_V >= (1 if size is None else size)
    counted_H = enough_V[np.searchsorted(cut.users_V, test.user_N)]
    if not isinstance(scorer, Adapts) or size == 0:
        nothing = size == 0 and cell.learner == FULL  # there is no individual reward without comparisons
        return np.where(counted_H & ~np.bool_(nothing), strangers_H, np.nan), np.nan
    if size is None and cell.learner != FULL:
        return np.full(len(test), np.nan), np.nan
    new, seconds = scorer, 0.0
    for v in np.flatnonzero(enough_V).tolist():
        few = job.comparisons.take(cut.few(v, size))
        user_id = job.comparisons.users.ids[int(cut.users_V[v])]
        before = time.perf_counter()
        new = new.adapt(user_id, few)  # type: ignore[union-attr]
        seconds += time.perf_counter() - before
    margin_H = np.full(len(test), np.nan)
    margin_H[counted_H] = log_odds(new, test.take(counted_H)).value_Q
    unknown = int((~np.isfinite(margin_H[counted_H])).sum())
    if unknown:
        raise PolyprefError(f"{unknown:,} test rows got a score that is not a finite number (size {size}).")
    users = int(enough_V.sum())
    return margin_H, 1000 * seconds / users if users else np.nan


def read(job: Job, cell: Cell) -> Outcome:
    """A stored cell's outcome."""
    config, arrays = job.load(cell)
    return Outcome(config["serves"], config["selection"], config["seconds"], arrays["margin_AH"], arrays["adapt_ms_A"])
