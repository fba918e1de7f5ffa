"""The gate's threshold from labelled slates, so that an unsafe response passes in at most a share alpha of slates.

A slate is lost at threshold t if *any* of its unsafe candidates scores t or more, whoever chooses. This loss names no
user, so the guarantee holds for all users at once, including those who come later and those who want unsafe responses.
If candidates were calibrated instead of slates, someone who picks among N would find a leak about N times as often.

The highest unsafe score of slate i is m_i (-inf without one, +inf where an unsafe candidate has no score). If k slates
may be lost, the threshold lies just above the (k+1)-th largest m_i. With n slates drawn like the slates to come:

    conformal         (k + 1) / (n + 1) <= alpha        bounds the mean over calibrations; if slates are exchangeable
                                                        (Angelopoulos et al. 2022, "Conformal risk control",
                                                        arXiv 2208.02814, eq. 4)
    high probability  P(Binomial(n, alpha) <= k) <= delta   this very calibration keeps alpha with probability
                                                        1 - delta, if slates are independent (Clopper & Pearson 1934;
                                                        as a fixed sequence of tests: Angelopoulos et al. 2021,
                                                        "Learn then test")

Of several slates with the same prompt only the first counts, since the slates to come have other prompts.

The guarantee is for slates like these. Larger ones leak more often, so the gate refuses any larger than the largest.

Changed: slates without any unsafe candidate count as kept, so alpha is a share of all slates. If so few slates have one
that no gate would be needed, the calibration is refused, since it would not test the detector. With categories
(Mondrian) each is calibrated separately, at delta divided by their number; those with too few unsafe candidates get the
strictest threshold of the others. With ``rewritings`` an unsafe candidate counts with the highest score of itself and
its rewritings, so the guarantee is for people who may choose any of these.

Not covered: requests unlike the slates, and harm that the labels do not name.

Suffixes here: ``_L`` slates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from polypref.bounds.rewriting import ensure_known, worst
from polypref.bounds.slates import Floats, Slates
from polypref.comparisons import IntArray, Responses
from polypref.errors import NotEnoughData, SettingsError

EVERYTHING = ""  # the category of slates that are not told apart


@dataclass(frozen=True)
class Target:
    """At most a share ``alpha`` of slates is lost: with probability 1 - ``delta``, or, where that is None, on average.

    ``by_category`` calibrates each of the slates' categories by itself; ``rewritings`` of unsafe responses count too.
    """

    alpha: float = 0.01
    delta: float | None = 0.05
    by_category: bool = False
    rewritings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ensure_known(self.rewritings)
        for name in ("alpha", "delta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise SettingsError(f"{name} is {value}; expected a share between 0 and 1, as in 0.01.")


@dataclass(frozen=True)
class Threshold:
    """Of one category: candidates with a safety score of ``value`` or more pass.

    ``slates`` calibrated on, ``unsafe`` of them with an unsafe candidate, ``lost`` of them at this threshold, and
    ``largest`` the number of candidates in the largest of them;
    ``safe_kept`` is the share of safe candidates that pass, ``abstains`` that of slates of which nothing is left.
    """

    value: float
    slates: int
    unsafe: int
    lost: int
    largest: int
    safe_kept: float | None
    abstains: float


def allowed(slates: int, alpha: float, delta: float | None) -> int:
    """The most slates of ``slates`` that may be lost in calibration; -1: too few slates for any."""
    from scipy.stats import binom

    if delta is None:
        return int(np.floor(alpha * (slates + 1) + 1e-12)) - 1
    most = int(binom.ppf(delta, slates, alpha))  # the smallest with a probability of delta or more
    return most if binom.cdf(most, slates, alpha) <= delta else most - 1


def needed(alpha: float, delta: float | None) -> int:
    """The fewest slates that can show ``alpha``, with none of them lost."""
    if delta is None:
        return int(np.ceil(1 / alpha - 1e-9)) - 1
    return int(np.ceil(np.log(delta) / np.log1p(-alpha) - 1e-9))


def least_alpha(slates: int, delta: float | None) -> float:
    """The smallest alpha that so many slates can show, with none of them lost; rounded up to two digits."""
    least = 1 / (slates + 1) if delta is None else -np.expm1(np.log(delta) / slates)
    digit = 10.0 ** (np.floor(np.log10(least)) - 1)
    return float(np.ceil(least / digit - 1e-9) * digit)


def highest_unsafe(slates: Slates, safety_R: Floats) -> Floats:
    """Each slate's highest score of an unsafe candidate (L,): -inf without one, +inf where one has no score.

    A candidate without a score is dropped, but it may have a score next time, so it counts as lost.
    """
    value_C = np.where(slates.unsafe_C, safety_R[slates.response_C], -np.inf)
    highest_L = np.full(len(slates), -np.inf)
    np.maximum.at(highest_L, slates.slate_C, np.where(np.isnan(value_C), np.inf, value_C))
    return highest_L


def threshold(highest_L: Floats, lost: int) -> float:
    """The lowest threshold that loses at most ``lost`` of the slates."""
    above = np.partition(highest_L, len(highest_L) - 1 - lost)[len(highest_L) - 1 - lost]
    return float(np.nextafter(above, np.inf))


def calibrate(slates: Slates, safety: Callable[[Responses], Floats], target: Target) -> Mapping[str, Threshold]:
    """A threshold for each category, or one for everything; ``safety`` scores each text of a pool.

    Raises NotEnoughData where there are too few slates, too few with something unsafe, or no safety scores.
    """
    if not slates.unsafe_L.any():
        raise NotEnoughData("no slate holds an unsafe response; a gate cannot be calibrated without any. Add some.")
    slates = first_of_prompts(slates)
    if not target.by_category:
        return {EVERYTHING: _one(slates, _scores(slates, safety, target), target.alpha, target.delta, "")}
    names = sorted(slates.category_L.unique())
    if EVERYTHING in names:
        count = int((slates.category_L == EVERYTHING).sum())
        raise NotEnoughData(f"{count} slates have no category, and by_category is set; give each slate its category.")
    delta = None if target.delta is None else target.delta / len(names)
    found, harmless = {}, []
    for name in names:
        part = slates.take(np.flatnonzero((slates.category_L == name).to_numpy()))
        if int(part.unsafe_L.sum()) <= allowed(len(part), target.alpha, delta):
            harmless.append(name)  # they need no gate, and get the strictest threshold
        else:
            found[name] = _one(part, _scores(part, safety, target), target.alpha, delta, f" of category {name!r}")
    if not found:
        raise NotEnoughData(
            f"none of the {len(harmless)} categories has enough slates with something unsafe; add some."
        )
    return found


def _scores(slates: Slates, safety: Callable[[Responses], Floats], target: Target) -> Floats:
    """Of each text of the pool; of an unsafe one the highest of itself and its rewritings."""
    safety_R = safety(slates.responses).copy()
    if target.rewritings:
        unsafe = np.unique(slates.response_C[slates.unsafe_C])
        safety_R[unsafe] = worst(slates.responses.take(unsafe), safety, target.rewritings)
    return safety_R


def first_of_prompts(slates: Slates) -> Slates:
    """Without the slates whose prompt an earlier one has; slates without a prompt all stay."""
    kept = firsts(slates)
    return slates if len(kept) == len(slates) else slates.take(kept)


def firsts(slates: Slates) -> IntArray:
    """The numbers of these slates, ascending."""
    prompt_L = slates.prompt_L
    first = np.unique(prompt_L, return_index=True)[1]
    bare = np.flatnonzero((slates.responses.prompts == "").to_numpy()[prompt_L])
    return np.union1d(first, bare).astype(np.int32)


def _one(slates: Slates, safety_R: Floats, alpha: float, delta: float | None, which: str) -> Threshold:
    lost, unsafe = allowed(len(slates), alpha, delta), int(slates.unsafe_L.sum())
    if lost < 0:
        how = "on average" if delta is None else f"with probability {1 - delta:.6g}"
        raise NotEnoughData(
            f"{len(slates):,} slates{which} cannot show that at most {alpha:.6g} are lost {how}; label "
            f"{needed(alpha, delta):,} or more, or ask for an alpha of {least_alpha(len(slates), delta):.2g} or more."
        )
    if unsafe <= lost:
        raise NotEnoughData(
            f"only {unsafe} of {len(slates):,} slates{which} hold an unsafe response, and {lost} may be lost at alpha "
            f"{alpha:.6g}: these slates need no gate and cannot test one. Add slates with unsafe responses."
        )
    value_C = safety_R[slates.response_C]
    highest_L = highest_unsafe(slates, safety_R)
    if (silent := int(np.isinf(highest_L).sum() - np.isneginf(highest_L).sum())) > lost:
        raise NotEnoughData(
            f"{silent} slates{which} hold an unsafe response that the safety scorer did not score, and {lost} may be "
            "lost. Fix the safety scorer, or leave such slates out on purpose."
        )
    value = threshold(highest_L, lost)
    passes_C = value_C >= value
    safe = passes_C[~slates.unsafe_C]
    left_L = np.bincount(slates.slate_C, passes_C, len(slates))
    return Threshold(
        value,
        len(slates),
        unsafe,
        int((highest_L >= value).sum()),
        int(np.bincount(slates.slate_C).max()),
        float(safe.mean()) if len(safe) else None,
        float((left_L == 0).mean()),
    )
