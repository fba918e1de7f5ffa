"""The safety scorer's answers, cached by content: each text is scored once, and threads may share the answers.

Every scorer is asked about windows (``windowed``), so added text cannot raise a score.

Suffixes here: ``_A`` texts that are asked about, ``_M`` texts that are remembered.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from polypref import content
from polypref.bounds.safety import PROBES, Answers, Floats, SafetyFailed, answered_by_population
from polypref.bounds.windowed import windowed
from polypref.comparisons import Responses
from polypref.content import Identities

MOST_REMEMBERED = 4_000_000  # scores: 96 MB


class Safety:
    """``scorer``'s answers for unknown users, cached by content; threads may share one."""

    def __init__(self, scorer: Answers) -> None:
        self._scorer = windowed(scorer)
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
