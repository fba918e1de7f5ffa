"""An order-free hash of judgements; the hashes of parts add up to that of all.

Unaffected by: the order of rows, a split into parts, weights, times, pair ids, the sides of a tie. Not covered:
deliberate search for other judgements with the same hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons

LANES = (1, 2)  # of 64 bits each


def judged_hash(comparisons: Comparisons) -> str:
    """Hash of users, judged texts and labels (32 hex digits)."""
    c = comparisons
    digests = b"".join(blake2b(i.encode(), digest_size=8).digest() for i in c.users.ids)
    user_N = np.frombuffer(digests, dtype="<u8")[c.user_N]
    key_R = c.responses.keys_R
    first_N, second_N = key_R[c.chosen_N], key_R[c.rejected_N]
    tie_N = np.zeros(len(c), bool) if c.tie_N is None else c.tie_N
    turned_N = tie_N & (first_N > second_N)
    first_N, second_N = np.where(turned_N, second_N, first_N), np.where(turned_N, first_N, second_N)
    sums = []
    for lane in LANES:
        mixed_N = np.full(len(c), lane, np.uint64)
        for column_N in (user_N, first_N, second_N, tie_N.astype(np.uint64)):
            mixed_N = _mixed(mixed_N ^ column_N)
        sums.append(int(mixed_N.sum(dtype=np.uint64)))
    return "".join(f"{one:016x}" for one in sums)


def added(hashes: Iterable[str]) -> str:
    """The hash of all judgements of the parts together."""
    lanes = zip(*([int(one[:16], 16), int(one[16:], 16)] for one in hashes), strict=True)
    return "".join(f"{sum(lane) % 2**64:016x}" for lane in lanes)


def _mixed(value_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scrambles each number (splitmix64)."""
    with np.errstate(over="ignore"):
        value_N = value_N + np.uint64(0x9E3779B97F4A7C15)
        value_N = (value_N ^ (value_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value_N = (value_N ^ (value_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value_N ^ (value_N >> np.uint64(31))
