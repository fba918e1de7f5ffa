"""Measures one arm of ``bench-policy``: its learning rate is chosen on separate seeds, then the paired seeds run.

Every setting has its own seeds, so settings are independent; all arms of a setting share them. The chosen rate is the
one of the plan's with the largest sum of macro and worst-group area under the curve.

Suffixes here: ``_T`` steps at which a policy is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

import numpy as np

from polypref.policy.history import Floats, Ints
from polypref.studies.policy import bandit, methods

Learner = Literal["bandit", "language model"]


@dataclass(frozen=True)
class Plan:
    """Learning rates to try, the number of separate seeds and of steps to try them on, and the most paired seeds."""

    rates: tuple[float, ...]
    tuned_on: int
    steps: int
    most: int | None = None


@dataclass(frozen=True, order=True)
class Arm:
    """A way to turn rewards into advantages, with so many completions per prompt and such a group weight, in a setting;
    ``labels`` are the group labels that it sees."""

    setting: str
    method: str
    generations: int
    group_weight: float = 0.0
    labels: bandit.Labels = "true"
    learner: Learner = "bandit"

    def __str__(self) -> str:
        rest = f"G={self.generations}, group weight {self.group_weight:g}, {self.labels} groups"
        return f"{self.learner}, {self.setting}: {self.method}, {rest}"


TUNED = 500  # of a setting's thousand seeds, the first for choosing rates
LAST = 3  # last points of a curve, whose mean is its end

Curves = Callable[[Arm, Floats, Ints, int], Floats]
"""Of an arm, with the rate of each seed, for so many steps: normalised reward of each group over time, (S, T, G)."""


def seeds_of(setting: str, many: int, tuning: bool = False) -> Ints:
    """Seeds of a setting: the first ``many`` of its paired ones, or of those on which rates are chosen."""
    return crc32(setting.encode()) % 1_000_000 * 1000 + TUNED * tuning + np.arange(many)


def curves(arm: Arm, rate_S: Floats, seed_S: Ints, steps: int) -> Floats:
    """On the bandits, the normalised reward of each group over time, (S, T, G), each seed with its rate."""
    setting = bandit.SETTINGS[arm.setting]
    longer = setting.length
    run = bandit.Run(rate_S, arm.generations, steps=steps * longer, every=10 * longer, labels=arm.labels)
    method = methods.method(arm.method, arm.group_weight)
    return bandit.train(bandit.World.draw(setting, seed_S), seed_S, method, run)


def measure(arm: Arm, plan: Plan, seeds: int, curves: Curves) -> dict[str, Any]:
    """The rate, the result of each rate, and the paired seeds' curves (S, T) of the mean over groups, of the worst
    group at each time and of the mean over users, and each group's final value (S, G)."""
    tried = [0.0] * len(plan.rates)
    if len(plan.rates) > 1:
        seed_S = seeds_of(arm.setting, plan.tuned_on, tuning=True)
        rate_S = np.repeat(plan.rates, len(seed_S))
        curve_STG = curves(arm, rate_S, np.tile(seed_S, len(plan.rates)), plan.steps)
        good_S = curve_STG.mean((1, 2)) + curve_STG.min(axis=2).mean(1)
        tried = good_S.reshape(len(plan.rates), -1).mean(1).tolist()
    rate = plan.rates[int(np.argmax(tried))]
    seed_S = seeds_of(arm.setting, min(seeds, plan.most or seeds))
    curve_STG = curves(arm, np.full(len(seed_S), rate), seed_S, plan.steps)
    share_G = np.array(bandit.SETTINGS[arm.setting].shares)
    return {
        "rate": rate,
        "tried": tried,
        "macro": curve_STG.mean(2).tolist(),
        "worst": curve_STG.min(2).tolist(),
        "users": (curve_STG @ (share_G / share_G.sum())).tolist(),
        "end_SG": curve_STG[:, -LAST:].mean(1).tolist(),
    }
