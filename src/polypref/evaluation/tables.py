"""From stored cells to figures: the rows of the table, gains over the baseline, the placebo.

A gain is how much better than the baseline a learner is, so a positive gain is good under every metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import BoolArray
from polypref.evaluation.cells import Cell, Job, Outcome, read
from polypref.evaluation.cohorts import minority_mask
from polypref.stats.clusters import UNBOUNDED, Clusters, Interval, difference
from polypref.stats.metrics import LOWER_IS_BETTER, METRICS, HeldOut, Measured

Floats = NDArray[np.float64]
Row = dict[str, Any]

REFERENCE = "pooled"
FLOORS = ("random",)  # shown in every table, never what a gain is measured against
PLACEBO_METRICS = ("accuracy_micro", "accuracy_macro")


def held_out(job: Job, seeds: int) -> tuple[HeldOut, BoolArray]:
    """The test rows of all seeds, and ``minority_SU``: who is a minority user by each seed's training rows."""
    c = job.comparisons
    rows_S = [job.parts(seed).test_rows for seed in range(seeds)]
    judgement_T = np.concatenate(rows_S)
    seed_T = np.repeat(np.arange(seeds), [len(rows) for rows in rows_S])
    minority_SU = np.stack([minority_mask(c, job.parts(seed)) for seed in range(seeds)])
    pairs, first, pair_T = np.unique(c.pair_key_N[judgement_T], return_index=True, return_inverse=True)
    text_P2 = np.stack([side_N[judgement_T[first]] for side_N in (c.chosen_N, c.rejected_N)], axis=1)
    user_T = c.user_N[judgement_T].astype(np.int64)
    rows = HeldOut(
        seed_T=seed_T,
        user_T=user_T,
        pair_T=pair_T,
        tie_T=np.zeros(len(user_T), bool) if c.tie_N is None else c.tie_N[judgement_T],
        weight_T=c.weights_N[judgement_T],
        judgement_T=judgement_T,
        cohort_T={"all": np.ones(len(user_T), bool), "minority": minority_SU[seed_T, user_T]},
        n_seeds=seeds,
        n_users=len(c.users),
        n_pairs=len(pairs),
        text_P2=text_P2.astype(np.int64),
    )
    return rows, minority_SU


@dataclass(frozen=True, eq=False)
class Arm:
    """One learner at one size under one arm, over all seeds: ``margin_T`` on the held-out rows."""

    learner: str
    serves: str
    selection: tuple[Mapping[str, Any], ...]
    margin_T: Floats

    @property
    def personal(self) -> bool:
        return self.serves != "population"

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
        np.concatenate([o.margin_T for o in outcomes]).astype(np.float64),
    )


def choose_baseline(arms: Mapping[str, Arm]) -> Row | None:
    """The population learner that gains are measured against: the best on validation rows, never on test rows.

    None where no learner answers for everyone alike. ``valid_accuracy`` is None where the only candidates are learners
    that measured nothing.
    """
    candidates = [arm for arm in arms.values() if not arm.personal and arm.learner not in FLOORS]
    if not candidates:
        return None
    measured = {arm.learner: arm.chosen_by("valid_accuracy") for arm in candidates}
    known = {name: value for name, value in measured.items() if value is not None}
    best = max(known, key=lambda name: known[name]) if known else candidates[0].learner
    return {"learner": best, "valid_accuracy": known.get(best), "candidates": measured}


def standing(clusters: Clusters, arms: Mapping[str, Arm], baseline: str | None, size: int) -> dict[str, list[Row]]:
    """``rows`` of all learners, ``gains`` over the baseline and ``gains_over_pooled``, for one training size."""
    found: dict[str, list[Row]] = {"rows": [], "gains": [], "gains_over_pooled": []}
    against = {"gains": baseline, "gains_over_pooled": REFERENCE if REFERENCE in arms else None}
    for metric, measure in METRICS.items():
        bounds = (0.0, inf if metric == "log_loss" else 1.0)
        for cohort, in_T in clusters.rows.cohort_T.items():
            values = {name: measure(clusters.rows, in_T, arm.margin_T) for name, arm in arms.items()}
            common = {"size": size, "cohort": cohort, "metric": metric}
            intervals = clusters.intervals(list(values.values()), bounds)
            found["rows"] += [
                _row({"learner": name} | common, values[name], i, clusters.rows.n_seeds)
                for name, i in zip(values, intervals, strict=True)
            ]
            for key, other in against.items():
                if other is not None:
                    named = {n: _gain(v, values[other], metric) for n, v in values.items() if n != other}
                    found[key] += _gain_rows(clusters, named, {"baseline": other} | common)
    order = {name: at for at, name in enumerate(arms)}
    return {key: sorted(rows, key=lambda row: order[row["learner"]]) for key, rows in found.items()}


def placebo_rows(
    clusters: Clusters, real: Mapping[str, Arm], shuffled: Mapping[str, Arm], baseline: str, size: int
) -> list[Row]:
    """Gain of each learner trained on shuffled users over the baseline (trained on real ones), same test rows."""
    rows = []
    in_T = clusters.rows.cohort_T["all"]
    for metric in PLACEBO_METRICS:
        floor = METRICS[metric](clusters.rows, in_T, real[baseline].margin_T)
        gains = {
            name: _gain(METRICS[metric](clusters.rows, in_T, arm.margin_T), floor, metric)
            for name, arm in shuffled.items()
        }
        common = {"baseline": baseline, "arm": "shuffled", "size": size, "cohort": "all", "metric": metric}
        rows += _gain_rows(clusters, gains, common)
    return rows


def over_shuffled(clusters: Clusters, real: Mapping[str, Arm], shuffled: Mapping[str, Arm], size: int) -> list[Row]:
    """What knowing the user is worth: each learner less itself trained on shuffled users, on the same test rows."""
    rows = []
    in_T = clusters.rows.cohort_T["all"]
    for metric in PLACEBO_METRICS:
        common = {"arm": "shuffled", "size": size, "cohort": "all", "metric": metric}
        real_M, shuffled_M = (
            {name: METRICS[metric](clusters.rows, in_T, arms[name].margin_T) for name in shuffled}
            for arms in (real, shuffled)
        )
        gains = {name: _gain(real_M[name], shuffled_M[name], metric) for name in shuffled}
        rows += [row | {"baseline": row["learner"]} for row in _gain_rows(clusters, gains, common)]
    return rows


def _gain(one: Measured, baseline: Measured, metric: str) -> Measured:
    return difference(baseline, one) if metric in LOWER_IS_BETTER else difference(one, baseline)


def _gain_rows(clusters: Clusters, gains: Mapping[str, Measured], common: Row) -> list[Row]:
    """A row for each learner's gain, with the p-value of no gain and where its variance comes from."""
    bounds = UNBOUNDED if common["metric"] == "log_loss" else (-1.0, 1.0)
    intervals = clusters.intervals(list(gains.values()), bounds)
    return [
        _row({"learner": name} | common, gains[name], i, clusters.rows.n_seeds) | {"p": i.p, "variance_parts": i.parts}
        for name, i in zip(gains, intervals, strict=True)
    ]


def _row(name: Row, measured: Measured, interval: Interval, seeds: int) -> Row:
    counts = {"n_users": measured.n_users, "n_comparisons": measured.n_judgements, "seeds": seeds}
    return name | {"value": measured.value, "lo": interval.lo, "hi": interval.hi, "se": interval.se} | counts
