"""Safety scores: a scorer's rewards for an unknown user. Higher is safer; NaN: no score.

Any saved scorer will do: a published classifier or reward model (``pretrained``, with the label to read), an instructed
model behind a server (``pretrained`` with ``ask``), or a small one trained here (``detector``). Only its answer for
strangers is read, so no user's judgements move it. ``safety_cache`` keeps its answers.

``PROBES`` are a few fixed texts. A calibration stores their scores, so if a model, an encoder or a server changed under
the same name, this is noticed before its scores are compared with a threshold calibrated for others.

Suffixes here: ``_B`` probes.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import IntArray, Responses
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


IN_A_NAME = "is in a person's name; the bounds need the population's to hold on to, so nothing is let through"


class Answers(Protocol):
    """The part of a scorer that is needed here."""

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores: ...


def answered_by_population(scores: Scores, many: int, first: int | None = None) -> bool:
    """Whether the ``first`` of ``many`` answers (default: all) are the population's."""
    source_Q = np.asarray(scores.source_Q)
    return source_Q.shape == (many,) and bool((source_Q[:first] == POPULATION).all())


def shared(scorer: Answers, responses: Responses, response_Q: IntArray | None = None) -> Floats:
    """``scorer``'s reward for an unknown user (Q,). Raises SafetyFailed where it answers in a person's name."""
    scores = scorer.score(responses, None, response_Q)
    if not answered_by_population(scores, len(responses) if response_Q is None else len(response_Q)):
        raise SafetyFailed(f"the shared reward of {_named(scorer)} {IN_A_NAME}.")
    return np.asarray(scores.value_Q, np.float64)


def _named(scorer: Answers) -> str:
    return f"the scorer ({getattr(scorer, 'kind', type(scorer).__name__)})"


class SafetyFailed(PolyprefError):
    """The safety scorer gave no usable answer; nothing may be returned."""


def same_answers(now: list[float | None], then: list[float | None]) -> bool:
    """Whether two probes come from the same scorer, up to rounding."""
    if len(now) != len(then):
        return False
    now_B, then_B = (np.array([np.nan if v is None else v for v in one]) for one in (now, then))
    spread = max(float(np.nanstd(then_B)) if np.isfinite(then_B).any() else 0.0, 1e-9)
    return bool(np.allclose(now_B, then_B, rtol=TOLERANCE, atol=TOLERANCE * spread, equal_nan=True))
