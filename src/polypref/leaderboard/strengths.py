"""Strengths of systems: Bradley-Terry with shrinkage, covariates, and a covariance that knows who judged.

Source: Bradley & Terry (1952). With theta the strengths and beta the coefficients,

    P(first wins) = 1 / (1 + exp(-(theta_first - theta_second + x beta))),   theta ~ Normal(prior, variance)

``variance`` is estimated by EM (empirical Bayes); beta has a prior of variance 100, which is none. A tie counts one
half, in the likelihood as in all of polypref. Davidson's and Rao & Kupper's models add the chance of a tie, which says
nothing of who is better; their strengths are those of this one up to scale.

Judgements of one person are not independent. With H the negative Hessian of the log posterior, G_u the score of all
that person u judged and R the precision of the prior, the covariance is H^-1 (c sum_u G_u G_u' + R) H^-1, with
c = people / (people - 1); where judgements are independent that is H^-1, the posterior's. Prompts are taken as given.

Covered: any number of judgements in bounded memory (scores are sparse). Not covered: fewer than ``FEW`` people, for
whom each judgement is a cluster and the interval speaks of these people only.
Suffixes here: ``_M`` systems, ``_E`` covariates, ``_A`` coefficients: systems, then covariates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from polypref.leaderboard.battles import Battles, Floats, Ints

FEW = 5  # people
STEPS, EM_STEPS = 50, 100
WIDE = 100.0
LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Strengths:
    """Coefficients ``theta_A`` (systems, then covariates), their covariance, and the prior's variance.

    ``clusters``  people, or judgements where there are too few people. ``lean_MM``: how far each strength leans on the
    prior's mean, H^-1 R.
    """

    theta_A: Floats
    covariance_AA: Floats
    variance: float
    n_systems: int
    clusters: int
    lean_MM: Floats

    @property
    def theta_M(self) -> Floats:
        return self.theta_A[: self.n_systems]

    @property
    def covariance_MM(self) -> Floats:
        return self.covariance_AA[: self.n_systems, : self.n_systems]


def fit(battles: Battles, prior_M: Floats | None = None, variance: float | None = None) -> Strengths:
    """The strengths around ``prior_M`` (zero), and their ``variance``, estimated if it is not given."""
    m = len(battles.names)
    prior_A = np.zeros(m + battles.extra_NE.shape[1])
    if prior_M is not None:
        prior_A[:m] = prior_M
    theta_A, estimated = prior_A.copy(), variance is None
    now = 1.0 if variance is None else variance
    precision_AA = np.eye(len(theta_A))
    for _ in range(EM_STEPS if estimated else 1):
        theta_A, precision_AA = _mode(battles, theta_A, prior_A, now)
        if not estimated:
            break
        spread_M = np.diag(np.linalg.inv(precision_AA))[:m]
        new = max(float((((theta_A - prior_A)[:m] ** 2) + spread_M).mean()), LEAST)
        done, now = abs(new - now) < 1e-3 * now, new
        if done:
            break
    inverse_AA = np.linalg.inv(precision_AA)
    clusters, meat_AA = _meat(battles, theta_A)
    ridge_AA = np.diag(_prior_precision(len(theta_A), m, now))
    covariance_AA = inverse_AA @ (meat_AA + ridge_AA) @ inverse_AA
    return Strengths(theta_A, covariance_AA, now, m, clusters, (inverse_AA @ ridge_AA)[:m, :m])


def logits(battles: Battles, theta_A: Floats) -> Floats:
    """The log-odds of every battle (N)."""
    m = len(battles.names)
    logit_N = theta_A[battles.first_N] - theta_A[battles.second_N]
    return logit_N + battles.extra_NE @ theta_A[m:] if battles.extra_NE.shape[1] else logit_N


def _prior_precision(size: int, m: int, variance: float) -> Floats:
    return np.where(np.arange(size) < m, 1 / variance, 1 / WIDE)


def _mode(battles: Battles, theta_A: Floats, prior_A: Floats, variance: float) -> tuple[Floats, Floats]:
    """Newton's steps to the posterior's mode, and the precision there."""
    m, ridge_A = len(battles.names), _prior_precision(len(theta_A), len(battles.names), variance)
    precision_AA = np.diag(ridge_A)
    for _ in range(STEPS):
        mean_N = expit(logits(battles, theta_A))
        residual_N = battles.weight_N * (battles.label_N - mean_N)
        gradient_A = np.concatenate(
            [
                np.bincount(battles.first_N, residual_N, m) - np.bincount(battles.second_N, residual_N, m),
                battles.extra_NE.T @ residual_N,
            ]
        ) - ridge_A * (theta_A - prior_A)
        precision_AA = _information(battles, battles.weight_N * mean_N * (1 - mean_N)) + np.diag(ridge_A)
        step_A = np.linalg.solve(precision_AA, gradient_A)
        theta_A = theta_A + np.clip(step_A, -2, 2)
        if np.abs(step_A).max(initial=0) < 1e-8:
            break
    return theta_A, precision_AA


def _information(battles: Battles, weight_N: Floats) -> Floats:
    """X' W X of the design: one in the column of the first system, minus one in that of the second, covariates."""
    m, e = len(battles.names), battles.extra_NE.shape[1]
    found_AA = np.zeros((m + e, m + e))
    code_N = battles.first_N * m + battles.second_N
    pairs_MM = np.bincount(code_N, weight_N, m * m).reshape(m, m)
    pairs_MM = pairs_MM + pairs_MM.T
    found_AA[:m, :m] = np.diag(pairs_MM.sum(axis=1)) - pairs_MM
    for at in range(e):
        column_N = weight_N * battles.extra_NE[:, at]
        cross_M = np.bincount(battles.first_N, column_N, m) - np.bincount(battles.second_N, column_N, m)
        found_AA[:m, m + at] = found_AA[m + at, :m] = cross_M
        found_AA[m + at, m:] = battles.extra_NE.T @ column_N
    return found_AA


def _meat(battles: Battles, theta_A: Floats) -> tuple[int, Floats]:
    """The number of clusters, and the sum of the outer products of their scores."""
    m, e, n = len(battles.names), battles.extra_NE.shape[1], len(battles)
    residual_N = battles.weight_N * (battles.label_N - expit(logits(battles, theta_A)))
    people, cluster_N = np.unique(battles.user_N, return_inverse=True)
    if len(people) < FEW:
        people, cluster_N = np.arange(n), np.arange(n)
    row_X: Ints = np.concatenate([cluster_N, cluster_N])
    column_X = np.concatenate([battles.first_N, battles.second_N])
    score = csr_array((np.concatenate([residual_N, -residual_N]), (row_X, column_X)), shape=(len(people), m))
    meat_AA = np.zeros((m + e, m + e))
    meat_AA[:m, :m] = (score.T @ score).toarray()
    if e:
        extra = np.column_stack(
            [np.bincount(cluster_N, residual_N * battles.extra_NE[:, at], len(people)) for at in range(e)]
        )
        meat_AA[:m, m:] = score.T @ extra
        meat_AA[m:, :m] = meat_AA[:m, m:].T
        meat_AA[m:, m:] = extra.T @ extra
    return len(people), meat_AA * len(people) / max(len(people) - 1, 1)
