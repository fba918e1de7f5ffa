"""Which question to ask next: information is as simulated, an answer counts as Bayes says, and asking beats chance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.special import expit

from contract_cases import Normal, fitted, small
from polypref.comparisons import from_columns
from polypref.errors import NotEnoughData, SettingsError
from polypref.learners import Learner
from polypref.learners.hierarchical import Hierarchical, HierarchicalScorer
from polypref.learners.pooled import Pooled
from polypref.newcomers.active import Outlook, _heard, information, next_question, order, questions
from polypref.newcomers.new_users import new_users


def entropy(p):
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def test_information_is_what_simulation_says():
    rng = np.random.default_rng(0)
    for mean, variance in ((0.0, 1.0), (1.5, 4.0), (-2.0, 0.3)):
        p = expit(mean + np.sqrt(variance) * rng.normal(size=400_000))
        by_chance = entropy(p.mean()) - entropy(p).mean()
        found = information(np.array([mean]), np.array([variance]))[0]
        assert found == pytest.approx(by_chance, abs=2e-3)
    assert information(np.zeros(1), np.zeros(1))[0] == pytest.approx(0.0, abs=1e-12)


def test_an_answer_moves_the_margin_as_bayes_says():
    """Against a fine grid of the margin."""
    f = np.linspace(-20, 20, 40_001)
    prior = np.exp(-((f - 0.7) ** 2) / (2 * 2.0))
    posterior = prior * expit(0.8 * f)
    posterior /= posterior.sum()
    mean = posterior @ f
    shift, left = _heard(0.7, 2.0, 0.8, 1.0)
    assert 0.7 + shift == pytest.approx(mean, abs=1e-4)
    assert left == pytest.approx(posterior @ (f - mean) ** 2, abs=1e-4)
    assert _heard(0.7, 2.0, 0.8, None)[1] < 2.0


def test_what_has_been_asked_is_not_asked_again_in_other_words():
    """Two candidates with the same inputs: after one of them, another direction tells more."""
    x_CK = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.97]])
    outlook = Outlook(x_CK, np.zeros(3), np.eye(2), np.zeros(3))
    assert order(outlook, 3).tolist() == [0, 2, 1]
    assert order(outlook, 2, np.array([1.0, 1.0, 0.0])).tolist() == [0, 2]


def test_noise_of_single_texts_is_no_information():
    x_CK = np.array([[1.0], [1.0]])
    outlook = Outlook(x_CK, np.zeros(2), np.eye(1), np.array([8.0, 0.0]))
    assert order(outlook, 1).tolist() == [1]


def test_the_next_question_of_a_scorer():
    scorer = fitted("hierarchical")
    assert isinstance(scorer, HierarchicalScorer)
    candidates = small().take(np.arange(40))
    first = questions(scorer, "new", candidates, 5)
    assert len(set(first.tolist())) == 5
    assert next_question(scorer, "new", candidates) == first[0]
    assert (questions(scorer, "new", candidates.swapped(), 5) == first).all()  # labels do not matter
    after = scorer.adapt("new", candidates.take(first))
    x_CK, _, before_KK, _ = scorer.outlook("new", candidates)
    after_KK = after.outlook("new", candidates)[2]
    known = x_CK[first]
    assert ((known @ after_KK) * known).sum() < ((known @ before_KK) * known).sum()
    assert np.array_equal(scorer.outlook("u1", candidates)[2], after.outlook("u1", candidates)[2])


def test_what_cannot_be_asked():
    candidates = small().take(np.arange(4))
    with pytest.raises(SettingsError, match="kind 'low-rank' has no posterior"):
        questions(fitted("low-rank"), "new", candidates, 1)
    with pytest.raises(SettingsError, match="0 questions"):
        questions(fitted("hierarchical"), "new", candidates, 0)
    with pytest.raises(NotEnoughData, match="5 questions cannot be chosen from 4 candidates"):
        questions(fitted("hierarchical"), "new", candidates, 5)


@dataclass(frozen=True)
class Uneven:
    """Four numbers of a text; texts seldom differ in the last two, so most questions tell little of tastes."""

    name: str = "uneven"
    identity: str = "uneven v1"

    def encode(self, responses):
        x_RD = Normal().encode(responses).copy()
        x_RD[:, 2:] *= np.where(np.abs(x_RD[:, :1]) > 1.3, 1.5, 0.1)
        return x_RD


def tasteful(users: int = 40, judgements: int = 80, seed: int = 0):
    """People who agree on two features and differ on two others."""
    rng = np.random.default_rng(seed)
    n = users * judgements
    user = np.repeat(np.arange(users), judgements)
    taste_UD = rng.normal(size=(users, 4)) * np.array([0.1, 0.1, 2.5, 2.5]) + np.array([0.7, -0.5, 0.0, 0.0])
    texts = [[f"{side}{i:06d}" for i in range(n)] for side in "ab"]
    c = from_columns([f"u{u}" for u in user], [f"p{i:06d}" for i in range(n)], *texts)
    x_RD = Uneven().encode(c.responses)
    margin_N = ((x_RD[c.chosen_N] - x_RD[c.rejected_N]) * taste_UD[user]).sum(axis=1)
    wins_N = rng.random(n) < expit(2 * margin_N)
    sides = (c.chosen_N, c.rejected_N)
    return replace(c, chosen_N=np.where(wins_N, *sides), rejected_N=np.where(wins_N, *sides[::-1]))


def test_ten_questions_that_were_chosen_beat_ten_that_were_not():
    learners: dict[str, Learner] = {
        "pooled": Pooled(),
        "hierarchical": Hierarchical(personal_effects=False, shared_effects=False),
    }
    found = new_users(tasteful(), learners, Uneven(), sizes=(5, 10), seeds=2, workers=1, quiet=True)
    by_chance, asked = (found.contents.rows.at(name, size=10).value for name in ("hierarchical", "hierarchical, asked"))
    assert asked > by_chance + 0.01
    assert found.contents.rows.at("hierarchical, asked", "log_loss", size=10).value < (
        found.contents.rows.at("hierarchical", "log_loss", size=10).value
    )
