"""How far people's own strengths are from the population's, and how often its winner is not a person's best.

Person u's strengths are c theta + d_u, d_u ~ Normal(0, spread^2) for every system. The population's theta is that of
people taken together, so it is closer to zero than a person's; c = sqrt(1 + 0.346 * 2 spread^2) undoes that (Zeger,
Liang & Albert 1988). One person's best by their own few judgements is mostly noise, so nobody's is counted by that:

1. The spread comes from what residuals of one person on *different prompts* have in common, system by system,
   sum_u |z_u|^2 - sum_(u, prompt) |z_(u, prompt)|^2, whose expectation is zero if all share one ranking, whatever
   single texts are worth. Its standard error is over people. The spread is the one under which the same judgements
   would give the same statistic (indirect inference, Gourieroux, Monfort & Renault 1993).
2. Given it, each person has a normal posterior around the mode (Laplace), and a system that they never judged has the
   prior. Draws of the spread, theta and d give the share of people whose best is another one than the winner.

The spread is a means and is not reported: ties draw it towards zero (the simulated judgements of step 1 have none: .8
with 20 % ties is found as .58), so its interval does not cover. That it is not zero is tested without it.

Two controls: people shuffled over the judgements of their group; and the share that raw net wins give in worlds where
everybody has the population's strengths, which is what noise alone looks like.

Covered: persons with few judgements (they keep the prior). Not covered: spreads that differ by system; data with one
prompt a person, where single judgements take the place of prompts.
Suffixes here: ``_M`` systems, ``_I`` (user, system) cells, ``_L`` systems that one person judged,
``_A`` coefficients: systems, then covariates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri

from polypref.leaderboard.battles import Battles, Floats, Ints
from polypref.leaderboard.ranks import root
from polypref.leaderboard.strengths import Strengths, logits

LEAST_PEOPLE = 10
MOST_PEOPLE = 2000
NODES, DRAWS, WORLDS = 20, 40, 20  # of the spread, 2.5 % to 97.5 %; at each; null worlds
GRID = np.array([0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0])
ATTENUATION = 0.346 * 2  # of a difference of two deviations


@dataclass(frozen=True)
class Spread:
    """The standard deviation of people's strengths, its 95 % interval, and the statistic behind it."""

    value: float
    lo: float
    hi: float
    p: float
    statistic: float
    se: float
    curve: tuple[float, ...]

    def at(self, statistic: Floats) -> Floats:
        """The spread that gives a statistic; zero below none."""
        return np.interp(statistic, self.curve, GRID)


@dataclass(frozen=True, eq=False)
class Persons:
    """The share of people whose best is not the winner, with its interval, and each person's.

    ``user_U``  who they are; ``other_U`` the chance that another system is their best; ``best_U`` the likeliest one and
    ``chance_U`` its chance.
    """

    user_U: Ints
    judgements_U: Ints
    other_U: Floats
    best_U: Ints
    chance_U: Floats
    share: float
    lo: float
    hi: float


def spread_of(battles: Battles, prompt_N: Ints, base_N: Floats, seed: int) -> Spread:
    """The spread of people; ``base_N`` are the log-odds of the population's (or the groups') strengths."""
    rng = np.random.default_rng(seed)
    battles, prompt_N, base_N = _fewer(battles, prompt_N, base_N, rng)
    mean_N = expit(base_N)
    cells_N = _cells(battles, prompt_N)
    residual_N = battles.weight_N * (battles.label_N - mean_N)
    weight_N = battles.weight_N * mean_N * (1 - mean_N)
    scale_U = _squares(battles, weight_N, cells_N)
    above_U = _cross(battles, residual_N, cells_N)
    whole = scale_U.sum()
    if whole <= 0:
        return Spread(np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, ())
    value = float(above_U.sum() / whole)
    used = int((scale_U > 0).sum())
    se = float(np.sqrt(((above_U - value * scale_U) ** 2).sum() * used / max(used - 1, 1)) / whole)
    code_2N, n_cells = _places(battles)
    noise_I = rng.standard_normal(n_cells)
    curve = [0.0]
    for spread in GRID[1:]:
        apart_N = spread * (noise_I[code_2N[: len(battles)]] - noise_I[code_2N[len(battles) :]])
        own_N = expit(_scale(spread) * base_N + apart_N)
        found = _cross(battles, battles.weight_N * (own_N - mean_N), cells_N).sum() / whole
        curve.append(max(float(found), curve[-1] + 1e-9))
    made = Spread(0, 0, 0, 0, value, se, tuple(curve))
    ends = made.at(np.array([value, value - 1.96 * se, value + 1.96 * se]))
    p = min(float(2 * ndtr(-value / se)), 1.0) if se > 0 else 1.0  # two-sided, so below .05 where lo is above 0
    return replace(made, value=float(ends[0]), lo=float(ends[1]), hi=float(ends[2]), p=p)


def shuffled(battles: Battles, group_N: NDArray, seed: int) -> Battles:
    """The same battles with the people of each group shuffled: a world of one ranking a group with these labels."""
    rng = np.random.default_rng(seed)
    user_N = battles.user_N.copy()
    for name in sorted(set(group_N.tolist())):
        rows = np.flatnonzero(group_N == name)
        user_N[rows] = rng.permutation(user_N[rows])
    return replace(battles, user_N=user_N)


def persons(
    battles: Battles, fits: dict[str, Strengths], group_N: NDArray, spread: Spread, least: int, seed: int
) -> Persons:
    """Each person's best; ``fits`` are the strengths by group, ``group_N`` the group of who judged."""
    rng = np.random.default_rng(seed)
    m = len(battles.names)
    many_U = np.bincount(battles.user_N, minlength=battles.n_users)
    user_U = np.flatnonzero(many_U >= least)
    if len(user_U) > MOST_PEOPLE:
        user_U = np.sort(rng.choice(user_U, MOST_PEOPLE, replace=False))
    order = np.argsort(battles.user_N, kind="stable")
    ends_U = np.cumsum(many_U)
    factors = {name: root(one.covariance_MM) for name, one in fits.items()}
    node_B = spread.at(spread.statistic + spread.se * ndtri((np.arange(NODES) + 0.5) / NODES))
    chance_UM = np.zeros((len(user_U), m))
    other_U, shares = np.zeros(len(user_U)), []
    for node in node_B:
        common = {name: rng.standard_normal((DRAWS, m)) for name in fits}
        other_B = np.zeros(DRAWS)
        for at, user in enumerate(user_U.tolist()):
            rows = order[ends_U[user] - many_U[user] : ends_U[user]]
            name = str(group_N[rows[0]])
            theta_BM = fits[name].theta_M + common[name] @ factors[name].T
            own_BM = _scale(node) * theta_BM
            if node > 0:
                own_BM = own_BM + _deviations(battles.take(rows), fits[name], node, rng)
            best_B = own_BM.argmax(axis=1)
            differs_B = best_B != theta_BM.argmax(axis=1)
            other_B += differs_B
            other_U[at] += differs_B.mean() / NODES
            chance_UM[at] += np.bincount(best_B, minlength=m) / (DRAWS * NODES)
        shares.append(other_B / max(len(user_U), 1))
    share = np.concatenate(shares)
    lo, hi = np.quantile(share, [0.025, 0.975])
    best_U = chance_UM.argmax(axis=1)
    chance_U = chance_UM[np.arange(len(user_U)), best_U]
    return Persons(user_U, many_U[user_U], other_U, best_U, chance_U, float(share.mean()), float(lo), float(hi))


def _deviations(own: Battles, strengths: Strengths, spread: float, rng: np.random.Generator) -> Floats:
    """Draws (B, M) of what one person's strengths are beyond the population's."""
    judged_L, place = np.unique(np.concatenate([own.first_N, own.second_N]), return_inverse=True)
    a_N, b_N, size = place[: len(own)], place[len(own) :], len(judged_L)
    design = np.zeros((len(own), size))
    rows = np.arange(len(own))
    design[rows, a_N], design[rows, b_N] = 1, -1
    base_N = _scale(spread) * logits(own, strengths.theta_A)
    mode_L = np.zeros(size)
    precision = np.eye(size)
    for _ in range(20):
        mean_N = expit(base_N + design @ mode_L)
        gradient_L = design.T @ (own.weight_N * (own.label_N - mean_N)) - mode_L / spread**2
        precision = (design.T * (own.weight_N * mean_N * (1 - mean_N))) @ design + np.eye(size) / spread**2
        step_L = np.linalg.solve(precision, gradient_L)
        mode_L += step_L
        if np.abs(step_L).max(initial=0) < 1e-6:
            break
    draw_BM = spread * rng.standard_normal((DRAWS, len(own.names)))
    factor = np.linalg.cholesky(np.linalg.inv(precision))
    draw_BM[:, judged_L] = mode_L + rng.standard_normal((DRAWS, size)) @ factor.T
    return draw_BM


def raw_share(battles: Battles, base_N: Floats, winner: int, seed: int) -> dict[str, float]:
    """The share of people whose most net wins are another system's than ``winner``, of those who judged it.

    Also the same in worlds where everybody has the population's strengths: what noise alone gives.
    """
    rng = np.random.default_rng(seed)
    observed = _raw(battles, battles.label_N, winner)
    worlds = [_raw(battles, (rng.random(len(battles)) < expit(base_N)) * 1.0, winner) for _ in range(WORLDS)]
    return {"observed": observed, "noise_alone": float(np.mean(worlds))}


def _raw(battles: Battles, label_N: Floats, winner: int) -> float:
    code_2N, n_cells = _places(battles)
    m = len(battles.names)
    user_I, system_I = np.zeros(n_cells, np.int64), np.zeros(n_cells, np.int64)
    user_I[code_2N], system_I[code_2N] = np.tile(battles.user_N, 2), np.concatenate([battles.first_N, battles.second_N])
    net_I = np.bincount(code_2N, np.concatenate([label_N - 0.5, 0.5 - label_N]), n_cells)
    order = np.lexsort((system_I == winner, net_I, user_I))  # the winner has the benefit of a tie
    last = order[np.append(user_I[order][1:] != user_I[order][:-1], True)] if n_cells else order
    judged = np.isin(user_I[last], user_I[system_I == winner])
    return float((system_I[last][judged] != winner).mean()) if judged.any() and m else float("nan")


def _scale(spread: float) -> float:
    return float(np.sqrt(1 + ATTENUATION * spread**2))


def _fewer(battles: Battles, prompt_N: Ints, base_N: Floats, rng: np.random.Generator) -> tuple[Battles, Ints, Floats]:
    """At most MOST_PEOPLE people, drawn at random."""
    people = np.unique(battles.user_N)
    if len(people) <= MOST_PEOPLE:
        return battles, prompt_N, base_N
    rows = np.flatnonzero(np.isin(battles.user_N, rng.choice(people, MOST_PEOPLE, replace=False)))
    return battles.take(rows), prompt_N[rows], base_N[rows]


def _cells(battles: Battles, prompt_N: Ints) -> Ints:
    """The (user, prompt) of each battle, or its own number where everybody judged one prompt."""
    code_N = battles.user_N * (int(prompt_N.max(initial=0)) + 1) + prompt_N
    codes, cell_N = np.unique(code_N, return_inverse=True)
    return cell_N if len(codes) > len(np.unique(battles.user_N)) else np.arange(len(battles))


def _places(battles: Battles) -> tuple[Ints, int]:
    """The (user, system) cell of each first and then each second system, and how many there are."""
    system_2N = np.concatenate([battles.first_N, battles.second_N])
    codes, code_2N = np.unique(np.tile(battles.user_N, 2) * len(battles.names) + system_2N, return_inverse=True)
    return code_2N, len(codes)


def _cross(battles: Battles, residual_N: Floats, cell_N: Ints) -> Floats:
    """sum |z|^2 of each user less that of each of their cells (U)."""
    signed_2N = np.concatenate([residual_N, -residual_N])
    whole_U, within_U = _by_level(battles, signed_2N, cell_N)
    return whole_U - within_U


def _by_level(battles: Battles, value_2N: Floats, cell_N: Ints) -> Iterator[Floats]:
    """Sums of squares over systems: of users' totals, and of cells' totals, both by user."""
    system_2N = np.concatenate([battles.first_N, battles.second_N])
    owner = np.zeros(int(cell_N.max(initial=0)) + 1, np.int64)
    owner[cell_N] = battles.user_N
    for level_N, owner_of in ((battles.user_N, np.arange(battles.n_users)), (cell_N, owner)):
        codes, at = np.unique(np.tile(level_N, 2) * len(battles.names) + system_2N, return_inverse=True)
        total = np.bincount(at, value_2N, len(codes))
        yield np.bincount(owner_of[codes // len(battles.names)], total**2, battles.n_users).astype(np.float64)


def _squares(battles: Battles, weight_N: Floats, cell_N: Ints) -> Floats:
    """tr(A^2) of each user's information A, less that of each of their cells (U)."""
    m = len(battles.names)
    diagonal = list(_by_level(battles, np.tile(weight_N, 2), cell_N))
    low_N, high_N = np.minimum(battles.first_N, battles.second_N), np.maximum(battles.first_N, battles.second_N)
    owner = np.zeros(int(cell_N.max(initial=0)) + 1, np.int64)
    owner[cell_N] = battles.user_N
    off = []
    for level_N, owner_of in ((battles.user_N, np.arange(battles.n_users)), (cell_N, owner)):
        codes, at = np.unique((level_N * m + low_N) * m + high_N, return_inverse=True)
        total = np.bincount(at, weight_N, len(codes))
        off.append(2 * np.bincount(owner_of[codes // (m * m)], total**2, battles.n_users))
    return diagonal[0] - diagonal[1] + off[0] - off[1]
