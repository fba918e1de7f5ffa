"""The vote of similar judgements, against the same vote written as a loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contract_cases import Words, answers, small
from polypref.learners.nearest_neighbours import NearestNeighbours
from polypref.learners.protocol import PERSONAL


def unit(x: np.ndarray) -> np.ndarray:
    return x / max(np.linalg.norm(x), 1e-9)


@pytest.mark.parametrize("k", [1, 4, 1000])
def test_the_vote_is_that_of_a_loop(k):
    c = small()
    scorer = NearestNeighbours(neighbours=(k,)).fit(c, encoder=Words(), seed=0)
    x_RK, z_RF = scorer.space(c.responses)
    user = int(c.user_N[0])
    judged = {}
    for n in np.flatnonzero(c.user_N == user):
        low, high = sorted((c.chosen_N[n], c.rejected_N[n]))
        vote, weight = judged.get((low, high), (0.0, 0.0))
        judged[low, high] = (vote + (1.0 if c.chosen_N[n] == low else -1.0), weight + 1.0)
    asked = np.array([3, 11, 40], np.int32)
    for r, found in zip(asked, scorer.score(c.responses, [c.users.ids[user]] * 3, asked).value_Q, strict=True):
        votes = []
        for (a, b), (vote, weight) in judged.items():
            texts = (unit(x_RK[r]) @ unit(x_RK[a]) + unit(x_RK[r]) @ unit(x_RK[b])) / 2
            similar = 0.5 + (texts + z_RF[r] @ z_RF[a]) / 4
            votes.append((similar, vote * (x_RK[r] @ unit(x_RK[a] - x_RK[b])), weight))
        votes.sort(key=lambda one: -one[0])
        nearest = [one for one in votes if one[0] >= votes[min(k, len(votes)) - 1][0] - 1e-5]
        expected = sum(s * v for s, v, _ in nearest) / sum(s * w for s, _, w in nearest)
        assert found == pytest.approx(scorer.scale * expected, rel=1e-3, abs=1e-4)


def test_test_labels_are_never_asked_for():
    """Rewards are of responses: who won among the pairs asked about cannot matter."""
    c = small()
    scorer = NearestNeighbours().fit(c, encoder=Words(), seed=0)
    np.testing.assert_allclose(answers(scorer, c), -answers(scorer, c.swapped()), atol=1e-4)


def test_what_is_remembered_is_bounded():
    c = small()
    scorer = NearestNeighbours(remembered=5).fit(c, encoder=Words(), seed=0)
    assert (np.diff(scorer.own.start_U) == 5).all()
    assert len(scorer.everyone.vote_M) == 5


def test_an_opposite_newcomer_gets_opposite_answers():
    c = small()
    scorer = NearestNeighbours().fit(c, encoder=Words(), seed=0)
    own = c.take(c.user_N == 0)
    one, other = scorer.adapt("new", own), scorer.adapt("new", own.swapped())
    ids = ["new"] * len(c.responses)
    scores = one.score(c.responses, ids)
    assert (scores.source_Q == PERSONAL).all()
    np.testing.assert_allclose(scores.value_Q, -other.score(c.responses, ids).value_Q, atol=1e-4)
    again = one.score(c.responses, [c.users.ids[0]] * len(c.responses)).value_Q
    np.testing.assert_allclose(scores.value_Q, again, atol=1e-4)  # the same memory, the same answers


def test_opposed_people_are_told_apart():
    c = small()
    rng = np.random.default_rng(0)
    test_N = rng.random(len(c)) < 0.3
    scorer = NearestNeighbours().fit(c.take(~test_N), encoder=Words(), seed=0)
    assert (answers(scorer, c.take(test_N)) > 0).mean() > 0.65
    blind = replace(c, user_N=rng.permutation(c.user_N))
    scorer = NearestNeighbours().fit(blind.take(~test_N), encoder=Words(), seed=0)
    assert (answers(scorer, blind.take(test_N)) > 0).mean() < 0.65
