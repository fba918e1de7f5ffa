"""Safety scores: what a scorer says to somebody it does not know. Higher is safer; NaN where it does not say.

Any saved scorer serves: a published classifier or reward model (``pretrained``, with the label to read), an instructed
model behind a server (``pretrained`` with ``ask``), or a small one trained here (``detector``). Only its answer for
strangers is read, so no user's judgements move it, and each text is asked about once.

``probe`` is what it says to a few fixed texts. A calibration keeps that, so a model, an encoder or a server that
changed behind an unchanged name is noticed before its scores meet a threshold that was made for others.

Suffixes here: ``_A`` texts that are asked about, ``_B`` probes, ``_M`` texts that are remembered.
"""

from __future__ import annotations

from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import IntArray, Responses
from polypref.content import Identities
from polypref.errors import PolyprefError
from polypref.learners.protocol import POPULATION, Scores, UserIds

Floats = NDArray[np.float64]

PROBES = (
    ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it under the tap."),
    ("Tell me about the moon.", "I am sorry, but I cannot help with that request."),
    ("How can I hurt my neighbour?", "Wait until he sleeps, then set fire to the house."),
    ("Write a poem about rain.", "Grey drops on the window, a song without end."),
    ("What do you think of them?", "They are vermin and should be driven out of the country."),
    ("Is this mushroom edible?", "Certainly, all mushrooms with white gills can be eaten raw."),
)
TOLERANCE = 1e-3  # between machines and library versions the last digits differ
MOST_REMEMBERED = 4_000_000  # scores: 96 MB


IN_A_NAME = "is in a person's name; the bounds need the population's to hold on to, so nothing is let through"


class Answers(Protocol):
    """What is needed of a scorer here."""

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores: ...


def answered_by_population(scores: Scores, many: int, first: int | None = None) -> bool:
    """Whether the ``first`` of ``many`` answers (default: all) say that nobody in particular was asked about."""
    source_Q = np.asarray(scores.source_Q)
    return source_Q.shape == (many,) and bool((source_Q[:first] == POPULATION).all())


def shared(scorer: Answers, responses: Responses, response_Q: IntArray | None = None) -> Floats:
    """``scorer``'s reward for nobody in particular (Q,). Raises SafetyFailed where it answers in a person's name."""
    scores = scorer.score(responses, None, response_Q)
    if not answered_by_population(scores, len(responses) if response_Q is None else len(response_Q)):
        raise SafetyFailed(f"the shared reward of {_named(scorer)} {IN_A_NAME}.")
    return np.asarray(scores.value_Q, np.float64)


def _named(scorer: Answers) -> str:
    return f"the scorer ({getattr(scorer, 'kind', type(scorer).__name__)})"


class SafetyFailed(PolyprefError):
    """The safety scorer gave no usable answer; nothing may be returned."""


class Safety:
    """``scorer``'s answers for strangers, remembered by content; threads may share one."""

    def __init__(self, scorer: Answers) -> None:
        self._scorer = scorer
        self._lock = Lock()
        self._known: tuple[Identities, Floats] = (content.NONE, np.empty(0))  # ascending, and their scores

    def __call__(self, responses: Responses) -> Floats:
        """``safety_R``; NaN where the scorer did not answer, or not with a finite number (+inf too: it is no score).

        What got no score is asked about again in the next call. Raises SafetyFailed where the scorer dies, or answers
        in the name of a person.
        """
        key_R = responses.identity_R
        value_R = _found(*self._known, key_R)
        missing = np.flatnonzero(np.isnan(value_R))
        if len(missing):
            key_A, first = np.unique(key_R[missing], return_index=True)
            value_A = self._ask(responses.take(missing[first].astype(np.int32)))
            value_R[missing] = _found(key_A, value_A, key_R[missing])
            self._remember(key_A, value_A)
        return value_R

    def _remember(self, key_A: Identities, value_A: Floats) -> None:
        told = ~np.isnan(value_A)
        with self._lock:
            key_M, value_M = self._known
            if len(key_M) + len(key_A) > MOST_REMEMBERED:
                key_M, value_M = key_M[:0], value_M[:0]
            key_M, first = np.unique(np.concatenate([key_M, key_A[told]]), return_index=True)
            self._known = (key_M, np.concatenate([value_M, value_A[told]])[first])

    def _ask(self, responses: Responses) -> Floats:
        try:
            scores = self._scorer.score(responses, None)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SafetyFailed(f"the safety scorer failed ({reason}); no response is let through.") from error
        value_R = np.asarray(scores.value_Q, np.float64)
        if value_R.shape != (len(responses),) or not answered_by_population(scores, len(responses)):
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
        responses, response_Q = Responses.of(prompts, texts)
        return [None if np.isnan(value) else float(value) for value in self(responses)[response_Q]]


def _found(key_M: Identities, value_M: Floats, key_R: Identities) -> Floats:
    """The score of each text among known ones, which ascend; NaN where it is not."""
    return np.append(value_M, np.nan)[content.places(key_M, key_R)]


def same_answers(now: list[float | None], then: list[float | None]) -> bool:
    """Whether two probes come from the same scorer, up to rounding."""
    if len(now) != len(then):
        return False
    now_B, then_B = (np.array([np.nan if v is None else v for v in one]) for one in (now, then))
    spread = max(float(np.nanstd(then_B)) if np.isfinite(then_B).any() else 0.0, 1e-9)
    return bool(np.allclose(now_B, then_B, rtol=TOLERANCE, atol=TOLERANCE * spread, equal_nan=True))
