"""Advantages of the methods that P-GRPO is compared with, on the bandits' arrays; each method holds its own state.

    method        subtracted                      divided by                        source
    GRPO          the prompt's mean               the prompt's standard deviation   Shao et al. 2024, arXiv 2402.03300
    Dr. GRPO      the prompt's mean               nothing                           Liu et al. 2025, arXiv 2503.20783
    RLOO          mean of the prompt's others     nothing                           Ahmadian et al. 2024, 2402.14740
    batch         the prompt's mean               the batch's standard deviation    Hu 2025 with a baseline; TRL's batch
    REINFORCE++   the batch's mean                the batch's standard deviation    Hu 2025, arXiv 2501.03262
    MaxMin        as GRPO, times a weight for groups of low rewards                 Chakraborty et al. 2024, 2402.08925
    P-GRPO        as ``policy.advantages`` says                                     Wang et al. 2026, arXiv 2603.10009

Standard deviations have the divisor n - 1 and 1e-4 added, as TRL's. RLOO is G / (G - 1) times Dr. GRPO; Adam divides
that out, so the two differ only by rounding. MaxMin takes exponentiated steps, as group robust optimization does
(Ramesh et al. 2024, arXiv 2405.20304). ``Weighed`` adds group weights to any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from polypref.policy.advantages import EPSILON, PAPER, Normalization, Normalizer, Prompts
from polypref.policy.group_weights import unscaled
from polypref.policy.history import Floats
from polypref.studies.policy.bandit import Method, Step


def _sum(value_SPJ: Floats) -> Floats:
    """Over a prompt's completions, (S, P, 1); numpy's own ``sum`` takes 20 times as long over so short an axis."""
    return np.einsum("spj->sp", value_SPJ)[..., None]


def grpo(one: Step) -> Floats:
    """See the top of this file."""
    residual = dr_grpo(one)
    return residual / (np.sqrt(_sum(residual**2) / (residual.shape[2] - 1)) + EPSILON)


def dr_grpo(one: Step) -> Floats:
    """See the top of this file."""
    return one.reward_SPJ - _sum(one.reward_SPJ) / one.reward_SPJ.shape[2]


def rloo(one: Step) -> Floats:
    """See the top of this file."""
    reward = one.reward_SPJ
    return reward - (_sum(reward) - reward) / (reward.shape[2] - 1)


def batch(one: Step) -> Floats:
    """See the top of this file."""
    return dr_grpo(one) / (one.reward_SPJ.std((1, 2), ddof=1, keepdims=True) + EPSILON)


def reinforce(one: Step) -> Floats:
    """See the top of this file."""
    reward = one.reward_SPJ
    return (reward - reward.mean((1, 2), keepdims=True)) / (reward.std((1, 2), ddof=1, keepdims=True) + EPSILON)


def _by_group(value_SP: Floats, one: Step) -> Floats:
    """Sums over the prompts of each group, by the labels that the method sees, (S, G)."""
    runs, groups = len(value_SP), one.groups
    cell_SP = one.label_SP + groups * np.arange(runs)[:, None]
    return np.asarray(np.bincount(cell_SP.ravel(), value_SP.ravel(), runs * groups), float).reshape(runs, groups)


def _scaled(value_SPJ: Floats, weight_SG: Floats, one: Step) -> Floats:
    """Times its group's weight, whose mean over each run's batch becomes 1."""
    weight_SP = np.take_along_axis(weight_SG, one.label_SP, axis=1)
    return value_SPJ * (weight_SP / weight_SP.mean(1, keepdims=True))[..., None]


@dataclass(eq=False)
class MaxMin:
    """GRPO's advantages times a weight per group, mean 1 over completions."""

    step: float = 0.05
    log_weight_SG: Floats | float = 0.0

    def __call__(self, one: Step) -> Floats:
        spread_S11 = one.reward_SPJ.std((1, 2), keepdims=True) + EPSILON
        standing_SP = ((one.reward_SPJ - one.reward_SPJ.mean((1, 2), keepdims=True)) / spread_S11).mean(2)
        many_SG = _by_group(np.ones_like(standing_SP), one)
        log_SG = self.log_weight_SG - self.step * _by_group(standing_SP, one) / np.maximum(many_SG, 1)
        self.log_weight_SG = log_SG
        return _scaled(grpo(one), np.exp(log_SG - log_SG.max(1, keepdims=True)), one)


@dataclass(eq=False)
class PGRPO:
    """The runs' groups are groups of one ``Normalizer``, of a level without levels above: they are independent.

    ``Weighed`` applies the weights: a ``Normalizer`` treats its batch as that of one run.
    """

    how: Normalization = PAPER
    normalizer: Normalizer = field(init=False)

    def __post_init__(self) -> None:
        self.normalizer = Normalizer(replace(self.how, group_weight=0.0), ())

    def __call__(self, one: Step) -> Floats:
        runs, prompts, size = one.reward_SPJ.shape
        if not self.normalizer.levels[0].numbers:
            self.normalizer.levels[0].number([(group,) for group in range(runs * one.groups)])
        prompts_B = Prompts.numbered(one.reward_SPJ.ravel(), np.arange(runs * prompts).repeat(size))
        group_P = (one.label_SP + one.groups * np.arange(runs)[:, None]).ravel()
        return self.normalizer.numbered(prompts_B, [group_P]).value_B.reshape(one.reward_SPJ.shape)


@dataclass(eq=False)
class Weighed:
    """``method`` with ``policy.group_weights``, in every run by itself."""

    method: Method
    alpha: float
    seen_SG: Floats | float = 0.0

    def __call__(self, one: Step) -> Floats:
        seen_SG = self.seen_SG + one.reward_SPJ.shape[2] * _by_group(np.ones(one.label_SP.shape), one)
        self.seen_SG = seen_SG
        return _scaled(self.method(one), unscaled(seen_SG, self.alpha), one)


METHODS: dict[str, Callable[[], Method]] = {
    "GRPO": lambda: grpo,
    "Dr. GRPO": lambda: dr_grpo,
    "RLOO": lambda: rloo,
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
"""A fresh method by name, without weights."""


def method(name: str, group_weight: float) -> Method:
    """A fresh method, with group weights where they are not 0."""
    made = METHODS[name]()
    return Weighed(made, group_weight) if group_weight else made
