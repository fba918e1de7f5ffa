"""Advantages by the methods that P-GRPO is compared with, on the bandits' arrays; each remembers what it needs.

GRPO (Shao et al. 2024): minus the prompt's mean, over the prompt's standard deviation. Dr. GRPO (Liu et al. 2025):
minus the prompt's mean, over nothing. Batch: minus the prompt's mean, over the batch's standard deviation (TRL's
``scale_rewards="batch"``, REINFORCE++ with a baseline). REINFORCE++ (Hu 2025): minus the batch's mean, over the batch's
deviation. MaxMin: GRPO's, weighted by exponentiated steps towards the groups whose mean reward is lowest, as in
MaxMin-RLHF (Chakraborty et al. 2024) and group robust optimization (Ramesh et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from polypref.policy.advantages import EPSILON, PAPER, Normalization, Normalizer
from polypref.policy.history import Floats
from polypref.studies.policy.bandit import Method, Step


def grpo(one: Step) -> Floats:
    """See the top of this file."""
    reward = one.reward_SPJ
    if reward.shape[2] == 1:
        return np.zeros_like(reward)
    return (reward - reward.mean(2, keepdims=True)) / (reward.std(2, ddof=1, keepdims=True) + EPSILON)


def dr_grpo(one: Step) -> Floats:
    """See the top of this file."""
    return one.reward_SPJ - one.reward_SPJ.mean(2, keepdims=True)


def batch(one: Step) -> Floats:
    """See the top of this file."""
    return dr_grpo(one) / (one.reward_SPJ.std((1, 2), ddof=1, keepdims=True) + EPSILON)


def reinforce(one: Step) -> Floats:
    """See the top of this file."""
    reward = one.reward_SPJ
    return (reward - reward.mean((1, 2), keepdims=True)) / (reward.std((1, 2), ddof=1, keepdims=True) + EPSILON)


@dataclass(eq=False)
class MaxMin:
    """GRPO's advantages times a weight per group, mean 1 over completions."""

    step: float = 0.05
    log_weight_SG: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def __call__(self, one: Step) -> Floats:
        seeds, groups = len(one.reward_SPJ), int(one.label_SP.max()) + 1
        if self.log_weight_SG.shape[1] < groups:
            grown = np.zeros((seeds, groups))
            grown[:, : self.log_weight_SG.shape[1]] = self.log_weight_SG if len(self.log_weight_SG) else 0
            self.log_weight_SG = grown
        spread_S11 = one.reward_SPJ.std((1, 2), keepdims=True) + EPSILON
        standing_SP = ((one.reward_SPJ - one.reward_SPJ.mean((1, 2), keepdims=True)) / spread_S11).mean(2)
        for group in range(groups):
            own = one.label_SP == group
            mean_S = (standing_SP * own).sum(1) / np.maximum(own.sum(1), 1)
            self.log_weight_SG[:, group] -= self.step * mean_S
        weight_SG = np.exp(self.log_weight_SG - self.log_weight_SG.max(1, keepdims=True))
        weight_SP = np.take_along_axis(weight_SG, one.label_SP, axis=1)
        return grpo(one) * (weight_SP / weight_SP.mean(1, keepdims=True))[..., None]


@dataclass(eq=False)
class PGRPO:
    """Each seed's groups are groups of their own in one ``Normalizer``: they do not touch each other."""

    how: Normalization = PAPER
    normalizer: Normalizer = field(init=False)

    def __post_init__(self) -> None:
        self.normalizer = Normalizer(replace(self.how, group_weight=0.0))

    def __call__(self, one: Step) -> Floats:
        seeds, prompts, size = one.reward_SPJ.shape
        prompt_B = np.arange(seeds * prompts).repeat(size)
        key_SP = one.label_SP + 1_000_000 * np.arange(seeds)[:, None]
        found = self.normalizer(one.reward_SPJ.ravel(), prompt_B, [key_SP.ravel().repeat(size).tolist()])
        return found.value_B.reshape(one.reward_SPJ.shape)


METHODS: dict[str, Callable[[], Method]] = {
    "GRPO": lambda: grpo,
    "Dr. GRPO": lambda: dr_grpo,
    "batch": lambda: batch,
    "REINFORCE++": lambda: reinforce,
    "MaxMin": MaxMin,
    "P-GRPO paper": PGRPO,
    "P-GRPO prompt": lambda: PGRPO(Normalization(baseline="prompt")),
    "P-GRPO shrunken": lambda: PGRPO(Normalization(baseline="shrunken")),
    "P-GRPO half-life": lambda: PGRPO(Normalization(baseline="group", half_life=1000)),
    "P-GRPO adaptive": lambda: PGRPO(Normalization(baseline="group", adaptive=True)),
    "P-GRPO shrunken adaptive": lambda: PGRPO(Normalization(baseline="shrunken", adaptive=True)),
    "P-GRPO shrunken half-life": lambda: PGRPO(Normalization(baseline="shrunken", half_life=1000)),
}
"""A fresh method by name."""
