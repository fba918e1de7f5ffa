"""The mixed-effects solver against independent oracles: a dense joint optimum, scikit-learn, numpy, planted truth."""

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from contract_cases import Words
from polypref.comparisons import from_columns
from polypref.errors import NotConverged
from polypref.learners.bradley_terry import newton, ridge
from polypref.learners.bradley_terry.mixed import Agreed, Likeness, Problem, Variances, margins, objective, problem
from polypref.learners.bradley_terry.panel import Panel
from polypref.learners.bradley_terry.variances import Estimate, estimate
from polypref.learners.inputs import Inputs

R, K, U = 12, 3, 4


def rows(seed: int, n: int = 80, users: int = U, responses: int = R, k: int = K):
    rng = np.random.default_rng(seed)
    x_RK = rng.normal(size=(responses, k))
    user_N = rng.integers(users, size=n)
    user_N[:users] = np.arange(users)
    chosen_N = rng.integers(responses, size=n)
    rejected_N = (chosen_N + 1 + rng.integers(responses - 1, size=n)) % responses
    label_N = np.where(rng.random(n) < 0.15, 0.5, 1.0)
    weight_N = rng.uniform(0.5, 2.0, size=n)
    return x_RK, (user_N, chosen_N, rejected_N), label_N, weight_N


def prior(k: int = K, spread: float = 0.7, shared: float = 0.4, personal: float = 0.5) -> Variances:
    mix_KK = np.random.default_rng(9).normal(size=(k, k))
    return Variances(np.full(k, 1.3), spread * (np.eye(k) + 0.2 * mix_KK @ mix_KK.T), shared, personal)


def written_out(x_RK: np.ndarray, users: int):
    """All effects as one vector: how to split it, and the rewards (U, R) that it gives."""
    r, k = x_RK.shape
    parts = np.cumsum([k, r, users * k])

    def split(theta):
        w, a, d, b = np.split(theta, parts)
        return w, a, d.reshape(users, k), b.reshape(users, r)

    def rewards(theta):
        w, a, d, b = split(theta)
        return (x_RK @ w + a)[None] + d @ x_RK.T + b

    return split, rewards


@pytest.mark.parametrize(("seed", "agreed"), [(0, None), (1, None), (2, None), (1, 0.5), (2, 3.0)])
def test_mode_is_the_optimum_of_the_dense_joint_problem(seed, agreed):
    x_RK, judges, label_N, weight_N = rows(seed)
    user_N, chosen_N, rejected_N = judges
    variances = prior()
    told = None if agreed is None else Agreed(np.random.default_rng(seed + 50).normal(size=(5, K)) - 1, agreed)
    split, rewards = written_out(x_RK, U)
    precision_KK = np.linalg.inv(variances.spread_KK)

    def loss(theta):
        w, a, d, b = split(theta)
        reward_UR = rewards(theta)
        margin_N = reward_UR[user_N, chosen_N] - reward_UR[user_N, rejected_N]
        data = (weight_N * (np.logaddexp(0, -margin_N) + (1 - label_N) * margin_N)).sum()
        if told is not None:
            data += told.weight * np.logaddexp(0, -told.x_XK @ w).sum()
        energy = (w**2 / variances.population_K).sum() + (a**2).sum() / variances.shared
        energy += np.einsum("uk,kl,ul->", d, precision_KK, d) + (b**2).sum() / variances.personal
        return data + energy / 2

    size = K + R + U * K + U * R
    found = minimize(loss, np.zeros(size), method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 10**7, "ftol": 1e-14})
    best_UR = rewards(found.x)
    task = replace(problem(x_RK, judges, label_N, weight_N, Likeness(0.0, K)), agreed=told)
    effects = newton.solve(task, variances, tolerance=1e-10)
    ours_N = margins(task, effects, variances)
    np.testing.assert_allclose(ours_N, best_UR[user_N, chosen_N] - best_UR[user_N, rejected_N], atol=2e-3)
    assert objective(task, effects, variances) == pytest.approx(found.fun, abs=1e-4)


def test_views_of_texts_alike_move_together():
    x_RK = np.array([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    both = (np.array([0, 0, 0]), np.array([0, 0, 1]), np.array([2, 3, 2]))
    variances = Variances(np.zeros(3), np.zeros((3, 3)), 0.0, 1.0)
    apart = problem(x_RK, both, np.array([1.0, 1.0, 0.5]), np.ones(3), Likeness(0.0, 3))
    alike = problem(x_RK, both, np.array([1.0, 1.0, 0.5]), np.ones(3), Likeness(0.9, 3))
    apart_N = margins(apart, newton.solve(apart, variances, tolerance=1e-9), variances)
    alike_N = margins(alike, newton.solve(alike, variances, tolerance=1e-9), variances)
    assert alike_N[2] > apart_N[2] + 0.05


def test_without_users_it_is_one_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    x_RK, judges, _, weight_N = rows(3, n=200)
    _, chosen_N, rejected_N = judges
    variances = Variances(np.full(K, 1.3), np.zeros((K, K)), 0.0, 0.0)
    task = problem(x_RK, judges, np.ones(200), weight_N, Likeness(0.0, K))
    effects = newton.solve(task, variances, tolerance=1e-12)
    flip_N = np.where(np.arange(200) % 2, 1.0, -1.0)
    model = LogisticRegression(C=1.3, fit_intercept=False, tol=1e-10, max_iter=1000)
    model.fit((x_RK[chosen_N] - x_RK[rejected_N]) * flip_N[:, None], flip_N, sample_weight=weight_N)
    np.testing.assert_allclose(effects.w_K, model.coef_[0], atol=1e-4)


def test_ridge_is_one_logistic_regression_per_user():
    from sklearn.linear_model import LogisticRegression

    x_RK, (user_N, chosen_N, rejected_N), _, weight_N = rows(4, n=300)
    difference_NK = x_RK[chosen_N] - x_RK[rejected_N]
    found_UK = np.zeros((U, K))
    for batch in ridge.batches(difference_NK, user_N, np.ones(300), weight_N):
        found_UK[batch.user_B] = ridge.solve(batch, 2.0, tolerance=1e-7)
    for user in range(U):
        own = user_N == user
        flip_N = np.where(np.arange(own.sum()) % 2, 1.0, -1.0)
        model = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=1000)
        model.fit(difference_NK[own] * flip_N[:, None], flip_N, sample_weight=weight_N[own])
        np.testing.assert_allclose(found_UK[user], model.coef_[0], atol=1e-4)


def test_conjugate_gradients_solve():
    rng = np.random.default_rng(5)
    root = rng.normal(size=(30, 30))
    matrix, right = root @ root.T + np.eye(30), rng.normal(size=(30, 3))
    found = newton.conjugate_gradients(
        lambda v: matrix @ v, right, np.zeros((30, 3)), lambda v: v / np.diag(matrix)[:, None], 1e-10
    )
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), atol=1e-7)


def solved(task: Problem, variances: Variances) -> np.ndarray:
    return margins(task, newton.solve(task, variances, tolerance=1e-11), variances)


def test_order_of_rows_and_names_of_users_do_not_matter():
    x_RK, judges, label_N, weight_N = rows(6)
    variances = prior()
    straight_N = solved(problem(x_RK, judges, label_N, weight_N, Likeness(0.5, K)), variances)
    shuffle = np.random.default_rng(0).permutation(len(label_N))
    renamed = (U - 1 - judges[0][shuffle], judges[1][shuffle], judges[2][shuffle])
    task = problem(x_RK, renamed, label_N[shuffle], weight_N[shuffle], Likeness(0.5, K))
    np.testing.assert_allclose(solved(task, variances), straight_N[shuffle], atol=1e-4)


def test_swapped_judgements_give_opposite_margins():
    x_RK, (user_N, chosen_N, rejected_N), _, weight_N = rows(7)
    straight = problem(x_RK, (user_N, chosen_N, rejected_N), np.ones(80), weight_N, Likeness(0.5, K))
    swapped = problem(x_RK, (user_N, rejected_N, chosen_N), np.ones(80), weight_N, Likeness(0.5, K))
    np.testing.assert_allclose(solved(swapped, prior()), solved(straight, prior()), atol=1e-4)


def test_without_views_pairs_as_clusters_give_what_connected_texts_give(monkeypatch):
    monkeypatch.setattr("polypref.learners.bradley_terry.mixed.LARGEST", 4)
    x_RK, judges, label_N, weight_N = rows(9)
    variances = prior(personal=0.0)
    joined = problem(x_RK, judges, label_N, weight_N, Likeness(0.0, K))
    pairs = problem(x_RK, judges, label_N, weight_N, None)
    assert max(b.response_BL.shape[1] for b in pairs.buckets) == 2 < max(b.response_BL.shape[1] for b in joined.buckets)
    np.testing.assert_allclose(solved(pairs, variances), solved(joined, variances), atol=1e-5)


def test_variance_of_views_is_that_of_the_dense_posterior():
    x_RK, judges, label_N, weight_N = rows(10, users=1)
    variances = replace(prior(), spread_KK=np.zeros((K, K)))
    task = problem(x_RK, judges, label_N, weight_N, Likeness(0.0, K))
    effects = newton.solve(task, variances, tolerance=1e-9)
    _, found = newton.posterior(task, effects, variances)
    p_N = 1 / (1 + np.exp(-margins(task, effects, variances)))
    pairs_NR = np.eye(R)[judges[1]] - np.eye(R)[judges[2]]
    curve_RR = (pairs_NR * (weight_N * p_N * (1 - p_N))[:, None]).T @ pairs_NR
    wanted_R = np.diag(np.linalg.inv(curve_RR + np.eye(R) / variances.personal))
    seen = 0
    for bucket, variance_BL in zip(task.buckets, found, strict=True):
        used_BL = bucket.response_BL < R
        np.testing.assert_allclose(variance_BL[used_BL], wanted_R[bucket.response_BL[used_BL]], rtol=1e-6)
        seen += int(used_BL.sum())
    assert seen == R


def test_a_new_user_on_a_fixed_population_gets_what_the_joint_fit_gives_its_users():
    x_RK, judges, label_N, weight_N = rows(8)
    variances = prior()
    task = problem(x_RK, judges, label_N, weight_N, Likeness(0.5, K))
    joint = newton.solve(task, variances, tolerance=1e-12)
    alone = newton.solve_users(task, variances, x_RK @ joint.w_K + joint.a_R)
    np.testing.assert_allclose(alone.t_UK, joint.t_UK, atol=1e-3)


def planted(spread: float, seed: int, users: int = 150, each: int = 60):
    rng = np.random.default_rng(seed)
    x_RK = rng.normal(size=(80, 5))
    user_N = np.repeat(np.arange(users), each)
    chosen_N = rng.integers(80, size=len(user_N))
    rejected_N = (chosen_N + 1 + rng.integers(79, size=len(user_N))) % 80
    w_UK = rng.normal(size=5) + rng.normal(size=(users, 5)) * np.sqrt(spread)
    margin_N = np.einsum("nk,nk->n", x_RK[chosen_N] - x_RK[rejected_N], w_UK[user_N])
    wins_N = rng.random(len(user_N)) < 1 / (1 + np.exp(-margin_N))
    judges = (user_N, np.where(wins_N, chosen_N, rejected_N), np.where(wins_N, rejected_N, chosen_N))
    return problem(x_RK, judges, np.ones(len(user_N)), np.ones(len(user_N)), Likeness(0.0, 5))


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_empirical_bayes_finds_the_planted_spread(spread):
    _, variances = estimate(planted(spread, 1), Estimate(shared=False, personal=False, steps=15), seed=0)
    assert spread / 1.6 < np.trace(variances.spread_KK) / 5 < spread * 1.6


def test_empirical_bayes_finds_no_spread_where_all_are_alike():
    _, variances = estimate(planted(0.0, 2), Estimate(shared=False, personal=False, steps=25), seed=0)
    assert np.trace(variances.spread_KK) / 5 < 0.05  # the weak prior of spread asks for some


def test_a_solver_that_stops_early_says_so():
    rng = np.random.default_rng(0)
    scale_T1 = np.logspace(-9, 9, 4000)[:, None]  # far worse than 500 iterations can bear, and nothing to precondition
    with pytest.warns(NotConverged, match="conjugate gradients stopped early: relative residual .* expected 1e-10"):
        newton.conjugate_gradients(
            lambda t: scale_T1 * t, rng.normal(size=(4000, 1)), np.zeros((4000, 1)), lambda t: t, 1e-10
        )
    x_NK = rng.normal(size=(30, K))
    batch = ridge.batches(x_NK, np.zeros(30, np.int32), np.ones(30), np.ones(30))[0]
    with pytest.warns(NotConverged, match="ridge regression stopped early: gradient .* expected 1e-30"):
        ridge.solve(batch, 1.0, tolerance=1e-30)


def test_views_carry_over_in_linear_time_where_prompts_are_many():
    """Chat data: thousands of prompts with three texts; one user judged two of them, another one two others."""
    rng = np.random.default_rng(0)
    prompts = 6000
    ids = [f"u{u}" for u in rng.integers(50, size=2 * prompts)]
    asked = [f"question {p}" for p in range(prompts)]
    texts = [[f"{word} {p} " + "x" * int(rng.integers(40)) for p in range(prompts)] for word in ("a", "b", "c")]
    c = from_columns(ids, asked * 2, texts[0] + texts[1], texts[1] + texts[2])
    panel = Panel.build(c, Inputs.fit(Words(), c), 0.9)
    task, some = panel.task, prior(panel.inputs.size)
    effects = newton.solve(task, some)
    started = time.perf_counter()
    scorer = panel.scorer(effects, some, {})
    assert time.perf_counter() - started < 2  # 0.1 s; quadratic in prompts took more than 10
    r = len(panel.responses_R)
    judged = np.unique(np.concatenate([panel.user_N * r + panel.chosen_N, panel.user_N * r + panel.rejected_N]))
    assert len(scorer.effects.user_E) > len(judged)  # views carried over to texts that were not judged
    ascending = np.argsort(c.responses.identity_R[panel.responses_R], kind="stable")  # effects stand by identity
    response_E = ascending[scorer.effects.response_E]
    entry = np.flatnonzero(~np.isin(scorer.effects.user_E * r + response_E, judged))[0]
    user, text = scorer.effects.user_E[entry], response_E[entry]
    views = {}
    for bucket, alpha_BL in zip(task.buckets, effects.alpha, strict=True):
        for cluster in np.flatnonzero(bucket.user_B == user):
            views |= dict(zip(bucket.response_BL[cluster].tolist(), alpha_BL[cluster].tolist(), strict=True))
    same = [t for t in views if t < r and panel.prompt_R[t] == panel.prompt_R[text]]
    alike = task.likeness(panel.x_RK[[text, *same]][None])[0, 0, 1:]
    by_hand = some.personal * alike @ np.array([views[t] for t in same])
    assert scorer.effects.own_E[entry] == pytest.approx(by_hand)


def test_what_a_well_known_user_leaves_is_not_lost_in_single_precision():
    """With thousands of judgements and a wide spread t is a ten-thousandth of what it is the rest of."""
    x_RK, judges, label_N, weight_N = rows(0, n=4000, responses=400, k=20)
    wide = replace(prior(20, spread=100.0), personal=0.0, shared=0.0)
    found = []
    for precision in (np.float32, np.float64):
        task = problem(x_RK, judges, label_N, weight_N, None, None, precision)
        reduced = newton.reduce(task, newton.curvature(task, np.zeros(len(label_N))), wide)
        _, t_UKC = newton.deviation(reduced, wide.spread_KK, [z[..., None] for z in reduced.z])
        found.append(t_UKC)
    assert np.abs(found[0] - found[1]).max() < 1e-4 * np.abs(found[1]).max()
