"""How groups of people differ in many figures: each group against all others, with intervals that hold together.

Each person has one value of each figure, so a person is one sample, however much they judged. The difference of a
group's mean from the mean of all others has the variance

    v_own / n_own + v_others / n_others,      v = max(s^2, ((n - 1) s^2 + s_all^2) / n)

with s^2 the variance within a group and s_all^2 that over everybody, which counts as one more person, so that a few who
happen to agree are not certain. Where values are shares p of judgements, v is at least the mean of p (1 - p) over a
person's judgements, with the p of everybody or of a side that is nearest to one half: a few people with two judgements
each agree by chance. Divided by its error, a difference is Student's with Welch's degrees of freedom (1947),

    (v_own / n_own + v_others / n_others)^2 / [(v_own / n_own)^2 / (n_own - 1) + the same of the others]

few where a small group is the noisier one, because its people judged less. It is put on the normal scale by these.
Group labels are shuffled among the people (Westfall & Young 1993, max-T): the quantile of the largest such difference
over all groups and figures, put back, widens every interval. So all intervals hold at once, whatever the figures have
in common, and where labels say nothing, no interval excludes zero in ``level`` of all data sets.

Covered: many groups and figures, related figures, groups of unequal size and spread, people without a value. Not
covered: labels that were found in the same values; use others' values, or other judgements of the same people. Where a
group of a few people is far from all others, shuffled labels are tamer than its own spread, and some of its intervals
may miss how far.

Suffixes here: ``_K`` figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from polypref.stats.cluster_robust import LEVEL

Floats = NDArray[np.float64]
Ints = NDArray[np.integer]

LEAST = 5  # people with a value, in the group and among the others
DRAWS = 999
FEW_DRAWS, LARGE = 199, 4_000_000  # draws of permutations, for more values than this


@dataclass(frozen=True, eq=False)
class Differences:
    """G groups against all others, in K figures; NaN where either side has fewer than LEAST people.

    ``own_GK``, ``others_GK``  means over people; ``lo_GK``, ``hi_GK``  ends of the difference's interval.
    ``people_GK``              people of the group with a value.
    """

    own_GK: Floats
    others_GK: Floats
    lo_GK: Floats
    hi_GK: Floats
    people_GK: Ints

    @property
    def value_GK(self) -> Floats:
        """The differences."""
        return self.own_GK - self.others_GK

    @property
    def sure_GK(self) -> NDArray[np.bool_]:
        """Which intervals exclude zero."""
        return (self.lo_GK > 0) | (self.hi_GK < 0)

    @property
    def looked_at(self) -> int:
        """Number of figures that could be compared for some group."""
        return int(np.isfinite(self.value_GK).any(axis=0).sum())


class _Compared(NamedTuple):
    """Differences, their errors with degrees of freedom, and the people on both sides."""

    difference_GK: Floats
    error_GK: Floats
    freedom_GK: Floats
    own_n_GK: Floats
    others_n_GK: Floats


@dataclass(frozen=True, eq=False)
class _Sums:
    """Numbers, sums and squares of centred values, and sums of 1 / judgements, by group, for any labels."""

    parts_UK: Floats
    mean_K: Floats
    spread_K: Floats
    groups: int

    @classmethod
    def of(cls, value_UK: Floats, judged_UK: Floats, groups: int) -> _Sums:
        seen_UK = np.isfinite(value_UK)
        n_K = np.maximum(seen_UK.sum(axis=0), 1)
        mean_K = np.where(seen_UK, value_UK, 0.0).sum(axis=0) / n_K
        centred_UK = np.where(seen_UK, value_UK - mean_K, 0.0)
        few_UK = np.where(seen_UK, 1 / np.maximum(judged_UK, 1.0), 0.0)
        spread_K = (centred_UK**2).sum(axis=0) / np.maximum(n_K - 1, 1)
        return cls(np.concatenate([seen_UK, centred_UK, centred_UK**2, few_UK], axis=1), mean_K, spread_K, groups)

    def compared(self, group_U: Ints) -> _Compared:
        """Every group against all others; NaN where a side is empty."""
        member_GU = (group_U == np.arange(self.groups)[:, None]).astype(np.float64)
        own_GK = member_GU @ self.parts_UK
        sides = [np.split(sums_GK, 4, axis=1) for sums_GK in (own_GK, self.parts_UK.sum(axis=0) - own_GK)]
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [total / n for n, total, _, _ in sides]
            odds = [np.maximum(side[2] - side[0] * mean**2, 0.0) for side, mean in zip(sides, means, strict=True)]
            shares = [np.clip(self.mean_K + mean, 0, 1) for mean in means]
            coin_GK = np.fmax(self.mean_K * (1 - self.mean_K), np.fmax(*(share * (1 - share) for share in shares)))
            errors = [
                np.fmax(np.fmax(odd / (n - 1), (odd + self.spread_K) / n), coin_GK * few / n) / n
                for (n, _, _, few), odd in zip(sides, odds, strict=True)
            ]
            doubt_GK = sum(error**2 / (n - 1) for error, (n, *_) in zip(errors, sides, strict=True))
            freedom_GK = (errors[0] + errors[1]) ** 2 / doubt_GK
        return _Compared(means[0] - means[1], np.sqrt(errors[0] + errors[1]), freedom_GK, sides[0][0], sides[1][0])


def differences(
    value_UK: Floats, group_U: Ints, groups: int, *, seed: int, level: float = LEVEL, judged_UK: Floats | None = None
) -> Differences:
    """Every group's mean against that of all others; ``group_U`` is -1 for people who are in no group.

    ``value_UK`` has a value of each figure for each of U people, NaN where there is none; values do not move with
    their order. ``judged_UK``: if values are shares, the judgements behind each.
    """
    known_U = group_U >= 0
    judged_UK = np.full(value_UK.shape, np.inf) if judged_UK is None else judged_UK
    value_UK, group_U = value_UK[known_U], group_U[known_U]
    sums = _Sums.of(value_UK, judged_UK[known_U], groups)
    difference_GK, error_GK, freedom_GK, own_n_GK, others_n_GK = sums.compared(group_U)
    enough_GK = (own_n_GK >= LEAST) & (others_n_GK >= LEAST) & (sums.spread_K > 0)
    same_GK = (own_n_GK >= LEAST) & (others_n_GK >= LEAST) & (sums.spread_K == 0)
    most = _largest(sums, group_U, enough_GK, seed, level)
    width_GK = -stdtrit(freedom_GK, ndtr(-most)) * error_GK
    half_GK = np.where(same_GK, 0.0, np.where(enough_GK, width_GK, np.nan))
    difference_GK = np.where(enough_GK | same_GK, difference_GK, np.nan)
    seen_UK = np.isfinite(value_UK)
    everyone_K = np.where(seen_UK, value_UK, 0.0).sum(axis=0) / np.maximum(seen_UK.sum(axis=0), 1)
    n_GK = np.maximum(own_n_GK + others_n_GK, 1)
    return Differences(
        own_GK=everyone_K + difference_GK * others_n_GK / n_GK,
        others_GK=everyone_K - difference_GK * own_n_GK / n_GK,
        lo_GK=difference_GK - half_GK,
        hi_GK=difference_GK + half_GK,
        people_GK=own_n_GK.astype(np.int64),
    )


def _largest(sums: _Sums, group_U: Ints, enough_GK: NDArray[np.bool_], seed: int, level: float) -> float:
    """The quantile ``level`` of the largest studentized difference among ``enough_GK`` under shuffled labels."""
    if not enough_GK.any():
        return np.nan
    rng = np.random.default_rng(seed)
    draws = DRAWS if sums.parts_UK.size <= LARGE else FEW_DRAWS
    largest_B = np.empty(draws)
    for draw in range(draws):
        found = sums.compared(rng.permutation(group_U))
        with np.errstate(invalid="ignore"):
            normal_GK = -ndtri(stdtr(found.freedom_GK, -np.abs(found.difference_GK) / found.error_GK))
        largest_B[draw] = np.nanmax(normal_GK[enough_GK], initial=0.0)
    return float(np.quantile(largest_B, min(level * (draws + 1) / draws, 1.0), method="higher"))
