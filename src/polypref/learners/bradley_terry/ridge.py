"""One ridge-penalised Bradley-Terry model per user, all users at once in batched linear algebra.

Minimises, for every user u, the sum over their comparisons of -log P(label) + |w_u - center|^2 / (2 variance), where
the center is zero unless given, by Newton steps that are halved per user until they improve. Users with similar numbers
of comparisons share a padded batch (at most a quarter of it is padding). The Hessian is single precision, the gradient
double, so the solution is exact.

Suffixes here: ``_B`` users of a batch, ``_E`` their judgements (padded).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from polypref.comparisons import FloatArray, IntArray
from polypref.errors import not_converged
from polypref.learners.likelihood import surprise

HALVINGS = 12


@dataclass(frozen=True, eq=False)
class Batch:
    """Users with similar numbers of judgements: input differences, labels, weights (0 on padding)."""

    user_B: IntArray
    x_BEK: NDArray[np.float32]
    label_BE: FloatArray
    weight_BE: FloatArray


def batches(difference_NK: FloatArray, user_N: IntArray, label_N: FloatArray, weight_N: FloatArray) -> list[Batch]:
    """Sort judgements into batches; ``difference_NK`` is inputs(chosen) - inputs(rejected)."""
    order_N = np.argsort(user_N, kind="stable")
    users, first, size = np.unique(user_N[order_N], return_index=True, return_counts=True)
    grade = np.ceil(np.log(size) / np.log(1.25)).astype(int)
    found = []
    for g in np.unique(grade):
        member = np.flatnonzero(grade == g)
        place_BE = np.minimum(first[member, None] + np.arange(size[member].max()), len(order_N) - 1)
        used_BE = np.arange(size[member].max()) < size[member, None]
        rows_BE = order_N[place_BE]
        found.append(
            Batch(
                users[member].astype(np.int32),
                (difference_NK[rows_BE] * used_BE[..., None]).astype(np.float32),
                label_N[rows_BE],
                np.where(used_BE, weight_N[rows_BE], 0.0),
            )
        )
    return found


def solve(
    batch: Batch,
    variance: float,
    start_BK: FloatArray | None = None,
    tolerance: float = 1e-4,
    center_K: FloatArray | float = 0.0,
) -> FloatArray:
    """Weights (B, K) of every user of the batch: gradient at most ``tolerance`` in every coordinate.

    The prior of a weight is N(``center_K``, ``variance``).
    Warns with NotConverged after 50 steps.
    """
    users, _, k = batch.x_BEK.shape
    w_BK = np.zeros((users, k)) + center_K if start_BK is None else start_BK.copy()
    margin_BE, value_B = _evaluate(batch, w_BK, variance, center_K)
    for _ in range(50):
        p_BE = expit(margin_BE)
        force_BE = batch.weight_BE * (p_BE - batch.label_BE)
        gradient_BK = (force_BE[:, None] @ batch.x_BEK)[:, 0] + (w_BK - center_K) / variance
        if np.abs(gradient_BK).max() < tolerance:
            return w_BK
        curve_BE = (batch.weight_BE * p_BE * (1 - p_BE)).astype(np.float32)
        hessian_BKK = batch.x_BEK.transpose(0, 2, 1) @ (curve_BE[..., None] * batch.x_BEK)
        hessian_BKK[:, np.arange(k), np.arange(k)] += np.float32(1 / variance)
        step_BK = np.linalg.solve(hessian_BKK, gradient_BK[..., None].astype(np.float32))[..., 0]
        w_BK, margin_BE, value_B = _downhill(batch, w_BK, step_BK, value_B, (variance, center_K))
    force_BE = batch.weight_BE * (expit(margin_BE) - batch.label_BE)
    worst = np.abs((force_BE[:, None] @ batch.x_BEK)[:, 0] + (w_BK - center_K) / variance).max()
    if worst >= tolerance:
        not_converged("ridge regression", f"gradient {worst:.1e} after 50 Newton steps, expected {tolerance:.0e}")
    return w_BK


def _downhill(
    batch: Batch, w_BK: FloatArray, step_BK: FloatArray, value_B: FloatArray, prior: tuple[float, FloatArray | float]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights, margins and objective after the longest of the steps 1, 1/2, 1/4, ... that does not ascend."""
    size_B = np.ones(len(w_BK))
    while True:
        trial_BK = w_BK - size_B[:, None] * step_BK
        margin_BE, trial_B = _evaluate(batch, trial_BK, *prior)
        worse_B = trial_B > value_B + 1e-9
        if not worse_B.any():
            return trial_BK, margin_BE, trial_B
        size_B[worse_B] = np.where(size_B[worse_B] > 2.0**-HALVINGS, size_B[worse_B] / 2, 0.0)


def _evaluate(
    batch: Batch, w_BK: FloatArray, variance: float, center_K: FloatArray | float
) -> tuple[FloatArray, FloatArray]:
    """Margins (B, J) and objective (B,)."""
    margin_BE = (batch.x_BEK @ w_BK[..., None])[..., 0]
    loss_BE = surprise(margin_BE, batch.label_BE)
    return margin_BE, (batch.weight_BE * loss_BE).sum(axis=1) + ((w_BK - center_K) ** 2).sum(axis=1) / (2 * variance)
