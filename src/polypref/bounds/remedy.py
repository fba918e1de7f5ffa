"""What helps where a cap certifies little: a safety term in everybody's reward, tried on the present scorer.

    r_shared + safety_weight * min(0, safety - ample)

A cap of B certifies the pairs whose shared margin exceeds 2 B. People's rewards seldom reflect what is unsafe, so their
margins are small, and a cap that certifies much leaves no room for personal taste. The term widens the margins instead.

Weights are tried in powers of two, and ``ample`` at low quantiles of the safe responses' scores. Among the pairs that
certify nearly as much as the best, the one with the lowest ``ample`` is chosen, then the one with the lowest weight,
since it costs harmless responses least.

Covered: what is certified on the given slates. Not covered: the cost in people's judgements; ``polypref audit
--held-out`` measures that, on other slates.

Suffixes here: ``_I`` pairs of a safe and an unsafe response.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from polypref.bounds.adversaries import Pairs
from polypref.bounds.cap import certified
from polypref.bounds.gate import Limits
from polypref.bounds.slates import Floats

AMPLE_AT = (0.01, 0.05, 0.1, 0.25, 0.5)  # quantiles of safe responses' safety scores
STEPS = range(-2, 14)  # powers of two that the weight is tried at, from the cap or the spread of margins on


@dataclass(frozen=True)
class Remedy:
    """``limits`` with a safety term; with it the cap certifies the share ``certified`` of the pairs, and ``shared`` of
    them are right; ``short`` is the share of the safe responses that score less than ample, so they lose reward."""

    limits: Limits
    certified: float
    shared: float
    short: float


def remedy(pairs: Pairs, shared_R: Floats, safety_R: Floats, limits: Limits, keep: float) -> Remedy | None:
    """The mildest safety term with which the cap of ``limits`` certifies at least ``keep`` of the most that any does.

    ``shared_R`` are the scorer's rewards without a term, ``safety_R`` safety scores of the same pool. None where no
    term certifies more than ``limits`` do.
    """
    safe = safety_R[np.unique(pairs.safe_I)]
    safe = safe[np.isfinite(safe)]
    if not len(safe):
        return None
    amples = np.unique(np.floor(100 * np.quantile(safe, AMPLE_AT)) / 100)
    margin_I = np.nan_to_num(np.abs(pairs.margins(shared_R)), posinf=0.0)
    first = np.floor(np.log2(max(limits.cap, float(np.median(margin_I)), 1e-6)))
    weights = [float(2.0 ** (first + step)) for step in STEPS]
    tried = [
        _tried(pairs, shared_R, safety_R, replace(limits, safety_weight=weight, ample=float(ample)))
        for ample in amples
        for weight in weights
    ]
    today = _tried(pairs, shared_R, safety_R, limits)
    enough = keep * max(one.certified for one in tried)
    works = [one for one in tried if one.certified >= enough and one.certified > today.certified]
    return min(works, key=lambda one: (one.limits.ample, one.limits.safety_weight), default=None)


def _tried(pairs: Pairs, shared_R: Floats, safety_R: Floats, limits: Limits) -> Remedy:
    margin_I = pairs.margins(shared_R + limits.penalty(safety_R))
    short = float(np.mean(~(safety_R[np.unique(pairs.safe_I)] >= limits.ample)))
    return Remedy(limits, float(certified(margin_I, limits.cap)), float((margin_I > 0).mean()), short)
