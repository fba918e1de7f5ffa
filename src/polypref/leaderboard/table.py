"""The leaderboard as JSON: the population's table, each group's, each person's best, and what it all rests on.

Systems that were never compared, not even through others, have no common scale: each connected part of the graph has a
table of its own, and groups, people and coefficients are those of the part with the most judgements.
Suffixes here: ``_M`` systems, ``_A`` coefficients: systems, then covariates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from polypref.arguments import AtLeastOne, Seed
from polypref.comparisons import Comparisons
from polypref.errors import NotEnoughData
from polypref.leaderboard import people
from polypref.leaderboard.battles import POSITION, Battles, Ints
from polypref.leaderboard.ranks import half_widths, rank_intervals
from polypref.leaderboard.strengths import FEW, Strengths, fit, logits
from polypref.wording import counted

LEAST = 20  # judgements of a table
PLAIN = "population"


@dataclass(frozen=True)
class Settings:
    """``min_judgements`` of a person whose best is asked for."""

    min_judgements: AtLeastOne = 10
    seed: Seed = 0


def leaderboard(
    battles: Battles, comparisons: Comparisons, groups: Sequence[str] | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    """The content of leaderboard.json. ``groups``: the group of each user, or None for none.

    Raises NotEnoughData for fewer than two systems, or for fewer than LEAST judgements.
    """
    s = Settings() if settings is None else settings
    if len(battles.names) < 2 or len(battles) < LEAST:
        raise NotEnoughData(
            f"{counted(len(battles), 'judgements')} of {counted(len(battles.names), 'systems')} can be used; "
            f"a leaderboard needs at least {LEAST} judgements of 2 systems."
        )
    prompt_N = comparisons.responses.prompt_R[comparisons.chosen_N].astype(np.int64)
    found = _components(battles)
    tables = [_both(battles_of_part, s.seed) for battles_of_part, _ in found[1:]]
    main, rows = found[0]
    first = _both(main, s.seed)
    plain = main.without_style()
    whole = fit(plain)
    names_U = np.array(groups if groups is not None else [PLAIN] * main.n_users, dtype=object)
    group_N = names_U[main.user_N]
    fits = _groups(plain, whole, group_N) if groups is not None else {PLAIN: whole}
    return {
        "systems": len(battles.names),
        "judgements": len(battles),
        "people": len(np.unique(battles.user_N)),
        "ties": int((battles.label_N == 0.5).sum()),
        "clusters": "people" if whole.clusters == len(np.unique(main.user_N)) >= FEW else "judgements",
        **first,
        "other_parts": tables,
        "groups": {
            name: {
                "people": len(np.unique(main.user_N[group_N == name])),
                "judgements": int((group_N == name).sum()),
                "rows": ranked(main, one, s.seed, group_N == name),
            }
            for name, one in fits.items()
            if groups is not None
        },
        "too_few": {name: int((group_N == name).sum()) for name in sorted(set(group_N) - set(fits))},
        "persons": _persons(plain, whole, fits, group_N, prompt_N[rows], comparisons, s),
    }


def _both(battles: Battles, seed: int) -> dict[str, Any]:
    """A part's table without and with style, and its coefficients."""
    plain = fit(battles.without_style())
    styled = fit(battles)
    has_style = len(battles.covariates) > len(battles.without_style().covariates)
    return {
        "rows": ranked(battles, plain, seed),
        "rows_style": ranked(battles, styled, seed) if has_style else None,
        "coefficients": _coefficients(battles, styled),
    }


def ranked(battles: Battles, strengths: Strengths, seed: int, of_N: NDArray | None = None) -> list[dict[str, Any]]:
    """The systems in their order, with strength, interval, and rank interval."""
    theta_M = strengths.theta_M - strengths.theta_M.mean()
    half_M = half_widths(strengths.covariance_MM, strengths.clusters)
    best_M, worst_M = rank_intervals(theta_M, strengths.covariance_MM, strengths.clusters, seed)
    used = battles if of_N is None else battles.take(of_N)
    many_M = np.bincount(np.concatenate([used.first_N, used.second_N]), minlength=len(theta_M))
    return [
        {
            "system": battles.names[at],
            "rank": rank,
            "best_rank": int(best_M[at]),
            "worst_rank": int(worst_M[at]),
            "strength": float(theta_M[at]),
            "lo": float(theta_M[at] - half_M[at]),
            "hi": float(theta_M[at] + half_M[at]),
            "judgements": int(many_M[at]),
        }
        for rank, at in enumerate(np.argsort(-theta_M, kind="stable").tolist(), start=1)
    ]


def _coefficients(battles: Battles, strengths: Strengths) -> list[dict[str, Any]]:
    """Log-odds of a covariate: of being shown first, or of one standard deviation more of a style."""
    m = len(battles.names)
    found = []
    for at, name in enumerate(battles.covariates, start=m):
        value, se = float(strengths.theta_A[at]), float(np.sqrt(strengths.covariance_AA[at, at]))
        p = float(2 * ndtr(-abs(value) / se)) if se > 0 else 1.0
        kind = "position" if name == POSITION else "style"
        found.append(
            {"name": name, "kind": kind, "value": value, "lo": value - 1.96 * se, "hi": value + 1.96 * se, "p": p}
        )
    return found


def _components(battles: Battles) -> list[tuple[Battles, Ints]]:
    """The connected parts with their rows, the one with the most judgements first; each has its own systems."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    m = len(battles.names)
    ones = np.ones(len(battles), np.int64)
    graph = csr_array((ones, (battles.first_N, battles.second_N)), shape=(m, m))
    part_M = connected_components(graph, directed=False)[1]
    part_N = part_M[battles.first_N]
    found = []
    for part in np.argsort(-np.bincount(part_N, minlength=part_M.max() + 1), kind="stable").tolist():
        inside, rows = np.flatnonzero(part_M == part), np.flatnonzero(part_N == part)
        if not len(rows):
            continue
        number_M = np.full(m, -1)
        number_M[inside] = np.arange(len(inside))
        own = battles.take(rows)
        names = tuple(battles.names[at] for at in inside)
        found.append((replace(own, names=names, first_N=number_M[own.first_N], second_N=number_M[own.second_N]), rows))
    return found


def _groups(battles: Battles, whole: Strengths, group_N: NDArray) -> dict[str, Strengths]:
    """The strengths of every group with enough judgements, shrunken to the population's.

    Coefficients are each group's own. The interval is that of the group given the population's strengths, plus theirs
    in the share by which the group leans on them.
    """
    found = {}
    for name in sorted(set(group_N)):
        own = battles.take(group_N == name)
        if len(own) < LEAST:
            continue
        one = fit(own, prior_M=whole.theta_M)
        m = one.n_systems
        one.covariance_AA[:m, :m] += one.lean_MM @ whole.covariance_MM @ one.lean_MM.T
        found[name] = one
    return found


def _persons(
    battles: Battles,
    whole: Strengths,
    fits: dict[str, Strengths],
    group_N: NDArray,
    prompt_N: Ints,
    comparisons: Comparisons,
    s: Settings,
) -> dict[str, Any]:
    """How often the winner is not a person's best, with its controls; why not, where it cannot be told."""
    known_N = np.isin(group_N, list(fits))
    battles, group_N, prompt_N = battles.take(known_N), group_N[known_N], prompt_N[known_N]
    many_U = np.bincount(battles.user_N, minlength=battles.n_users)
    enough = int((many_U >= s.min_judgements).sum())
    if enough < people.LEAST_PEOPLE:
        why = (
            f"{counted(enough, 'people')} gave {s.min_judgements} judgements or more; {people.LEAST_PEOPLE} are needed"
        )
        return {"why_not": why}
    base_N = np.zeros(len(battles))
    for name, one in fits.items():
        mine = group_N == name
        base_N[mine] = logits(battles.take(mine), one.theta_A)
    spread = people.spread_of(battles, prompt_N, base_N, s.seed)
    if np.isnan(spread.value):
        return {"why_not": "nobody judged two pairs that share a system, so no taste can repeat"}
    told = people.persons(battles, fits, group_N, spread, s.min_judgements, s.seed)
    mixed = people.shuffled(battles, group_N, s.seed)
    mixed_spread = people.spread_of(mixed, prompt_N, base_N, s.seed)
    placebo = people.persons(mixed, fits, group_N, mixed_spread, s.min_judgements, s.seed)
    winner = int(np.argmax(whole.theta_M))
    ids = comparisons.users.ids
    rows = zip(told.user_U, told.judgements_U, told.best_U, told.chance_U, told.other_U, strict=True)
    return {
        "why_not": None,
        "winner": battles.names[winner],
        "people": len(told.user_U),
        "share": {"value": told.share, "lo": told.lo, "hi": told.hi},
        "raw": people.raw_share(battles, base_N, winner, s.seed),
        "differ": {"shown": spread.lo > 0, "p": spread.p},
        "shuffled": {"value": placebo.share, "lo": placebo.lo, "hi": placebo.hi},
        "rows": [
            {"user": ids[int(u)], "judgements": int(n), "best": battles.names[b], "chance": float(c), "other": float(o)}
            for u, n, b, c, o in rows
        ],
    }
