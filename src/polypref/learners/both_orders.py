"""A judge asked in both orders of the two responses, so that its bias for a letter or a place cancels.

    margin = (odds(A | the first is A) - odds(A | the first is B)) / 2        odds(A) = log p(A) - log p(B)

If the judge says neither A nor B in one order, that order is ignored; in both, there is no answer, which is not a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Responses, Users
from polypref.judges.ask import ask
from polypref.judges.protocol import LanguageModel
from polypref.learners.judge_prompts import Choice
from polypref.learners.protocol import UserIds, resolved

LETTERS = ("A", "B")


def margins_of(model: LanguageModel, choices_N: Sequence[Choice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Margins (N,) of the first response of each question over its second, and the share of orders without an answer.

    A margin without any answer is 0. Raises EncoderError if the judge is not available or does not reply.
    """
    odds_2N = ask(model, [*choices_N, *(choice.turned() for choice in choices_N)], LETTERS).reshape(2, -1)
    margin_N = (np.nan_to_num(odds_2N[0]) - np.nan_to_num(odds_2N[1])) / 2
    return margin_N, np.isnan(odds_2N).mean(axis=0)


def over_empty(
    responses: Responses, known: Users, user_ids: UserIds | None, response_Q: IntArray | None
) -> Comparisons:
    """Each response in question preferred to an empty one, by its user or, if not ``known``, by nobody."""
    id_Q, response_Q = resolved(responses, user_ids, response_Q)
    user_Q = known.index(id_Q)
    n_prompts = len(responses.prompts)
    pool = replace(
        responses,
        prompt_R=np.concatenate([responses.prompt_R, np.arange(n_prompts, dtype=np.int32)]),
        texts_R=pl.concat([responses.texts_R, pl.repeat("", n_prompts, dtype=pl.String, eager=True)]),
    )
    empty_Q = (len(responses) + responses.prompt_R[response_Q]).astype(np.int32)
    user_Q = np.where(user_Q < 0, np.int32(len(known)), user_Q)
    return Comparisons(pool, known.with_nobody(), user_Q, response_Q, empty_Q)
