"""The contract that is shipped: learners of ours keep it, and one that breaks it is seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from polypref.comparisons import Comparisons
from polypref.learners import LEARNERS
from polypref.learners.linear import LinearScorer
from polypref.learners.pooled import Pooled
from polypref.learners.provenance import recorded
from polypref.testing import LearnerContract, check


class TestIndividual(LearnerContract):
    learner = LEARNERS["individual"]


@pytest.mark.parametrize("name", ["random", "length", "pooled", "hierarchical"])
def test_learners_of_ours_keep_it(name: str) -> None:
    assert check(LEARNERS[name], blind=name == "random") >= 12


class OddScorer(LinearScorer):
    """A third party's, of a kind of its own."""

    kind: ClassVar[str] = "odd"
    serves: ClassVar[Any] = "population"


@dataclass(frozen=True)
class Odd:
    """Pooled, with a fault where one is asked for."""

    fault: str = ""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Any, seed: int, valid: Comparisons | None = None) -> OddScorer:
        if self.fault == "changes its input":
            train.user_N[0] += 1
        pooled = Pooled().fit(train, encoder=encoder, seed=seed, valid=valid)
        weights_K = pooled.population_K
        if self.fault == "draws without its seed":
            weights_K = weights_K + np.random.default_rng().standard_normal(len(weights_K))
        if self.fault == "looks at the first row":
            weights_K = weights_K * (1.0 + train.user_N[0])
        if self.fault == "likes what is first":
            weights_K = weights_K + 1.0
        if self.fault == "not finite":
            weights_K = np.full_like(weights_K, np.nan)
        return OddScorer(**{**vars(pooled), "population_K": weights_K})


def test_a_third_partys_learner_keeps_it() -> None:
    assert check(Odd()) >= 12


@pytest.mark.parametrize(
    "fault",
    ["changes its input", "draws without its seed", "looks at the first row", "likes what is first", "not finite"],
)
def test_a_fault_is_seen(fault: str) -> None:
    with pytest.raises(AssertionError):
        check(replace(Odd(), fault=fault))
