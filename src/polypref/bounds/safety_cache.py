"""The safety scorer's answers, cached by content: each text is scored once, and threads may share the answers.

Every scorer is asked about windows (``windowed``), so added text cannot raise a score. If the
rule of ``scripts`` drops texts in scripts that the calibration did not hold, such a text has no score, and the scorer
is not asked about it.

Suffixes here: ``_A`` texts that are asked about, ``_M`` texts that are remembered.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from polypref import content
from polypref.bounds.safety import PROBES, Answers, Floats, SafetyFailed, answered_by_population
from polypref.bounds.scripts import HELD, NAMES, Rule
from polypref.bounds.windowed import windowed
from polypref.comparisons import IntArray, Responses
from polypref.content import Identities

Known = tuple[Identities, Floats, IntArray]  # texts, which ascend, their scores and scripts

MOST_REMEMBERED = 4_000_000  # scores: 112 MB
DROPPED = -np.inf  # remembered of a text that the rule of scripts drops


class Safety:
    """``scorer``'s answers for unknown users, cached by content; threads may share one.

    ``rule``: the scripts that the calibration held; None: texts in any script are asked about.
    """

    def __init__(self, scorer: Answers, rule: Rule | None = None) -> None:
        self.rule = rule
        self._scorer = windowed(scorer)
        self._lock = Lock()
        self._known: Known = (content.NONE, np.empty(0), np.empty(0, np.int32))

    def __call__(self, responses: Responses) -> Floats:
        """``safety_R``; NaN where the scorer did not answer, or not with a finite number (+inf too: it is no score).

        Texts without a score are asked about again in the next call. Raises SafetyFailed if the scorer fails, or
        answers in a person's name.
        """
        value_R, _ = self._answers(responses)
        return np.where(value_R == DROPPED, np.nan, value_R)

    def knows(self, responses: Responses) -> bool:
        """Whether every response has been scored, so that nobody has to be asked."""
        return not np.isnan(_found(self._known, responses.identity_R)[0]).any()

    def unknown(self, responses: Responses) -> list[str | None]:
        """A script of each response and its prompt that the calibration did not hold; None: it held all of them."""
        return [None if at == HELD else NAMES[at] for at in self._answers(responses)[1].tolist()]

    def _answers(self, responses: Responses) -> tuple[Floats, IntArray]:
        """Score of each response (R,), and a script that was not held, as ``Rule.other`` has it."""
        key_R = responses.identity_R
        value_R, other_R = _found(self._known, key_R)
        missing = np.flatnonzero(np.isnan(value_R))
        if len(missing):
            key_A, first = np.unique(key_R[missing], return_index=True)
            pool = responses.take(missing[first].astype(np.int32))
            other_A = np.full(len(pool), HELD, np.int32) if self.rule is None else self.rule.other(pool)
            value_A = np.full(len(pool), DROPPED)
            asked = np.flatnonzero((other_A == HELD) | (self.rule is None or not self.rule.drops)).astype(np.int32)
            if len(asked):
                value_A[asked] = self._ask(pool if len(asked) == len(pool) else pool.take(asked))
            value_R[missing], other_R[missing] = _found((key_A, value_A, other_A), key_R[missing])
            self._remember(key_A, value_A, other_A)
        return value_R, other_R

    def _remember(self, key_A: Identities, value_A: Floats, other_A: IntArray) -> None:
        told = ~np.isnan(value_A)
        with self._lock:
            key_M, value_M, other_M = self._known
            if len(key_M) + len(key_A) > MOST_REMEMBERED:
                key_M, value_M, other_M = key_M[:0], value_M[:0], other_M[:0]
            key_M, first = np.unique(np.concatenate([key_M, key_A[told]]), return_index=True)
            values = np.concatenate([value_M, value_A[told]]), np.concatenate([other_M, other_A[told]])
            self._known = (key_M, values[0][first], values[1][first])

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


def _found(known: Known, key_R: Identities) -> tuple[Floats, IntArray]:
    """Score of each text among known ones, which ascend, and its script; NaN and HELD where it is not."""
    key_M, value_M, other_M = known
    at = content.places(key_M, key_R)
    return np.append(value_M, np.nan)[at], np.append(other_M, HELD).astype(np.int32)[at]
