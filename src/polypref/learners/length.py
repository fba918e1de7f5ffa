"""The length baseline: everyone prefers longer texts, or everyone shorter ones; the data decide which and how strongly.

No paper; length-only baselines expose data sets and subsets that length alone predicts. The reward is monotone in
length: one weight on log(1 + characters), so accuracy is the share of judgements won by the preferred side. The two
functions of length in ``inputs.length_features`` would not be monotone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from polypref.comparisons import Comparisons, IntArray, Responses, concat
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.protocol import POPULATION, RanksTexts, Scores, Serves, UserIds, margins, resolved
from polypref.learners.provenance import recorded
from polypref.schema import Layout, Selection


@dataclass(frozen=True)
class Length:
    """Settings of the length baseline."""

    ridge: float = 1.0
    """Penalty on the weight; keeps it finite if length explains everything."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> LengthScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        found = validation.measure(margins(self._fit(train), valid).value_Q, valid)
        return replace(self._fit(concat(train, valid)), selection=found)

    def _fit(self, rows: Comparisons) -> LengthScorer:
        size_R = np.log1p(rows.responses.lengths_R)
        if (bar_R := rows.responses.bar_R).any():  # a bar is as long as the average text
            judged_N = np.concatenate([rows.chosen_N, rows.rejected_N])
            size_R = np.where(bar_R, size_R[judged_N[~bar_R[judged_N]]].mean(), size_R)
        difference_N = size_R[rows.chosen_N] - size_R[rows.rejected_N]

        def slope(weight: float) -> float:
            pull_N = rows.weights_N * (rows.label_N - expit(weight * difference_N)) * difference_N
            return float(pull_N.sum()) - self.ridge * weight

        # the slope falls with the weight, and its size at 0 bounds the root
        bound = abs(slope(0.0)) / self.ridge + 1.0
        return LengthScorer(float(brentq(slope, -bound, bound)), {})  # type: ignore[arg-type]


class Fields(TypedDict):
    """Settings of a saved scorer."""

    weight: float
    selection: Selection


@dataclass(frozen=True, eq=False, repr=False)
class LengthScorer(RanksTexts):
    """Reward = ``weight`` * log(1 + characters)."""

    weight: float
    selection: Mapping[str, float | str]

    kind: ClassVar[str] = "length"
    layout: ClassVar[Layout] = Layout(Fields)
    serves: ClassVar[Serves] = "population"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        _, response_Q = resolved(responses, user_ids, response_Q)
        value_R = self.weight * np.log1p(responses.lengths_R)
        value_Q = value_R[response_Q]
        return Scores(value_Q, np.full(len(value_Q), POPULATION, np.int8))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        return {"weight": self.weight, "selection": dict(self.selection)}, {}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        return cls(config["weight"], config["selection"])
