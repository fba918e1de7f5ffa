"""Empirical Bayes for the variances of ``mixed``: estimates from the data how far people differ.

MacKay's fixed point (1992, "The evidence framework applied to classification networks") on the Laplace posterior, one
update per Newton step: a variance is the sum of squares of its effects over the number of effects that the data
determine. The spread of users is a full matrix: it has the directions in which people differ, not only the amount.

Known bias: with yes/no answers the Laplace posterior understates variances of effects that were each observed only a
few times (Breslow and Lin 1995). ``hierarchical`` corrects for it with factors chosen on validation rows.

Suffixes here: ``_B`` clusters of a bucket, ``_C`` probes, ``_L`` the clusters' slots for responses (padded), ``_T``
population effects (w and a).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from polypref.learners.bradley_terry.mixed import Array, Effects, Problem, Variances, personal_squares, start
from polypref.learners.bradley_terry.newton import Probes, Reduced, deviation, step

# A weak prior of users' spread, a scaled inverse chi square: as if that many effects of that variance had been
# observed. Without it, the most likely spread is too often zero (Chung et al. 2013), and few answers that agree
# diverge.
EFFECTS, USUAL = 2.0, 1.0
LARGEST = 100.0  # a variance beyond which answers are certain anyway; few separable answers know no bound


@dataclass(frozen=True)
class Estimate:
    """Which effects exist, and how long to iterate.

    ``shrink``: pseudo-users, in multiples of K, that pull the spread towards one variance per kind of input.
    """

    population: bool = True
    spread: bool = True
    shared: bool = True
    personal: bool = True
    steps: int = 8
    probes: int = 4
    shrink: float = 1.0


def estimate(task: Problem, config: Estimate, seed: int) -> tuple[Effects, Variances]:
    """Empirical Bayes: alternate one Newton step with one update of the variances."""
    prior = beginning(task, config)
    probes = Probes.draw(task, config.probes, seed)
    effects = start(task)
    for at in range(config.steps):
        effects, reduced, probes, _ = step(task, effects, prior, probes, tolerance=1e-2)
        if at >= 1:
            new = updated(task, config, effects, prior, reduced, (probes.signs_TC * probes.images_TC).mean(axis=1))
            effects, prior = carried(effects, prior, new), new
    return effects, prior


def beginning(task: Problem, config: Estimate) -> Variances:
    """The initial variances of an estimate."""
    k = task.x_RK.shape[1]
    return Variances(
        np.full(k, 1.0 if config.population else 0.0),
        np.eye(k) * (0.3 if config.spread else 0.0),
        0.3 if config.shared else 0.0,
        0.3 if config.personal else 0.0,
    )


def carried(effects: Effects, old: Variances, new: Variances) -> Effects:
    """The same effects in the units of the new variances, except that shrinking variances may also shrink them.

    Without this, a spread that grows eightfold makes every deviation grow eightfold before the next step; if tastes are
    nearly separable, this repeats until numbers overflow.
    """
    spread = min(1.0, np.trace(old.spread_KK) / max(np.trace(new.spread_KK), 1e-300))
    personal = min(1.0, old.personal / max(new.personal, 1e-300))
    t_UK = (spread * effects.t_UK).astype(effects.t_UK.dtype)
    return replace(effects, t_UK=t_UK, alpha=[(personal * v).astype(v.dtype) for v in effects.alpha])


def updated(
    task: Problem, config: Estimate, effects: Effects, prior: Variances, reduced: Reduced, relative_T: Array
) -> Variances:
    """MacKay's fixed point: variance = sum of squares / number of well-determined effects.

    ``relative_T`` is the ratio of posterior to prior variance of each of (w, a), estimated with the random probes.
    """
    k = task.x_RK.shape[1]
    new = prior
    if config.population:
        population_K = prior.population_K.copy()
        for kind in kinds(task):
            squares = (effects.w_K[kind] ** 2).sum()
            size = len(effects.w_K[kind])
            determined = np.clip((1 - relative_T[:k][kind]).sum(), 0.2 * size, size)  # few effects, few probes: noisy
            population_K[kind] = max(_ratio(squares, determined), 1e-4)
        new = replace(new, population_K=population_K)
    if config.shared:
        new = replace(new, shared=_ratio((effects.a_R**2).sum(), (1 - relative_T[k:]).sum()))
    if config.personal:
        squares = personal_squares(task, effects)
        trace = _trace(task, reduced, prior.spread_KK)
        new = replace(new, personal=_ratio(prior.personal * squares, trace))
    if config.spread:
        new = replace(new, spread_KK=_spread(task, effects, prior, reduced, config.shrink))
    return new


def _trace(task: Problem, reduced: Reduced, spread_KK: Array) -> float:
    """Trace of Q C over all clusters, by Hutchinson's random signs (the many slots average out the noise).

    The signs are the same at every step, so that the fixed point can converge.
    """
    rng, padding = np.random.default_rng(0), len(task.x_RK)
    signs = [
        np.where(b.response_BL < padding, rng.choice([-1.0, 1.0], size=b.response_BL.shape), 0.0)[..., None].astype(
            z.dtype
        )
        for b, z in zip(reduced.buckets, reduced.z, strict=True)
    ]
    force = [p @ (b.alike_BLL @ v) for p, b, v in zip(reduced.p, reduced.buckets, signs, strict=True)]
    left, _ = deviation(reduced, spread_KK, force)
    return float(sum((v * q).sum() for v, q in zip(signs, left, strict=True)))


def _ratio(squares: float, determined: float) -> float:
    return float(min(squares / max(determined, 1e-9), LARGEST))


def kinds(task: Problem) -> list[slice]:
    """The kinds of input that share a variance (``Inputs.kinds``); without kinds, all inputs but two, and two."""
    k = task.x_RK.shape[1]
    ends = np.cumsum((0, *(task.kinds or (max(k - 2, 0), min(k, 2)))))
    return [slice(low, high) for low, high in pairwise(ends.tolist()) if high > low]


def _spread(task: Problem, effects: Effects, prior: Variances, reduced: Reduced, shrink: float) -> Array:
    """EM's matrix, rescaled as in MacKay's rule and shrunk towards one variance per kind of input."""
    spread_KK, k = prior.spread_KK, len(prior.spread_KK)
    if reduced.j_UKK is None:  # no differences between users found so far
        return spread_KK
    information_KK, dual_KK = reduced.j_UKK.sum(axis=0), effects.t_UK.T @ effects.t_UK
    moment_KK = spread_KK + spread_KK @ (dual_KK - information_KK) @ spread_KK / task.users
    scale_K = np.ones(k)
    for kind in kinds(task):
        own = (kind, kind)
        squares, determined = (float((spread_KK[own] * of_KK[own]).sum()) for of_KK in (dual_KK, information_KK))
        if determined > 1e-6 * task.users:  # otherwise there is no information about these inputs
            present = float(spread_KK.diagonal()[kind].mean())
            scale_K[kind] = np.sqrt((present * squares + EFFECTS * USUAL) / (determined + EFFECTS) / present)
    em_KK = scale_K[:, None] * moment_KK * scale_K
    target_K = np.diag(em_KK).copy()
    for kind in kinds(task):
        target_K[kind] = target_K[kind].mean()
    pseudo = shrink * k
    mixed_KK = (task.users * em_KK + pseudo * np.diag(target_K)) / (task.users + pseudo)
    largest = max(float(np.diag(mixed_KK).max()), 1e-300)
    return (mixed_KK + mixed_KK.T) / 2 * min(1.0, LARGEST / largest)
