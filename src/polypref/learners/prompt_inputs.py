"""Inputs of a prompt: its text, encoded by itself (``features.prompts``).

The projection is that of ``inputs``, chosen on the prompts of the training rows: principal directions of their spread,
with variance 1 in total, and two lengths.

Suffixes here: ``_F`` numbers that describe a prompt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Responses, Users
from polypref.features.encode_missing import no_store
from polypref.features.prompts import prompt_texts
from polypref.features.protocol import Encoder
from polypref.learners.inputs import Inputs


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
