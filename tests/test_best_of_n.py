"""best_of_n: the truth gains all, a coin nothing, opposition harms; a person's own reward beats everyone's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from contract_cases import Words
from polypref.errors import SettingsError
from polypref.learners import LEARNERS
from polypref.studies.best_of_n import best_of_n
from polypref.worlds import candidates, simulate

WORLD = simulate("two-tastes", users=8, judgements=60, seed=1)
FRESH = candidates(WORLD, 60, 8)


def scorer(reward_UR: np.ndarray) -> Any:
    """Answers for user number u and response r with ``reward_UR[u, r]``."""

    def score(responses, user_ids, response_Q):
        return SimpleNamespace(value_Q=reward_UR[WORLD.comparisons.users.index(user_ids), response_Q])

    return cast(Any, SimpleNamespace(score=score))


def test_candidates_are_fresh_and_as_many_as_asked():
    assert len(FRESH.responses) == 480
    assert FRESH.reward_UR.shape == (8, 480)
    assert (FRESH.responses.prompt_R == np.repeat(np.arange(60), 8)).all()
    assert not set(FRESH.responses.texts_R) & set(WORLD.comparisons.responses.texts_R)
    again, other = candidates(WORLD, 60, 8), candidates(WORLD, 60, 8, seed=1)
    assert again.responses.texts_R.to_list() == FRESH.responses.texts_R.to_list()
    assert other.responses.texts_R.to_list() != FRESH.responses.texts_R.to_list()
    assert np.corrcoef(FRESH.reward_UR)[0, 3] == pytest.approx(-1.0)  # majority and minority
    with pytest.raises(SettingsError, match="expected at least 2 of each"):
        candidates(WORLD, 60, 1)


def test_truth_a_coin_and_the_opposite():
    assert best_of_n(scorer(FRESH.reward_UR), WORLD, FRESH).share_U == pytest.approx(1.0)
    worst = best_of_n(scorer(-FRESH.reward_UR), WORLD, FRESH)
    assert (worst.share_U < -0.7).all()
    coin = best_of_n(scorer(np.random.default_rng(0).random(FRESH.reward_UR.shape)), WORLD, FRESH)
    assert abs(coin.mean) < 4 * coin.se
    assert 0.01 < coin.se < 0.05


def test_the_standard_error_is_the_spread_over_prompts():
    shares = [
        best_of_n(scorer(np.random.default_rng(n).random(FRESH.reward_UR.shape)), WORLD, FRESH).share_U[0]
        for n in range(200)
    ]
    stated = best_of_n(scorer(np.random.default_rng(0).random(FRESH.reward_UR.shape)), WORLD, FRESH).se_U[0]
    assert stated == pytest.approx(np.std(shares), rel=0.3)


def test_the_minority_is_served_by_its_own_reward_alone():
    found = {
        name: best_of_n(LEARNERS[name].fit(WORLD.comparisons, encoder=Words(), seed=0), WORLD, FRESH)
        for name in ("pooled", "hierarchical")
    }
    minority = np.array([group == "minority" for group in WORLD.people.group_U])
    assert found["pooled"].share_U[minority].mean() < 0
    assert found["hierarchical"].share_U[minority].mean() > 0.15
    assert found["hierarchical"].mean > found["pooled"].mean
