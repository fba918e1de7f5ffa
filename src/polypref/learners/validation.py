"""Validation rows: how they are split off, and what is measured on them. Judgements of weight 0 are dropped here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.data.split import holdout
from polypref.errors import NotEnoughData
from polypref.learners.likelihood import surprise


def cut(train: Comparisons, valid: Comparisons | None, seed: int) -> tuple[Comparisons, Comparisons]:
    """``(train, valid)`` as given; without validation rows, a tenth of ``train`` is split off by text pair.

    Every learner starts here, so judgements of weight 0 affect no scores: they are left out, and a user who has no
    others is a stranger. Raises NotEnoughData if there is nothing to learn from.
    """
    train, valid = train.weighing(), None if valid is None else valid.weighing()
    if len(train) == 0:
        raise NotEnoughData("no comparisons to learn from: 0 training rows; lower --min-judgements or add data.")
    if valid is None:
        kept_rows, held_rows = holdout(train, "pair", seed, 0.1)
        train, valid = train.take(kept_rows), train.take(held_rows)
    return train, valid


def measure(margin_N: NDArray, rows: Comparisons) -> dict[str, float]:
    """Mean log loss of all ``rows`` and accuracy of the decided ones; empty without rows."""
    if not rows.weights_N.any():
        return {}
    found = {"valid_log_loss": log_loss(margin_N, rows)}
    decided_N = (rows.label_N != 0.5) & (rows.weights_N > 0)
    if decided_N.any():
        right_N = 0.5 + 0.5 * np.sign(margin_N[decided_N])
        found["valid_accuracy"] = float(np.average(right_N, weights=rows.weights_N[decided_N]))
    return found


def log_loss(margin_N: NDArray, rows: Comparisons) -> float:
    """Weighted mean of -log P(label), labels 1 or one half."""
    loss_N = surprise(margin_N, rows.label_N)
    return float(np.average(loss_N, weights=rows.weights_N))


def best(found: Mapping[float, float]) -> float:
    """The setting with the least loss; the first if several are equal."""
    return min(found, key=lambda setting: found[setting])
