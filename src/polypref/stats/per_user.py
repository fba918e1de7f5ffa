"""Who gains and who loses, user by user: paired differences per pair, tested over all users at once.

A user's difference on a pair is the learner's correctness minus the baseline's, averaged over the seeds under which the
pair was held out. Pairs that share a text are correlated: a learner that misjudges a text gets all its pairs wrong.
With d_m the weighted deviations of a user's pairs from their mean, the variance of the sum is that of dyads
(Fafchamps & Gubert 2007; Aronow, Samii & Assenova 2015)

    V = sum_texts (sum of d_m over the user's pairs with this text)^2 - sum_pairs d_m^2

but at least the variance of independent pairs. The test (``paired_p``) uses the number of pairs that share no text, G =
2 n^2 / sum_texts (pairs)^2: n where no two pairs share one, 10 for all pairs of 10 with 10 texts. Over users, Benjamini
and Hochberg's procedure keeps the false discovery rate below 5 %. A user with fewer than MIN_PAIRS decided pairs is not
tested.

With two simulated learners of equal merit whose errors depend on the text, one user in twenty has p < .05; if pairs
made from votes are treated as independent, one in five has (``tests/test_people.py``).

Suffixes here: ``_E`` texts of a user, ``_M`` pairs that a user decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.stats.cluster_robust import LEVEL, TINY, Clusters, benjamini_hochberg, paired_p, unseen_share
from polypref.stats.metrics import HeldOut, correctness, summed

Floats = NDArray[np.float64]

MIN_PAIRS = 10
ENOUGH_OWN = 20  # training judgements of a typical person, without which little can be said
VERDICTS = ("unclear", "better", "worse", "untested")


@dataclass(frozen=True, eq=False)
class PerUser:
    """Figures of U users; every pair has the weight of its judgements.

    ``n_U``         pairs that count.
    ``accuracy_U``, ``baseline_U``, ``gain_U``  weighted means over pairs, NaN for users without any.
    ``pairs_U``     effective number of pairs that share no text; ``moved_U`` the same among pairs that differ.
    ``se_U``        standard error of the gain, NaN with fewer than two pairs.
    ``null_se_U``   the same under random signs of the pairs.
    """

    n_U: NDArray[np.int64]
    accuracy_U: Floats
    baseline_U: Floats
    gain_U: Floats
    pairs_U: Floats
    moved_U: Floats
    se_U: Floats
    null_se_U: Floats


@dataclass(frozen=True, eq=False)
class Pairs:
    """The M decided (user, pair) combinations: ``user_M``, and ``end_2M``, each user's two texts of it."""

    user_M: NDArray[np.int64]
    end_2M: NDArray[np.int64]
    user_E: NDArray[np.int64]
    n_users: int

    @staticmethod
    def of(rows: HeldOut, row_M: NDArray[np.int64]) -> Pairs:
        """The pairs of ``row_M``, one row each."""
        user_M, pair_M = rows.user_H[row_M], rows.pair_H[row_M]
        text_2M = rows.texts_Y2[pair_M].T.ravel()
        user_2M = np.tile(user_M, 2)
        ends, end_2M = np.unique(user_2M * (text_2M.max(initial=0) + 1) + text_2M, return_inverse=True)
        user_E = np.zeros(len(ends), np.int64)
        user_E[end_2M] = user_2M
        return Pairs(user_M, end_2M, user_E, rows.n_users)

    def total(self, value_M: NDArray) -> Floats:
        """Sum over each user's pairs."""
        return summed(self.user_M, value_M, self.n_users)

    def squared_by_text(self, value_M: NDArray) -> Floats:
        """Sum over each user's texts of the square of the sum over the pairs with this text."""
        return summed(self.user_E, summed(self.end_2M, np.tile(value_M, 2), len(self.user_E)) ** 2, self.n_users)

    def disjoint(self, which_M: NDArray[np.bool_]) -> Floats:
        """Effective number, among ``which_M``, of each user's pairs that share no text."""
        return 2 * self.total(which_M) ** 2 / np.maximum(self.squared_by_text(which_M), 1)


def per_user(clusters: Clusters, margin_H: Floats, baseline_H: Floats) -> PerUser:
    """Differences per pair, grouped by user, without ties and judgements of weight 0."""
    rows = clusters.rows
    counted = np.flatnonzero(~rows.tie_H & (rows.weight_H > 0))
    weight_H = rows.weight_H[counted]
    cells, first, cell_H = np.unique(clusters.cell_H[counted], return_index=True, return_inverse=True)
    total_M = summed(cell_H, weight_H, len(cells))
    own_M, base_M = (
        summed(cell_H, weight_H * correctness(m_H[counted]), len(cells)) / total_M for m_H in (margin_H, baseline_H)
    )
    pairs = Pairs.of(rows, counted[first])
    weight_M = total_M / np.bincount(cell_H, minlength=len(cells))  # a repeat under another seed adds no weight
    difference_M = own_M - base_M
    weight_U, pairs_U = pairs.total(weight_M), pairs.disjoint(np.ones(len(cells), bool))
    with np.errstate(invalid="ignore", divide="ignore"):
        own_U, base_U, gain_U = (pairs.total(weight_M * x_M) / weight_U for x_M in (own_M, base_M, difference_M))
        deviation_M = weight_M * (difference_M - gain_U[pairs.user_M])
        alone_U = pairs.total(deviation_M**2)
        together_U = np.maximum(pairs.squared_by_text(deviation_M) - alone_U, alone_U)
        se_U = np.sqrt(together_U * pairs_U / (pairs_U - 1)) / weight_U
        null_se_U = np.sqrt(pairs.total((weight_M * difference_M) ** 2)) / weight_U
    return PerUser(
        n_U=np.bincount(pairs.user_M, minlength=rows.n_users),
        accuracy_U=own_U,
        baseline_U=base_U,
        gain_U=gain_U,
        pairs_U=pairs_U,
        moved_U=pairs.disjoint(difference_M != 0),
        se_U=np.where(pairs_U > 1, se_U, np.nan),
        null_se_U=null_se_U,
    )


def verdicts(people: PerUser, rate: float = 0.05) -> tuple[NDArray[np.int64], Floats]:
    """``(verdict_U, p_U)``: index into VERDICTS, and the p-value, NaN if a user was not tested.

    ``rate``: the false discovery rate.
    """
    tested_U = people.n_U >= MIN_PAIRS
    p_U = np.full(len(tested_U), np.nan)
    evidence = (people.gain_U, people.se_U, people.null_se_U, people.pairs_U, people.moved_U)
    p_U[tested_U] = paired_p(*(x_U[tested_U] for x_U in evidence))
    verdict_U = np.where(tested_U, VERDICTS.index("unclear"), VERDICTS.index("untested"))
    found = np.flatnonzero(tested_U)[benjamini_hochberg(p_U[tested_U], rate)]
    verdict_U[found] = np.where(people.gain_U[found] > 0, VERDICTS.index("better"), VERDICTS.index("worse"))
    return verdict_U, p_U


def counts(people: PerUser) -> dict[str, int]:
    """Users significantly better and worse off, and how many were tested."""
    verdict_U, _ = verdicts(people)
    tested = int((verdict_U != VERDICTS.index("untested")).sum())
    return {name: int((verdict_U == VERDICTS.index(name)).sum()) for name in ("better", "worse")} | {"tested": tested}


def sure(over_baseline: PerUser, over_shuffled: PerUser | None, learners: int) -> int:
    """Users better off at a rate of 5 % shared by ``learners`` (Bonferroni) and all users (Benjamini and Hochberg).

    They are better off than under the baseline and, if a placebo arm was run, than under the learner trained on
    shuffled users: they have a gain, and it comes from knowing them. If no user gained, at most one run in forty would
    count any.
    """
    rate = 0.05 / max(learners, 1)
    counted_U = np.ones(len(over_baseline.n_U), bool)
    for people in (over_baseline, over_shuffled):
        if people is not None:
            counted_U &= verdicts(people, rate)[0] == VERDICTS.index("better")
    return int(counted_U.sum())


def users_table(
    ids: pl.Series, n_train_U: NDArray, minority_U: NDArray[np.bool_], people: Mapping[str, PerUser]
) -> pl.DataFrame:
    """One row per (user, learner): the content of users.parquet. Users without test rows have null figures.

    Users whose judgements are all dropped by the splits are left out.
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
    """Student's interval of the gain over the user's pairs; NaN unless two pairs share no text.

    If all pairs agree, the interval is not zero-width: it is what ``pairs_U`` such pairs cannot exclude.
    """
    from scipy.stats import t

    gain_U, half_U = people.gain_U, t.isf((1 - LEVEL) / 2, np.maximum(people.pairs_U - 1, 1)) * people.se_U
    unseen_U = unseen_share(np.maximum(people.pairs_U, 1))
    agree_U = people.se_U <= TINY
    lo_U = gain_U - np.where(agree_U, unseen_U * (gain_U + 1), half_U)
    hi_U = gain_U + np.where(agree_U, unseen_U * (1 - gain_U), half_U)
    return np.maximum(lo_U, -1), np.minimum(hi_U, 1)
