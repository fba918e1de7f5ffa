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
    """What each of U users gets; every pair weighs as its judgements do.

    ``n_U``        pairs that count; ``moved_U`` those where learner and baseline differ.
    ``accuracy_U``, ``baseline_U``, ``gain_U``  weighted means over pairs, NaN for users without any.
    ``se_U``       standard error of the gain over the user's pairs, NaN with fewer than two.
    ``null_se_U``  the same if signs were thrown at random.
    """

    n_U: NDArray[np.int64]
    moved_U: NDArray[np.int64]
    accuracy_U: Floats
    baseline_U: Floats
    gain_U: Floats
    se_U: Floats
    null_se_U: Floats


def per_user(clusters: Clusters, margin_T: Floats, baseline_T: Floats) -> PerUser:
    """Differences per pair, gathered by user. Ties are left out, and judgements of weight 0."""
    rows = clusters.rows
    counted = ~rows.tie_T & (rows.weight_T > 0)
    weight_T = rows.weight_T[counted]
    cells, first, cell_T = np.unique(clusters.cell_T[counted], return_index=True, return_inverse=True)
    user_M = rows.user_T[counted][first]
    total_M = summed(cell_T, weight_T, len(cells))
    own_M, base_M = (
        summed(cell_T, weight_T * correctness(m_T[counted]), len(cells)) / total_M for m_T in (margin_T, baseline_T)
    )

    def by_user(value_M: NDArray) -> Floats:
        return summed(user_M, value_M, rows.n_users)

    weight_M = total_M / np.bincount(cell_T, minlength=len(cells))  # a repeat under another seed adds no weight
    difference_M = own_M - base_M
    n_U, weight_U = np.bincount(user_M, minlength=rows.n_users), by_user(weight_M)
    with np.errstate(invalid="ignore", divide="ignore"):
        own_U, base_U, gain_U = (by_user(weight_M * x_M) / weight_U for x_M in (own_M, base_M, difference_M))
        null_se_U = np.sqrt(by_user((weight_M * difference_M) ** 2)) / weight_U
        residual_U = by_user((weight_M * (difference_M - gain_U[user_M])) ** 2)
        se_U = np.sqrt(residual_U * n_U / (n_U - 1)) / weight_U
    moved_U = np.bincount(user_M[difference_M != 0], minlength=rows.n_users)
    return PerUser(n_U, moved_U, own_U, base_U, gain_U, np.where(n_U >= 2, se_U, np.nan), null_se_U)


def verdicts(people: PerUser) -> tuple[NDArray[np.int64], Floats]:
    """``(verdict_U, p_U)``: index into VERDICTS, and the p-value, NaN where a user was not tested."""
    tested_U = people.n_U >= MIN_PAIRS
    p_U = np.full(len(tested_U), np.nan)
    p_U[tested_U] = sign_flip_p(people.gain_U[tested_U], people.null_se_U[tested_U] ** 2, people.moved_U[tested_U])
    verdict_U = np.where(tested_U, VERDICTS.index("unclear"), VERDICTS.index("untested"))
    found = np.flatnonzero(tested_U)[benjamini_hochberg(p_U[tested_U])]
    verdict_U[found] = np.where(people.gain_U[found] > 0, VERDICTS.index("better"), VERDICTS.index("worse"))
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
    lo_U, hi_U = _gain_interval(people)
    verdict_U, p_U = verdicts(people)
    return pl.DataFrame(
        {
            "user_id": ids,
            "learner": pl.Series([learner], dtype=pl.String).new_from_index(0, len(ids)),
            "n_train": n_train_U,
            "n_test": people.n_U,
            "accuracy": people.accuracy_U,
            "baseline_accuracy": people.baseline_U,
            "gain": people.gain_U,
            "gain_lo": lo_U,
            "gain_hi": hi_U,
            "p_value": p_U,
            "verdict": np.array(VERDICTS)[verdict_U],
            "minority": minority_U,
        },
        schema_overrides={"n_train": pl.Int64, "n_test": pl.Int64},
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _gain_interval(people: PerUser) -> tuple[Floats, Floats]:
    """Student's interval of the gain over the user's pairs; NaN with fewer than two pairs."""
    from scipy.stats import t

    half_U = t.isf((1 - LEVEL) / 2, np.maximum(people.n_U - 1, 1)) * people.se_U
    return np.maximum(people.gain_U - half_U, -1), np.minimum(people.gain_U + half_U, 1)
