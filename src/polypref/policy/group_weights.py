"""The weight of each preference group: advantages times a power of the group's share of the rewards.

Which mean over people a policy should raise is a choice, and rollouts make it implicitly: a group with a twentieth of
the prompts has a twentieth of the gradient. With n_p the number of rewards that group p has had, the batch's included,

    u_p = max(n_p / largest n, FLOOR)^-alpha
    weight of a completion of group p = u_p / (mean of u over the batch's completions that count)

so weights have mean 1 over every batch, and the size of a step does not change. Where batches hold the groups in about
their shares, a group's part of the gradient is its share to the power 1 - alpha: with alpha 0 every rollout counts
equally (the mean over users), with alpha 1 every group does (the mean over groups). Source: our own; inverse-frequency
weights are as old as stratified sampling, and MaxMin-RLHF (Chakraborty et al. 2024) and group robust optimization
(Ramesh et al. 2024) weight groups by their rewards instead, which have no common scale.

Covered: no completion counts more than ``FLOOR``^-alpha times another (20 times with alpha 1), so a group with m of a
batch's B completions carries at most 20 m / (19 m + B) of the weight: five of 256 at most 28 %; alpha 0 gives exactly 1
everywhere; weights depend on no reward, so they cause no bias; the order of a batch has no effect, bit for bit. Not
covered: batches that often lack a group. In a batch of a single group every weight is 1, so the other groups' missing
weight is not made up for: a batch must be large enough to hold several rollouts of the smallest group."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from polypref.policy.history import Floats, Ints

FLOOR = 0.05  # of the largest group's share: smaller groups count as if they had this much


def unscaled(seen_G: Floats, alpha: float) -> Floats:
    """u of each group, before the mean over a batch is made 1: 1 for the largest, at most ``FLOOR``^-alpha.

    ``seen_G``  rewards that each group has had so far, along the last axis of (..., G).
    """
    largest = np.maximum(seen_G.max(axis=-1, keepdims=True, initial=0.0), 1.0)
    return np.maximum(seen_G / largest, FLOOR) ** -alpha


@dataclass(eq=False)
class GroupWeights:
    """Counts the rewards of groups 0 to G - 1 and weighs each batch: 8 bytes a group."""

    alpha: float
    seen_G: Floats = field(default_factory=lambda: np.zeros(0))

    def __call__(self, group_B: Ints, counts_B: NDArray[np.bool_]) -> Floats:
        """The weight of each completion of a batch, which is counted; their mean over ``counts_B`` is 1.

        ``group_B``   the number of each one's group; groups never seen before are taken in.
        ``counts_B``  which completions have a reward that counts.
        """
        groups = max(len(self.seen_G), int(group_B.max(initial=-1)) + 1)
        here_G = np.bincount(group_B[counts_B], minlength=groups).astype(np.float64)
        self.seen_G = here_G + np.pad(self.seen_G, (0, groups - len(self.seen_G)))
        if not here_G.any():
            return np.ones(len(group_B))
        u_G = unscaled(self.seen_G, self.alpha)
        return (u_G / ((here_G * u_G).sum() / here_G.sum()))[group_B]

    def copy(self) -> GroupWeights:
        """Another with the same counts, to be changed alone."""
        return GroupWeights(self.alpha, self.seen_G.copy())
