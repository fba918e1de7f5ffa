"""Bandits whose truth is known, and what advantages do on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polypref.policy.advantages import PAPER
from polypref.policy.drift import DriftAlarm
from polypref.studies.policy.bandit import ACTIONS, CONTEXT, SETTINGS, Policy, Run, Setting, Step, World, train
from polypref.studies.policy.methods import METHODS, PGRPO, MaxMin, batch, dr_grpo, grpo, reinforce

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
    policy = Policy.draw(np.arange(1), 2, 0.1)
    policy.weights = [rng.standard_normal(w.shape) * 0.5 for w in policy.weights]
    x, chosen, value = (
        rng.standard_normal((1, 7, CONTEXT + 2)),
        rng.integers(0, ACTIONS, (1, 7)),
        rng.standard_normal((1, 7)),
    )

    def gain() -> float:
        chance, _ = policy(x)
        return float((value * np.log(np.take_along_axis(chance, chosen[..., None], 2)[..., 0])).mean())

    chance, hidden = policy(x)
    policy._mean = [np.zeros_like(w) for w in policy.weights]
    before = [w.copy() for w in policy.weights]
    policy.learn(x, chance, hidden, value[..., None] * (np.eye(ACTIONS)[chosen] - chance))
    slopes = [mean / 0.1 for mean in policy._mean]
    policy.weights = before
    for weight, slope in zip(policy.weights, slopes, strict=True):
        for at in list(np.ndindex(weight.shape))[:: max(1, weight.size // 7)]:
            weight[at] += 1e-6
            up = gain()
            weight[at] -= 2e-6
            assert slope[at] == pytest.approx((up - gain()) / 2e-6, rel=1e-4, abs=1e-8)
            weight[at] += 1e-6


def test_policies_learn_and_the_same_seed_learns_the_same() -> None:
    world = World.draw(SETTINGS["other tastes alone"], SEEDS)
    run = Run(0.05, 8, steps=60)
    curve = train(world, SEEDS, grpo, run)
    assert curve.shape == (3, 6, 2)
    assert (curve[:, -1].mean(1) > curve[:, 0].mean(1) + 0.1).all()
    np.testing.assert_array_equal(curve, train(world, SEEDS, grpo, run))
    alone = train(World.draw(SETTINGS["other tastes alone"], SEEDS[1:2]), SEEDS[1:2], grpo, run)
    np.testing.assert_allclose(curve[1:2], alone, atol=1e-9)


def one_step(size: int = 4) -> Step:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, (2, 6))
    return Step(
        group, group, np.zeros((2, 6, size), int), rng.standard_normal((2, 6, size)) * (1 + 9 * group)[..., None]
    )


def test_methods_by_their_formulas() -> None:
    one = one_step()
    reward, prompt = one.reward_SPJ, one.reward_SPJ.mean(2, keepdims=True)
    np.testing.assert_allclose(dr_grpo(one), reward - prompt)
    np.testing.assert_allclose(grpo(one), (reward - prompt) / (reward.std(2, ddof=1, keepdims=True) + 1e-4))
    spread = reward.reshape(2, -1).std(1, ddof=1)[:, None, None] + 1e-4
    np.testing.assert_allclose(batch(one), (reward - prompt) / spread)
    np.testing.assert_allclose(reinforce(one), (reward - reward.mean((1, 2), keepdims=True)) / spread)
    assert not grpo(one_step(1)).any()


def test_maxmin_moves_towards_the_group_that_is_worst_off() -> None:
    one = one_step()
    low = replace(one, reward_SPJ=one.reward_SPJ - 30 * one.group_SP[..., None])
    method = MaxMin()
    for _ in range(20):
        value = method(low)
    ratio = np.abs(value / grpo(low)).mean(2)
    assert (ratio[low.group_SP == 1].min() > ratio[low.group_SP == 0].max()).all()


def test_seeds_share_no_history() -> None:
    one = one_step()
    both = PGRPO(PAPER)(one)
    alone = PGRPO(PAPER)(Step(*(part[1:] for part in vars(one).values())))
    np.testing.assert_allclose(both[1:], alone)


def test_labels_may_be_shuffled_or_drawn_by_lot() -> None:
    """Shuffled and random labels keep the groups' sizes and say nothing of the group."""
    told = {}
    for labels in ("true", "shuffled", "random"):
        steps: list[Step] = []

        def method(one: Step, steps: list[Step] = steps) -> np.ndarray:
            steps.append(one)
            return grpo(one)

        train(World.draw(Setting(), SEEDS), SEEDS, method, Run(0.01, 1, steps=20, labels=labels))
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
