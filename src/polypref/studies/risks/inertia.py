"""Value lock-in: how many answers to the contrary it takes to be believed, and how long a change of mind is not seen.

Source: our own definitions. *Preference inertia*: after k answers that confirm a taste, the number of answers to the
contrary until the scorer's choice between two texts flips. One who counts votes needs k + 1; fewer
is quicker than that. *Half-life*: after everybody's taste has turned round, the rounds until half of what was
lost is won back.

Covered: any scorer that adapts; an answer that never flips is told as such. Not covered: gradual change, and people
who are shown so little of the other side that they cannot contradict.

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
    """The least m from 0 to ``most`` for which ``prefers_old(m)`` is false: m answers to the contrary have come.

    inf when ``most`` did not suffice.
    """
    for m in range(most + 1):
        if not prefers_old(m):
            return float(m)
    return np.inf


def inertia(scorer: Scorer, said: Comparisons, confirming: int, old: int, new: int) -> float:
    """Answers to the contrary, after the first ``confirming`` rows of ``said``, until text ``new`` beats text ``old``.

    The rows after those are taken the other way round, one after the other; inf when none is left.
    Raises SettingsError for a scorer that takes nobody in.
    """
    texts = np.array([old, new], np.int32)
    most = len(said) - confirming

    def prefers_old(m: int) -> bool:
        rows = np.arange(confirming + m)
        chosen_N = np.where(rows < confirming, said.chosen_N[rows], said.rejected_N[rows])
        rejected_N = np.where(rows < confirming, said.rejected_N[rows], said.chosen_N[rows])
        after = Comparisons(said.responses, said.users, np.zeros(len(rows), np.int32), chosen_N, rejected_N)
        value_2 = adapting(scorer).adapt("somebody", after).score(said.responses, ["somebody"] * 2, texts).value_Q
        return bool(value_2[0] > value_2[1])

    return answers_to_flip(prefers_old, most)


def half_life(value_T: NDArray[np.float64], turn: int, before: int = 5) -> float:
    """Rounds after ``turn`` until half of the loss is won back; 0 where nothing was lost, inf where it never is.

    The level before is the mean of the last ``before`` rounds, the loss is what the round of the turn is below it, and
    half of it is won back by the first of two successive rounds that both are half-way up: one lucky round does not do.
    """
    level = value_T[max(turn - before, 0) : turn].mean()
    goal = (level + value_T[turn]) / 2
    if value_T[turn] >= level:
        return 0.0
    up_T = value_T[turn:] >= goal
    both_T = up_T[:-1] & up_T[1:]
    return float(both_T.argmax()) if both_T.any() else np.inf
