"""Intervals and tests for arms on the same benchmark items: for one user, the mean user, the worst user.

A score is a weighted mean over V units in strata (subsets), a different one in each of F sections. Clusters of units
(those of one prompt, whose answers are correlated) are resampled with replacement within their stratum. All arms and
sections share the draws, so differences are paired. Deviations are widened by sqrt(m / (m - 1)) for m clusters; strata
with fewer than FEW_CLUSTERS clusters and equal weights are resampled as one.

one user     percentiles of the draws.
mean user    items and users resampled together (Owen 2007): a draw of users multiplies a draw of items, since all users
             answer the same items. With fewer than FEW_USERS users only items are resampled, and the interval is about
             these users. A Student factor widens it for few users. This counts the noise of single answers more than
             once, so the interval is rather too wide than too narrow.
worst user   max-T: the quantile, over draws, of the largest studentized deviation among all users widens every user's
             interval, so that all hold at once and the worst user can be selected afterwards.
test         McNemar's exact test on the clusters of a section in which one arm wins more than the other, each counting
             once; Holm (1979) over users and sections.

Where fewer than FEW_MOVED clusters move a mean, its interval is no narrower than what n clusters without any change
leave open (``cluster_robust.unseen_share``), with n the clusters that would weigh as much if all weighed alike,
1 / sum weight^2, or the n of any one stratum for its own weight. A user's interval never is, and is no narrower than
Clopper and Pearson's for the share that was lost, and the one that was won, of n clusters, at .025 / U each where U
users' intervals hold at once. The smallest tax that is found four times in five, at level a and a share d of n clusters
answered differently, is (z(a / 2) + 0.84) sqrt(d / n), with a = .05 / tests, Holm's first step.

Covered: the choice of the benchmark's items and of the measured users. Not covered: another training sample would give
other arms.

Suffixes here: ``_A`` arms, ``_F`` sections of a benchmark, ``_K`` clusters of units, ``_V`` units of a benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from polypref.stats.cluster_robust import FEW_MOVED, FEW_USERS, LEVEL, TINY, Bounds

Floats = NDArray[np.float64]
Ends = tuple[Floats, Floats]

TAIL = (1 - LEVEL) / 2
FEW_CLUSTERS = 5
POWER_Z = 0.8416  # for a power of 80 %
DISCORDANT = 0.1  # assumed share of units answered differently, if not measured


@dataclass(frozen=True, eq=False)
class Resampled:
    """A arms on V units: ``value_FA`` are their scores in F sections, ``draw_BFA`` the same on B resamples of the
    units.

    ``stratum_V`` the stratum of each unit, ``weight_FV`` its weight in each section, ``result_AV`` the averaged values.
    ``cluster_V`` says which units are resampled together; None: each by itself.
    """

    result_AV: Floats
    stratum_V: NDArray[np.int64]
    weight_FV: Floats
    draws: int = 2000
    seed: int = 0
    cluster_V: NDArray[np.int64] | None = None

    @cached_property
    def value_FA(self) -> Floats:
        return self.weight_FV @ self.result_AV.T

    @cached_property
    def draw_BFA(self) -> Floats:
        rng = np.random.default_rng(self.seed)
        drawn_BFA = np.zeros((self.draws, len(self.weight_FV), len(self.result_AV)))
        for units, cluster_U in self._redrawn:
            many = int(cluster_U.max()) + 1
            size_K = np.bincount(cluster_U)
            sum_AK = np.stack([np.bincount(cluster_U, row, many) for row in self.result_AV[:, units]])
            count_BK = rng.multinomial(many, np.full(many, 1 / many), size=self.draws).astype(np.float64)
            mean_BA = count_BK @ sum_AK.T / (count_BK @ size_K)[:, None]
            centre_A = self.result_AV[:, units].mean(axis=1)
            wider = np.sqrt(many / (many - 1)) if many > 1 else 1.0
            moved_BA = (centre_A + wider * (mean_BA - centre_A)) * len(units)
            drawn_BFA += moved_BA[:, None, :] * self.weight_FV[:, units[0], None]  # equal within a stratum
        return drawn_BFA

    @cached_property
    def _redrawn(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Units of each stratum and their clusters, numbered from 0; small strata of equal weights are one."""
        cluster_V = np.arange(len(self.stratum_V)) if self.cluster_V is None else self.cluster_V
        found, small = [], {}
        for stratum in np.unique(self.stratum_V):
            units = np.flatnonzero(self.stratum_V == stratum)
            if len(np.unique(cluster_V[units])) < FEW_CLUSTERS:
                small.setdefault(self.weight_FV[:, units[0]].tobytes(), []).append(units)
            else:
                found.append(units)
        found += [np.concatenate(parts) for parts in small.values()]
        return [(units, np.unique(cluster_V[units], return_inverse=True)[1]) for units in found]

    def floor_F(self, tail: float = TAIL) -> Floats:
        """The share of each section that may differ from all that was observed; larger with probability ``tail``."""
        whole_F = 1 - tail ** (1 / self.effective_F)
        for units, cluster_U in self._redrawn:
            unseen = 1 - tail ** (1 / (cluster_U.max() + 1))
            whole_F = np.maximum(whole_F, self.weight_FV[:, units].sum(axis=1) * unseen)
        return whole_F

    def sides(self, arms: NDArray[np.int64], other: int) -> tuple[Floats, Floats]:
        """``(more_FU, less_FU)``: weighted shares by which U arms exceed the other arm, and fall short of it."""
        change_UV = self.result_AV[arms] - self.result_AV[other]
        return self.weight_FV @ np.maximum(change_UV, 0).T, self.weight_FV @ np.maximum(-change_UV, 0).T

    @cached_property
    def units_F(self) -> NDArray[np.int64]:
        """Number of units in each section."""
        return (self.weight_FV > 0).sum(axis=1)

    @cached_property
    def effective_F(self) -> Floats:
        """Effective number of clusters in each section."""
        parts = [self.weight_FV[:, units[0], None] * np.bincount(cluster_U) for units, cluster_U in self._redrawn]
        return 1 / (np.concatenate(parts, axis=1) ** 2).sum(axis=1)

    def changes(self, arms: NDArray[np.int64], other: NDArray[np.int64] | int) -> tuple[Floats, Floats]:
        """``(change_FU, draw_BFU)``: scores of U arms minus those of the ``other`` ones, and the same on each draw."""
        own_FU, own_BFU = self.value_FA[:, arms], self.draw_BFA[:, :, arms]
        other_U = np.broadcast_to(other, np.shape(arms))  # one for all, or one for each
        return own_FU - self.value_FA[:, other_U], own_BFU - self.draw_BFA[:, :, other_U]

    def each(self, change_FU: Floats, draw_BFU: Floats, sides: tuple[Floats, Floats]) -> Ends:
        """Ends (F, U) of each user's own interval; ``sides`` as ``sides`` gives them."""
        ends = _ends(change_FU, draw_BFU, self.floor_F()[:, None])
        return self._with_few(change_FU, ends, sides, TAIL)

    def together(self, change_FU: Floats, draw_BFU: Floats, sides: tuple[Floats, Floats]) -> Ends:
        """Ends (F, U) of intervals that hold for all users of a section at once."""
        tail = TAIL / change_FU.shape[1]
        se_FU = draw_BFU.std(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            far_BFU = np.where(se_FU > TINY, np.abs(draw_BFU - change_FU) / se_FU, 0.0)
        wide_F1 = np.quantile(far_BFU.max(axis=2), LEVEL, axis=0)[:, None]
        ends = change_FU - wide_F1 * se_FU, change_FU + wide_F1 * se_FU
        return self._with_few(change_FU, _widened(change_FU, ends, self.floor_F(tail)[:, None]), sides, tail)

    def _with_few(self, change_FU: Floats, ends: Ends, sides: tuple[Floats, Floats], tail: float) -> Ends:
        """Widen the ends to the exact limits of the shares lost and won, each as one count of n clusters."""
        from scipy.stats import beta

        n_F1 = self.effective_F[:, None]
        left = [np.maximum(n_F1 * (1 - share_FU), TINY) for share_FU in sides]
        room = [beta.isf(tail, share * n_F1 + 1, rest) - share for share, rest in zip(sides, left, strict=True)]
        lo, hi = np.minimum(ends[0], change_FU - room[1]), np.maximum(ends[1], change_FU + room[0])
        return np.maximum(lo, -1.0), np.minimum(hi, 1.0)

    def mean(
        self, arms: NDArray[np.int64], other: NDArray[np.int64] | int | None = None, bounds: Bounds = (-1.0, 1.0)
    ) -> tuple[Floats, Ends]:
        """The mean (F) over users' arms, less the ``other`` ones, and the ends of its interval.

        See the file's opening for what is redrawn.
        """
        from scipy.stats import norm, t

        if other is None:
            value_FU, draw_BFU, result_UV = self.value_FA[:, arms], self.draw_BFA[:, :, arms], self.result_AV[arms]
        else:
            value_FU, draw_BFU = self.changes(arms, other)
            result_UV = self.result_AV[arms] - self.result_AV[other]
        mean_F, users = value_FU.mean(axis=1), value_FU.shape[1]
        floor_F = np.where(self._moved(result_UV.mean(axis=0)) < FEW_MOVED, self.floor_F(), 0.0)
        if users < FEW_USERS:
            return mean_F, _ends(mean_F, draw_BFU.mean(axis=2), floor_F, bounds)
        rng = np.random.default_rng([self.seed, 1])
        count_BU = rng.multinomial(users, np.full(users, 1 / users), size=self.draws) / users
        draw_BF = np.einsum("bsu,bu->bs", draw_BFU, count_BU)
        wider = t.isf(TAIL, users - 1) / norm.isf(TAIL)
        return mean_F, _ends(mean_F, mean_F + wider * (draw_BF - mean_F), floor_F, bounds)

    def _moved(self, mean_V: Floats) -> Floats:
        """Effective number of clusters that move each section's mean."""
        parts = []
        for units, cluster_U in self._redrawn:
            far_K = np.bincount(cluster_U, mean_V[units] - mean_V[units].mean())
            parts.append(self.weight_FV[:, units[0], None] * np.where(np.abs(far_K) > TINY, far_K, 0.0))
        far_FK = np.concatenate(parts, axis=1)
        fourth_F = (far_FK**4).sum(axis=1)
        return np.divide((far_FK**2).sum(axis=1) ** 2, fourth_F, out=np.zeros(len(far_FK)), where=fourth_F > 0)

    def mcnemar(self, arms: NDArray[np.int64], other: int, sections: int) -> tuple[Floats, NDArray[np.int64]]:
        """``(p_FU, differ_FU)`` for the first ``sections``: the exact test, and the clusters answered differently."""
        from scipy.stats import binom

        change_UV = self.result_AV[arms] - self.result_AV[other]
        more_FU, less_FU = np.zeros((2, sections, len(change_UV)))
        for units, cluster_U in self._redrawn:
            net_UK = np.stack([np.bincount(cluster_U, row_V[units]) for row_V in change_UV])
            in_F1 = self.weight_FV[:sections, units[0], None] > 0
            more_FU += in_F1 * (net_UK > TINY).sum(axis=1)
            less_FU += in_F1 * (net_UK < -TINY).sum(axis=1)
        differ_FU = (more_FU + less_FU).astype(np.int64)
        return np.minimum(1.0, 2 * binom.cdf(np.minimum(more_FU, less_FU), differ_FU, 0.5)), differ_FU


def _ends(value: Floats, draw_B: Floats, unseen: Floats, bounds: tuple[float, float] = (-1.0, 1.0)) -> Ends:
    lo, hi = np.quantile(draw_B, [TAIL, 1 - TAIL], axis=0)
    return _widened(value, (lo, hi), unseen, bounds)


def _widened(value: Floats, ends: Ends, unseen: Floats, bounds: tuple[float, float] = (-1.0, 1.0)) -> Ends:
    """Ends widened by the unobserved share, within the possible range."""
    least, most = bounds
    lo, hi = np.minimum(ends[0], value + unseen * (least - value)), np.maximum(ends[1], value + unseen * (most - value))
    return np.maximum(lo, np.minimum(least, value)), np.minimum(hi, np.maximum(most, value))


def holm(p_K: Floats) -> Floats:
    """Holm's (1979) adjusted p-values of K tests, which control the family-wise error rate."""
    flat = np.ravel(p_K)
    order = np.argsort(flat, kind="stable")
    stepped = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    adjusted = np.empty(len(flat))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.reshape(np.shape(p_K))


def detectable(units: Floats, discordant: Floats | float = DISCORDANT, tests: int = 1) -> Floats:
    """The smallest difference that one of ``tests`` on ``units`` detects with 80 % power; see the module docstring."""
    from scipy.stats import norm

    return (norm.isf(TAIL / tests) + POWER_Z) * np.sqrt(discordant / units)


def verdict(ends: tuple[float, float], margin: float, able: bool = True) -> str:
    """``no tax`` only if the upper end is below the margin; ``tax`` if the lower end is above 0.

    ``able``: whether the untaxed arm is better than chance; if not, there is nothing to lose.
    """
    if not able:
        return "nothing to lose"
    if ends[1] < margin:
        return "no tax"
    return "tax" if ends[0] > 0 else "unclear"
