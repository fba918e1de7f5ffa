"""``mixed`` for one user whose population rewards are given: what a new user's few comparisons say, in milliseconds.

With d and b of ``mixed`` integrated over, the N margins of one user are jointly normal,

    f ~ N(f0, F),   F = D spread D' + personal A C A'

where D are the differences of the inputs and A takes the difference of two texts' views. The mode is F alpha + f0,
found by Newton steps on alpha (Rasmussen & Williams 2006, algorithm 3.1) that are halved until they go downhill, and
with W the curvature at the mode and Q = (F + W^-1)^-1

    d = spread D' alpha,   var(d) = spread - spread D' Q D spread,   b = personal C A' alpha

The mode is the one that ``newton.solve_users`` finds, which costs the cube of the number of inputs instead of that of
the number of comparisons, and sorts them into clusters first. Views of texts of different prompts are independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from polypref.errors import not_converged
from polypref.learners.bradley_terry.mixed import LARGEST, Array, Likeness, Variances
from polypref.learners.likelihood import surprise

MOST = 400  # comparisons up to which their cube is cheap
HALVINGS = 12


@dataclass(frozen=True, eq=False)
class Judged:
    """One user's comparisons: inputs and prompts of R texts, which of them (by number) won, labels, weights."""

    x_RK: Array
    prompt_R: NDArray[np.integer]
    chosen_N: NDArray[np.integer]
    rejected_N: NDArray[np.integer]
    label_N: Array
    weight_N: Array

    @property
    def suits(self) -> bool:
        """Whether they are few enough, and texts of different prompts are never compared."""
        same = (self.prompt_R[self.chosen_N] == self.prompt_R[self.rejected_N]).all()
        most = np.unique(self.prompt_R, return_counts=True)[1].max(initial=0)
        return 0 < len(self.chosen_N) <= MOST and bool(same) and most <= LARGEST

    def apart(self, value_RX: Array) -> Array:
        """Values of the chosen less those of the rejected texts."""
        return value_RX[self.chosen_N] - value_RX[self.rejected_N]


@dataclass(frozen=True, eq=False)
class Single:
    """Posterior of one user: deviation of the weights and its covariance, views of the texts and their variances.

    ``view_variance_R`` is that of b given d, as in ``newton.posterior``.
    """

    deviation_K: Array
    covariance_KK: Array
    view_R: Array
    view_variance_R: Array


def solve(judged: Judged, population_R: Array, prior: Variances, likeness: Likeness, steps: int = 50) -> Single:
    """The posterior given the population's rewards of the texts.

    Warns with NotConverged when its mode takes more than ``steps``.
    """
    d_NK = judged.apart(judged.x_RK)
    reach_KN = prior.spread_KK @ d_NK.T
    same_RR = judged.prompt_R[:, None] == judged.prompt_R
    alike_RR = prior.personal * likeness(judged.x_RK[None])[0] * same_RR
    view_RN = judged.apart(alike_RR).T
    views_NN = judged.apart(view_RN)
    covariance_NN = d_NK @ reach_KN + views_NN
    offset_N = judged.apart(population_R)
    alpha_N, curve_N = _mode(judged, covariance_NN, offset_N, steps)
    q_NN = _inverse(covariance_NN, curve_N)
    known_R = np.einsum("rn,nm,rm->r", view_RN, _inverse(views_NN, curve_N), view_RN, optimize=True)
    return Single(
        reach_KN @ alpha_N,
        prior.spread_KK - reach_KN @ q_NN @ reach_KN.T,
        view_RN @ alpha_N,
        np.maximum(prior.personal - known_R, 0.0),
    )


def _mode(judged: Judged, covariance_NN: Array, offset_N: Array, steps: int) -> tuple[Array, Array]:
    """The dual weights of the mode, and the likelihood's curvature there."""
    alpha_N = np.zeros(len(offset_N))
    before, margin_N = _energy(judged, covariance_NN, offset_N, alpha_N)
    for _ in range(steps):
        curve_N, force_N = _quadratic(judged, margin_N)
        pull_N = curve_N * (margin_N - offset_N) + force_N
        root_N = np.sqrt(curve_N)
        inner_N = cho_solve(_factor(covariance_NN, root_N), root_N * (covariance_NN @ pull_N))
        step_N = pull_N - root_N * inner_N - alpha_N
        now, size = before, 1.0
        for _ in range(HALVINGS):
            now, margin_N = _energy(judged, covariance_NN, offset_N, alpha_N + size * step_N)
            if now <= before:
                break
            size /= 2
        if now > before:  # at the mode, as far as numbers go
            return alpha_N, curve_N
        alpha_N = alpha_N + size * step_N
        if before - now < 1e-10:
            return alpha_N, _quadratic(judged, margin_N)[0]
        before = now
    not_converged("Newton's method", f"its last of {steps} steps still gained")
    return alpha_N, _quadratic(judged, margin_N)[0]


def _energy(judged: Judged, covariance_NN: Array, offset_N: Array, alpha_N: Array) -> tuple[float, Array]:
    """Negative log posterior up to a constant, and the margins."""
    moved_N = covariance_NN @ alpha_N
    margin_N = offset_N + moved_N
    loss_N = surprise(margin_N, judged.label_N)
    return float(judged.weight_N @ loss_N + alpha_N @ moved_N / 2), margin_N


def _quadratic(judged: Judged, margin_N: Array) -> tuple[Array, Array]:
    """Curvature and slope of the log likelihood."""
    p_N = expit(margin_N)
    return judged.weight_N * np.maximum(p_N * (1 - p_N), 1e-6), judged.weight_N * (judged.label_N - p_N)


def _factor(covariance_NN: Array, root_N: Array) -> tuple[Array, bool]:
    system_NN = root_N[:, None] * covariance_NN * root_N
    system_NN[np.diag_indices_from(system_NN)] += 1.0
    return cho_factor(system_NN, lower=True, overwrite_a=True, check_finite=False)


def _inverse(covariance_NN: Array, curve_N: Array) -> Array:
    """(covariance + curve^-1)^-1; a comparison without curvature says nothing."""
    root_N = np.sqrt(curve_N)
    return cho_solve(_factor(covariance_NN, root_N), np.diag(root_N)) * root_N[:, None]
