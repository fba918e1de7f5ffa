"""Bandits whose truth is known, and what advantages do on them."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest

from polypref.policy.advantages import PAPER, Normalizer
from polypref.policy.drift import DriftAlarm
from polypref.policy.group_weights import GroupWeights
from polypref.studies.policy.arms import sizes
from polypref.studies.policy.bandit import (
    ACTIONS,
    CONTEXT,
    SETTINGS,
    Policy,
    Run,
    Setting,
    Step,
    World,
    _chosen,
    _pull,
    train,
)
from polypref.studies.policy.methods import METHODS, PGRPO, MaxMin, grpo, method

SEEDS = np.arange(3)


def test_normalised_reward_is_0_for_uniform_choice_and_1_for_the_best() -> None:
    world = World.draw(SETTINGS["5 groups"], SEEDS)
    uniform = np.full((3, 5, world.x_SXD.shape[1], ACTIONS), 1 / ACTIONS)
    np.testing.assert_allclose(world.normalised(uniform), 0, atol=1e-12)
    utility = np.einsum("spkd,sxd->spxk", world.theta_SGKD, world.x_SXD)
    np.testing.assert_allclose(world.normalised(np.eye(ACTIONS)[utility.argmax(3)]), 1)


def test_users_belong_to_groups_in_their_shares() -> None:
    world = World.draw(Setting(shares=(0.95, 0.05)), SEEDS)
    assert ((world.group_SU == 1).mean(axis=1) == 0.05).all()


def test_the_gradient_is_that_of_log_likelihood() -> None:
    """Against finite differences of the sum of advantage times log chance of what was chosen."""
    rng = np.random.default_rng(0)
    policy: Any = Policy.draw(np.arange(1), 2, 0.1)  # in double precision, for the differences' sake
    policy.weights = [rng.standard_normal(w.shape) * 0.5 for w in policy.weights]
    x, chosen, value, group = (
        rng.standard_normal((1, 7, CONTEXT)),
        rng.integers(0, ACTIONS, (1, 7, 3)),
        rng.standard_normal((1, 7, 3)),
        rng.integers(0, 2, (1, 7)),
    )

    def gain() -> float:
        chance, _ = policy(x, group)
        return float((value * np.log(np.take_along_axis(chance, chosen, 2))).mean())

    chance, hidden = policy(x, group)
    policy._mean = [np.zeros_like(w) for w in policy.weights]
    policy._square = [np.zeros_like(w) for w in policy.weights]
    before = [w.copy() for w in policy.weights]
    policy.learn(x, group, hidden, _pull(chosen, value, chance))
    slopes = [mean / 0.1 for mean in policy._mean]
    policy.weights = before
    for weight, slope in zip(policy.weights, slopes, strict=True):
        for at in list(np.ndindex(weight.shape))[:: max(1, weight.size // 7)]:
            weight[at] += 1e-6
            up = gain()
            weight[at] -= 2e-6
            assert slope[at] == pytest.approx((up - gain()) / 2e-6, rel=1e-4, abs=1e-6)
            weight[at] += 1e-6


def test_policies_everywhere_are_policies_anywhere() -> None:
    rng = np.random.default_rng(0)
    policy = Policy.draw(SEEDS, 4, 0.1)
    policy.weights = [rng.standard_normal(w.shape).astype(np.float32) for w in policy.weights]
    x_SXD = rng.standard_normal((3, 5, CONTEXT)).astype(np.float32)
    chance_SGXK = policy.everywhere(x_SXD)
    np.testing.assert_allclose(chance_SGXK.sum(3), 1, rtol=1e-5)
    for group in range(4):
        alone, _ = policy(x_SXD, np.full((3, 5), group))
        np.testing.assert_allclose(chance_SGXK[:, group], alone, rtol=1e-5)


def test_actions_are_drawn_by_their_chances() -> None:
    chance = np.array([[[0.05, 0.3, 0.1, 0.05, 0.2, 0.1, 0.15, 0.05]]], np.float32)
    action = _chosen(chance, np.random.default_rng(0).random((1, 1, 100_000), np.float32))
    np.testing.assert_allclose(np.bincount(action.ravel()) / 100_000, chance[0, 0], atol=0.006)


def test_policies_learn_and_the_same_seed_learns_the_same() -> None:
    world = World.draw(SETTINGS["other tastes alone"], SEEDS)
    run = Run(0.05, 8, steps=60)
    curve = train(world, SEEDS, grpo, run)
    assert curve.shape == (3, 6, 2)
    assert (curve[:, -1].mean(1) > curve[:, 0].mean(1) + 0.05).all()
    np.testing.assert_array_equal(curve, train(world, SEEDS, grpo, run))
    alone = train(World.draw(SETTINGS["other tastes alone"], SEEDS[1:2]), SEEDS[1:2], grpo, run)
    np.testing.assert_allclose(curve[1:2], alone, atol=1e-3)  # in single precision, sums depend on how many run


@pytest.mark.parametrize("labels", ["true", "shuffled", "random"])
def test_several_rates_at_once_are_each_by_itself(labels) -> None:
    setting = SETTINGS["5 groups"]
    seeds, rates = np.tile(SEEDS, 2), np.repeat([0.02, 0.1], 3)
    run = Run(rates, 2, steps=20, labels=labels)
    both = train(World.draw(setting, seeds), seeds, method("P-GRPO shrunken", 0.5), run)
    for at, rate in enumerate((0.02, 0.1)):
        one = train(World.draw(setting, SEEDS), SEEDS, method("P-GRPO shrunken", 0.5), replace(run, rate=rate))
        np.testing.assert_allclose(both[3 * at : 3 * at + 3], one, atol=1e-3)
    assert not np.allclose(both[:3], both[3:])


# methods, each against loops over runs, prompts and completions


def one_step(size: int = 4, groups: int = 2) -> Step:
    rng = np.random.default_rng(0)
    group = rng.integers(0, groups, (2, 6))
    reward = rng.standard_normal((2, 6, size)) * (1 + 9 * group)[..., None]
    return Step(group, group, np.zeros((2, 6, size), int), reward, groups)


def by_hand(name: str, reward_PJ: np.ndarray) -> np.ndarray:
    """One run's advantages by the papers' formulas."""
    formulas = {
        "GRPO": lambda one, prompt, others, batch: (one - mean(prompt)) / (stdev(prompt) + 1e-4),
        "Dr. GRPO": lambda one, prompt, others, batch: one - mean(prompt),
        "RLOO": lambda one, prompt, others, batch: one - mean(others),
        "batch": lambda one, prompt, others, batch: (one - mean(prompt)) / (stdev(batch) + 1e-4),
        "REINFORCE++": lambda one, prompt, others, batch: (one - mean(batch)) / (stdev(batch) + 1e-4),
    }
    told = [
        (one, prompt, prompt[:at] + prompt[at + 1 :], reward_PJ.ravel().tolist())
        for prompt in reward_PJ.tolist()
        for at, one in enumerate(prompt)
    ]
    return np.array([formulas[name](*one) for one in told]).reshape(reward_PJ.shape)


BY_HAND = ("GRPO", "Dr. GRPO", "RLOO", "batch", "REINFORCE++")


@pytest.mark.parametrize(("name", "size"), [(name, size) for name in BY_HAND for size in sizes(name)])
def test_methods_by_their_formulas(name: str, size: int) -> None:
    one = one_step(size)
    expected = np.stack([by_hand(name, reward_PJ) for reward_PJ in one.reward_SPJ])
    np.testing.assert_allclose(METHODS[name]()(one), expected, rtol=1e-9)


def test_rloo_learns_what_dr_grpo_learns() -> None:
    """It is a multiple of it, and Adam divides multiples out, but for its epsilon: in time a choice falls otherwise."""
    world, run = World.draw(SETTINGS["other tastes alone"], SEEDS), Run(0.05, 2, steps=12, every=3)
    one, other, third = (train(world, SEEDS, METHODS[name](), run) for name in ("Dr. GRPO", "RLOO", "GRPO"))
    np.testing.assert_allclose(one, other, atol=0.003)
    assert not np.allclose(one, third, atol=0.03)


def test_maxmin_moves_towards_the_group_that_is_worst_off() -> None:
    one = one_step()
    low = replace(one, reward_SPJ=one.reward_SPJ - 30 * one.group_SP[..., None])
    made = MaxMin()
    value = [made(low) for _ in range(20)][-1]
    ratio = np.abs(value / grpo(low)).mean(2)
    assert (ratio[low.group_SP == 1].min() > ratio[low.group_SP == 0].max()).all()
    np.testing.assert_allclose((value / grpo(low)).mean((1, 2)), 1)


def test_seeds_share_no_history() -> None:
    one = one_step()
    for made in (lambda: PGRPO(PAPER), lambda: method("P-GRPO shrunken", 1.0), MaxMin):
        both = made()(one)
        alone = made()(replace(one, **{name: part[1:] for name, part in vars(one).items() if name != "groups"}))
        np.testing.assert_allclose(both[1:], alone)


@pytest.mark.parametrize("name", ["P-GRPO paper", "P-GRPO prompt", "P-GRPO shrunken", "P-GRPO shrunken half-life"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_pgrpo_on_arrays_is_the_normalizer_on_keys(name: str, alpha: float) -> None:
    """Run by run, with the weights that engines use, and for groups that come late."""
    made = METHODS[name]()
    assert isinstance(made, PGRPO)
    told, weighed = replace(made.how, group_weight=alpha), method(name, alpha)
    normalizers = [Normalizer(told) for _ in range(2)]
    for seed in range(6):
        rng = np.random.default_rng(seed)
        group = rng.integers(0, 2 + seed // 2, (2, 9))
        reward = rng.standard_normal((2, 9, 3)) * 10.0 ** group[..., None]
        value = weighed(Step(group, group, np.zeros((2, 9, 3), int), reward, 4))
        for run, normalizer in enumerate(normalizers):
            keys = [[f"g{g}" for g in group[run].repeat(3)]]
            expected = normalizer(reward[run].ravel(), np.arange(9).repeat(3), keys).value_B
            np.testing.assert_allclose(value[run].ravel(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*BY_HAND, "P-GRPO paper"])
def test_weights_are_the_engines(name: str) -> None:
    plain, weighed, weigh = METHODS[name](), method(name, 0.5), [GroupWeights(0.5) for _ in range(2)]
    for _ in range(3):
        one = one_step(3)
        weight = np.stack([w(g.repeat(3), np.ones(18, bool)) for w, g in zip(weigh, one.label_SP, strict=True)])
        np.testing.assert_allclose(weighed(one), plain(one) * weight.reshape(2, 6, 3), rtol=1e-12)


def test_labels_may_be_shuffled_or_drawn_by_lot() -> None:
    """Shuffled and random labels keep the groups' sizes and say nothing of the group."""
    told = {}
    for labels in ("true", "shuffled", "random"):
        steps: list[Step] = []

        def watched(one: Step, steps: list[Step] = steps) -> np.ndarray:
            steps.append(one)
            return np.zeros_like(one.reward_SPJ)

        train(World.draw(Setting(), SEEDS), SEEDS, watched, Run(0.01, 1, steps=20, labels=labels))
        told[labels] = np.mean([(one.label_SP == one.group_SP).mean() for one in steps])
        assert np.mean([one.label_SP.mean() for one in steps]) == pytest.approx(0.2, abs=0.03)
    assert told["true"] == 1
    assert told["shuffled"] == pytest.approx(0.68, abs=0.04) == told["random"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_starts_afresh(name: str) -> None:
    one = one_step()
    first = METHODS[name]()
    first(one)
    np.testing.assert_array_equal(METHODS[name]()(one), METHODS[name]()(one))


# drift


def watched(shift: float, steps: int, rng: np.random.Generator, groups: int = 50) -> list[int]:
    """Alarms after each step of four prompts a group; a lasting shift begins half way."""
    alarm, found = DriftAlarm(), []
    for step in range(steps):
        mean_Q = rng.standard_normal(4 * groups) + shift * (step >= steps // 2)
        groups_now, direction = alarm.watch(mean_Q, np.arange(4 * groups) % groups)
        found.append(len(groups_now))
        if shift:
            assert step < steps // 2 or (direction == 1).mean() > 0.9 if len(groups_now) else True
    return found


def test_false_alarms_are_rare_and_shifts_are_noticed() -> None:
    rng = np.random.default_rng(0)
    quiet = watched(0.0, 400, rng)
    assert sum(quiet) / (400 * 50) < 1 / 1000, "alarms a step and group"
    moved = watched(1.0, 100, rng)
    assert sum(moved[:50]) <= 2
    assert sum(moved[50:75]) >= 45, "nearly every group within 25 steps"


def test_constant_rewards_and_odd_ones_raise_no_alarm() -> None:
    alarm = DriftAlarm()
    for value in [1.0] * 40 + [np.nan, np.inf]:
        assert not len(alarm.watch(np.array([value]), np.array([0]))[0])
