"""Expectation propagation against exact integrals, and posteriors of hierarchical against the truth."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from polypref.learners.bradley_terry import expectation_propagation as propagation
from polypref.learners.bradley_terry import newton, single
from polypref.learners.bradley_terry.mixed import Likeness, Variances, margins, problem
from polypref.learners.bradley_terry.variances import Estimate, estimate
from truth_scripts import script


@pytest.mark.parametrize("seed", range(6))
def test_a_margin_after_its_judgement_has_the_moments_of_the_exact_integral(seed):
    rng = np.random.default_rng(seed)
    m, v = rng.normal(0, 4), 10 ** rng.uniform(-1, 2)
    label, weight = rng.choice([0.0, 0.5, 1.0]), rng.choice([0.3, 1.0, 2.5])
    found, left = (x[0] for x in propagation.tilted(*(np.array([x]) for x in (m, v, label, weight))))

    def moment(power: int) -> float:
        def density(f: float) -> float:
            choice = expit(f) ** (weight * label) * expit(-f) ** (weight * (1 - label))
            return f**power * np.exp(-((f - m) ** 2) / (2 * v)) * choice

        edges = m + np.sqrt(v) * np.linspace(-9, 9, 40)
        return sum(quad(density, low, high)[0] for low, high in pairwise(edges))

    total, first, second = (moment(power) for power in range(3))
    assert found == pytest.approx(first / total, abs=2e-4 * np.sqrt(v))
    assert left == pytest.approx(second / total - (first / total) ** 2, rel=2e-3)


def one_user(seed: int, n: int = 12, strength: float = 4.0):
    """A person with two strong weights who judged n pairs: inputs of 2n texts, judges, prior."""
    rng = np.random.default_rng(seed)
    x_RK = rng.normal(size=(2 * n, 2))
    w_K = rng.normal(0, strength, 2)
    one_N, other_N = np.arange(n), np.arange(n, 2 * n)
    wins_N = rng.random(n) < expit((x_RK[one_N] - x_RK[other_N]) @ w_K)
    judges = (np.zeros(n, int), np.where(wins_N, one_N, other_N), np.where(wins_N, other_N, one_N))
    label_N, weight_N = np.where(rng.random(n) < 0.2, 0.5, 1.0), rng.choice([0.5, 1.0, 2.0], n)
    return x_RK, judges, label_N, weight_N, Variances(np.ones(2), strength**2 * np.eye(2), 0.0, 0.0)


def on_a_grid(x_RK, judges, label_N, weight_N, prior, population_R):
    """Mean (2,) and covariance (2, 2) of a person's deviation, by adding up over a fine grid."""
    axis = np.linspace(-1, 1, 401) * 7 * np.sqrt(prior.spread_KK[0, 0])
    d_GK = np.stack([a.ravel() for a in np.meshgrid(axis, axis)], axis=1)
    apart_NK = x_RK[judges[1]] - x_RK[judges[2]]
    margin_GN = d_GK @ apart_NK.T + population_R[judges[1]] - population_R[judges[2]]
    log_GN = label_N * np.log(expit(margin_GN)) + (1 - label_N) * np.log(expit(-margin_GN))
    log_G = log_GN @ weight_N - (d_GK**2).sum(axis=1) / (2 * prior.spread_KK[0, 0])
    share_G = np.exp(log_G - log_G.max())
    share_G /= share_G.sum()
    mean_K = share_G @ d_GK
    return mean_K, (d_GK - mean_K).T @ ((d_GK - mean_K) * share_G[:, None])


@pytest.mark.parametrize("seed", range(4))
def test_a_persons_posterior_is_the_exact_one_where_the_modes_is_far_off(seed):
    case = one_user(seed)
    x_RK, judges, label_N, weight_N, prior = case
    population_R = np.random.default_rng(9).normal(size=len(x_RK))
    mean_K, covariance_KK = on_a_grid(*case, population_R)
    task = problem(x_RK, judges, label_N, weight_N, Likeness(0.0, 2))
    found = propagation.solve(task, prior, population_R=population_R, tolerance=1e-7)
    d_K = (found.effects.t_UK @ prior.spread_KK)[0]
    scale = np.sqrt(np.diag(covariance_KK))
    assert np.abs(d_K - mean_K).max() < 0.06 * scale.max()
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance_UKK[0])), scale, rtol=0.1)
    alone = single.solve(
        single.Judged(x_RK, np.zeros(len(x_RK), int), *judges[1:], label_N, weight_N),
        population_R,
        prior,
        Likeness(0.0, 2),
    )
    np.testing.assert_allclose(alone.deviation_K, d_K, atol=1e-3)
    np.testing.assert_allclose(alone.covariance_KK, found.covariance_UKK[0], atol=1e-3 * scale.max() ** 2)
    mode_K = (newton.solve_users(task, prior, population_R).t_UK @ prior.spread_KK)[0]
    assert np.abs(d_K - mean_K).max() < 0.5 * np.abs(mode_K - mean_K).max()


@pytest.mark.parametrize("personal", [0.0, 0.8])
def test_a_margins_variance_is_that_of_the_dense_posterior(personal):
    """All of w, d and b written out as one vector, under the sites that were found."""
    rng = np.random.default_rng(3)
    users, n, r, k = 3, 40, 15, 2
    x_RK, user_N = rng.normal(size=(r, k)), np.arange(n) % users
    one_N = rng.integers(r, size=n)
    other_N = (one_N + 1 + rng.integers(r - 1, size=n)) % r
    prior = Variances(np.full(k, 1.5), np.array([[1.0, 0.4], [0.4, 2.0]]), 0.0, personal)
    task = problem(x_RK, (user_N, one_N, other_N), np.ones(n), np.ones(n), Likeness(0.5, k))
    found = propagation.solve(task, prior, tolerance=1e-9)
    apart_NR = np.eye(r)[one_N] - np.eye(r)[other_N]
    of_user_NU = np.eye(users)[user_N]
    apart_NK = apart_NR @ x_RK
    rows_NT = np.concatenate(
        [
            apart_NK,
            (of_user_NU[:, :, None] * apart_NK[:, None]).reshape(n, -1),
            (of_user_NU[:, :, None] * apart_NR[:, None]).reshape(n, -1),
        ],
        axis=1,
    )
    alike_RR = Likeness(0.5, k)(x_RK[None])[0]
    blocks = [np.diag(prior.population_K), *[prior.spread_KK] * users, *[personal * alike_RR] * users]
    size = rows_NT.shape[1]
    prior_TT, at = np.zeros((size, size)), 0
    for block in blocks:
        prior_TT[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    joint_NN = rows_NT @ prior_TT @ rows_NT.T
    left_NN = joint_NN - joint_NN @ np.linalg.solve(joint_NN + np.diag(1 / found.sites.precision_N), joint_NN)
    variance_N = propagation.margin_variances(task, found.reduced, prior, found.population_KK)
    np.testing.assert_allclose(variance_N, np.diag(left_NN), rtol=2e-3)
    mean_N = left_NN @ found.sites.pull_N
    np.testing.assert_allclose(margins(task, found.effects, prior), mean_N, atol=5e-3)


def strong(users: int, each: int, spread: float):
    rng = np.random.default_rng(0)
    n = users * each
    x_RK, user_N = rng.normal(size=(2 * n, 5)), np.repeat(np.arange(users), each)
    w_UK = rng.normal(size=(users, 5)) * np.sqrt(spread)
    one_N, other_N = np.arange(n), np.arange(n, 2 * n)
    wins_N = rng.random(n) < expit(((x_RK[one_N] - x_RK[other_N]) * w_UK[user_N]).sum(axis=1))
    judges = (user_N, np.where(wins_N, one_N, other_N), np.where(wins_N, other_N, one_N))
    return problem(x_RK, judges, np.ones(n), np.ones(n), Likeness(0.0, 5))


def test_strong_tastes_known_from_few_answers_are_not_understated():
    task, how = strong(100, 15, 4.0), Estimate(shared=False, personal=False, steps=40)
    found = np.trace(propagation.estimate(task, how, seed=0).prior.spread_KK) / 5
    assert 4.0 / 2 < found < 4.0 * 2
    _, at_the_mode = estimate(task, how, seed=0)
    assert np.trace(at_the_mode.spread_KK) / 5 < 4.0 / 6  # what this test is for


def test_a_user_with_thousands_of_judgements_on_a_given_population_is_found_too():
    x_RK, judges, label_N, weight_N, prior = one_user(5, n=1200, strength=1.0)
    task = problem(x_RK, judges, label_N, weight_N, Likeness(0.0, 2))
    found = propagation.solve(task, prior, population_R=np.zeros(len(x_RK)))
    mode = newton.solve_users(task, prior, np.zeros(len(x_RK)))
    np.testing.assert_allclose(found.effects.t_UK @ prior.spread_KK, mode.t_UK @ prior.spread_KK, atol=0.05)


@pytest.mark.parametrize("name", ["60 x 15 strong", "30 x 20 strong"])
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    """A short form of ``benchmarks/truth/posteriors.py``; 40 runs of the whole are in docs/hierarchical.md."""
    truth = script("posteriors")
    world = next(w for w in truth.WORLDS if w.name == name)
    runs = [truth.run(world, seed) for seed in range(3)]
    for who in ("known", "new, 5", "new, 30", "strangers"):
        z_N = np.concatenate([run[who] for run in runs])
        assert 0.88 < (np.abs(z_N) < 1.96).mean() <= 1.0, who
        assert 0.45 < z_N.std() < 1.3, who


def test_the_population_is_not_more_certain_than_its_data():
    """What is left open of the population's weights is part of what is left open of everyone's."""
    task, how = strong(8, 10, 1.0), Estimate(shared=False, personal=False, steps=10)
    found = propagation.solve(task, propagation.estimate(task, how, seed=0).prior)
    alone = replace(found, population_KK=np.zeros_like(found.population_KK))
    assert np.linalg.eigvalsh(found.population_KK).min() > 0
    wider_UK = np.diagonal(found.covariance_UKK - alone.covariance_UKK, axis1=1, axis2=2)
    assert (wider_UK > 0).all()
