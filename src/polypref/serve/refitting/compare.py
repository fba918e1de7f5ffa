"""Compares a new scorer with the one in force on the newest judgements, which neither has seen.

Both answer as they would in use: before a person's held-out judgements are asked about, each has learned the same
earlier judgements of that person. So the difference is what their shared parts are worth. Intervals are those of
``stats.cluster_robust``: people (ten or more; fewer stand for themselves) and pairs of texts go together, and the
difference is paired. The pairs of a list of ratings have the weights with which they are learned. The log loss is that
of log odds, which know how sure a scorer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from polypref.comparisons import Comparisons, from_columns
from polypref.errors import Diverged, NotEnoughData
from polypref.evaluation.tables import held_out as test_rows
from polypref.learners.protocol import Scorer, log_odds
from polypref.serve.people import knowing
from polypref.serve.store.contract import Person, Stored
from polypref.stats.cluster_robust import FEW_USERS, UNBOUNDED, Bounds, Clusters, difference
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
    """The comparison: how many judgements of how many people, the most of one of them, and the measures."""

    judgements: int
    people: int
    of_one: int
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
            log_odds(knowing(scorer, person, earlier.get(person, [])), asked).value_Q for person, asked in held.items()
        ]
        margin_H[name] = np.concatenate(found)
        if not np.isfinite(margin_H[name]).all():
            raise Diverged(f"the scorer {'in force' if name == 'in_force' else 'that was fitted'} gives no number.")
    return {
        "judgements": len(together),
        "people": len(held),
        "of_one": max(map(len, held.values())),
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


def limits_of(report: Report) -> list[str]:
    """What the comparison does not show, in sentences."""
    said, (gain, judgements, of_one) = [], (report["accuracy"], report["judgements"], report.get("of_one", 0))
    if report["people"] < FEW_USERS:
        said.append(
            f"fewer than {FEW_USERS} people: the interval holds for these people, not for others, and does not cover "
            "how much people differ"
        )
    if 2 * of_one > judgements:
        said.append(f"one person gave {of_one:,} of the {counted(judgements, 'judgements')} compared on, and decides")
    if gain["lo"] is not None and gain["lo"] < 0 <= (gain["hi"] or 0.0):
        said.append(f"not excluded: {-100 * gain['lo']:.1f} points less accuracy, at each refit anew; see --history")
    return said


def _compared(rows: HeldOut, metric: Metric, margin_H: Mapping[str, np.ndarray], bounds: Bounds) -> Compared:
    all_H = np.ones(len(rows), bool)
    new, old = (metric(rows, all_H, margin_H[name]) for name in ("new", "in_force"))
    gain = difference(new, old)
    (ends,) = Clusters(rows).intervals([gain], bounds)
    return {"new": new.value, "in_force": old.value, "gain": gain.value, "lo": ends.lo, "hi": ends.hi}


def _together(held: Mapping[Person, Comparisons]) -> Comparisons:
    """The held-out comparisons of everybody as one data set, in the same order."""
    columns: dict[str, list] = {name: [] for name in ("user", "prompt", "chosen", "rejected", "tie", "weight")}
    for at, rows in enumerate(held.values()):
        pool = rows.responses
        columns["user"] += [str(at)] * len(rows)
        columns["prompt"] += pool.prompts.gather(pool.prompt_R[rows.chosen_N]).to_list()
        columns["chosen"] += pool.texts_R.gather(rows.chosen_N).to_list()
        columns["rejected"] += pool.texts_R.gather(rows.rejected_N).to_list()
        columns["tie"] += [False] * len(rows) if rows.tie_N is None else rows.tie_N.tolist()
        columns["weight"] += rows.weights_N.tolist()
    user, prompt, chosen, rejected, tie, weight = columns.values()
    return from_columns(user, prompt, chosen, rejected, tie_N=tie, weight_N=weight)
