"""What a scorer keeps of the judgements of its fit, so that ``adapt`` adds to them instead of starting anew.

Every method keeps its own numbers of a judgement, those that a person's parameters are learned from: differences of
basis rewards, for instance. They are kept user by user, the texts are not. Judgements that are learned after the fit
follow those of the fit.

Suffixes here: ``_M`` judgements of everybody, ``_X`` numbers of a judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, FloatArray, Users
from polypref.schema import Array, Arrays, floats

PORTION = 1 << 18  # judgements that are read at once


@dataclass(frozen=True, eq=False)
class Rows:
    """N judgements of one person: the method's numbers ``value_NX`` of each, labels and weights."""

    value_NX: NDArray[np.float64]
    label_N: FloatArray
    weight_N: FloatArray

    def __len__(self) -> int:
        return len(self.label_N)

    @classmethod
    def of(cls, value_NX: NDArray[np.floating], rows: Comparisons) -> Self:
        """Judgements with their numbers, rounded as they are kept."""
        value_NX = value_NX.astype(np.float32).astype(np.float64)
        return cls(value_NX, rows.label_N.astype(np.float64), rows.weights_N.astype(np.float64))

    def after(self, earlier: Self | None) -> Self:
        """The earlier judgements followed by these."""
        if earlier is None:
            return self
        both = [(getattr(earlier, name), getattr(self, name)) for name in ("value_NX", "label_N", "weight_N")]
        return replace(self, **dict(zip(("value_NX", "label_N", "weight_N"), map(np.concatenate, both), strict=True)))


@dataclass(frozen=True, eq=False)
class History:
    """Judgements of ``users``: user u has ``start_U[u]`` to ``start_U[u + 1]``.

    ``newer``, by id, is all that is kept of people of whom more was learned after the fit.
    """

    users: Users
    start_U: NDArray[np.int64]
    value_MX: NDArray[np.float32]
    label_M: FloatArray
    weight_M: FloatArray
    newer: Mapping[str, Rows] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> Self:
        """Nobody's."""
        none = np.zeros(0)
        nobody = Users(pl.Series("id", [], dtype=pl.String))
        return cls(nobody, np.zeros(1, np.int64), np.zeros((0, 0), np.float32), none, none)

    @classmethod
    def of(cls, rows: Comparisons, users: Users, read: Callable[[Comparisons], NDArray[np.floating]]) -> Self:
        """The judgements of ``users`` in ``rows``, of which ``read`` gives the method's numbers (N, X)."""
        place_N = users.index(rows.users.ids)[rows.user_N]
        order_N = np.lexsort((rows.chosen_N, rows.pair_key_N, place_N))
        order_N = order_N[place_N[order_N] >= 0]
        portions = np.array_split(order_N, max(1, -(-len(order_N) // PORTION)))
        value_MX = np.concatenate([read(rows.take(some)).astype(np.float32) for some in portions])
        start_U = np.searchsorted(place_N[order_N], np.arange(len(users) + 1)).astype(np.int64)
        label_M, weight_M = rows.label_N[order_N].astype(np.float64), rows.weights_N[order_N].astype(np.float64)
        return cls(users, start_U, value_MX, label_M, weight_M)

    def of_user(self, user_id: str) -> Rows | None:
        """What is kept of one person; None for strangers."""
        if (newer := self.newer.get(user_id)) is not None:
            return newer
        place = int(self.users.index([user_id])[0])
        if place < 0:
            return None
        own = slice(self.start_U[place], self.start_U[place + 1])
        return Rows(self.value_MX[own].astype(np.float64), self.label_M[own], self.weight_M[own])

    def with_newer(self, user_id: str, rows: Rows) -> Self:
        """The same with ``rows`` as all that is kept of one person; nothing else is copied."""
        return replace(self, newer={**self.newer, user_id: rows})

    def without(self, user_id: str) -> Self:
        """The same with nothing of one person."""
        known = dict.fromkeys([*self.users.ids, *self.newer])
        known.pop(user_id, None)
        return self.settled(Users(pl.Series("id", list(known), dtype=pl.String)))

    def settled(self, users: Users) -> Self:
        """The history of exactly ``users``, all in the tables, in their order."""
        if users is self.users and not self.newer:
            return self
        place_U = self.users.index(users.ids)
        newer = {at: self.newer[one] for at, one in enumerate(users.ids) if one in self.newer}
        place_U[list(newer)] = -1
        length_U = np.where(place_U >= 0, np.append(np.diff(self.start_U), 0)[place_U], 0)
        length_U[list(newer)] = [len(rows) for rows in newer.values()]
        start_U = np.append(0, np.cumsum(length_U)).astype(np.int64)
        old_U = np.flatnonzero(place_U >= 0)
        to_M, from_M = (_spans(start, length_U[old_U]) for start in (start_U[old_U], self.start_U[place_U[old_U]]))
        found = []
        for name, one in (("value_MX", "value_NX"), ("label_M", "label_N"), ("weight_M", "weight_N")):
            kept = getattr(self, name)
            moved = np.empty((start_U[-1], *kept.shape[1:]), kept.dtype)
            moved[to_M] = kept[from_M]
            for at, rows in newer.items():
                moved[start_U[at] : start_U[at + 1]] = getattr(rows, one)
            found.append(moved)
        value_MX, label_M, weight_M = found
        return type(self)(users, start_U, value_MX, label_M, weight_M)

    # --- saved

    @staticmethod
    def layout(width: str) -> Arrays:
        """The arrays of a saved history, with ``width`` numbers of each judgement."""
        return {
            "history.start_U": Array(("U+1",), "int64", span="J"),
            "history.value_MX": floats("J", width, dtype="float32"),
            "history.label_M": floats("J"),
            "history.weight_M": floats("J"),
        }

    def arrays(self, users: Users) -> dict[str, NDArray]:
        """Everything as arrays for ``state``, in the order of ``users``."""
        flat = self.settled(users)
        return {f"history.{name}": getattr(flat, name) for name in ("start_U", "value_MX", "label_M", "weight_M")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray], users: Users) -> Self:
        """The inverse of ``arrays``."""
        start_U, value_MX, label_M, weight_M = (
            arrays[f"history.{name}"] for name in ("start_U", "value_MX", "label_M", "weight_M")
        )
        return cls(users, start_U, value_MX, label_M, weight_M)


def _spans(start_X: NDArray[np.int64], length_X: NDArray[np.integer]) -> NDArray[np.int64]:
    """All places from each start on, as many as its length."""
    ends = np.cumsum(length_X)
    return (np.arange(ends[-1] if len(ends) else 0) + np.repeat(start_X - (ends - length_X), length_X)).astype(np.int64)
