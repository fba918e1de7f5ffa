"""Exact intervals of shares: Clopper and Pearson, Biometrika 1934. Their coverage is never less than stated."""

from __future__ import annotations

import numpy as np

from polypref.stats.estimate import Floats


def interval(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of the share ``count`` of ``n`` trials, 1 or more."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = betaincinv(count, n - count + 1, tail) if count else 0.0
    high = betaincinv(count + 1, n - count, 1 - tail) if count < n else 1.0
    return float(low), float(high)


def upper_bound(share_X: Floats, n_X: Floats, confidence: float = 0.95) -> Floats:
    """One-sided upper bound of each share ``share_X`` in ``n_X`` trials, whole or fractional; NaN without trials."""
    from scipy.special import betaincinv  # scipy.stats takes half a second to load

    bound_X = np.full(len(share_X), np.nan)
    seen_X = n_X > 0
    hits, n = share_X[seen_X] * n_X[seen_X], n_X[seen_X]
    bound_X[seen_X] = np.where(hits >= n - 1e-9, 1.0, betaincinv(hits + 1, np.maximum(n - hits, 1e-9), confidence))
    return bound_X
