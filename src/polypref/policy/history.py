"""Running statistics of each group's numbers: their count, mean and spread.

Source: Wang et al. (2026), Personalized Group Relative Policy Optimization, arXiv 2603.10009: a count, a mean and a sum
of squared deviations (M2) for each preference group, over all rewards so far (Welford, 1962). Here whole batches are
merged (Chan, Golub and LeVeque, 1983), and a history may forget.

With a half-life of h, a group's history has ``2^(-n/h)`` of its weight after n more of the group's own rewards; the
count is then of remembered rewards and converges to ``1 / (1 - 2^(-1/h))``, about 1.44 h.

Covered: the order of a batch has no effect, bit for bit; dividing rewards into other batches changes only rounding
(with a half-life, the rewards of one batch weigh the same); merging equals concatenating where nothing is forgotten;
large offsets (1e9) cost no digits of the spread; NaN, infinite numbers and those beyond ``LARGEST`` never enter. Not
covered: a history does not know its groups' names.

Suffixes here: ``_K`` groups of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.integer]

LARGEST = 1e140  # the squares of larger numbers, added up, could overflow and spoil a history for good
ROUNDING = 1e-13  # a spread below this share of the mean is what rounding leaves of equal numbers


def usable(value_B: Floats) -> NDArray[np.bool_]:
    """Which numbers can enter a history: finite ones up to ``LARGEST``."""
    return np.abs(value_B) <= LARGEST


@dataclass(frozen=True, eq=False)
class Batch:
    """Statistics of one batch: the groups in it, ascending, and each one's count, mean and M2."""

    group_K: NDArray[np.int64]
    count_K: Floats
    mean_K: Floats
    m2_K: Floats

    @classmethod
    def of(cls, value_B: Floats, group_B: Ints) -> Self:
        """``value_B`` finite, ``group_B`` the number of each one's group; in any order, with equal results."""
        value_B, group_B = np.asarray(value_B, np.float64), np.asarray(group_B, np.int64)
        order_B = np.argsort(value_B)  # equal values are alike, so this need not be stable; in the next step, few bits
        short_B = group_B[order_B].astype(np.min_scalar_type(group_B.max(initial=0)))  # sort ten times as fast
        order_B = order_B[np.argsort(short_B, kind="stable")]
        value_B, group_B = value_B[order_B], group_B[order_B]
        start_K = np.flatnonzero(np.r_[True, group_B[1:] != group_B[:-1]]) if len(group_B) else np.zeros(0, np.int64)
        count_K = np.diff(np.r_[start_K, len(group_B)])
        first_K = value_B[start_K]  # deviations from a member of the group: no digits are lost to a large offset
        shifted_B = value_B - np.repeat(first_K, count_K)
        shift_K = _sums(shifted_B, start_K) / count_K
        m2_K = _sums((shifted_B - np.repeat(shift_K, count_K)) ** 2, start_K)
        return cls(group_B[start_K], count_K.astype(np.float64), first_K + shift_K, m2_K)


def remembered(half_life: float) -> float:
    """How many of a group's rewards a history remembers in the long run."""
    return float(-1 / np.expm1(-np.log(2) / half_life))


def _sums(value_B: Floats, start_K: Ints) -> Floats:
    return np.add.reduceat(value_B, start_K) if len(start_K) else np.zeros(0)


@dataclass(eq=False)
class RewardHistory:
    """``count_G``, ``mean_G`` and ``m2_G`` of groups 0 to G - 1: 24 bytes each. Grows with the groups it is shown.

    ``half_life``  in rewards of the group itself; None: everything so far counts the same (the paper).
    """

    half_life: float | None = None
    count_G: Floats = field(default_factory=lambda: np.zeros(0))
    mean_G: Floats = field(default_factory=lambda: np.zeros(0))
    m2_G: Floats = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.count_G)

    def of(self, group_B: Ints) -> tuple[Floats, Floats, Floats]:
        """Count, mean and variance of these groups (divisor: the count, as numpy's); NaN before the first."""
        count_B = self.count_G[group_B]
        with np.errstate(invalid="ignore"):
            return count_B, np.where(count_B > 0, self.mean_G[group_B], np.nan), self.m2_G[group_B] / count_B

    def update(self, value_B: Floats, group_B: Ints) -> None:
        """Add a batch. Values that are not ``usable`` are left out."""
        value_B = np.asarray(value_B, np.float64)
        usable_B = usable(value_B)
        new = Batch.of(value_B[usable_B], np.asarray(group_B)[usable_B])
        self.grow(int(new.group_K[-1]) + 1 if len(new.group_K) else 0)
        kept_K, weight_K = np.ones(len(new.group_K)), new.count_K
        if self.half_life is not None:
            decay_K = -np.log(2) / self.half_life * new.count_K
            kept_K, weight_K = np.exp(decay_K), -np.expm1(decay_K) * remembered(self.half_life)
        self._add(Batch(new.group_K, weight_K, new.mean_K, new.m2_K * weight_K / new.count_K), kept_K)

    def merged(self, other: RewardHistory) -> RewardHistory:
        """A history of what both have seen, groups having the same numbers in both; the half-life is this one's."""
        both = self.copy()
        both.grow(len(other))
        had_K = np.flatnonzero(other.count_G > 0)
        both._add(Batch(had_K, other.count_G[had_K], other.mean_G[had_K], other.m2_G[had_K]), np.ones(len(had_K)))
        return both

    def copy(self) -> RewardHistory:
        """Another with the same content, to be changed alone."""
        return RewardHistory(self.half_life, self.count_G.copy(), self.mean_G.copy(), self.m2_G.copy())

    def forget(self, group_K: Ints, count: float) -> None:
        """Let no more than ``count`` rewards of these groups be remembered; mean and variance stay."""
        share_K = np.minimum(1, count / np.maximum(self.count_G[group_K], 1e-300))
        self.count_G[group_K] *= share_K
        self.m2_G[group_K] *= share_K

    def grow(self, groups: int) -> None:
        """Have room for at least so many groups."""
        if (more := groups - len(self)) > 0:
            for name in ("count_G", "mean_G", "m2_G"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(more)]))

    def _add(self, new: Batch, kept_K: Floats) -> None:
        """Chan, Golub and LeVeque (1983), eq. 2.1, with the old weighing ``kept_K`` of what it did."""
        at_K = new.group_K
        old_K = self.count_G[at_K] * kept_K
        count_K = old_K + new.count_K
        gap_K = new.mean_K - self.mean_G[at_K]
        self.mean_G[at_K] = np.where(old_K > 0, self.mean_G[at_K] + gap_K * (new.count_K / count_K), new.mean_K)
        between_K = np.where(old_K > 0, gap_K**2 * old_K * new.count_K / count_K, 0.0)
        self.m2_G[at_K] = self.m2_G[at_K] * kept_K + new.m2_K + between_K
        self.count_G[at_K] = count_K

    def arrays(self) -> dict[str, Floats]:
        """The state, for a file."""
        return {"count_G": self.count_G, "mean_G": self.mean_G, "m2_G": self.m2_G}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats], half_life: float | None) -> Self:
        """The inverse of ``arrays``."""
        return cls(half_life, *(np.array(arrays[name], np.float64) for name in ("count_G", "mean_G", "m2_G")))
