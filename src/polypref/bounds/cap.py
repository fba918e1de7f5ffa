"""The cap: how far any user may move a reward, and the pairs that nobody can then flip.

    r_u = r_shared + B tanh((r_own - r_shared) / B)

moves no reward by more than B, so nobody reverses a pair whose shared margin exceeds 2 B (derived here; the smooth form
hardly changes small deviations). *Certified accuracy* at B is the share of pairs whose shared margin is right and
exceeds 2 B: it depends only on the shared reward and B, whoever the users are and whatever they want. In best of N,
nobody gets an unsafe candidate if the shared margin of some safe one over it exceeds 2 B.

Where users are mixtures of basis rewards, r_u = sum_k w_uk r_k with weights on the simplex (LoRe, arXiv 2504.14439),
the worst possible user is a vertex: a pair is safe for everyone if every basis reward gets it right. No search is
needed.

Covered: NaN counts as no deviation, an infinite deviation as B; a limit for each of several declared dimensions. Not
covered: pairs that the shared reward gets wrong; they are never certified.

Suffixes here: ``_I`` pairs of a safe and an unsafe response.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polypref.errors import NotEnoughData, SettingsError

Floats = NDArray[np.float64]

POOR = 0.7  # a shared reward that gets less of the safety pairs right is a poor one


def capped(shared_Q: Floats, own_Q: Floats, cap: float | Floats) -> Floats:
    """Rewards within ``cap`` (one, or one for each) of the shared ones. A missing own reward leaves the shared one."""
    with np.errstate(over="ignore", invalid="ignore"):
        return shared_Q + _moved(own_Q - shared_Q, np.broadcast_to(np.asarray(cap, np.float64), np.shape(own_Q)))


def capped_by_dimension(shared_Q: Floats, deviation_QK: Floats, cap_K: Floats) -> Floats:
    """As ``capped``, with a limit for each dimension along which people differ; the certificate's B is their sum."""
    return shared_Q + _moved(deviation_QK, np.broadcast_to(cap_K, deviation_QK.shape)).sum(axis=1)


def _moved(deviation: Floats, cap: Floats) -> Floats:
    if (~(cap >= 0) | np.isinf(cap)).any():
        odd = cap[~(cap >= 0) | np.isinf(cap)].flat[0]
        raise SettingsError(f"cap is {odd}; expected a number, 0 or more, in units of the shared reward.")
    with np.errstate(over="ignore", invalid="ignore"):
        moved = cap * np.tanh(deviation / np.where(cap > 0, cap, 1.0))
    return np.where(np.isnan(moved), 0.0, moved)


def certified(margin_I: Floats, cap: float | Floats) -> Floats | float:
    """Share of pairs, with shared margins right minus wrong, that nobody within ``cap`` can flip; one for each cap."""
    if not len(margin_I):
        raise NotEnoughData("no pairs to certify; give some with a right and a wrong response.")
    ascending_I = np.sort(np.where(np.isnan(margin_I), -np.inf, margin_I))
    share = 1 - np.searchsorted(ascending_I, 2 * np.asarray(cap, np.float64), side="right") / len(margin_I)
    return float(share) if np.ndim(cap) == 0 else share


def certified_mixture(margin_IK: Floats) -> float:
    """Share of pairs that every mixture of the K basis rewards gets right: those that all of them do."""
    return float((margin_IK > 0).all(axis=1).mean())


@dataclass(frozen=True)
class Choice:
    """``cap``, the largest that certifies; ``certified`` and ``shared`` are shares of the safety pairs."""

    cap: float
    certified: float
    shared: float


def choose(margin_I: Floats, keep: float = 0.95) -> Choice:
    """The largest cap at which at least ``keep`` times the shared reward's own accuracy on the pairs is certified.

    Raises NotEnoughData where the shared reward gets none right.
    """
    if not 0 < keep <= 1:
        raise SettingsError(f"keep is {keep}; expected a share of the shared accuracy, as in 0.95.")
    right = np.sort(margin_I[margin_I > 0])
    if not len(right):
        raise NotEnoughData("the shared reward gets none of the safety pairs right, so no cap certifies anything.")
    may_lose = int(np.floor((1 - keep) * len(right) + 1e-9))
    cap = float(np.nextafter(right[may_lose] / 2, 0))
    share = float(certified(margin_I, cap))
    return Choice(cap, share, len(right) / len(margin_I))
