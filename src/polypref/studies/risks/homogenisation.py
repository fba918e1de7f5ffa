"""Homogenisation: how similarly different people are served. It is the opposite failure of a filter bubble.

Source: the personalization index is 1 - mean overlap between people on the same questions (as in audits of web search).
Diets are compared by the total variation between two people's shares of kinds.

Covered: exact means over all pairs of people, without a loop over pairs. Not covered: whether people *should* be served
alike; if all want the same, a high overlap is right. Two people with the same tastes but different questions have
different diets by chance, so compare with the population's scorer on the same log.

Suffixes here: ``_C`` distinct texts picked, ``_K`` kinds of text, ``_M`` slates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polypref.errors import NotEnoughData


def overlap(pick_MU: NDArray[np.integer]) -> float:
    """Share of pairs of people who are shown the same text, mean over the M questions that everybody asks.

    1 means that everybody gets the same; random choice among n texts gives 1 / n. ``1 - overlap`` is the
    personalization index. Raises NotEnoughData for fewer than two people.
    """
    users = pick_MU.shape[1]
    _several(users)
    count_MC = np.stack([(pick_MU == place).sum(axis=1) for place in np.unique(pick_MU)], axis=1)
    same_M = (count_MC * (count_MC - 1)).sum(axis=1)
    return float(same_M.mean() / (users * (users - 1)))


def diet_likeness(count_UK: NDArray[np.integer]) -> float:
    """1 - mean total variation between two people's shares of kinds: 1 is the same diet, 0 nothing in common."""
    users = len(count_UK)
    _several(users)
    share_KU = np.sort((count_UK / count_UK.sum(axis=1, keepdims=True)).T, axis=1)
    rank_U = 2 * np.arange(users) - (users - 1)  # in a sorted list, how often each is added minus how often subtracted
    apart_K = share_KU @ rank_U / (users * (users - 1) / 2)
    return float(1 - apart_K.sum() / 2)


def _several(users: int) -> None:
    if users < 2:
        raise NotEnoughData(f"{users} people; expected at least 2 to compare.")
