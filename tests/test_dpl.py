"""DPL as a diagnostic: r2 falls where people disagree, and the null tells that from error."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import norm

from contract_cases import Words, answers, small
from polypref.comparisons import Comparisons
from polypref.learners.dpl import ATOMS, Dpl, explained, moments
from polypref.studies.hidden_disagreement import HiddenDisagreement, hidden_disagreement, one_taste
from polypref.worlds import simulate

QUICK = Dpl(penalties=(3.0,), resamples=8, most_steps=100)


@cache
def people(opposed: bool, temperature: float = 1.0) -> Comparisons:
    """24 people who judge as noisily: of one taste, or a quarter of the opposite."""
    world = simulate("two-tastes", users=32, judgements=40, judges=4, temperature=temperature)
    minority_U = np.array([group == "minority" for group in world.people.group_U])
    majority = np.flatnonzero(~minority_U)
    kept = np.concatenate([majority[:18], np.flatnonzero(minority_U)[:6]]) if opposed else majority[:24]
    return world.comparisons.take(np.isin(world.comparisons.user_N, kept))


@cache
def verdict(opposed: bool, temperature: float = 1.0) -> HiddenDisagreement:
    return hidden_disagreement(people(opposed, temperature), Words(), how=QUICK)


def test_r2_is_lower_where_people_disagree():
    apart, alike = verdict(True), verdict(False)
    assert apart.high < alike.low
    assert apart.low < apart.r2 < apart.high


def test_disagreement_is_told_from_error():
    """Error lowers r2 too, which alone would look like disagreement; beside its null it does not."""
    noisy = verdict(False, 8.0)
    assert noisy.high < verdict(False).low
    assert not noisy.found
    assert not verdict(False).found
    assert verdict(True).found


def test_the_null_has_one_taste_and_the_same_people():
    c = people(True)
    null = one_taste(c, Words(), 0)
    assert (null.user_N == c.user_N).all()
    assert (null.pair_key_N == c.pair_key_N).all()

    minority_U = (c.users.attributes["group"] == "minority").to_numpy()  # type: ignore[index]

    def like_the_rest(rows: Comparisons) -> float:
        """Share of the minority's judgements that agree with most of the others who judged the pair."""
        first_N = np.where(rows.chosen_N < rows.rejected_N, 1.0, -1.0)
        _, at_N = np.unique(rows.pair_key_N, return_inverse=True)
        minority_N = minority_U[rows.user_N]
        others_N = np.bincount(at_N, np.where(minority_N, 0.0, first_N))[at_N]
        return float(((others_N * first_N)[minority_N & (others_N != 0)] > 0).mean())

    assert like_the_rest(c) < 0.3
    assert like_the_rest(null) > 0.7


def test_one_user_has_no_interval():
    c = people(False)
    scorer = QUICK.fit(c.take(c.user_N == c.user_N[0]), encoder=Words(), seed=0)
    assert "r2" in scorer.selection
    assert "r2_low" not in scorer.selection


# --- the formulas


@pytest.mark.parametrize("form", ["mean-variance", "categorical"])
@pytest.mark.parametrize("link", ["normal", "logistic"])
def test_forms_and_links_tell_the_majority(form, link):
    c = people(False)
    learner = replace(QUICK, form=form, link=link, resamples=0)
    scorer = learner.fit(c, encoder=Words(), seed=0)
    assert (answers(scorer, c) > 0).mean() > 0.8
    other = learner.fit(c.swapped(), encoder=Words(), seed=0)
    np.testing.assert_allclose(answers(other, c), -answers(scorer, c), atol=0.02)


def test_moments_of_a_known_head():
    x_RK = np.random.default_rng(0).normal(size=(5, 3))
    atom_KCV = np.random.default_rng(1).normal(size=(3, ATOMS, 1))
    mean_R1, variance_R1 = moments({"atom_KCV": atom_KCV, "atom_CV": np.zeros((ATOMS, 1))}, x_RK, "categorical")
    for r in range(5):
        share_C = np.exp(x_RK[r] @ atom_KCV[:, :, 0])
        share_C /= share_C.sum()
        drawn = np.random.default_rng(2).choice(np.linspace(0, 1, ATOMS), size=200_000, p=share_C)
        assert abs(drawn.mean() - mean_R1[r, 0]) < 0.005
        assert abs(drawn.var() - variance_R1[r, 0]) < 0.005
    _, even = moments({"mean_KV": np.zeros((3, 1)), "spread_KV": np.zeros((3, 1))}, x_RK, "mean-variance")
    np.testing.assert_allclose(even, 1.0)


def test_r2_of_known_rewards():
    """Means of variance 3 and spreads of variance 1: three quarters."""
    mean_R1 = np.sqrt(3.0) * norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    one, other = np.random.default_rng(0).integers(20_000, size=(2, 100_000))
    found = explained(mean_R1, np.ones((20_000, 1)), one, other, np.ones((100_000, 1)))
    assert abs(found[0] - 0.75) < 0.01


def test_users_are_never_seen():
    c = small()
    shuffled = Comparisons(
        c.responses, c.users, np.random.default_rng(0).permutation(c.user_N), c.chosen_N, c.rejected_N
    )
    one, other = (QUICK.fit(rows, encoder=Words(), seed=0) for rows in (c, shuffled))
    np.testing.assert_allclose(answers(one, c), answers(other, c), atol=1e-3)
