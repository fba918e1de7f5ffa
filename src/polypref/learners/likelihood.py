"""The log loss of judgements given reward differences: P(label) = sigmoid(margin); a tie is half of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def surprise(margin: NDArray[np.floating], label: NDArray[np.floating]) -> NDArray[np.floating]:
    """-log P(label) of each judgement, in arrays of one shape; a label is 1 for the first response, 1/2 for a tie."""
    return np.log1p(np.exp(-np.abs(margin))) + np.maximum(-margin, 0.0) + (1.0 - label) * margin
