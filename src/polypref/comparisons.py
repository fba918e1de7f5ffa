"""The three nouns that everything passes around: Responses, Users, Comparisons.

Shape suffixes: ``_P`` distinct prompts, ``_R`` distinct responses (a text answering a prompt), ``_U`` users, ``_N``
comparisons. Each distinct text is stored once, hence encoded once. The classes stay small: selection and statistics are
functions beside their use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]
KeyArray = NDArray[np.uint64]

Message = Mapping[str, object]


def canonical_chat(messages: Sequence[Message]) -> str:
    """One chat prompt as the canonical JSON string that ``Responses.prompts`` stores."""
    return json.dumps([dict(m) for m in messages], ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, eq=False)
class Responses:
    """The pool: R distinct (prompt, response) texts over P distinct prompts.

    ``prompts``  string column (P); a chat prompt is stored as ``canonical_chat`` JSON and marked in ``chat_P``.
    ``prompt_R`` index of the prompt that each response answers.
    ``texts_R``  string column (R), Arrow-backed, may be memory-mapped.
    ``chat_P``   which prompts are chat messages; None when none is.
    """

    prompts: pl.Series
    prompt_R: IntArray
    texts_R: pl.Series
    chat_P: BoolArray | None = None

    def __len__(self) -> int:
        return len(self.texts_R)

    @cached_property
    def keys_R(self) -> KeyArray:
        """Content key of each (prompt, response): 64-bit BLAKE2, stable over machines and versions.

        Two of a million distinct texts share a key with probability 3e-8.
        """
        prefix_P = [
            blake2b(b"chat\0" if chat else b"text\0", digest_size=8)
            for chat in (self.chat_P if self.chat_P is not None else np.zeros(len(self.prompts), bool))
        ]
        for state, prompt in zip(prefix_P, self.prompts, strict=True):
            state.update(prompt.encode() + b"\0")
        keys = bytearray()
        for p, text in zip(self.prompt_R.tolist(), self.texts_R, strict=True):
            state = prefix_P[p].copy()
            state.update(text.encode())
            keys += state.digest()
        return np.frombuffer(bytes(keys), dtype="<u8")

    @cached_property
    def lengths_R(self) -> IntArray:
        """Characters in each response."""
        return self.texts_R.str.len_chars().to_numpy().astype(np.int32)

    def messages(self, prompt: int) -> list[dict[str, object]]:
        """Prompt number ``prompt`` as chat messages; a text prompt is one user message."""
        text = self.prompts[prompt]
        if self.chat_P is not None and self.chat_P[prompt]:
            return json.loads(text)
        return [{"role": "user", "content": text}]

    def prompt_text(self, prompt: int) -> str:
        """Prompt number ``prompt`` as plain text; chat turns as ``role: content`` lines."""
        if self.chat_P is not None and self.chat_P[prompt]:
            return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in self.messages(prompt))
        return self.prompts[prompt]

    def take(self, index: IntArray) -> Responses:
        """The responses numbered ``index``; all prompts are kept."""
        taken = replace(self, prompt_R=self.prompt_R[index], texts_R=self.texts_R.gather(index))
        for name in ("keys_R", "lengths_R"):  # what is computed already need not be computed again
            if name in self.__dict__:
                taken.__dict__[name] = self.__dict__[name][index]
        return taken


@dataclass(frozen=True, eq=False)
class Users:
    """U people by id, with optional attributes (group, demographics): one row per user, same order."""

    ids: pl.Series
    attributes: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, user_ids: pl.Series | Sequence[str]) -> IntArray:
        """Position of each id, -1 for an id that is not here."""
        wanted = pl.DataFrame({"id": pl.Series(user_ids, dtype=pl.String)})
        known = pl.DataFrame({"id": self.ids, "at": np.arange(len(self.ids), dtype=np.int32)})
        found = wanted.join(known, on="id", how="left", maintain_order="left")
        return found["at"].fill_null(-1).to_numpy().astype(np.int32)

    def with_last(self, user_id: str) -> tuple[IntArray, Users]:
        """Where everybody but ``user_id`` stands, and those users in that order with ``user_id`` behind; ids only."""
        others = np.flatnonzero((self.ids != user_id).to_numpy()).astype(np.int32)
        return others, Users(pl.concat([self.ids.gather(others), pl.Series(self.ids.name, [user_id], dtype=pl.String)]))


@dataclass(frozen=True, eq=False)
class Comparisons:
    """N judgements over one pool: user ``user_N`` prefers response ``chosen_N`` over response ``rejected_N``.

    ``tie_N``    True where the user called it a tie (chosen / rejected then carry no order); None when nobody did.
    ``weight_N`` non-negative weight of the judgement; None means 1.
    ``time_N``   seconds since 1970-01-01 UTC, NaN where unknown.
    ``pair_N``   code of the data's own pair id, -1 where it has none.
    ``lists``    "ratings" or "rankings" where judgements were made from lists of responses, so that those of one list
                 imply each other; "pairs" where each is known to be made by itself; "" where nothing is known of it.
    """

    responses: Responses
    users: Users
    user_N: IntArray
    chosen_N: IntArray
    rejected_N: IntArray
    tie_N: BoolArray | None = None
    weight_N: FloatArray | None = None
    time_N: FloatArray | None = None
    pair_N: IntArray | None = None
    lists: str = ""

    def __len__(self) -> int:
        return len(self.user_N)

    @cached_property
    def label_N(self) -> NDArray[np.float64]:
        """Probability that the first response won: 1, or one half for a tie."""
        return np.ones(len(self)) if self.tie_N is None else np.where(self.tie_N, 0.5, 1.0)

    @cached_property
    def weights_N(self) -> NDArray[np.float64]:
        """``weight_N`` with its default, 1, filled in."""
        return np.ones(len(self)) if self.weight_N is None else np.asarray(self.weight_N, np.float64)

    @cached_property
    def pair_key_N(self) -> KeyArray:
        """Order-free content key of the two texts judged: equal for equal text pairs, whatever their pair id."""
        keys_R = self.responses.keys_R
        a_N, b_N = keys_R[self.chosen_N], keys_R[self.rejected_N]
        low, high = np.minimum(a_N, b_N), np.maximum(a_N, b_N)
        with np.errstate(over="ignore"):
            mixed = (low ^ (high >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + high
            return (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)

    def swapped(self) -> Comparisons:
        """Every judgement told the other way round: the symmetry of the data, for tests and debiasing."""
        return replace(self, chosen_N=self.rejected_N, rejected_N=self.chosen_N)

    def take(self, rows: NDArray[np.integer] | BoolArray) -> Comparisons:
        """The judgements numbered (or marked) ``rows``; pool and users are shared, not copied."""
        cut = {
            name: None if (column := getattr(self, name)) is None else column[rows]
            for name in ("user_N", "chosen_N", "rejected_N", "tie_N", "weight_N", "time_N", "pair_N")
        }
        taken = replace(self, **cut)
        if "pair_key_N" in self.__dict__:
            taken.__dict__["pair_key_N"] = self.pair_key_N[rows]
        return taken

    @cached_property
    def content_hash(self) -> str:
        """Hash of who judged which texts how (16 hex digits): the data's name in caches and reports."""
        state = blake2b(digest_size=8)
        user_key_U = np.frombuffer(
            b"".join(blake2b(i.encode(), digest_size=8).digest() for i in self.users.ids), dtype="<u8"
        )
        keys_R = self.responses.keys_R
        for column in (user_key_U[self.user_N], keys_R[self.chosen_N], keys_R[self.rejected_N]):
            state.update(np.ascontiguousarray(column).data)
        for name in ("tie_N", "weight_N"):
            column = getattr(self, name)
            state.update(b"-" if column is None else np.ascontiguousarray(column).data)
        return state.hexdigest()


def concat(first: Comparisons, second: Comparisons) -> Comparisons:
    """The judgements of both, over the pool and users that they share."""
    assert first.responses is second.responses and first.users is second.users, "parts of one data set only"
    columns = {}
    for name, missing in (("tie_N", False), ("weight_N", 1.0), ("time_N", np.nan), ("pair_N", -1)):
        parts = [getattr(part, name) for part in (first, second)]
        if any(part is not None for part in parts):
            filled = [np.full(len(c), missing) if p is None else p for c, p in zip((first, second), parts, strict=True)]
            columns[name] = np.concatenate(filled)
    for name in ("user_N", "chosen_N", "rejected_N"):
        columns[name] = np.concatenate([getattr(first, name), getattr(second, name)])
    return replace(first, **{"tie_N": None, "weight_N": None, "time_N": None, "pair_N": None, **columns})


def from_columns(
    user_ids: Sequence[str] | pl.Series,
    prompts: Sequence[str | Sequence[Message]] | pl.Series,
    chosen: Sequence[str] | pl.Series,
    rejected: Sequence[str] | pl.Series,
    **optional: NDArray | None,
) -> Comparisons:
    """Build Comparisons from N-long columns held in memory; each distinct text is kept once, in order of appearance.

    A prompt is a text or a list of chat messages. ``optional`` takes ``tie_N``, ``weight_N``, ``time_N``, ``pair_N``.
    """
    is_chat = [not isinstance(p, str) for p in prompts]
    prompt_N = [p if isinstance(p, str) else canonical_chat(p) for p in prompts]
    n = len(prompt_N)
    sides = pl.DataFrame(
        {
            "prompt": pl.Series(prompt_N + prompt_N, dtype=pl.String),
            "chat": is_chat + is_chat,
            "text": pl.concat([pl.Series("", chosen, dtype=pl.String), pl.Series("", rejected, dtype=pl.String)]),
        }
    )
    prompt_table = sides.select("prompt", "chat").unique(maintain_order=True).with_row_index("p")
    sides = sides.join(prompt_table, on=["prompt", "chat"], how="left", maintain_order="left")
    pool = sides.select("p", "text").unique(maintain_order=True).with_row_index("r")
    code_2N = sides.join(pool, on=["p", "text"], how="left", maintain_order="left")["r"].to_numpy().astype(np.int32)
    ids = pl.Series("id", user_ids, dtype=pl.String)
    users = Users(ids.unique(maintain_order=True))
    chat_P = prompt_table["chat"].to_numpy()
    responses = Responses(
        prompts=prompt_table["prompt"],
        prompt_R=pool["p"].to_numpy().astype(np.int32),
        texts_R=pool["text"],
        chat_P=chat_P if chat_P.any() else None,
    )
    return Comparisons(responses, users, users.index(ids), code_2N[:n], code_2N[n:], **optional)  # type: ignore[arg-type]
