"""Divergence: how often people who judged the same pair disagree, raw and at fixed panel sizes.

Source: Dong et al., EMNLP Findings 2025, section 3 (divergence rate, high divergence); SC1 of the social-choice list.
Changed: the raw rates grow with the number of judges, so both are also given at fixed panel sizes k: the exact
expectation over all k-subsets of a pair's judges (a U-statistic) instead of random sub-samples.

Suffixes here: ``_L`` votes of one side, ``_X`` pairs with a vote of that side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polypref.profiling.tournament import parts
from polypref.profiling.votes import Votes
from polypref.stats.estimate import Estimate, Floats, proportion, wilson

HIGH_DISSENT = 0.3
PANEL_SIZES = (2, 3, 5)
BOOTSTRAPS = 200
ROUND_OFF = 1e-9


@dataclass(frozen=True)
class Disagreement:
    """Divergence with intervals. A tie is an abstention; only users who took a side are judges.

    ``contested``         share of pairs with >= 3 judges that are not unanimous; interval over pairs, for these users.
    ``highly_contested``  same pairs, >= 30 % of the judges against the majority.
    ``divergence``        share of pairs with >= 2 judges that are not unanimous; ``high_divergence`` likewise.
    ``at_panel``          panel size k -> (contested, highly contested) if k judges had judged, over pairs with
                          >= k judges; interval from a bootstrap over users and pairs, Wilson's if all pairs agree.
    ``mean_panel``        judges per pair with >= 2 judges; None if no pair has two.
    """

    contested: Estimate
    highly_contested: Estimate
    divergence: Estimate
    high_divergence: Estimate
    at_panel: dict[int, tuple[Estimate, Estimate]]
    mean_panel: float | None

    def as_dict(self) -> dict[str, object]:
        names = ("contested", "highly_contested", "divergence", "high_divergence")
        at_panel = {
            str(k): {"contested": contested.as_dict(), "highly_contested": high.as_dict()}
            for k, (contested, high) in self.at_panel.items()
        }
        rates = {name: getattr(self, name).as_dict() for name in names}
        return rates | {"at_panel": at_panel, "mean_panel": self.mean_panel}


def disagreement(votes: Votes, seed: int = 0, *, derived: bool = False) -> Disagreement:
    """Divergence rates of the votes, raw and at fixed panel sizes.

    ``derived``: pairs were made from ratings or rankings. Pairs that share a response are then not
    independent: m responses of a prompt count as m - 1 pairs in Wilson's interval, and the bootstrap redraws responses.
    """
    votes = votes.decided
    panel_Y, least_Y = votes.panel_Y, np.minimum(votes.plus_Y, votes.minus_Y)
    high_Y = is_high(least_Y, panel_Y)
    two_Y, three_Y = panel_Y >= 2, panel_Y >= 3
    two, three = (independent_pairs(votes, on_Y) if derived else None for on_Y in (two_Y, three_Y))
    return Disagreement(
        contested=proportion(least_Y[three_Y] > 0, three),
        highly_contested=proportion(high_Y[three_Y], three),
        divergence=proportion(least_Y[two_Y] > 0, two),
        high_divergence=proportion(high_Y[two_Y], two),
        at_panel=fixed_panels(votes, seed, derived=derived),
        mean_panel=float(panel_Y[two_Y].mean()) if two_Y.any() else None,
    )


def is_high(dissent: NDArray | int, panel: NDArray | int) -> NDArray:
    """Whether at least 30 % of the panel oppose its majority (integer arithmetic: 3 of 10 counts)."""
    return np.asarray(10 * np.asarray(dissent) >= round(10 * HIGH_DISSENT) * np.asarray(panel))


def independent_pairs(votes: Votes, on_Y: NDArray[np.bool_]) -> int:
    """How many of these pairs are independent: responses minus their connected groups."""
    ends, nodes_2Y = np.unique([votes.first_Y[on_Y], votes.second_Y[on_Y]], return_inverse=True)
    first_Y, second_Y = nodes_2Y.reshape(2, -1)
    return len(ends) - len(np.unique(parts(first_Y, second_Y, len(ends), strong=False)))


def fixed_panels(votes: Votes, seed: int, *, derived: bool = False) -> dict[int, tuple[Estimate, Estimate]]:
    """Expected rates if every pair had been judged by k of its judges, for each k in ``PANEL_SIZES``."""
    votes = votes.take((votes.panel_Y >= 2)[votes.pair_V])
    rng = np.random.default_rng(seed)
    pairs, pair_V = np.unique(votes.pair_V, return_inverse=True)
    plus_Y, minus_Y = votes.plus_Y[pairs], votes.minus_Y[pairs]
    units, unit_2Y = len(pairs), np.arange(len(pairs))[None]
    if derived:
        ends = np.stack([votes.first_Y[pairs], votes.second_Y[pairs]])
        _, first_seen, unit = np.unique(ends, return_index=True, return_inverse=True)
        # numbered by the order of the pairs, which is the same for any order of the rows
        units, unit_2Y = len(first_seen), np.argsort(np.argsort(first_seen))[unit].reshape(ends.shape)
    plus, minus = (Side.of(votes.user_V[on], pair_V[on], len(pairs)) for on in (votes.sign_V > 0, votes.sign_V < 0))
    draws: dict[int, list[tuple[float, float]]] = {k: [] for k in PANEL_SIZES}
    for b in range(BOOTSTRAPS + 1):
        first = b == 0  # the plain estimate: everyone and every pair counts once
        weight_U = np.ones(votes.n_users) if first else rng.standard_exponential(votes.n_users)
        weight_Y = np.ones(len(pairs)) if first else rng.standard_exponential(units)[unit_2Y].prod(axis=0)
        plus_kY, minus_kY = plus.subset_products(weight_U), minus.subset_products(weight_U)
        for k in PANEL_SIZES:
            draws[k].append(_rates(plus_kY, minus_kY, weight_Y, k))
    panel_Y = plus_Y + minus_Y
    return {k: _estimates(np.array(draws[k]), int((panel_Y >= k).sum())) for k in PANEL_SIZES}


@dataclass(frozen=True, eq=False)
class Side:
    """The judges on one side of each of Y pairs: L votes sorted by pair, and the start of each of X voted pairs."""

    user_L: NDArray
    start_X: NDArray
    pair_X: NDArray
    count_Y: NDArray

    @staticmethod
    def of(user_L: NDArray, pair_L: NDArray, n_pairs: int) -> Side:
        pair_X, start_X = np.unique(pair_L, return_index=True)
        return Side(user_L, start_X, pair_X, np.bincount(pair_L, minlength=n_pairs))

    def subset_products(self, weight_U: Floats) -> Floats:
        """Elementary symmetric polynomials e_0 .. e_5 of the weights of each pair's judges: shape (6, Y).

        e_j sums, over all j-subsets of the judges, the product of their weights (with unit weights: the binomial
        coefficient). From power sums by Newton's identities.
        """
        top = max(PANEL_SIZES)
        e_kY = np.zeros((top + 1, len(self.count_Y)))
        e_kY[0] = 1.0
        if len(self.user_L) == 0:
            return e_kY
        weight_L = weight_U[self.user_L]
        power_kY = np.zeros((top + 1, len(self.count_Y)))
        raised_L = np.ones(len(weight_L))
        for k in range(1, top + 1):
            raised_L *= weight_L
            power_kY[k, self.pair_X] = np.add.reduceat(raised_L, self.start_X)
            for i in range(1, k + 1):
                e_kY[k] += (-1) ** (i - 1) / k * e_kY[k - i] * power_kY[i]
            # rounding around exact zeros
            e_kY[k] = np.where(self.count_Y >= k, np.maximum(e_kY[k], 0.0), 0.0)
        return e_kY


def _rates(plus_kY: Floats, minus_kY: Floats, weight_Y: Floats, k: int) -> tuple[float, float]:
    """Weighted mean over pairs of P(contested) and P(highly contested) in a random panel of k judges."""
    split_jY = np.array([plus_kY[j] * minus_kY[k - j] for j in range(k + 1)])
    total_Y = split_jY.sum(axis=0)
    has_Y = total_Y > 0
    if not has_Y.any():
        return np.nan, np.nan
    least_j = np.minimum(np.arange(k + 1), k - np.arange(k + 1))
    weight_Y = weight_Y[has_Y] / (total_Y[has_Y] * weight_Y[has_Y].sum())
    contested_Y, high_Y = split_jY[least_j > 0].sum(axis=0), split_jY[is_high(least_j, k)].sum(axis=0)
    return float((contested_Y[has_Y] * weight_Y).sum()), float((high_Y[has_Y] * weight_Y).sum())


def _estimates(draws: Floats, n: int) -> tuple[Estimate, Estimate]:
    if n == 0:
        return Estimate(), Estimate()
    (lo_c, lo_h), (hi_c, hi_h) = np.quantile(draws[1:], [0.025, 0.975], axis=0)
    (c, h) = draws[0]
    # one pair cannot show how much pairs differ
    if n == 1:
        return Estimate(float(c), None, None, n), Estimate(float(h), None, None, n)
    return _within(c, lo_c, hi_c, n), _within(h, lo_h, hi_h, n)


def _within(value: float, lo: float, hi: float, n: int) -> Estimate:
    """A bootstrap's interval of a share; Wilson's if all pairs agree, since resampling then changes nothing."""
    value = float(np.clip(value, 0.0, 1.0))  # rounding
    if hi - lo < ROUND_OFF:
        lo, hi = wilson(value, n)
    return Estimate(value, float(min(max(lo, 0.0), value)), float(max(min(hi, 1.0), value)), n)
