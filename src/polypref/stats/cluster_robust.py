"""Intervals for judgements that share users and pairs, and tests that hold over many users at once.

Judgements of one user go together, and so do judgements of one pair. With psi what a judgement adds to a metric's
deviation, the variance is (Cameron, Gelbach & Miller 2011, "Robust inference with multiway clustering")

    V = U + P - C,   U = sum_users (sum psi)^2 / (1 - h), P the same over pairs, C over (user, pair)

where h is a cluster's share of the value: a cluster of share h pulls the mean its own way by as much (CR2, Bell &
McCaffrey 2002). Pairs that share a text go together as well where a text is misjudged: pairs are dyads of texts
(Fafchamps & Gubert 2007), and with D = sum_texts (sum psi)^2 - sum_pairs (sum psi)^2, and D_u the same among a user's
own judgements, V' = U + D - sum_users D_u. The largest of V, V' and C counts, C being the noise of the judgements
themselves. The interval is Student's, with Satterthwaite's degrees of freedom (1946),

    V^2 / [(U^2 - C^2)+ / (users - 1) + (max(P, D)^2 - C^2)+ / (pairs - 1) + C^2 / (judgements - 1)]

All three counts are effective ones, 1 / sum h^2, for pairs 2 / sum_texts (share of a text's pairs)^2, which is n for n
pairs of equal weight that share no text. Differences are paired: psi is that of the difference.

It speaks of new users like these on new pairs like these. Of these very users on new pairs (``these_users``), U and D_u
are left out; so they are with fewer than FEW_USERS users, when nothing can be said of users in general.

Where FEW_MOVED pairs or more move the value, that is all. Where hardly any does (all right, or two learners that answer
alike; their effective number is (sum psi^2)^2 / sum psi^4) the sample cannot tell how much rare ones weigh, and with
none V is 0. But what n pairs did not show may still be so for a share of 1 - 0.025^(1/n) of all pairs (Clopper &
Pearson 1934; 14 % at n = 25, 1 % at n = 368), and on those the value may lie anywhere within its bounds. There, and
nowhere else, no interval is narrower than that; with no movement a value without bounds (log loss) has none.

Simulated coverage: ``benchmarks/truth/gains.py``, docs/protocol.md. Covered: rows of the same judgement under several
seeds (one cluster). Not covered: that another training sample would have given another fit, beyond what the seeds show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from polypref.stats.metrics import HeldOut, Measured, summed

Floats = NDArray[np.float64]
Bounds = tuple[float, float]
Parts = dict[str, float] | None

LEVEL = 0.95
FEW_USERS = 10
FEW_MOVED = 3
TINY = 1e-12
UNBOUNDED = (-inf, inf)


@dataclass(frozen=True)
class Interval:
    """Ends of a 95 % interval and the standard error; all None if they cannot be estimated.

    ``p``, two-sided, for a true value of 0: Student's, but never below 2^(1 - clusters), the smallest possible when the
    clusters' signs are random. ``se`` is None if no judgement moves the value: it is unknown, not 0. ``parts``: the
    shares of the variance from differences between users, from differences between pairs, and from the noise of single
    judgements; more users, pairs or judgements reduce the respective part.
    """

    lo: float | None = None
    hi: float | None = None
    se: float | None = None
    p: float | None = None
    parts: Parts = None


@dataclass(frozen=True)
class Spread:
    """How sure a value is: its variance ``V``, degrees of freedom, and where the variance comes from.

    ``pairs``  effective number of pairs that share no text; ``moved`` that of those which move the value.
    """

    variance: float
    freedom: float
    parts: Parts
    pairs: float
    moved: float


def mean_with_half(value_K: Floats) -> tuple[float, float]:
    """The mean of two or more values, and half the width of its 95 % t interval."""
    half = stdtrit(len(value_K) - 1, 0.5 + LEVEL / 2) * value_K.std(ddof=1) / len(value_K) ** 0.5
    return float(value_K.mean()), float(half)


@dataclass(frozen=True, eq=False)
class Clusters:
    """Users, pairs and (user, pair) cells of the test rows; ``these_users``: intervals speak of these, however many."""

    rows: HeldOut
    these_users: bool = False

    @cached_property
    def cell_H(self) -> NDArray[np.int64]:
        """Code of each row's (user, pair)."""
        return np.unique(self.rows.user_H * self.rows.n_pairs + self.rows.pair_H, return_inverse=True)[1]

    @cached_property
    def by_user(self) -> bool:
        """Whether the users stand for others, or are taken as the ones that matter."""
        return not self.these_users and len(np.unique(self.rows.user_H)) >= FEW_USERS

    def intervals(self, measured: Sequence[Measured], bounds: Bounds = UNBOUNDED) -> list[Interval]:
        """An interval for each of K measured values; ``bounds`` are what the values cannot leave.

        There is no interval for a single cluster.
        """
        return [self._interval(m, bounds) for m in measured]

    def _interval(self, m: Measured, bounds: Bounds) -> Interval:
        if m.value is None or min(m.n_pairs, m.n_users if self.by_user else m.n_pairs) < 2:
            return Interval()  # one sample has no error bar
        spread = self.spread(m)
        se, value = spread.variance**0.5, m.value
        clusters = min(m.n_users, round(spread.pairs)) if self.by_user else round(spread.pairs)
        least_p = 2.0 ** (1 - clusters)
        unseen = float(unseen_share(np.array([spread.pairs]))[0])
        within = [value + unseen * (bound - value) for bound in bounds]
        if se <= TINY:
            p = 1.0 if abs(value) <= TINY else least_p
            return Interval(within[0], within[1], None, p) if np.isfinite(within).all() else Interval(p=p)
        half = float(stdtrit(spread.freedom, 0.5 + LEVEL / 2)) * se
        ends = [value - half, value + half]
        if spread.moved < FEW_MOVED and np.isfinite(within).all():
            ends = [min(ends[0], within[0]), max(ends[1], within[1])]
        p = max(2 * float(stdtr(spread.freedom, -abs(value) / se)), least_p)
        return Interval(max(ends[0], bounds[0]), min(ends[1], bounds[1]), se, min(p, 1.0), spread.parts)

    def spread(self, m: Measured) -> Spread:
        """The variance of a measured value, with its degrees of freedom."""
        pair_P, cell_C = summed(self.rows.pair_H, m.row_H, self.rows.n_pairs), summed(self.cell_H, m.row_H)
        share_P, share_C = summed(self.rows.pair_H, m.share_H, self.rows.n_pairs), summed(self.cell_H, m.share_H)
        pairs, cells = 2 / self._by_text(m.share_H, self.text_2H), _effective(share_C)
        pair, cell = _squares(pair_P, share_P), _squares(cell_C, share_C)
        dyad = max(self._by_text(m.row_H, self.text_2H) - float((pair_P**2).sum()), 0.0) * _fewer(pairs)
        if self.by_user:
            user = _squares(m.user_U, m.share_U)
            own = (self._by_text(m.row_H, self.user_text_2H) - float((cell_C**2).sum())) * _fewer(cells)
            variance = max(user + pair - cell, user + dyad - own, cell)
        else:
            user, variance = 0.0, max(pair, dyad)
        text = max(pair, dyad)
        noise = max(user**2 - cell**2, 0.0) / max(_effective(m.share_U) - 1, 1.0)
        noise += max(text**2 - cell**2, 0.0) / max(pairs - 1, 1.0) + cell**2 / max(cells - 1, 1.0)
        return Spread(
            variance,
            variance**2 / max(noise, TINY**4),
            _parts(max(user - cell, 0.0), max(text - cell, 0.0), cell),
            pairs,
            _effective(pair_P**2),
        )

    @staticmethod
    def _by_text(row_H: Floats, code_2H: NDArray[np.int64]) -> float:
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


def difference(one: Measured, other: Measured) -> Measured:
    """``one - other``, paired: both are measured on the same rows."""
    if one.value is None or other.value is None:
        return replace(one, value=None)
    return replace(
        one,
        value=one.value - other.value,
        share_H=(one.share_H + other.share_H) / 2,
        row_H=one.row_H - other.row_H,
        user_U=one.user_U - other.user_U,
    )


def unseen_share(pairs_K: Floats) -> Floats:
    """Upper limit, at 97.5 %, of the share of pairs that differ from all observed pairs (Clopper & Pearson)."""
    return 1 - ((1 - LEVEL) / 2) ** (1 / pairs_K)


def paired_p(gain_K: Floats, se_K: Floats, null_se_K: Floats, pairs_K: Floats, moved_K: Floats) -> Floats:
    """Two-sided p-values of K mean differences for the null of zero; 1 if nothing differs.

    The largest of three p-values with complementary strengths: Student's, from the standard error ``se_K`` and
    ``pairs_K`` - 1 degrees of freedom (few or correlated pairs); the normal one under random signs, from ``null_se_K``
    (nearly equal differences); and 2^(1 - moved), the smallest possible under random signs of ``moved_K`` differences
    (few of them). ``pairs_K`` and ``moved_K`` count independent pairs.
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
    """Which of K null hypotheses are rejected at the false discovery rate ``rate`` (Benjamini & Hochberg 1995)."""
    if not len(p_K):
        return np.zeros(0, bool)
    order = np.argsort(p_K, kind="stable")
    under = np.flatnonzero(p_K[order] <= rate * np.arange(1, len(p_K) + 1) / len(p_K))
    rejected = np.zeros(len(p_K), bool)
    if len(under):
        rejected[order[: under[-1] + 1]] = True
    return rejected


def _effective(share_X: Floats) -> float:
    """How many there would be if all weighed alike; 0 where nothing weighs."""
    squares = float((share_X**2).sum())
    return float(share_X.sum()) ** 2 / squares if squares > 0 else 0.0


def _fewer(n: float) -> float:
    """How much larger a sum of squares over n alike would be, had their mean been known."""
    return n / max(n - 1, TINY)


def _squares(sum_X: Floats, share_X: Floats) -> float:
    """Sum of squares over clusters, each as much larger as its own share of the mean makes it smaller."""
    return float((sum_X**2 / np.maximum(1 - share_X, TINY)).sum())


def _parts(users: float, pairs: float, judgements: float) -> Parts:
    """Shares of the variance, see ``Interval``: what users and pairs add to that of independent judgements."""
    whole = users + pairs + judgements
    named = {"users": users, "pairs": pairs, "judgements": judgements}
    return {name: round(part / whole, 4) for name, part in named.items()} if whole > TINY**2 else None
