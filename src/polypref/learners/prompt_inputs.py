"""Inputs of a prompt: its text, encoded as if it answered an empty prompt, so that any encoder can read it.

Each distinct prompt is encoded once, and stored even if responses are not, since prompts recur. The projection is that
of ``inputs``, chosen on the prompts of the training rows: principal directions of their spread, with variance 1 in
total, and two lengths.

Suffixes here: ``_F`` numbers that describe a prompt.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Responses, Users
from polypref.features.encode_missing import no_store
from polypref.features.protocol import Encoder
from polypref.learners.inputs import Inputs


def prompt_texts(responses: Responses) -> tuple[Responses, IntArray]:
    """The P prompts that ``responses`` answer, each as a text, and the number of each response's prompt, (R,)."""
    used_P, at_R = np.unique(responses.prompt_R, return_inverse=True)
    texts = pl.Series("text", [responses.prompt_text(p) for p in used_P.tolist()], dtype=pl.String)
    nothing = pl.Series("prompt", [""], dtype=pl.String)
    return Responses(nothing, np.zeros(len(used_P), np.int32), texts), at_R.astype(np.int32)


def fit(encoder: Encoder, rows: Comparisons, directions: int) -> Inputs:
    """The projection of the prompts that occur in ``rows``."""
    used_R = np.unique(np.concatenate([rows.chosen_N, rows.rejected_N]))
    texts, _ = prompt_texts(rows.responses.take(used_R))
    each = np.arange(len(texts), dtype=np.int32)
    return Inputs.fit(encoder, Comparisons(texts, Users.nobody(), np.zeros_like(each), each, each), directions)


def inputs_of(prompts: Inputs, responses: Responses) -> tuple[NDArray[np.float64], IntArray]:
    """Inputs ``z_PF`` of the prompts that ``responses`` answer, and the number of each response's prompt, (R,)."""
    texts, at_R = prompt_texts(responses)
    with no_store(False):
        return prompts(texts), at_R


def encoded(encoder: Encoder, responses: Responses) -> tuple[NDArray[np.float32], IntArray]:
    """Features (P, D) of the prompts that ``responses`` answer, and the number of each response's prompt, (R,)."""
    texts, at_R = prompt_texts(responses)
    with no_store(False):
        return encoder.encode(texts), at_R
