"""``mixed`` for one user with given population rewards: fits a new user's few comparisons in milliseconds.

With d and b of ``mixed`` integrated out, the N margins of one user are jointly normal,

    f ~ N(f0, F),   F = D spread D' + personal A C A'

where D are the differences of the inputs and A takes the difference of two texts' views. Expectation propagation
(``expectation_propagation``; Rasmussen & Williams 2006, section 3.6) makes the likelihood a normal in f, of precision W
and mean W^-1 pull. Then, with Q = (F + W^-1)^-1, the mean is F alpha + f0 and

    alpha = Q (W^-1 pull - f0)
    d = spread D' alpha,   var(d) = spread - spread D' Q D spread,   b = personal C A' alpha

``expectation_propagation.solve`` finds the same for given population rewards, but its cost is the cube of the number of
inputs instead of comparisons, and it needs clusters first. Views of texts of different prompts are independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from polypref.errors import not_converged
from polypref.learners.bradley_terry.expectation_propagation import Pace, refined
from polypref.learners.bradley_terry.mixed import LARGEST, Array, Likeness, Variances
from polypref.learners.bradley_terry.newton import Sites

MOST = 400  # maximum comparisons, whose cube is the cost


@dataclass(frozen=True, eq=False)
class Judged:
    """One user's comparisons: inputs and prompts of R texts, the numbers of winners and losers, labels, weights."""

    x_RK: Array
    prompt_R: NDArray[np.integer]
    chosen_N: NDArray[np.integer]
    rejected_N: NDArray[np.integer]
    label_N: Array
    weight_N: Array

    @property
    def suits(self) -> bool:
        """Whether there are few enough comparisons, none of them between prompts."""
        same = (self.prompt_R[self.chosen_N] == self.prompt_R[self.rejected_N]).all()
        most = np.unique(self.prompt_R, return_counts=True)[1].max(initial=0)
        return 0 < len(self.chosen_N) <= MOST and bool(same) and most <= LARGEST

    def apart(self, value_RX: Array) -> Array:
        """Values of the chosen minus those of the rejected texts."""
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


def solve(
    judged: Judged, mean_R: Array, prior: Variances, likeness: Likeness, left_R: Array | None = None, steps: int = 300
) -> Single:
    """The posterior given the expected rewards of the texts: the population's, or the user's own of earlier judgements.

    ``left_R`` is the share of a view's variance that earlier judgements left; None: all. Warns with NotConverged after
    ``steps``.
    """
    left_R = np.ones(len(mean_R)) if left_R is None else left_R
    d_NK = judged.apart(judged.x_RK)
    reach_KN = prior.spread_KK @ d_NK.T
    same_RR = judged.prompt_R[:, None] == judged.prompt_R
    alike_RR = prior.personal * likeness(judged.x_RK[None])[0] * same_RR * np.sqrt(np.outer(left_R, left_R))
    view_RN = judged.apart(alike_RR).T
    views_NN = judged.apart(view_RN)
    offset_N = judged.apart(mean_R)
    alpha_N, q_NN, precision_N = _propagated(judged, d_NK @ reach_KN + views_NN, offset_N, steps)
    known_R = np.einsum("rn,nm,rm->r", view_RN, _inverse(views_NN, precision_N), view_RN, optimize=True)
    return Single(
        reach_KN @ alpha_N,
        prior.spread_KK - reach_KN @ q_NN @ reach_KN.T,
        view_RN @ alpha_N,
        np.maximum(prior.personal * left_R - known_R, 0.0),
    )


def _propagated(judged: Judged, covariance_NN: Array, offset_N: Array, steps: int) -> tuple[Array, Array, Array]:
    """The dual weights alpha, Q and the precisions W of the sites, once margins no longer move."""
    label_N, weight_N = np.asarray(judged.label_N, float), np.asarray(judged.weight_N, float)
    sites = Sites(weight_N / 4, weight_N * (label_N - 0.5))
    mean_N, alpha_N, q_NN, pace = offset_N, np.zeros(len(offset_N)), np.zeros_like(covariance_NN), Pace()
    for _ in range(steps):
        q_NN = _inverse(covariance_NN, sites.precision_N)
        pull_N = sites.pull_N - sites.precision_N * offset_N
        # Q (W^-1 pull - f0), without dividing by precisions that may be close to zero
        alpha_N = pull_N - q_NN @ (covariance_NN @ pull_N)
        before_N, mean_N = mean_N, offset_N + covariance_NN @ alpha_N
        pace = pace.after(float(np.abs(mean_N - before_N).max()))
        if pace.left < 1e-6:
            return alpha_N, q_NN, sites.precision_N
        variance_N = (covariance_NN - covariance_NN @ q_NN @ covariance_NN).diagonal()
        sites = refined(sites, (mean_N, np.maximum(variance_N, 1e-9)), label_N, weight_N, pace.share)
    not_converged("expectation propagation", f"a margin still had {pace.left:.1e} to go after {steps} steps")
    return alpha_N, q_NN, sites.precision_N


def _inverse(covariance_NN: Array, precision_N: Array) -> Array:
    """(covariance + precision^-1)^-1."""
    root_N = np.sqrt(precision_N)
    system_NN = root_N[:, None] * covariance_NN * root_N
    system_NN[np.diag_indices_from(system_NN)] += 1.0
    factor = cho_factor(system_NN, lower=True, overwrite_a=True, check_finite=False)
    return cho_solve(factor, np.diag(root_N)) * root_N[:, None]
