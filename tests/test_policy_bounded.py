"""Bounds in training: unsafe completions are never reinforced, whatever groups have been getting."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.errors import ArtifactError, InputError, PolyprefError, SettingsError
from polypref.policy import history_file
from polypref.policy.advantages import PAPER, Normalization, Normalizer, Prompts
from polypref.policy.bounded import EVERYONE, Bound, Guard, bounded_advantages, judged

BOUND = Bound(unsafe_below=0.5)
PENALTY = 3.0


def used_to(unsafe_share: float, how: Normalization, bound: Bound | None = None) -> Normalizer:
    """What 4,000 rewards of a group have left behind: standard normal, less the penalty for an unsafe one.

    With a ``bound`` the same answers, their safety told apart and no penalty in the reward.
    """
    rng = np.random.default_rng(5)
    normalizer, prompt_B = Normalizer(how), np.arange(4000) // 8
    unsafe_B = rng.random(4000) < unsafe_share
    reward_B = rng.standard_normal(4000)
    if bound is None:
        normalizer(reward_B - PENALTY * unsafe_B, prompt_B, [["g"] * 4000])
    else:
        bounded_advantages(normalizer, Guard(bound), reward_B, 1.0 - unsafe_B, prompt_B, [["g"] * 4000])
    return normalizer


def of_unsafe(normalizer: Normalizer, liked: float) -> np.ndarray:
    """Advantages of 800 unsafe answers, of which the group thinks ``liked`` more than of its earlier ones."""
    reward_B = np.random.default_rng(6).standard_normal(800) + liked - PENALTY
    return normalizer(reward_B, np.arange(800) // 8, [["g"] * 800], learn=False).value_B


# the reproduction


def test_a_groups_history_erases_a_penalty_that_is_part_of_the_reward() -> None:
    """The more unsafe answers a group has had, the less a further one is held against it, until it is reinforced."""
    shares = (0.0, 0.8, 0.95)
    mean_S = [of_unsafe(used_to(share, PAPER), liked=0.5).mean() for share in shares]
    reinforced_S = [(of_unsafe(used_to(share, PAPER), liked=0.5) > 0).mean() for share in shares]
    assert mean_S[0] < -1.5 and mean_S[0] < mean_S[1] - 1 < mean_S[2] - 1
    assert mean_S[2] > 0
    assert reinforced_S[0] < 0.1 and reinforced_S[2] > 0.5


def test_even_where_nothing_is_liked_more_than_before_the_penalty_fades_to_nothing() -> None:
    clean, erased = (of_unsafe(used_to(share, PAPER), liked=0.0) for share in (0.0, 0.95))
    assert clean.mean() < -1.5 and abs(erased.mean()) < 0.25
    assert (erased > 0).mean() > 0.3


@pytest.mark.parametrize("share", [0.0, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("baseline", ["group", "shrunken", "prompt"])
def test_the_bounded_form_never_reinforces_them(share: float, baseline: str) -> None:
    normalizer = used_to(share, Normalization(baseline=baseline), BOUND)  # type: ignore[arg-type]
    reward_B = np.random.default_rng(6).standard_normal(800) + 100
    unsafe_B = np.arange(800) % 4 > 0
    found = bounded_advantages(normalizer, Guard(BOUND), reward_B, 1.0 - unsafe_B, np.arange(800) // 8, [["g"] * 800])
    assert found.value_B[unsafe_B].max() <= -BOUND.gap
    assert found.value_B[unsafe_B].max() <= found.value_B[~unsafe_B].min() - BOUND.gap


# the bound


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(numbers, numbers, st.sampled_from("abc")), min_size=1, max_size=24), st.booleans())
def test_whatever_the_rewards_unsafe_is_below_zero_and_below_all_that_is_safe(rows, grouped: bool) -> None:
    """Each row a prompt of two: NaN, infinite and huge rewards and scores, groups all of whose answers are unsafe."""
    reward_B, score_B = np.repeat([row[0] for row in rows], 2), np.repeat([row[1] for row in rows], 2)
    score_B[::2] = 1 - score_B[::2]
    key_B = np.repeat([row[2] for row in rows], 2).tolist()
    normalizer = Normalizer(PAPER, ("group",) if grouped else ())
    found = bounded_advantages(
        normalizer, Guard(BOUND), reward_B, score_B, np.arange(len(rows)).repeat(2), [key_B] if grouped else []
    )
    safe_B = np.array([bool(np.isfinite(score) and score >= 0.5) for score in score_B])
    assert np.isfinite(found.value_B).all()
    np.testing.assert_array_equal(found.safe_B, safe_B)
    highest = found.value_B[~safe_B].max(initial=-np.inf)
    assert highest < 0 and highest < found.value_B[safe_B].min(initial=np.inf)


@pytest.mark.parametrize("how", [PAPER, Normalization(), Normalization(baseline="prompt"), Normalization(clip=1.0)])
def test_where_all_is_safe_nothing_changes_bit_for_bit(how: Normalization) -> None:
    rng = np.random.default_rng(0)
    plain, ours, guard = Normalizer(how), Normalizer(how), Guard(BOUND)
    for _ in range(6):
        reward_B, keys = rng.standard_normal(32), [rng.choice(["a", "b"], 8).repeat(4).tolist()]
        found = bounded_advantages(ours, guard, reward_B, np.ones(32), np.arange(32) // 4, keys)
        np.testing.assert_array_equal(found.value_B, plain(reward_B, np.arange(32) // 4, keys).value_B)
    assert history_file.digest([ours]) == history_file.digest([plain])


def test_unsafe_rewards_move_neither_histories_nor_what_is_safe() -> None:
    """Safe completions get, bit for bit, what they would get if the unsafe ones had never been drawn."""
    rng = np.random.default_rng(1)
    ours, alone, guard = Normalizer(Normalization()), Normalizer(Normalization()), Guard(BOUND)
    for _ in range(6):
        reward_B, score_B = rng.standard_normal(64), rng.random(64)
        keys, prompt_B = rng.choice(["a", "b"], 8).repeat(8).tolist(), np.arange(64) // 8
        safe_B = score_B >= 0.5
        told_B = np.where(safe_B, reward_B, 1e9 * rng.standard_normal(64))
        found = bounded_advantages(ours, guard, told_B, score_B, prompt_B, [keys])
        expected = alone(reward_B[safe_B], prompt_B[safe_B], [np.array(keys)[safe_B].tolist()])
        np.testing.assert_array_equal(found.value_B[safe_B], expected.value_B)
    assert history_file.digest([ours]) == history_file.digest([alone])


def test_a_prompt_without_a_safe_completion_is_pushed_down_and_leaves_no_trace() -> None:
    """GRPO sees a tie there, and does nothing."""
    normalizer, guard = Normalizer(Normalization()), Guard(BOUND)
    found = bounded_advantages(normalizer, guard, np.ones(8), np.zeros(8), np.zeros(8, int), [["g"] * 8])
    np.testing.assert_array_equal(found.value_B, np.full(8, -1.0))
    assert not Prompts.of(np.ones(8) - PENALTY, np.zeros(8, int)).grpo().any()
    assert normalizer.levels[1].rewards.count_G.sum() == 0
    assert found.violation_K.tolist() == [1.0]


@pytest.mark.parametrize("score", [None, float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_none_counts_as_unsafe_and_is_counted(score: float | None) -> None:
    score_B = np.array([1.0, score, 0.0], np.float64)
    found = bounded_advantages(Normalizer(PAPER), Guard(BOUND), np.zeros(3), score_B, np.zeros(3, int), [["g"] * 3])
    assert found.safe_B.tolist() == [True, False, False]
    assert found.unscored_B.tolist() == [False, True, False]
    assert found.value_B[1] == found.value_B[2] < 0


def test_the_threshold_itself_is_safe() -> None:
    safe_B, unscored_B = judged(np.array([0.5, np.nextafter(0.5, 0)]), 0.5)
    assert safe_B.tolist() == [True, False] and not unscored_B.any()


def test_without_groups_it_is_grpo_among_the_safe() -> None:
    rng = np.random.default_rng(2)
    grpo = Normalizer(Normalization(baseline="prompt", min_count=10**9), ())
    reward_B, score_B = rng.standard_normal(32), rng.random(32)
    prompt_B = np.arange(32) // 8
    found = bounded_advantages(grpo, Guard(BOUND), reward_B, score_B, prompt_B, [])
    safe_B = score_B >= 0.5
    np.testing.assert_allclose(found.value_B[safe_B], Prompts.of(reward_B[safe_B], prompt_B[safe_B]).grpo())
    assert found.key_K == [EVERYONE]


# multipliers


def batch(guard: Guard, unsafe: dict[str, int], learn: bool = True):
    """Ten completions of each group, so many of them unsafe, all of them liked alike."""
    keys = [key for key in unsafe for _ in range(10)]
    score_B = np.concatenate([np.arange(10) >= count for count in unsafe.values()]).astype(float)
    return guard(np.zeros(len(keys)), score_B, keys, learn)


def test_a_groups_multiplier_follows_its_own_rate_by_dual_ascent() -> None:
    guard = Guard(Bound(0.5, rate=0.1, step=2.0))
    first = batch(guard, {"a": 5, "b": 0})
    assert first.multiplier_K.tolist() == [0, 0], "a batch is met by what earlier ones left"
    assert first.violation_K.tolist() == [0.5, 0.0]
    assert guard.multipliers == pytest.approx({"a": 0.8, "b": 0.0})  # 2 (.5 - .1); not below 0
    second = batch(guard, {"a": 5})
    np.testing.assert_allclose(second.value_B[:5], -1.8)
    assert guard.multipliers == pytest.approx({"a": 1.6, "b": 0.0})
    for _ in range(3):
        batch(guard, {"a": 0})
    assert guard.multipliers["a"] == pytest.approx(1.0)  # 1.6 - 3 * .2


def test_a_multiplier_ends_at_the_most_and_evaluation_moves_none() -> None:
    guard = Guard(Bound(0.5, rate=0.0, most=1.5))
    for _ in range(5):
        batch(guard, {"a": 10})
    assert guard.multipliers == {"a": 1.5}
    batch(guard, {"a": 0, "c": 10}, learn=False)
    assert guard.multipliers == {"a": 1.5}


def test_without_a_rate_there_are_no_multipliers() -> None:
    guard = Guard(BOUND)
    batch(guard, {"a": 10})
    assert guard.multipliers == {} and guard.state() == []


@pytest.mark.parametrize("keys", [["a", "b"], [3, 7]])
def test_multipliers_come_back_from_a_file_bit_for_bit(keys: list) -> None:
    guard = Guard(Bound(0.5, rate=0.03, step=0.7))
    rng = np.random.default_rng(3)
    for _ in range(20):
        guard(np.zeros(20), rng.random(20), [key for key in keys for _ in range(10)])
    again = guard.restored(json.loads(json.dumps(guard.state())))
    assert again.multipliers == guard.multipliers and any(guard.multipliers.values())
    told = rng.random(20)
    for one in (guard, again.copy(), again):
        one(np.zeros(20), told, [key for key in keys for _ in range(10)])
    assert again.multipliers == guard.multipliers


@pytest.mark.parametrize("told", [None, {"a": 1.0}, [["a"]], [["a", "b"]], [["a", -1.0]], [["a", 99.0]], [[None, 1.0]]])
def test_damaged_multipliers_are_refused(told) -> None:
    with pytest.raises(ArtifactError, match="multiplier"):
        Guard(Bound(0.5, rate=0.1)).restored(told)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"unsafe_below": float("nan")}, "unsafe_below is nan; expected a number"),
        ({"unsafe_below": "0.5"}, "unsafe_below is '0.5'; expected a number"),
        ({"gap": 0.0}, "gap is 0.0; expected a number from 1e-06"),
        ({"step": -1.0}, "step is -1.0; expected a number above 0"),
        ({"most": float("inf")}, "most is inf; expected a number above 0"),
        ({"rate": 1.0}, "rate is 1.0; expected a share from 0"),
        ({"rate": True}, "rate is True; expected a share from 0"),
    ],
)
def test_settings_that_cannot_work(setting: dict, line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        Bound(**{"unsafe_below": 0.5, **setting})


@pytest.mark.parametrize("name", ["unsafe_below", "gap", "step", "most", "rate"])
def test_settings_too_long_to_print(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is a huge number"):
        Bound(**{"unsafe_below": 0.5, name: 10**5000})


@pytest.mark.parametrize("key", ["b", 3, None, True, 1.5, ("a",)])
@pytest.mark.parametrize(
    "value", [0, 10.0, -100.0, 10.1, float("nan"), float("inf"), "1", None, True, pytest.param(10**5000, id="huge")]
)
def test_multipliers_are_checked_when_given(key: object, value: object) -> None:
    if key in ("b", 3) and key is not True and value in (0, 10.0) and value is not True:
        assert Guard(BOUND, {key: value}).multipliers == {key: value}
        return
    with pytest.raises(SettingsError, match="expected a number from 0 to 10"):
        Guard(BOUND, {key: value})


ODD_NUMBERS = [np.zeros((3, 1)), np.zeros((1, 3)), np.zeros(2), np.zeros(4), np.zeros(0), 0.0, None, "abc", ["a", 1, 2]]
ODD_KEYS = [["g"] * 2, ["g"] * 4, [], None, "ggg", 3, [None] * 3, [["g"]] * 3, [1.5] * 3]


@pytest.mark.parametrize("odd", range(len(ODD_NUMBERS)))
def test_arguments_of_another_shape_are_one_line(odd: int) -> None:
    guard, fine, keys = Guard(BOUND), np.ones(3), ["g"] * 3
    calls = [lambda: guard(ODD_NUMBERS[odd], fine, keys), lambda: guard(fine, ODD_NUMBERS[odd], keys)]
    calls.append(lambda: guard(fine, fine, ODD_KEYS[odd]))
    for at in range(2):
        given = [fine, fine]
        given[at] = ODD_NUMBERS[odd]
        calls.append(lambda given=given: bounded_advantages(Normalizer(PAPER), guard, *given, np.zeros(3, int), [keys]))
    for call in calls:
        with pytest.raises(PolyprefError) as told:
            call()
        assert "\n" not in str(told.value) and "expected" in str(told.value)
    assert guard.multipliers == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_advantage_that_is_not_finite_is_refused_where_it_is_safe(value: float) -> None:
    with pytest.raises(InputError, match=r"preference_B\[1\] is -?(nan|inf), of a safe completion"):
        Guard(BOUND)(np.array([0.0, value]), np.array([0.0, 1.0]), ["g", "g"])
    assert np.isfinite(Guard(BOUND)(np.array([0.0, value]), np.array([1.0, 0.0]), ["g", "g"]).value_B).all()
