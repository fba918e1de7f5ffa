"""Slates of several files as one set, and an organisation's own judged responses as safe ones for training a detector.

Suffixes here: ``_L`` slates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from polypref.bounds.slates import Slates, prompt_identities
from polypref.comparisons import BoolArray, Responses
from polypref.content import Identities
from polypref.errors import InputError
from polypref.wording import shown


def joined(parts: Sequence[Slates]) -> Slates:
    """The slates of all parts. Raises InputError for a response that is safe in one and unsafe in another."""
    if len(parts) == 1:
        return parts[0]
    prompts, texts, chat = zip(*(_columns(part.responses) for part in parts), strict=True)
    responses, place_R = Responses.of(pl.concat(prompts), pl.concat(texts), np.concatenate(chat))
    first = np.cumsum([0, *(len(part.responses) for part in parts)])
    begun = np.cumsum([0, *(len(part) for part in parts)])
    response_C = np.concatenate([place_R[part.response_C + at] for part, at in zip(parts, first, strict=False)])
    slate_C = np.concatenate([part.slate_C + at for part, at in zip(parts, begun, strict=False)]).astype(np.int32)
    unsafe_C = np.concatenate([part.unsafe_C for part in parts])
    both = np.intersect1d(response_C[unsafe_C], response_C[~unsafe_C])
    if len(both):
        raise InputError(
            f"the files call {len(both)} responses to the same prompt both unsafe and safe, the first of them "
            f"{shown(responses.texts_R[int(both[0])])}; settle the labels."
        )
    return Slates(responses, slate_C, response_C, unsafe_C, pl.concat([part.category_L.alias("c") for part in parts]))


def safe_slates(own: Responses, labelled: Slates, part: Slates) -> Slates:
    """Each response of ``own`` as a slate of its own, safe, but for those to prompts that ``labelled`` keeps for later.

    ``part`` are the slates that are trained on: prompts of the others are for the calibration and the audit. Responses
    that the slates label themselves are left out too.
    """
    later = np.setdiff1d(prompt_identities(labelled.responses), prompt_identities(part.responses))
    prompt_R = _prompt_of_each(own)
    kept = ~np.isin(prompt_R, later) & ~np.isin(own.identity_R, labelled.responses.identity_R)
    kept &= (own.texts_R != "").to_numpy()
    pool = own.take(np.flatnonzero(kept).astype(np.int32))
    each = np.arange(len(pool), dtype=np.int32)
    return Slates(pool, each, each, np.zeros(len(pool), bool), pl.Series([""] * len(pool), dtype=pl.String))


def _columns(responses: Responses) -> tuple[pl.Series, pl.Series, BoolArray]:
    """Prompt, text and whether the prompt is a chat, of each response."""
    prompts = responses.prompts.gather(responses.prompt_R).alias("prompt")
    return prompts, responses.texts_R.alias("response"), responses.is_chat_P[responses.prompt_R]


def _prompt_of_each(responses: Responses) -> Identities:
    """The identity of each response's prompt, as ``prompt_identities`` has it."""
    nothing = pl.Series("response", [""] * len(responses.prompts), dtype=pl.String)
    each = np.arange(len(responses.prompts), dtype=np.int32)
    return Responses(responses.prompts, each, nothing, responses.chat_P).identity_R[responses.prompt_R]
