"""One shared reward that reads the user's id, put in front of the prompt.

Paper: Dong et al. 2025, "When Personalization Meets Reality", section 4.1, Conditional: every text becomes

    User ID: {id}
    {prompt}

    {response}

and one reward is fitted to all users' judgements, as ``pooled`` does.

What we changed: a linear reward on frozen features of that text instead of a tuned language model. A share of the
training rows carries no id, so that strangers, and tests of ability, which have no user, get an input seen in training.
The id survives truncation: encoders keep a text's beginning, and the text begins with the id. Only the last
``prompt_characters`` of the prompt follow, so that a long prompt does not push the response out. The id is the data's
own, so users' names matter, and an encoder behind an endpoint sees them. Limit of a linear reward: the id adds about
the same to the features of both responses, so it nearly cancels in their difference, and opposed users get nearly the
same answer. Each (user, response) is a separate text to encode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import BoolArray, Comparisons, IntArray, Responses, Users, concat
from polypref.content import BAR
from polypref.features.protocol import Encoder
from polypref.learners import linear, validation
from polypref.learners.linear import LAYOUT, PopulationScorer
from polypref.learners.pooled import Pooled
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.provenance import recorded
from polypref.schema import Ids, Layout

GENERIC = ""  # the id of no user


@dataclass(frozen=True)
class Conditional:
    """Settings of the shared reward that reads the user's id."""

    generic_share: float = 0.5
    """Share of the training rows that carry no id."""
    prompt_characters: int = 300
    """Characters of the prompt that are read, from its end."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> ConditionalScorer:
        """See ``learners.protocol.Learner``. Nothing is chosen on ``valid``; it is measured, then joins the fit."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        own_N = np.where(self._generic(whole, seed), len(whole.users), whole.user_N)
        own_N[len(train) :] = whole.user_N[len(train) :]  # measured under the same ids as users will be answered
        both_N = np.concatenate([whole.chosen_N, whole.rejected_N])
        ids = with_generic(whole.users)
        pool, place = addressed(whole.responses, ids, np.tile(own_N, 2), both_N, self.prompt_characters)
        addressed_rows = replace(whole, responses=pool, chosen_N=place[: len(whole)], rejected_N=place[len(whole) :])
        first = np.arange(len(whole)) < len(train)
        inner = Pooled(directions=self.directions).fit(
            addressed_rows.take(first), encoder=encoder, seed=seed, valid=addressed_rows.take(~first)
        )
        users = Users(whole.users.ids.gather(np.unique(whole.user_N)))
        return ConditionalScorer(inner, users, self.prompt_characters)

    def _generic(self, rows: Comparisons, seed: int) -> BoolArray:
        """Which rows carry no id: drawn by user and pair, so that the order of rows does not matter."""
        digests = (blake2b(f"{seed} {user}".encode(), digest_size=8).digest() for user in rows.users.ids)
        key_U = np.frombuffer(b"".join(digests), "<u8")
        with np.errstate(over="ignore"):
            bits_N = rows.pair_key_N * np.uint64(0x9E3779B97F4A7C15) ^ key_U[rows.user_N]
            bits_N = (bits_N ^ (bits_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits_N = (bits_N ^ (bits_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (bits_N >> np.uint64(11)) < self.generic_share * 2.0**53


def with_generic(users: Users) -> pl.Series:
    """Everybody's id and, last, the generic one."""
    return pl.concat([users.ids, pl.Series(users.ids.name, [GENERIC], dtype=pl.String)])


def addressed(
    responses: Responses, ids: pl.Series, id_Q: NDArray[np.integer], response_Q: IntArray, prompt_characters: int
) -> tuple[Responses, IntArray]:
    """Pool of the distinct texts "User ID: id, prompt, response" of the questions, and each question's place in it.

    ``id_Q`` are places in ``ids``. The text contains the prompt, so the pool's own prompts are empty: one for each (id,
    prompt), within which responses are compared. Lengths are those of the responses alone.
    """
    code_Q = id_Q.astype(np.int64) * len(responses) + response_Q
    distinct, place_Q = np.unique(code_Q, return_inverse=True)
    id_R, response_R = np.divmod(distinct, max(len(responses), 1))
    prompt_R = responses.prompt_R[response_R]
    used_P, at_R = np.unique(prompt_R, return_inverse=True)
    whole_P = (responses.prompt_text(int(p)) for p in used_P)
    prompts = pl.Series([text[max(len(text) - prompt_characters, 0) :] for text in whole_P], dtype=pl.String)
    parts = pl.DataFrame(
        {"id": ids.gather(id_R), "prompt": prompts.gather(at_R), "response": responses.texts_R.gather(response_R)}
    )
    addressed_as = pl.format("User ID: {}\n{}\n\n{}", *parts.columns)
    texts_R = parts.select(pl.when(pl.col.response == BAR).then(pl.lit(BAR)).otherwise(addressed_as)).to_series()
    group, group_R = np.unique(id_R * max(len(responses.prompts), 1) + prompt_R, return_inverse=True)
    pool = Responses(pl.Series([""] * len(group), dtype=pl.String), group_R.astype(np.int32), texts_R)
    pool.__dict__["lengths_R"] = responses.lengths_R[response_R]
    return pool, place_Q.astype(np.int32)


class Fields(TypedDict):
    """Settings of a saved scorer."""

    users: Ids
    prompt_characters: int
    inner: linear.Fields


@dataclass(frozen=True, eq=False, repr=False)
class ConditionalScorer(RanksTexts):
    """The shared reward on texts that begin with an id; only those of ``users`` were trained on."""

    inner: PopulationScorer
    users: Users
    prompt_characters: int

    kind: ClassVar[str] = "conditional"
    layout: ClassVar[Layout] = replace(LAYOUT, fields=Fields, sizes={"U": "inner.users"})
    serves: ClassVar[Serves] = "seen_users"

    @property
    def selection(self) -> Mapping[str, float | str]:
        return self.inner.selection

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``; strangers are answered without an id."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        user_Q = self.users.index(id_Q)  # -1: a stranger; the last id is the generic one
        ids = with_generic(self.users)
        pool, place_Q = addressed(responses, ids, user_Q % len(ids), response_Q, self.prompt_characters)
        value_Q = self.inner.score(pool, None).value_Q[place_Q]
        return Scores(value_Q, np.where(user_Q >= 0, PERSONAL, POPULATION).astype(np.int8))

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.inner.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        inner, arrays = self.inner.state()
        config = {"users": self.users.ids.to_list(), "prompt_characters": self.prompt_characters, "inner": inner}
        return config, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        inner = PopulationScorer.from_state(config["inner"], arrays, encoder)
        users = Users(pl.Series("id", config["users"], dtype=pl.String))
        return cls(inner, users, config["prompt_characters"])
