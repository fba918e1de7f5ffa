"""Features of a pool: reads cached ones and encodes missing ones, each distinct text once.

Suffixes here: ``_E`` distinct texts as the encoder reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import IntArray, Responses
from polypref.content import Identities
from polypref.errors import EncoderError
from polypref.features.cache import Features, Index, RowArray, Store
from polypref.progress import Progress

TextMode = Literal["response", "joint"]

CHUNK = 16_384  # texts tokenised and sorted by token length together; limits memory, not speed
WORK_PER_TEXT = 16  # cost of an empty text in characters, for the estimate of the time left


class Computes(Protocol):
    """The encoder's part besides the cache: encodes responses that the cache lacks."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def cache_folder(self) -> Path | str | None: ...

    @property
    def cache(self) -> Cache: ...

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        """Batches ``(index_B, features_BD)`` that together cover the pool once, in any order."""
        ...


_GATHERED: WeakKeyDictionary[Responses, dict[tuple[str, str], Features]] = WeakKeyDictionary()


Cache = Literal["disk", "memory"]

_CACHE: ContextVar[Cache] = ContextVar("where new encoders keep features", default="disk")


def cache_in_force() -> Cache:
    """Where an encoder that is made now keeps features, unless it is told."""
    return _CACHE.get()


def place_of(encoder: object) -> tuple[Path | str | None, Cache]:
    """An encoder's cache folder (None: the usual one), and where it keeps features; as a new one if it does not say."""
    return getattr(encoder, "cache_folder", None), getattr(encoder, "cache", cache_in_force())


@contextmanager
def caching_in(where: Cache) -> Iterator[None]:
    """Within this context, new encoders keep features on ``disk`` or in the process's ``memory``."""
    before = _CACHE.set(where)
    try:
        yield
    finally:
        _CACHE.reset(before)


_NO_STORE: ContextVar[bool] = ContextVar("no_store", default=False)


@contextmanager
def no_store(on: bool = True) -> Iterator[None]:
    """Within this context, new texts are encoded but not stored, since a policy's completions rarely recur.

    ``on=False``  within it, stores texts as usual, for those that do recur, such as prompts.
    """
    before = _NO_STORE.set(on)
    try:
        yield
    finally:
        _NO_STORE.reset(before)


def encode_cached(encoder: Computes, text: TextMode, responses: Responses) -> Features:
    """Features (R, D) of the pool, read-only; the same array if this pool object was encoded before.

    ``text`` says what the encoder reads: the response alone, or also its prompt. Raises CacheError if the cache cannot
    be written, EncoderError if the encoder fails.
    """
    assert not responses.bar_R.any(), "a bar is no text"
    if encoder.cache == "memory":
        return _in_memory(encoder, text, responses)
    store = Store(encoder.identity, encoder.cache_folder)
    return store.repaired(lambda: _encoded(store, encoder, text, responses))


def _encoded(store: Store, encoder: Computes, text: TextMode, responses: Responses) -> Features:
    memo, at = _GATHERED.setdefault(responses, {}), (str(store.folder), encoder.identity)
    if at not in memo:
        keys_R = responses.identity_R
        index = store.index()
        rows_R = index.rows(keys_R)
        if (rows_R < 0).any() and not _NO_STORE.get():
            with store.filling() as writer:
                missing = np.flatnonzero(store.index().rows(keys_R) < 0)  # another process may have filled meanwhile
                _fill(encoder, text, responses.take(missing.astype(np.int32)), writer)
            index = store.index()
            rows_R = index.rows(keys_R)
            assert (rows_R >= 0).all(), "every response was computed"
        if (rows_R < 0).any():
            features_RD = _with_unstored(encoder, text, responses, (store, index, rows_R))
        else:
            features_RD = store.read(index, keys_R, rows_R)
        features_RD.flags.writeable = False  # shared between callers
        memo[at] = features_RD
    return memo[at]


_KEPT: dict[str, _Memory] = {}  # by the encoder's identity, until the process ends


def _in_memory(encoder: Computes, text: TextMode, responses: Responses) -> Features:
    """Features of the pool, read-only; new ones are kept in memory, and the disk is neither read nor written."""
    memo, at = _GATHERED.setdefault(responses, {}), ("memory", encoder.identity)
    if at not in memo:
        kept, keys_R = _KEPT.get(encoder.identity) or _Memory(), responses.identity_R
        lacks_R = kept.lacks(keys_R)
        found = _Memory() if _NO_STORE.get() else kept
        if found is not kept and not lacks_R.all():
            found.append(keys_R[~lacks_R], kept.of(keys_R[~lacks_R]))
        _fill(encoder, text, responses.take(np.flatnonzero(lacks_R).astype(np.int32)), found)
        if not _NO_STORE.get():
            _KEPT[encoder.identity] = kept
        features_RD = found.of(keys_R)
        features_RD.flags.writeable = False
        memo[at] = features_RD
    return memo[at]


class Appends(Protocol):
    """Where encoded batches go: a store's writer, or memory."""

    def append(self, keys_B: Identities, features_BD: Features) -> None: ...


class _Memory:
    """Keeps batches in memory, by key."""

    def __init__(self) -> None:
        self._keys: list[Identities] = []
        self._features: list[Features] = []

    def append(self, keys_B: Identities, features_BD: Features) -> None:
        self._keys.append(keys_B)
        self._features.append(features_BD)

    def lacks(self, keys_R: Identities) -> NDArray[np.bool_]:
        """Which keys (R,) were not appended."""
        return ~np.isin(keys_R, np.concatenate(self._keys)) if self._keys else np.ones(len(keys_R), bool)

    def of(self, keys_R: Identities) -> Features:
        """Features (R, D) of keys that were appended."""
        if not self._keys:
            return np.empty((0, 0), np.float32)
        keys, features = np.concatenate(self._keys), np.concatenate(self._features)
        order = np.argsort(keys)
        return features[order[content.places(keys[order], keys_R)]]


def _with_unstored(
    encoder: Computes, text: TextMode, responses: Responses, stored: tuple[Store, Index, RowArray]
) -> Features:
    """Features of the pool; those that the store lacks are encoded but not stored."""
    store, index, rows_R = stored
    lacks_R = rows_R < 0
    memory, keys_R = _Memory(), responses.identity_R
    _fill(encoder, text, responses.take(np.flatnonzero(lacks_R).astype(np.int32)), memory)
    fresh_RD = memory.of(keys_R[lacks_R])
    if index.dim:
        store.ensure_same(index.dim, fresh_RD.shape[1])
    features_RD = np.empty((len(responses), fresh_RD.shape[1]), np.float32)
    features_RD[lacks_R] = fresh_RD
    if not lacks_R.all():
        features_RD[~lacks_R] = store.read(index, keys_R[~lacks_R], rows_R[~lacks_R])
    return features_RD


@dataclass(frozen=True, eq=False)
class _Groups:
    """Responses that are equal for the encoder: ``first_E`` represents rows ``order[start_E[g]:start_E[g + 1]]``."""

    first_E: RowArray
    order: RowArray
    start_E: RowArray

    def members(self, groups: RowArray) -> tuple[RowArray, RowArray]:
        """All rows of the groups, and for each row the position of its group in ``groups``."""
        size = self.start_E[groups + 1] - self.start_E[groups]
        position = np.repeat(np.arange(len(groups)), size)
        offset = np.arange(len(position)) - np.repeat(np.cumsum(size) - size, size)
        return self.order[self.start_E[groups][position] + offset], position


def _groups(responses: Responses, text: TextMode) -> _Groups:
    """Groups of equal texts, longest first; without prompts, equal responses to different prompts are one text."""
    if text == "response":
        code_R = responses.texts_R.rank("dense").to_numpy().astype(np.int64)
    else:
        code_R = responses.identity_R
    _, first_E, inverse_R, count_E = np.unique(code_R, return_index=True, return_inverse=True, return_counts=True)
    longest_E = np.argsort(-responses.lengths_R[first_E], kind="stable")
    rank_E = np.empty_like(longest_E)
    rank_E[longest_E] = np.arange(len(longest_E))
    order = np.argsort(rank_E[inverse_R], kind="stable")
    return _Groups(first_E[longest_E], order, np.concatenate([[0], np.cumsum(count_E[longest_E])]))


def _fill(encoder: Computes, text: TextMode, missing: Responses, writer: Appends) -> None:
    if not len(missing):
        return
    groups = _groups(missing, text)
    work_E = missing.lengths_R[groups.first_E] + WORK_PER_TEXT
    with Progress(f"encoding with {encoder.name}", len(groups.first_E), "texts", float(work_E.sum())) as progress:
        for start in range(0, len(groups.first_E), CHUNK):
            first = groups.first_E[start : start + CHUNK]
            for index_B, features_BD in encoder.compute(missing.take(first.astype(np.int32))):
                _refuse_non_finite(encoder, missing, first[index_B], features_BD)
                rows, position = groups.members(start + np.asarray(index_B, np.int64))
                writer.append(missing.identity_R[rows], features_BD[position])
                progress.advance(len(index_B), float(work_E[start + index_B].sum()))


def _refuse_non_finite(encoder: Computes, responses: Responses, rows: RowArray, features_BD: Features) -> None:
    bad = np.flatnonzero(~np.isfinite(features_BD).all(axis=1))
    if len(bad):
        text = responses.texts_R[int(rows[bad[0]])]
        excerpt = repr(text if len(text) <= 60 else text[:60] + "...")
        raise EncoderError(
            f"{encoder.name} gives NaN or infinite features for the response {excerpt} ({len(text):,} characters); "
            "use another dtype or another encoder."
        )


def batches(length_R: NDArray[np.integer] | pl.Series, size: int) -> Iterator[IntArray]:
    """Index batches of ``size`` texts of similar length, longest first, to limit padding."""
    order = np.argsort(-np.asarray(length_R, np.int64), kind="stable").astype(np.int32)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def pairs(responses: Responses, text: TextMode) -> list[tuple[str, str]]:
    """(prompt, response) of each response; the prompt is "" if the response is read alone."""
    tails = responses.texts_R.to_list()
    if text == "response":
        return [("", tail) for tail in tails]
    prompt_R = responses.prompt_R.tolist()
    heads = {p: responses.prompt_text(p) for p in set(prompt_R)}
    return [(heads[p], tail) for p, tail in zip(prompt_R, tails, strict=True)]
