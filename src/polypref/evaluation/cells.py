"""Cells of ``compare``: a learner fitted on one split of the data and scored on its test rows, stored by content hash.

``runs.cell_store`` says what the hash covers; a cell of ``compare`` adds training size, seed, split rule and arm.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from polypref.data.split import Split, check_leaks, split
from polypref.data.thumbs import tested
from polypref.errors import PolyprefError
from polypref.evaluation.budgets import Rows, training_rows
from polypref.evaluation.placebo import shuffle_users
from polypref.evaluation.settings import Budget
from polypref.learners.protocol import SOURCES, Serves, log_odds
from polypref.runs.cell_store import StoredCells
from polypref.schema import Json, Layout, floats, indices

Arm = Literal["real", "shuffled"]
KIND = "cell"


@dataclass(frozen=True)
class Cell:
    """``learner`` by name, ``size`` training comparisons (None: all), ``seed`` of the split, real or shuffled users.

    ``budget`` says what ``size`` counts: comparisons in total, or per user.
    """

    learner: str
    size: int | None
    seed: int
    arm: Arm = "real"
    budget: Budget = "total"

    def __str__(self) -> str:
        each = " per user" if self.budget == "per-user" else ""
        size = "all data" if self.size is None else f"size {self.size:,}{each}"
        return f"{self.learner}, {size}, seed {self.seed}" + (", shuffled users" if self.arm == "shuffled" else "")


@dataclass(frozen=True, eq=False)
class Outcome:
    """A cell's stored outcome: ``margin_H`` and ``source_H`` (index into SOURCES) on the test rows of its seed."""

    cell: Cell
    serves: str
    selection: dict[str, Any]
    seconds: float
    margin_H: NDArray[np.float32]
    source_H: NDArray[np.int8]


class _Fields(TypedDict):
    cell: dict[str, Json]
    serves: Serves
    selection: dict[str, Json]
    seconds: float


@dataclass(frozen=True, eq=False)
class Job(StoredCells):
    """The cells of ``compare``."""

    kind: ClassVar[str] = KIND
    layout: ClassVar[Layout] = Layout(
        _Fields, {"margin_H": floats("H", dtype="float32"), "source_H": indices("H", len(SOURCES), dtype="int8")}
    )

    @cached_property
    def _splits(self) -> dict[int, Split]:
        return {}

    def training_rows(self, size: int | None, seed: int, budget: Budget) -> tuple[Rows, Rows]:
        """The seed's training and validation rows, cut to a size. Raises SettingsError if that is impossible."""
        return training_rows(self.parts(seed), size, seed, budget, self.comparisons.user_N)

    def parts(self, seed: int) -> Split:
        """The split of a seed, made and checked for leaks once."""
        if seed not in self._splits:
            parts = split(self.comparisons, self.rule, seed)
            check_leaks(self.comparisons, parts)
            self._splits[seed] = parts
        return self._splits[seed]

    def content(self, cell: Cell) -> dict[str, Any]:
        """See ``StoredCells``."""
        return {"cell": [cell.size, cell.seed, cell.arm, cell.budget], "rule": self.rule}


def run(job: Job, cell: Cell) -> None:
    """Fit and score one cell and store the outcome."""
    started = time.perf_counter()
    parts = job.parts(cell.seed)
    train_rows, valid_rows = job.training_rows(cell.size, cell.seed, cell.budget)
    train, valid = job.comparisons.take(train_rows), job.comparisons.take(valid_rows)
    if cell.arm == "shuffled":
        train, valid = shuffle_users(train, cell.seed), shuffle_users(valid, cell.seed)
    scorer = job.learners[cell.learner].fit(train, encoder=job.encoder, seed=cell.seed, valid=valid)
    scores = log_odds(scorer, tested(job.comparisons, parts.test_rows))
    unknown = int((~np.isfinite(scores.value_Q)).sum())
    if unknown:
        raise PolyprefError(
            f"{unknown:,} of {len(scores.value_Q):,} test rows got a score that is not a finite number."
        )
    selection = dict(scorer.selection)
    if scores.unanswered_Q is not None:
        selection["test_unanswered"] = float(scores.unanswered_Q.mean())
    config = {
        "cell": asdict(cell),
        "serves": scorer.serves,
        "selection": selection,
        "seconds": time.perf_counter() - started,
    }
    arrays = {"margin_H": scores.value_Q.astype(np.float32), "source_H": scores.source_Q.astype(np.int8)}
    job.save(cell, config, arrays)


def read(job: Job, cell: Cell) -> Outcome:
    """A stored cell's outcome."""
    config, arrays = job.load(cell)
    return Outcome(
        cell, config["serves"], config["selection"], config["seconds"], arrays["margin_H"], arrays["source_H"]
    )
