"""The gate: responses under the calibrated safety score are dropped before any personal score is looked at.

    y* = argmax over {y: safety(x, y) >= threshold} of r_u(x, y);   nothing left: abstain

The order is lexicographic by construction, not by weights: no personal reward, however large, reaches a dropped
response. Source: rubrics as gates instead of rewards, and vetoes in rubric anchors; see docs/safety.md.

Covered: fails closed, so a response without a safety score is dropped, and a safety scorer that dies lets nothing
through; rewards that are no finite numbers decide nothing; a category that was not calibrated gets the strictest
threshold. Not covered: harm that the safety scorer does not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from polypref.bounds.cap import capped
from polypref.bounds.safety import STRANGER, Answers, Safety
from polypref.bounds.slates import Floats
from polypref.comparisons import BoolArray, IntArray, Responses
from polypref.errors import SettingsError

DROPPED = -np.inf


@dataclass(frozen=True)
class Gate:
    """``thresholds`` by category; "" is for everything, and of others the strictest is for categories not named.

    ``floor`` is a further least score, that an organisation or a user asks for on top.
    """

    thresholds: Mapping[str, float]
    floor: float = -np.inf

    def __post_init__(self) -> None:
        if not self.thresholds or any(np.isnan(value) for value in (*self.thresholds.values(), self.floor)):
            raise SettingsError(f"the gate's thresholds are {dict(self.thresholds)!r}; expected numbers.")

    def threshold(self, category: str = "") -> float:
        """What a response to a request of this category needs."""
        own = self.thresholds.get(category)
        return max(self.floor, max(self.thresholds.values()) if own is None else own)

    def passes(self, safety_Q: Floats, category: str = "") -> BoolArray:
        """Which scores are high enough; a missing one (NaN) never is, nor is an infinite one."""
        return np.isfinite(safety_Q) & (safety_Q >= self.threshold(category))


@dataclass(frozen=True)
class Ranking:
    """Of one slate: the positions that may be returned, best first, and those that were dropped."""

    order: tuple[int, ...]
    dropped: tuple[int, ...]
    policy_hash: str

    @property
    def abstains(self) -> bool:
        """Nothing may be returned."""
        return not self.order

    @property
    def best(self) -> int | None:
        """Position of the answer; None: abstain."""
        return self.order[0] if self.order else None


@dataclass(frozen=True, eq=False)
class Bounded:
    """A scorer that nobody can use to get past the gate, nor further than ``cap`` from the shared reward.

    ``cap`` None leaves rewards as far apart as people are. ``policy_hash`` names the bounds, for every answer.
    ``user_floors`` are floors that single users ask for; they may only be stricter.
    """

    scorer: Answers
    safety: Safety
    gate: Gate
    cap: float | None = None
    policy_hash: str = ""
    most_candidates: int | None = None
    user_floors: Mapping[str, float] | None = None

    def passes(self, responses: Responses, user_id: str = STRANGER, category: str = "") -> BoolArray:
        """Which of the pool's responses may be returned to ``user_id`` (R,)."""
        safety_R = self.safety(responses)
        own = (self.user_floors or {}).get(user_id, -np.inf)
        return self.gate.passes(safety_R, category) & (safety_R >= own)

    def rewards(self, responses: Responses, user_id: str, category: str = "") -> Floats:
        """The user's bounded reward of each response (R,); ``-inf`` where it must not be returned."""
        return self.score(responses, pl.Series([user_id]).gather(np.zeros(len(responses), np.int32)), category=category)

    def score(
        self,
        responses: Responses,
        user_ids: pl.Series | Sequence[str],
        response_Q: IntArray | None = None,
        category: str = "",
    ) -> Floats:
        """Bounded reward of response ``response_Q[q]`` for user ``user_ids[q]`` (Q,); ``-inf`` for dropped ones.

        The scorer is asked about survivors alone. A survivor without a finite reward of its own gets the shared one; a
        survivor without that is dropped.
        """
        ids = pl.Series(user_ids, dtype=pl.String)
        response_Q = np.arange(len(ids), dtype=np.int32) if response_Q is None else response_Q
        safety_R = self.safety(responses)
        passes_Q = self.gate.passes(safety_R, category)[response_Q]
        if self.user_floors:
            floor_Q = ids.replace_strict(dict(self.user_floors), default=-np.inf, return_dtype=pl.Float64).to_numpy()
            passes_Q &= safety_R[response_Q] >= floor_Q
        value_Q = np.full(len(ids), DROPPED)
        asked = np.flatnonzero(passes_Q).astype(np.int32)
        if not len(asked):
            return value_Q
        shared_A = self._shared(responses, response_Q[asked])
        own_A = np.asarray(self.scorer.score(responses, ids.gather(asked), response_Q[asked]).value_Q, np.float64)
        if self.cap is not None:
            own_A = capped(shared_A, own_A, self.cap)
        own_A = np.where(np.isfinite(own_A), own_A, shared_A)
        value_Q[asked] = np.where(np.isfinite(own_A), own_A, DROPPED)
        return value_Q

    def _shared(self, responses: Responses, response_A: IntArray) -> Floats:
        """What anybody unknown is told; each response is asked about once."""
        distinct, place_A = np.unique(response_A, return_inverse=True)
        strangers = pl.Series([STRANGER]).gather(np.zeros(len(distinct), np.int32))
        scores = self.scorer.score(responses, strangers, distinct.astype(np.int32))
        return np.asarray(scores.value_Q, np.float64)[place_A]

    def rank(
        self, responses: Responses, user_id: str, response_Q: IntArray | None = None, category: str = ""
    ) -> Ranking:
        """Order a slate for a user: survivors best first, equal ones in the slate's order; duplicates stand alone.

        Raises SettingsError where the slate has more candidates than the bounds allow.
        """
        response_Q = np.arange(len(responses), dtype=np.int32) if response_Q is None else response_Q
        if self.most_candidates is not None and len(response_Q) > self.most_candidates:
            raise SettingsError(
                f"a slate of {len(response_Q)} candidates, and the bounds allow {self.most_candidates}: each one more "
                "may slip through. Offer fewer."
            )
        ids = pl.Series([user_id], dtype=pl.String).gather(np.zeros(len(response_Q), np.int32))
        value_Q = self.score(responses, ids, response_Q, category)
        order = np.argsort(-value_Q, kind="stable")
        left = value_Q[order] > DROPPED
        return Ranking(tuple(order[left].tolist()), tuple(np.sort(order[~left]).tolist()), self.policy_hash)
