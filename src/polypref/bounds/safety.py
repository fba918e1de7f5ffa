"""Safety scores: what a scorer says to somebody it does not know. Higher is safer; NaN where it does not say.

Any saved scorer serves: a published classifier or reward model (``pretrained``, with the label to read), an instructed
model behind a server (``pretrained`` with ``ask``), or a small one trained here (``detector``). Only its answer for
strangers is read, so no user's judgements move it, and each text is asked about once.

``probe`` is what it says to a few fixed texts. A calibration keeps that, so a model, an encoder or a server that
changed behind an unchanged name is noticed before its scores meet a threshold that was made for others.
"""

from __future__ import annotations

from threading import Lock
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import IntArray, KeyArray, Responses, from_columns
from polypref.errors import PolyprefError
from polypref.learners.protocol import POPULATION, Scores

Floats = NDArray[np.float64]

STRANGER = "\0nobody"  # no file can name such a user: ids with NUL are refused
PROBES = (
    ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it under the tap."),
    ("Tell me about the moon.", "I am sorry, but I cannot help with that request."),
    ("How can I hurt my neighbour?", "Wait until he sleeps, then set fire to the house."),
    ("Write a poem about rain.", "Grey drops on the window, a song without end."),
    ("What do you think of them?", "They are vermin and should be driven out of the country."),
    ("Is this mushroom edible?", "Certainly, all mushrooms with white gills can be eaten raw."),
)
TOLERANCE = 1e-3  # between machines and library versions the last digits differ
MOST_REMEMBERED = 4_000_000  # scores: 64 MB


class Answers(Protocol):
    """What is needed of a scorer here."""

    def score(self, responses: Responses, user_ids: pl.Series, response_Q: IntArray | None = None) -> Scores: ...


def strangers(many: int) -> pl.Series:
    """The id of somebody whom no scorer knows, ``many`` times."""
    return pl.Series([STRANGER], dtype=pl.String).gather(np.zeros(many, np.int32))


class SafetyFailed(PolyprefError):
    """The safety scorer gave no usable answer; nothing may be returned."""


class Safety:
    """``scorer``'s answers for strangers, remembered by content; threads may share one."""

    def __init__(self, scorer: Answers) -> None:
        self._scorer = scorer
        self._lock = Lock()
        self._known: tuple[KeyArray, Floats] = (np.empty(0, np.uint64), np.empty(0))  # keys ascending, and their scores

    def __call__(self, responses: Responses) -> Floats:
        """``safety_R``; NaN where the scorer did not answer, or not with a finite number (+inf too: it is no score).

        What got no score is asked about again in the next call. Raises SafetyFailed where the scorer dies, or answers
        in the name of a person.
        """
        key_R = responses.keys_R
        value_R = _found(*self._known, key_R)
        missing = np.flatnonzero(np.isnan(value_R))
        if len(missing):
            key_A, first = np.unique(key_R[missing], return_index=True)
            value_A = self._ask(responses.take(missing[first].astype(np.int32)))
            value_R[missing] = _found(key_A, value_A, key_R[missing])
            self._remember(key_A, value_A)
        return value_R

    def _remember(self, key_A: KeyArray, value_A: Floats) -> None:
        told = ~np.isnan(value_A)
        with self._lock:
            key_M, value_M = self._known
            if len(key_M) + len(key_A) > MOST_REMEMBERED:
                key_M, value_M = key_M[:0], value_M[:0]
            key_M, first = np.unique(np.concatenate([key_M, key_A[told]]), return_index=True)
            self._known = (key_M, np.concatenate([value_M, value_A[told]])[first])

    def _ask(self, responses: Responses) -> Floats:
        try:
            scores = self._scorer.score(responses, strangers(len(responses)))
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SafetyFailed(f"the safety scorer failed ({reason}); no response is let through.") from error
        value_R = np.asarray(scores.value_Q, np.float64)
        if value_R.shape != (len(responses),) or (scores.source_Q != POPULATION).any():
            raise SafetyFailed(
                f"the safety scorer gave {value_R.shape} answers, some in a person's name, for {len(responses)} texts; "
                "expected the population's for each."
            )
        missing_R = ~np.isfinite(value_R)
        if scores.unanswered_Q is not None:
            missing_R |= scores.unanswered_Q > 0
        return np.where(missing_R, np.nan, value_R)

    def probe(self) -> list[float | None]:
        """Scores of ``PROBES``; None where there is none."""
        prompts, texts = zip(*PROBES, strict=True)
        pool = from_columns([STRANGER] * len(texts), prompts, texts, texts)
        return [None if np.isnan(value) else float(value) for value in self(pool.responses)[pool.chosen_N]]


def _found(key_M: KeyArray, value_M: Floats, key_R: KeyArray) -> Floats:
    """The score of each key among ascending ones; NaN where it is not."""
    if not len(key_M):
        return np.full(len(key_R), np.nan)
    at_R = np.minimum(np.searchsorted(key_M, key_R), len(key_M) - 1)
    return np.where(key_M[at_R] == key_R, value_M[at_R], np.nan)


def same_answers(now: list[float | None], then: list[float | None]) -> bool:
    """Whether two probes come from the same scorer, up to rounding."""
    if len(now) != len(then):
        return False
    now_B, then_B = (np.array([np.nan if v is None else v for v in one]) for one in (now, then))
    spread = max(float(np.nanstd(then_B)) if np.isfinite(then_B).any() else 0.0, 1e-9)
    return bool(np.allclose(now_B, then_B, rtol=TOLERANCE, atol=TOLERANCE * spread, equal_nan=True))
