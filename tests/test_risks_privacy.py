"""Privacy: the noise against the formula, sensitivity by taking users out, attacks that find what was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from polypref.comparisons import from_columns
from polypref.errors import NotEnoughData, SettingsError
from polypref.studies.risks.differential_privacy import clipped_mean, delta_of, dp_mean, noise
from polypref.studies.risks.privacy import (
    as_strangers,
    auc,
    calibrated,
    halves,
    mean_differences,
    membership,
    probe_auc,
    rank_one,
    tpr_at,
    votes,
)
from polypref.studies.risks.privacy_figures import fixture, learnt, shared_mean, vectors
from polypref.studies.risks.settings import SlowRisks

HOW = SlowRisks(seeds=1, private_users=30, each=24, pairs=4)

# --- differential privacy


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-5), (1.0, 1e-5), (1.0, 0.05), (8.0, 1e-6), (50.0, 1e-9)])
def test_noise_is_the_least_that_the_privacy_loss_allows(epsilon, delta):
    """Oracle: delta = E (1 - exp(epsilon - loss))+ with loss ~ N(m, 2 m), m = 1 / (2 sigma^2), on a grid."""
    sigma = noise(epsilon, delta, 3.0) / 3.0
    m = 1 / (2 * sigma**2)
    loss = np.linspace(m - 12 * np.sqrt(2 * m), m + 12 * np.sqrt(2 * m), 400_001)
    density = norm.pdf(loss, m, np.sqrt(2 * m))
    spent = np.trapezoid(np.maximum(-np.expm1(epsilon - loss), 0) * density, loss)
    assert spent == pytest.approx(delta, rel=1e-3)
    assert delta_of(epsilon, 3.0, 3.0 * sigma) <= delta * (1 + 1e-9)
    assert delta_of(epsilon, 1.0, 0.999 * sigma) > delta
    if epsilon < 1:  # the classical formula, valid there, is above it
        assert sigma < np.sqrt(2 * np.log(1.25 / delta)) / epsilon


def test_one_user_moves_the_mean_by_no_more_than_the_sensitivity():
    rng = np.random.default_rng(0)
    value_UK = rng.normal(size=(20, 4)) * rng.exponential(3, (20, 1))
    mean_K, clipped = clipped_mean(value_UK, 1.5)
    assert clipped == np.mean(np.linalg.norm(value_UK, axis=1) > 1.5) > 0
    for u in range(20):
        without_UK, replaced_UK = value_UK.copy(), value_UK.copy()
        without_UK[u], replaced_UK[u] = 0, 1e9 * rng.normal(size=4)
        assert np.linalg.norm(clipped_mean(without_UK, 1.5)[0] - mean_K) <= 1.5 / 20 + 1e-12
        assert np.linalg.norm(clipped_mean(replaced_UK, 1.5)[0] - mean_K) <= 3.0 / 20 + 1e-12
    opposed_UK = np.tile([[9.0, 0]], (20, 1))
    other_UK = opposed_UK * np.r_[-1.0, np.ones(19)][:, None]
    moved_K = clipped_mean(opposed_UK, 1.5)[0] - clipped_mean(other_UK, 1.5)[0]
    assert np.linalg.norm(moved_K) == pytest.approx(3.0 / 20)  # and the sensitivity is reached
    # the planted fault: without clipping one user moves it as far as they like
    assert np.linalg.norm(opposed_UK.mean(axis=0) - other_UK.mean(axis=0)) > 3.0 / 20


def test_the_noise_that_is_added_is_the_noise_that_is_stated():
    value_UK = np.ones((50, 3))
    told = [dp_mean(value_UK, 1.0, 2.0, 1e-5, np.random.default_rng(seed)) for seed in range(800)]
    assert told[0].sigma == noise(2.0, 1e-5, 2 * 1.0 / 50)
    released = np.stack([one.mean_K for one in told])
    assert released.std() == pytest.approx(told[0].sigma, rel=0.05)
    assert released.mean(axis=0) == pytest.approx(np.full(3, 1 / np.sqrt(3)), abs=5 * told[0].sigma / 800**0.5)


def test_what_cannot_be_private_is_refused():
    for epsilon, delta in ((0.0, 1e-5), (1.0, 0.0), (1.0, 1.0), (np.nan, 1e-5), (np.inf, 1e-5)):
        with pytest.raises(SettingsError, match="expected epsilon and sensitivity above 0"):
            noise(epsilon, delta, 1.0)
    with pytest.raises(NotEnoughData, match="no user vectors"):
        clipped_mean(np.zeros((0, 3)), 1.0)
    for clip, value in ((0.0, 1.0), (1.0, np.nan), (1.0, np.inf)):
        with pytest.raises(SettingsError, match="expected a norm above 0"):
            clipped_mean(np.full((3, 2), value), clip)


# --- membership


def test_area_and_rate_by_hand():
    score_X, positive_X = np.array([3.0, 2, 2, 1]), np.array([True, True, False, False])
    assert auc(score_X, positive_X) == (1 + 1 + 0.5 + 1) / 4
    assert np.isnan(auc(score_X, np.ones(4, bool)))
    assert tpr_at(score_X, positive_X, 0.0) == 0.5
    assert tpr_at(score_X, positive_X, 0.5) == 1.0
    many_X = np.r_[np.arange(100.0), 98.5, 97.5]
    assert tpr_at(many_X, np.arange(102) >= 100, 0.01) == 0.5


def test_refits_come_in_pairs_and_are_calibrated_by_those_without_the_user():
    member_VU = halves(7, 3, 0)
    assert (member_VU.sum(axis=0) == 3).all()
    assert (member_VU[0::2] ^ member_VU[1::2]).all()
    fitness_VU = np.random.default_rng(0).normal(size=member_VU.shape)
    told_VU = calibrated(fitness_VU, member_VU)
    for s in range(6):
        for u in range(7):
            others = [fitness_VU[r, u] for r in range(6) if r != s and not member_VU[r, u]]
            assert told_VU[s, u] == pytest.approx(fitness_VU[s, u] - np.mean(others))


def test_who_memorises_is_caught_and_who_knows_nothing_is_not():
    rows = fixture(HOW, 0).known

    def memorises(train, seed):
        seen = set(zip(train.user_N, train.chosen_N, train.rejected_N, strict=True))
        return lambda asked: np.array(
            [3.0 * (key in seen) for key in zip(asked.user_N, asked.chosen_N, asked.rejected_N, strict=True)]
        )

    def knows_nothing(train, seed):
        return lambda asked: np.random.default_rng(seed).normal(size=len(asked))

    caught, free = membership(memorises, rows, 4, 0), membership(knows_nothing, rows, 4, 0)
    assert (caught.auc, caught.tpr, caught.n_users) == (1.0, 1.0, 30)
    assert free.auc_lo < 0.5 < free.auc_hi
    assert 0.35 < free.auc < 0.65
    assert free.tpr < 0.1
    with pytest.raises(NotEnoughData, match="at least 4 users and 2 pairs"):
        membership(memorises, rows, 1, 0)


def test_learners_leak_and_differential_privacy_keeps_its_promise():
    """The promise: true positives <= exp(epsilon) x false alarms + delta, for every attack; here with little budget."""
    here = fixture(HOW, 1)
    rows = here.known
    effects = membership(learnt("pooled-effects", here.encoder), rows, 4, 0)
    plain = membership(shared_mean(HOW, here.x_RF, None), rows, 4, 0)
    private = membership(shared_mean(HOW, here.x_RF, 0.1), rows, 4, 0)
    assert effects.auc_lo > 0.6
    assert plain.auc_lo > 0.5
    assert private.auc_lo < 0.55  # chance or nearly: exp(.1) allows .525
    assert private.auc < plain.auc


def test_a_users_vector_depends_on_that_user_alone():
    here = fixture(HOW, 0)
    rows = here.known
    alone = rows.take(rows.user_N == 3)
    np.testing.assert_allclose(vectors(alone, here.x_RF)[3], vectors(rows, here.x_RF)[3], atol=2e-3)
    assert (vectors(alone, here.x_RF)[4] == 0).all()


def test_strangers_are_nobody_that_is_known():
    here = fixture(HOW, 0)

    class Echo:
        def score(self, responses, user_ids, response_Q):
            from types import SimpleNamespace

            known = user_ids.is_in(here.known.users.ids.to_list()).fill_null(False).to_numpy()
            return SimpleNamespace(value_Q=known * 1.0, source_Q=known * 1, unanswered_Q=None)

    assert not as_strangers(Echo())(here.known).any()  # type: ignore[arg-type]


# --- attributes and re-identification


def test_raw_judgements_by_hand():
    c = from_columns(["a", "a", "b"], ["p", "q", "p"], ["x", "u", "y"], ["y", "v", "x"])
    vote_UM = votes(c)
    assert vote_UM.shape == (2, 2)
    assert (np.abs(vote_UM) == [[1, 1], [1, 0]]).all() or (np.abs(vote_UM) == [[1, 1], [0, 1]]).all()
    both = np.flatnonzero(vote_UM[1])
    assert vote_UM[0, both] == -vote_UM[1, both]
    x_RF = np.arange(4.0)[:, None] ** 2
    want = [x_RF[c.chosen_N[n], 0] - x_RF[c.rejected_N[n], 0] for n in range(3)]
    assert mean_differences(c, x_RF)[:, 0] == pytest.approx([(want[0] + want[1]) / 2, want[2]])
    tied = mean_differences(replace(c, tie_N=np.array([True, False, False])), x_RF)
    assert tied[0, 0] == pytest.approx(want[1] / 2)


def test_a_probe_finds_a_planted_attribute_and_none_in_noise():
    rng = np.random.default_rng(0)
    x_UK, has_U = rng.normal(size=(120, 8)), np.arange(120) % 4 == 0
    assert 0.3 < np.mean([probe_auc(rng.normal(size=(120, 8)), has_U, seed) for seed in range(10)]) < 0.6
    assert probe_auc(np.column_stack([x_UK, 6.0 * has_U]), has_U, 0) > 0.95
    assert probe_auc(rng.normal(size=(120, 2000)) + 0.4 * has_U[:, None], has_U, 0) > 0.9  # more columns than users
    with pytest.raises(NotEnoughData, match="expected at least 5 with and 5 without"):
        probe_auc(x_UK, np.arange(120) < 3, 0)


def test_re_identification_of_copies_of_strangers_and_of_equals():
    rng = np.random.default_rng(0)
    one_UK = rng.normal(size=(40, 6))
    assert rank_one(one_UK, 3.0 * one_UK + 1.0) == 1.0
    assert rank_one(one_UK, rng.normal(size=(40, 6))) < 0.15
    assert rank_one(np.ones((8, 3)), np.ones((8, 3))) == 1 / 8
