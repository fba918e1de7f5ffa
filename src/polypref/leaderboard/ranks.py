"""Rank intervals that hold for all systems at once.

Source: Mogstad, Romano, Shaikh & Wilhelm (2024), "Inference for ranks". Differences of all pairs get simultaneous
intervals: their critical value is the 95 % quantile of the largest |difference| / standard error under a normal with
the strengths' covariance. A system's best rank counts those that surely beat it, its worst those that it surely beats.

Covered: all ranks of one table at once, at 95 %. Not covered: several tables at once; covariances that are misjudged.
Suffixes here: ``_M`` systems.
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from polypref.leaderboard.battles import Floats, Ints

DRAWS = 2000
LEVEL = 0.95


def root(covariance_MM: Floats) -> Floats:
    """A matrix whose product with its transpose is the covariance; it may be singular."""
    value_M, vector_MM = np.linalg.eigh((covariance_MM + covariance_MM.T) / 2)
    return vector_MM * np.sqrt(np.maximum(value_M, 0))


def half_widths(covariance_MM: Floats, clusters: int) -> Floats:
    """Half the width of each strength's own 95 % interval, against the mean of all systems (M)."""
    m = len(covariance_MM)
    centre_MM = np.eye(m) - 1 / m
    se_M = np.sqrt(np.maximum(np.diag(centre_MM @ covariance_MM @ centre_MM), 0))
    return float(stdtrit(max(clusters - 1, 1), 0.5 + LEVEL / 2)) * se_M


def rank_intervals(theta_M: Floats, covariance_MM: Floats, clusters: int, seed: int = 0) -> tuple[Ints, Ints]:
    """Best and worst rank of each system (M, M), for all of them at once."""
    rng = np.random.default_rng(seed)
    m = len(theta_M)
    variance_M = np.diag(covariance_MM)
    se_MM = np.sqrt(np.maximum(variance_M[:, None] + variance_M[None, :] - 2 * covariance_MM, 0))
    np.fill_diagonal(se_MM, np.inf)
    freedom = max(clusters - 1, 1)
    factor_MM = root(covariance_MM)
    draw_BM = rng.standard_normal((DRAWS, m)) @ factor_MM.T / np.sqrt(rng.chisquare(freedom, (DRAWS, 1)) / freedom)
    largest_B = np.zeros(DRAWS)
    for at in range(m - 1):
        apart_BM = np.abs(draw_BM[:, [at]] - draw_BM[:, at + 1 :]) / np.maximum(se_MM[at, at + 1 :], 1e-12)
        largest_B = np.maximum(largest_B, apart_BM.max(axis=1))
    sure_MM = theta_M[:, None] - theta_M[None, :] > np.quantile(largest_B, LEVEL) * se_MM
    return 1 + sure_MM.sum(axis=0), m - sure_MM.sum(axis=1)
