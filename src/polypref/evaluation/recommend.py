"""From a verdict to the method to take, and from how many judgements a person it pays.

The method is the baseline unless the verdict is yes: a difference that may be chance is no reason for a more
complicated method. Then it is the simplest of those that are level with the best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.evaluation.gain_by_amount import by_amount, pays_from
from polypref.evaluation.level_methods import behind_best, level
from polypref.evaluation.results_table import ResultTable
from polypref.evaluation.tables import Arm
from polypref.evaluation.verdict_text import FOR_ALL
from polypref.stats.cluster_robust import Clusters


def recommend(
    clusters: Clusters,
    arms: Mapping[str, Arm],
    verdict: Mapping[str, Any],
    floor: str | None,
    n_train_U: NDArray[np.int64],
    measured: ResultTable,
    size: int,
) -> dict[str, Any]:
    """The keys ``method``, ``behind_best``, ``pays`` and ``gains_by_amount`` of the results.

    ``arms`` are the learners at the full size, ``n_train_U`` the training judgements of each user. ``measured`` are
    gains at training sizes per user, with that number as ``size``; empty if none was run.
    ``size``: training comparisons in total.
    """
    seen_U = np.unique(clusters.rows.user_H)
    median = float(np.median(n_train_U[seen_U])) if len(seen_U) else None
    pays: dict[str, Any] = {"amount": None, "people": None, "of": len(seen_U), "median": median}
    if verdict["room"] != "yes" or floor is None:
        return {"method": {"learner": verdict["best"], "level": [verdict["best"]]}, "pays": pays}
    best, passed = verdict["best"], verdict["passed"]
    behind = behind_best(clusters, arms, best, passed, size)
    simple = level(best, behind, list(arms))
    learner = simple[0]
    about = clusters if verdict["reason"] == FOR_ALL else replace(clusters, these_users=True)
    amounts = by_amount(about, (arms[learner].margin_H, arms[floor].margin_H), n_train_U, (learner, floor))
    sizes = measured.where(learner=learner, metric="accuracy_micro", cohort="all")
    found = pays_from(amounts, sizes, tests=sum(arm.personal for arm in arms.values()))
    pays |= {"amount": found.amount, "fewest": found.fewest, "source": found.source}
    if found.amount is not None and found.row is not None:
        pays |= {"people": int((n_train_U[seen_U] >= found.amount).sum())}
        pays |= {"value": found.row.value, "lo": found.row.lo, "hi": found.row.hi}
    return {
        "method": {"learner": learner, "level": simple},
        "behind_best": behind,
        "pays": pays,
        "gains_by_amount": amounts,
    }
