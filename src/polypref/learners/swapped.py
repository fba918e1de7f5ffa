"""Answers swapped between two questions: what a population's weights of the relation to the prompt are told beforehand.

People compare answers to one question, so nobody was asked whether an answer to another question is worse. Their
judgements alone do not imply it: who dislikes answers that copy the question gives a negative weight to shared words,
and then an answer to another question, which shares none, is worth more (docs/log.md). So two answers a and b of the
training responses, to questions p and q, are taken to be worth more under their own questions than swapped:

    r(p, a) + r(q, b) > r(p, b) + r(q, a)

What belongs to the text alone (its vector, length, style, effects) is the same on both sides, so this is about the
columns of relation only, and mostly about how far the cosine is below what is usual.

Suffixes here: ``_F`` columns of relation and style, ``_X`` swaps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Responses
from polypref.features.protocol import reads_prompt
from polypref.learners.inputs import Inputs

SWAPS = 0.05  # weight of all swaps together, as a share of the judgements'
MOST = 200  # swaps of a fit; more tell nothing new


def differences(inputs: Inputs, responses: Responses) -> NDArray[np.float64]:
    """Inputs under the own questions minus swapped, (X, K); none where the prompt is not read.

    They depend on the contents of ``responses`` only, not on their order. An encoder that reads prompt and response
    together would have to encode each swapped text, so there are none with it.
    """
    directions, columns = inputs.kinds[0], len(inputs.column_center_F)
    none_XK = np.zeros((0, inputs.size))
    responses = responses.take(np.flatnonzero(~responses.bar_R).astype(np.int32))
    if not columns or reads_prompt(inputs.encoder) or len(np.unique(responses.prompt_R)) < 2:
        return none_XK
    responses = responses.take(np.argsort(responses.identity_R, kind="stable").astype(np.int32))
    one_X, other_X = _pairs(responses.prompt_R)
    used_R, at_2X = np.unique(np.concatenate([one_X, other_X]), return_inverse=True)
    own, own_2X = responses.take(used_R.astype(np.int32)), at_2X.ravel()
    other_2X = np.roll(own_2X, len(one_X))
    prompts, texts = own.prompts.gather(own.prompt_R[own_2X]), own.texts_R.gather(other_2X)
    swapped, swapped_2X = Responses.of(prompts, texts)
    features_RD = inputs.encoder.encode(own)
    text_R = np.zeros(len(swapped), np.int64)
    text_R[swapped_2X] = other_2X
    own_RF = inputs.columns(own, features_RD)
    swapped_RF = inputs.columns(swapped, features_RD[text_R])
    apart_XF = (own_RF[own_2X] - swapped_RF[swapped_2X]).reshape(2, len(one_X), columns).sum(axis=0)
    return np.pad(apart_XF[apart_XF.any(axis=1)], ((0, 0), (directions, 2)))


def _pairs(prompt_R: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random responses to two different random prompts, (X,) each; ``prompt_R`` is each response's prompt."""
    rng = np.random.default_rng(0)
    _, first_P, prompt_R, size_P = np.unique(prompt_R, return_index=True, return_inverse=True, return_counts=True)
    order_P = np.argsort(first_P)  # by their responses, not as the data number them
    order_R, size_P = np.argsort(np.argsort(order_P)[prompt_R], kind="stable"), size_P[order_P]
    one_X = rng.integers(0, len(size_P), MOST)
    other_X = (one_X + rng.integers(1, len(size_P), MOST)) % len(size_P)
    start_P = np.cumsum(size_P) - size_P
    answers_X = order_R[start_P[one_X] + rng.integers(0, size_P[one_X])]
    return answers_X, order_R[start_P[other_X] + rng.integers(0, size_P[other_X])]
