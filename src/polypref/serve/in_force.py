"""What answers requests now: a scorer, its hash and its bounds, as one value that is never changed, only replaced.

A request takes the value once and uses it to its end, so no answer mixes two scorers, or a scorer with another one's
bounds. Whoever puts another scorer in force gets the same bounds around it: there is no way to serve it without them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import polars as pl

from polypref import content
from polypref.bounds.gate import DROPPED, Bounded
from polypref.comparisons import BoolArray, IntArray, Responses
from polypref.errors import PolyprefError
from polypref.learners.protocol import Adapts, Scorer, Scores
from polypref.serve.remembered import Remembered


class NoReward(PolyprefError):
    """The scorer gave a reward that is not a number, and there are no bounds to drop it."""


class Asks(Protocol):
    """Who is answered: ``scorer`` is the one in force, or what ``adapt`` made of it for ``user``.

    ``user`` None: they are answered as a stranger is; the limits are those of ``whose`` all the same.
    """

    @property
    def scorer(self) -> Scorer: ...
    @property
    def user(self) -> str | None: ...
    @property
    def whose(self) -> str | None: ...


@dataclass(frozen=True, eq=False)
class InForce:
    """A scorer, the hash of its folder, and the bounds around it; ``bounded`` None: there are no bounds."""

    scorer: Scorer
    hash: str
    bounded: Bounded | None = None

    @property
    def learns(self) -> bool:
        """Whether judgements can change answers."""
        return isinstance(self.scorer, Adapts)

    @property
    def policy(self) -> str | None:
        """The policy hash of the bounds."""
        return None if self.bounded is None else self.bounded.policy_hash

    def succeeded(self, scorer: Scorer, digest: str) -> InForce:
        """Another scorer within the same bounds. The gate's calibration does not depend on the scorer."""
        return InForce(scorer, digest, None if self.bounded is None else self.bounded.around(scorer))

    def prepare(self, pool: Responses) -> None:
        """Compute the features and safety scores of texts, which are then kept."""
        if self.bounded is not None:
            self.bounded.safety(pool)
        self.scorer.score(pool, None)

    def knows(self, pool: Responses) -> bool:
        """Whether features and safety scores of all texts are in memory, so that ``answers`` takes no time."""
        encoder = getattr(self.scorer, "encoder", None)
        safe = self.bounded is None or self.bounded.safety.knows(pool)
        return safe and isinstance(encoder, Remembered) and encoder.knows(pool)

    def answers(self, asks: Asks, pool: Responses, place: IntArray, category: str, together: int) -> Scores:
        """The rewards of texts, ``-inf`` for what the bounds drop, and who answered; ``together`` are of one slate.

        Raises SettingsError for more texts than the bounds allow, SafetyFailed, NoReward.
        """
        ids, scorer = _ids(asks.user, len(place)), asks.scorer
        if self.bounded is not None:
            bounded = _around(self.bounded, asks)
            bounded.refuse_more(asks.user, together)
            return bounded.answers(pool, ids, place, category)
        found = scorer.score(pool, ids, place)
        if not np.isfinite(found.value_Q).all():
            raise NoReward("the scorer gave a reward that is no number.")
        return found

    def passing(self, asks: Asks, pool: Responses, together: int) -> BoolArray:
        """Which texts (R,) may be shown to a person, ``together`` at once. Raises what ``answers`` does."""
        if self.bounded is None:
            return np.ones(len(pool), bool)
        bounded = _around(self.bounded, asks)
        bounded.refuse_more(asks.user, together)
        return bounded.score(pool, _ids(asks.user, len(pool)), np.arange(len(pool), dtype=np.int32)) > DROPPED

    def reasons(self, user: str | None, pool: Responses, place: IntArray, category: str = "") -> list[str]:
        """Why the bounds drop these texts, in words; the texts are not repeated."""
        if self.bounded is None:
            return []
        floor = self.bounded.limits_of(user).floor if user is not None else self.bounded.limits.floor
        needed = max(self.bounded.gate.threshold(category), floor)
        return [
            f"its safety score is {safety:.2f}; {needed:.2f} is needed, whoever asks."
            if safety < needed
            else "the safety scorer gave it no score, so nobody gets it."
            if np.isnan(safety)
            else "the scorer gave it no finite reward."
            for safety in self.bounded.safety(pool)[place].tolist()
        ]


def _around(bounded: Bounded, asks: Asks) -> Bounded:
    """The bounds for who asks: a person's own limits hold for a stranger's answers to them, too."""
    if asks.user is None and asks.whose is not None:
        bounded = replace(bounded, limits=bounded.limits_of(asks.whose), user_limits={})
    return bounded.around(asks.scorer)


def _ids(user: str | None, count: int) -> pl.Series | None:
    """The person's id for each of ``count`` texts; None: nobody's."""
    return None if user is None else content.ids([user]).new_from_index(0, count)
