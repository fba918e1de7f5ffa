"""Value lock-in: how many contrary answers it takes to flip a scorer, and how long it misses a change of taste.

Source: our own definitions. *Preference inertia*: after k answers that confirm a taste, the number of contrary answers
until the scorer's choice between two texts flips. A scorer that counts votes needs k + 1. *Half-life*: after
everybody's taste has reversed, the rounds until half of the loss is recovered.

Covered: any scorer that adapts; a choice that never flips is reported as inf. Not covered: gradual change, and people
who see so little of the other side that they cannot contradict.

Suffixes here: ``_T`` rounds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.experiments.closed_loop import adapting
from polypref.learners.protocol import Scorer

Choice = Callable[[int], bool]


def answers_to_flip(prefers_old: Choice, most: int) -> float:
    """The least m from 0 to ``most`` for which ``prefers_old(m)`` is false after m contrary answers.

    inf if ``most`` did not suffice.
    """
    for m in range(most + 1):
        if not prefers_old(m):
            return float(m)
    return np.inf


def inertia(scorer: Scorer, answers: Comparisons, confirming: int, old: int, new: int) -> float:
    """Contrary answers, after the first ``confirming`` rows of ``answers``, until text ``new`` beats text ``old``.

    The later rows are reversed and added one by one; inf if they do not suffice. Raises SettingsError for a scorer that
    cannot adapt.
    """
    texts = np.array([old, new], np.int32)
    most = len(answers) - confirming

    def prefers_old(m: int) -> bool:
        rows = np.arange(confirming + m)
        chosen_N = np.where(rows < confirming, answers.chosen_N[rows], answers.rejected_N[rows])
        rejected_N = np.where(rows < confirming, answers.rejected_N[rows], answers.chosen_N[rows])
        after = Comparisons(answers.responses, answers.users, np.zeros(len(rows), np.int32), chosen_N, rejected_N)
        value_2 = adapting(scorer).adapt("somebody", after).score(answers.responses, ["somebody"] * 2, texts).value_Q
        return bool(value_2[0] > value_2[1])

    return answers_to_flip(prefers_old, most)


def half_life(value_T: NDArray[np.float64], turn: int, before: int = 5) -> float:
    """Rounds after ``turn`` until half of the loss is recovered; 0 if nothing was lost, inf if it never is.

    The level before is the mean of the last ``before`` rounds. The loss is how far the round of the turn is below that
    level. Half of it is recovered at the first of two successive rounds that are both half-way up, so one lucky round
    is not enough.
    """
    level = value_T[max(turn - before, 0) : turn].mean()
    goal = (level + value_T[turn]) / 2
    if value_T[turn] >= level:
        return 0.0
    up_T = value_T[turn:] >= goal
    both_T = up_T[:-1] & up_T[1:]
    return float(both_T.argmax()) if both_T.any() else np.inf
