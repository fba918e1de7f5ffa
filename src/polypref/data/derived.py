"""Were pairs judged one by one, or made from ratings, rankings or votes? One answer for everything that asks.

Pairs that were made from one user's ratings imply each other: m ratings are worth m - 1 judgements, not m (m - 1) / 2.
Where files hold lists (``Comparisons.lists``), or the user says so (``--made-from``), this is known. Otherwise it is
told from circles (a over b, b over c, c over a) within one user's judgements. People who judge one by one contradict
themselves now and then; ratings never do, but for slips such as a text that was rated twice.

    null         Bradley-Terry judges: each pair is answered by itself, with the log odds of the difference of the
                 user's two rewards, which are drawn anew, normal with standard deviation ``SPREAD``
    alternative  ``FLAWED`` times as many contradictions
    statistic    K, the judgements that must be turned round to leave no circle (a greedy count)
    evidence     log likelihood ratio of K, Poisson with the means l0 and FLAWED l0; l0 is simulated on the same pairs

Votes and ratings of few levels leave hardly a loop that could be a circle, but no text in the middle. So where circles
do not speak against it, texts that a user took in some pairs and left in others are counted too, among those in three
or more pairs: binomial with p0, simulated, against FLAWED p0.

Users are taken in a random order, fixed by their ids, until the ratio is above ``ODDS`` (made from ratings) or below
1 / ``ODDS`` (one by one): Wald's sequential test (1945). So judges at the null are taken for raters with probability at
most 5 % (measured on 400 simulated sets of each of three shapes: 0 to 3 %). They are strict: 1.4 % of their closed
triads go round, and asked again they give the same answer in 89 % of cases, as the most consistent crowds that we
measured (texts of many models .893, arguments .895). About 250 closed triads without one circle are enough. Ratings of
which .3 % of the triads go round are called one by one with probability at most 5 %; at .4 % nearly all sets of a few
thousand triads are still recognised.

Covered: any mixture of list lengths, votes (two levels), sparse pairs, a few flaws. Not covered: people who contradict
themselves less than the null look like their own ratings, and nearly are; pairs of a good and a bad text by design look
like votes; ties, which say nothing here; lists of two.

Suffixes here: ``_M`` edges: pairs a user judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import BoolArray, Comparisons

SPREAD, FLAWED, ODDS = 5.5, 0.2, 20.0
FIRST = 4_000  # judgements that are looked at first; twice as many each time
SIMULATED = 200_000  # judgements to simulate, in all draws together
MOST_DRAWS = 64

MadeFrom = Literal["auto", "ratings", "pairs"]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """What pairs were made from, and why we think so.

    ``derived``   True: from ratings, rankings or votes. False: judged one by one. None: too little to tell.
    ``why``       one clause.
    ``loops``     how often a user's judgements could contradict that user's other ones.
    ``circular``  judgements that stand on a circle.
    ``worth``     how many judgements they are worth: those that no others of the user imply, where derived.
    """

    derived: bool | None
    why: str
    loops: int
    circular: int
    worth: int

    def as_dict(self) -> dict[str, object]:
        """JSON-able."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Graph:
    """Judgements as edges from the text taken to the text left; a node is a text as one user sees it.

    Ties, repeats and pairs that the user judged both ways are left out. ``owner_M`` is the user of each edge.
    """

    tail_M: Ints
    head_M: Ints
    owner_M: Ints
    response_2M: Ints
    nodes: int

    @classmethod
    def of(cls, comparisons: Comparisons) -> Graph:
        comparisons = comparisons.weighing()
        decided = slice(None) if comparisons.tie_N is None else ~comparisons.tie_N
        many = max(len(comparisons.responses), 1)
        users = np.asarray(comparisons.user_N, np.int64)[decided] * many
        ends = np.stack([users + comparisons.chosen_N[decided], users + comparisons.rejected_N[decided]])
        ends = np.unique(ends[:, ends[0] != ends[1]], axis=1)
        nodes, node_2M = np.unique(ends, return_inverse=True)
        tail_M, head_M = node_2M.reshape(ends.shape)
        once = ~np.isin(tail_M * len(nodes) + head_M, head_M * len(nodes) + tail_M)
        return cls(tail_M[once], head_M[once], ends[0, once] // many, ends[:, once] % many, len(nodes))

    def loops(self) -> int:
        """Independent loops: edges that close a way between texts that the user's other edges connect already."""
        return len(self.tail_M) - self.rank()

    def rank(self) -> int:
        """Edges of a spanning forest: what the judgements are worth where they imply each other."""
        return self.nodes - _components(self.tail_M, self.head_M, self.nodes, "weak")[0]


def origin(comparisons: Comparisons) -> Origin:
    """What the pairs were made from: as the file or the user says, else by the module's test."""
    comparisons = comparisons.weighing()
    graph = Graph.of(comparisons)
    rank = graph.rank()
    loops = len(graph.tail_M) - rank
    circular = int(_circular(graph.tail_M, graph.head_M, graph.nodes).sum())
    ties = 0 if comparisons.tie_N is None else int(comparisons.tie_N.sum())
    derived, why = _told(comparisons, graph, loops, circular)
    return Origin(derived, why, loops, circular, rank if derived else len(comparisons) - ties)


def within_user_loops(comparisons: Comparisons) -> tuple[int, int]:
    """``(loops, circular)``: how often users' judgements could contradict their other ones, and how many rows do.

    Each user's judgements are a graph over texts. ``loops`` is its number of independent loops, summed over users;
    ``circular`` counts the rows on a directed circle (a over b over c over a).
    """
    graph = Graph.of(comparisons)
    return graph.loops(), int(_circular(graph.tail_M, graph.head_M, graph.nodes).sum())


def evidence(comparisons: Comparisons, graph: Graph | None = None) -> float:
    """Log likelihood ratio for pairs made from ratings against pairs judged one by one, where the test stopped."""
    graph = Graph.of(comparisons) if graph is None else graph
    keys_R = comparisons.responses.keys_R
    user_U = np.frombuffer(b"".join(blake2b(i.encode(), digest_size=8).digest() for i in comparisons.users.ids), "<u8")
    user_M = user_U[graph.owner_M]
    key_2M = _mix(user_M + keys_R[graph.response_2M])  # of a text as one user sees it
    order_M = np.lexsort((*key_2M, user_M))  # the same whatever the order of rows and users
    starts = np.flatnonzero(np.r_[True, np.diff(user_M[order_M]) != 0]) if len(order_M) else np.zeros(0, np.int64)
    ratio, size, limit = 0.0, 0, FIRST
    while size < len(order_M) and abs(ratio) < np.log(ODDS):
        size = int(np.r_[starts, len(order_M)][np.searchsorted(starts, limit)])  # whole users
        rows_M = order_M[:size]
        ratio, limit = _ratio(key_2M[:, rows_M]), 2 * limit
    return ratio


def _told(comparisons: Comparisons, graph: Graph, loops: int, circular: int) -> tuple[bool | None, str]:
    if comparisons.lists == "pairs":
        return False, "pairs were judged one by one, as was said"
    if comparisons.lists and loops:
        return True, f"pairs were made from {comparisons.lists}, so a user's pairs imply each other"
    if comparisons.lists:
        return False, f"every list of the {comparisons.lists} holds two responses, so no pair implies another"
    ratio = evidence(comparisons, graph)
    times = f"users' judgements could have contradicted each other {loops:,} times and did {circular or 'never'}"
    if ratio >= np.log(ODDS):
        return True, f"{times}: the pairs look made from votes, ratings or rankings, so they imply each other"
    if ratio <= -np.log(ODDS):
        return False, f"pairs were judged one by one ({circular:,} judgements go round in circles within users)"
    return None, (
        "pairs are taken to be judged one by one (users could have contradicted themselves "
        f"{loops:,} times and did {circular or 'never'}: too little to tell; --made-from ratings says otherwise)"
    )


def _ratio(key_2M: NDArray[np.uint64]) -> float:
    """The log likelihood ratio of some judgements' contradictions; ``key_2M`` names the text taken and the one left."""
    from scipy.special import ndtri

    key_n, ends = np.unique(key_2M, return_inverse=True)
    (tail_M, head_M), many = ends.reshape(2, -1), len(key_n)
    low_M, high_M = np.minimum(key_2M[0], key_2M[1]), np.maximum(key_2M[0], key_2M[1])
    seen = float(_slips(tail_M, head_M, many).sum())
    draws = int(np.clip(SIMULATED // len(tail_M), 1, MOST_DRAWS))
    tails, heads = [], []
    for draw in range(draws):
        reward_n = SPREAD * ndtri(_unit(key_n, draw))
        gap_M = reward_n[tail_M] - reward_n[head_M]
        chance_M = _unit(_mix(low_M) ^ high_M, draw + MOST_DRAWS)
        chance_M = np.where(key_2M[0] == low_M, chance_M, 1 - chance_M)  # the same draw whoever was taken
        kept_M = np.log(chance_M) - np.log1p(-chance_M) < gap_M
        tails.append(np.where(kept_M, tail_M, head_M) + draw * many)
        heads.append(np.where(kept_M, head_M, tail_M) + draw * many)
    drawn = np.concatenate(tails), np.concatenate(heads)
    expected = float(_slips(*drawn, many * draws).sum()) / draws
    circles = float(seen * np.log(FLAWED) + expected * (1 - FLAWED))
    looped_n = _looped(tail_M, head_M, many)
    levels = _levels(_mixed(tail_M, head_M, looped_n), _mixed(*drawn, np.tile(looped_n, draws)))
    return max(circles, levels) if circles > -np.log(ODDS) else circles


def _levels(seen: tuple[int, int], drawn: tuple[int, int]) -> float:
    """Log likelihood ratio for few levels; halved, since each judgement is one of both its texts'."""
    (mixed, met), null = seen, drawn[0] / max(drawn[1], 1)
    if not met or not 0 < null < 1:
        return 0.0
    return 0.5 * float(mixed * np.log(FLAWED) + (met - mixed) * np.log((1 - FLAWED * null) / (1 - null)))


def _mixed(tail_M: Ints, head_M: Ints, looped_n: BoolArray) -> tuple[int, int]:
    """Texts that a user took in some pairs and left in others, and texts that stand in three or more pairs."""
    taken_n, left_n = (np.bincount(end_M, minlength=len(looped_n)) for end_M in (tail_M, head_M))
    met_n = looped_n & (taken_n + left_n >= 3)
    return int((met_n & (taken_n > 0) & (left_n > 0)).sum()), int(met_n.sum())


def _looped(tail_M: Ints, head_M: Ints, nodes: int) -> BoolArray:
    """Texts that a loop is connected with: a text against many others, each seen once, says nothing."""
    part_n = _components(tail_M, head_M, nodes, "weak")[1]
    return (np.bincount(part_n[tail_M], minlength=nodes) >= np.bincount(part_n, minlength=nodes))[part_n]


def _slips(tail_M: Ints, head_M: Ints, nodes: int) -> BoolArray:
    """Edges against an order of the nodes of their circle: by wins less losses on circles, ties the better way."""
    part_n = _components(tail_M, head_M, nodes, "strong")[1]
    inside = np.flatnonzero(part_n[tail_M] == part_n[head_M])
    tail, head, part = tail_M[inside], head_M[inside], part_n[tail_M[inside]]
    score = np.bincount(tail, minlength=nodes) - np.bincount(head, minlength=nodes)
    lower, level = score[tail] < score[head], score[tail] == score[head]
    up, down = lower | (level & (tail > head)), lower | (level & (tail < head))
    fewer = np.bincount(part, up, nodes) <= np.bincount(part, down, nodes)
    slip_M = np.zeros(len(tail_M), bool)
    slip_M[inside] = np.where(fewer[part], up, down)
    return slip_M


def _circular(tail_M: Ints, head_M: Ints, nodes: int) -> BoolArray:
    part_n = _components(tail_M, head_M, nodes, "strong")[1]
    return part_n[tail_M] == part_n[head_M]


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
