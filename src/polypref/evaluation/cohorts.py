"""Selects the users who take part, and the named cohorts among them.

``all`` is everyone with test rows; ``minority`` are the minority users by ``profile``'s rule on the training rows of a
seed. Test labels never decide who belongs to a cohort: that would select users by the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polypref.arguments import AtLeastOne, expect
from polypref.comparisons import BoolArray, Comparisons
from polypref.data.split import Split
from polypref.data.zero_weight import compact
from polypref.errors import NotEnoughData
from polypref.profiling.minorities import minority_users
from polypref.wording import counted

COHORTS = ("all", "minority")


@dataclass(frozen=True)
class Kept:
    """Comparisons of the users with at least ``min_judgements`` judgements, and counts of what was left out."""

    comparisons: Comparisons
    min_judgements: int
    users_dropped: int
    rows_dropped: int


def keep_users(comparisons: Comparisons, min_judgements: int) -> Kept:
    """Drop the judgements of users who gave fewer than ``min_judgements``, ties included.

    Raises SettingsError for a number below 1, NotEnoughData if nobody is left.
    """
    expect("min_judgements", min_judgements, AtLeastOne)
    count_U = np.bincount(comparisons.user_N, minlength=len(comparisons.users))
    kept_U = count_U >= min_judgements
    if not kept_U.any():
        raise NotEnoughData(
            f"no user has {counted(min_judgements, 'judgements')}; the most is "
            f"{count_U.max(initial=0):,}. Lower --min-judgements."
        )
    dropped_U = (count_U > 0) & ~kept_U
    kept = comparisons.take(kept_U[comparisons.user_N]) if dropped_U.any() else comparisons
    return Kept(compact(kept), min_judgements, int(dropped_U.sum()), int(count_U[dropped_U].sum()))


def minority_mask(comparisons: Comparisons, parts: Split) -> BoolArray:
    """Minority users (mask over U) by the training and validation rows alone."""
    return minority_users(comparisons.take(np.concatenate([parts.train_rows, parts.valid_rows])))
