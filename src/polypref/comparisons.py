"""The three data types that all functions share: Responses, Users, Comparisons.

Each distinct text is stored once, and so encoded once. The classes are small: selection and statistics are functions
where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.content import BAR, BYTES, Identities, Message, canonical_chat, identities, refuse, refuse_escaped
from polypref.errors import InputError, SettingsError, unknown_name
from polypref.notebook import ShownComparisons, ShownResponses, ShownUsers

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]
KeyArray = NDArray[np.uint64]


@dataclass(frozen=True, eq=False, repr=False)
class Responses(ShownResponses):
    """The pool: R distinct (prompt, response) texts over P distinct prompts.

    ``prompts``  string column (P); a chat prompt is stored as ``canonical_chat`` JSON and marked in ``chat_P``.
    ``prompt_R`` index of the prompt that each response answers.
    ``texts_R``  string column (R), Arrow-backed, may be memory-mapped.
    ``chat_P``   which prompts are chat messages; None if none is.

    Raises InputError for texts that are missing or contain a NUL character.
    """

    prompts: pl.Series
    prompt_R: IntArray
    texts_R: pl.Series
    chat_P: BoolArray | None = None

    def __post_init__(self) -> None:
        refuse(self.prompts, "prompt")
        refuse(self.texts_R, "response", spare=BAR)
        if self.chat_P is not None:
            refuse_escaped(self.prompts.filter(pl.Series(self.chat_P)), "chat prompt")

    @classmethod
    def of(
        cls,
        prompts: Sequence[str | Sequence[Message]] | pl.Series,
        texts: Sequence[str] | pl.Series,
        chat_Q: pl.Series | BoolArray | None = None,
    ) -> tuple[Responses, IntArray]:
        """A pool without people: ``(responses, response_Q)`` of Q prompts and their responses.

        A prompt is a text or a list of chat messages; ``chat_Q`` marks those that are ``canonical_chat`` JSON already.
        ``response_Q[q]`` is the number of (prompt, text) q in the pool, which contains each once, in order of
        appearance. Raises InputError for values that are not text, and for NUL characters.
        """
        text_Q = content.texts(texts, "response")
        if len(prompts) != len(text_Q):
            raise InputError(f"{len(prompts)} prompts and {len(text_Q)} responses; expected one for each.")
        return _pool(prompts, [text_Q], chat_Q)

    @classmethod
    def slate(cls, prompt: str | Sequence[Message], texts: Sequence[str] | pl.Series) -> tuple[Responses, IntArray]:
        """``of([prompt] * len(texts), texts)``, at least one text, without copies of the prompt."""
        asked = cls.of([prompt], texts[:1])[0]
        texts_R, code_Q = content.numbered(content.texts(texts, "response").to_list())
        prompt_R, code_Q = np.zeros(len(texts_R), np.int32), np.array(code_Q, np.int32)
        return cls(asked.prompts, prompt_R, pl.Series("text", texts_R), asked.chat_P), code_Q

    def __len__(self) -> int:
        return len(self.texts_R)

    @cached_property
    def identity_R(self) -> Identities:
        """Identity of each text: 128-bit BLAKE2 of the prompt's kind, length and text, and the response.

        Everything that recognises texts by content uses it: caches, the gate's memory, texts used in training or
        calibration, effects of single texts. It is stable over machines and versions; Unicode forms are different
        texts.
        """
        return identities(self._hashed(content.framed, BYTES))

    @cached_property
    def keys_R(self) -> KeyArray:
        """A content-based number for each (prompt, response): 64-bit BLAKE2, stable over machines and versions.

        For draws and orders (splits, starts, pairs), never for security: 2^32 tries find two texts with the same
        number. Two of a million distinct texts share one with probability 3e-8.
        """
        return np.frombuffer(bytes(self._hashed(lambda part: part.encode() + b"\0", 8)), "<u8")

    @property
    def is_chat_P(self) -> BoolArray:
        """Whether each prompt (P,) is a list of chat messages."""
        return np.zeros(len(self.prompts), bool) if self.chat_P is None else self.chat_P

    def _hashed(self, framed: Callable[[str], bytes], size: int) -> bytearray:
        """Digests of (kind, prompt, response), concatenated; ``framed`` ends a part that another one follows."""
        prefix_P = [
            blake2b(framed("chat" if chat else "text") + framed(prompt), digest_size=size)
            for chat, prompt in zip(self.is_chat_P, self.prompts, strict=True)
        ]
        digests = bytearray()
        for p, text in zip(self.prompt_R.tolist(), content.utf8(self.texts_R), strict=True):
            state = prefix_P[p].copy()
            state.update(text)
            digests += state.digest()
        return digests

    @cached_property
    def bar_R(self) -> BoolArray:
        """Which responses are bars, against which single responses were liked or disliked (``data.thumbs``)."""
        if content.are_few(self.texts_R):
            return np.array([text == BAR for text in self.texts_R.to_list()], bool)
        return (self.texts_R == BAR).to_numpy()

    @cached_property
    def lengths_R(self) -> IntArray:
        """Characters in each response."""
        if content.are_few(self.texts_R):
            return np.array([len(text) for text in self.texts_R.to_list()], np.int32)
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

    def take(self, index: IntArray, prompts: IntArray | None = None) -> Responses:
        """The responses numbered ``index``; all prompts are kept, or those numbered ``prompts``, in that order."""
        taken = object.__new__(Responses)  # the texts were checked when this pool was made
        cut = {"prompt_R": self.prompt_R[index], "texts_R": self.texts_R.gather(index)}
        taken.__dict__.update({"prompts": self.prompts, "chat_P": self.chat_P, **cut})
        if prompts is not None:
            new_P = np.full(len(self.prompts), -1, np.int32)
            new_P[prompts] = np.arange(len(prompts), dtype=np.int32)
            chat_P = None if self.chat_P is None or not self.chat_P[prompts].any() else self.chat_P[prompts]
            kept = {"prompts": self.prompts.gather(prompts), "chat_P": chat_P, "prompt_R": new_P[cut["prompt_R"]]}
            taken.__dict__.update(kept)
        for name in ("identity_R", "keys_R", "lengths_R", "bar_R"):  # keep what is already computed
            if name in self.__dict__:
                taken.__dict__[name] = self.__dict__[name][index]
        return taken


@dataclass(frozen=True, eq=False, repr=False)
class Users(ShownUsers):
    """U people by id, with optional attributes (group, demographics): one row per user, same order.

    Raises InputError for impossible ids: missing, empty, or with a NUL character.
    """

    ids: pl.Series
    attributes: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        content.ids(self.ids)

    @staticmethod
    def nobody(many: int = 1) -> Users:
        """Unknown people, see ``content.strangers``; the population answers them."""
        users = object.__new__(Users)
        users.__dict__.update(ids=content.strangers(many), attributes=None)
        return users

    def with_nobody(self) -> Users:
        """These users by id, followed by an unknown one."""
        users = Users.nobody()
        users.__dict__["ids"] = pl.concat([self.ids.alias("id"), users.ids])
        return users

    def __len__(self) -> int:
        return len(self.ids)

    def values_of(self, name: str) -> pl.Series:
        """The attribute ``name`` of each user (U,), as text; null: not given. Raises SettingsError if there is none."""
        if self.attributes is None or not self.attributes.columns:
            raise SettingsError(
                f"users have no attribute {name!r}: the data have no attributes. Give a column attributes of JSON "
                "objects, or leave out the attribute."
            )
        if name not in self.attributes.columns:
            raise unknown_name("user attribute", name, self.attributes.columns)
        return self.attributes[name].cast(pl.String)

    def index(self, user_ids: pl.Series | Sequence[str]) -> IntArray:
        """Position of each id, -1 for an unknown or missing id."""
        ids_Q = user_ids if isinstance(user_ids, pl.Series) else pl.Series(user_ids, dtype=pl.String)
        if ids_Q.dtype == pl.String and content.are_few(ids_Q):
            return np.array([self._places.get(one, -1) for one in ids_Q.to_list()], np.int32)
        wanted = pl.DataFrame({"id": pl.Series(ids_Q, dtype=pl.String)})
        known = pl.DataFrame({"id": self.ids, "at": np.arange(len(self.ids), dtype=np.int32)})
        found = wanted.join(known, on="id", how="left", maintain_order="left")
        return found["at"].fill_null(-1).to_numpy().astype(np.int32)

    @cached_property
    def _places(self) -> dict[str | None, int]:
        """The position of each id; a missing one has none."""
        return dict(zip(self.ids.to_list(), range(len(self)), strict=True)) | {None: -1}

    def with_last(self, user_id: str) -> tuple[IntArray, Users]:
        """Places of everybody but ``user_id``, and these users in that order followed by ``user_id``; ids only."""
        others = np.flatnonzero((self.ids != user_id).to_numpy()).astype(np.int32)
        return others, Users(pl.concat([self.ids.gather(others), pl.Series(self.ids.name, [user_id], dtype=pl.String)]))


@dataclass(frozen=True, eq=False, repr=False)
class Comparisons(ShownComparisons):
    """N judgements over one pool: user ``user_N`` prefers response ``chosen_N`` over response ``rejected_N``.

    ``tie_N``    True where the user called it a tie (chosen / rejected then have no order); None if there are no ties.
    ``weight_N`` non-negative weight of the judgement; None means 1.
    ``time_N``   seconds since 1970-01-01 UTC, NaN if unknown.
    ``pair_N``   code of the data's own pair id, -1 without one.
    ``lists``    "ratings" or "rankings" where judgements were made from lists of responses, so that those of one list
                 imply each other; "pairs" where each is known to be made by itself; "thumbs" where each is of a single
                 response, against a bar (``data.thumbs``); "" where nothing is known of it.
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
        """Every judgement with chosen and rejected swapped: the symmetry of the data, for tests and debiasing."""
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

    def weighing(self) -> Comparisons:
        """The judgements of positive weight, since weight 0 affects no figure. The same object if all have."""
        return self if self.weight_N is None or (self.weights_N > 0).all() else self.take(self.weights_N > 0)

    @cached_property
    def content_hash(self) -> str:
        """Hash of everything that affects a figure (32 hex digits): the data's name in caches and reports.

        It covers users, texts, labels, times, weights, pairs, and users' attributes. Users and texts count by content,
        so renumbering them does not change the data.
        """
        user_U, identity_R = self._user_identities(), self.responses.identity_R
        columns = [self.lists, user_U[self.user_N], identity_R[self.chosen_N], identity_R[self.rejected_N]]
        for name, missing, kind in OPTIONAL:
            column = getattr(self, name)
            column_N = np.full(len(self), missing, kind) if column is None else np.asarray(column, kind)
            if kind == "<f8":  # one zero and one NaN: their signs have no meaning
                column_N = np.where(np.isnan(column_N), np.nan, column_N + 0.0)
            columns.append(_first_places(column_N) if name == "pair_N" and column is not None else column_N)
        return content.hexdigest(*columns)

    def _user_identities(self) -> Identities:
        """Digests of ids and attributes (U,); the order of the attributes' columns does not matter."""
        known = self.users.attributes
        names = [] if known is None else sorted(known.columns)
        columns = [self.users.ids.to_list(), *(map(_value, known[name].to_list()) for name in names)]  # type: ignore[index]
        parts_U = (
            [user, *(part for both in zip(names, about, strict=True) for part in both)]
            for user, *about in zip(*columns, strict=True)
        )
        return identities(b"".join(content.digest(*parts) for parts in parts_U))


OPTIONAL: tuple[tuple[str, float, str], ...] = (  # column, its default, and its type
    ("tie_N", False, "?"),
    ("weight_N", 1.0, "<f8"),
    ("time_N", np.nan, "<f8"),
    ("pair_N", -1, "<i8"),
)


def _value(value: object) -> str | None:
    """An attribute's value as a unique text; missing stays missing, and zero has no sign."""
    if isinstance(value, float):
        value += 0.0
    return None if value is None else f"{type(value).__name__} {value!r}"


def _first_places(code_N: NDArray[np.integer]) -> NDArray[np.int64]:
    """Codes renumbered by first occurrence; -1 stays."""
    _, first, inverse_N = np.unique(code_N, return_index=True, return_inverse=True)
    return np.where(code_N < 0, -1, first[inverse_N]).astype("<i8")


def concat(first: Comparisons, second: Comparisons) -> Comparisons:
    """The judgements of both, over the pool and users that they share."""
    assert first.responses is second.responses and first.users is second.users, "parts of one data set only"
    columns = {}
    for name, missing, _ in OPTIONAL:
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
    **optional: Sequence[float] | NDArray | None,
) -> Comparisons:
    """Build Comparisons from N-long columns held in memory; each distinct text is kept once, in order of appearance.

    A prompt is a text or a list of chat messages. ``optional`` takes ``tie_N``, ``weight_N``, ``time_N``, ``pair_N``.
    Raises InputError for values that are not text, for NUL characters, for empty user ids, and for optional columns of
    another length or with impossible values.
    """
    for name in optional:
        if name not in content.FITS:
            raise unknown_name("optional column", name, content.FITS)
    id_N = content.ids(user_ids).alias("id")
    sides = [content.texts(chosen, "chosen response"), content.texts(rejected, "rejected response")]
    n = len(id_N)
    if any(len(column) != n for column in (prompts, *sides)):
        lengths = ", ".join(f"{len(column)}" for column in (id_N, prompts, *sides))
        raise InputError(f"user ids, prompts, chosen and rejected are columns of {lengths}; expected one length.")
    given: dict[str, Any] = {
        name: content.optional(name, values, n) for name, values in optional.items() if values is not None
    }
    responses, code_2N = _pool(prompts, sides)
    users = Users(id_N.unique(maintain_order=True))
    return Comparisons(responses, users, users.index(id_N), code_2N[:n], code_2N[n:], **given)


def _pool(
    prompts: Sequence[str | Sequence[Message]] | pl.Series,
    sides: Sequence[pl.Series],
    chat_N: pl.Series | BoolArray | None = None,
) -> tuple[Responses, IntArray]:
    """Distinct (prompt, text) in order of appearance, and the number of each, side by side; N prompts on each side."""
    if chat_N is not None or (isinstance(prompts, pl.Series) and prompts.dtype == pl.String):
        prompt_N = content.texts(prompts, "prompt")  # type: ignore[arg-type]
        chat_N = np.zeros(len(prompt_N), bool) if chat_N is None else np.asarray(chat_N, bool)
    else:
        chat_N = np.array([not isinstance(p, str) for p in prompts], bool)
        texts = [p if isinstance(p, str) else canonical_chat(p) for p in prompts]
        prompt_N = content.texts(texts, "prompt")
    prompts, chat_P, prompt_R, texts_R, code_Q = content.distinct(prompt_N, chat_N, sides)
    return Responses(prompts, prompt_R, texts_R, chat_P if chat_P.any() else None), code_Q
