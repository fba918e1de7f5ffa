"""Mixed-effects Bradley-Terry: the solver of ``pooled``, ``individual`` and ``hierarchical`` (arrays in, arrays out).

Reward of response r for user u is  x_r . (w + d_u) + a_r + b_ur,  and  P(c beats r | u) = sigmoid(difference), with

    w ~ N(0, population)   d_u ~ N(0, spread)   a_r ~ N(0, shared)   b_ur ~ N(0, personal)

``a`` and ``b`` are response effects: what features do not explain, for everyone and per user. The posterior mode is
found by Newton steps. At each, the likelihood is a quadratic with precision M over the responses of a *cluster* (those
that one user's comparisons connect). b is integrated out of every cluster: P = M (I + personal M)^-1. Then d is
integrated out of every user: Q = P - P x V x' P with V = spread - spread J spread, J = (I + x' P x spread)^-1 x' P x.
(w, a) is solved by conjugate gradients on the rest. With the dual weights alpha = z - P (x (w + d) + a), where z is the
linear term, d_u = spread x' alpha and b_u = personal alpha. A step costs the sum of S^3 + S^2 K over
clusters plus K^3 over users plus a few passes over the comparisons.

Shapes: ``_B`` clusters of a bucket, ``_S`` their response slots (padded), ``_K`` inputs, ``_R`` responses, ``_U``
users, ``_N`` comparisons, ``_T`` the K + R population effects (w, a), ``_C`` right-hand sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

Array = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Variances:
    """Prior variances of the four effects (see the module's head); 0 switches an effect off."""

    population_K: Array
    spread_KK: Array
    shared: float
    personal: float

    def scaled(self, spread: float = 1.0, shared: float = 1.0, personal: float = 1.0) -> Variances:
        """These variances times factors."""
        return replace(
            self, spread_KK=self.spread_KK * spread, shared=self.shared * shared, personal=self.personal * personal
        )


@dataclass(frozen=True, eq=False)
class Bucket:
    """Clusters of like size: slot s of cluster b is response ``response_BS``; padding has number R."""

    user_B: NDArray[np.int32]
    response_BS: NDArray[np.int32]
    row_N: NDArray[np.int64]  # the bucket's comparisons, as rows of the whole
    place_N: NDArray[np.int64]  # their cluster's place in the bucket
    chosen_N: NDArray[np.int32]  # slot
    rejected_N: NDArray[np.int32]  # slot
    to_user: csr_array  # (U, B), sums clusters by user
    to_response: csr_array  # (R, B * S), sums slots by response
    x_BSK: Array  # inputs of the slots, zero where unused


@dataclass(frozen=True, eq=False)
class Problem:
    """Comparisons as the solver sees them: inputs, clusters, labels in [0, 1], weights, number of users."""

    x_RK: Array
    buckets: list[Bucket]
    label_N: Array
    weight_N: Array
    users: int


@dataclass(frozen=True, eq=False)
class Effects:
    """Posterior modes. ``alpha`` are the dual weights per bucket (B, S): b = personal * alpha."""

    w_K: Array
    a_R: Array
    d_UK: Array
    alpha: list[Array]


@dataclass(frozen=True, eq=False)
class Reduced:
    """The quadratic after b is integrated out, per bucket, and what integrating d out needs, per user."""

    users: int
    buckets: list[Bucket]
    p: list[Array]  # P, (B, S, S)
    px: list[Array]  # P x, (B, S, K)
    z: list[Array]  # linear term, (B, S)
    a_UKK: Array | None  # x' P x; None when users do not differ in d
    j_UKK: Array | None


def problem(
    x_RK: Array, user_N: NDArray, chosen_N: NDArray, rejected_N: NDArray, label_N: NDArray, weight_N: NDArray
) -> Problem:
    """Sort comparisons into clusters, and clusters into buckets (padding wastes at most a quarter of the slots)."""
    n, r, users = len(user_N), len(x_RK), int(user_N.max()) + 1
    key_2N = np.concatenate([user_N, user_N]).astype(np.int64) * r + np.concatenate([chosen_N, rejected_N])
    key_E, entry_2N = np.unique(key_2N, return_inverse=True)
    links = coo_array((np.ones(n, bool), (entry_2N[:n], entry_2N[n:])), shape=(len(key_E), len(key_E)))
    _, cluster_E = connected_components(links, directed=False)
    order_E = np.argsort(cluster_E, kind="stable")
    size = np.bincount(cluster_E)
    slot_E = np.empty(len(key_E), np.int32)
    slot_E[order_E] = np.arange(len(key_E)) - np.repeat(np.cumsum(size) - size, size)
    grade = np.ceil(np.log(size / 2) / np.log(1.25)).astype(int)
    padded_RK = np.concatenate([x_RK, np.zeros((1, x_RK.shape[1]))])
    found = []
    for g in np.unique(grade):
        place = np.cumsum(grade == g) - 1
        entry = np.flatnonzero(grade[cluster_E] == g)
        at_E = place[cluster_E[entry]]
        response_BS = np.full((int((grade == g).sum()), int(size[grade == g].max())), r, np.int32)
        response_BS[at_E, slot_E[entry]] = key_E[entry] % r
        user_B = np.empty(len(response_BS), np.int32)
        user_B[at_E] = key_E[entry] // r
        row_N = np.flatnonzero(grade[cluster_E[entry_2N[:n]]] == g)
        chosen_E, rejected_E = entry_2N[row_N], entry_2N[n + row_N]
        to_user = csr_array((np.ones(len(user_B)), (user_B, np.arange(len(user_B)))), shape=(users, len(user_B)))
        used = np.flatnonzero(response_BS.ravel() < r)
        to_response = csr_array((np.ones(len(used)), (response_BS.ravel()[used], used)), shape=(r, response_BS.size))
        slots = (slot_E[chosen_E], slot_E[rejected_E])
        x_BSK = padded_RK[response_BS]
        found.append(
            Bucket(user_B, response_BS, row_N, place[cluster_E[chosen_E]], *slots, to_user, to_response, x_BSK)
        )
    return Problem(x_RK, found, np.asarray(label_N, float), np.asarray(weight_N, float), users)


def start(task: Problem) -> Effects:
    """All effects zero."""
    r, k = task.x_RK.shape
    return Effects(
        np.zeros(k), np.zeros(r), np.zeros((task.users, k)), [np.zeros(b.response_BS.shape) for b in task.buckets]
    )


def margins(task: Problem, effects: Effects, personal: float) -> Array:
    """Reward difference of every comparison."""
    f_R = np.append(task.x_RK @ effects.w_K + effects.a_R, 0.0)
    margin_N = np.empty(len(task.label_N))
    for bucket, alpha_BS in zip(task.buckets, effects.alpha, strict=True):
        own_BS = (bucket.x_BSK @ effects.d_UK[bucket.user_B][:, :, None])[..., 0]
        reward_BS = f_R[bucket.response_BS] + own_BS + personal * alpha_BS
        at_N = bucket.place_N
        margin_N[bucket.row_N] = reward_BS[at_N, bucket.chosen_N] - reward_BS[at_N, bucket.rejected_N]
    return margin_N


def _sums(index: NDArray, value: Array, size: int) -> Array:
    return np.bincount(index, value, size).astype(np.float64)


def _quadratic(task: Problem, bucket: Bucket, margin_N: Array) -> tuple[Array, Array]:
    """Precision M (B, S, S) and linear term (B, S) of the likelihood's quadratic at ``margin_N``."""
    clusters, slots = bucket.response_BS.shape
    margin, label, weight = (v[bucket.row_N] for v in (margin_N, task.label_N, task.weight_N))
    p_N = expit(margin)
    curve_N = weight * np.maximum(p_N * (1 - p_N), 1e-6)
    force_N = curve_N * margin + weight * (label - p_N)
    c_N = bucket.place_N * slots + bucket.chosen_N
    r_N = bucket.place_N * slots + bucket.rejected_N
    size = clusters * slots
    z_BS = (_sums(c_N, force_N, size) - _sums(r_N, force_N, size)).reshape(clusters, slots)
    m_BSS = -_sums(c_N * slots + bucket.rejected_N, curve_N, size * slots).reshape(clusters, slots, slots)
    m_BSS += m_BSS.transpose(0, 2, 1)
    at = np.arange(slots)
    m_BSS[:, at, at] += (_sums(c_N, curve_N, size) + _sums(r_N, curve_N, size)).reshape(clusters, slots)
    return m_BSS, z_BS


def _reduce(task: Problem, margin_N: Array, prior: Variances) -> Reduced:
    """Linearise the likelihood at ``margin_N``; integrate b out of every cluster and d out of every user."""
    k = task.x_RK.shape[1]
    differ = bool(prior.spread_KK.any())
    ps, pxs, zs = [], [], []
    a_UKK = np.zeros((task.users, k, k)) if differ else None
    for bucket in task.buckets:
        p_BSS, z_BS = _quadratic(task, bucket, margin_N)
        if prior.personal > 0:
            system_BSS = prior.personal * p_BSS
            at = np.arange(p_BSS.shape[1])
            system_BSS[:, at, at] += 1.0
            solved = np.linalg.solve(system_BSS, np.concatenate([p_BSS, z_BS[..., None]], axis=2))
            p_BSS, z_BS = solved[..., :-1], solved[..., -1]
        ps.append(p_BSS)
        zs.append(z_BS)
        if a_UKK is not None:
            pxs.append(p_BSS @ bucket.x_BSK)
            a_BKK = bucket.x_BSK.transpose(0, 2, 1) @ pxs[-1]
            a_UKK += (bucket.to_user @ a_BKK.reshape(len(a_BKK), -1)).reshape(a_UKK.shape)
    if a_UKK is None:
        return Reduced(task.users, task.buckets, ps, pxs, zs, None, None)
    system_UKK = a_UKK @ prior.spread_KK
    system_UKK[:, np.arange(k), np.arange(k)] += 1.0
    return Reduced(task.users, task.buckets, ps, pxs, zs, a_UKK, np.linalg.solve(system_UKK, a_UKK))


def deviation(reduced: Reduced, spread_KK: Array, pull: Sequence[Array]) -> tuple[Sequence[Array], Array]:
    """Integrate d out of linear terms ``pull`` (B, S, C): returns pull - P x d and d = V x' pull, (U, K, C)."""
    columns = pull[0].shape[-1]
    if reduced.j_UKK is None:
        return pull, np.zeros((reduced.users, len(spread_KK), columns))
    total_UKC = np.zeros((*reduced.j_UKK.shape[:2], columns))
    for bucket, v_BSC in zip(reduced.buckets, pull, strict=True):
        xt_BKC = bucket.x_BSK.transpose(0, 2, 1) @ v_BSC
        total_UKC += (bucket.to_user @ xt_BKC.reshape(len(xt_BKC), -1)).reshape(total_UKC.shape)
    d_UKC = spread_KK @ (total_UKC - reduced.j_UKK @ (spread_KK @ total_UKC))
    left = [v - px @ d_UKC[b.user_B] for b, px, v in zip(reduced.buckets, reduced.px, pull, strict=True)]
    return left, d_UKC


class _Population:
    """The quadratic in (w, a) that is left, scaled so that its prior is the identity; C right-hand sides at a time."""

    def __init__(self, x_RK: Array, reduced: Reduced, prior: Variances) -> None:
        self.x_RK, self.reduced, self.spread_KK = x_RK, reduced, prior.spread_KK
        self.r, self.k = x_RK.shape
        self.scale_T1 = np.sqrt(np.concatenate([prior.population_K, np.full(self.r, prior.shared)]))[:, None]

    def scatter(self, slots: Sequence[Array]) -> Array:
        """Sum the buckets' (B, S, C) values by response and then by population effect: (T, C)."""
        onto_RC = np.zeros((self.r, slots[0].shape[-1]))
        for bucket, value_BSC in zip(self.reduced.buckets, slots, strict=True):
            onto_RC += bucket.to_response @ value_BSC.reshape(-1, value_BSC.shape[-1])
        return np.concatenate([self.x_RK.T @ onto_RC, onto_RC])

    def force(self, scaled_TC: Array) -> list[Array]:
        """P times the population rewards of (w, a), per bucket (B, S, C)."""
        f_RC = np.concatenate(
            [self.x_RK @ scaled_TC[: self.k] + scaled_TC[self.k :], np.zeros((1, scaled_TC.shape[1]))]
        )
        return [p @ f_RC[b.response_BS] for b, p in zip(self.reduced.buckets, self.reduced.p, strict=True)]

    def linear(self) -> Array:
        """The linear term in scaled units, (T, 1)."""
        left, _ = deviation(self.reduced, self.spread_KK, [z[..., None] for z in self.reduced.z])
        return self.scale_T1 * self.scatter(left)

    def precision(self, t_TC: Array) -> Array:
        """Posterior precision times t, both in scaled units."""
        left, _ = deviation(self.reduced, self.spread_KK, self.force(self.scale_T1 * t_TC))
        return t_TC + self.scale_T1 * self.scatter(left)

    def preconditioner(self) -> Callable[[Array], Array]:
        """Inverse of the precision's exact block for w and of an upper bound of its diagonal for a."""
        onto_T1 = self.scatter([np.einsum("bss->bs", p)[..., None] for p in self.reduced.p])
        a_R1 = 1.0 + self.scale_T1[self.k :] ** 2 * onto_T1[self.k :]
        if self.reduced.j_UKK is not None:
            w_KK = self.reduced.j_UKK.sum(axis=0)
        else:
            w_KK = self.x_RK.T @ (onto_T1[self.k :] * self.x_RK)
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
    """Solve a symmetric positive definite system for C right-hand sides at once, to a relative residual."""
    x_TC = start_TC.copy()
    residual = right_TC - apply(x_TC)
    ready = precondition(residual)
    direction = ready.copy()
    size_C = (residual * ready).sum(axis=0)
    goal_C = tolerance**2 * np.maximum((right_TC * precondition(right_TC)).sum(axis=0), 1e-300)
    for _ in range(500):
        if (size_C <= goal_C).all():
            break
        image = apply(direction)
        step_C = size_C / np.maximum((direction * image).sum(axis=0), 1e-300)
        x_TC += step_C * direction
        residual -= step_C * image
        ready = precondition(residual)
        new_C = (residual * ready).sum(axis=0)
        direction = ready + new_C / np.maximum(size_C, 1e-300) * direction
        size_C = new_C
    return x_TC


def step(
    task: Problem, effects: Effects, prior: Variances, probes_TC: Array, images_TC: Array, tolerance: float = 1e-3
) -> tuple[Effects, Reduced, Array]:
    """One Newton step; ``images_TC``, the probes under (w, a)'s posterior covariance, are refined along the way."""
    reduced = _reduce(task, margins(task, effects, prior.personal), prior)
    population = _Population(task.x_RK, reduced, prior)
    k, scale_T1 = population.k, population.scale_T1
    theta_T1 = np.concatenate([effects.w_K, effects.a_R])[:, None]
    warm_T1 = np.divide(theta_T1, scale_T1, out=np.zeros_like(theta_T1), where=scale_T1 > 0)
    solved_TC = conjugate_gradients(
        population.precision,
        np.concatenate([population.linear(), probes_TC], axis=1),
        np.concatenate([warm_T1, images_TC], axis=1),
        population.preconditioner(),
        tolerance,
    )
    theta_T1 = scale_T1 * solved_TC[:, :1]
    d_UK, alpha = _users(reduced, prior, population.force(theta_T1))
    return Effects(theta_T1[:k, 0], theta_T1[k:, 0], d_UK, alpha), reduced, solved_TC[:, 1:]


def _users(reduced: Reduced, prior: Variances, force: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Everyone's d (U, K) and dual weights (B, S), given P times the population's rewards (B, S, 1)."""
    rest = [z[..., None] - v for z, v in zip(reduced.z, force, strict=True)]
    alpha, d_UK1 = deviation(reduced, prior.spread_KK, rest)
    return d_UK1[..., 0], [v[..., 0] for v in alpha]


def solve_users(task: Problem, prior: Variances, population_R: Array, steps: int = 20) -> Effects:
    """Everyone's deviations from population rewards that stay as they are: what a new user's few answers say."""
    effects = replace(start(task), a_R=population_R)
    before_N = margins(task, effects, prior.personal)
    f_R1 = np.append(population_R, 0.0)[:, None]
    for _ in range(steps):
        reduced = _reduce(task, before_N, prior)
        force = [p @ f_R1[b.response_BS] for b, p in zip(reduced.buckets, reduced.p, strict=True)]
        d_UK, alpha = _users(reduced, prior, force)
        effects = replace(effects, d_UK=d_UK, alpha=alpha)
        now_N = margins(task, effects, prior.personal)
        if np.abs(now_N - before_N).max() < 1e-6:
            break
        before_N = now_N
    return effects


def posterior(task: Problem, effects: Effects, prior: Variances) -> Array:
    """Covariance of every user's d, (U, K, K), given the population's effects."""
    if not prior.spread_KK.any():
        return np.zeros((task.users, *prior.spread_KK.shape))
    reduced = _reduce(task, margins(task, effects, prior.personal), prior)
    assert reduced.j_UKK is not None
    return prior.spread_KK - prior.spread_KK @ reduced.j_UKK @ prior.spread_KK


def solve(
    task: Problem, prior: Variances, effects: Effects | None = None, steps: int = 8, tolerance: float = 1e-4
) -> Effects:
    """Posterior modes under given variances; stops early when the margins have settled."""
    effects = effects or start(task)
    none = np.zeros((sum(task.x_RK.shape), 0))
    before_N = margins(task, effects, prior.personal)
    for _ in range(steps):
        effects, _, _ = step(task, effects, prior, none, none, tolerance)
        now_N = margins(task, effects, prior.personal)
        if np.abs(now_N - before_N).max() < 10 * tolerance:
            break
        before_N = now_N
    return effects
