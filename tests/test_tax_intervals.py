"""The intervals and tests of the tax, against closed forms, a second implementation and known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from polypref.stats.bootstrap import Resampled, detectable, holm, verdict


def resampled(result_AV: np.ndarray, weight_V: np.ndarray | None = None, draws: int = 4000) -> Resampled:
    n = result_AV.shape[1]
    weight_V = np.full(n, 1 / n) if weight_V is None else weight_V
    stratum_V = np.unique(weight_V, return_inverse=True)[1]
    return Resampled(result_AV, stratum_V, weight_V[None], draws)


def test_the_spread_of_draws_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    both_AV = (rng.random((2, 500)) < 0.5).astype(float)
    weight_V = np.where(np.arange(500) < 100, 0.5 / 100, 0.5 / 400)
    change_FU, draw_BFU = resampled(both_AV, weight_V).changes(np.array([0]), 1)
    difference_V = both_AV[0] - both_AV[1]
    within = [difference_V[:100].var() / 100 / 4, difference_V[100:].var() / 400 / 4]
    assert change_FU[0, 0] == pytest.approx(difference_V @ weight_V)
    assert draw_BFU.std() == pytest.approx(np.sqrt(sum(within)), rel=0.05)
    assert draw_BFU.mean() == pytest.approx(change_FU[0, 0], abs=0.003)


def test_all_arms_see_the_same_draw() -> None:
    rng = np.random.default_rng(1)
    one_V = (rng.random(200) < 0.5).astype(float)
    harm = resampled(np.stack([one_V, one_V, 1 - one_V]), draws=200)
    assert np.array_equal(harm.draw_BFA[:, :, 0], harm.draw_BFA[:, :, 1])
    np.testing.assert_allclose(harm.draw_BFA[:, :, 0] + harm.draw_BFA[:, :, 2], 1.0)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Users' true taxes and items' difficulty are drawn anew in each of 200 worlds."""
    rng = np.random.default_rng(2)
    own = mean = together = 0
    worlds, users, items = 200, 15, 150
    for _ in range(worlds):
        tax_U = rng.normal(0.05, 0.04, users)
        right_AV = rng.random((users + 1, items)) < np.append(0.3 + tax_U, 0.3)[:, None]
        harm = resampled(right_AV.astype(float), draws=300)
        change = harm.changes(np.arange(users), users)
        lo, hi = (end[0] for end in harm.each(*change, harm.sides(np.arange(users), users)))
        own += ((lo <= tax_U) & (tax_U <= hi)).mean()
        lo, hi = (end[0] for end in harm.together(*change, harm.sides(np.arange(users), users)))
        together += bool(((lo <= tax_U) & (tax_U <= hi)).all())
        _, (lo, hi) = harm.mean(np.arange(users), users)
        mean += bool(lo[0] <= 0.05 <= hi[0])
    assert 0.92 < own / worlds < 0.98
    assert together / worlds > 0.90
    assert mean / worlds > 0.90


def test_nobody_who_pays_the_margin_is_often_called_free() -> None:
    """Users who lose just over 2 points, a few items each: "no tax" for any of them, in at most one world of twenty."""
    rng = np.random.default_rng(5)
    worlds, users, items, called = 150, 20, 358, 0
    for _ in range(worlds):
        lost_AV = np.concatenate([rng.random((users, items)) < 0.0201, np.zeros((1, items), bool)]).astype(float)
        harm = resampled(lost_AV, draws=200)
        arms = np.arange(users)
        hi = harm.together(*harm.changes(arms, users), harm.sides(arms, users))[1]
        called += bool((hi < 0.02).any())
    assert called / worlds <= 0.05


@pytest.mark.parametrize("alike", [16, 1])
def test_answers_to_one_prompt_go_together_and_small_strata_are_redrawn_as_one(alike: int) -> None:
    """Errors that go by prompt, in strata of single rows: the mean's interval covers as often as it says."""
    rng = np.random.default_rng(6)
    worlds, held, n = 150, 0, 400
    cluster_V = np.arange(n) // alike
    for _ in range(worlds):
        arm, pooled = ((rng.random(n // alike) < 0.5).astype(float)[cluster_V] for _ in range(2))
        weight_V = np.full((1, n), 1 / n)
        strata = cluster_V if alike > 1 else np.arange(n)
        harm = Resampled(np.stack([arm, pooled]), strata, weight_V, 300, 0, cluster_V)
        lo, hi = (end[0, 0] for end in harm.each(*harm.changes(np.array([0]), 1), harm.sides(np.array([0]), 1)))
        held += lo <= 0 <= hi
    assert held / worlds > 0.9


def test_the_exact_test_is_the_binomial_one() -> None:
    rng = np.random.default_rng(3)
    both_AV = (rng.random((3, 60)) < np.array([0.4, 0.6, 0.5])[:, None]).astype(float)
    p_FU, differ_FU = resampled(both_AV).mcnemar(np.array([0, 1]), 2, 1)
    for user in (0, 1):
        change_V = both_AV[user] - both_AV[2]
        won, lost = int((change_V > 0).sum()), int((change_V < 0).sum())
        assert differ_FU[0, user] == won + lost
        assert p_FU[0, user] == pytest.approx(binomtest(won, won + lost).pvalue)


def test_holm_steps_down() -> None:
    np.testing.assert_allclose(holm(np.array([[0.01, 0.04], [0.03, 0.5]])), [[0.04, 0.09], [0.09, 0.5]])


def test_what_could_be_found_is_the_known_formula() -> None:
    found = detectable(np.array([358.0, 456, 740, 1431]))
    assert np.round(100 * found, 1).tolist() == [4.7, 4.1, 3.3, 2.3]
    assert (detectable(np.array([740.0]), tests=80) > 1.4 * found[2]).all()


@pytest.mark.parametrize(
    ("ends", "able", "said"),
    [
        ((-0.01, 0.019), True, "no tax"),
        ((0.005, 0.019), True, "no tax"),
        ((-0.01, 0.02), True, "unclear"),
        ((0.001, 0.05), True, "tax"),
        ((-0.3, 0.3), True, "unclear"),
        ((-0.01, 0.01), False, "nothing to lose"),
        ((0.01, 0.1), False, "nothing to lose"),
    ],
)
def test_no_tax_only_under_the_margin(ends: tuple[float, float], able: bool, said: str) -> None:
    assert verdict(ends, 0.02, able) == said


def by_prompt(alike: int, prompts: int, arms: int, seed: int) -> Resampled:
    """Arms that win or lose all items of a prompt together, in half of the prompts each."""
    result_AK = (np.random.default_rng(seed).random((arms, prompts)) < 0.5).astype(float)
    n, cluster_V = alike * prompts, np.arange(alike * prompts) // alike
    return Resampled(result_AK[:, cluster_V], np.zeros(n, np.int64), np.full((1, n), 1 / n), 200, 0, cluster_V)


def test_items_that_are_copied_within_their_prompts_tell_nothing_new() -> None:
    once, often = (by_prompt(alike, 40, 4, 0) for alike in (1, 25))
    arms = np.array([0, 1, 2])
    np.testing.assert_allclose(often.effective_F, [40.0])
    np.testing.assert_allclose(once.floor_F(), often.floor_F())
    for one, other in zip(once.mcnemar(arms, 3, 1), often.mcnemar(arms, 3, 1), strict=True):
        assert np.array_equal(one, other)
    for ends in ("each", "together"):
        found = [getattr(harm, ends)(*harm.changes(arms, 3), harm.sides(arms, 3)) for harm in (once, often)]
        np.testing.assert_allclose(found[0], found[1])


def test_the_exact_test_of_equal_arms_is_seldom_significant() -> None:
    worlds = 300
    p_W = [by_prompt(10, 30, 2, seed).mcnemar(np.array([0]), 1, 1)[0].item() for seed in range(worlds)]
    assert np.mean(np.array(p_W) < 0.05) <= 0.06
    units_W = []
    for seed in range(worlds):
        harm = by_prompt(10, 30, 2, seed)
        units_W.append(Resampled(harm.result_AV, harm.stratum_V, harm.weight_FV).mcnemar(np.array([0]), 1, 1)[0].item())
    assert np.mean(np.array(units_W) < 0.05) > 0.3  # items as if each were a prompt


def test_a_few_prompts_without_a_change_leave_room_whatever_their_items() -> None:
    n, arms = 500, np.array([0])
    for prompts in (5, 500):
        still_AV = np.zeros((2, n))
        harm = Resampled(still_AV, np.zeros(n, np.int64), np.full((1, n), 1 / n), 200, 0, np.arange(n) % prompts)
        hi = harm.together(*harm.changes(arms, 1), harm.sides(arms, 1))[1].item()
        assert (hi < 0.02) == (prompts == 500)
        assert verdict((0.0, hi), 0.02) == ("no tax" if prompts == 500 else "unclear")
