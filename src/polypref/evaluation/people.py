"""Who gains and who loses, user by user: paired differences per pair, tested over all users at once.

A user's difference on a pair is the learner's correctness minus the baseline's, averaged over the seeds under which the
pair was held out. Signs are flipped at random under the null (``sign_flip_p``); over users Benjamini and Hochberg keep
the expected share of false findings under 5 %. A user with fewer than MIN_PAIRS decided pairs is not tested.

Not covered: pairs of one user that share a text are not quite independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.evaluation.intervals import LEVEL, Clusters, benjamini_hochberg, sign_flip_p
from polypref.evaluation.metrics import correctness, summed

Floats = NDArray[np.float64]

MIN_PAIRS = 10
VERDICTS = ("unclear", "better", "worse", "untested")


@dataclass(frozen=True, eq=False)
class PerUser:
    """Per-user means over pairs of correctness, and of the paired difference with its sums; arrays over U users."""

    n_U: NDArray[np.int64]
    accuracy_U: Floats
    baseline_U: Floats
    total_U: Floats
    squares_U: Floats
    moved_U: NDArray[np.int64]


def per_user(clusters: Clusters, margin_T: Floats, baseline_T: Floats) -> PerUser:
    """Sums over each user's pairs, ties left out."""
    rows = clusters.rows
    decided = ~rows.tie_T
    code_T = clusters.cell_T[decided]
    size = int(clusters.cell_T.max(initial=-1)) + 1
    count_M = np.bincount(code_T, minlength=size)
    user_M = np.zeros(size, np.int64)
    user_M[code_T] = rows.user_T[decided]
    present = count_M > 0
    user_M, count_M = user_M[present], count_M[present]
    own_M = summed(code_T, correctness(margin_T)[decided], size)[present] / count_M
    base_M = summed(code_T, correctness(baseline_T)[decided], size)[present] / count_M
    d_M = own_M - base_M
    n_U = np.bincount(user_M, minlength=rows.n_users)
    with np.errstate(invalid="ignore"):
        own_U, base_U = (summed(user_M, x_M, rows.n_users) / n_U for x_M in (own_M, base_M))
    total_U, squares_U = summed(user_M, d_M, rows.n_users), summed(user_M, d_M**2, rows.n_users)
    return PerUser(n_U, own_U, base_U, total_U, squares_U, np.bincount(user_M[d_M != 0], minlength=rows.n_users))


def verdicts(people: PerUser) -> tuple[NDArray[np.int64], Floats]:
    """``(verdict_U, p_U)``: index into VERDICTS, and the p-value, NaN where a user was not tested."""
    tested_U = people.n_U >= MIN_PAIRS
    p_U = np.full(len(tested_U), np.nan)
    p_U[tested_U] = sign_flip_p(people.total_U[tested_U], people.squares_U[tested_U], people.moved_U[tested_U])
    verdict_U = np.where(tested_U, VERDICTS.index("unclear"), VERDICTS.index("untested"))
    found = np.flatnonzero(tested_U)[benjamini_hochberg(p_U[tested_U])]
    verdict_U[found] = np.where(people.total_U[found] > 0, VERDICTS.index("better"), VERDICTS.index("worse"))
    return verdict_U, p_U


def counts(people: PerUser) -> dict[str, int]:
    """Users significantly better and worse off, and how many were tested."""
    verdict_U, _ = verdicts(people)
    tested = int((verdict_U != VERDICTS.index("untested")).sum())
    return {name: int((verdict_U == VERDICTS.index(name)).sum()) for name in ("better", "worse")} | {"tested": tested}


def users_table(
    ids: pl.Series, n_train_U: NDArray, minority_U: NDArray[np.bool_], people: Mapping[str, PerUser]
) -> pl.DataFrame:
    """One row per (user, learner): the content of users.parquet. A user without test rows has null figures.

    Users whose every judgement the splits drop are left out.
    """
    tables = [_learner_table(ids, n_train_U, minority_U, name, found) for name, found in people.items()]
    return pl.concat(tables).filter(pl.col("n_train") + pl.col("n_test") > 0)


def _learner_table(
    ids: pl.Series, n_train_U: NDArray, minority_U: NDArray[np.bool_], learner: str, people: PerUser
) -> pl.DataFrame:
    lo_U, gain_U, hi_U = _gain_interval(people)
    verdict_U, p_U = verdicts(people)
    return pl.DataFrame(
        {
            "user_id": ids,
            "learner": pl.Series([learner], dtype=pl.String).new_from_index(0, len(ids)),
            "n_train": n_train_U,
            "n_test": people.n_U,
            "accuracy": people.accuracy_U,
            "baseline_accuracy": people.baseline_U,
            "gain": gain_U,
            "gain_lo": lo_U,
            "gain_hi": hi_U,
            "p_value": p_U,
            "verdict": np.array(VERDICTS)[verdict_U],
            "minority": minority_U,
        },
        schema_overrides={"n_train": pl.Int64, "n_test": pl.Int64},
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _gain_interval(people: PerUser) -> tuple[Floats, Floats, Floats]:
    """Mean difference per user with Student's interval over the user's pairs; NaN ends with fewer than two pairs."""
    from scipy.stats import t

    n_U = people.n_U
    with np.errstate(invalid="ignore", divide="ignore"):
        gain_U = people.total_U / n_U
        variance_U = np.maximum(people.squares_U / n_U - gain_U**2, 0) / (n_U - 1)
        half_U = t.isf((1 - LEVEL) / 2, np.maximum(n_U - 1, 1)) * np.sqrt(variance_U)
    half_U = np.where(n_U >= 2, half_U, np.nan)
    return np.maximum(gain_U - half_U, -1), gain_U, np.minimum(gain_U + half_U, 1)
