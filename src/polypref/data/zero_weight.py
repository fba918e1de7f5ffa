"""Which judgements a figure rests on, and the numbers of their users and texts: what every measurement begins with.

Suffixes here: ``_K`` codes that occur or all codes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from polypref.comparisons import Comparisons, IntArray


def counted(comparisons: Comparisons) -> Comparisons:
    """The judgements of positive weight, over the users and responses that occur in them.

    Users are ordered by id: draws depend on a user's number, which must not depend on the order of rows, users and
    files or on judgements of weight 0.
    """
    kept = compact(comparisons.weighing())
    order = kept.users.ids.arg_sort().to_numpy().astype(np.int32)
    return kept if (order == np.arange(len(order))).all() else _renumbered(kept, order)


def compact(comparisons: Comparisons) -> Comparisons:
    """The same judgements over only those users and responses that occur in them, in the order in which they do."""
    sides_2N = np.concatenate([comparisons.chosen_N, comparisons.rejected_N])
    used_K = _first_seen(sides_2N, len(comparisons.responses))
    new_R = _places(used_K, len(comparisons.responses))
    kept = replace(
        comparisons,
        responses=comparisons.responses.take(used_K),
        chosen_N=new_R[comparisons.chosen_N],
        rejected_N=new_R[comparisons.rejected_N],
    )
    return _renumbered(kept, _first_seen(comparisons.user_N, len(comparisons.users)))


def _renumbered(comparisons: Comparisons, user_K: IntArray) -> Comparisons:
    """Only the users ``user_K``, in that order."""
    users = comparisons.users
    about = None if users.attributes is None else users.attributes[user_K]
    new_U = _places(user_K, len(users))
    return replace(
        comparisons,
        users=replace(users, ids=users.ids.gather(user_K), attributes=about),
        user_N=new_U[comparisons.user_N],
    )


def _first_seen(code_N: IntArray, many: int) -> IntArray:
    """The codes that occur, of ``many``, in order of first occurrence."""
    first_K = np.full(many, len(code_N), np.int64)
    first_K[code_N[::-1]] = np.arange(len(code_N))[::-1]  # the last value written stays, which is the first row
    order = np.argsort(first_K, kind="stable")
    return order[: np.count_nonzero(first_K < len(code_N))].astype(np.int32)


def _places(code_K: IntArray, many: int) -> IntArray:
    """The place of each of ``many`` codes in ``code_K``; -1 if absent."""
    place_K = np.full(many, -1, np.int32)
    place_K[code_K] = np.arange(len(code_K), dtype=np.int32)
    return place_K
