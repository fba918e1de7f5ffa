"""Cuts the training rows of a cell to a number of comparisons, in total or per user.

The evaluation paper's sizes are totals (its Individual models see about N / users each); elsewhere sizes are per user.
Changed: rows are drawn at random, while the paper takes the first N of the unshuffled pool.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polypref.data.split import Split
from polypref.errors import SettingsError
from polypref.evaluation.settings import Budget
from polypref.wording import counted

Rows = NDArray[np.int64]


def training_rows(
    parts: Split, size: int | None, seed: int, budget: Budget = "total", user_N: NDArray[np.integer] | None = None
) -> tuple[Rows, Rows]:
    """``(train_rows, valid_rows)`` cut to ``size`` comparisons in total, or per user of ``user_N``; None: no cut.

    Rows are drawn at random, both training and validation rows, and a smaller size is a subset of a larger one under
    the same seed. A user with fewer comparisons keeps them all. Raises SettingsError for an impossible size.
    """
    if size is None:
        return parts.train_rows, parts.valid_rows
    if budget == "total":
        return _in_all(parts, size, seed)
    assert user_N is not None, "a budget of each user needs to know who judged"
    return _of_each(parts, size, seed, user_N)


def _in_all(parts: Split, size: int, seed: int) -> tuple[Rows, Rows]:
    """``size`` rows, with the same share of validation rows as before."""
    available = len(parts.train_rows) + len(parts.valid_rows)
    n_train = round(size * len(parts.train_rows) / available)
    if not 0 < n_train < size <= available:
        raise SettingsError(
            f"--sizes {size} cannot be cut from {available:,} training comparisons (seed {seed}, split by "
            f"{parts.rule}); expected a number from {max(2, available // len(parts.valid_rows)):,} to {available:,}."
        )
    rng = np.random.default_rng([seed, 1])
    train_rows, valid_rows = rng.permutation(parts.train_rows), rng.permutation(parts.valid_rows)
    return np.sort(train_rows[:n_train]), np.sort(valid_rows[: size - n_train])


def _of_each(parts: Split, size: int, seed: int, user_N: NDArray[np.integer]) -> tuple[Rows, Rows]:
    """Each user's first ``size`` rows in a random order of training and validation rows together."""
    rng = np.random.default_rng([seed, 2])
    both = np.concatenate([parts.train_rows, parts.valid_rows])
    drawn = rng.permutation(len(both))
    by_user = drawn[np.argsort(user_N[both[drawn]], kind="stable")]
    count_U = np.unique(user_N[both], return_counts=True)[1]
    rank_N = np.arange(len(both)) - np.repeat(np.cumsum(count_U) - count_U, count_U)
    kept = by_user[rank_N < size]
    train_rows = np.sort(both[kept[kept < len(parts.train_rows)]])
    valid_rows = np.sort(both[kept[kept >= len(parts.train_rows)]])
    if size >= count_U.max(initial=0):
        raise SettingsError(
            f"--sizes {size} per user cuts nothing: no user has more than "
            f"{counted(int(count_U.max(initial=0)), 'training comparisons')} "
            f"(seed {seed}); choose fewer, or leave out --sizes: all the data are always measured."
        )
    if not len(train_rows) or not len(valid_rows):
        side = "validation" if len(train_rows) else "training"
        raise SettingsError(f"--sizes {size} per user leaves no {side} comparisons (seed {seed}); choose more.")
    return train_rows, valid_rows
