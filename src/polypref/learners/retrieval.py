"""Retrieval: finds a user's most similar earlier comparisons.

A comparison's vector is the sum of the unit features of its prompt and its two responses, normalised to unit length. It
ignores which of the two was preferred, so a query cannot contain the label in question. Similarity is the cosine. The
queried pair itself is never found, so a training row is not judged by its own label.

Suffixes here: ``_K`` neighbours, ``_M`` remembered comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Responses, Users
from polypref.errors import ArtifactError
from polypref.features.protocol import Encoder
from polypref.learners.canonical_order import Numbering
from polypref.schema import Array, Ids, conform, indices
from polypref.strict_json import parse

PORTION = 1 << 22  # similarities held at once
STEPS = 1e5  # similarities closer than one step are equal, so that rounding decides nothing


class Fields(TypedDict):
    """Settings of a saved memory."""

    users: Ids


ARRAYS = {
    "memory.user_N": Array(("M",), "int32", below="U", rises="weakly"),
    "memory.chosen_N": indices("M", "R"),
    "memory.rejected_N": indices("M", "R"),
    "memory.prompt_R": indices("R", "P"),
    "memory.chat_P": Array(("P",), "bool"),
    "memory.texts.bytes": Array(("B",), "uint8"),
    "memory.texts.ends": Array(("R",), "int64", below="B+1", rises="weakly"),
    "memory.prompts.bytes": Array(("A",), "uint8"),
    "memory.prompts.ends": Array(("P",), "int64", below="A+1", rises="weakly"),
}


def wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    """What is wrong with a saved memory's texts; None: nothing."""
    for name in ("texts", "prompts"):
        content, ends = arrays[f"memory.{name}.bytes"], arrays[f"memory.{name}.ends"]
        if (int(ends[-1]) if len(ends) else 0) != len(content):
            return f"the {name} do not end where their bytes do"
        try:
            _texts(arrays, name)
        except UnicodeDecodeError:
            return f"one of the {name} is not UTF-8 text"
    for prompt in _texts(arrays, "prompts").filter(pl.Series(arrays["memory.chat_P"], dtype=pl.Boolean)):
        try:
            conform(parse(prompt.encode(), "a chat prompt"), list[dict[str, Any]], "a chat prompt")
        except ArtifactError as error:
            return str(error).rstrip(".")
    return None


@dataclass(frozen=True, eq=False)
class Memory:
    """Decided judgements ordered by content, and the encoder that finds similar ones.

    ``rows`` are sorted by user, then by pair; ``rows.responses`` holds only their texts, in the order of their keys.
    """

    encoder: Encoder
    rows: Comparisons

    @classmethod
    def of(cls, encoder: Encoder, rows: Comparisons) -> Self:
        """Remember ``rows``; ties and judgements of weight 0 show no choice and are left out."""
        rows = rows.take((rows.label_N != 0.5) & (rows.weights_N > 0))
        numbers = Numbering.of(rows)
        user_M, chosen_M, rejected_M = numbers.judges(rows)
        order_M = np.lexsort((chosen_M, rows.pair_key_N, user_M))
        used_P = np.unique(rows.responses.prompt_R[numbers.responses_R])
        pool = rows.responses.take(numbers.responses_R, used_P)
        users = Users(rows.users.ids.gather(numbers.users_U))
        return cls(encoder, Comparisons(pool, users, user_M[order_M], chosen_M[order_M], rejected_M[order_M]))

    def nearest(self, queries: Comparisons, k: int) -> IntArray:
        """Rows of the memory (N, k) most similar to each query among its user's own, -1 if there are no more."""
        found_NK = np.full((len(queries), k), -1, np.int32)
        user_N = self.rows.users.index(queries.users.ids)[queries.user_N]
        known_N = np.flatnonzero(user_N >= 0)
        if not len(known_N) or not k:
            return found_NK
        places, query_places = Places.of(self.encoder, self.rows.responses), Places.of(self.encoder, queries.responses)
        order_N = known_N[np.argsort(user_N[known_N], kind="stable")]
        start_U = np.searchsorted(self.rows.user_N, np.arange(len(self.rows.users) + 1)).tolist()
        for mine_N in np.split(order_N, np.flatnonzero(np.diff(user_N[order_N])) + 1):
            u = int(user_N[mine_N[0]])
            mine_M = np.arange(start_U[u], start_U[u + 1])
            known = self.rows.take(mine_M)
            known_MD = places(known)
            for part_N in np.array_split(mine_N, max(1, len(mine_N) * len(mine_M) // PORTION)):
                part = queries.take(part_N)
                likeness_NM = query_places(part) @ known_MD.T
                likeness_NM[part.pair_key_N[:, None] == known.pair_key_N] = -np.inf
                best_NK = _best(likeness_NM, k)
                found_NK[part_N, : best_NK.shape[1]] = np.where(best_NK >= 0, mine_M[best_NK], -1)
        return found_NK

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """JSON-able settings and arrays that ``from_state`` turns into an equal memory."""
        r = self.rows.responses
        arrays = {name: getattr(self.rows, name) for name in ("user_N", "chosen_N", "rejected_N")}
        arrays |= {"prompt_R": r.prompt_R, "chat_P": r.is_chat_P}
        for name, texts in (("texts", r.texts_R), ("prompts", r.prompts)):
            encoded = [text.encode() for text in texts]
            arrays[f"{name}.bytes"] = np.frombuffer(b"".join(encoded), np.uint8)
            arrays[f"{name}.ends"] = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return {"users": self.rows.users.ids.to_list()}, {f"memory.{name}": array for name, array in arrays.items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """The inverse of ``state``."""
        chat_P = arrays["memory.chat_P"]
        pool = Responses(
            _texts(arrays, "prompts"),
            arrays["memory.prompt_R"],
            _texts(arrays, "texts"),
            chat_P if chat_P.any() else None,
        )
        user_M, chosen_M, rejected_M = (arrays[f"memory.{name}"] for name in ("user_N", "chosen_N", "rejected_N"))
        users = Users(pl.Series("id", config["users"], dtype=pl.String))
        return cls(encoder, Comparisons(pool, users, user_M, chosen_M, rejected_M))


@dataclass(frozen=True, eq=False)
class Places:
    """Vectors of one pool: ``response_RD`` and ``prompt_PD``, of unit length."""

    responses: Responses
    response_RD: NDArray[np.float32]
    prompt_PD: NDArray[np.float32]

    @classmethod
    def of(cls, encoder: Encoder, responses: Responses) -> Self:
        """Encode the pool's responses and, as separate texts, its prompts."""
        prompts = [responses.prompt_text(p) for p in range(len(responses.prompts))]
        as_texts = Responses(pl.Series([""]), np.zeros(len(prompts), np.int32), pl.Series(prompts, dtype=pl.String))
        return cls(responses, _unit(encoder.encode(responses)), _unit(encoder.encode(as_texts)))

    def __call__(self, rows: Comparisons) -> NDArray[np.float32]:
        """Unit vectors (N, D), the same for a comparison with its responses swapped."""
        both_ND = self.response_RD[rows.chosen_N] + self.response_RD[rows.rejected_N]
        return _unit(both_ND + self.prompt_PD[self.responses.prompt_R[rows.chosen_N]])


def _unit(features: NDArray) -> NDArray[np.float32]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(length, 1e-12)).astype(np.float32)


def _best(likeness_NM: NDArray, k: int) -> NDArray[np.int64]:
    """Columns of the ``k`` largest of each row, largest first, ties by column; -1 for -infinity."""
    m = likeness_NM.shape[1]
    step_NM = np.rint(np.maximum(likeness_NM, -2) * STEPS).astype(np.int64)  # a cosine is -1 at least
    rank_NM = step_NM * m - np.arange(m)
    k = min(k, m)
    top_NK = np.argpartition(-rank_NM, k - 1, axis=1)[:, :k]
    top_NK = np.take_along_axis(top_NK, np.argsort(-np.take_along_axis(rank_NM, top_NK, 1), axis=1), 1)
    return np.where(np.isfinite(np.take_along_axis(likeness_NM, top_NK, 1)), top_NK, -1)


def _texts(arrays: Mapping[str, NDArray], name: str) -> pl.Series:
    content, ends = arrays[f"memory.{name}.bytes"].tobytes(), arrays[f"memory.{name}.ends"].tolist()
    starts = [0, *ends[:-1]][: len(ends)]
    return pl.Series([content[a:b].decode() for a, b in zip(starts, ends, strict=True)], dtype=pl.String)
