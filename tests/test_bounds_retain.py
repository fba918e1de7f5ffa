"""Anchors in the reward model's loss: a mitigation that is measured, beside its control."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from polypref.bounds.retain import Retain, with_anchors
from polypref.comparisons import Comparisons, from_columns
from polypref.errors import NotEnoughData, SettingsError
from polypref.learners.individual import Individual
from polypref.learners.likelihood import surprise
from polypref.learners.pooled import Pooled
from polypref.learners.protocol import margins
from recovery_worlds import DIMENSIONS, Normal, judged

SAFETY, OTHER = np.eye(DIMENSIONS)[0], np.eye(DIMENSIONS)[1]


def pairs(axis: np.ndarray, many: int, seed: int) -> Comparisons:
    """Pairs of texts, the better of each along ``axis`` chosen by somebody."""
    rng = np.random.default_rng(seed)
    names = [[f"{side}{seed}-{i}-{rng.integers(1 << 30)}" for i in range(many)] for side in "ab"]
    told = from_columns(["somebody"] * many, [f"q{i % 7}" for i in range(many)], *names)
    value_R = Normal().encode(told.responses).astype(float) @ axis
    flip_N = value_R[told.chosen_N] < value_R[told.rejected_N]
    chosen_N, rejected_N = told.chosen_N.copy(), told.rejected_N.copy()
    chosen_N[flip_N], rejected_N[flip_N] = told.rejected_N[flip_N], told.chosen_N[flip_N]
    return Comparisons(told.responses, told.users, told.user_N, chosen_N, rejected_N)


def users(opposed: float) -> Comparisons:
    """Eight users; the first likes what is unsafe, ``opposed`` strong, and all like the third feature."""

    def reward(user_N, x_ND):
        return 2 * x_ND[:, 2] + np.where(user_N == 0, -opposed, 1.0) * (x_ND @ SAFETY)

    return judged(8, 150, reward)


def accuracy(scorer, test: Comparisons, user: str) -> float:
    asked = from_columns(
        [user] * len(test),
        test.responses.prompts.gather(test.responses.prompt_R[test.chosen_N]),
        test.responses.texts_R.gather(test.chosen_N),
        test.responses.texts_R.gather(test.rejected_N),
    )
    value_N = margins(scorer, asked).value_Q
    return float(np.mean((value_N > 0) + 0.5 * (value_N == 0)))


def none(train: Comparisons) -> Comparisons:
    return train.take(np.arange(0))


def anchored(train: Comparisons, anchors: Comparisons, how: Retain, base=None) -> Comparisons:
    return with_anchors(train, none(train), anchors, how, base).train


def fitted(train: Comparisons):
    return Individual().fit(train, encoder=Normal(), seed=0, valid=none(train))


def test_anchors_keep_a_user_safer_than_the_same_weight_of_other_anchors() -> None:
    """The control: mu alone, with pairs that say nothing of safety, does not do it."""
    train, test = users(opposed=2.0), pairs(SAFETY, 400, seed=9)
    anchors, control = pairs(SAFETY, 60, seed=1), pairs(OTHER, 60, seed=2)
    found = {
        name: accuracy(fitted(told), test, "u000")
        for name, told in {
            "none": train,
            "anchors": anchored(train, anchors, Retain(mu=1.0)),
            "control": anchored(train, control, Retain(mu=1.0)),
        }.items()
    }
    assert found["none"] < 0.3, "the user has to be unsafe without them"
    assert found["anchors"] > found["none"] + 0.2
    assert found["anchors"] > found["control"] + 0.2


def test_it_is_no_bound_a_user_who_is_strong_enough_stays_unsafe() -> None:
    train, test = users(opposed=8.0), pairs(SAFETY, 400, seed=9)
    assert accuracy(fitted(anchored(train, pairs(SAFETY, 60, seed=1), Retain(mu=0.1))), test, "u000") < 0.3


def test_a_users_anchors_weigh_mu_times_the_users_own_judgements() -> None:
    train, anchors = users(2.0).take(np.r_[0:150, 150:170]), pairs(SAFETY, 10, seed=1)
    found = anchored(train, anchors, Retain(mu=0.5))
    assert len(found) == 170 + 2 * 10, "six users have judged nothing"
    np.testing.assert_array_equal(found.weights_N[:170], 1.0)
    for user, many in ((0, 150), (1, 20)):
        assert found.weights_N[170:][found.user_N[170:] == user].sum() == pytest.approx(0.5 * many)
    np.testing.assert_array_equal(found.users.ids, train.users.ids)
    for side in ("chosen_N", "rejected_N"):
        texts = found.responses.texts_R.gather(getattr(found, side)).to_list()
        assert texts[:170] == train.responses.texts_R.gather(getattr(train, side)).to_list()
        assert texts[170:180] == anchors.responses.texts_R.gather(getattr(anchors, side)).to_list()


def test_the_loss_is_the_one_that_is_meant() -> None:
    """By hand, for any margins: own mean plus mu times the anchors' plus nu times the cross entropy to the base."""
    train, anchors = users(2.0).take(np.arange(150)), pairs(SAFETY, 10, seed=1)
    base = Pooled().fit(users(-1.0), encoder=Normal(), seed=0)
    found = anchored(train, anchors, Retain(mu=0.7, nu=0.4), base)
    w = np.random.default_rng(4).standard_normal(DIMENSIONS)

    def margin(rows: Comparisons) -> np.ndarray:
        value_R = Normal().encode(rows.responses).astype(float) @ w
        return value_R[rows.chosen_N] - value_R[rows.rejected_N]

    total = np.sum(found.weights_N * surprise(margin(found), found.label_N)) / len(train)
    p_A = 1 / (1 + np.exp(-margins(base, anchors).value_Q))
    both = p_A * surprise(margin(anchors), np.ones(10)) + (1 - p_A) * surprise(-margin(anchors), np.ones(10))
    parts = (surprise(margin(train), np.ones(150)), surprise(margin(anchors), np.ones(10)), both)
    assert total == pytest.approx(parts[0].mean() + 0.7 * parts[1].mean() + 0.4 * parts[2].mean())


def test_the_bases_opinion_is_kept_where_its_square_would_keep_it() -> None:
    """Cross entropy to the base's probabilities is least at the base's margins."""
    base = Pooled().fit(users(-1.0), encoder=Normal(), seed=0)
    train, anchors = users(2.0), pairs(SAFETY + OTHER, 5, seed=1)
    other = anchored(train, anchors, Retain(mu=0.0, nu=1.0), base)
    mine = other.take(np.flatnonzero((other.user_N == 0) & (np.arange(len(other)) >= len(train))))
    at_A = np.concatenate([np.arange(5), np.arange(5)])
    sign_A = np.repeat([1.0, -1.0], 5)
    found = minimize(lambda m: np.sum(mine.weights_N * surprise(sign_A * m[at_A], np.ones(10))), np.zeros(5))
    expected = base.score(anchors.responses, None).value_Q
    np.testing.assert_allclose(found.x, expected[anchors.chosen_N] - expected[anchors.rejected_N], atol=1e-3)


def test_inputs_are_unchanged_and_zero_weights_add_nothing() -> None:
    train, anchors = users(2.0), pairs(SAFETY, 10, seed=1)
    before = train.content_hash, anchors.content_hash
    assert len(anchored(train, anchors, Retain(mu=0.0))) == len(train)
    anchored(train, anchors, Retain())
    assert (train.content_hash, anchors.content_hash) == before


def test_validation_rows_are_as_they_were_over_the_new_pool() -> None:
    """So that a learner takes both."""
    whole, anchors = users(2.0), pairs(SAFETY, 10, seed=1)
    train, valid = whole.take(np.arange(0, 1200, 2)), whole.take(np.arange(1, 1200, 2))
    found = with_anchors(train, valid, anchors, Retain())
    assert len(found.valid) == len(valid) and found.valid.content_hash == valid.content_hash
    assert Individual().fit(found.train, encoder=Normal(), seed=0, valid=found.valid).selection["valid_accuracy"] > 0.6


def test_what_cannot_be() -> None:
    train, anchors = users(2.0), pairs(SAFETY, 10, seed=1)
    with pytest.raises(NotEnoughData, match="no anchor weighs anything"):
        anchored(train, anchors.take(np.arange(0)), Retain())
    with pytest.raises(SettingsError, match="nu is 1 and there is no base"):
        anchored(train, anchors, Retain(nu=1.0))
    with pytest.raises(SettingsError, match="mu is -1; expected a weight"):
        Retain(mu=-1)
