"""Prompts as texts: each distinct prompt of a pool, encoded once, as if it answered an empty prompt.

So any encoder can read it. Prompts recur, so their features are stored even where those of responses are not.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import IntArray, Responses
from polypref.features.encode_missing import no_store
from polypref.features.protocol import Encoder


def prompt_texts(responses: Responses) -> tuple[Responses, IntArray]:
    """The P prompts that ``responses`` answer, each as a text, and the number of each response's prompt, (R,)."""
    used_P, at_R = np.unique(responses.prompt_R, return_inverse=True)
    texts = pl.Series("text", [responses.prompt_text(p) for p in used_P.tolist()], dtype=pl.String)
    nothing = pl.Series("prompt", [""], dtype=pl.String)
    return Responses(nothing, np.zeros(len(used_P), np.int32), texts), at_R.astype(np.int32)


def encoded(encoder: Encoder, responses: Responses) -> tuple[NDArray[np.float32], IntArray]:
    """Features (P, D) of the prompts that ``responses`` answer, and the number of each response's prompt, (R,)."""
    texts, at_R = prompt_texts(responses)
    with no_store(False):
        return encoder.encode(texts), at_R
