"""Compares a new scorer with the one in force on the newest judgements, which neither has seen.

Both answer as they would in use: before a person's held-out judgements are asked about, each has learned the same
earlier judgements of that person. So the difference is what their shared parts are worth. Intervals are those of
``stats.cluster_robust``: people and pairs of texts go together, and the difference is paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from polypref.comparisons import Comparisons, from_columns
from polypref.errors import Diverged, NotEnoughData
from polypref.evaluation.tables import held_out as test_rows
from polypref.learners.protocol import Scorer, margins
from polypref.serve.people import knowing
from polypref.serve.store import Person, Stored
from polypref.stats.cluster_robust import UNBOUNDED, Bounds, Clusters, difference
from polypref.stats.metrics import HeldOut, Metric, accuracy_micro, log_loss
from polypref.wording import counted

FEWEST = 20  # decided judgements


class Compared(TypedDict):
    """A measure of both scorers, the new one's minus the other's, and the ends of its 95 % interval."""

    new: float | None
    in_force: float | None
    gain: float | None
    lo: float | None
    hi: float | None


class Report(TypedDict):
    """The comparison: how many judgements of how many people, and the measures."""

    judgements: int
    people: int
    accuracy: Compared
    log_loss: Compared


def compare(
    new: Scorer, in_force: Scorer, held: Mapping[Person, Comparisons], earlier: Mapping[Person, list[Stored]]
) -> Report:
    """Both scorers on ``held``, after both have learned ``earlier``. Raises NotEnoughData, Diverged."""
    decided = decided_of(held)
    if too_few(held):
        judged, people = counted(decided, "judgements"), counted(len(held), "people")
        raise NotEnoughData(
            f"{judged} by {people} to compare on (no ties, newer than the fit of the scorer in force); expected "
            f"{FEWEST} or more by 2. Wait for more, or add --force, which puts the new scorer in force uncompared."
        )
    rows = test_rows(together := _together(held), [np.arange(len(together))])
    margin_H = {}
    for name, scorer in (("new", new), ("in_force", in_force)):
        found = [
            margins(knowing(scorer, person, earlier.get(person, [])), asked).value_Q for person, asked in held.items()
        ]
        margin_H[name] = np.concatenate(found)
        if not np.isfinite(margin_H[name]).all():
            raise Diverged(f"the scorer {'in force' if name == 'in_force' else 'that was fitted'} gives no number.")
    return {
        "judgements": len(together),
        "people": len(held),
        "accuracy": _compared(rows, accuracy_micro, margin_H, (-1.0, 1.0)),
        "log_loss": _compared(rows, log_loss, margin_H, UNBOUNDED),
    }


def decided_of(held: Mapping[Person, Comparisons]) -> int:
    """How many are no ties."""
    return sum(len(rows) - int(0 if rows.tie_N is None else rows.tie_N.sum()) for rows in held.values())


def too_few(held: Mapping[Person, Comparisons]) -> bool:
    """Whether there are too few judgements, or people, to compare on."""
    return decided_of(held) < FEWEST or len(held) < 2


def worse(report: Report) -> bool:
    """Whether the whole interval of the accuracy's difference is below zero."""
    hi = report["accuracy"]["hi"]
    if hi is None:
        raise NotEnoughData("the judgements to compare on are too much alike for an interval; wait for more.")
    return hi < 0


def _compared(rows: HeldOut, metric: Metric, margin_H: Mapping[str, np.ndarray], bounds: Bounds) -> Compared:
    all_H = np.ones(len(rows), bool)
    new, old = (metric(rows, all_H, margin_H[name]) for name in ("new", "in_force"))
    gain = difference(new, old)
    (ends,) = Clusters(rows).intervals([gain], bounds)
    return {"new": new.value, "in_force": old.value, "gain": gain.value, "lo": ends.lo, "hi": ends.hi}


def _together(held: Mapping[Person, Comparisons]) -> Comparisons:
    """The held-out comparisons of everybody as one data set, in the same order."""
    columns: dict[str, list] = {name: [] for name in ("user", "prompt", "chosen", "rejected", "tie")}
    for at, rows in enumerate(held.values()):
        pool = rows.responses
        columns["user"] += [str(at)] * len(rows)
        columns["prompt"] += pool.prompts.gather(pool.prompt_R[rows.chosen_N]).to_list()
        columns["chosen"] += pool.texts_R.gather(rows.chosen_N).to_list()
        columns["rejected"] += pool.texts_R.gather(rows.rejected_N).to_list()
        columns["tie"] += [False] * len(rows) if rows.tie_N is None else rows.tie_N.tolist()
    user, prompt, chosen, rejected, tie = columns.values()
    return from_columns(user, prompt, chosen, rejected, tie_N=tie)
