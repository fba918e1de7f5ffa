"""Intervals for judgements that share users and pairs, and tests that hold over many users at once.

Judgements of one user go together, and so do judgements of one pair. The variance of a metric with influence values psi
is (Cameron, Gelbach & Miller 2011, "Robust inference with multiway clustering")

    V = sum_users (sum psi)^2 + sum_pairs (sum psi)^2 - sum_(user, pair) (sum psi)^2

Pairs that share a text go together as well where a text is misjudged: pairs are dyads of texts (Fafchamps & Gubert
2007), and with D = sum_texts (sum psi)^2 - sum_pairs (sum psi)^2, and D_u the same among a user's own judgements,

    V' = sum_users (sum psi)^2 + D - sum_users D_u

The larger of V and V' counts. The interval comes from a score bootstrap (Kline & Santos 2012): users and pairs are
redrawn with Poisson(1) weights that multiply the influence values, the same draws for every learner and metric, so
differences are paired.

Changed: resampling users *and* pairs by product weights (the pigeonhole bootstrap, Owen 2007) counts the noise of a
single judgement three times where a user judges a pair once, which makes intervals 1.7 times too wide. The draws are
therefore scaled to that variance. With fewer than FEW_USERS users nothing can be said of users in general: pairs alone
are redrawn and the interval speaks of these very users. A Student factor widens intervals that rest on few clusters:
the fewer of users and pairs, less one, are the degrees of freedom, with pairs counted as the
2 n^2 / sum_texts (pairs)^2 of them that share no text.

Where no judgement moves a value (all right, or two learners that answer alike) the bootstrap has nothing to redraw and
would report certainty. But what n pairs did not show may still be so for a share of 1 - 0.025^(1/n) of all pairs
(Clopper & Pearson 1934; 14 % at n = 25, 1 % at n = 368), and on those the value may lie anywhere within its bounds. No
interval is narrower than that; a value without bounds (log loss) has none then.

Covered: rows of the same judgement under several seeds (one cluster). Not covered: that another training sample
would have given another fit, beyond what the seeds show.

Suffixes here: ``_C`` clusters: users and pairs, ``_K`` metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import factorial, inf

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from polypref.stats.metrics import HeldOut, Measured, summed

Floats = NDArray[np.float64]
Bounds = tuple[float, float]
Parts = dict[str, float] | None

LEVEL = 0.95
DRAWS = 1000
FEW_USERS = 10
CHUNK = 50
TINY = 1e-12
UNBOUNDED = (-inf, inf)

# Poisson(1) weight - 1 for each of 2^16 equally likely draws: a table is ten times faster than a generator.
_CUMULATED = np.cumsum([np.exp(-1) / factorial(k) for k in range(9)])
POISSON_LESS_1 = (np.searchsorted(_CUMULATED, (np.arange(2**16) + 0.5) / 2**16) - 1.0).astype(np.float32)


@dataclass(frozen=True)
class Interval:
    """Ends of a 95 % interval and the standard error; all None where there is nothing to judge them by.

    ``p``, two-sided, that the true value is 0: Student's, but never below 2^(1 - clusters), the smallest that throwing
    the clusters' signs can give. ``se`` is None where no judgement moves the value: that it is 0 is not known.
    ``parts``: which share of the variance comes from users that differ, from pairs that differ, and from the noise of
    single judgements; only more users, more pairs, or more judgements make the respective one smaller.
    """

    lo: float | None = None
    hi: float | None = None
    se: float | None = None
    p: float | None = None
    parts: Parts = None


def mean_with_half(value_K: Floats) -> tuple[float, float]:
    """The mean of two values or more, and half the width of its 95 % t interval."""
    half = stdtrit(len(value_K) - 1, 0.5 + LEVEL / 2) * value_K.std(ddof=1) / len(value_K) ** 0.5
    return float(value_K.mean()), float(half)


@dataclass(frozen=True, eq=False)
class Clusters:
    """Users, pairs and (user, pair) cells of the test rows; ``seed`` fixes the draws."""

    rows: HeldOut
    seed: int = 0
    draws: int = DRAWS

    @cached_property
    def cell_H(self) -> NDArray[np.int64]:
        """Code of each row's (user, pair)."""
        return np.unique(self.rows.user_H * self.rows.n_pairs + self.rows.pair_H, return_inverse=True)[1]

    @cached_property
    def by_user(self) -> bool:
        """Whether users are redrawn, or taken as the ones that matter."""
        return len(np.unique(self.rows.user_H)) >= FEW_USERS

    def intervals(self, measured: Sequence[Measured], bounds: Bounds = UNBOUNDED) -> list[Interval]:
        """An interval for each of K measured values, from the same draws; ``bounds`` are what the values cannot leave.

        No interval rests on a single cluster.
        """
        known = [m for m in measured if m.value is not None]
        if not known:
            return [Interval()] * len(measured)
        pair_YK = np.stack([summed(self.rows.pair_H, m.row_H, self.rows.n_pairs) for m in known], axis=1)
        user_UK = np.stack([m.user_U for m in known], axis=1) if self.by_user else np.zeros((1, len(known)))
        cell_K = np.array([(summed(self.cell_H, m.row_H) ** 2).sum() for m in known])
        dyad_K = self._dyads_over_users(known, pair_YK)
        variance_K = self._variance(known, (_variance(user_UK), _variance(pair_YK), cell_K, dyad_K))
        parts_K = self._parts(_variance(user_UK), np.maximum(_variance(pair_YK), dyad_K), cell_K)
        draw_BK = self._draw(user_UK, pair_YK)
        draw_BK /= np.maximum(np.sqrt((user_UK**2).sum(axis=0) + (pair_YK**2).sum(axis=0)), TINY)
        se_K = np.sqrt(variance_K)
        found = iter(
            _interval(m, draw_BK[:, k], (float(se_K[k]), parts_K[k]), self._clusters(m), bounds)
            for k, m in enumerate(known)
        )
        return [next(found) if m.value is not None else Interval() for m in measured]

    def _dyads_over_users(self, known: Sequence[Measured], pair_YK: Floats) -> Floats:
        """D of V' for each of K values: what pairs that share a text have in common, whoever judged them."""
        dyad_K = np.array([self._dyads(m.row_H, self.text_2H) for m in known]) - (pair_YK**2).sum(axis=0)
        return dyad_K * self.disjoint / max(self.disjoint - 1, 1)

    def _variance(self, known: Sequence[Measured], sums: tuple[Floats, Floats, Floats, Floats]) -> Floats:
        """The larger of V and V' for each of K values, but no less than any of their parts: chance can make them so.

        ``sums`` are those over users, pairs, (user, pair) cells, and texts.
        """
        user_K, pair_K, cell_K, dyad_K = sums
        if not self.by_user:
            return np.maximum(pair_K, dyad_K)
        own_K = np.array([self._dyads(m.row_H, self.user_text_2H) for m in known]) - cell_K
        both_K = np.maximum(user_K + pair_K - cell_K, user_K + dyad_K - own_K)
        return np.maximum.reduce([both_K, user_K, pair_K, dyad_K])

    def _parts(self, user_K: Floats, pair_K: Floats, cell_K: Floats) -> list[Parts]:
        """Shares of the variance, see ``Interval``: what users and pairs add to that of independent judgements."""
        users_K = np.maximum(user_K - cell_K, 0) if self.by_user else np.zeros(len(cell_K))
        part_3K = np.stack([users_K, np.maximum(pair_K - cell_K, 0), cell_K])
        names = ("users", "pairs", "judgements")
        return [
            {name: round(float(part), 4) for name, part in zip(names, part_3 / part_3.sum(), strict=True)}
            if part_3.sum() > TINY**2
            else None
            for part_3 in part_3K.T
        ]

    @staticmethod
    def _dyads(row_H: Floats, code_2H: NDArray[np.int64]) -> float:
        return float((summed(code_2H, np.tile(row_H, 2)) ** 2).sum())

    @cached_property
    def text_2H(self) -> NDArray[np.int64]:
        """Code of each row's one text, then of each row's other text."""
        return self.rows.texts_Y2[self.rows.pair_H].T.ravel()

    @cached_property
    def user_text_2H(self) -> NDArray[np.int64]:
        """Codes of (user, text), likewise."""
        codes_2H = np.tile(self.rows.user_H, 2) * (self.text_2H.max(initial=0) + 1) + self.text_2H
        return np.unique(codes_2H, return_inverse=True)[1]

    @cached_property
    def disjoint(self) -> float:
        """Effective number of test pairs that share no text."""
        pairs = np.unique(self.rows.pair_H)
        squares = (np.bincount(self.rows.texts_Y2[pairs].ravel()) ** 2.0).sum()
        return 2 * len(pairs) ** 2 / max(squares, 1.0)

    def _clusters(self, measured: Measured) -> int:
        pairs = min(measured.n_pairs, round(self.disjoint))
        return min(measured.n_users, pairs) if self.by_user else pairs

    def _draw(self, user_UK: Floats, pair_YK: Floats) -> Floats:
        """``draw_BK``: sum over users and pairs of (Poisson(1) weight - 1) times influence, B times."""
        rng = np.random.default_rng(self.seed)
        cluster_CK = np.concatenate([user_UK, pair_YK]).astype(np.float32)
        moved = []
        for start in range(0, self.draws, CHUNK):
            shape = (min(CHUNK, self.draws - start), len(cluster_CK))
            moved.append(POISSON_LESS_1[rng.integers(0, 2**16, shape, dtype=np.uint16)] @ cluster_CK)
        return np.concatenate(moved).astype(np.float64)


def difference(one: Measured, other: Measured) -> Measured:
    """``one - other``, paired: both were measured on the same rows."""
    if one.value is None or other.value is None:
        return replace(one, value=None)
    moved = one.value - other.value, one.row_H - other.row_H, one.user_U - other.user_U
    return Measured(*moved, one.n_users, one.n_judgements, one.n_pairs)


def unseen_share(pairs_K: Floats) -> Floats:
    """The share of all pairs that may be unlike every one of the pairs seen, 97.5 % sure (Clopper & Pearson)."""
    return 1 - ((1 - LEVEL) / 2) ** (1 / pairs_K)


def paired_p(gain_K: Floats, se_K: Floats, null_se_K: Floats, pairs_K: Floats, moved_K: Floats) -> Floats:
    """Two-sided p that K mean differences are zero in truth; 1 where nothing was seen to differ.

    The largest of three, each of which fails where another does not: Student's, from the standard error ``se_K`` and
    ``pairs_K`` - 1 degrees of freedom (few pairs, pairs that go together); the normal one under signs thrown at random,
    from ``null_se_K`` (differences that are nearly alike); and 2^(1 - moved), the smallest that throwing the signs of
    ``moved_K`` differences can give (few of them). ``pairs_K`` and ``moved_K`` count independent pairs.
    """
    from scipy.stats import norm, t

    p_K = np.ones(len(gain_K))
    some = moved_K > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        student_K = 2 * t.sf(np.abs(gain_K) / se_K, np.maximum(pairs_K - 1, 1))
        thrown_K = 2 * norm.sf(np.abs(gain_K) / null_se_K)
    p_K[some] = np.fmax(student_K, thrown_K)[some]
    return np.maximum(p_K, np.minimum(1.0, 2.0 ** (1.0 - moved_K)))


def benjamini_hochberg(p_K: Floats, rate: float = 0.05) -> NDArray[np.bool_]:
    """Which of K hypotheses fall when an expected share ``rate`` of those that fall may be true (1995)."""
    if not len(p_K):
        return np.zeros(0, bool)
    order = np.argsort(p_K, kind="stable")
    under = np.flatnonzero(p_K[order] <= rate * np.arange(1, len(p_K) + 1) / len(p_K))
    rejected = np.zeros(len(p_K), bool)
    if len(under):
        rejected[order[: under[-1] + 1]] = True
    return rejected


def _variance(sum_CK: Floats) -> Floats:
    """Sum of squares over C clusters, with the correction for few clusters."""
    clusters_K = np.count_nonzero(sum_CK, axis=0)
    return (sum_CK**2).sum(axis=0) * clusters_K / np.maximum(clusters_K - 1, 1)


def _interval(
    measured: Measured, draw_B: Floats, error: tuple[float, Parts], clusters: int, bounds: Bounds
) -> Interval:
    """``draw_B`` are draws of the value's deviation, scaled to a variance of one; ``error`` is the standard error and
    where it comes from."""
    from scipy.stats import norm, t

    se, parts = error
    value, tail = measured.value or 0.0, (1 - LEVEL) / 2
    if clusters < 2:
        return Interval()  # one sample has no error bar
    within = value + unseen_share(np.array([measured.n_pairs])) * (np.array(bounds) - value)
    least_p = 2.0 ** (1 - clusters)
    if se <= TINY:
        p = 1.0 if abs(value) <= TINY else least_p
        return Interval(float(within[0]), float(within[1]), None, p) if np.isfinite(within).all() else Interval(p=p)
    lo, hi = value + np.quantile(draw_B, [tail, 1 - tail]) * se * t.isf(tail, clusters - 1) / norm.isf(tail)
    if np.isfinite(within).all():
        lo, hi = min(lo, within[0]), max(hi, within[1])
    p = float(max(2 * t.sf(abs(value) / se, clusters - 1), least_p))
    return Interval(float(max(lo, bounds[0])), float(min(hi, bounds[1])), se, p, parts)
