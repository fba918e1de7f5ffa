"""Whose judgements a person's profile is written from: their own, or a placebo.

``own``        their own.
``other``      those of another person, always the same one, and never their own: what any profile of a person gains.
``everybody``  those of everybody together, as many as one person may have at most.
``none``       nobody's: the judge reads no profile.

Each owner has at most ``most`` judgements, drawn by lot; ties are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, KeyArray, Users
from polypref.errors import NotEnoughData
from polypref.learners.canonical_order import Numbering, judged_keys

ProfileOf = Literal["own", "other", "everybody", "none"]
EVERYBODY = Users(pl.Series("id", ["everybody"], dtype=pl.String))


@dataclass(frozen=True, eq=False)
class Owned:
    """Decided judgements under their owners, ordered by content, and what is independent of the rest, ``unit_N``.

    ``key_U`` seeds each owner's draws: a key of the pairs that they judged, so nobody's profile hangs on who else is
    there.
    """

    rows: Comparisons
    unit_N: NDArray[np.uint64]
    key_U: KeyArray


def owned(rows: Comparisons, profile_of: ProfileOf, most: int, seed: int) -> Owned:
    """The judgements that profiles are written from. Raises NotEnoughData for ``other`` with a single person."""
    rows = rows.take(np.flatnonzero((rows.label_N != 0.5) & (profile_of != "none")))
    if not len(rows):
        nobody = Users(pl.Series("id", [], dtype=pl.String))
        return Owned(replace(rows, users=nobody), np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    numbers = Numbering.of(rows)
    person_N, chosen_N, _ = numbers.judges(rows)
    people = len(numbers.users_U)
    if profile_of == "other" and people < 2:
        raise NotEnoughData("persona: profile_of = other needs two people, and only one has judgements.")
    everybody = profile_of == "everybody"
    owner_N = np.zeros_like(person_N) if everybody else person_N
    order_N = np.lexsort((person_N, chosen_N, rows.pair_key_N, owner_N))
    unit_N = person_N.astype(np.uint64) if everybody else rows.pair_key_N
    reads_U = np.roll(numbers.users_U, -1) if profile_of == "other" else numbers.users_U
    users = EVERYBODY if everybody else Users(rows.users.ids.gather(reads_U))
    whole = replace(rows, users=users, user_N=owner_N.astype(np.int32)).take(order_N)
    key_U = judged_keys(whole, whole.user_N, len(users))
    start_U = np.searchsorted(whole.user_N, np.arange(len(users) + 1))
    kept = [
        start + np.sort(np.random.default_rng([seed, int(key)]).permutation(end - start)[:most])
        for start, end, key in zip(start_U[:-1], start_U[1:], key_U, strict=True)
    ]
    kept_N = np.concatenate(kept)
    return Owned(whole.take(kept_N), unit_N[order_N][kept_N], key_U)
