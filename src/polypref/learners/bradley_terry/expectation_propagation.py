"""Expectation propagation for ``mixed``: posterior means and variances of the effects, where the mode misleads.

Papers: Minka 2001, "Expectation propagation for approximate Bayesian inference"; Kuss and Rasmussen 2005, "Assessing
approximate inference for binary Gaussian process classification". A judgement's likelihood is replaced by a normal in
its margin (``newton.Sites``), such that the margin's posterior mean and variance equal those of the exact likelihood
times all other information about it:

    cavity    N(m, v):   1/v = 1/variance - precision,   m = v (mean/variance - pull)
    tilted    mean and variance of  N(f; m, v) P(label | f)^weight,  by the trapezoidal rule on 57 points
    site      precision = 1/tilted variance - 1/v,   pull = tilted mean/tilted variance - m/v

With strong tastes and few answers, a posterior's mode is much closer to zero than its mean, so users' variances
estimated from modes are .4 to .8 of the truth (docs/hierarchical.md).

What we changed: all judgements move at once, by a share of the way that falls where they overshoot; a margin's variance
holds users' weights, their views and the population's weights, and leaves out the shared effects of texts.

Suffixes here: ``_B`` clusters of a bucket, ``_C`` probes, ``_L`` the clusters' slots for responses (padded), ``_V``
variances by kind, ``_X`` points of a rule for integrals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from polypref.errors import not_converged
from polypref.learners.bradley_terry import newton
from polypref.learners.bradley_terry.mixed import Array, Effects, Problem, Variances, margins, start
from polypref.learners.bradley_terry.newton import Probes, Reduced, Sites
from polypref.learners.bradley_terry.variances import LARGEST, Estimate, beginning, carried, kinds, updated
from polypref.learners.likelihood import surprise

POINT_X = np.linspace(-7, 7, 57)  # in standard deviations of the cavity
SHARE = 0.7  # of the way to where the sites should be
PORTION = 1 << 24  # numbers that an integral or a product over rows may take at once


@dataclass(frozen=True)
class Pace:
    """How far margins still had to go in the last step, on average, and the share of the way that the next takes."""

    left: float = np.inf
    share: float = SHARE

    def after(self, moved: float) -> Pace:
        """Slower when the way does not get shorter: judgements that say the same, moved together, overshoot."""
        left = moved / self.share
        return Pace(left, max(self.share * 0.6, 0.1) if left > self.left else min(self.share * 1.1, SHARE))


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior of the effects: means, the likelihood as normals, and the rest after users are integrated out.

    ``population_KK`` is the covariance of the population's weights; zeros where they were given. ``margin_N`` are the
    means that the sites were moved for.
    """

    prior: Variances
    effects: Effects
    sites: Sites
    reduced: Reduced
    population_KK: Array
    margin_N: Array
    pace: Pace

    @property
    def covariance_UKK(self) -> Array:
        """Covariance of everyone's weights w + d."""
        return newton.covariances(self.reduced, self.prior, self.population_KK)

    @property
    def newcomer_KK(self) -> Array:
        """Covariance of an unknown person's weights around the population's mean."""
        return self.prior.spread_KK + self.population_KK


def settled(task: Problem, config: Estimate, seed: int, known: Posterior | None = None) -> Posterior:
    """The posterior under the variances of ``estimate``."""
    found = estimate(task, config, seed, known)
    return solve(task, found.prior, found)


def estimate(task: Problem, config: Estimate, seed: int, known: Posterior | None = None) -> Posterior:
    """Empirical Bayes as in ``variances.estimate``, on this posterior; starts from ``known``."""
    prior = beginning(task, config) if known is None else known.prior
    probes = Probes.draw(task, config.probes, seed)
    found = unknown(task, prior) if known is None else known
    path = None
    for at in range(config.steps):
        found, probes = _step(task, replace(found, prior=prior, pace=Pace()), probes, tolerance=1e-2)
        if at >= 2:  # the first sites know next to nothing
            relative_T = (probes.signs_TC * probes.images_TC).mean(axis=1)
            new = updated(task, config, found.effects, prior, found.reduced, relative_T)
            new, path = _hastened(kinds(task), prior, new, path)
            found, prior = replace(found, effects=carried(found.effects, prior, new)), new
    return replace(found, prior=prior)


@dataclass(frozen=True, eq=False)
class _Path:
    """The history of an estimate: logarithms of its variances by kind, and the last update's change of them."""

    at_V: Array
    moved_V: Array


def _hastened(kinds: list[slice], old: Variances, new: Variances, path: _Path | None) -> tuple[Variances, _Path]:
    """The update scaled by a factor from 1/2 to 2: a secant step through the last two updates (Aitken), by kind.

    With few answers the updates are many small steps in one direction; with many answers each overshoots.
    """
    at_V = _logarithms(kinds, old)
    moved_V = _logarithms(kinds, new) - at_V
    factor_V = np.ones(len(at_V))
    if path is not None:
        slope_V = np.divide(
            moved_V - path.moved_V, at_V - path.at_V, out=np.zeros_like(at_V), where=np.abs(at_V - path.at_V) > 1e-6
        )
        factor_V = np.clip(np.divide(1.0, -slope_V, out=np.full_like(at_V, 2.0), where=slope_V < -0.5), 0.5, 2.0)
    more_V = np.exp((factor_V - 1) * moved_V)
    scale_K, population_K = np.ones(len(new.spread_KK)), new.population_K.copy()
    for number, kind in enumerate(kinds):
        population_K[kind] = np.minimum(population_K[kind] * more_V[2 + number], LARGEST)
        scale_K[kind] = np.sqrt(more_V[2 + len(kinds) + number])
    further = new.scaled(shared=more_V[0], personal=more_V[1])
    spread_KK = scale_K[:, None] * new.spread_KK * scale_K
    return replace(further, population_K=population_K, spread_KK=spread_KK), _Path(at_V, moved_V)


def _logarithms(kinds: list[slice], some: Variances) -> Array:
    """Variances of shared effects and of views, then by kind of input those of the population and of users."""
    parts = [some.shared, some.personal]
    for value_K in (some.population_K, some.spread_KK.diagonal()):
        parts += [float(value_K[kind].sum()) for kind in kinds]
    return np.log(np.maximum(parts, 1e-12))


def solve(
    task: Problem,
    prior: Variances,
    known: Posterior | None = None,
    population_R: Array | None = None,
    steps: int = 200,
    tolerance: float = 1e-3,
) -> Posterior:
    """The posterior under given variances, until margins have less than ``tolerance`` to go on average.

    ``population_R``: the population's rewards, if they are given and fixed. Warns with NotConverged after ``steps``.
    """
    found = replace(known or unknown(task, prior), prior=prior, pace=Pace())
    if population_R is not None:
        found = replace(found, effects=replace(found.effects, a_R=population_R))
    probes = Probes.draw(task, 0, 0)
    for _ in range(steps):
        found, probes = _step(task, found, probes, 1e-4, population_R)
        if found.pace.left < tolerance:
            return found
    not_converged("expectation propagation", f"margins still had {found.pace.left:.1e} to go after {steps} steps")
    return found


def unknown(task: Problem, prior: Variances) -> Posterior:
    """The start, from the prior alone: all effects zero, and the likelihood's curvature there."""
    sites = newton.curvature(task, np.zeros(len(task.label_N)))
    none_KK = np.zeros_like(prior.spread_KK)
    margin_N = np.zeros(len(task.label_N))
    return Posterior(prior, start(task), sites, newton.reduce(task, sites, prior), none_KK, margin_N, Pace())


def _step(
    task: Problem, found: Posterior, probes: Probes, tolerance: float, population_R: Array | None = None
) -> tuple[Posterior, Probes]:
    """The exact posterior under the current sites, and the sites moved towards their values there."""
    prior, effects, population_KK = found.prior, found.effects, np.zeros_like(found.population_KK)
    reduced = newton.reduce(task, found.sites, prior)
    if population_R is None:
        effects, probes = newton.move(task, effects, reduced, prior, probes, tolerance)
        if reduced.j_UKK is not None:
            told_KK = reduced.j_UKK.sum(axis=0) + task.agreed_quadratic(effects.w_K)[0]
            population_KK = np.linalg.inv(np.diag(1 / prior.population_K) + told_KK)
    else:
        f_R1 = np.append(population_R, 0.0)[:, None]
        force = [p @ f_R1[b.response_BL] for b, p in zip(reduced.buckets, reduced.p, strict=True)]
        t_UK, alpha = newton.users(reduced, prior, force)
        effects = replace(effects, t_UK=t_UK, alpha=alpha)
    mean_N = margins(task, effects, prior)
    variance_N = margin_variances(task, reduced, prior, population_KK)
    pace = found.pace.after(float(np.abs(mean_N - found.margin_N).mean()))
    sites = refined(found.sites, (mean_N, variance_N), task.label_N, task.weight_N, pace.share)
    return Posterior(prior, effects, sites, reduced, population_KK, mean_N, pace), probes


def refined(sites: Sites, moments: tuple[Array, Array], label_N: Array, weight_N: Array, share: float) -> Sites:
    """The sites moved by ``share`` of the way to where the posterior's ``moments`` of the margins ask them to be.

    These are the mean and variance (N,) under the present sites.
    """
    mean_N, variance_N = moments
    m_N, v_N = _cavity(sites, mean_N, variance_N)
    tilted_N, left_N = tilted(m_N, v_N, label_N, weight_N)
    precision_N = np.maximum(1 / left_N - 1 / v_N, 1e-6 * weight_N)
    pull_N = tilted_N * (1 / v_N + precision_N) - m_N / v_N
    return Sites(
        sites.precision_N + share * (precision_N - sites.precision_N),
        sites.pull_N + share * (pull_N - sites.pull_N),
    )


def left_out(task: Problem, found: Posterior) -> Array:
    """The log loss of each judgement (N,) given the others: of the averaged likelihood under its cavity."""
    variance_N = margin_variances(task, found.reduced, found.prior, found.population_KK)
    m_N, v_N = _cavity(found.sites, margins(task, found.effects, found.prior), variance_N)
    return surprise(m_N / np.sqrt(1 + np.pi * v_N / 8), task.label_N)


def _cavity(sites: Sites, mean_N: Array, variance_N: Array) -> tuple[Array, Array]:
    """Mean and variance (N,) of every margin without its own site."""
    v_N = 1 / np.maximum(1 / variance_N - sites.precision_N, 0.01 / variance_N)
    return v_N * (mean_N / variance_N - sites.pull_N), v_N


def tilted(m_N: Array, v_N: Array, label_N: Array, weight_N: Array) -> tuple[Array, Array]:
    """Mean and variance (N,) of a margin f that is N(m, v) before it is judged, after P(label | f)^weight."""
    mean_N, variance_N = np.empty(len(m_N)), np.empty(len(m_N))
    for rows in _portions(len(m_N), len(POINT_X)):
        deviation_N1 = np.sqrt(v_N[rows, None])
        f_NX = m_N[rows, None] + deviation_N1 * POINT_X
        log_NX = -(POINT_X**2) / 2 - weight_N[rows, None] * surprise(f_NX, label_N[rows, None])
        density_NX = np.exp(log_NX - log_NX.max(axis=1, keepdims=True))
        density_NX /= density_NX.sum(axis=1, keepdims=True)
        at_N1 = (density_NX @ POINT_X)[:, None]
        mean_N[rows] = m_N[rows] + (deviation_N1 * at_N1)[:, 0]
        variance_N[rows] = v_N[rows] * (density_NX * (POINT_X - at_N1) ** 2).sum(axis=1)
    return mean_N, np.minimum(variance_N, v_N)


def margin_variances(task: Problem, reduced: Reduced, prior: Variances, population_KK: Array) -> Array:
    """Posterior variance (N,) of every row's margin: of the user's weights w + d and of their views."""
    covariance_UKK = newton.covariances(reduced, prior, population_KK)
    variance_N = np.zeros(len(task.label_N))
    for number, bucket in enumerate(task.buckets):
        at_N, one_N, other_N = bucket.place_N, bucket.chosen_N, bucket.rejected_N
        found_N = np.zeros(len(at_N))
        moved_BLK = bucket.x_BLK
        if prior.personal > 0:
            # given d, b is N(-personal C P x d + what was seen, personal C - personal^2 C P C)
            reach_BLL = prior.personal * (bucket.alike_BLL @ reduced.p[number])
            left_BLL = prior.personal * (bucket.alike_BLL - reach_BLL @ bucket.alike_BLL)
            found_N += left_BLL[at_N, one_N, one_N] + left_BLL[at_N, other_N, other_N]
            found_N -= left_BLL[at_N, one_N, other_N] + left_BLL[at_N, other_N, one_N]
            moved_BLK = bucket.x_BLK - reach_BLL @ bucket.x_BLK
        apart_NK = moved_BLK[at_N, one_N] - moved_BLK[at_N, other_N]
        by_user = np.argsort(bucket.user_B[at_N], kind="stable")
        user_N = bucket.user_B[at_N[by_user]]
        for rows in np.split(by_user, np.flatnonzero(np.diff(user_N)) + 1):
            own_NK = apart_NK[rows]
            found_N[rows] += ((own_NK @ covariance_UKK[bucket.user_B[at_N[rows[0]]]]) * own_NK).sum(axis=1)
        variance_N[bucket.row_N] = found_N
    return np.maximum(variance_N, 1e-9)


def _portions(rows: int, each: int) -> list[NDArray[np.int64]]:
    """Row numbers in portions that take at most ``PORTION`` numbers with ``each`` a row."""
    return np.array_split(np.arange(rows), rows * each // PORTION + 1)
