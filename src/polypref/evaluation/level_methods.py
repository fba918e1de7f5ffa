"""Which methods are level with the best, and which of these is the simplest.

Two learners are level if their difference in micro accuracy, on the same judgements, is not surely above zero: its 95 %
interval contains 0, or would if all compared learners shared the 5 % (Bonferroni). Only learners that passed the
verdict's test are candidates. That two are level does not mean that they are equal, so the difference is shown.

The simplest is the first in the order of ``LEARNERS``, which goes from a constant to mixed effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polypref.evaluation.results_table import ResultRow, ResultTable
from polypref.evaluation.tables import Arm, gain_rows
from polypref.evaluation.verdict import above_zero
from polypref.stats.cluster_robust import Clusters, difference
from polypref.stats.metrics import accuracy_micro


def behind_best(
    clusters: Clusters, arms: Mapping[str, Arm], best: str, passed: Sequence[str], size: int
) -> ResultTable:
    """How far each other learner in ``passed`` is behind ``best`` in micro accuracy, paired.

    ``size``: training comparisons in total.
    """
    everybody_H = clusters.rows.cohort_H["all"]
    top = accuracy_micro(clusters.rows, everybody_H, arms[best].margin_H)
    found = {
        name: difference(top, accuracy_micro(clusters.rows, everybody_H, arms[name].margin_H))
        for name in passed
        if name != best
    }
    common = {"size": size, "cohort": "all", "metric": "accuracy_micro", "baseline": best}
    return ResultTable(tuple(gain_rows(clusters, found, common)))


def level(best: str, behind: ResultTable, order: Sequence[str]) -> list[str]:
    """``best`` and the learners level with it, in ``order``: the simplest first."""
    tests = len(behind)
    names = {best, *(row.learner for row in behind if _is_level(row, tests))}
    return [name for name in order if name in names]


def _is_level(row: ResultRow, tests: int) -> bool:
    return row.value is not None and not above_zero(row, tests)
