"""A mixture of Bradley-Terry rewards: G groups, each with its own reward around a shared one.

Group p's reward of text r is

    f_rp = x_r . w + a_r + (x_r . d_p + b_rp)      with  sum_p d_p = sum_p b_rp = 0,

x are the inputs of ``learners.inputs``, a and b qualities of a text that its features do not explain (for texts that
several users judged); all effects are normal around 0. A user belongs to one group, to p with probability pi_p, and
prefers text c to s with probability sigmoid(f_cp - f_sp). EM (Dempster, Laird and Rubin 1977) maximises the likelihood
of everybody's answers:

    E   share_up = pi_p L_up / sum_k pi_k L_uk,      L_up = product of the probabilities of u's answers
    M   pi_p = mean_u share_up;  effects: penalised Bradley-Terry, where an answer has weight share_up in group p

Mixtures of preference models go back to Croon (1989) and Murphy and Martin (2003). Ours: the shared part, so that
groups only describe differences; the effects b, without which groups that differ in ways the features do not show would
be missed; likelihoods to a power e < 1 in the first steps (Ueda and Nakano 1998), before groups are clear; an M step
that stops early (generalised EM). Answers are first counted by pair. So one part of a step costs users times their
pairs, and everything else the number of pairs.

Judgements made from votes, ratings or rankings imply each other: n pairs over m texts are worth m - 1 answers. ``thin``
scales a user's answers to that.

Covered: any order of rows, swapped judgements, ties (half an answer each way), weights. Not covered: users between
groups, who are only divided among them; how noisy each user's answers are.

Suffixes here: ``_M`` texts that a user judged, ``_T`` texts that several users judged, ``_V`` directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array, hstack, vstack
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, logsumexp

from polypref.comparisons import Comparisons

Floats = NDArray[np.float64]
Ints = NDArray[np.integer]
Sparse = Any  # scipy's own types do not describe what its operators return

STEPS, INNER = 40, 8  # maximum EM steps, and steps of the solver within each
TOLERANCE, LEAST = 3e-5, 0.05  # EM stops below this gain per answer, or in total
ALONE = 100  # steps of the solver for one group, which needs no EM
COLD = (0.2, 0.4, 0.7)  # powers of the likelihood in the first steps
PSEUDO = 1.0  # pseudo-users of every group, so that none vanishes
VIEWS = 8  # directions of users' scores used for the start


@dataclass(frozen=True, eq=False)
class Votes:
    """The answers of U users about Y pairs of R texts.

    ``x_RK``      inputs of the texts.
    ``gap_YR``    +1 at a pair's first text, -1 at its second.
    ``says_U2Y``  how often a user preferred the first text (first Y columns) or the second (last Y).
    """

    x_RK: Floats
    gap_YR: Sparse
    says_U2Y: Sparse

    @classmethod
    def of(cls, rows: Comparisons, user_N: Ints, users: int, texts: tuple[Ints, Floats], thin: bool) -> Self:
        """Judgements of users numbered ``user_N``; ``texts`` are their numbers in the pool and their inputs."""
        response_R, x_RK = texts
        r = len(response_R)
        place = np.full(len(rows.responses), -1, np.int64)
        place[response_R] = np.arange(r)
        chosen_N, rejected_N = place[rows.chosen_N], place[rows.rejected_N]
        one_N = np.minimum(chosen_N, rejected_N)
        code_Y, pair_N = np.unique(one_N * r + np.maximum(chosen_N, rejected_N), return_inverse=True)
        q = len(code_Y)
        ends_2Y = np.concatenate([code_Y // max(r, 1), code_Y % max(r, 1)])
        gap: Sparse = coo_array((np.repeat([1.0, -1.0], q), (np.tile(np.arange(q), 2), ends_2Y)), shape=(q, r)).tocsr()
        weight_N = rows.weights_N.copy()
        if thin:
            weight_N *= worth(user_N, chosen_N, rejected_N, (users, r))[user_N]
        one_wins_N = np.where(chosen_N == one_N, rows.label_N, 1 - rows.label_N) * weight_N
        value_2N = np.concatenate([one_wins_N, weight_N - one_wins_N])
        says: Sparse = coo_array(
            (value_2N, (np.tile(user_N, 2), np.concatenate([pair_N, pair_N + q]))), shape=(users, 2 * q)
        )
        says = says.tocsr()
        says.eliminate_zeros()
        return cls(x_RK, gap, says)

    @cached_property
    def heard_2YU(self) -> Sparse:
        """``says_U2Y`` by pair."""
        return self.says_U2Y.T.tocsr()

    @cached_property
    def onto_RY(self) -> Sparse:
        """``gap_YR`` by text."""
        return self.gap_YR.T.tocsr()

    @cached_property
    def shared_T(self) -> NDArray[np.int64]:
        """Texts that several users judged; for others, quality and a single user's answers cannot be separated."""
        says = self.says_U2Y
        judged_UY = (says[:, : says.shape[1] // 2] + says[:, says.shape[1] // 2 :]).astype(bool).astype(np.float32)
        return np.flatnonzero(((judged_UY @ abs(self.gap_YR)) > 0).sum(axis=0) > 1)

    @cached_property
    def count_U(self) -> Floats:
        """Number of answers of each user."""
        return np.asarray(self.says_U2Y.sum(axis=1)).ravel()

    def log_likelihood(self, reward_RG: Floats) -> Floats:
        """log L_up of each user's answers in each group, (U, G)."""
        margin_YG = self.gap_YR @ reward_RG
        return self.says_U2Y @ -np.logaddexp(0.0, np.concatenate([-margin_YG, margin_YG]))


def worth(user_N: Ints, chosen_N: Ints, rejected_N: Ints, size: tuple[int, int]) -> Floats:
    """The weight of a judgement of each user (U,), at most 1: texts minus connected parts, divided by judgements.

    ``size`` is the number of users and of texts.
    """
    users, texts = size
    ends_2N = np.concatenate([user_N * np.int64(texts) + chosen_N, user_N * np.int64(texts) + rejected_N])
    node_M, at_2N = np.unique(ends_2N, return_inverse=True)
    n = len(user_N)
    graph: Sparse = coo_array((np.ones(n, np.int8), (at_2N[:n], at_2N[n:])), shape=(len(node_M), len(node_M)))
    pieces, piece_M = connected_components(graph, directed=False)
    user_M = node_M // max(texts, 1)
    owner = np.zeros(pieces, np.int64)
    owner[piece_M] = user_M
    free_U = np.bincount(user_M, minlength=users) - np.bincount(owner, minlength=users)
    return np.minimum(1.0, free_U / np.maximum(np.bincount(user_N, minlength=users), 1))


@dataclass(frozen=True)
class Scales:
    """Prior variances of w, a (shared) and d, b (differences between groups); 0 switches an effect off."""

    weights: float = 3.0
    texts: float = 0.3
    group_weights: float = 3.0
    group_texts: float = 0.3


@dataclass(frozen=True, eq=False)
class Fitted:
    """Fitted effects: ``theta`` in units of their prior, G groups' sizes, rewards, and the minimised value."""

    theta: Floats
    size_G: Floats
    reward_RG: Floats
    share_UG: Floats
    value: float


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects in their own units, as needed to reward judged and new texts."""

    weights_KG: Floats
    text_TG: Floats


class Problem:
    """The penalised likelihood of G groups; ``theta`` holds w, a, d and b in units of their prior."""

    def __init__(self, votes: Votes, scales: Scales, groups: int) -> None:
        self.votes, self.scales, self.groups = votes, scales, groups
        k = votes.x_RK.shape[1]
        t = len(votes.shared_T)
        self.shapes = [(k, 1), (t, 1)] + ([(k, groups), (t, groups)] if groups > 1 else [])
        self.ends = np.cumsum([a * b for a, b in self.shapes])

    def effects(self, theta: Floats) -> Effects:
        """``theta`` in the effects' own units, deviations centred."""
        parts = [v.reshape(shape) for v, shape in zip(np.split(theta, self.ends[:-1]), self.shapes, strict=True)]
        sd = np.sqrt([self.scales.weights, self.scales.texts, self.scales.group_weights, self.scales.group_texts])
        weights_KG, text_TG = sd[0] * parts[0], sd[1] * parts[1]
        if self.groups > 1:
            weights_KG = weights_KG + sd[2] * _centred(parts[2])
            text_TG = text_TG + sd[3] * _centred(parts[3])
        return Effects(weights_KG, text_TG)

    def reward(self, theta: Floats) -> Floats:
        """f (R, G)."""
        found = self.effects(theta)
        reward_RG = self.votes.x_RK @ found.weights_KG
        reward_RG[self.votes.shared_T] += found.text_TG
        return reward_RG

    def loss(self, theta: Floats, heard_2YG: Floats) -> tuple[float, Floats]:
        """The objective of the M step and its gradient, for answers counted by pair and group."""
        one_YG, other_YG = np.split(heard_2YG, 2)
        margin_YG = self.votes.gap_YR @ self.reward(theta)
        total_YG = one_YG + other_YG
        value = (total_YG * np.logaddexp(0.0, -margin_YG) + other_YG * margin_YG).sum() + theta @ theta / 2
        onto_RG = self.votes.onto_RY @ (total_YG * expit(margin_YG) - one_YG)
        onto_KG, onto_TG = self.votes.x_RK.T @ onto_RG, onto_RG[self.votes.shared_T]
        s = self.scales
        parts = [np.sqrt(s.weights) * onto_KG.sum(axis=1), np.sqrt(s.texts) * onto_TG.sum(axis=1)]
        if self.groups > 1:
            parts += [np.sqrt(s.group_weights) * _centred(onto_KG), np.sqrt(s.group_texts) * _centred(onto_TG)]
        return float(value), np.concatenate([part.ravel() for part in parts]) + theta

    def fit(self, share_UG: Floats, warm: Floats | None = None) -> Fitted:
        """EM from the given shares; ``warm``: initial effects, of at most as many groups."""
        from scipy.optimize import minimize

        votes = self.votes
        theta = np.zeros(self.ends[-1])
        if warm is not None:
            theta[: len(warm)] = warm
        enough = max(TOLERANCE * float(votes.count_U.sum()), LEAST)
        cold = COLD if self.groups > 1 else ()
        steps = STEPS if self.groups > 1 else 1
        before, value, size_G = np.inf, np.inf, np.ones(self.groups)
        options = {"maxiter": INNER if self.groups > 1 else ALONE, "maxcor": 10}
        for at in range(steps):
            heard_2YG = votes.heard_2YU @ share_UG
            theta = minimize(self.loss, theta, (heard_2YG,), jac=True, method="L-BFGS-B", options=options).x
            size_G = (share_UG.sum(axis=0) + PSEUDO) / (len(share_UG) + PSEUDO * self.groups)
            log_UG = votes.log_likelihood(self.reward(theta))
            share_UG = shares(np.log(size_G) + (cold[at] if at < len(cold) else 1.0) * log_UG)
            value = float(theta @ theta / 2 - np.asarray(logsumexp(np.log(size_G) + log_UG, axis=1)).sum())
            value -= PSEUDO * float(np.log(size_G).sum())
            if at > len(cold) and before - value < enough:
                break
            before = value
        return Fitted(theta, size_G, self.reward(theta), share_UG, value)


def _centred(values: Floats) -> Floats:
    return values - values.mean(axis=1, keepdims=True)


def shares(log_UG: Floats) -> Floats:
    """Rows of probabilities from log weights."""
    share_UG = np.exp(log_UG - log_UG.max(axis=1, keepdims=True))
    return share_UG / share_UG.sum(axis=1, keepdims=True)


def alone(votes: Votes, scales: Scales) -> Fitted:
    """All users in one group."""
    return Problem(votes, scales, 1).fit(np.ones((votes.says_U2Y.shape[0], 1)))


def best_of(votes: Votes, scales: Scales, everyone: Fitted, groups: int, restarts: int, seed: int) -> Fitted:
    """The best of several EM runs, each started by k-means on users' scores; ``everyone`` for one group."""
    if groups == 1:
        return everyone
    view_UV = views(votes, scales, everyone.reward_RG[:, 0])
    problem = Problem(votes, scales, groups)
    rng = np.random.default_rng(seed)
    found = [problem.fit(_start(view_UV, groups, rng), everyone.theta) for _ in range(restarts)]
    return min(found, key=lambda one: one.value)


def _start(view_UV: Floats, groups: int, rng: np.random.Generator) -> Floats:
    """Initial shares: clusters of k-means++ (Arthur and Vassilvitskii 2007) mixed with noise."""
    users = len(view_UV)
    share_UG = rng.dirichlet(np.ones(groups), users)
    if view_UV.any():
        cluster_U = clusters(view_UV, groups, rng)
        share_UG *= 0.2
        share_UG[np.arange(users), cluster_U] += 0.8
    return share_UG


def clusters(point_UV: Floats, groups: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """k-means: the cluster of each point, 20 steps from centres drawn as in k-means++."""
    center_GV = point_UV[rng.integers(len(point_UV))][None]
    while len(center_GV) < groups:
        far_U = _squares(point_UV, center_GV).min(axis=1) + 1e-12
        center_GV = np.concatenate([center_GV, point_UV[rng.choice(len(point_UV), p=far_U / far_U.sum())][None]])
    for _ in range(20):
        cluster_U = _squares(point_UV, center_GV).argmin(axis=1)
        member_UG = np.eye(groups)[cluster_U]
        count_G = member_UG.sum(axis=0)
        mean_GV = member_UG.T @ point_UV / np.maximum(count_G, 1)[:, None]
        center_GV = np.where(count_G[:, None] > 0, mean_GV, center_GV)
    return _squares(point_UV, center_GV).argmin(axis=1)


def _squares(point_UV: Floats, center_GV: Floats) -> Floats:
    """Squared distances (U, G)."""
    return ((point_UV[:, None] - center_GV[None]) ** 2).sum(axis=2)


def views(votes: Votes, scales: Scales, reward_R: Floats) -> Floats:
    """The main directions of users' scores (U, V): how each user's answers pull away from the shared reward.

    A user's score is the gradient of their log likelihood in (d, b) at d = b = 0, divided by the root of their number
    of answers, so that noise has the same spread for everybody.
    """
    from scipy.sparse.linalg import svds

    margin_Y = votes.gap_YR @ reward_R
    some_T = votes.shared_T
    surprise_2Y = np.concatenate([expit(-margin_Y), -expit(margin_Y)])
    scale_U = 1 / np.sqrt(np.maximum(votes.count_U, 1e-9))
    pull_UR: Sparse = (
        diags_array(scale_U) @ votes.says_U2Y @ diags_array(surprise_2Y) @ vstack([votes.gap_YR, votes.gap_YR])
    )
    weight_UK = np.sqrt(scales.group_weights) * (pull_UR @ votes.x_RK)
    text_UR = (np.sqrt(scales.group_texts) * pull_UR.tocsc()[:, some_T]).tocsr()
    users, size = len(weight_UK), weight_UK.shape[1] + text_UR.shape[1]
    rank = min(VIEWS, users - 1, size - 1)
    if rank < 1 or not (weight_UK.any() or text_UR.count_nonzero()):
        return np.zeros((users, 1))
    table: Sparse = hstack([csr_array(weight_UK), text_UR]).tocsr()
    left_UV, value_V, _ = svds(table, k=rank, v0=np.ones(min(table.shape)))
    return left_UV * value_V
