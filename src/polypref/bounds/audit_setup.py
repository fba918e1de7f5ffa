"""What several parts of an audit need: what is audited, the safety and label of each text, drawn slates, and rows.

Suffixes here: ``_C`` distinct responses of the slates, ``_I`` pairs of a safe and an unsafe response, ``_K`` values
averaged, ``_L`` slates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from polypref.bounds.adversaries import Pairs, pairs_of
from polypref.bounds.calibrate import allowed, needed, threshold
from polypref.bounds.gate import Bounded, held
from polypref.bounds.safety import Answers, shared
from polypref.bounds.slates import Floats, Slates
from polypref.comparisons import Comparisons, IntArray
from polypref.features.protocol import Encoder
from polypref.stats import binomial


@dataclass(frozen=True)
class AuditSettings:
    """How much is drawn: ``sizes`` are the N of best of N, ``slates`` what each of ``recalibrations`` has.

    ``tries`` are insertions that are searched for each unsafe text; 0: no search.
    """

    sizes: tuple[int, ...] = (1, 4, 16, 64)
    slates: int = 1000
    recalibrations: int = 200
    tested: int = 20_000
    vectors: int = 10_000
    tries: int = 200
    keep: float = 0.95
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Case:
    """What is audited: the bounded scorer, labelled ``slates`` that neither it nor its calibration saw, and perhaps
    ``benign`` judgements that it was not fitted on, an ``aggregated`` scorer of the same data, and the ``encoder``."""

    bounded: Bounded
    slates: Slates
    alpha: float
    delta: float | None
    people: tuple[str, ...] = ()
    benign: Comparisons | None = None
    aggregated: Answers | None = None
    encoder: Encoder | None = None
    settings: AuditSettings = field(default_factory=AuditSettings)


Row = dict[str, Any]
Tell = Callable[[str], None]


class Stage:
    """What several parts need: safety and labels of each text, and slates of each size with thresholds for them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        slates = case.slates
        self.safety_R = case.bounded.safety(slates.responses)
        self.text_C, first = np.unique(slates.response_C, return_index=True)
        self.unsafe_C = slates.unsafe_C[first]
        self.rng = np.random.default_rng([case.settings.seed, 47])
        self.pairs = pairs = pairs_of(slates)
        safe = np.unique(pairs.safe_I)  # pairs may share their safe response: such ones stay together
        taught_I = np.isin(pairs.safe_I, self.rng.permutation(safe)[: len(safe) // 2])
        self.learnt: Pairs = pairs.take(np.flatnonzero(taught_I).astype(np.int32))
        self.kept: Pairs = pairs.take(np.flatnonzero(~taught_I).astype(np.int32))
        limits = case.bounded.limits
        self.cut = max(case.bounded.gate.threshold(), limits.floor)  # what is in force
        self.largest = limits.most_candidates
        self.slates = max(case.settings.slates, 2 * needed(case.alpha, case.delta), 2 * needed(case.alpha, None))
        taught_R = np.zeros(len(slates.responses), bool)
        taught_R[np.concatenate([self.learnt.safe_I, self.learnt.unsafe_I])] = True
        self.shared_C = self.values(case.bounded.scorer)
        self.penalty_C = np.nan_to_num(case.bounded.limits.penalty(self.safety_R[self.text_C]), nan=-np.inf)
        self.fresh_C = ~taught_R[self.text_C]  # adversaries are measured on texts that they were not taught on

    def values(self, scorer: Answers, user_id: str | None = None) -> Floats:
        """A user's reward of each distinct text, as the scorer gives it; the population's without a user."""
        if user_id is None:
            return shared(scorer, self.case.slates.responses, self.text_C)
        ids = pl.repeat(user_id, len(self.text_C), dtype=pl.String, eager=True)
        return np.asarray(scorer.score(self.case.slates.responses, ids, self.text_C).value_Q, np.float64)

    def held(self, own_C: Floats) -> Floats:
        """Rewards within the bounds, before the gate."""
        return held(self.shared_C, own_C, self.case.bounded.limits.cap) + self.penalty_C

    def in_pool(self, value_C: Floats) -> Floats:
        """By response of the pool."""
        value_R = np.full(len(self.case.slates.responses), np.nan)
        value_R[self.text_C] = value_C
        return value_R

    def draw(self, many: int, size: int, allowed_C: np.ndarray | None = None) -> IntArray:
        """(many, size) places among the distinct texts."""
        places = np.arange(len(self.text_C)) if allowed_C is None else np.flatnonzero(allowed_C)
        return places[self.rng.integers(0, len(places), (many, size))].astype(np.int32)

    def highest(self, place_LJ: IntArray) -> Floats:
        """Highest unsafe score of each slate."""
        value_C = np.where(self.unsafe_C, self.safety_R[self.text_C], -np.inf)
        return np.where(np.isnan(value_C), -np.inf, value_C)[place_LJ].max(axis=1)

    def threshold(self, size: int, allowed_C: np.ndarray | None = None) -> float:
        """A calibration for slates of this size, on slates of its own."""
        highest_L = self.highest(self.draw(self.slates, size, allowed_C))
        return threshold(highest_L, max(allowed(len(highest_L), self.case.alpha, self.case.delta), 0))

    def returned(self, value_C: Floats, place_LJ: IntArray, cut: float | None) -> dict[str, Any]:
        """Shares of slates in which the favourite of ``value_C`` among what passes ``cut`` is unsafe, or nothing is."""
        passes_C = np.isfinite(value_C)
        if cut is not None:
            passes_C &= np.nan_to_num(self.safety_R[self.text_C], nan=-np.inf) >= cut
        value_LJ = np.where(passes_C, value_C, -np.inf)[place_LJ]
        best_L = value_LJ.argmax(axis=1)
        some_L = value_LJ.max(axis=1) > -np.inf
        unsafe_L = self.unsafe_C[np.take_along_axis(place_LJ, best_L[:, None], axis=1)[:, 0]] & some_L
        return {"unsafe": unsafe_L, "abstains": ~some_L}


def share(part: str, arm: str, metric: str, hit_L: np.ndarray, **about: Any) -> Row:
    """A row: how many of these are true, with Clopper and Pearson's 95 % interval."""
    count, n = int(hit_L.sum()), len(hit_L)
    lo, hi = binomial.interval(count, n)
    base = {"part": part, "arm": arm, "metric": metric, "size": None, "bounds": None} | about
    return {**base, "value": count / n, "lo": lo, "hi": hi, "n": n}


def mean(part: str, arm: str, metric: str, value_K: Floats, **about: Any) -> Row:
    """A row: the mean with a 95 % t interval."""
    base = {"part": part, "arm": arm, "metric": metric, "size": None, "bounds": None} | about
    return {**base, **interval(value_K)}


def interval(value_K: Floats) -> Row:
    """``value``, ``lo``, ``hi`` and ``n``: the mean with a 95 % t interval; none for a single value."""
    from scipy.special import stdtrit

    mean, n = float(np.mean(value_K)), len(value_K)
    if n < 2:
        return {"value": mean, "lo": None, "hi": None, "n": n}
    half = float(stdtrit(n - 1, 0.975) * np.std(value_K, ddof=1) / n**0.5)
    return {"value": mean, "lo": mean - half, "hi": mean + half, "n": n}


def exactly(part: str, arm: str, metric: str, value: float, size: int) -> Row:
    """A row: known without drawing, without bounds."""
    base = {"part": part, "arm": arm, "metric": metric, "size": size, "bounds": "off"}
    return {**base, "value": float(value), "lo": None, "hi": None, "n": None}
