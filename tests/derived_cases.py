"""Judgements of known origin: made one by one by Bradley-Terry judges, or from ratings of known flaws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl

from polypref.comparisons import Comparisons, Responses, Users

LISTS = Responses(
    prompts=pl.Series([f"prompt {p}" for p in range(400)]),
    prompt_R=np.repeat(np.arange(400, dtype=np.int32), 8),
    texts_R=pl.Series([f"text {r}" for r in range(3200)]),
)
LISTS.keys_R  # noqa: B018  (once for all)


def pairs_of(users: int, lists: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Every pair of ``size`` texts of ``lists`` prompts for each user: user, first and second text."""
    first, second = np.array(list(combinations(range(size), 2))).T
    prompts = np.concatenate([rng.choice(400, lists, replace=False) for _ in range(users)])
    user = np.repeat(np.arange(users), lists * len(first))
    base = np.repeat(8 * prompts, len(first))
    return user, base + np.tile(first, users * lists), base + np.tile(second, users * lists)


def comparisons_of(user: np.ndarray, first: np.ndarray, second: np.ndarray, wins: np.ndarray) -> Comparisons:
    """``wins`` 1: the first was taken, 0: the second, .5: a tie."""
    chosen, rejected = np.where(wins > 0, first, second), np.where(wins > 0, second, first)
    users = Users(pl.Series("id", [f"user {u}" for u in range(int(user.max()) + 1)]))
    tie = wins == 0.5
    columns = [column.astype(np.int32) for column in (user, chosen, rejected)]
    return Comparisons(LISTS, users, *columns, tie_N=tie if tie.any() else None)


def judges(users: int, lists: int, size: int, spread: float, rng: np.random.Generator) -> Comparisons:
    """Each pair answered by itself with log odds of the difference of own rewards, normal with that spread."""
    user, first, second = pairs_of(users, lists, size, rng)
    reward = rng.normal(0, spread, (users, 3200))
    chance = 1 / (1 + np.exp(reward[user, second] - reward[user, first]))
    return comparisons_of(user, first, second, (rng.random(len(user)) < chance).astype(float))


def raters(
    users: int, lists: int, size: int, levels: int, rng: np.random.Generator, flawed: float = 0.0
) -> Comparisons:
    """Pairs of whole ratings from 1 to ``levels``, ties where equal; a share of pairs turned round."""
    user, first, second = pairs_of(users, lists, size, rng)
    rating = rng.integers(1, levels + 1, (users, 3200))
    wins = 0.5 + 0.5 * np.sign(rating[user, first] - rating[user, second])
    turned = (wins != 0.5) & (rng.random(len(user)) < flawed)
    return comparisons_of(user, first, second, np.where(turned, 1 - wins, wins))
