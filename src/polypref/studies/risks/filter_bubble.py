"""Filter bubble: how many kinds of answers a person still sees, and whether they become fewer.

Source: the effective number of kinds is exp(H), H the entropy of the kinds' shares (Hill's number of order 1, 1973).
It is measured per person in windows of rounds; the slope is that of a straight line through the windows.

Covered: any log with a kind for each answer. Not covered: what should count as a kind; here the simulated texts have
known kinds. A window of W answers shows at most W kinds, and fewer than exist: compare with a random server in the same
windows, never with the number of kinds.

Suffixes here: ``_K`` kinds of text, ``_T`` rounds, ``_W`` windows of rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from polypref.errors import NotEnoughData

Floats = NDArray[np.float64]


def effective_number(count_XK: NDArray) -> Floats:
    """exp(H) of the counts on the last axis, (X,): 1 if all are of one kind, K if K kinds are equally common.

    NaN where nothing was counted.
    """
    total_X1 = count_XK.sum(axis=-1, keepdims=True).astype(np.float64)
    share_XK = np.divide(count_XK, total_X1, out=np.full(count_XK.shape, np.nan), where=total_X1 > 0)
    return np.exp(-xlogy(share_XK, share_XK).sum(axis=-1))


def counts(kind_TU: NDArray[np.integer], kinds: int) -> NDArray[np.int64]:
    """How often each person was shown each kind, (U, K)."""
    users = kind_TU.shape[1]
    code_TU = np.arange(users) * kinds + kind_TU
    return np.bincount(code_TU.ravel(), minlength=users * kinds).reshape(users, kinds)


@dataclass(frozen=True, eq=False)
class Bubble:
    """``number_WU``: effective kinds in each window for each person; ``slope_U``: its change per 10 rounds."""

    number_WU: Floats
    slope_U: Floats


def filter_bubble(kind_TU: NDArray[np.integer], kinds: int, windows: int = 3) -> Bubble:
    """Effective kinds over time in ``windows`` equal windows; the first rounds are left out if they do not fill a
    window.

    Raises NotEnoughData for fewer than two windows of two rounds.
    """
    rounds, users = kind_TU.shape
    width = rounds // max(windows, 1)
    if windows < 2 or width < 2:
        raise NotEnoughData(f"{rounds} rounds in {windows} windows; expected at least 2 windows of 2 rounds each.")
    kind_WTU = kind_TU[rounds - windows * width :].reshape(windows, width, users)
    number_WU = np.stack([effective_number(counts(kind_TU, kinds)) for kind_TU in kind_WTU])
    middle_W = width * (np.arange(windows) - (windows - 1) / 2)
    slope_U = 10 * middle_W @ number_WU / (middle_W @ middle_W)
    return Bubble(number_WU, slope_U)
