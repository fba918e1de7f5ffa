"""Holds out users as new people: a few of their comparisons to learn from, and the rest to measure on.

Users are ordered by a hash of their ids. Seed 0 holds out the first of them, seed 1 the next, and so on cyclically, so
that after a few seeds everybody has been new equally often. Rows are split as in ``compare``: the new users' test rows
are measured, their other rows may be learned from (smaller numbers are subsets of larger ones), and the seen users'
other rows are the training set. No unit of a test row (pair, prompt or text, by the split's rule) is in any learning
row.

Suffixes here: ``_K`` units that stay together, ``_V`` new users.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray
from polypref.data.split import EmptySide, Rows, Rule, Split, check_leaks, split
from polypref.errors import NotEnoughData, SettingsError
from polypref.wording import counted

FEWEST_NEW = 3
FEWEST_SEEN = 2


@dataclass(frozen=True, eq=False)
class Newcomers:
    """One seed's split, with V new users.

    ``train_rows``, ``valid_rows``  of the seen users; ``test_rows`` of the new ones, ascending.
    ``users_V``    numbers of the new users that have test rows.
    ``few_rows``   of these users, user by user, in the order in which they are given.
    ``first_V1``   the start of each user's rows in ``few_rows``, and the end.
    ``held_out``   how many users were held out, including those without test rows.
    """

    train_rows: Rows
    valid_rows: Rows
    test_rows: Rows
    users_V: IntArray
    few_rows: Rows
    first_V1: NDArray[np.int64]
    held_out: int

    @property
    def count_V(self) -> NDArray[np.int64]:
        """The number of comparisons available for learning each new user."""
        return np.diff(self.first_V1)

    def few(self, v: int, size: int | None) -> Rows:
        """The first ``size`` rows (None: all) for learning new user number ``v``."""
        rows = self.few_rows[self.first_V1[v] : self.first_V1[v + 1]]
        return rows if size is None else rows[:size]


def hold_out(comparisons: Comparisons, rule: Rule, seed: int, share: float) -> Newcomers:
    """Hold out ``share`` of the users, at least FEWEST_NEW of them.

    Raises SettingsError for a share outside (0, 1), NotEnoughData if too few users remain or none can be measured.
    """
    new_U = _new_users(comparisons, seed, share)
    parts = split(comparisons, rule, seed)
    new_N = new_U[comparisons.user_N]
    test_rows = parts.test_rows[new_N[parts.test_rows]]
    users_V = np.unique(comparisons.user_N[test_rows])
    if not len(users_V):
        raise EmptySide(
            f"none of {int(new_U.sum())} new users has a test row (seed {seed}, split by {rule}); add data.",
            "no new person would be tested",
        )
    known = np.concatenate([parts.train_rows, parts.valid_rows])
    few_rows = known[np.isin(comparisons.user_N[known], users_V)]
    drawn = _drawn(comparisons.pair_key_N[few_rows], seed)
    few_rows = few_rows[np.lexsort((few_rows, drawn, comparisons.user_N[few_rows]))]
    if not len(few_rows):
        raise EmptySide(
            f"none of {len(users_V)} new users with test rows has others to learn from (seed {seed}, split by {rule}); "
            "add data.",
            "no new person who is tested would have judgements to learn from",
        )
    count_V = np.bincount(comparisons.user_N[few_rows], minlength=len(comparisons.users))[users_V]
    cut = Newcomers(
        parts.train_rows[~new_N[parts.train_rows]],
        parts.valid_rows[~new_N[parts.valid_rows]],
        test_rows,
        users_V.astype(np.int32),
        few_rows,
        np.concatenate([[0], np.cumsum(count_V)]),
        int(new_U.sum()),
    )
    check(comparisons, cut, rule)
    return cut


def check(comparisons: Comparisons, cut: Newcomers, rule: Rule) -> None:
    """Raise SettingsError if a new user is among the seen ones, or a unit of a test row is in the learning rows."""
    seen = np.concatenate([cut.train_rows, cut.valid_rows])
    both = np.intersect1d(comparisons.user_N[seen], cut.users_V)
    if len(both):
        name = comparisons.users.ids[int(both[0])]
        raise SettingsError(f"leak: {len(both)} new users are in the training rows, for example {name!r}.")
    learned = np.sort(np.concatenate([seen, cut.few_rows]))
    check_leaks(comparisons, Split(rule, learned, np.zeros(0, np.int64), cut.test_rows, 0))


def _new_users(comparisons: Comparisons, seed: int, share: float) -> NDArray[np.bool_]:
    """Which users (mask over U) are new under ``seed``; users without judgements are neither new nor seen."""
    if not 0 < share < 1:
        raise SettingsError(f"a share of {share} of the users cannot be held out; expected a number between 0 and 1.")
    users = np.unique(comparisons.user_N)
    count = max(FEWEST_NEW, round(share * len(users)))
    if len(users) - count < FEWEST_SEEN:
        raise NotEnoughData(
            f"{counted(len(users), 'users')} cannot be divided into {count} new and at least {FEWEST_SEEN} seen ones; "
            "add users or hold out a smaller share."
        )
    ids = comparisons.users.ids.gather(users)
    key = np.frombuffer(b"".join(blake2b(i.encode(), digest_size=8).digest() for i in ids), dtype="<u8")
    circle = users[np.argsort(key, kind="stable")]
    new_U = np.zeros(len(comparisons.users), bool)
    new_U[circle[(seed * count + np.arange(count)) % len(circle)]] = True
    return new_U


def _drawn(key_K: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A seeded number for each content key: sorting by it is a random draw (splitmix64's finaliser)."""
    with np.errstate(over="ignore"):
        value_K = key_K + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        value_K = (value_K ^ (value_K >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        return value_K ^ (value_K >> np.uint64(31))
