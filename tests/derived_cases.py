"""Judgements of known origin: made one by one by Bradley-Terry judges, or from ratings, rankings, votes and choices."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import polars as pl

from polypref.comparisons import Comparisons, Responses, Users

TEXTS = 3200
LISTS = Responses(
    prompts=pl.Series([f"prompt {p}" for p in range(400)]),
    prompt_R=np.repeat(np.arange(400, dtype=np.int32), 8),
    texts_R=pl.Series([f"text {r}" for r in range(TEXTS)]),
)
POOL = Responses(
    prompts=pl.Series(["prompt"]),
    prompt_R=np.zeros(TEXTS, np.int32),
    texts_R=pl.Series([f"text {r}" for r in range(TEXTS)]),
)
for pool in (LISTS, POOL):
    pool.keys_R  # noqa: B018  (once for all)
Rng = np.random.Generator
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def lists(users: int, many: int, size: int, rng: Rng) -> Pairs:
    """Every pair of ``size`` texts of ``many`` prompts for each user: user, first and second text."""
    first, second = np.array(list(combinations(range(size), 2))).T
    prompts = np.concatenate([rng.choice(400, many, replace=False) for _ in range(users)])
    user = np.repeat(np.arange(users), many * len(first))
    base = np.repeat(8 * prompts, len(first))
    return user, base + np.tile(first, users * many), base + np.tile(second, users * many)


def every(users: int, each: int, texts: int, rng: Rng) -> Pairs:
    """Every pair of ``each`` of ``texts`` texts, drawn for each user."""
    first, second = np.array(list(combinations(range(each), 2))).T
    drawn = np.stack([rng.choice(texts, each, replace=False) for _ in range(users)])
    return np.repeat(np.arange(users), len(first)), drawn[:, first].ravel(), drawn[:, second].ravel()


def sparse(users: int, pairs: int, texts: int, rng: Rng) -> Pairs:
    """``pairs`` pairs of ``texts`` texts, drawn with replacement for each user."""
    user = np.repeat(np.arange(users), pairs)
    first = rng.integers(0, texts, len(user))
    return user, first, (first + rng.integers(1, texts, len(user))) % texts


def slates(users: int, many: int, size: int, rng: Rng) -> Pairs:
    """One text against the ``size - 1`` others of each of ``many`` slates that all users see; which one, by lot."""
    best = rng.integers(0, size, (users, many, 1))
    others = (best + np.arange(1, size)) % size
    base = 8 * np.arange(many)[:, None]
    user = np.repeat(np.arange(users), many * (size - 1))
    return user, (base + np.broadcast_to(best, others.shape)).ravel(), (base + others).ravel()


def comparisons_of(pairs: Pairs, wins: np.ndarray, pool: Responses = POOL, drop: bool = False) -> Comparisons:
    """``wins`` 1: the first was taken, 0: the second, .5: a tie, which ``drop`` leaves out."""
    user, first, second = pairs
    chosen, rejected = np.where(wins > 0, first, second), np.where(wins > 0, second, first)
    users = Users(pl.Series("id", [f"user {u}" for u in range(int(user.max()) + 1)]))
    tie = wins == 0.5
    columns = [column.astype(np.int32) for column in (user, chosen, rejected)]
    data = Comparisons(pool, users, *columns, tie_N=tie if tie.any() else None)
    return data.take(~tie) if drop and tie.any() else data


def judged(
    pairs: Pairs, spread: float, rng: Rng, shared: float = 0.0, tied: float = 0.0, pool: Responses = POOL
) -> Comparisons:
    """Each pair answered by itself with log odds of the difference of own rewards, normal with that spread.

    ``shared``  standard deviation of what everybody thinks of a text; ``tied`` share of pairs, the closest, that are
    ties.
    """
    user, first, second = pairs
    reward = rng.normal(0, spread, (int(user.max()) + 1, TEXTS)) + rng.normal(0, shared, TEXTS)
    margin = reward[user, first] - reward[user, second] + rng.logistic(size=len(user))
    wins = (margin > 0).astype(float)
    wins[np.abs(margin) < np.quantile(np.abs(margin), tied)] = 0.5
    return comparisons_of(pairs, wins, pool)


def rated(
    pairs: Pairs, levels: int, rng: Rng, flawed: float = 0.0, drop: bool = False, pool: Responses = POOL
) -> Comparisons:
    """Pairs of whole ratings from 1 to ``levels``, by lot, ties where equal; a share of pairs turned round."""
    user, first, second = pairs
    rating = rng.integers(1, levels + 1, (int(user.max()) + 1, TEXTS))
    wins = 0.5 + 0.5 * np.sign(rating[user, first] - rating[user, second])
    turned = (wins != 0.5) & (rng.random(len(user)) < flawed)
    return comparisons_of(pairs, np.where(turned, 1 - wins, wins), pool, drop)


def together(*parts: Comparisons) -> Comparisons:
    """Judgements of several crowds over one pool, the users of each apart."""
    users = [f"{i}.{u}" for i, part in enumerate(parts) for u in part.users.ids]
    starts = np.cumsum([0, *(len(part.users) for part in parts)])
    user = np.concatenate([part.user_N + start for part, start in zip(parts, starts, strict=False)])
    ends = [np.concatenate([getattr(part, name) for part in parts]) for name in ("chosen_N", "rejected_N")]
    return Comparisons(parts[0].responses, Users(pl.Series("id", users)), user.astype(np.int32), *ends)


def judges(users: int, many: int, size: int, spread: float, rng: Rng) -> Comparisons:
    """``judged`` on every pair of lists."""
    return judged(lists(users, many, size, rng), spread, rng, pool=LISTS)


def raters(users: int, many: int, size: int, levels: int, rng: Rng, flawed: float = 0.0) -> Comparisons:
    """``rated`` on every pair of lists."""
    return rated(lists(users, many, size, rng), levels, rng, flawed, pool=LISTS)


def lot(rng: Rng, users: int = 12, each: int = 8, texts: int = 30, levels: int = 7) -> Comparisons:
    """Raters who rate some texts by lot, turned into pairs without ties: nothing is to be learned from them."""
    return rated(every(users, each, texts, rng), levels, rng, drop=True)


def borda(pairs: Pairs, rng: Rng) -> Comparisons:
    """Pairs by the sum of places in five noisy rankings of all texts by each user."""
    user, first, second = pairs
    reward = rng.normal(0, 1, (1, int(user.max()) + 1, TEXTS)) + rng.normal(0, 1, (5, int(user.max()) + 1, TEXTS))
    score = reward.argsort(axis=2).argsort(axis=2).sum(axis=0)
    return comparisons_of(pairs, 0.5 + 0.5 * np.sign(score[user, first] - score[user, second]))


def twice(data: Comparisons) -> Comparisons:
    """Every row again."""
    return data.take(np.tile(np.arange(len(data)), 2))


World = Callable[[Rng], Comparisons]

ONE_BY_ONE: dict[str, World] = {
    "strict, 10 users, all pairs of 3 texts, 20 lists": lambda r: judges(10, 20, 3, 5.5, r),
    "strict, 10 users, all pairs of 6 texts, 5 lists": lambda r: judges(10, 5, 6, 5.5, r),
    "strict, 12 users, all pairs of 8 of 30 texts": lambda r: judged(every(12, 8, 30, r), 5.5, r),
    "strict, 40 users, all pairs of 8 of 30 texts": lambda r: judged(every(40, 8, 30, r), 5.5, r),
    "strict, 200 users, 5 pairs of 12 texts": lambda r: judged(sparse(200, 5, 12, r), 5.5, r),
    "strict, 200 users, 5 pairs of 200 texts": lambda r: judged(sparse(200, 5, 200, r), 5.5, r),
    "strict, 50 users, 20 pairs of 12 texts": lambda r: judged(sparse(50, 20, 12, r), 5.5, r),
    "strict, 50 users, 20 pairs of 60 texts": lambda r: judged(sparse(50, 20, 60, r), 5.5, r),
    "strict, 20 users, 60 pairs of 30 texts": lambda r: judged(sparse(20, 60, 30, r), 5.5, r),
    "strict, 10 users, 200 pairs of 30 texts": lambda r: judged(sparse(10, 200, 30, r), 5.5, r),
    "strict, 10 users, 200 pairs of 300 texts": lambda r: judged(sparse(10, 200, 300, r), 5.5, r),
    "strict, 50 users, 20 pairs of 12 texts, rows twice": lambda r: twice(judged(sparse(50, 20, 12, r), 5.5, r)),
    "strict, mostly of one mind, 50 users, 20 pairs of 12": lambda r: judged(sparse(50, 20, 12, r), 2, r, shared=5),
    "consistent (spread 3), 50 users, 20 pairs of 12 texts": lambda r: judged(sparse(50, 20, 12, r), 3, r),
    "consistent (spread 3), 200 users, 5 pairs of 12 texts": lambda r: judged(sparse(200, 5, 12, r), 3, r),
    "consistent (spread 3), a third ties": lambda r: judged(sparse(50, 20, 12, r), 3, r, tied=0.33),
    "inconsistent (spread 1), 50 users, 20 pairs of 12 texts": lambda r: judged(sparse(50, 20, 12, r), 1, r),
    "inconsistent (spread 1), 12 users, all pairs of 8 of 30": lambda r: judged(every(12, 8, 30, r), 1, r),
    "inconsistent (spread 1), half ties": lambda r: judged(sparse(50, 20, 12, r), 1, r, tied=0.5),
    "coin flips, 12 users, all pairs of 8 of 30": lambda r: judged(every(12, 8, 30, r), 1e-9, r),
    "never waver (spread 50), 50 users, 20 pairs of 12 texts": lambda r: judged(sparse(50, 20, 12, r), 50, r),
}
MADE: dict[str, World] = {
    **{
        f"ratings of {n} levels, 12 users, 8 of 30 texts, ties {'out' if drop else 'kept'}": lambda r, n=n, drop=drop: (
            rated(every(12, 8, 30, r), n, r, drop=drop)
        )
        for n in (3, 4, 5, 7, 10)
        for drop in (True, False)
    },
    "ratings of 7 levels, 12 users, 6 of 30 texts": lambda r: lot(r, each=6),
    "ratings of 7 levels, 40 users, 6 of 30 texts": lambda r: lot(r, 40, 6),
    "ratings of 7 levels, 50 users, 20 pairs of 12 texts": lambda r: rated(sparse(50, 20, 12, r), 7, r, drop=True),
    "ratings of 7 levels, 200 users, 5 pairs of 12 texts": lambda r: rated(sparse(200, 5, 12, r), 7, r, drop=True),
    "ratings of 5 levels, lists of 6, 4 of 1,000 triads go round": lambda r: raters(60, 10, 6, 5, r, 0.004),
    "ratings of 5 levels, lists of 6, rows twice": lambda r: twice(raters(20, 10, 6, 5, r)),
    "rankings of 8 of 30 texts, 12 users": lambda r: rated(every(12, 8, 30, r), 10**6, r),
    "rankings of 3 texts, 20 lists, 10 users": lambda r: raters(10, 20, 3, 10**6, r),
    "votes on 12 of 60 texts, 40 users": lambda r: rated(every(40, 12, 60, r), 2, r, drop=True),
    "Borda, 8 of 30 texts, 12 users": lambda r: borda(every(12, 8, 30, r), r),
    "best of 3, 10 slates, 12 users": lambda r: comparisons_of(slates(12, 10, 3, r), np.ones(12 * 10 * 2), LISTS),
    "best of 6, 5 slates, 12 users": lambda r: comparisons_of(slates(12, 5, 6, r), np.ones(12 * 5 * 5), LISTS),
}
MIXED: dict[str, World] = {
    "half raters, half inconsistent, 40 users, 12 of 30 texts": lambda r: together(
        rated(every(20, 12, 30, r), 7, r, drop=True), judged(every(20, 12, 30, r), 1, r)
    ),
    "a fifth raters, others inconsistent, 40 users, 12 of 30 texts": lambda r: together(
        rated(every(8, 12, 30, r), 7, r, drop=True), judged(every(32, 12, 30, r), 1, r)
    ),
    "half raters, half consistent (spread 3), 40 users, 12 of 30 texts": lambda r: together(
        rated(every(20, 12, 30, r), 7, r, drop=True), judged(every(20, 12, 30, r), 3, r)
    ),
    "half raters, half inconsistent, 40 users, 6 of 30 texts": lambda r: together(
        lot(r, 20, 6), judged(every(20, 6, 30, r), 1, r)
    ),
    "a twentieth raters, others inconsistent, 40 users, 12 of 30 texts": lambda r: together(
        rated(every(2, 12, 30, r), 7, r, drop=True), judged(every(38, 12, 30, r), 1, r)
    ),
}
