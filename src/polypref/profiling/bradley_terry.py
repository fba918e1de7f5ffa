"""The Bradley-Terry null: majority tournaments when one strength per response explains everything.

Source: Bradley & Terry (1952). Strengths are drawn around zero with one spread for the whole data set, estimated from
the data (empirical Bayes); a null data set draws strengths from their posterior and then votes with the same panels. A
plain maximum-likelihood fit would be too sure of strengths based on three votes. The null would then have too few
cycles, and homogeneous people would show an "excess".

Suffixes here: ``_B`` prompts of one size, ``_E`` edges: pairs of responses compared, ``_M`` responses of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from polypref.profiling.tournament import Design
from polypref.profiling.votes import Ints
from polypref.stats.estimate import Floats

STEPS = 15
MIN_VARIANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Block:
    """Prompts of (nearly) equal size as one stack of B matrices of M x M; ``node_R`` is each node's place in it."""

    rows_R: Ints
    at_R: Ints
    edges: Ints
    a_E: Ints
    b_E: Ints
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Posterior:
    """Normal approximation of the strengths: mode ``strength_R`` and each block's Cholesky factor of the precision."""

    graph: Design
    strength_R: Floats
    spread: float
    factors: tuple[tuple[Block, Floats], ...]

    def strengths(self, n: int, rng: np.random.Generator) -> Floats:
        """``n`` draws of the strengths (n, R)."""
        strength_nR = np.tile(self.strength_R, (n, 1))
        for block, factor_BMM in self.factors:
            noise_BMn = rng.standard_normal((*block.shape, n))
            moved_BMn = np.linalg.solve(factor_BMM.transpose(0, 2, 1), noise_BMn)
            strength_nR[:, block.rows_R] += moved_BMn.reshape(-1, n)[block.at_R].T
        return strength_nR

    def draws(self, n: int, rng: np.random.Generator) -> Iterator[Ints]:
        """``wins_E`` of ``n`` null data sets with the same panels."""
        for strength_R in self.strengths(n, rng):
            logit_E = strength_R[self.graph.a_E] - strength_R[self.graph.b_E]
            yield rng.binomial(self.graph.judges_E, 1 / (1 + np.exp(-logit_E)))


def fit(graph: Design, wins_E: Ints) -> Posterior:
    """Strengths and their spread: Newton steps on the posterior mode, EM steps on the variance of the strengths."""
    blocks = tuple(_blocks(graph))
    strength_R = np.zeros(len(graph.prompt_R))
    variance = 1.0
    for _ in range(STEPS):
        second = 0.0
        for block in blocks:
            gradient_BM, precision_BMM = _derivatives(graph, wins_E, strength_R, variance, block)
            covariance_BMM = np.linalg.inv(precision_BMM)
            step = np.einsum("bmn,bn->bm", covariance_BMM, gradient_BM).ravel()[block.at_R]
            strength_R[block.rows_R] += np.clip(step, -2.0, 2.0)
            spread_BM = np.einsum("bmm->bm", covariance_BMM).ravel()[block.at_R]
            second += float((strength_R[block.rows_R] ** 2 + spread_BM).sum())
        variance = max(second / len(strength_R), MIN_VARIANCE)
    factors = tuple(
        (block, np.linalg.cholesky(_derivatives(graph, wins_E, strength_R, variance, block)[1])) for block in blocks
    )
    return Posterior(graph, strength_R, float(np.sqrt(variance)), factors)


def _blocks(graph: Design) -> Iterator[Block]:
    size_P = np.bincount(graph.prompt_R, minlength=graph.n_prompts)
    padded_P = np.where(size_P > 64, size_P, 2 ** np.ceil(np.log2(np.maximum(size_P, 2))).astype(np.int64))
    # the position of each node among the nodes of its prompt
    order = np.argsort(graph.prompt_R, kind="stable")
    place_R = np.empty(len(order), np.int64)
    place_R[order] = np.arange(len(order)) - np.repeat(np.cumsum(size_P) - size_P, size_P)
    for padded in np.unique(padded_P):
        prompts = np.flatnonzero(padded_P == padded)
        row_P = np.full(graph.n_prompts, -1)
        row_P[prompts] = np.arange(len(prompts))
        rows_R = np.flatnonzero(row_P[graph.prompt_R] >= 0)
        at_all_R = row_P[graph.prompt_R] * padded + place_R
        edges = np.flatnonzero(row_P[graph.prompt_E] >= 0)
        a_E, b_E = at_all_R[graph.a_E[edges]], at_all_R[graph.b_E[edges]]
        yield Block(rows_R, at_all_R[rows_R], edges, a_E, b_E, (len(prompts), int(padded)))


def _derivatives(
    graph: Design, wins_E: Ints, strength_R: Floats, variance: float, block: Block
) -> tuple[Floats, Floats]:
    """Gradient (B, M) of the log posterior and its negative Hessian (B, M, M), at ``strength_R``."""
    stack, size = block.shape
    total = stack * size
    edges = block.edges
    share_E = 1 / (1 + np.exp(strength_R[graph.b_E[edges]] - strength_R[graph.a_E[edges]]))
    judges_E = graph.judges_E[edges]
    residual_E, weight_E = wins_E[edges] - judges_E * share_E, judges_E * share_E * (1 - share_E)
    held = np.zeros(total)
    held[block.at_R] = strength_R[block.rows_R]
    gradient = np.bincount(block.a_E, residual_E, total) - np.bincount(block.b_E, residual_E, total) - held / variance
    # flat index of (prompt, i, j) is place(i) * size + j
    a_flat, b_flat = block.a_E * size + block.b_E % size, block.b_E * size + block.a_E % size
    coupling = np.bincount(np.concatenate([a_flat, b_flat]), weights=np.tile(weight_E, 2), minlength=total * size)
    precision = np.negative(coupling, dtype=np.float64)
    diagonal = np.bincount(block.a_E, weight_E, total) + np.bincount(block.b_E, weight_E, total) + 1 / variance
    precision[np.arange(total) * size + np.arange(total) % size] = diagonal
    return gradient.reshape(stack, size), precision.reshape(stack, size, size)
