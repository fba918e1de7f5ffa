"""A vote of a user's most similar judgements: what retrieval alone is worth, without a language model.

No paper; the retrieval of the evaluation paper's RAG judge (Dong et al. 2025, section 4.1) with a vote instead of the
judge. For user u and response x to prompt p, over the k of u's training judgements (a won over b, prompt q) that are
most similar,

    r_u(x) = scale * sum_n s_n v_n x . (a_n - b_n) / |a_n - b_n|  /  sum_n s_n w_n
    s_n    = 1/2 + [(cos(x, a_n) + cos(x, b_n)) / 2 + cos(p, q_n)] / 4

so two responses with the same neighbours differ by the mean cosine of their difference with the neighbours', times its
length. v is the weight of the user's preferences for a minus those for b, and w their sum: similarity ignores who won,
so swapped labels give exactly opposite rewards. The paper's code searches with the judged pair and its label, which is
what should be predicted; here the query is a single response and no test label is seen. k and scale are chosen on
validation rows: three, as the paper's judge reads, are too few for a vote. Strangers get the vote of everyone's
judgements. Vectors are the common inputs (``inputs``, ``prompt_inputs``), lengths at a quarter of their scale.

At most ``remembered`` text pairs are kept per user and for strangers (those with the lowest content keys, in effect a
random choice), so time is linear in judgements.

Suffixes here: ``_F`` numbers that describe a prompt, ``_M`` pairs that a user judged, ``_T`` distinct texts of the
judged pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from polypref import content
from polypref.comparisons import Comparisons, IntArray, Responses, Users, concat
from polypref.features.protocol import Encoder
from polypref.learners import prompt_inputs, validation
from polypref.learners.canonical_order import Numbering
from polypref.learners.inputs import Inputs
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.provenance import passed_on, recorded
from polypref.schema import Array, Arrays, Ids, Layout, Selection, floats, indices

Floats = NDArray[np.float32]
BLOCK = 1 << 22  # similarities held at once
LENGTHS = 0.25  # of the inputs' scale: both lengths together then have an eighth of the encoder features' variance
TIED = 1e-5  # similarities that differ by less are equal, so that rounding does not decide who votes


@dataclass(frozen=True)
class NearestNeighbours:
    """Settings of the vote."""

    neighbours: tuple[int, ...] = (30, 100, 300, 1000)
    """Numbers of judgements that vote, to try on validation rows."""
    remembered: int = 4096
    """Text pairs kept per user, and for strangers."""
    tune_rows: int = 4096
    """Maximum validation rows used for choosing."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""
    prompt_directions: int = 64
    """Principal directions of the prompts to use."""

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> NeighboursScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions, read="response")  # columns would drown the encoder
        space = Space(inputs, prompt_inputs.fit(encoder, whole, self.prompt_directions))
        chosen = _Chosen(self.neighbours[0], 1.0, {})
        judged = _lowest_keys(valid, self.tune_rows)
        if judged.weights_N.any():
            chosen = self._choose(self._scorer(space, train, chosen), judged)
        return self._scorer(space, whole, chosen)

    def _scorer(self, space: Space, rows: Comparisons, chosen: _Chosen) -> NeighboursScorer:
        numbers = Numbering.of(rows)
        own = Memory.of(space, rows, self.remembered, numbers.judges(rows)[0])
        everyone = Memory.of(space, rows, self.remembered, np.zeros(len(rows), np.int32))
        users = Users(rows.users.ids.gather(numbers.users_U))
        selection = {"neighbours": float(chosen.neighbours), "scale": chosen.scale, **chosen.found}
        chosen_settings = (chosen.neighbours, chosen.scale, self.remembered)
        return NeighboursScorer(space, users, own, everyone, *chosen_settings, selection)

    def _choose(self, scorer: NeighboursScorer, judged: Comparisons) -> _Chosen:
        n = len(judged)
        ids = judged.users.ids.gather(np.concatenate([judged.user_N, judged.user_N]))
        both = np.concatenate([judged.chosen_N, judged.rejected_N])
        votes, _ = scorer.votes(judged.responses, ids, both, self.neighbours)
        tried = []
        for k, value_Q in zip(self.neighbours, votes, strict=True):
            margin_N = value_Q[:n] - value_Q[n:]
            scale = _fitting_scale(margin_N, judged)
            tried.append(_Chosen(k, scale, validation.measure(scale * margin_N, judged)))
        return min(tried, key=lambda one: one.found["valid_log_loss"])


@dataclass(frozen=True)
class _Chosen:
    """The settings chosen on validation rows, and their figures there."""

    neighbours: int
    scale: float
    found: dict[str, float]


def _lowest_keys(rows: Comparisons, most: int) -> Comparisons:
    """At most ``most`` rows: those with the lowest pair keys."""
    if len(rows) <= most:
        return rows
    return rows.take(rows.pair_key_N <= np.partition(rows.pair_key_N, most - 1)[most - 1])


def _fitting_scale(margin_N: NDArray[np.float64], rows: Comparisons) -> float:
    """The factor of the margins with the least log loss.

    One judgement each way at a typical margin is added, so that a few correctly predicted rows do not need an infinite
    factor.
    """
    typical, weight = np.sqrt(np.average(margin_N**2, weights=rows.weights_N)), rows.weights_N.sum()

    def loss(log_scale: float) -> float:
        scale = np.exp(log_scale)
        added = np.logaddexp(0.0, scale * typical) + np.logaddexp(0.0, -scale * typical)
        return validation.log_loss(scale * margin_N, rows) + float(added / weight)

    best = minimize_scalar(loss, bounds=(-5.0, 7.0), method="bounded")
    return float(np.exp(best.x))  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class Space:
    """The space of similarities: cosines of responses' inputs and of prompts' inputs."""

    inputs: Inputs
    prompts: Inputs

    def __call__(self, responses: Responses) -> tuple[Floats, Floats]:
        """Inputs (R, K) of responses, and directions (R, J) of their prompts."""
        z_PF, prompt_R = prompt_inputs.inputs_of(self.prompts, responses)
        x_RK = self.inputs(responses).astype(np.float32)
        x_RK[:, -2:] *= LENGTHS
        return x_RK, _directions(z_PF)[prompt_R]


def _directions(x_RK: NDArray) -> Floats:
    """Unit vectors; zero vectors stay zero."""
    return (x_RK / np.maximum(np.linalg.norm(x_RK, axis=1, keepdims=True), 1e-9)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Memory:
    """Text pairs that somebody judged, user by user: user u has ``start_U[u]`` to ``start_U[u + 1]``.

    ``vote_M`` is the weight of preferences for the first text minus those for the second, ``weight_M`` their sum.
    ``text_TK`` are the inputs of the distinct texts, ``asked_TF`` the directions of their prompts, ``one_M`` and
    ``other_M`` the numbers of a pair's two texts.
    """

    text_TK: Floats
    asked_TF: Floats
    one_M: IntArray
    other_M: IntArray
    vote_M: NDArray[np.float64]
    weight_M: NDArray[np.float64]
    start_U: NDArray[np.int64]

    @classmethod
    def of(cls, space: Space, rows: Comparisons, most: int, owner_N: IntArray) -> Self:
        """Merge each owner's judgements of one pair; keep ``most`` pairs of each owner."""
        keys_R = rows.responses.keys_R
        turned_N = keys_R[rows.chosen_N] > keys_R[rows.rejected_N]
        low_N, high_N = np.where(turned_N, (rows.rejected_N, rows.chosen_N), (rows.chosen_N, rows.rejected_N))
        order_N = np.lexsort((rows.pair_key_N, owner_N))
        owner, key = owner_N[order_N], rows.pair_key_N[order_N]
        first_N = np.append(True, (owner[1:] != owner[:-1]) | (key[1:] != key[:-1])) if len(rows) else owner == owner
        begins = np.flatnonzero(first_N)
        sign_N = np.where(turned_N, -1.0, 1.0) * (2.0 * rows.label_N - 1.0)
        vote_M = np.add.reduceat((sign_N * rows.weights_N)[order_N], begins)
        weight_M = np.add.reduceat(rows.weights_N[order_N], begins)
        owner_M = owner[begins]
        users = int(owner_N.max()) + 1
        rank_M = np.arange(len(owner_M)) - np.searchsorted(owner_M, np.arange(users))[owner_M]
        kept = np.flatnonzero(rank_M < most)
        low_M, high_M = (side_N[order_N[begins]][kept] for side_N in (low_N, high_N))
        used_R, place_2M = np.unique(np.concatenate([low_M, high_M]), return_inverse=True)
        text_TK, asked_TF = space(rows.responses.take(used_R))
        one_M, other_M = place_2M[: len(kept)].astype(np.int32), place_2M[len(kept) :].astype(np.int32)
        start_U = np.searchsorted(owner_M[kept], np.arange(users + 1))
        return cls(text_TK, asked_TF, one_M, other_M, vote_M[kept], weight_M[kept], start_U)

    def only(self, user: int) -> Memory:
        """One user's pairs."""
        own = slice(self.start_U[user], self.start_U[user + 1])
        used_T, place_2M = np.unique(np.concatenate([self.one_M[own], self.other_M[own]]), return_inverse=True)
        one_M, other_M = np.split(place_2M.astype(np.int32), 2)
        votes = (self.vote_M[own], self.weight_M[own], np.array([0, len(one_M)]))
        return Memory(self.text_TK[used_T], self.asked_TF[used_T], one_M, other_M, *votes)

    def ahead_of(self, earlier: Memory, most: int) -> Memory:
        """One user's pairs, then their earlier ones, ``most`` in all; those of the same two texts are merged."""
        text_TK = np.concatenate([self.text_TK, earlier.text_TK])
        asked_TF = np.concatenate([self.asked_TF, earlier.asked_TF])
        _, first, same_T = np.unique(np.hstack([text_TK, asked_TF]), axis=0, return_index=True, return_inverse=True)
        before_M2 = np.stack([earlier.one_M, earlier.other_M], axis=1) + len(self.text_TK)
        pairs_M2 = np.concatenate([np.stack([self.one_M, self.other_M], axis=1), before_M2])
        _, begins, pair_M = np.unique(same_T.ravel()[pairs_M2], axis=0, return_index=True, return_inverse=True)
        kept = np.argsort(begins)[:most]
        one_M, other_M = first[same_T.ravel()[pairs_M2[begins[kept]]]].T.astype(np.int32)
        vote_M, weight_M = (
            np.bincount(pair_M.ravel(), np.concatenate([one, other]))[kept].astype(np.float64)
            for one, other in ((self.vote_M, earlier.vote_M), (self.weight_M, earlier.weight_M))
        )
        joined = Memory(text_TK, asked_TF, one_M, other_M, vote_M, weight_M, np.array([0, len(kept)]))
        return joined.only(0)

    def votes(self, user: int, x_QK: Floats, z_QF: Floats, ks: Sequence[int]) -> NDArray[np.float64]:
        """The vote of the k judgements of ``user`` most similar to each question, (number of ks, Q), unscaled."""
        own = slice(self.start_U[user], self.start_U[user + 1])
        size = int(own.stop - own.start)
        one_MK, other_MK = self.text_TK[self.one_M[own]], self.text_TK[self.other_M[own]]
        apart_MK, middle_MK = _directions(one_MK - other_MK), (_directions(one_MK) + _directions(other_MK)) / 2.0
        lean_MK, asked_MF = apart_MK * self.vote_M[own, None], self.asked_TF[self.one_M[own]]
        found = np.zeros((len(ks), len(x_QK)))
        block = max(1, BLOCK // max(size, 1))
        for start in range(0, len(x_QK), block):
            rows = slice(start, start + block)
            similar_QM = 0.5 + (_directions(x_QK[rows]) @ middle_MK.T + z_QF[rows] @ asked_MF.T) / 4.0
            lean_QM = x_QK[rows] @ lean_MK.T
            for at, k in enumerate(ks):
                share_QM = similar_QM
                if k < size:
                    least_Q1 = np.partition(similar_QM, size - k, axis=1)[:, size - k, None]
                    share_QM = np.where(similar_QM >= least_Q1 - TIED, similar_QM, 0.0)
                total_Q = share_QM @ self.weight_M[own]
                found[at, rows] = (share_QM * lean_QM).sum(axis=1) / np.maximum(total_Q, 1e-9)
        return found


class Fields(TypedDict):
    """Settings of a saved scorer."""

    neighbours: int
    scale: float
    remembered: int
    users: Ids
    newcomers: Ids
    selection: Selection


def _arrays(config: Mapping[str, Any]) -> Arrays:
    found: dict[str, Array] = {}
    owners = {"own": "U+1", "everyone": 2} | {f"new{at}": 2 for at in range(len(config["newcomers"]))}
    for name, starts in owners.items():
        texts, pairs = f"T_{name}", f"M_{name}"
        one = {"text_TK": floats(texts, "K", dtype="float32"), "asked_TF": floats(texts, "F", dtype="float32")}
        one |= {"vote_M": floats(pairs), "weight_M": floats(pairs)}
        one |= {"one_M": indices(pairs, texts), "other_M": indices(pairs, texts)}
        one["start_U"] = Array((starts,), "int64", span=pairs)
        found |= {f"{name}.{key}": array for key, array in one.items()}
    return {**found, **Inputs.layout("inputs."), **Inputs.layout("prompts.", size="F")}


def _wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    if config["neighbours"] < 1 or config["remembered"] < 1:
        return "neighbours and remembered must be 1 or more"
    return None


@dataclass(frozen=True, eq=False, repr=False)
class NeighboursScorer(RanksTexts):
    """The remembered judgements of each of ``users`` (``own``), and of all together (``everyone``, with one owner).

    ``newcomers``, by id, were learned after the fit and take precedence over ``users``.
    """

    space: Space
    users: Users
    own: Memory
    everyone: Memory
    neighbours: int
    scale: float
    remembered: int
    selection: Mapping[str, float | str]
    newcomers: Mapping[str, Memory] = field(default_factory=dict)

    kind: ClassVar[str] = "nearest-neighbours"
    layout: ClassVar[Layout] = Layout(Fields, _arrays, sizes={"U": "users"}, rule=_wrong)
    serves: ClassVar[Serves] = "any_user"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        votes, source_Q = self.votes(responses, id_Q, response_Q, (self.neighbours,))
        return Scores(self.scale * votes[0], source_Q)

    def votes(
        self,
        responses: Responses,
        user_ids: pl.Series | Sequence[str],
        response_Q: IntArray | None,
        ks: Sequence[int],
    ) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """The vote of k neighbours, unscaled, for several k, (number of ks, Q), and who answered."""
        _, pool, place_Q = self.space.inputs.used(responses, response_Q)
        x_RK, z_RF = self.space(pool)
        new = Users(pl.Series("id", list(self.newcomers), dtype=pl.String)).index(user_ids)
        user_Q = np.where(new >= 0, len(self.users) + new, self.users.index(user_ids))
        found = np.zeros((len(ks), len(place_Q)))
        order_Q = np.argsort(user_Q, kind="stable")
        who, starts = np.unique(user_Q[order_Q], return_index=True)
        for user, rows in zip(who.tolist(), np.split(order_Q, starts[1:]), strict=True):
            memory, place = self._memory(user)
            distinct, at = np.unique(place_Q[rows], return_inverse=True)  # each response is looked up once per user
            found[:, rows] = memory.votes(place, x_RK[distinct], z_RF[distinct], ks)[:, at]
        return found, np.where(user_Q >= 0, PERSONAL, POPULATION).astype(np.int8)

    def _memory(self, user: int) -> tuple[Memory, int]:
        if user < 0:
            return self.everyone, 0
        if user < len(self.users):
            return self.own, user
        return list(self.newcomers.values())[user - len(self.users)], 0

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> NeighboursScorer:
        """See ``learners.protocol.Adapts``; of more pairs than are remembered of a user, the latest are kept."""
        user_id = content.one_id(user_id)
        memory = Memory.of(self.space, few, self.remembered, np.zeros(len(few), np.int32))
        if user_id in self.newcomers:
            memory = memory.ahead_of(self.newcomers[user_id], self.remembered)
        elif (place := int(self.users.index([user_id])[0])) >= 0:
            memory = memory.ahead_of(self.own.only(place), self.remembered)
        return replace(self, newcomers={**self.newcomers, user_id: memory})

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.space.inputs.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        memories = {"own": self.own, "everyone": self.everyone}
        memories |= {f"new{at}": memory for at, memory in enumerate(self.newcomers.values())}
        arrays = {f"{at}.{name}": array for at, memory in memories.items() for name, array in vars(memory).items()}
        for name, inputs in vars(self.space).items():
            arrays |= {f"{name}.{key}": array for key, array in inputs.arrays().items()}
        config = {name: getattr(self, name) for name in ("neighbours", "scale", "remembered")}
        ids = {"users": self.users.ids.to_list(), "newcomers": list(self.newcomers)}
        return config | ids | {"selection": dict(self.selection)}, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""

        def part(name: str) -> dict[str, NDArray]:
            return {key.removeprefix(f"{name}."): a for key, a in arrays.items() if key.startswith(f"{name}.")}

        space = Space(*(Inputs.from_arrays(encoder, part(name)) for name in ("inputs", "prompts")))
        return cls(
            space,
            Users(pl.Series("id", config["users"], dtype=pl.String)),
            Memory(**part("own")),
            Memory(**part("everyone")),
            *(config[name] for name in ("neighbours", "scale", "remembered", "selection")),
            newcomers={user_id: Memory(**part(f"new{at}")) for at, user_id in enumerate(config["newcomers"])},
        )
