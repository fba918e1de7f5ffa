"""Majority tournaments: which response beats which, cycles, Borda scores. Nodes are responses, so prompts never mix.

Suffixes here: ``_C`` prompts with a Condorcet winner, ``_E`` edges: pairs of responses compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.profiling.votes import Ints, Votes
from polypref.stats.estimate import Floats

MAX_RESPONSES = 400  # per prompt; a larger prompt is cut to its most compared responses
MIN_JUDGES = 2


@dataclass(frozen=True, eq=False)
class Design:
    """The compared pairs: edge e compares nodes ``a_E`` and ``b_E`` of prompt ``prompt_E`` with ``judges_E`` judges.

    Only prompts with at least three responses and pairs with at least two judges; nodes and prompts are renumbered.
    ``cyclable_P`` marks prompts whose compared pairs close at least one loop, so that a cycle is possible.
    """

    a_E: Ints
    b_E: Ints
    judges_E: Ints
    prompt_R: Ints
    n_prompts: int
    cyclable_P: NDArray[np.bool_]

    @property
    def prompt_E(self) -> Ints:
        return self.prompt_R[self.a_E]


def design(votes: Votes) -> tuple[Design, Ints]:
    """The design of the votes, and ``wins_E``: how many judges of each edge chose its first response."""
    votes = votes.decided
    pairs = np.flatnonzero(votes.panel_Y >= MIN_JUDGES)
    pairs = pairs[_within_cap(votes, pairs)]
    nodes, ends = np.unique(np.concatenate([votes.first_Y[pairs], votes.second_Y[pairs]]), return_inverse=True)
    a_E, b_E = ends[: len(pairs)], ends[len(pairs) :]
    prompts, prompt_R = np.unique(_prompt_of_nodes(votes, pairs, ends, len(nodes)), return_inverse=True)
    enough_R = (np.bincount(prompt_R, minlength=len(prompts)) >= 3)[prompt_R]
    keep_E, number_R = enough_R[a_E], np.cumsum(enough_R) - 1
    a_E, b_E = number_R[a_E[keep_E]], number_R[b_E[keep_E]]
    kept, prompt_R = np.unique(prompt_R[enough_R], return_inverse=True)
    n_prompts = len(kept)
    # a graph with more edges than nodes minus connected parts has a loop
    part_R = parts(a_E, b_E, len(prompt_R), strong=False)
    parts_P = np.bincount(prompt_R[np.unique(part_R, return_index=True)[1]], minlength=n_prompts)
    loops_P = np.bincount(prompt_R[a_E], minlength=n_prompts) - np.bincount(prompt_R, minlength=n_prompts) + parts_P
    graph = Design(a_E, b_E, votes.panel_Y[pairs][keep_E], prompt_R, n_prompts, loops_P > 0)
    return graph, votes.plus_Y[pairs][keep_E]


def _prompt_of_nodes(votes: Votes, pairs: Ints, ends: Ints, n_nodes: int) -> Ints:
    prompt_R = np.zeros(n_nodes, np.int64)
    prompt_R[ends] = np.tile(votes.prompt_Y[pairs], 2)
    return prompt_R


def _within_cap(votes: Votes, pairs: Ints) -> NDArray[np.bool_]:
    """Pairs whose responses are among the MAX_RESPONSES most compared of their prompt."""
    ends = np.concatenate([votes.first_Y[pairs], votes.second_Y[pairs]])
    prompt_R = np.zeros(int(ends.max(initial=0)) + 1, np.int64)
    prompt_R[ends] = np.tile(votes.prompt_Y[pairs], 2)
    degree_R = np.bincount(ends, minlength=len(prompt_R))
    order = np.lexsort((-degree_R, prompt_R))
    _, start, size = np.unique(prompt_R[order], return_index=True, return_counts=True)
    rank_R = np.empty(len(order), np.int64)
    rank_R[order] = np.arange(len(order)) - np.repeat(start, size)
    within_R = rank_R < MAX_RESPONSES
    return within_R[votes.first_Y[pairs]] & within_R[votes.second_Y[pairs]]


def parts(from_E: Ints, to_E: Ints, n_nodes: int, strong: bool) -> Ints:
    """Number of the (strongly) connected part of each node."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    graph = csr_array((np.ones(len(from_E), np.int8), (from_E, to_E)), shape=(n_nodes, n_nodes))
    return connected_components(graph, connection="strong" if strong else "weak")[1]


@dataclass(frozen=True)
class Counts:
    """The figures of one tournament; shares are NaN if there is nothing to count."""

    triads: int
    cyclic_triads: float
    cyclic_prompts: float
    borda_pairs: float
    borda_winners: float
    majorities: int
    condorcet_prompts: int


def count(graph: Design, wins_E: Ints) -> Counts:
    """Cycles and Borda contradictions of the tournament in which ``wins_E`` judges chose the first response."""
    margin_E = 2 * wins_E - graph.judges_E
    decided_E = margin_E != 0
    up_E = np.where(margin_E > 0, graph.a_E, graph.b_E)[decided_E]
    down_E = np.where(margin_E > 0, graph.b_E, graph.a_E)[decided_E]
    n_nodes = len(graph.prompt_R)
    triads, cyclic = (round(float(shared_R.sum())) for shared_R in count_triads(up_E, down_E, n_nodes))
    part_R = parts(up_E, down_E, n_nodes, strong=True)
    in_cycle_R = np.bincount(part_R, minlength=n_nodes)[part_R] > 1
    cyclic_P = np.bincount(graph.prompt_R[in_cycle_R], minlength=graph.n_prompts) > 0
    borda_R = borda(graph, wins_E)
    gap_E = borda_R[up_E] - borda_R[down_E]
    rivals_R = np.bincount(graph.prompt_R, minlength=graph.n_prompts)[graph.prompt_R] - 1
    condorcet_R = np.flatnonzero(np.bincount(up_E, minlength=n_nodes) == rivals_R)
    best_P = np.full(graph.n_prompts, -np.inf)
    np.maximum.at(best_P, graph.prompt_R, borda_R)
    beaten_C = borda_R[condorcet_R] < best_P[graph.prompt_R[condorcet_R]] - 1e-12
    return Counts(
        triads=triads,
        cyclic_triads=cyclic / triads if triads else np.nan,
        cyclic_prompts=_mean(cyclic_P[graph.cyclable_P]),
        borda_pairs=_mean(gap_E < -1e-12),
        borda_winners=_mean(beaten_C),
        majorities=len(up_E),
        condorcet_prompts=len(condorcet_R),
    )


def borda(graph: Design, wins_E: Ints) -> Floats:
    """Mean share of judges that each response wins against those it was compared with (R)."""
    share_E, n_nodes = wins_E / graph.judges_E, len(graph.prompt_R)
    won_R = np.bincount(graph.a_E, weights=share_E, minlength=n_nodes)
    won_R += np.bincount(graph.b_E, weights=1 - share_E, minlength=n_nodes)
    return won_R / np.bincount(np.concatenate([graph.a_E, graph.b_E]), minlength=n_nodes)


def count_triads(up_E: Ints, down_E: Ints, n_nodes: int) -> tuple[Floats, Floats]:
    """Closed triads (three nodes, every pair decided) and the cyclic ones among them, divided among their nodes (R).

    The sums over nodes are the counts. At most one edge per pair of nodes.
    """
    from scipy.sparse import csr_array

    if len(up_E) == 0:
        return np.zeros(n_nodes), np.zeros(n_nodes)
    beats: Any = csr_array((np.ones(len(up_E), np.float32), (up_E, down_E)), shape=(n_nodes, n_nodes))
    two_steps = beats @ beats
    cyclic_R = two_steps.multiply(beats.T.tocsr()).sum(axis=1) / 3  # found once from each of its nodes
    transitive_R = two_steps.multiply(beats).sum(axis=1)  # found once: a > b > c, a > c
    return cyclic_R + transitive_R, cyclic_R


def _mean(hit: NDArray) -> float:
    return float(hit.mean()) if len(hit) else np.nan
