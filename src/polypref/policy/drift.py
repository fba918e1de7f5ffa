"""Detects that a group's taste has changed: an alarm when its rewards depart from their history.

Each step compares the group's prompts with its history of prompt means (completions of one prompt are not independent):

    z = (mean of m prompt means - mean of the n before) / (sd sqrt(1/m + 1/n))

and two running sums detect lasting shifts (Page, 1954): up = max(0, up + z - slack) and down = max(0, down - z -
slack). If one of them exceeds ``limit``, this is an alarm, and the group's sums and history start again. Rewards of an
improving policy drift upwards by themselves, so an alarm "up" is expected there and an alarm "down" is not.

Covered: groups of any size and rate; the rate of false alarms is measured (docs/pgrpo.md). Not covered: a shift that is
small compared with the spread of the group's prompts; which of a group's users changed.

Suffixes here: ``_K`` groups of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from polypref.policy.history import ROUNDING, Batch, Floats, Ints, RewardHistory

LEAST = 8  # prompts of a group before alarms are possible


@dataclass(eq=False)
class DriftAlarm:
    """Watches groups 0 to G - 1: 40 bytes each."""

    slack: float = 0.5
    limit: float = 10.0
    prompts: RewardHistory = field(default_factory=RewardHistory)
    up_G: Floats = field(default_factory=lambda: np.zeros(0))
    down_G: Floats = field(default_factory=lambda: np.zeros(0))

    def watch(self, mean_P: Floats, group_P: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Add the mean rewards of a step's prompts; return groups with an alarm and its direction, 1 up or -1 down."""
        finite_P = np.isfinite(mean_P)
        new = Batch.of(mean_P[finite_P], group_P[finite_P])
        self._grow(int(new.group_K[-1]) + 1 if len(new.group_K) else 0)
        count_K, before_K, variance_K = self.prompts.of(new.group_K)
        with np.errstate(invalid="ignore", divide="ignore"):
            error_K = np.sqrt(variance_K * (1 / new.count_K + 1 / count_K))
            told_K = (count_K >= LEAST) & (error_K > ROUNDING * np.abs(before_K))
            z_K = np.where(told_K, (new.mean_K - before_K) / error_K, 0.0)
        for sum_G, sign in ((self.up_G, 1), (self.down_G, -1)):
            sum_G[new.group_K] = np.maximum(0, sum_G[new.group_K] + sign * z_K - self.slack)
        self.prompts.update(mean_P[finite_P], group_P[finite_P])
        risen_K, fallen_K = self.up_G[new.group_K] > self.limit, self.down_G[new.group_K] > self.limit
        alarmed_K = risen_K | fallen_K
        groups = new.group_K[alarmed_K]
        self.up_G[groups] = self.down_G[groups] = 0.0
        self.prompts.forget(groups, 0.0)
        return groups, np.where(risen_K, 1, -1)[alarmed_K]

    def copy(self) -> DriftAlarm:
        """An independent copy."""
        return DriftAlarm(self.slack, self.limit, self.prompts.copy(), self.up_G.copy(), self.down_G.copy())

    def arrays(self) -> dict[str, Floats]:
        """The state, for a file."""
        return {**self.prompts.arrays(), "up_G": self.up_G, "down_G": self.down_G}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> Self:
        """The inverse of ``arrays``, with the usual slack and limit."""
        up_G, down_G = (np.array(arrays[name], np.float64) for name in ("up_G", "down_G"))
        return cls(prompts=RewardHistory.from_arrays(arrays, None), up_G=up_G, down_G=down_G)

    def _grow(self, groups: int) -> None:
        self.prompts.grow(groups)
        more = max(groups - len(self.up_G), 0)
        self.up_G, self.down_G = (np.concatenate([s, np.zeros(more)]) for s in (self.up_G, self.down_G))
