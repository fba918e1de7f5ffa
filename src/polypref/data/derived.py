"""Tests whether some of a user's judgements follow from others of the same user; used by all commands.

Pairs that are made from ratings, rankings, votes or the best of several texts follow from each other: m ratings are
worth m - 1 judgements, not m (m - 1) / 2. A held-out pair is then no new observation: a learner that remembers the
training pairs knows it. Where files hold lists (``Comparisons.lists``), or the user states it (``--made-from``), this
is known. Otherwise it is inferred from the judgements: independent ones contradict the user's others now and then.

    null         Bradley-Terry judges: each pair is answered independently, with the log odds of the difference of the
                 user's two rewards, which are drawn at random, normal with standard deviation ``SPREAD``
    cycles       judgements of each user that must be reversed to leave no cycle (a over b, b over c, c over a; a
                 greedy count), Poisson with mean c l; l is simulated on the same pairs. Judges have c of 1 or more,
                 pairs that follow from others ``FLAWED``, for slips such as a text that was rated twice
    sides        texts chosen in some of a user's pairs and rejected in others, among those in two pairs or more that
                 some users always choose and some always reject: votes, and the best of several, leave none. Binomial
                 with p0, simulated, against ``FLAWED`` p0
    evidence     log likelihood ratio of the cycles of all users together, or of the sides. Also for cycles, where
                 it is clearer: mixtures of users with and without the class ``FLAWED``, if at least ``SOME`` of the
                 judgements fall to it. Ratios for "derived" are divided by the dispersion of the null's cycles

Users are taken in a random order, fixed by their ids, until the odds are above ``MADE`` (``derived`` is True; for some
users only, above ``SINGLE``) or below 1 / ``SINGLE`` (False): Wald's sequential test (1945). None: too few data.

Consistency looks the same: a person who never wavers leaves no cycle either, and their further judgements can be known
from the earlier ones just as well. So True means "as if made from ratings", and messages say so. The null judges are
strict: 1.4 % of their closed triads are cyclic, and they repeat an answer in 89 % of cases, as the most consistent
crowds that we measured (texts of many models .893, arguments .895).

``dependent`` is what follows: True where derived, and where this is unknown but more than ``LITTLE`` of the
judgements share a text with another pair of the same user. A needless split by text costs precision; a leak makes the
result wrong.

Suffixes here: ``_C`` classes of users, ``_K`` distinct pairs of a user, ``_M`` edges of the graph, ``_V`` its vertices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.data.judgement_graph import MOST_DRAWS, Graph, Ints, vertices
from polypref.wording import counted, share

SPREAD, FLAWED = 5.5, 0.1
MADE, SINGLE = 15.0, 20.0
JUDGES = (1.0, 2.0, 4.0, 8.0, 16.0)  # how many times the null's cycles judges may leave
SOME = 0.1  # share of the judgements that must look made from ratings where the others do not
LITTLE = 0.1  # share of the judgements that may share a text: one text in common lets a sixth more be guessed
FIRST = 4_000  # judgements in the first look; twice as many each time
SIMULATED = 200_000  # judgements to simulate, in all draws together
EM_STEPS = 100
SAY_PAIRS = " (if each was judged by itself, add --made-from pairs)"

MadeFrom = Literal["auto", "ratings", "pairs"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Origin:
    """Whether judgements follow from each other, and the reason.

    ``derived``    True: they look made from ratings, rankings or votes, or are known to be. False: judged one by one.
                   None: too few data.
    ``dependent``  whether to treat them as derived: what the split, the profile and the groups go by.
    ``why``        one clause.
    ``loops``      how often a user's judgements could contradict that user's other ones.
    ``circular``   judgements on a cycle.
    ``returning``  share of the judgements that have a text in common with another pair of the same user.
    ``worth``      how many judgements they are worth: those that follow from no others of the user, where dependent.
    """

    derived: bool | None
    dependent: bool
    why: str
    loops: int
    circular: int
    returning: float
    worth: int

    def as_dict(self) -> dict[str, object]:
        """JSON-able."""
        return dict(vars(self))


@dataclass(frozen=True)
class Evidence:
    """Log likelihood ratio for judgements that follow from others, ``by`` "cycles" or "sides", where the test stopped.

    ``share``  of the judgements, those of users whose judgements do.
    """

    ratio: float
    by: str = "cycles"
    share: float = 1.0

    @property
    def made(self) -> bool:
        return self.ratio >= np.log(MADE)

    @property
    def single(self) -> bool:
        return self.ratio <= -np.log(SINGLE)


def origin(comparisons: Comparisons) -> Origin:
    """Whether judgements follow from each other: as the file or the user states, else by the module's test."""
    comparisons = comparisons.weighing()
    graph, returning = Graph.of(comparisons), _returning(comparisons)
    rank = graph.rank()
    loops, circular = len(graph.tail_M) - rank, int(graph.circular_M().sum())
    ties = 0 if comparisons.tie_N is None else int(comparisons.tie_N.sum())
    chances = _chances(loops, circular)
    derived, why = _known(comparisons.lists, returning, chances) or _told(graph, returning, chances)
    dependent = returning > LITTLE if derived is None else derived
    return Origin(derived, dependent, why, loops, circular, returning, rank if dependent else len(comparisons) - ties)


def evidence(graph: Graph) -> Evidence:
    """The test's result, from as many users as it needs."""
    found, size, limit = Evidence(0.0), 0, FIRST
    edges_U = np.bincount(graph.user_M, minlength=int(graph.user_V.max(initial=0)) + 1)
    key_U = np.zeros(len(edges_U), np.uint64)
    np.add.at(key_U, graph.user_V, graph.key_V)
    order_U = np.argsort(key_U, kind="stable")  # the same whatever the order of rows and users
    order_U = order_U[edges_U[order_U] > 0]
    ends = np.cumsum(edges_U[order_U])
    while size < len(order_U) and not (found.made or found.single):
        size = min(int(np.searchsorted(ends, limit)) + 1, len(order_U))
        found, limit = _weigh(graph.of_users(order_U[:size])), 2 * limit
    return found


def _known(lists: str, returning: float, chances: str) -> tuple[bool, str] | None:
    """What the file or the user states; None where it is not known."""
    if not lists:
        return None
    if lists == "thumbs":
        return False, "each like or dislike is of one response"
    if lists == "pairs":
        return False, f"pairs were judged one by one, as you said ({chances})"
    if not returning:
        return False, f"pairs were made from {lists} of two responses each, so none follows from others"
    return True, f"pairs were made from {lists}"


def _told(graph: Graph, returning: float, chances: str) -> tuple[bool | None, str]:
    """The test's result in words."""
    found, made = evidence(graph), "made from ratings, rankings or votes"
    if found.made and found.share < 1 - SOME:
        who = f"users who made {share(found.share)} of the judgements"
        return True, f"some pairs look {made}, since {who} hardly ever contradict themselves, unlike the others"
    if found.made:
        why = chances if found.by == "cycles" else "users mostly choose a text in all of their pairs or in none"
        return True, f"pairs look {made}, or judged by people who never waver, since {why}"
    if found.single:
        return False, f"pairs were judged one by one, since {chances}"
    if returning <= LITTLE:
        few = "hardly any user" if returning else "no user"
        return None, f"pairs are taken to be judged one by one, since {few} judged a text in two pairs"
    return None, f"pairs may be {made}, since {chances}{SAY_PAIRS}"


def _chances(loops: int, circular: int) -> str:
    """How often users could contradict themselves and did, in words."""
    if not loops:
        return "no user had a chance to contradict themselves"
    had = f"users had {counted(loops, 'chances')} to contradict themselves"
    if not circular:
        return f"{had} and never did"
    return f"{had}, and {circular:,} judgements form cycles (A over B, B over C, C over A)"


def _returning(comparisons: Comparisons) -> float:
    """Share of the judgements, ties included, that have a text in common with another pair of the same user."""
    vertex_2N, code_V = vertices(comparisons)
    pair_K, pair_N = np.unique(vertex_2N.min(axis=0) * len(code_V) + vertex_2N.max(axis=0), return_inverse=True)
    end_2K = np.stack(np.divmod(pair_K, max(len(code_V), 1)))
    again_K = np.logical_or(*(np.bincount(end_2K.ravel(), minlength=1)[end_2K] > 1))
    return float(again_K[pair_N].mean()) if len(comparisons) else 0.0


def _weigh(graph: Graph) -> Evidence:
    """The evidence of some users' judgements."""
    users, draws = int(graph.user_V.max()) + 1, int(np.clip(SIMULATED // len(graph.tail_M), 2, MOST_DRAWS))
    drawn = graph.judged(draws, SPREAD)
    edges_U = np.bincount(graph.user_M, minlength=users)
    slips_U = np.asarray(np.bincount(graph.user_M, graph.slips_M(), users), float)
    slips_BU = np.bincount(drawn.user_M, drawn.slips_M(), draws * users).reshape(draws, users)
    expected_U = slips_BU.mean(axis=0)
    wide = max(1.0, float(slips_BU.var(axis=0, ddof=1).sum() / max(expected_U.sum(), 1e-9)))  # 1 for Poisson
    everyone = float(slips_U.sum() * np.log(FLAWED) + expected_U.sum() * (1 - FLAWED))
    some, part = _some(slips_U, expected_U, edges_U)
    if some > everyone and some / wide >= np.log(SINGLE) and part >= SOME:
        return Evidence(some / wide, share=part)
    sides = _sided(graph.sides(), drawn.sides())
    if everyone > -np.log(SINGLE) and sides > everyone / wide:
        return Evidence(sides, "sides")
    return Evidence(everyone / wide if everyone > 0 else everyone)


def _some(slips_U: Floats, expected_U: Floats, edges_U: Ints) -> tuple[float, float]:
    """Log likelihood ratio for a class of users with ``FLAWED`` times the cycles, and its share of the judgements."""
    told_U = expected_U > 0
    if not told_U.any():
        return 0.0, 0.0
    mean_UC = np.array([FLAWED, *JUDGES]) * expected_U[told_U, None]
    log_UC = slips_U[told_U, None] * np.log(mean_UC) - mean_UC
    (one, of_UC), (other, _) = _mixture(log_UC), _mixture(log_UC[:, 1:])
    return one - other, float(np.average(of_UC[:, 0], weights=edges_U[told_U]))


def _mixture(log_UC: Floats) -> tuple[float, Floats]:
    """Log likelihood with the best shares of the classes, and whose class each user is (EM)."""
    top_U = log_UC.max(axis=1)
    like_UC, share_C = np.exp(log_UC - top_U[:, None]), np.full(log_UC.shape[1], 1 / log_UC.shape[1])
    of_UC = like_UC
    for _ in range(EM_STEPS):
        of_UC = like_UC * share_C
        of_UC /= of_UC.sum(axis=1, keepdims=True)
        share_C = of_UC.mean(axis=0)
    return float((np.log(like_UC @ share_C) + top_U).sum()), of_UC


def _sided(seen: tuple[int, int], drawn: tuple[int, int]) -> float:
    """Log likelihood ratio for texts that stay on one side; halved, since a judgement counts for both its texts."""
    (mixed, met), null = seen, drawn[0] / max(drawn[1], 1)
    if not met or not 0 < null < 1:
        return 0.0
    return 0.5 * float(mixed * np.log(FLAWED) + (met - mixed) * np.log((1 - FLAWED * null) / (1 - null)))
