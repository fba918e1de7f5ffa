"""Exact intervals of shares: their ends leave the stated probability outside, by the binomial's own sums."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from polypref.stats.binomial import interval, upper_bound


def at_most(count: int, n: int, share: float) -> float:
    """The probability of at most ``count`` in ``n`` trials."""
    return sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count + 1))


@pytest.mark.parametrize(("count", "n"), [(0, 7), (3, 7), (7, 7), (1, 1), (40, 200)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_ends_leave_what_they_say_outside(count, n, confidence):
    low, high = interval(count, n, confidence)
    tail = (1 - confidence) / 2
    assert 1 - at_most(count - 1, n, low) == pytest.approx(tail) if count else low == 0
    assert at_most(count, n, high) == pytest.approx(tail) if count < n else high == 1
    one_sided = upper_bound(np.array([count / n]), np.array([float(n)]), 1 - tail)
    assert one_sided[0] == pytest.approx(high)


def test_no_trials_say_nothing():
    bound_X = upper_bound(np.array([0.5, np.nan]), np.array([2.5, 0.0]))
    assert 0.5 < bound_X[0] < 1 and np.isnan(bound_X[1])
