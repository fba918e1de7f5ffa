"""From stored cells to figures: the rows of the table, gains over the baseline, the placebo.

A gain is how much better than the baseline a learner is, so a positive gain is good under every metric.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import BoolArray, Comparisons, concat
from polypref.data.thumbs import bar_N, tested
from polypref.evaluation.cells import Cell, Job, Outcome, read
from polypref.evaluation.cohorts import minority_mask
from polypref.evaluation.results_table import ResultRow, ResultTable
from polypref.stats.cluster_robust import UNBOUNDED, Clusters, Interval, difference
from polypref.stats.metrics import LOWER_IS_BETTER, METRICS, HeldOut, Measured, accuracy_micro

Floats = NDArray[np.float64]

REFERENCE = "pooled"
FLOORS = ("random",)  # shown in every table, never what a gain is measured against
PLACEBO_METRICS = ("accuracy_micro", "accuracy_macro")


def minority_by_seed(job: Job, seeds: int) -> BoolArray:
    """``minority_SU``: who is a minority user by each seed's training rows."""
    return np.stack([minority_mask(job.comparisons, job.parts(seed)) for seed in range(seeds)])


def held_out(
    comparisons: Comparisons, rows_S: Sequence[NDArray[np.int64]], minority_SU: BoolArray | None = None
) -> HeldOut:
    """The test judgements of all seeds, of which ``rows_S[s]`` are those of seed s; with ``minority_SU``, that cohort
    too.
    """
    tests_S = [tested(comparisons, rows) for rows in rows_S]
    c = reduce(concat, tests_S)
    judgement_H = np.concatenate(rows_S)
    if bar_N(comparisons).any():  # what is tested is made of the rows
        code_H = np.stack([c.user_N, c.chosen_N, c.rejected_N])
        judgement_H = np.unique(code_H, axis=1, return_inverse=True)[1].astype(np.int64).ravel()
    seed_H = np.repeat(np.arange(len(rows_S)), [len(test) for test in tests_S])
    pairs, first, pair_H = np.unique(c.pair_key_N, return_index=True, return_inverse=True)
    text_Y2 = np.stack([side_N[first] for side_N in (c.chosen_N, c.rejected_N)], axis=1)
    user_H = c.user_N.astype(np.int64)
    cohort_H = {"all": np.ones(len(user_H), bool)}
    if minority_SU is not None:
        cohort_H["minority"] = minority_SU[seed_H, user_H]
    return HeldOut(
        seed_H=seed_H,
        user_H=user_H,
        pair_H=pair_H,
        tie_H=np.zeros(len(user_H), bool) if c.tie_N is None else c.tie_N,
        weight_H=c.weights_N,
        judgement_H=judgement_H,
        cohort_H=cohort_H,
        n_seeds=len(rows_S),
        n_users=len(c.users),
        n_pairs=len(pairs),
        text_Y2=text_Y2.astype(np.int64),
    )


@dataclass(frozen=True, eq=False)
class Arm:
    """One learner at one size under one arm, over all seeds: ``margin_H`` on the held-out rows."""

    learner: str
    serves: str
    selection: tuple[Mapping[str, Any], ...]
    margin_H: Floats

    @property
    def personal(self) -> bool:
        return self.serves != "population"

    @property
    def silent(self) -> bool:
        """Whether its judge gave no answer to any question, so that nothing is known of it."""
        return all(s.get("test_unanswered") == 1.0 for s in self.selection)

    def chosen_by(self, name: str) -> float | None:
        """Mean over seeds of a figure measured on validation rows; None where it was not measured."""
        values = [s.get(name) for s in self.selection]
        known = [float(v) for v in values if isinstance(v, int | float) and np.isfinite(v)]
        return float(np.mean(known)) if len(known) == len(values) else None


def load_arm(job: Job, cells: Sequence[Cell]) -> Arm:
    """The stored cells of one learner, one per seed in order."""
    outcomes: list[Outcome] = [read(job, cell) for cell in cells]
    return Arm(
        cells[0].learner,
        outcomes[0].serves,
        tuple(o.selection for o in outcomes),
        np.concatenate([o.margin_H for o in outcomes]).astype(np.float64),
    )


def choose_baseline(arms: Mapping[str, Arm]) -> dict[str, Any]:
    """The population ``learner`` that gains are measured against: the best on validation rows, never on test rows.

    None where no learner answers for everyone alike. ``valid_accuracy`` is None where the only candidates are learners
    that measured nothing.
    """
    candidates = [arm for arm in arms.values() if not arm.personal and arm.learner not in FLOORS]
    measured = {arm.learner: arm.chosen_by("valid_accuracy") for arm in candidates}
    known = {name: value for name, value in measured.items() if value is not None}
    best = max(known, key=lambda name: known[name]) if known else next(iter(measured), None)
    return {"learner": best, "valid_accuracy": known.get(best or ""), "candidates": measured}


def leaderboard(
    clusters: Clusters,
    margins: Mapping[str, Floats],
    against: Mapping[str, str | None],
    size: int,
    metrics: Collection[str] = tuple(METRICS),
) -> dict[str, ResultTable]:
    """``rows`` of all learners and, for each table named in ``against``, their gains over the learner it names.

    ``margins`` are each learner's on the H held-out rows, all at one training size.
    """
    found: dict[str, list[ResultRow]] = {key: [] for key in ("rows", *against)}
    for metric in metrics:
        for cohort, in_H in clusters.rows.cohort_H.items():
            values = {name: METRICS[metric](clusters.rows, in_H, margin_H) for name, margin_H in margins.items()}
            common = {"size": size, "cohort": cohort, "metric": metric}
            intervals = clusters.intervals(list(values.values()), (0.0, inf if metric == "log_loss" else 1.0))
            found["rows"] += [
                _row(name, values[name], i, clusters, common) for name, i in zip(values, intervals, strict=True)
            ]
            for key, other in against.items():
                if other in values:
                    named = {n: _gain(v, values[other], metric) for n, v in values.items() if n != other}
                    found[key] += gain_rows(clusters, named, {"baseline": other} | common)
    order = {name: at for at, name in enumerate(margins)}
    return {key: ResultTable(tuple(sorted(rows, key=lambda row: order[row.learner]))) for key, rows in found.items()}


def unmeasured(clusters: Clusters, learners: Sequence[str], size: int) -> ResultTable:
    """Rows without values, of learners whose judge answered nothing: that is neither right nor a tie."""
    named = [(name, metric, cohort) for name in learners for metric in METRICS for cohort in clusters.rows.cohort_H]
    return ResultTable(tuple(ResultRow(name, size, cohort, metric) for name, metric, cohort in named))


def placebo_rows(
    clusters: Clusters,
    real: Mapping[str, Arm],
    shuffled: Mapping[str, Arm],
    people: Mapping[str, Mapping[str, int]],
    common: Mapping[str, Any],
) -> ResultTable:
    """Gain of each learner trained on shuffled users over the baseline (trained on real ones), same test rows.

    ``common`` names ``baseline`` and ``size``; ``people`` says how many users each learner would leave better off.
    """
    rows = []
    in_H = clusters.rows.cohort_H["all"]
    for metric in PLACEBO_METRICS:
        floor = METRICS[metric](clusters.rows, in_H, real[common["baseline"]].margin_H)
        gains = {
            name: _gain(METRICS[metric](clusters.rows, in_H, arm.margin_H), floor, metric)
            for name, arm in shuffled.items()
        }
        rows += gain_rows(clusters, gains, {**common, "arm": "shuffled", "metric": metric})
    return ResultTable(tuple(replace(row, **people[row.learner]) for row in rows))


def over_shuffled(clusters: Clusters, real: Mapping[str, Arm], shuffled: Mapping[str, Arm], size: int) -> ResultTable:
    """What knowing the user is worth: each learner less itself trained on shuffled users, on the same test rows."""
    rows = []
    in_H = clusters.rows.cohort_H["all"]
    for metric in PLACEBO_METRICS:
        own, without = (
            {name: METRICS[metric](clusters.rows, in_H, arms[name].margin_H) for name in shuffled}
            for arms in (real, shuffled)
        )
        gains = {name: _gain(own[name], without[name], metric) for name in shuffled}
        rows += gain_rows(clusters, gains, {"arm": "shuffled", "size": size, "metric": metric})
    return ResultTable(tuple(replace(row, baseline=row.learner) for row in rows))


ALL_BUT_ONE = "all but one"  # without the user who gains most


def of_these_users(
    clusters: Clusters, real: Mapping[str, Arm], shuffled: Mapping[str, Arm], baseline: str, size: int
) -> ResultTable:
    """Gains in micro accuracy of each personal learner, for these users on new pairs: none stand for others.

    Over the baseline, also without the user who gains most (cohort ALL_BUT_ONE), and trained on shuffled users.
    """
    these = replace(clusters, these_users=True)
    everybody_H, floor_H = clusters.rows.cohort_H["all"], real[baseline].margin_H
    rows: list[ResultRow] = []
    for name in (name for name, arm in real.items() if arm.personal):
        own_H = real[name].margin_H
        gain = _more_right(clusters.rows, everybody_H, own_H, floor_H)
        rest_H = everybody_H & (clusters.rows.user_H != gain.user_U.argmax())
        rest = _more_right(clusters.rows, rest_H, own_H, floor_H)
        found = [("all", None, gain), (ALL_BUT_ONE, None, rest)]
        if name in shuffled:
            placebo = _more_right(clusters.rows, everybody_H, shuffled[name].margin_H, floor_H)
            found += [("all", "shuffled", placebo)]
        for cohort, arm, measured in found:
            common = {"size": size, "cohort": cohort, "metric": "accuracy_micro", "arm": arm, "baseline": baseline}
            rows += gain_rows(these, {name: measured}, common)
    return ResultTable(tuple(rows))


def _more_right(rows: HeldOut, in_H: BoolArray, one_H: Floats, other_H: Floats) -> Measured:
    return difference(*(accuracy_micro(rows, in_H, margin_H) for margin_H in (one_H, other_H)))


def _gain(one: Measured, baseline: Measured, metric: str) -> Measured:
    return difference(baseline, one) if metric in LOWER_IS_BETTER else difference(one, baseline)


def gain_rows(clusters: Clusters, gains: Mapping[str, Measured], common: Mapping[str, Any]) -> list[ResultRow]:
    """A row for each learner's gain, with the p-value of no gain and where its variance comes from."""
    bounds = UNBOUNDED if common["metric"] == "log_loss" else (-1.0, 1.0)
    intervals = clusters.intervals(list(gains.values()), bounds)
    return [
        _row(name, gains[name], i, clusters, {**common, "p": i.p, "variance_parts": i.parts})
        for name, i in zip(gains, intervals, strict=True)
    ]


def _row(
    learner: str, measured: Measured, interval: Interval, clusters: Clusters, common: Mapping[str, Any]
) -> ResultRow:
    counts = {"n_users": measured.n_users, "n_comparisons": measured.n_judgements, "seeds": clusters.rows.n_seeds}
    ends = {"lo": interval.lo, "hi": interval.hi, "se": interval.se}
    return ResultRow(learner, value=measured.value, **ends, **counts, **common)
