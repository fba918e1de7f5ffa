"""The scorer of every learner whose reward is linear in its inputs: x . weights_u + a_r + b_ur.

A known user is scored with their own weights, anybody else with the population's. Response effects, if the learner has
them, belong to a text: they are found by content key in any pool. Users learned after the fit are kept apart from the
tables of the fit (``newcomers``), so that adding one copies no one else's numbers.

Suffixes here: ``_E`` entries: a user's effect on a response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import FloatArray, IntArray, Responses, Users
from polypref.content import Identities
from polypref.features.protocol import Encoder
from polypref.learners.inputs import Inputs
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.provenance import passed_on
from polypref.schema import Ids, Layout, Selection, floats, identities, indices

CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class ResponseEffects:
    """Rewards that belong to texts: ``shared_R`` of ``key_R`` (ascending) for everyone, ``own_E`` per user.

    Entry e is user ``user_E``'s effect on response number ``response_E`` of ``key_R``; entries are sorted by
    (user, response); ``variance_E`` is the effect's posterior variance given the user's weights.
    """

    key_R: Identities = field(default_factory=lambda: content.NONE)
    shared_R: FloatArray = field(default_factory=lambda: np.zeros(0))
    user_E: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    response_E: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    own_E: FloatArray = field(default_factory=lambda: np.zeros(0))
    variance_E: FloatArray = field(default_factory=lambda: np.zeros(0))

    def arrays(self, prefix: str) -> dict[str, NDArray]:
        """Everything as arrays for ``state``, under names that start with ``prefix``."""
        named = {name: getattr(self, name) for name in ResponseEffects.__dataclass_fields__}
        return {f"{prefix}{name}": value for name, value in (named | {"key_R": content.packed(self.key_R)}).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray], prefix: str) -> Self:
        """The inverse of ``arrays``. Raises ArtifactError for arrays of an older version."""
        named: dict[str, Any] = {name: arrays[prefix + name] for name in cls.__dataclass_fields__}
        named["key_R"] = content.unpacked(named["key_R"])
        return cls(**named)

    def find(self, keys: Identities) -> IntArray:
        """Place of each key in ``key_R``, -1 if absent."""
        return content.places(self.key_R, keys).astype(np.int32)

    def shared(self, keys: Identities) -> FloatArray:
        """Shared effect of each text; 0 for a text never judged."""
        at = self.find(keys)
        return np.where(at >= 0, np.append(self.shared_R, 0.0)[at], 0.0)

    def with_users(self, kept_U: NDArray, singles: Sequence[ResponseEffects]) -> ResponseEffects:
        """These effects for the users numbered ``kept_U``, followed by one user for each of ``singles``."""
        key_R = np.unique(np.concatenate([self.key_R, *(single.key_R for single in singles)]))
        renumber_U = np.full(int(max(self.user_E.max(initial=-1), kept_U.max(initial=-1))) + 1, -1, np.int32)
        renumber_U[kept_U] = np.arange(len(kept_U))
        kept_E = np.flatnonzero(renumber_U[self.user_E] >= 0)
        new = [np.full(len(single.user_E), len(kept_U) + at, np.int32) for at, single in enumerate(singles)]
        user_E = np.concatenate([renumber_U[self.user_E[kept_E]], *new])
        keys_E = np.concatenate([self.key_R[self.response_E[kept_E]], *(s.key_R[s.response_E] for s in singles)])
        response_E = content.places(key_R, keys_E).astype(np.int32)
        own_E = np.concatenate([self.own_E[kept_E], *(single.own_E for single in singles)])
        variance_E = np.concatenate([self.variance_E[kept_E], *(single.variance_E for single in singles)])
        sort = np.lexsort((response_E, user_E))
        entries = (user_E[sort], response_E[sort], own_E[sort], variance_E[sort])
        return ResponseEffects(key_R, self.shared(key_R), *entries)

    def of_user(self, user: int) -> ResponseEffects:
        """One user's own effects, as those of user 0; the shared ones are left out."""
        some = slice(*np.searchsorted(self.user_E, [user, user + 1]))
        response_E = self.response_E[some]
        entries = (np.zeros_like(response_E), np.arange(len(response_E), dtype=np.int32))
        key_R = self.key_R[response_E]
        return ResponseEffects(key_R, np.zeros(len(key_R)), *entries, self.own_E[some], self.variance_E[some])

    def own(self, keys: Identities) -> tuple[FloatArray, FloatArray]:
        """User 0's effect on each text, and its variance; 0 and NaN for texts without one."""
        entry = self.entry(np.zeros(len(keys), np.int32), self.find(keys))
        return np.append(self.own_E, 0.0)[entry], np.append(self.variance_E, np.nan)[entry]

    def updated(self, keys: Identities, own: FloatArray, variance: FloatArray) -> ResponseEffects:
        """User 0's effects, with those on the texts ``keys`` added or replaced."""
        kept = np.flatnonzero(content.places(np.sort(keys), self.key_R) < 0)
        key_R = np.concatenate([self.key_R[kept], keys])
        order = np.argsort(key_R, kind="stable")
        entries = (np.zeros(len(order), np.int32), np.arange(len(order), dtype=np.int32))
        before_E, spread_E = self.own(self.key_R[kept])
        own_E, variance_E = np.append(before_E, own)[order], np.append(spread_E, variance)[order]
        return ResponseEffects(key_R[order], np.zeros(len(order)), *entries, own_E, variance_E)

    def with_effects(self) -> ResponseEffects:
        """The same effects without texts that have none."""
        kept_R = self.shared_R != 0
        kept_R[self.response_E] = True
        place_R = np.cumsum(kept_R, dtype=np.int32) - 1
        return replace(
            self,
            key_R=self.key_R[kept_R],
            shared_R=self.shared_R[kept_R],
            response_E=place_R[self.response_E],
        )

    def entry(self, user_Q: IntArray, response_Q: IntArray) -> IntArray:
        """Place of each (user, response) among the entries, -1 if that user never judged that text."""
        if not len(self.user_E):
            return np.full(len(user_Q), -1, np.int32)
        code_E = self.user_E.astype(np.int64) * len(self.key_R) + self.response_E
        code_Q = user_Q.astype(np.int64) * len(self.key_R) + response_Q
        at = np.minimum(np.searchsorted(code_E, code_Q), len(code_E) - 1)
        return np.where((code_E[at] == code_Q) & (user_Q >= 0) & (response_Q >= 0), at, -1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Newcomer:
    """A user learned after the fit: ``weights_K``, views of texts (as user 0), the weights' covariance if any."""

    weights_K: FloatArray
    effects: ResponseEffects = field(default_factory=ResponseEffects)
    covariance_KK: FloatArray | None = None


class Fields(TypedDict):
    """Settings of a saved linear scorer; derived scorers add theirs."""

    users: Ids
    selection: Selection


def _disordered(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    user_E, response_E = arrays["effects.user_E"].astype(np.int64), arrays["effects.response_E"].astype(np.int64)
    code_E = user_E * max(len(arrays["effects.key_R"]), 1) + response_E
    return None if (np.diff(code_E) > 0).all() else "the effects are not in the order of users and responses"


LAYOUT = Layout(
    Fields,
    {
        "population_K": floats("K"),
        "weights_UK": floats("U", "K"),
        "effects.key_R": identities("R"),
        "effects.shared_R": floats("R"),
        "effects.user_E": indices("E", "U"),
        "effects.response_E": indices("E", "R"),
        "effects.own_E": floats("E"),
        "effects.variance_E": floats("E"),
        **Inputs.layout(),
    },
    sizes={"U": "users"},
    rule=_disordered,
)


@dataclass(frozen=True, eq=False, repr=False)
class LinearScorer(RanksTexts):
    """Rewards linear in ``inputs``: ``weights_UK`` of the known ``users``, ``population_K`` for strangers.

    ``newcomers``, by id, were learned after the fit and take precedence over the users of the tables.
    """

    inputs: Inputs
    population_K: FloatArray
    users: Users
    weights_UK: FloatArray
    effects: ResponseEffects
    selection: Mapping[str, float | str]
    newcomers: Mapping[str, Newcomer] = field(default_factory=dict, kw_only=True)

    kind: ClassVar[str] = "linear"
    layout: ClassVar[Layout] = LAYOUT
    serves: ClassVar[Serves] = "seen_users"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        x_RK, pool, place_Q = self.inputs.used(responses, response_Q)
        shared_R = self.effects.shared(pool.identity_R)
        value_Q = self.for_strangers(x_RK, shared_R, pool.identity_R)[place_Q].astype(np.float64)
        source_Q = np.full(len(value_Q), POPULATION, np.int8)
        for user_Q, weights_UK, effects in self.tables(id_Q):
            known_Q = np.flatnonzero(user_Q >= 0)
            source_Q[known_Q] = PERSONAL
            for rows in np.array_split(known_Q, max(1, len(known_Q) // CHUNK)):
                own_Q = np.einsum("qk,qk->q", x_RK[place_Q[rows]], weights_UK[user_Q[rows]])
                value_Q[rows] = shared_R[place_Q[rows]] + own_Q
            if len(effects.user_E):
                entry_Q = effects.entry(user_Q, effects.find(pool.identity_R)[place_Q])
                value_Q += np.where(entry_Q >= 0, np.append(effects.own_E, 0.0)[entry_Q], 0.0)
        return Scores(value_Q, source_Q)

    def for_strangers(self, x_RK: FloatArray, shared_R: FloatArray, keys_R: Identities) -> FloatArray:
        """Reward (R,) of the texts for users who are in no table."""
        return x_RK @ self.population_K + shared_R

    def tables(
        self, user_ids: pl.Series | Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int32], FloatArray, ResponseEffects]]:
        """The users of the fit, then the newcomers: each question's row of the table (-1: not there), weights,
        views.

        A question is about at most one row of one table.
        """
        if not len(self.users) and not self.newcomers:
            return
        user_Q = self.users.index(user_ids)
        if self.newcomers:
            users, weights_UK, effects = self._newcomers
            new_Q = users.index(user_ids)
            user_Q = np.where(new_Q >= 0, np.int32(-1), user_Q)
            yield new_Q, weights_UK, effects
        yield user_Q, self.weights_UK, self.effects

    @cached_property
    def _newcomers(self) -> tuple[Users, FloatArray, ResponseEffects]:
        ids = Users(pl.Series("id", list(self.newcomers), dtype=pl.String))
        weights_UK = np.stack([one.weights_K for one in self.newcomers.values()])
        nobody = np.zeros(0, np.int64)
        return ids, weights_UK, ResponseEffects().with_users(nobody, [n.effects for n in self.newcomers.values()])

    def with_newcomer(self, user_id: str, newcomer: Newcomer) -> Self:
        """The same scorer with one user added or replaced."""
        return replace(self, newcomers={**self.newcomers, user_id: newcomer})

    @passed_on
    def forget(self, user_id: str) -> Self:
        """See ``learners.protocol.Forgets``. Texts that have only a key left are removed as well."""
        kept_U = self.but(user_id)
        return replace(
            self,
            users=Users(self.users.ids.gather(kept_U)),
            weights_UK=self.weights_UK[kept_U],
            effects=self.effects.with_users(kept_U, []).with_effects(),
            newcomers={known: one for known, one in self.newcomers.items() if known != user_id},
        )

    def known_users(self) -> Users:
        """See ``learners.protocol.Forgets``."""
        return self.settled().users

    def but(self, user_id: str) -> NDArray[np.int64]:
        """Rows of the tables for all users except this one."""
        return np.flatnonzero((self.users.ids != user_id).to_numpy())

    def settled(self) -> Self:
        """An equal scorer with all newcomers moved into the tables."""
        if not self.newcomers:
            return self
        ids, weights_UK, _ = self._newcomers
        kept_U = np.flatnonzero(~self.users.ids.is_in(list(self.newcomers)).to_numpy())
        return replace(
            self,
            users=Users(pl.concat([self.users.ids.gather(kept_U).alias("id"), ids.ids])),
            weights_UK=np.concatenate([self.weights_UK[kept_U], weights_UK]),
            effects=self.effects.with_users(kept_U, [one.effects for one in self.newcomers.values()]),
            newcomers={},
        )

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.inputs.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        flat = self.settled()
        arrays = flat.effects.arrays("effects.")
        arrays |= self.inputs.arrays() | {"population_K": self.population_K, "weights_UK": flat.weights_UK}
        return {"users": flat.users.ids.to_list(), "selection": dict(self.selection)}, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        return cls(
            Inputs.from_arrays(encoder, arrays),
            arrays["population_K"],
            Users(pl.Series("id", config["users"], dtype=pl.String)),
            arrays["weights_UK"],
            ResponseEffects.from_arrays(arrays, "effects."),
            config["selection"],
        )


class PopulationScorer(LinearScorer):
    """A linear scorer without known users."""

    kind: ClassVar[str] = "population"
    serves: ClassVar[Serves] = "population"


def no_users() -> Users:
    """No users."""
    return Users(pl.Series("id", [], dtype=pl.String))
