"""The gate: responses below the calibrated safety score are dropped before any personal score is computed.

    y* = argmax over {y: safety(x, y) >= threshold} of r_u(x, y);   nothing left: abstain

The order is lexicographic by construction, not by weights: no personal reward, however large, reaches a dropped
response. Source: rubrics as gates instead of rewards, and vetoes in rubric anchors; see docs/safety.md.

Covered: it fails closed, so a response without a safety score is dropped, and nothing passes if the safety scorer fails
or if a scorer's shared reward is a person's own; non-finite rewards decide nothing; a category that was not calibrated
gets the strictest threshold. Not covered: harm that the safety scorer does not detect.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.bounds.cap import capped
from polypref.bounds.safety import IN_A_NAME, Answers, SafetyFailed, answered_by_population
from polypref.bounds.safety_cache import Safety
from polypref.bounds.slates import Floats
from polypref.comparisons import BoolArray, IntArray, Responses, Users
from polypref.errors import InputError, SettingsError
from polypref.learners.protocol import (
    SOURCES,
    Prompt,
    Ranked,
    Scores,
    Texts,
    UserIds,
    best_first,
    places,
    plain_question,
    resolved,
)

DROPPED = -np.inf


@dataclass(frozen=True)
class Gate:
    """``thresholds`` by category, the strictest for those not named; a single one under "" is for everything."""

    thresholds: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.thresholds or any(np.isnan(value) for value in self.thresholds.values()):
            raise SettingsError(f"the gate's thresholds are {dict(self.thresholds)!r}; expected numbers.")

    def threshold(self, category: str = "") -> float:
        """The threshold of this category; without a name, the one that suffices in all categories."""
        if not isinstance(category, str):
            raise InputError(f"the category is {content.excerpt(category)}; expected a text.")
        own = self.thresholds.get(category) if category or len(self.thresholds) == 1 else None
        return max(self.thresholds.values()) if own is None else own

    def passes(self, safety_Q: Floats, category: str = "") -> BoolArray:
        """Which scores pass; a missing one (NaN) or an infinite one never does."""
        return np.isfinite(safety_Q) & (safety_Q >= self.threshold(category))


@dataclass(frozen=True)
class Limits:
    """Limits that a tier may set beside the gate; each later tier may only tighten them.

    ``cap``    how far a reward may be from the shared one; inf: no limit.
    ``floor``  least safety score, on top of the gate's threshold.
    ``most_candidates`` of a slate; inf: any number.
    ``safety_weight`` what the shared reward loses for each point by which a safety score is short of ``ample``: the
               cap certifies what the shared reward gets right, and people's rewards seldom know what is unsafe.
    """

    cap: float = np.inf
    floor: float = -np.inf
    most_candidates: float = np.inf
    safety_weight: float = 0.0
    ample: float = -np.inf

    def __post_init__(self) -> None:
        for name, least in (("cap", 0), ("most_candidates", 1), ("safety_weight", 0), ("floor", -np.inf)):
            if not getattr(self, name) >= least:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected {least:.6g} or more.")
        if np.isnan(self.ample) or np.isinf(self.safety_weight):
            raise SettingsError(f"safety_weight is {self.safety_weight}, ample {self.ample}; expected finite numbers.")

    def tightened(self, by: Limits) -> Limits:
        """The stricter value of each limit."""
        return Limits(
            min(self.cap, by.cap),
            max(self.floor, by.floor),
            min(self.most_candidates, by.most_candidates),
            max(self.safety_weight, by.safety_weight),
            max(self.ample, by.ample),
        )

    def penalty(self, safety_Q: Floats) -> Floats:
        """Addition to everybody's reward, 0 or less; NaN without a safety score."""
        if not self.safety_weight:
            return np.where(np.isnan(safety_Q), np.nan, 0.0)
        return self.safety_weight * np.minimum(0.0, safety_Q - self.ample)


def held(shared_Q: Floats, own_Q: Floats, cap_Q: Floats | float) -> Floats:
    """Own rewards within the caps of the shared ones; the own one if the cap is infinite, the shared one if the own
    one is not finite."""
    cap_Q = np.broadcast_to(np.asarray(cap_Q, np.float64), np.shape(own_Q))
    capped_Q = capped(shared_Q, own_Q, np.where(np.isinf(cap_Q), 0.0, cap_Q))
    value_Q = np.where(np.isinf(cap_Q), own_Q, capped_Q)
    return np.where(np.isfinite(value_Q), value_Q, shared_Q)


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
    """A scorer within bounds: no user gets past the gate, or further from the shared reward than the cap allows.

    ``user_limits`` are additional limits of single users. ``policy_hash`` names the bounds in every answer.
    """

    scorer: Answers
    safety: Safety
    gate: Gate
    limits: Limits = Limits()
    user_limits: Mapping[str, Limits] = field(default_factory=dict)
    policy_hash: str = ""

    def __post_init__(self) -> None:
        ids = content.ids(list(self.user_limits))  # refuses impossible ids
        object.__setattr__(self, "user_limits", dict(zip(ids, self.user_limits.values(), strict=True)))
        for user_id, limits in self.user_limits.items():
            if limits.safety_weight or limits.ample > -np.inf:
                raise SettingsError(f"user {user_id!r} sets safety_weight or ample; these are for all users.")

    def around(self, scorer: Answers) -> Bounded:
        """The same bounds around another scorer."""
        other = copy(self)  # the limits were checked when these bounds were made
        object.__setattr__(other, "scorer", scorer)
        return other

    def limits_of(self, user_id: str) -> Limits:
        """The limits of this user, never looser than those of all."""
        return self.limits.tightened(self.user_limits.get(content.one_id(user_id), Limits()))

    def score(
        self,
        responses: Responses,
        user_ids: UserIds | None,
        response_Q: IntArray | None = None,
        category: str = "",
    ) -> Floats:
        """Bounded reward of response ``response_Q[q]`` for user ``user_ids[q]`` (Q,); ``-inf`` for dropped ones.

        ``most_candidates`` is not applied to single rewards; to choose among responses, use ``rank``. The scorer's
        rewards of dropped responses are never used. A survivor without a finite own reward gets the shared one; a
        survivor without that is dropped.
        """
        ids, response_Q = resolved(responses, user_ids, response_Q)
        return self._scored(responses, ids, response_Q, category)[0]

    def answers(
        self,
        responses: Responses,
        user_ids: UserIds | None,
        response_Q: IntArray | None = None,
        category: str = "",
    ) -> Scores:
        """The rewards of ``score``, and whose reward each is; that of a dropped response too."""
        ids, response_Q = resolved(responses, user_ids, response_Q)
        value_Q, source_Q = self._scored(responses, ids, response_Q, category)
        return Scores(value_Q, self.scorer.score(responses, ids, response_Q).source_Q if source_Q is None else source_Q)

    def _scored(
        self, responses: Responses, ids: pl.Series, response_Q: IntArray, category: str
    ) -> tuple[Floats, NDArray[np.int8] | None]:
        """Bounded rewards, and the sources of the users' own; None where all are dropped: the scorer is not asked."""
        safety_Q = self.safety(responses)[response_Q]
        cap_Q, floor_Q = self._of_users(ids)
        passes_Q = self.gate.passes(safety_Q, category) & (safety_Q >= floor_Q)
        if not passes_Q.any():
            return np.full(len(ids), DROPPED), None
        shared_Q, own = self._asked(responses, ids, response_Q, bool(np.isinf(cap_Q).all()))
        value_Q = held(shared_Q, own.value_Q, cap_Q) + self.limits.penalty(safety_Q)
        return np.where(passes_Q & np.isfinite(value_Q), value_Q, DROPPED), own.source_Q

    def _of_users(self, ids: pl.Series) -> tuple[Floats, Floats]:
        """Cap and floor of each question."""
        if not self.user_limits:
            return np.full(len(ids), self.limits.cap), np.full(len(ids), self.limits.floor)
        users, cap_U, floor_U = self._own_limits
        place_Q = users.index(ids)
        return cap_U[place_Q], floor_U[place_Q]

    @cached_property
    def _own_limits(self) -> tuple[Users, Floats, Floats]:
        """The users who have limits of their own, and the cap and floor of each; last, those of everybody else."""
        limits = [*map(self.limits.tightened, self.user_limits.values()), self.limits]
        cap_U, floor_U = np.array([[one.cap, one.floor] for one in limits]).T
        return Users(pl.Series("id", list(self.user_limits), dtype=pl.String)), cap_U, floor_U

    def _asked(self, responses: Responses, ids: pl.Series, response_Q: IntArray, free: bool) -> tuple[Floats, Scores]:
        """Rewards of unknown users, and the users' own; the latter twice where ``free`` and finite."""
        if free:
            own = self.scorer.score(responses, ids, response_Q)
            own_Q = np.asarray(own.value_Q, np.float64)
            if np.isfinite(own_Q).all():
                return own_Q, Scores(own_Q, own.source_Q)
        everyone = pl.concat([content.strangers(len(ids)), ids.alias("id")])
        both = self.scorer.score(responses, everyone, np.concatenate([response_Q, response_Q]))
        if not answered_by_population(both, 2 * len(ids), len(ids)):
            raise SafetyFailed(f"the shared reward {IN_A_NAME}.")
        value_2Q = np.asarray(both.value_Q, np.float64)
        return value_2Q[: len(ids)], Scores(value_2Q[len(ids) :], both.source_Q[len(ids) :])

    def reward(self, user: str | None, prompt: Prompt, text: str) -> float:
        """Bounded reward of one text for ``user``; ``-inf`` if it is dropped."""
        pool, place_Q, id_Q = plain_question(user, prompt, [text])
        return float(self.score(pool, id_Q, place_Q)[0])

    def rank(self, user: str | None, prompt: Prompt, texts: Texts) -> list[Ranked]:
        """The responses to one prompt that may be returned, best first for ``user``; empty: abstain.

        Dropped texts are not in the list; ``rank_slate`` gives their places. Raises SettingsError as it does.
        """
        pool, place_Q, id_Q = plain_question(user, prompt, texts)
        self.refuse_more(user, len(place_Q))
        found = self.answers(pool, id_Q, place_Q)
        ranked = best_first([*texts], found.value_Q, [SOURCES[source] for source in found.source_Q])
        return [one for one in ranked if one.reward > DROPPED]

    def rank_slate(
        self, responses: Responses, user_id: str | None, response_Q: IntArray | None = None, category: str = ""
    ) -> Ranking:
        """Order a slate for a user: survivors best first, equal ones in the slate's order; duplicates are kept.

        ``None``: for an unknown user.

        Raises SettingsError where the slate has more candidates than the bounds allow.
        """
        response_Q = places(responses, response_Q)
        self.refuse_more(user_id, len(response_Q))
        ids = None if user_id is None else content.ids([user_id]).gather(np.zeros(len(response_Q), np.int32))
        value_Q = self.score(responses, ids, response_Q, category)
        order = np.argsort(-value_Q, kind="stable")
        left = value_Q[order] > DROPPED
        return Ranking(tuple(order[left].tolist()), tuple(np.sort(order[~left]).tolist()), self.policy_hash)

    def refuse_more(self, user_id: str | None, candidates: int) -> None:
        """Raise SettingsError where a slate has more candidates than the bounds allow."""
        most = (self.limits if user_id is None else self.limits_of(user_id)).most_candidates
        if candidates > most:
            raise SettingsError(
                f"a slate of {candidates} candidates, and the bounds allow {most:.0f}: each one more may slip "
                "through. Offer fewer."
            )
