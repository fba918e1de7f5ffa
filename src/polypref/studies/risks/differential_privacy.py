"""User-level differential privacy for a shared mean: clipped vectors, one per user, averaged, plus Gaussian noise.

Source: the analytic Gaussian mechanism (Balle and Wang 2018, "Improving the Gaussian Mechanism for Differential
Privacy", theorem 8): noise of standard deviation sigma on a number of sensitivity D gives (epsilon, delta) if and only
if, with a = D / (2 sigma) and b = epsilon sigma / D,

    Phi(a - b) - exp(epsilon) Phi(-a - b) <= delta

Two data sets are neighbours when one user's vector is *replaced*; the number of users is public. A mean of n vectors of
norm at most C then moves by at most 2 C / n (by C / n if a user is removed, that is set to zero).

Covered: all of one user's data at once, for one release of one mean. Not covered: a second release (budgets add up);
vectors that depend on more than that user's data and public information, such as a projection or a hyper-parameter
chosen on others' data; a user's own vector, which is not a mean; attacks on floating-point noise (Mironov 2012).

Suffixes here: ``_K`` numbers of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from polypref.errors import NotEnoughData, SettingsError

Floats = NDArray[np.float64]
BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class PrivateMean:
    """The released ``mean_K``; ``sigma`` is the noise's standard deviation in each number."""

    mean_K: Floats
    sigma: float


def delta_of(epsilon: float, sensitivity: float, sigma: float) -> float:
    """The smallest delta for which noise ``sigma`` keeps ``epsilon``: the left side of the formula above."""
    a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
    return float(ndtr(a - b) - np.exp(epsilon + log_ndtr(-a - b)))


def noise(epsilon: float, delta: float, sensitivity: float) -> float:
    """The smallest sigma that is (epsilon, delta)-private. Raises SettingsError for impossible values."""
    if not (0 < epsilon < np.inf and 0 < delta < 1 and 0 < sensitivity < np.inf):
        raise SettingsError(
            f"epsilon {epsilon}, delta {delta}, sensitivity {sensitivity}; expected epsilon and sensitivity above 0, "
            "delta between 0 and 1, as in epsilon=1, delta=1e-5."
        )
    low, high = 0.0, 1.0  # in units of the sensitivity; delta falls as the noise grows
    while delta_of(epsilon, 1.0, high) > delta:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(epsilon, 1.0, middle) <= delta else (middle, high)
    return sensitivity * high


def clipped_mean(value_UK: Floats, clip: float) -> tuple[Floats, float]:
    """The mean of vectors clipped to norm ``clip``, and the share that was clipped. Not private by itself.

    Raises NotEnoughData without users, SettingsError for a norm that is not above 0 or non-finite values.
    """
    if not len(value_UK):
        raise NotEnoughData("no user vectors to average; give at least one.")
    if not (0 < clip < np.inf and np.isfinite(value_UK).all()):
        raise SettingsError(f"clip {clip}; expected a norm above 0 and vectors of finite numbers.")
    norm_U = np.linalg.norm(value_UK, axis=1)
    short_U = np.minimum(1.0, clip / np.maximum(norm_U, 1e-300))
    return (short_U[:, None] * value_UK).mean(axis=0), float((norm_U > clip).mean())


def dp_mean(value_UK: Floats, clip: float, epsilon: float, delta: float, rng: np.random.Generator) -> PrivateMean:
    """The mean of the users' vectors, private at the level of a whole user; the module's docstring says what that
    covers.

    Raises SettingsError and NotEnoughData as ``noise`` and ``clipped_mean`` do.
    """
    mean_K, _ = clipped_mean(value_UK, clip)
    sigma = noise(epsilon, delta, 2 * clip / len(value_UK))
    return PrivateMean(mean_K + sigma * rng.standard_normal(len(mean_K)), sigma)
