"""Mixed-effects Bradley-Terry: the model of ``pooled``, ``individual`` and ``hierarchical``; ``newton`` solves it.

Reward of response r for user u is  x_r . (w + d_u) + a_r + b_ur,  and  P(c beats r | u) = sigmoid(difference), with

    w ~ N(0, population)   d_u ~ N(0, spread)   a_r ~ N(0, shared)   b_u ~ N(0, personal C)

``a`` and ``b`` are response effects, shared and per user: what features do not explain. C is the correlation of a
user's views of two texts (``Likeness``). Differences of inputs that everybody is taken to prefer (``Agreed``) tell of w
alone. A *cluster* is a set of responses that one user's comparisons connect or, where views carry over, a user's
responses to one prompt; b of different clusters are independent. Users' effects are kept in dual form: with the dual
weights alpha of every slot, b_u = personal C alpha and d_u = spread t_u, where t_u = x' alpha.

Suffixes here: ``_B`` clusters of a bucket, ``_C`` right-hand sides, ``_E`` entries: a response as one user saw it,
``_L`` the clusters' slots for responses (padded), ``_T`` population effects (w and a).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from polypref.learners.likelihood import surprise

Array = NDArray[np.floating]


LONG = 32  # from this many clusters of a user on, one product over all is faster than a product per cluster
LARGEST = 256  # maximum texts of one prompt in one cluster, whose cost is the cube of its size


@dataclass(frozen=True, eq=False)
class Variances:
    """Prior variances of the four effects (see the module's docstring); 0 switches an effect off."""

    population_K: Array
    spread_KK: Array
    shared: float
    personal: float

    @property
    def differ(self) -> bool:
        """Whether users may differ from the population."""
        return self.personal > 0 or bool(self.spread_KK.any())

    def scaled(self, spread: float = 1.0, shared: float = 1.0, personal: float = 1.0) -> Variances:
        """These variances multiplied by factors."""
        return replace(
            self, spread_KK=self.spread_KK * spread, shared=self.shared * shared, personal=self.personal * personal
        )


@dataclass(frozen=True)
class Likeness:
    """The correlation of a user's views of two texts beyond the linear reward.

    It is ``share`` * exp(-distance^2 / (2 ``reach``^2)) with the distance between the first ``directions`` inputs
    (whose variances sum to 1), plus 1 - share for a text with itself; share 0: unrelated views.
    """

    share: float
    directions: int
    reach: float = 0.55

    def __call__(self, x_BLK: Array) -> Array:
        """Correlation (B, L, L) of b between the responses with inputs ``x_BLK``."""
        slots = x_BLK.shape[1]
        if self.share == 0:
            return np.broadcast_to(np.eye(slots, dtype=x_BLK.dtype), (len(x_BLK), slots, slots))
        v_BLK = x_BLK[..., : self.directions]
        square_BL = (v_BLK**2).sum(axis=2)
        distance_BLL = square_BL[:, :, None] + square_BL[:, None, :] - 2 * v_BLK @ v_BLK.transpose(0, 2, 1)
        alike_BLL = self.share * np.exp(-np.maximum(distance_BLL, 0.0) / (2 * self.reach**2))
        alike_BLL[:, np.arange(slots), np.arange(slots)] = 1.0
        return alike_BLL

    def between(self, one_NK: Array, other_NK: Array) -> Array:
        """Correlation (N,) of a user's views of two different texts each."""
        square_N = ((one_NK - other_NK)[:, : self.directions] ** 2).sum(axis=1)
        return self.share * np.exp(-square_N / (2 * self.reach**2))


@dataclass(frozen=True, eq=False)
class Bucket:
    """Clusters of similar size: slot s of cluster b is response ``response_BL``; padding has number R."""

    user_B: NDArray[np.int32]  # ascending
    response_BL: NDArray[np.int32]
    row_N: NDArray[np.int64]  # the bucket's comparisons, as rows of the whole
    place_N: NDArray[np.int64]  # their cluster's place in the bucket
    chosen_N: NDArray[np.int32]  # slot
    rejected_N: NDArray[np.int32]  # slot
    to_response: csr_array  # (R, B * S), sums slots by response
    x_BLK: Array  # inputs of the slots, zero where unused
    alike_BLL: Array  # correlation of b between slots

    @cached_property
    def first_B(self) -> NDArray[np.int64]:
        """The start of each user's clusters."""
        return np.flatnonzero(np.diff(self.user_B, prepend=-1))

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """The clusters of each user in turn, as ranges."""
        return list(pairwise([*self.first_B.tolist(), len(self.user_B)]))

    @property
    def _long(self) -> bool:
        return len(self.user_B) > LONG * len(self.first_B)

    def add_projected(self, total_UKC: Array, value_BLC: Array) -> None:
        """Add x' value of every user's clusters to the users' totals, in place."""
        if not self._long:
            value_BKC = self.x_BLK.transpose(0, 2, 1) @ value_BLC
            total_UKC[self.user_B[self.first_B]] += np.add.reduceat(value_BKC, self.first_B, axis=0)
            return
        k, columns = self.x_BLK.shape[2], value_BLC.shape[2]
        for low, high in self.runs:
            x_LK, value_LC = self.x_BLK[low:high].reshape(-1, k), value_BLC[low:high].reshape(-1, columns)
            total_UKC[self.user_B[low]] += x_LK.T @ value_LC

    def of_users(self, weights_BLK: Array, effect_UKC: Array) -> Array:
        """``weights`` times the effect of each cluster's user, (B, L, C)."""
        if not self._long:
            return weights_BLK @ effect_UKC[self.user_B]
        b, s, k = weights_BLK.shape
        columns = effect_UKC.shape[2]
        found_BLC = np.empty((b, s, columns), np.result_type(weights_BLK, effect_UKC))
        for low, high in self.runs:
            own_LC = weights_BLK[low:high].reshape(-1, k) @ effect_UKC[self.user_B[low]]
            found_BLC[low:high] = own_LC.reshape(-1, s, columns)
        return found_BLC

    def add_gram(self, total_UKK: Array, px_BLK: Array) -> None:
        """Add x' P x of every user's clusters to the users' totals, in place."""
        k = px_BLK.shape[2]
        if len(self.first_B) == len(self.user_B):
            total_UKK[self.user_B] += self.x_BLK.transpose(0, 2, 1) @ px_BLK
            return
        # one product per user over all of their clusters: far less memory traffic than a product per cluster
        for low, high in self.runs:
            x_LK, px_LK = self.x_BLK[low:high].reshape(-1, k), px_BLK[low:high].reshape(-1, k)
            total_UKK[self.user_B[low]] += x_LK.T @ px_LK


@dataclass(frozen=True, eq=False)
class Agreed:
    """Differences of inputs (X, K) that everybody is taken to prefer, each with the weight of that many judgements."""

    x_XK: Array
    weight: float

    def loss(self, w_K: Array) -> float:
        """Negative log likelihood of the population's weights."""
        return self.weight * float(surprise(self.x_XK @ w_K, np.ones(len(self.x_XK))).sum())

    def quadratic(self, w_K: Array) -> tuple[Array, Array]:
        """Precision (K, K) and linear term (K,) of the quadratic that touches the log likelihood at ``w_K``."""
        margin_X = self.x_XK @ w_K
        p_X = expit(margin_X)
        curve_X = self.weight * p_X * (1 - p_X)
        force_X = curve_X * margin_X + self.weight * (1 - p_X)
        return self.x_XK.T @ (curve_X[:, None] * self.x_XK), self.x_XK.T @ force_X


@dataclass(frozen=True, eq=False)
class Problem:
    """Comparisons in the solver's form: inputs, clusters, labels in [0, 1], weights, number of users.

    ``kinds`` are the numbers of inputs that share a variance, in their order; (): all but the last two, and those.
    """

    x_RK: Array
    buckets: list[Bucket]
    label_N: Array
    weight_N: Array
    users: int
    likeness: Likeness | None
    kinds: tuple[int, ...] = ()
    agreed: Agreed | None = None

    def agreed_quadratic(self, w_K: Array) -> tuple[Array, Array]:
        """``Agreed.quadratic``; zeros if there is none."""
        if self.agreed is None:
            return np.zeros((len(w_K), len(w_K))), np.zeros(len(w_K))
        return self.agreed.quadratic(w_K)


@dataclass(frozen=True, eq=False)
class Effects:
    """Posterior modes; users' in dual form: b = personal * ``alpha`` (B, L), d = ``t_UK`` @ spread, t = x' alpha."""

    w_K: Array
    a_R: Array
    t_UK: Array
    alpha: list[Array]


def problem(
    x_RK: Array,
    judges: tuple[NDArray, NDArray, NDArray],
    label_N: NDArray,
    weight_N: NDArray,
    likeness: Likeness | None,
    prompt_R: NDArray | None = None,
    precision: type[np.floating] = np.float64,
) -> Problem:
    """Sort comparisons into clusters, and clusters into buckets (padding wastes at most a quarter of the slots).

    If views carry over (``likeness``), a user's responses to one prompt (``prompt_R``, default: one prompt) form one
    cluster of up to ``LARGEST``; larger ones are split into the parts that comparisons connect. Without ``likeness``
    users have no views of single texts, and if too many texts are connected, every pair is a cluster. ``precision`` is
    that of the dense algebra per cluster and user; single precision is twice as fast.
    """
    n, r, users = len(judges[0]), len(x_RK), int(judges[0].max()) + 1
    prompt_R = np.zeros(r, np.int64) if prompt_R is None else prompt_R
    joined = likeness is not None and likeness.share > 0
    user_E, response_E, entry_2N, cluster_E = _connected(judges, prompt_R, joined)
    if likeness is None and np.bincount(cluster_E).max() > LARGEST:
        user_E, response_E, entry_2N, cluster_E = _pairs(judges, r)
    order_E = np.argsort(cluster_E, kind="stable")
    size = np.bincount(cluster_E)
    slot_E = np.empty(len(user_E), np.int32)
    slot_E[order_E] = np.arange(len(user_E)) - np.repeat(np.cumsum(size) - size, size)
    grade = np.ceil(np.log(size / 2) / np.log(1.25)).astype(int)
    padded_RK = np.concatenate([x_RK, np.zeros((1, x_RK.shape[1]))])
    found = []
    for g in np.unique(grade):
        place = np.cumsum(grade == g) - 1
        entry = np.flatnonzero(grade[cluster_E] == g)
        at_E = place[cluster_E[entry]]
        response_BL = np.full((int((grade == g).sum()), int(size[grade == g].max())), r, np.int32)
        response_BL[at_E, slot_E[entry]] = response_E[entry]
        user_B = np.empty(len(response_BL), np.int32)
        user_B[at_E] = user_E[entry]
        assert (np.diff(user_B) >= 0).all(), "clusters are numbered in the order of their entries"
        row_N = np.flatnonzero(grade[cluster_E[entry_2N[:n]]] == g)
        chosen_E, rejected_E = entry_2N[row_N], entry_2N[n + row_N]
        used = np.flatnonzero(response_BL.ravel() < r)
        to_response = csr_array((np.ones(len(used)), (response_BL.ravel()[used], used)), shape=(r, response_BL.size))
        x_BLK = padded_RK[response_BL].astype(precision)
        judged = (row_N, place[cluster_E[chosen_E]], slot_E[chosen_E], slot_E[rejected_E])
        alike_BLL = (likeness or Likeness(0.0, 0))(x_BLK)
        found.append(Bucket(user_B, response_BL, *judged, to_response, x_BLK, alike_BLL))
    return Problem(x_RK, found, np.asarray(label_N, float), np.asarray(weight_N, float), users, likeness)


def _pairs(judges: tuple[NDArray, NDArray, NDArray], r: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Entries (user, response) of every pair that a user judged, the (2N,) entries of the rows, each entry's pair."""
    user_N, chosen_N, rejected_N = judges
    low_N, high_N = np.minimum(chosen_N, rejected_N), np.maximum(chosen_N, rejected_N)
    pair_C, pair_N = np.unique((user_N.astype(np.int64) * r + low_N) * r + high_N, return_inverse=True)
    response_E = np.stack([pair_C // r % r, pair_C % r], axis=1).ravel()
    entry_2N = 2 * np.tile(pair_N, 2) + np.concatenate([chosen_N > low_N, rejected_N > low_N])
    return np.repeat(pair_C // r**2, 2), response_E, entry_2N, np.repeat(np.arange(len(pair_C)), 2)


def _connected(
    judges: tuple[NDArray, NDArray, NDArray], prompt_R: NDArray, join: bool
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Entries (user, response), the (2N,) entries of the rows, and each entry's cluster (see ``problem``)."""
    user_N, chosen_N, rejected_N = judges
    n, r = len(user_N), len(prompt_R)
    key_2N = np.concatenate([user_N, user_N]).astype(np.int64) * r + np.concatenate([chosen_N, rejected_N])
    key_E, entry_2N = np.unique(key_2N, return_inverse=True)
    user_E, response_E = key_E // r, key_E % r
    from_E, to_E = entry_2N[:n], entry_2N[n:]
    if join:
        joined = _same_prompt(user_E, prompt_R[response_E])
        from_E, to_E = np.concatenate([from_E, joined[0]]), np.concatenate([to_E, joined[1]])
    links = coo_array((np.ones(len(from_E), bool), (from_E, to_E)), shape=(len(key_E), len(key_E)))
    return user_E, response_E, entry_2N, connected_components(links, directed=False)[1]


def _same_prompt(user_E: NDArray, prompt_E: NDArray) -> tuple[NDArray, NDArray]:
    """Links between adjacent entries of a user and one prompt, if there are at most ``LARGEST``."""
    order_E = np.lexsort((prompt_E, user_E))
    user_E, prompt_E = user_E[order_E], prompt_E[order_E]
    same_E = (np.diff(user_E) == 0) & (np.diff(prompt_E) == 0)
    group_E = np.concatenate([[0], np.cumsum(~same_E)])
    kept = same_E & (np.bincount(group_E)[group_E[1:]] <= LARGEST)
    return order_E[:-1][kept], order_E[1:][kept]


def start(task: Problem) -> Effects:
    """All effects zero."""
    r, k = task.x_RK.shape
    return Effects(
        np.zeros(k), np.zeros(r), np.zeros((task.users, k)), [np.zeros(b.response_BL.shape) for b in task.buckets]
    )


def margins(task: Problem, effects: Effects, prior: Variances) -> Array:
    """Reward difference of every comparison."""
    f_R = np.append(task.x_RK @ effects.w_K + effects.a_R, 0.0)
    d_UK = effects.t_UK @ prior.spread_KK
    margin_N = np.empty(len(task.label_N))
    for bucket, alpha_BL in zip(task.buckets, effects.alpha, strict=True):
        own_BL = bucket.of_users(bucket.x_BLK, d_UK[:, :, None])[..., 0]
        own_BL += prior.personal * (bucket.alike_BLL @ alpha_BL[..., None])[..., 0]
        reward_BL = f_R[bucket.response_BL] + own_BL
        at_N = bucket.place_N
        margin_N[bucket.row_N] = reward_BL[at_N, bucket.chosen_N] - reward_BL[at_N, bucket.rejected_N]
    return margin_N


def objective(task: Problem, effects: Effects, prior: Variances) -> float:
    """Negative log posterior, up to a constant."""
    margin_N = margins(task, effects, prior)
    loss = (task.weight_N * surprise(margin_N, task.label_N)).sum()
    if task.agreed is not None:
        loss += task.agreed.loss(effects.w_K)
    theta_T = np.concatenate([effects.w_K, effects.a_R])
    scale_T = np.concatenate([prior.population_K, np.full(len(effects.a_R), prior.shared)])
    energy = (theta_T[scale_T > 0] ** 2 / scale_T[scale_T > 0]).sum()
    energy += np.einsum("uk,kl,ul->", effects.t_UK, prior.spread_KK, effects.t_UK, optimize=True)
    energy += prior.personal * personal_squares(task, effects)
    return float(loss + energy / 2)


def personal_squares(task: Problem, effects: Effects) -> float:
    """Sum of alpha' C alpha over clusters, C the correlation of b: the prior energy of b is ``personal`` times this."""
    pairs = zip(task.buckets, effects.alpha, strict=True)
    return float(sum((v * (b.alike_BLL @ v[..., None])[..., 0]).sum() for b, v in pairs))
