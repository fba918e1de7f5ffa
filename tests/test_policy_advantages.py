"""Advantages against preference groups' histories: the paper's corollary, invariances, and every option by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from polypref.errors import SettingsError
from polypref.policy.advantages import EPSILON, PAPER, Normalization, Normalizer, Prompts

SHRUNKEN = Normalization(min_count=2)


def batch(seed: int, prompts: int = 12, size: int = 4, scales: tuple[float, ...] = (1.0, 10.0)) -> tuple:
    """Rewards of prompts that take turns with the groups; a prompt has a difficulty of its own."""
    rng = np.random.default_rng(seed)
    prompt_B = np.repeat(np.arange(prompts), size)
    group_B = prompt_B % len(scales)
    scale_B = np.array(scales)[group_B]
    reward_B = scale_B * (rng.standard_normal(prompts)[prompt_B] + rng.standard_normal(len(prompt_B)))
    return reward_B, prompt_B, [[f"g{g}" for g in group_B]]


def run(how: Normalization, batches: list[tuple], names: tuple[str, ...] = ("group",)) -> list[NDArray]:
    normalizer = Normalizer(how, names)
    return [normalizer(*one).value_B for one in batches]


# the paper


def test_corollary_of_the_paper() -> None:
    """A = (sigma_G / sigma_p) A_GRPO + (mu_G - mu_p) / sigma_p, with GRPO's standard deviation (divisor G - 1)."""
    batches = [batch(seed) for seed in range(4)]
    found = run(PAPER, batches)
    seen, groups = np.concatenate([b[0] for b in batches]), np.concatenate([np.array(b[2][0]) for b in batches])
    reward_B, prompt_B, (key_B,) = batches[-1]
    for prompt in np.unique(prompt_B):
        at = prompt_B == prompt
        own = seen[groups == np.array(key_B)[at][0]]
        scale, of_prompt = own.std() + EPSILON, reward_B[at].std(ddof=1) + EPSILON
        grpo = (reward_B[at] - reward_B[at].mean()) / of_prompt
        expected = of_prompt / scale * grpo + (reward_B[at].mean() - own.mean()) / scale
        np.testing.assert_allclose(found[-1][at], expected, atol=1e-9)


def test_fall_back_is_grpo_as_trl_computes_it() -> None:
    torch = pytest.importorskip("torch")
    reward_B, prompt_B, _ = batch(0)
    rows = torch.tensor(reward_B).view(-1, 4)
    expected = (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + EPSILON)
    np.testing.assert_allclose(Prompts.of(reward_B, prompt_B).grpo(), expected.flatten().numpy(), atol=1e-12)
    cold = Normalizer(replace(PAPER, min_count=1000))(*batch(0))
    np.testing.assert_array_equal(cold.value_B, Prompts.of(reward_B, prompt_B).grpo())
    assert cold.fell_back_B.all()


# invariances


@pytest.mark.parametrize("baseline", ["group", "prompt", "shrunken"])
def test_the_order_of_a_batch_changes_nothing(baseline) -> None:
    reward_B, prompt_B, (key_B,) = batch(3)
    order = np.random.default_rng(0).permutation(len(reward_B))
    how = replace(SHRUNKEN, baseline=baseline)
    mixed = (reward_B[order], prompt_B[order], [[key_B[i] for i in order]])
    one, other = run(how, [batch(1), batch(3)])[1], run(how, [batch(1), mixed])[1]
    np.testing.assert_allclose(one[order], other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("baseline", ["group", "prompt", "shrunken"])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e6])
def test_scale_and_place_of_one_groups_rewards_move_nobody(baseline, factor: float) -> None:
    def moved(one: tuple) -> tuple:
        reward_B, prompt_B, (key_B,) = one
        return np.where(np.array(key_B) == "g0", 7 + factor * reward_B, reward_B), prompt_B, [key_B]

    how = replace(SHRUNKEN, baseline=baseline)
    first = np.array(batch(0)[2][0]) == "g0"
    for one, other in zip(
        run(how, [batch(s) for s in range(5)]), run(how, [moved(batch(s)) for s in range(5)]), strict=True
    ):
        np.testing.assert_array_equal(one[~first], other[~first])
        np.testing.assert_allclose(one[first], other[first], rtol=1e-6, atol=1e-9)


def test_splitting_a_batch_changes_the_history_by_rounding_alone() -> None:
    reward_B, prompt_B, (key_B,) = batch(0)
    half = len(reward_B) // 2
    whole, halves = Normalizer(SHRUNKEN), Normalizer(SHRUNKEN)
    whole(reward_B, prompt_B, [key_B])
    for part in (slice(half), slice(half, None)):
        halves(reward_B[part], prompt_B[part], [key_B[part]])
    for one, other in zip(whole.levels, halves.levels, strict=True):
        assert one.numbers == other.numbers
        for history in ("rewards", "residuals"):
            for a, b in zip(*(getattr(level, history).arrays().values() for level in (one, other)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan, np.inf, -3.5]), min_size=4, max_size=4))
def test_odd_rewards_get_zero_and_move_nothing(odd: list[float]) -> None:
    reward_B, prompt_B, (key_B,) = batch(0)
    reward_B[:4] = odd
    for how in (PAPER, SHRUNKEN, replace(PAPER, baseline="prompt")):
        found = Normalizer(how)(reward_B, prompt_B, [key_B]).value_B
        assert np.isfinite(found).all()
        assert not found[~np.isfinite(reward_B)].any()
        kept = np.isfinite(reward_B)
        alone = Normalizer(how)(reward_B[kept], prompt_B[kept], [list(np.array(key_B)[kept])]).value_B
        np.testing.assert_allclose(found[kept], alone, atol=1e-12)


@pytest.mark.parametrize("baseline", ["group", "prompt", "shrunken"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e9])
def test_equal_rewards_say_nothing(baseline, value: float) -> None:
    normalizer = Normalizer(replace(SHRUNKEN, baseline=baseline))
    for _ in range(3):
        assert not normalizer(np.full(8, value), np.arange(8) // 2, [["a"] * 8]).value_B.any()


def moved(one: tuple, scale: float, shift: float) -> tuple:
    reward_B, prompt_B, key_LB = one
    return scale * reward_B + shift, prompt_B, key_LB


@given(
    st.sampled_from(["group", "prompt", "shrunken"]),
    st.sampled_from([None, 20.0]),
    st.floats(-12, 12),
    st.floats(-12, 12),
    st.sampled_from([-1, 1]),
)
@settings(max_examples=40, deadline=None)
def test_adding_and_multiplying_change_advantages_by_rounding_alone(baseline, half_life, scale, ratio, sign) -> None:
    """Rewards c r + s, c and |s| / c from 1e-12 to 1e12: equal advantages but for 100 roundings of s against c."""
    how = replace(SHRUNKEN, baseline=baseline, half_life=half_life)
    batches = [batch(seed, scales=(1.0, 2.0)) for seed in range(5)]
    changed = [moved(one, 10**scale, sign * 10 ** (scale + ratio)) for one in batches]
    for one, other in zip(run(how, batches), run(how, changed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=100 * np.finfo(float).eps * (1 + 10**ratio))


@pytest.mark.parametrize("baseline", ["group", "prompt", "shrunken"])
def test_a_billion_plus_or_minus_one_is_plus_or_minus_one(baseline) -> None:
    """Over 100 batches, as the module's head promises; a threshold on the variance gave 0 here."""
    how, rng = replace(SHRUNKEN, baseline=baseline), np.random.default_rng(0)
    batches = [(rng.choice([-1.0, 1.0], 16), np.arange(16) // 4, [["a"] * 16]) for _ in range(100)]
    for one, other in zip(run(how, batches), run(how, [moved(b, 1, 1e9) for b in batches]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(one).max() > 0.5


@given(st.floats(-1e140, 1e140), st.sampled_from(["group", "prompt", "shrunken"]), st.sampled_from([None, 20.0]))
def test_equal_rewards_get_exactly_nothing(value: float, baseline, half_life) -> None:
    normalizer = Normalizer(replace(SHRUNKEN, baseline=baseline, half_life=half_life))
    for size in (8, 6, 14):
        assert not normalizer(np.full(size, value), np.arange(size) // 2, [["a"] * size]).value_B.any()


@given(st.permutations(range(5)))
@settings(max_examples=20)
def test_the_order_of_batches_changes_the_next_ones_advantages_by_rounding_alone(order: list[int]) -> None:
    batches = [moved(batch(seed), 1, 1e6) for seed in range(5)]
    one, other = (run(SHRUNKEN, [*told, batches[0]])[-1] for told in (batches, [batches[at] for at in order]))
    np.testing.assert_allclose(one, other, atol=1e-8)


@pytest.mark.parametrize("baseline", ["group", "prompt", "shrunken"])
def test_rewards_that_differ_by_rounding_alone_say_nothing(baseline) -> None:
    reward_B = np.where(np.arange(16) % 2, 0.3, 0.1 + 0.2)
    assert len(set(reward_B)) == 2
    assert not run(replace(SHRUNKEN, baseline=baseline), [(reward_B, np.arange(16) // 4, [["a"] * 16])])[0].any()


def test_a_reward_too_large_to_square_is_left_out() -> None:
    reward_B, prompt_B, key_LB = batch(0)
    reward_B[0] = 1e200
    normalizer = Normalizer(SHRUNKEN)
    assert normalizer(reward_B, prompt_B, key_LB).value_B[0] == 0
    assert normalizer(*batch(1)).value_B.any(), "the history is not spoilt"


# options


def test_shrunken_is_the_best_linear_forecast() -> None:
    """With the true variances known, no other pull towards the prompt's others forecasts rewards better."""
    rng = np.random.default_rng(0)
    b, w, size, prompts = 4.0, 1.0, 4, 20_000
    reward_B = (2 * rng.standard_normal((prompts, 1)) + rng.standard_normal((prompts, size)) + 5).ravel()
    normalizer = Normalizer(SHRUNKEN)
    found = normalizer(reward_B, np.arange(prompts).repeat(size), [["a"] * (prompts * size)]).value_B
    left_out = (reward_B.reshape(-1, size).sum(1, keepdims=True) - reward_B.reshape(-1, size)) / (size - 1)
    pull = b / (b + w / (size - 1))
    expected = (reward_B - 5 - pull * (left_out.ravel() - 5)) / np.sqrt(w)
    np.testing.assert_allclose(found, expected, atol=0.15)
    errors = {k: ((reward_B - 5 - k * (left_out.ravel() - 5)) ** 2).mean() for k in (pull - 0.1, pull, pull + 0.07)}
    assert min(errors, key=errors.__getitem__) == pull
    assert (found**2).mean() * w == pytest.approx(errors[pull], rel=0.02)


def test_a_reward_whose_siblings_are_missing_is_measured_on_the_total_spread() -> None:
    rng = np.random.default_rng(0)
    prompt_B = np.arange(400) // 2
    reward_B = 10 * rng.standard_normal(200)[prompt_B] + rng.standard_normal(400)
    reward_B[:8:2] = np.nan
    found = Normalizer(SHRUNKEN)(reward_B, prompt_B, [["a"] * 400]).value_B
    told = reward_B[np.isfinite(reward_B)]
    np.testing.assert_allclose(found[1:8:2], (reward_B[1:8:2] - told.mean()) / told.std(), rtol=1e-9)


def test_alone_shrunken_is_the_papers_and_prompt_has_no_signal() -> None:
    reward_B, _, keys = batch(0)
    alone = (reward_B, np.arange(len(reward_B)), keys)
    np.testing.assert_array_equal(*(run(replace(SHRUNKEN, baseline=b), [alone])[0] for b in ("group", "shrunken")))
    assert not run(replace(PAPER, baseline="prompt"), [alone])[0].any()


def test_before_is_measured_against_earlier_batches_alone() -> None:
    how = replace(PAPER, order="before")
    first, second = run(how, [batch(0), batch(1)])
    np.testing.assert_array_equal(first, Prompts.of(*batch(0)[:2]).grpo())
    seen = np.array(batch(0)[2][0])
    reward_B = batch(1)[0]
    for name in ("g0", "g1"):
        own, at = batch(0)[0][seen == name], seen == name
        np.testing.assert_allclose(second[at], (reward_B[at] - own.mean()) / (own.std() + EPSILON), atol=1e-9)


def test_a_new_group_gets_its_parents_statistics() -> None:
    reward_B, prompt_B, (key_B,) = batch(0)
    how = replace(PAPER, cold="parent", min_count=10)
    normalizer = Normalizer(how, ("group", "user"))
    normalizer(reward_B, prompt_B, [key_B, ["old"] * len(reward_B)])
    few = np.array([3.0, 4.0])
    found = normalizer(few, np.zeros(2, int), [["g0"] * 2, ["new"] * 2])
    own = np.concatenate([reward_B[np.array(key_B) == "g0"], few])
    np.testing.assert_allclose(found.value_B, (few - own.mean()) / (own.std() + EPSILON))
    assert not found.fell_back_B.any()
    everyone = np.concatenate([reward_B, few, few])
    stranger = normalizer(few, np.zeros(2, int), [["g9"] * 2, ["new"] * 2])
    np.testing.assert_allclose(stranger.value_B, (few - everyone.mean()) / (everyone.std() + EPSILON))


def test_shrinkage_draws_log_scales_towards_the_parents() -> None:
    reward_B, prompt_B, keys = batch(0, prompts=2)
    own = run(PAPER, [(reward_B, prompt_B, keys)])[0]
    drawn = run(replace(PAPER, shrinkage=4.0), [(reward_B, prompt_B, keys)])[0]
    half = np.sqrt(reward_B[:4].std() * reward_B.std())  # four rewards of its own against four of the parent's
    np.testing.assert_allclose(drawn[:4], (reward_B[:4] - reward_B[:4].mean()) / (half + EPSILON), rtol=1e-10)
    assert not np.allclose(own, drawn)


def test_clipping() -> None:
    found, cut = (run(how, [batch(0)])[0] for how in (PAPER, replace(PAPER, clip=0.7)))
    assert np.abs(found).max() > 0.7
    np.testing.assert_array_equal(cut, found.clip(-0.7, 0.7))


def test_without_learning_nothing_is_kept() -> None:
    normalizer = Normalizer(SHRUNKEN)
    normalizer(*batch(0))
    reward_B, prompt_B, (key_B,) = batch(1)
    first = normalizer(reward_B, prompt_B, [["new" if k == "g1" else k for k in key_B]], learn=False).value_B
    assert list(normalizer.levels[1].numbers) == [("g0",), ("g1",)]
    assert normalizer.levels[1].rewards.count_G.tolist() == [24, 24]
    again = normalizer(reward_B, prompt_B, [["new" if k == "g1" else k for k in key_B]], learn=False).value_B
    np.testing.assert_array_equal(first, again)


# what is refused


def test_one_prompt_of_two_groups_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"completions 0 and 1 answer one prompt .* 'a' and 'b'"):
        Normalizer()(np.zeros(2), np.zeros(2, int), [["a", "b"]])


@pytest.mark.parametrize(
    ("setting", "value"), [("half_life", 0.5), ("half_life", np.inf), ("min_count", 0), ("shrinkage", -1), ("clip", -1)]
)
def test_settings_that_cannot_work(setting: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"{setting} is {value}; expected"):
        Normalization(**{setting: value})


def test_a_history_that_could_never_be_used_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"half_life is 10, so no more than 14\.9 rewards .* min_count is 16"):
        Normalization(half_life=10)
    short = Normalizer(Normalization(half_life=12))
    for seed in range(30):
        last = short(*batch(seed))
    assert not last.fell_back_B.any()
