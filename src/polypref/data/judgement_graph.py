"""Judgements as a graph: nodes are texts as judged by one user, edges go from the chosen to the rejected text.

A user who contradicts themselves leaves a cycle: a over b, b over c, c over a. Its results do not depend on the order
of rows, users and texts.

Suffixes here: ``_M`` edges: pairs a user judged, ``_V`` vertices: texts as one user sees them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import BoolArray, Comparisons

MOST_DRAWS = 64

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Graph:
    """Judgements as edges from the chosen to the rejected text; a vertex is a text as judged by one user.

    Ties and pairs that the user judged both ways are left out; ``times_M`` counts equal judgements. ``user_V`` and
    ``response_V`` are a vertex's user and text; ``key_V``, ascending, identifies it whatever the order of rows and
    users.
    """

    tail_M: Ints
    head_M: Ints
    times_M: Ints
    user_V: Ints
    response_V: Ints
    key_V: NDArray[np.uint64]

    @property
    def nodes(self) -> int:
        return len(self.key_V)

    @property
    def user_M(self) -> Ints:
        return self.user_V[self.tail_M]

    @classmethod
    def of(cls, comparisons: Comparisons) -> Graph:
        comparisons = comparisons.weighing()
        vertex_2N, code_V = vertices(comparisons)
        decided_N = vertex_2N[0] != vertex_2N[1]
        if comparisons.tie_N is not None:
            decided_N &= ~comparisons.tie_N
        many = len(code_V)
        edge_M, times_M = np.unique(vertex_2N[0, decided_N] * many + vertex_2N[1, decided_N], return_counts=True)
        once_M = ~np.isin(edge_M, edge_M % max(many, 1) * many + edge_M // max(many, 1))
        edges_2M, times_M = np.stack(np.divmod(edge_M[once_M], max(many, 1))), times_M[once_M]
        known_V = np.isin(np.arange(many), edges_2M)
        code_V, edges_2M = code_V[known_V], (np.cumsum(known_V) - 1)[edges_2M]
        responses = max(len(comparisons.responses), 1)
        user_V, response_V = code_V // responses, code_V % responses
        key_V = _mix(content_keys(comparisons.users.ids)[user_V] + comparisons.responses.keys_R[response_V])
        order_V = np.argsort(key_V, kind="stable")
        place_V = np.argsort(order_V, kind="stable")
        tail_M, head_M = place_V[edges_2M]
        return cls(tail_M, head_M, times_M, user_V[order_V], response_V[order_V], key_V[order_V])

    def of_users(self, users: Ints) -> Graph:
        """The judgements of some users, numbered in the order of ``users``."""
        place_U = np.full(int(self.user_V.max(initial=0)) + 1, -1)
        place_U[users] = np.arange(len(users))
        user_V = place_U[self.user_V]
        kept_V = user_V >= 0
        rows, place_V = kept_V[self.tail_M], np.cumsum(kept_V) - 1
        _, response_V = np.unique(self.response_V[kept_V], return_inverse=True)
        edges = place_V[self.tail_M[rows]], place_V[self.head_M[rows]], self.times_M[rows]
        return Graph(*edges, user_V[kept_V], response_V, self.key_V[kept_V])

    def rank(self) -> int:
        """Number of edges of a spanning forest: the worth of judgements that follow from each other."""
        return self.nodes - _components(self.tail_M, self.head_M, self.nodes, "weak")[0]

    def circular_M(self) -> BoolArray:
        """Which edges are on a cycle."""
        part_V = _components(self.tail_M, self.head_M, self.nodes, "strong")[1]
        return part_V[self.tail_M] == part_V[self.head_M]

    def slips_M(self) -> BoolArray:
        """Edges against an order of their cycle's nodes, by wins minus losses on cycles, ties resolved favourably."""
        part_V = _components(self.tail_M, self.head_M, self.nodes, "strong")[1]
        inside = np.flatnonzero(part_V[self.tail_M] == part_V[self.head_M])
        tail, head, part = self.tail_M[inside], self.head_M[inside], part_V[self.tail_M[inside]]
        score = np.bincount(tail, minlength=self.nodes) - np.bincount(head, minlength=self.nodes)
        lower, level = score[tail] < score[head], score[tail] == score[head]
        up, down = lower | (level & (tail > head)), lower | (level & (tail < head))
        fewer = np.bincount(part, up, self.nodes) <= np.bincount(part, down, self.nodes)
        slip_M = np.zeros(len(self.tail_M), bool)
        slip_M[inside] = np.where(fewer[part], up, down)
        return slip_M

    def sides(self) -> tuple[int, int]:
        """Numbers of texts that a user chose in some pairs and rejected in others, and of texts in two pairs or more.

        Only texts that some users always choose and others never, since what everybody thinks of a text is not
        personal.
        """
        taken_V, left_V = (np.bincount(end_M, minlength=self.nodes) for end_M in (self.tail_M, self.head_M))
        always_R, never_R = (np.bincount(self.response_V, end_V == 0) > 0 for end_V in (left_V, taken_V))
        met_V = (always_R & never_R)[self.response_V] & (taken_V + left_V >= 2)
        return int((met_V & (taken_V > 0) & (left_V > 0)).sum()), int(met_V.sum())

    def judged(self, draws: int, spread: float) -> Graph:
        """``draws`` copies of the users, at most MOST_DRAWS, with the same pairs judged by Bradley-Terry judges.

        Their rewards are drawn again, normal with standard deviation ``spread``. A user who repeats a judgement n times
        has n times its log odds.
        """
        from scipy.special import ndtri

        key_2M = self.key_V[np.stack([self.tail_M, self.head_M])]
        low_M, high_M = np.sort(key_2M, axis=0)
        tails, heads = [], []
        for draw in range(draws):
            reward_V = spread * ndtri(_unit(self.key_V, draw))
            gap_M = self.times_M * (reward_V[self.tail_M] - reward_V[self.head_M])
            chance_M = _unit(_mix(low_M) ^ high_M, draw + MOST_DRAWS)
            chance_M = np.where(key_2M[0] == low_M, chance_M, 1 - chance_M)  # the same draw whichever was chosen
            kept_M = np.log(chance_M) - np.log1p(-chance_M) < gap_M
            tails.append(np.where(kept_M, self.tail_M, self.head_M) + draw * self.nodes)
            heads.append(np.where(kept_M, self.head_M, self.tail_M) + draw * self.nodes)
        copy_V = np.repeat(np.arange(draws), self.nodes)
        user_V, response_V = (
            np.tile(code_V, draws) + copy_V * (code_V.max() + 1) for code_V in (self.user_V, self.response_V)
        )
        edges = np.concatenate(tails), np.concatenate(heads), np.tile(self.times_M, draws)
        return Graph(*edges, user_V, response_V, np.tile(self.key_V, draws))


def vertices(comparisons: Comparisons) -> tuple[Ints, Ints]:
    """``(vertex_2N, code_V)``: vertices of the chosen and rejected texts; user and text of each vertex."""
    ends_2N = np.stack([comparisons.chosen_N, comparisons.rejected_N]).astype(np.int64)
    ends_2N += comparisons.user_N.astype(np.int64) * max(len(comparisons.responses), 1)
    code_V, vertex_2N = np.unique(ends_2N, return_inverse=True)
    return vertex_2N.reshape(ends_2N.shape), code_V


def content_keys(texts: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit BLAKE2 of each text."""
    return np.frombuffer(b"".join(blake2b(t.encode(), digest_size=8).digest() for t in texts), dtype="<u8")


def _components(tail_M: Ints, head_M: Ints, nodes: int, kind: str) -> tuple[int, NDArray[np.int32]]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(tail_M), np.int8), (tail_M, head_M)), shape=(nodes, nodes))
    return connected_components(graph, connection=kind)


def _unit(key_M: NDArray[np.uint64], draw: int) -> NDArray[np.float64]:
    """A number between 0 and 1 for each key and draw."""
    return ((_mix(key_M ^ _mix(np.array([draw], np.uint64))) >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every input bit moves every output bit."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
