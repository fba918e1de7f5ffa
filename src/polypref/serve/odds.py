"""How far rewards have to be brought together to be log odds: a scorer that knows how unsure it is of a person.

A difference that is N(m, s^2) predicts the average of sigmoid(difference), about sigmoid(m / sqrt(1 + pi s^2 / 8))
(``learners.protocol.log_odds``). For more than two texts, s^2 is the mean over the differences to the best one, so the
order stays. Strangers' rewards are the population's: they are what predicts best already, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from polypref.comparisons import Comparisons, Responses, Users
from polypref.learners.protocol import Uncertain
from polypref.serve.people import State


def sureness(state: State, pool: Responses, place_C: np.ndarray, order: Sequence[int]) -> float:
    """What to multiply the rewards of a slate with, at most 1; ``order``: its texts that are not blocked, best first.

    ``place_C`` are the texts' places in the pool. 1 for scorers that do not know how unsure they are.
    """
    if state.user is None or not isinstance(state.scorer, Uncertain) or len(order) < 2:
        return 1.0
    best_N, other_N = np.full(len(order) - 1, place_C[order[0]], np.int32), place_C[list(order[1:])].astype(np.int32)
    users = Users(pl.Series("id", [state.user]))
    rows = Comparisons(pool, users, np.zeros(len(other_N), np.int32), best_N, other_N)
    variance = float((np.nan_to_num(state.scorer.margin_sd(rows)) ** 2).mean())
    return float(1 / np.sqrt(1 + np.pi * variance / 8))
