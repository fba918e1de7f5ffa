"""Histories that are cut when their group's drift alarm rings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polypref.errors import ArtifactError
from polypref.policy import history_file
from polypref.policy.advantages import Normalization, Normalizer
from polypref.policy.history import Floats
from polypref.studies.policy.measure import curves
from polypref.studies.policy.study import Arm

ADAPTIVE = Normalization(baseline="group", adaptive=True)
PROMPTS, SIZE = 8, 2
KEYS = [[group for prompt in range(PROMPTS) for group in ["ab"[prompt % 2]] * SIZE]]


def batches(steps: int, shift: float, seed: int = 0) -> list[Floats]:
    """Rewards of two groups; from half time on, b's are higher by ``shift``."""
    rng = np.random.default_rng(seed)
    of_b = np.array([key == "b" for key in KEYS[0]])
    return [rng.normal(size=PROMPTS * SIZE) + shift * of_b * (step >= steps // 2) for step in range(steps)]


def run(normalizer: Normalizer, rewards: list[Floats]) -> list[Floats]:
    """Advantages of all batches."""
    return [normalizer(reward_B, np.arange(PROMPTS).repeat(SIZE), KEYS).value_B for reward_B in rewards]


def test_without_a_shift_nothing_is_cut() -> None:
    rewards = batches(100, 0.0)
    adaptive, plain = Normalizer(ADAPTIVE), Normalizer(Normalization(baseline="group"))
    np.testing.assert_array_equal(run(adaptive, rewards), run(plain, rewards))


@pytest.mark.parametrize("shift", [3.0, -3.0])
def test_a_group_whose_rewards_shift_forgets_and_the_others_do_not(shift: float) -> None:
    rewards = batches(100, shift)
    adaptive, plain = Normalizer(ADAPTIVE), Normalizer(Normalization(baseline="group"))
    run(adaptive, rewards)
    run(plain, rewards)
    (a, b), history, kept = (0, 1), adaptive.levels[1].rewards, plain.levels[1].rewards
    assert history.count_G[a] == kept.count_G[a]
    assert history.mean_G[a] == kept.mean_G[a]
    assert history.count_G[b] < 500 < kept.count_G[b]
    assert abs(history.mean_G[b] - shift) < 0.25 < abs(kept.mean_G[b] - shift)
    assert adaptive.levels[1].residuals.count_G[b] == history.count_G[b], "spreads within prompts forget as well"


def test_the_groups_that_forgot_are_told() -> None:
    adaptive, told = Normalizer(ADAPTIVE), []
    for reward_B in batches(100, 3.0):
        told += adaptive(reward_B, np.arange(PROMPTS).repeat(SIZE), KEYS).alarmed.tolist()
    assert told
    assert set(told) == {1}


def test_cut_to_min_count_before_the_batch_enters() -> None:
    adaptive = Normalizer(ADAPTIVE)
    for reward_B in batches(100, 3.0):
        if len(adaptive(reward_B, np.arange(PROMPTS).repeat(SIZE), KEYS).alarmed):
            assert adaptive.levels[1].rewards.count_G[1] == ADAPTIVE.min_count + PROMPTS * SIZE / 2
            return
    raise AssertionError("no alarm")


def test_a_batch_that_rings_the_alarm_is_measured_by_what_was_known_before_it() -> None:
    before = Normalization(baseline="group", order="before", adaptive=True)
    adaptive, plain = Normalizer(before), Normalizer(Normalization(baseline="group", order="before"))
    for reward_B in batches(100, 3.0):
        found = adaptive(reward_B, np.arange(PROMPTS).repeat(SIZE), KEYS)
        expected = plain(reward_B, np.arange(PROMPTS).repeat(SIZE), KEYS)
        np.testing.assert_array_equal(found.value_B, expected.value_B)
        if len(found.alarmed):
            return
    raise AssertionError("no alarm")


def test_resuming_amid_a_shift_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    rewards = batches(60, 0.7)
    whole, half = Normalizer(ADAPTIVE), Normalizer(ADAPTIVE)
    expected = run(whole, rewards)
    run(half, rewards[:33])
    assert (half.alarm.up_G > 0).any(), "something is at stake"
    history_file.save(tmp_path / history_file.NAME, [half])
    (again,), _ = history_file.load(tmp_path / history_file.NAME, [Normalizer(ADAPTIVE)])
    np.testing.assert_array_equal(run(again, rewards[33:]), expected[33:])
    assert history_file.digest([again]) == history_file.digest([whole])
    whole.alarm.up_G[0] += 1e-9
    assert history_file.digest([again]) != history_file.digest([whole])


def test_other_ways_of_forgetting_are_other_settings(tmp_path: Path) -> None:
    history_file.save(tmp_path / history_file.NAME, [Normalizer(ADAPTIVE)])
    with pytest.raises(ArtifactError, match="adaptive was True, now False"):
        history_file.load(tmp_path / history_file.NAME, [Normalizer(Normalization(baseline="group"))])


def test_evaluation_rings_no_alarm() -> None:
    adaptive = Normalizer(ADAPTIVE)
    run(adaptive, batches(20, 0.0))
    before = history_file.digest([adaptive])
    for reward_B in batches(20, 9.0):
        adaptive(reward_B, np.arange(PROMPTS).repeat(SIZE), KEYS, learn=False)
    assert history_file.digest([adaptive]) == before


def test_under_drift_the_papers_formula_gains_by_it() -> None:
    """On the bandit whose minority gets four more from half time on, what the worst group has in the end."""
    ends = {}
    for method in ("P-GRPO paper", "P-GRPO adaptive"):
        curve_STP = curves(Arm("drift", method, 8), np.full(6, 0.08), np.arange(6), 300)
        ends[method] = curve_STP[:, -3:].min(axis=2).mean()
    assert ends["P-GRPO adaptive"] > ends["P-GRPO paper"] + 0.03
