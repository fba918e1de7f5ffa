"""The random baseline of every table: a fixed random reward for each text, the same for everyone. No paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Responses
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.protocol import POPULATION, RanksTexts, Scores, Serves, UserIds, margins, resolved
from polypref.learners.provenance import recorded
from polypref.schema import Layout, Selection


@dataclass(frozen=True)
class Random:
    """A random reward per text, right half of the time for any user."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> RandomScorer:
        """See ``learners.protocol.Learner``; learns nothing."""
        _, valid = validation.cut(train, valid, seed)
        return RandomScorer(seed, validation.measure(margins(RandomScorer(seed, {}), valid).value_Q, valid))


class Fields(TypedDict):
    """Settings of a saved scorer."""

    seed: int
    selection: Selection


@dataclass(frozen=True, eq=False, repr=False)
class RandomScorer(RanksTexts):
    """Standard normal rewards made from a text's content key and ``seed``, so they are equal in any pool."""

    seed: int
    selection: Mapping[str, float | str]

    kind: ClassVar[str] = "random"
    layout: ClassVar[Layout] = Layout(Fields)
    serves: ClassVar[Serves] = "population"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        _, response_Q = resolved(responses, user_ids, response_Q)
        from scipy.special import ndtri

        # splitmix64's finaliser turns keys that differ in one bit into unrelated numbers
        with np.errstate(over="ignore"):
            bits = responses.keys_R + np.uint64(self.seed + 1) * np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value_R = ndtri((bits >> np.uint64(11)).astype(np.float64) / 2.0**53 + 2.0**-54)
        value_Q = value_R[response_Q]
        return Scores(value_Q, np.full(len(value_Q), POPULATION, np.int8))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        return {"seed": self.seed, "selection": dict(self.selection)}, {}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        return cls(config["seed"], config["selection"])
