"""How much groups count: closed forms, the floor, and what every engine does with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from polypref.errors import ArtifactError, SettingsError
from polypref.forgetting import forget_in_history
from polypref.policy import history_file
from polypref.policy.advantages import PAPER, Normalization, Normalizer, Prompts, normalizer_of
from polypref.policy.bounded import Bound, Guard, bounded_advantages
from polypref.policy.group_weights import FLOOR, GroupWeights, unscaled

BASELINES = ("group", "prompt", "shrunken", "grpo")
counts = st.lists(st.integers(0, 60), min_size=1, max_size=6)  # of a batch, by group
batches = st.lists(counts.filter(any), min_size=1, max_size=5)
alphas = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def by_hand(told: list[list[int]], alpha: float) -> list[NDArray]:
    """Weights of each group in each batch, by the formula and with loops: the second implementation."""
    seen: dict[int, int] = {}
    found = []
    for counts_G in told:
        for group, count in enumerate(counts_G):
            seen[group] = seen.get(group, 0) + count
        u = {group: max(n / max(seen.values()), FLOOR) ** -alpha for group, n in seen.items()}
        mean = sum(u[group] * count for group, count in enumerate(counts_G)) / sum(counts_G)
        found.append(np.array([u[group] / mean for group in range(len(counts_G))]))
    return found


def members(counts_G: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts_G)), counts_G)


def batch(seed: int, shares: tuple[float, ...] = (0.8, 0.15, 0.05), prompts: int = 40, size: int = 2) -> tuple:
    """Rewards of prompts whose groups are drawn by their shares."""
    rng = np.random.default_rng(seed)
    group_P = rng.choice(len(shares), prompts, p=shares)
    scale_P = 10.0 ** -group_P.astype(float)
    reward_PJ = (rng.standard_normal((prompts, 1)) + rng.standard_normal((prompts, size))) * scale_P[:, None]
    return reward_PJ.ravel(), np.repeat(np.arange(prompts), size), [[f"g{g}" for g in np.repeat(group_P, size)]]


# the formula


@given(batches, alphas)
@settings(deadline=None)
def test_weights_are_the_formulas(told: list[list[int]], alpha: float) -> None:
    weigh = GroupWeights(alpha)
    for counts_G, expected_G in zip(told, by_hand(told, alpha), strict=True):
        group_B = members(counts_G)
        weight_B = weigh(group_B, np.ones(len(group_B), bool))
        np.testing.assert_allclose(weight_B, expected_G[group_B], rtol=1e-12)
        assert weight_B.mean() == pytest.approx(1, rel=1e-12)


@given(batches, alphas)
@settings(deadline=None)
def test_no_completion_counts_more_than_the_floor_allows(told: list[list[int]], alpha: float) -> None:
    weigh = GroupWeights(alpha)
    for counts_G in told:
        group_B = members(counts_G)
        weight_B = weigh(group_B, np.ones(len(group_B), bool))
        most = FLOOR**-alpha
        assert weight_B.max() <= weight_B.min() * most * (1 + 1e-12)
        for group, count in enumerate(counts_G):
            part = weight_B[group_B == group].sum() / len(group_B)
            assert part <= most * count / (most * count + len(group_B) - count) + 1e-12


def test_five_rollouts_never_own_the_gradient() -> None:
    """However rare their group has been: without the floor, five of 256 would carry half of the weight."""
    weigh = GroupWeights(1.0)
    for _ in range(1000):
        weigh(np.zeros(256, int), np.ones(256, bool))
    weight_B = weigh(np.repeat([0, 1], [251, 5]), np.ones(256, bool))
    assert weight_B[-5:].sum() / 256 == pytest.approx(20 * 5 / (20 * 5 + 251))
    assert weight_B[-5:].sum() / 256 < 0.3


@given(batches)
@settings(deadline=None)
def test_alpha_0_is_exactly_1(told: list[list[int]]) -> None:
    weigh = GroupWeights(0.0)
    for counts_G in told:
        group_B = members(counts_G)
        assert (weigh(group_B, np.ones(len(group_B), bool)) == 1.0).all()


def test_with_alpha_1_groups_above_the_floor_count_alike() -> None:
    group_B = np.repeat([0, 1, 2], [160, 60, 36])
    for alpha, power in ((1.0, 0.0), (0.5, 0.5)):
        weight_B = GroupWeights(alpha)(group_B, np.ones(256, bool))
        part_G = np.bincount(group_B, weight_B)
        expected_G = np.array([160, 60, 36.0]) ** power  # a group's part is its share to the power 1 - alpha
        np.testing.assert_allclose(part_G / part_G.sum(), expected_G / expected_G.sum())


def test_only_completions_that_count_are_counted() -> None:
    group_B = np.repeat([0, 1], [6, 4])
    counts_B = np.arange(10) < 8
    weigh = GroupWeights(1.0)
    weight_B = weigh(group_B, counts_B)
    assert weigh.seen_G.tolist() == [6, 2]
    assert weight_B[counts_B].mean() == pytest.approx(1)
    assert weight_B[6] == pytest.approx(3 * weight_B[0])
    assert (weigh(np.array([2, 2]), np.zeros(2, bool)) == 1).all(), "a batch without any reward"
    assert weigh.seen_G.tolist() == [6, 2, 0]


def test_several_runs_at_once_are_each_by_itself() -> None:
    seen_XG = np.array([[50.0, 5.0, 0.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    together = unscaled(seen_XG, 0.5)
    for seen_G, u_G in zip(seen_XG, together, strict=True):
        np.testing.assert_array_equal(u_G, unscaled(seen_G, 0.5))


# in advantages


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_advantages_are_the_unweighted_ones_times_the_weights(baseline, alpha: float) -> None:
    how = Normalization(baseline=baseline, group_weight=0.0)
    plain, weighed = Normalizer(how), Normalizer(replace(how, group_weight=alpha))
    weigh = GroupWeights(alpha)
    for seed in range(4):
        reward_B, prompt_B, (key_B,) = batch(seed)
        one, other = plain(reward_B, prompt_B, [key_B]), weighed(reward_B, prompt_B, [key_B])
        weight_B = weigh(one.group_LB[1], np.ones(len(reward_B), bool))
        assert (one.weight_B == 1).all()
        np.testing.assert_array_equal(other.weight_B, weight_B)
        np.testing.assert_array_equal(other.value_B, one.value_B * weight_B)
        assert (alpha == 0) == bool((other.value_B == one.value_B).all())


def test_grpo_as_a_baseline_is_grpo_and_reads_no_history() -> None:
    how = Normalization(baseline="grpo", group_weight=0.0)
    normalizer = Normalizer(how)
    for seed in range(3):
        found = normalizer(*batch(seed))
        np.testing.assert_array_equal(found.value_B, Prompts.of(*batch(seed)[:2]).grpo())
        assert not found.fell_back_B.any()


@given(st.permutations(range(40)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_a_batch_changes_no_weight(order: list[int]) -> None:
    reward_B, prompt_B, (key_B,) = batch(0)
    row_B = (2 * np.array(order)[:, None] + np.arange(2)).ravel()
    mixed = reward_B[row_B], prompt_B[row_B], [[key_B[b] for b in row_B]]
    how = Normalization(group_weight=1.0)
    one, other = Normalizer(how)(reward_B, prompt_B, [key_B]), Normalizer(how)(*mixed)
    np.testing.assert_allclose(other.weight_B, one.weight_B[row_B], rtol=1e-15)


def test_users_within_groups_are_weighed_as_their_groups_are() -> None:
    reward_B, prompt_B, (key_B,) = batch(0)
    users = [f"u{p % 7}" for p in prompt_B]
    how = Normalization(group_weight=1.0)
    finer = Normalizer(how, ("group", "user"))
    found = finer(reward_B, prompt_B, [key_B, users])
    np.testing.assert_array_equal(found.weight_B, Normalizer(how)(reward_B, prompt_B, [key_B]).weight_B)
    less = forget_in_history(finer, "u3")
    assert less.weights.seen_G.tolist() == finer.weights.seen_G.tolist(), "what a user added to a group stays"


def test_without_groups_nothing_is_weighed() -> None:
    reward_B, prompt_B, _ = batch(0)
    assert (Normalizer(Normalization(group_weight=1.0), ())(reward_B, prompt_B, []).weight_B == 1).all()


def test_without_learning_no_reward_is_counted() -> None:
    normalizer = Normalizer(Normalization())
    normalizer(*batch(0))
    before = normalizer.weights.seen_G.copy()
    first, again = (normalizer(*batch(1), learn=False).value_B for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(normalizer.weights.seen_G, before)


def test_histories_that_forget_still_count_everything() -> None:
    """Under a half-life every history remembers the same number of rewards, which is no share of anything."""
    how = Normalization(half_life=20, group_weight=1.0)
    normalizer, plain = Normalizer(how), Normalizer(replace(how, half_life=None))
    for seed in range(20):
        one, other = (which(*batch(seed)).weight_B for which in (normalizer, plain))
        np.testing.assert_array_equal(one, other)
    assert np.ptp(normalizer.levels[1].rewards.count_G) < 2


def test_the_clip_is_the_largest_advantage_whatever_the_weight() -> None:
    found = Normalizer(Normalization(clip=0.7, group_weight=1.0))(*batch(0)).value_B
    assert np.abs(found).max() == 0.7


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), float("inf"), "half", True])
def test_weights_that_cannot_work(value) -> None:
    with pytest.raises(SettingsError, match=r"group_weight is .*; expected a number, from 0 to 1\."):
        Normalization(group_weight=value)


def test_engines_read_it_by_its_name() -> None:
    assert normalizer_of({"group_weight": 1, "baseline": "grpo"}, "pgrpo").how.group_weight == 1
    assert normalizer_of({"paper": True}, "pgrpo").how.group_weight == 0 == PAPER.group_weight
    assert Normalization().group_weight == 0.5


# on disk


def test_counts_are_kept_with_the_histories(tmp_path: Path) -> None:
    how = Normalization(group_weight=1.0)
    whole, half = Normalizer(how), Normalizer(how)
    for seed in range(3):
        for one in (whole, half):
            one(*batch(seed))
    history_file.save(tmp_path / "h.npz", [half])
    (again,), _ = history_file.load(tmp_path / "h.npz", [Normalizer(how)])
    assert history_file.digest([again]) == history_file.digest([whole])
    np.testing.assert_array_equal(again(*batch(9)).value_B, whole(*batch(9)).value_B)
    fresh = Normalizer(how)
    fresh.levels = again.levels
    assert history_file.digest([fresh]) != history_file.digest([again]), "counts are part of what must agree"
    with pytest.raises(ArtifactError, match=r"group_weight was 1\.0, now 0\.5"):
        history_file.load(tmp_path / "h.npz", [Normalizer(Normalization())])


def test_a_file_from_before_weights_goes_on_without_them(tmp_path: Path, monkeypatch) -> None:
    how = Normalization(group_weight=0.0)
    normalizer = Normalizer(how)
    normalizer(*batch(0))
    told = history_file.settings_of(normalizer)
    del told["group_weight"]
    with monkeypatch.context() as patch:
        patch.setattr(history_file, "settings_of", lambda _: told)
        history_file.save(tmp_path / "h.npz", [normalizer])
    (again,), _ = history_file.load(tmp_path / "h.npz", [Normalizer(how)])
    np.testing.assert_array_equal(again(*batch(1)).value_B, normalizer(*batch(1)).value_B)
    with pytest.raises(ArtifactError, match=r"group_weight was 0\.0, now 0\.5"):
        history_file.load(tmp_path / "h.npz", [Normalizer(Normalization())])


# inside bounds


@given(st.integers(0, 10_000), alphas, st.sampled_from(BASELINES), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_weights_reinforce_nothing_unsafe(seed: int, alpha: float, baseline, unsafe: float) -> None:
    how = Normalization(baseline=baseline, group_weight=alpha, min_count=4)
    normalizer, guard, safe = Normalizer(how), Guard(Bound(0.5, rate=0.1)), 0
    for at in range(3):
        reward_B, prompt_B, key_LB = batch(seed + at)
        score_B = (np.random.default_rng(seed + at).random(len(reward_B)) >= unsafe).astype(float)
        found = bounded_advantages(normalizer, guard, reward_B, score_B, prompt_B, key_LB)
        unsafe_B = score_B < 0.5
        assert (found.value_B[unsafe_B] < found.value_B[~unsafe_B].min(initial=0.0)).all()
        assert (found.value_B[unsafe_B] < 0).all()
        safe += int((~unsafe_B).sum())
    assert normalizer.weights.seen_G.sum() == safe, "unsafe completions are in no group's share"
