"""Solver of ``mixed``: posterior modes by Newton steps whose cost is linear in comparisons and in users.

At each step the likelihood is a quadratic with precision M and linear term z over the responses of a cluster. b is
integrated out of every cluster: P = M (I + personal C M)^-1. Then d is integrated out of every user: Q = P - P x V x' P
with V = spread H and H = (I + x' P x spread)^-1; V = spread - spread J spread with J = H x' P x. (w, a) is solved by
conjugate gradients on the rest, and alpha = z - P (x (w + d) + a) follows. A step costs the sum of L^3 + L^2 K over
clusters plus K^3 over users plus a few passes over the comparisons.

Suffixes here: ``_B`` clusters of a bucket, ``_C`` right-hand sides, ``_L`` the clusters' slots for responses (padded),
``_T`` population effects (w and a).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from polypref.errors import not_converged
from polypref.learners.bradley_terry.mixed import Array, Bucket, Effects, Problem, Variances, margins, objective, start

HALVINGS = 12
EXACT = 200  # up to this many population effects, each gets its own probe


@dataclass(frozen=True, eq=False)
class Sites:
    """The likelihood of every row as a normal in its margin: its precision, and precision times mean, both (N,)."""

    precision_N: Array
    pull_N: Array


def curvature(task: Problem, margin_N: Array) -> Sites:
    """The quadratic that touches the log likelihood at ``margin_N``: Newton's and Laplace's."""
    p_N = expit(margin_N)
    curve_N = task.weight_N * np.maximum(p_N * (1 - p_N), 1e-6)
    return Sites(curve_N, curve_N * margin_N + task.weight_N * (task.label_N - p_N))


@dataclass(frozen=True, eq=False)
class Reduced:
    """The quadratic after b is integrated out, per bucket, and what is needed to integrate d out, per user."""

    users: int
    buckets: list[Bucket]
    p: list[Array]  # P, (B, L, L)
    px: list[Array]  # P x, (B, L, K)
    z: list[Array]  # linear term, (B, L)
    h_UKK: Array | None  # None when users do not differ in d
    j_UKK: Array | None


def _sums(index: NDArray, value: Array, size: int) -> Array:
    return np.bincount(index, value, size).astype(np.float64)


def _quadratic(bucket: Bucket, sites: Sites) -> tuple[Array, Array]:
    """Precision M (B, L, L) and linear term (B, L) of the likelihood given by ``sites``."""
    clusters, slots = bucket.response_BL.shape
    curve_N, force_N = sites.precision_N[bucket.row_N], sites.pull_N[bucket.row_N]
    c_N = bucket.place_N * slots + bucket.chosen_N
    r_N = bucket.place_N * slots + bucket.rejected_N
    size = clusters * slots
    z_BL = (_sums(c_N, force_N, size) - _sums(r_N, force_N, size)).reshape(clusters, slots)
    m_BLL = -_sums(c_N * slots + bucket.rejected_N, curve_N, size * slots).reshape(clusters, slots, slots)
    m_BLL += m_BLL.transpose(0, 2, 1)
    at = np.arange(slots)
    m_BLL[:, at, at] += (_sums(c_N, curve_N, size) + _sums(r_N, curve_N, size)).reshape(clusters, slots)
    precision = bucket.x_BLK.dtype
    return m_BLL.astype(precision), z_BL.astype(precision)


def reduce(task: Problem, sites: Sites, prior: Variances) -> Reduced:
    """Integrate b out of every cluster and d out of every user, with the likelihood given by ``sites``."""
    k = task.x_RK.shape[1]
    differ = bool(prior.spread_KK.any())
    ps, pxs, zs = [], [], []
    precision = task.buckets[0].x_BLK.dtype
    personal = precision.type(prior.personal)
    a_UKK = np.zeros((task.users, k, k), precision) if differ else None
    for bucket in task.buckets:
        p_BLL, z_BL = _quadratic(bucket, sites)
        if personal > 0:
            system_BLL = personal * (p_BLL @ bucket.alike_BLL)
            at = np.arange(p_BLL.shape[1])
            system_BLL[:, at, at] += 1.0
            solved = np.linalg.solve(system_BLL, np.concatenate([p_BLL, z_BL[..., None]], axis=2))
            p_BLL, z_BL = solved[..., :-1], solved[..., -1]
        ps.append(p_BLL)
        zs.append(z_BL)
        if a_UKK is not None:
            pxs.append(p_BLL @ bucket.x_BLK)
            bucket.add_gram(a_UKK, pxs[-1])
    if a_UKK is None:
        return Reduced(task.users, task.buckets, ps, pxs, zs, None, None)
    # in double precision: for users with thousands of judgements, H is a small difference of large numbers
    system_UKK = a_UKK.astype(np.float64) @ prior.spread_KK
    system_UKK[:, np.arange(k), np.arange(k)] += 1.0
    h_UKK = np.linalg.inv(system_UKK)
    return Reduced(task.users, task.buckets, ps, pxs, zs, h_UKK.astype(precision), (h_UKK @ a_UKK).astype(precision))


def deviation(reduced: Reduced, spread_KK: Array, pull: Sequence[Array]) -> tuple[Sequence[Array], Array]:
    """Integrate d out of linear terms ``pull`` (B, L, C): pull - P x d, and t (U, K, C); d = V x' pull = spread t."""
    columns = pull[0].shape[-1]
    if reduced.h_UKK is None:
        return pull, np.zeros((reduced.users, len(spread_KK), columns))
    total_UKC = np.zeros((*reduced.h_UKK.shape[:2], columns), reduced.h_UKK.dtype)
    spread_KK = spread_KK.astype(reduced.h_UKK.dtype)
    for bucket, v_BLC in zip(reduced.buckets, pull, strict=True):
        bucket.add_projected(total_UKC, v_BLC)
    t_UKC = reduced.h_UKK @ total_UKC
    d_UKC = spread_KK @ t_UKC
    left = [v - b.of_users(px, d_UKC) for b, px, v in zip(reduced.buckets, reduced.px, pull, strict=True)]
    return left, t_UKC


class _Population:
    """The remaining quadratic in (w, a), scaled so that its prior is the identity; C right-hand sides at a time."""

    def __init__(self, task: Problem, w_K: Array, reduced: Reduced, prior: Variances) -> None:
        self.x_RK, self.reduced, self.spread_KK = task.x_RK, reduced, prior.spread_KK
        self.agreed_KK, self.agreed_K = task.agreed_quadratic(w_K)
        self.r, self.k = task.x_RK.shape
        self.scale_T1 = np.sqrt(np.concatenate([prior.population_K, np.full(self.r, prior.shared)]))[:, None]

    def scatter(self, slots: Sequence[Array]) -> Array:
        """Sum the buckets' (B, L, C) values by response and then by population effect: (T, C)."""
        onto_RC = np.zeros((self.r, slots[0].shape[-1]))
        for bucket, value_BLC in zip(self.reduced.buckets, slots, strict=True):
            onto_RC += bucket.to_response @ value_BLC.reshape(-1, value_BLC.shape[-1])
        return np.concatenate([self.x_RK.T @ onto_RC, onto_RC])

    def force(self, scaled_TC: Array) -> list[Array]:
        """P times the population rewards of (w, a), per bucket (B, L, C)."""
        f_RC = np.concatenate(
            [self.x_RK @ scaled_TC[: self.k] + scaled_TC[self.k :], np.zeros((1, scaled_TC.shape[1]))]
        )
        f_RC = f_RC.astype(self.reduced.p[0].dtype)
        return [p @ f_RC[b.response_BL] for b, p in zip(self.reduced.buckets, self.reduced.p, strict=True)]

    def linear(self) -> Array:
        """The linear term in scaled units, (T, 1)."""
        left, _ = deviation(self.reduced, self.spread_KK, [z[..., None] for z in self.reduced.z])
        onto_T1 = self.scatter(left)
        onto_T1[: self.k, 0] += self.agreed_K
        return self.scale_T1 * onto_T1

    def precision(self, t_TC: Array) -> Array:
        """Posterior precision times t, both in scaled units."""
        scaled_TC = self.scale_T1 * t_TC
        left, _ = deviation(self.reduced, self.spread_KK, self.force(scaled_TC))
        onto_TC = self.scatter(left)
        onto_TC[: self.k] += self.agreed_KK @ scaled_TC[: self.k]
        return t_TC + self.scale_T1 * onto_TC

    def preconditioner(self) -> Callable[[Array], Array]:
        """Inverse of the precision's block for w (exact where users differ) and of a bound of its diagonal for a."""
        onto_T1 = self.scatter([np.einsum("bss->bs", p)[..., None] for p in self.reduced.p])
        a_R1 = 1.0 + self.scale_T1[self.k :] ** 2 * onto_T1[self.k :]
        if self.reduced.j_UKK is not None:
            w_KK = self.reduced.j_UKK.sum(axis=0)
        else:
            w_KK = self.x_RK.T @ (onto_T1[self.k :] * self.x_RK)
        w_KK = w_KK + self.agreed_KK
        scale_K1 = self.scale_T1[: self.k]
        inverse_KK = np.linalg.inv(np.eye(self.k) + scale_K1 * w_KK * scale_K1.T)
        return lambda t_TC: np.concatenate([inverse_KK @ t_TC[: self.k], t_TC[self.k :] / a_R1])


def conjugate_gradients(
    apply: Callable[[Array], Array],
    right_TC: Array,
    start_TC: Array,
    precondition: Callable[[Array], Array],
    tolerance: float,
) -> Array:
    """Solve a symmetric positive definite system for C right-hand sides at once, to a relative residual.

    Warns with NotConverged after 500 iterations.
    """
    x_TC = start_TC.copy()
    residual = right_TC - apply(x_TC)
    ready = precondition(residual)
    direction = ready.copy()
    size_C = (residual * ready).sum(axis=0)
    goal_C = tolerance**2 * np.maximum((right_TC * precondition(right_TC)).sum(axis=0), 1e-300)
    for _ in range(500):
        if (size_C <= goal_C).all():
            return x_TC
        image = apply(direction)
        step_C = size_C / np.maximum((direction * image).sum(axis=0), 1e-300)
        x_TC += step_C * direction
        residual -= step_C * image
        ready = precondition(residual)
        new_C = (residual * ready).sum(axis=0)
        direction = ready + new_C / np.maximum(size_C, 1e-300) * direction
        size_C = new_C
    if not (size_C <= goal_C).all():
        worst = tolerance * float(np.sqrt((size_C / goal_C).max()))
        reached = f"relative residual {worst:.1e} after 500 iterations, expected {tolerance:.0e}"
        not_converged("conjugate gradients", reached)
    return x_TC


@dataclass(frozen=True, eq=False)
class Probes:
    """Random signs (T, C) and their images under the posterior covariance of (w, a), both in scaled units.

    The mean over C of their products has the covariance's diagonal as its expectation (Hutchinson 1990), and equals it
    if the probes are the unit vectors times sqrt(T), as they are for few effects.
    """

    signs_TC: Array
    images_TC: Array

    @classmethod
    def draw(cls, task: Problem, columns: int, seed: int) -> Probes:
        """At least ``columns`` new probes, more if effects are few; their images are not known yet."""
        effects = sum(task.x_RK.shape)
        if columns and effects <= EXACT:
            signs_TC = np.sqrt(effects) * np.eye(effects)
        else:
            columns = max(columns, 40 * EXACT // effects) if columns else 0
            signs_TC = np.random.default_rng(seed).choice([-1.0, 1.0], size=(effects, columns))
        return cls(signs_TC, np.zeros_like(signs_TC))


def step(
    task: Problem, effects: Effects, prior: Variances, probes: Probes, tolerance: float
) -> tuple[Effects, Reduced, Probes, float]:
    """The longest of the Newton steps 1, 1/2, 1/4, ... that does not ascend, and its length; 0 if there is none."""
    reduced = reduce(task, curvature(task, margins(task, effects, prior)), prior)
    goal, probes = move(task, effects, reduced, prior, probes, tolerance)
    effects, size = _downhill(task, effects, goal, prior)
    return effects, reduced, probes, size


def _downhill(task: Problem, effects: Effects, goal: Effects, prior: Variances) -> tuple[Effects, float]:
    """The first of goal, half-way to it, ... that is no worse than ``effects``, and its share of the way."""
    before = objective(task, effects, prior)
    for halving in range(HALVINGS):
        size = 0.5**halving
        rest = 1 - size
        moved = Effects(
            rest * effects.w_K + size * goal.w_K,
            rest * effects.a_R + size * goal.a_R,
            rest * effects.t_UK + size * goal.t_UK,
            [rest * old + size * new for old, new in zip(effects.alpha, goal.alpha, strict=True)],
        )
        if objective(task, moved, prior) <= before:
            return moved, size
    return effects, 0.0


def move(
    task: Problem, effects: Effects, reduced: Reduced, prior: Variances, probes: Probes, tolerance: float
) -> tuple[Effects, Probes]:
    """The minimum of the quadratic; the probes' images are refined along the way."""
    population = _Population(task, effects.w_K, reduced, prior)
    k, scale_T1 = population.k, population.scale_T1
    theta_T1 = np.concatenate([effects.w_K, effects.a_R])[:, None]
    warm_T1 = np.divide(theta_T1, scale_T1, out=np.zeros_like(theta_T1), where=scale_T1 > 0)
    solved_TC = conjugate_gradients(
        population.precision,
        np.concatenate([population.linear(), probes.signs_TC], axis=1),
        np.concatenate([warm_T1, probes.images_TC], axis=1),
        population.preconditioner(),
        tolerance,
    )
    theta_T1 = scale_T1 * solved_TC[:, :1]
    t_UK, alpha = users(reduced, prior, population.force(theta_T1))
    return Effects(theta_T1[:k, 0], theta_T1[k:, 0], t_UK, alpha), replace(probes, images_TC=solved_TC[:, 1:])


def users(reduced: Reduced, prior: Variances, force: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Everyone's t (U, K) and dual weights (B, L), given P times the population's rewards (B, L, 1)."""
    rest = [z[..., None] - v for z, v in zip(reduced.z, force, strict=True)]
    alpha, t_UK1 = deviation(reduced, prior.spread_KK, rest)
    return t_UK1[..., 0], [v[..., 0] for v in alpha]


def solve(
    task: Problem, prior: Variances, effects: Effects | None = None, steps: int = 40, tolerance: float = 1e-4
) -> Effects:
    """Posterior modes under given variances, until a full step gains less than ``tolerance`` per row.

    Warns with NotConverged after ``steps``.
    """
    effects = effects or start(task)
    probes = Probes.draw(task, 0, 0)
    before = objective(task, effects, prior)
    for _ in range(steps):
        effects, _, _, size = step(task, effects, prior, probes, tolerance)
        now = objective(task, effects, prior)
        if size == 0 or (size == 1 and before - now < tolerance * len(task.label_N)):
            return effects
        before = now
    not_converged("Newton's method", f"it still improved at the last of {steps} steps")
    return effects


def solve_users(task: Problem, prior: Variances, population_R: Array, steps: int = 50) -> Effects:
    """Everyone's deviations from fixed population rewards: the fit of a new user's few answers.

    Warns with NotConverged after ``steps``.
    """
    effects = replace(start(task), a_R=population_R)
    f_R1 = np.append(population_R, 0.0)[:, None]
    before = objective(task, effects, prior)
    for _ in range(steps):
        reduced = reduce(task, curvature(task, margins(task, effects, prior)), prior)
        force = [p @ f_R1[b.response_BL] for b, p in zip(reduced.buckets, reduced.p, strict=True)]
        t_UK, alpha = users(reduced, prior, force)
        effects, size = _downhill(task, effects, replace(effects, t_UK=t_UK, alpha=alpha), prior)
        now = objective(task, effects, prior)
        if size == 0 or before - now < 1e-9:
            return effects
        before = now
    not_converged("Newton's method", f"it still improved at the last of {steps} steps")
    return effects


def posterior(task: Problem, effects: Effects, prior: Variances) -> tuple[Array, list[Array]]:
    """Laplace's posterior: see ``covariances`` (given the population's effects) and ``views``."""
    reduced = reduce(task, curvature(task, margins(task, effects, prior)), prior)
    return covariances(reduced, prior), views(reduced, prior)


def covariances(reduced: Reduced, prior: Variances, population_KK: Array | None = None) -> Array:
    """Posterior covariance (U, K, K) of everyone's weights w + d, given w or with ``population_KK`` as that of w."""
    if reduced.j_UKK is None:
        alike_KK = np.zeros_like(prior.spread_KK) if population_KK is None else population_KK
        return np.broadcast_to(alike_KK, (reduced.users, *alike_KK.shape))
    assert reduced.h_UKK is not None, "users differ"
    own_UKK = (
        prior.spread_KK.astype(reduced.h_UKK.dtype) @ reduced.h_UKK
    )  # as a product: as a difference from the spread it would lose its digits
    own_UKK = (own_UKK + own_UKK.transpose(0, 2, 1)) / 2
    if population_KK is None:
        return own_UKK
    return (
        own_UKK + reduced.h_UKK.transpose(0, 2, 1) @ population_KK.astype(own_UKK.dtype) @ reduced.h_UKK
    )  # w + d moves by H' for w


def views(reduced: Reduced, prior: Variances) -> list[Array]:
    """Posterior variance (B, L) of b given d, per bucket."""
    pairs = zip(reduced.buckets, reduced.p, strict=True)
    known = [((b.alike_BLL @ p_BLL) * b.alike_BLL).sum(axis=2) for b, p_BLL in pairs]
    return [prior.personal * np.maximum(1.0 - prior.personal * v_BL, 0.0) for v_BL in known]
