"""Intervals and tests for arms that answer the same benchmark items: one user, the mean user, the worst user.

A score is a weighted mean over V units in strata (subsets), a different one in each of S sections. Units are redrawn
with replacement within their stratum, the same draw for every arm and section, so differences are paired.

one user     percentiles of the draws.
mean user    items and users redrawn together (Owen 2007): a draw of users multiplies a draw of items, since all users
             answer the same items. With fewer than FEW_USERS users items alone are redrawn, and the interval speaks of
             these very users. A Student factor widens it for few users. This counts the noise of single answers more
             than once, so it is rather too wide than too narrow.
worst user   max-T: the quantile, over draws, of the largest studentized deviation among all users widens every user's
             interval, so that all hold at once and the worst may be picked afterwards.
test         McNemar's exact test on the units of a section that one arm wins and the other loses, each counting once;
             Holm (1979) over users and sections.

No interval is narrower than what n units without any change leave open (``intervals.unseen_share``), with n the units
that would weigh as much if all weighed alike, 1 / sum weight^2. The smallest tax that is found four times in five, at
level .05 and a share d of units answered differently, is (1.96 + 0.84) sqrt(d / n).

Covered: which items a benchmark happens to hold, which users were measured. Not covered: that another training sample
would have given other arms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from polypref.evaluation.intervals import FEW_USERS, LEVEL, TINY, unseen_share

Floats = NDArray[np.float64]
Ends = tuple[Floats, Floats]

TAIL = (1 - LEVEL) / 2
POWER_Z = 0.8416  # of a power of 80 %
DISCORDANT = 0.1  # share of units answered differently, where none was measured


@dataclass(frozen=True, eq=False)
class Resampled:
    """A arms on V units: ``value_SA`` their scores in S sections, ``draw_BSA`` the same on B resamples of the units.

    ``stratum_V`` the stratum of each unit, ``weight_SV`` its weight in each section, ``result_AV`` what is averaged.
    """

    result_AV: Floats
    stratum_V: NDArray[np.int64]
    weight_SV: Floats
    draws: int = 2000
    seed: int = 0

    @cached_property
    def value_SA(self) -> Floats:
        return self.weight_SV @ self.result_AV.T

    @cached_property
    def draw_BSA(self) -> Floats:
        rng = np.random.default_rng(self.seed)
        drawn_BSA = np.zeros((self.draws, len(self.weight_SV), len(self.result_AV)))
        for stratum in np.unique(self.stratum_V):
            units = np.flatnonzero(self.stratum_V == stratum)
            count_BV = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=self.draws)
            total_BA = count_BV.astype(np.float64) @ self.result_AV[:, units].T
            drawn_BSA += total_BA[:, None, :] * self.weight_SV[:, units[0], None]  # alike within a stratum
        return drawn_BSA

    @cached_property
    def units_S(self) -> NDArray[np.int64]:
        """How many units count in each section."""
        return (self.weight_SV > 0).sum(axis=1)

    @cached_property
    def effective_S(self) -> Floats:
        """How many units would count as much if all weighed alike."""
        return 1 / (self.weight_SV**2).sum(axis=1)

    def changes(self, arms: NDArray[np.int64], other: NDArray[np.int64] | int) -> tuple[Floats, Floats]:
        """``(change_SU, draw_BSU)``: scores of U arms minus those of the ``other`` ones, and the same on each draw."""
        own_SU, own_BSU = self.value_SA[:, arms], self.draw_BSA[:, :, arms]
        other_U = np.broadcast_to(other, np.shape(arms))  # one for all, or to each its own
        return own_SU - self.value_SA[:, other_U], own_BSU - self.draw_BSA[:, :, other_U]

    def each(self, change_SU: Floats, draw_BSU: Floats) -> Ends:
        """Ends (S, U) of each user's own interval."""
        return _ends(change_SU, draw_BSU, self.effective_S[:, None])

    def together(self, change_SU: Floats, draw_BSU: Floats) -> Ends:
        """Ends (S, U) of intervals that hold for all users of a section at once."""
        se_SU = draw_BSU.std(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            far_BSU = np.where(se_SU > TINY, np.abs(draw_BSU - change_SU) / se_SU, 0.0)
        wide_S1 = np.quantile(far_BSU.max(axis=2), LEVEL, axis=0)[:, None]
        ends = change_SU - wide_S1 * se_SU, change_SU + wide_S1 * se_SU
        return _widened(change_SU, ends, self.effective_S[:, None])

    def mean(
        self, change_SU: Floats, draw_BSU: Floats, bounds: tuple[float, float] = (-1.0, 1.0)
    ) -> tuple[Floats, Ends]:
        """The mean over users (S) and the ends of its interval; see the file's opening for what is redrawn."""
        from scipy.stats import norm, t

        mean_S, users = change_SU.mean(axis=1), change_SU.shape[1]
        if users < FEW_USERS:
            return mean_S, _ends(mean_S, draw_BSU.mean(axis=2), self.effective_S, bounds)
        rng = np.random.default_rng([self.seed, 1])
        count_BU = rng.multinomial(users, np.full(users, 1 / users), size=self.draws) / users
        draw_BS = np.einsum("bsu,bu->bs", draw_BSU, count_BU)
        wider = t.isf(TAIL, users - 1) / norm.isf(TAIL)
        return mean_S, _ends(mean_S, mean_S + wider * (draw_BS - mean_S), self.effective_S, bounds)

    def mcnemar(self, arms: NDArray[np.int64], other: int, sections: int) -> tuple[Floats, NDArray[np.int64]]:
        """``(p_SU, differ_SU)`` for the first ``sections``: the exact test, and the units answered differently."""
        from scipy.stats import binom

        change_UV = self.result_AV[arms] - self.result_AV[other]
        in_VS = (self.weight_SV[:sections] > 0).T.astype(np.float64)
        more_SU = ((change_UV > TINY) @ in_VS).T
        less_SU = ((change_UV < -TINY) @ in_VS).T
        differ_SU = (more_SU + less_SU).astype(np.int64)
        return np.minimum(1.0, 2 * binom.cdf(np.minimum(more_SU, less_SU), differ_SU, 0.5)), differ_SU


def _ends(value: Floats, draw_B: Floats, effective: Floats, bounds: tuple[float, float] = (-1.0, 1.0)) -> Ends:
    lo, hi = np.quantile(draw_B, [TAIL, 1 - TAIL], axis=0)
    return _widened(value, (lo, hi), effective, bounds)


def _widened(value: Floats, ends: Ends, effective: Floats, bounds: tuple[float, float] = (-1.0, 1.0)) -> Ends:
    """Ends no nearer than what was never seen may move them, and within what is possible."""
    unseen, (least, most) = unseen_share(effective), bounds
    lo, hi = np.minimum(ends[0], value + unseen * (least - value)), np.maximum(ends[1], value + unseen * (most - value))
    return np.maximum(lo, np.minimum(least, value)), np.minimum(hi, np.maximum(most, value))


def holm(p_K: Floats) -> Floats:
    """Holm's adjusted p-values: K tests, of which a true null falls in one of twenty sets at .05 (1979)."""
    flat = np.ravel(p_K)
    order = np.argsort(flat, kind="stable")
    stepped = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    adjusted = np.empty(len(flat))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.reshape(np.shape(p_K))


def detectable(units: Floats, discordant: Floats | float = DISCORDANT) -> Floats:
    """The smallest difference that a paired test on ``units`` finds four times in five; see the file's opening."""
    from scipy.stats import norm

    return (norm.isf(TAIL) + POWER_Z) * np.sqrt(discordant / units)


def verdict(ends: tuple[float, float], margin: float, able: bool = True) -> str:
    """``no tax`` only where the upper end is under the margin; ``tax`` where the lower end is over 0.

    ``able``: whether those who are not taxed can do anything; if not, "no tax" is empty.
    """
    if ends[1] < margin:
        return "no tax" if able else "nothing to lose"
    return "tax" if ends[0] > 0 else "unclear"
