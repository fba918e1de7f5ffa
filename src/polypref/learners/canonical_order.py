"""Numbers users and texts by content, so that neither the order of a file nor a name changes a fit.

Learners that draw a random start for every user or text draw it in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, KeyArray


@dataclass(frozen=True, eq=False)
class Numbering:
    """The users and responses that occur in some rows, as indices into the data: ``users_U``, ``responses_R``.

    Responses are ordered by content key, users by the pairs they judged (not the labels, so swapped labels give the
    same numbers). Users who judged exactly the same pairs keep the data's order.
    """

    users_U: IntArray
    responses_R: IntArray
    place_users: IntArray  # by index into the data; -1: does not occur
    place_responses: IntArray

    @classmethod
    def of(cls, rows: Comparisons) -> Self:
        """Number what occurs in ``rows``."""
        users_U, user_N = np.unique(rows.user_N, return_inverse=True)
        users_U = users_U[np.argsort(judged_keys(rows, user_N, len(users_U)), kind="stable")]
        responses_R = np.unique(np.concatenate([rows.chosen_N, rows.rejected_N]))
        responses_R = responses_R[np.argsort(rows.responses.keys_R[responses_R], kind="stable")]
        return cls(users_U, responses_R, _places(users_U, len(rows.users)), _places(responses_R, len(rows.responses)))

    def judges(self, rows: Comparisons) -> tuple[IntArray, IntArray, IntArray]:
        """User, chosen and rejected of each of ``rows`` in these numbers; -1 if it has none."""
        places = self.place_responses
        return self.place_users[rows.user_N], places[rows.chosen_N], places[rows.rejected_N]


def judged_keys(rows: Comparisons, user_N: NDArray[np.integer], users: int) -> KeyArray:
    """A key (U,) of the set of pairs that each user judged; order, labels and repeats do not matter."""
    order_N = np.lexsort((rows.pair_key_N, user_N))
    user_N, key_N = user_N[order_N], rows.pair_key_N[order_N]
    first_N = np.append(True, (np.diff(user_N) != 0) | (key_N[1:] != key_N[:-1]))
    with np.errstate(over="ignore"):
        mixed_N = (key_N ^ (key_N >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9) * first_N
        return np.add.reduceat(mixed_N, np.searchsorted(user_N, np.arange(users)))


def _places(numbers: NDArray[np.integer], size: int) -> IntArray:
    place = np.full(size, -1, np.int32)
    place[numbers] = np.arange(len(numbers))
    return place
