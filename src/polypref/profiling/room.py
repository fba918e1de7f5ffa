"""Room: the most that personalization could gain, the consistency ceiling minus the best population accuracy.

Source: Dong et al., EMNLP Findings 2025, section 3 (room for personalization); SC13 of the social-choice list. Changed:
an interval instead of a number, because neither end is known exactly. Without repeats the ceiling is not assumed to be
1 but left open between 0.7 and 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from polypref.profiling.consistency import Consistency
from polypref.profiling.minorities import side_with_majority
from polypref.profiling.votes import Votes

ASSUMED_CEILINGS = (0.7, 0.9, 1.0)
MIN_PANEL = 3


@dataclass(frozen=True)
class Room:
    """An interval for the accuracy that personalization could add. All None if no pair has three judges.

    ``population_lo``, ``population_hi``  bounds of the best population accuracy; ``source`` is their origin.
    ``ceiling_lo``, ``ceiling_hi``        bounds of the best personal accuracy; assumed when ``measured`` is False.
    ``lo``, ``hi``                        room; never below 0, since a personal predictor may
                                          also answer as the population's does.
    ``at_ceiling``                        room (lo, hi) if the ceiling were 0.7, 0.9, 1, and None for a ceiling that the
                                          population accuracy already exceeds; no such table when measured.
    """

    population_lo: float | None
    population_hi: float | None
    ceiling_lo: float
    ceiling_hi: float
    measured: bool
    source: str
    lo: float | None
    hi: float | None
    at_ceiling: dict[float, tuple[float, float] | None] | None = None

    def as_dict(self) -> dict[str, object]:
        content = asdict(self)
        if self.at_ceiling is not None:
            content["at_ceiling"] = {str(c): room and list(room) for c, room in self.at_ceiling.items()}
        return content


def room(
    population_accuracy: float | tuple[float, float] | None, consistency: Consistency, source: str = "given"
) -> Room:
    """Room above a population accuracy (a number or an interval), on pairs like those that were judged twice."""
    ceiling = consistency.ceiling
    low, high = (ASSUMED_CEILINGS[0], ASSUMED_CEILINGS[-1]) if ceiling is None else ceiling
    if population_accuracy is None:
        return Room(None, None, low, high, ceiling is not None, source, None, None)
    bounds = np.atleast_1d(np.asarray(population_accuracy, np.float64))
    worst, best = float(bounds.min()), float(bounds.max())
    lo, hi = _between(best, low), _between(worst, high)
    if ceiling is not None:
        return Room(worst, best, low, high, True, source, lo, hi)
    at = {c: (_between(best, c), _between(worst, c)) if c >= worst else None for c in ASSUMED_CEILINGS}
    return Room(worst, best, low, high, False, source, lo, hi, at)


def _between(population: float, ceiling: float) -> float:
    return max(ceiling - population, 0.0)


def majority_accuracy(votes: Votes) -> tuple[float, float] | None:
    """Bounds of the best population predictor's accuracy on pairs with >= 3 judges; None if there are none.

    Lower bound: the others' majority has not seen the vote, so in expectation the best predictor scores no less. Nor
    does it score below chance, as the others' majority does where opposed camps balance. Upper bound: the majority that
    includes the own vote is fitted to the votes it predicts, so in expectation the best predictor scores no more.
    """
    votes = votes.decided
    votes = votes.take((votes.panel_Y >= MIN_PANEL)[votes.pair_V])
    if len(votes.user_V) == 0:
        return None
    with_own_V, without_own_V = side_with_majority(votes)
    return max(float(np.mean(without_own_V)), 0.5), float(np.mean(with_own_V))
