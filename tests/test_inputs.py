"""Inputs: how many directions are used, and that much data per user on many of them is fitted, not merely started."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from polypref.comparisons import Comparisons, Responses, from_columns
from polypref.learners import LEARNERS, margins
from polypref.learners.inputs import FEWEST, Inputs


@dataclass(frozen=True)
class Wide:
    """``size`` standard normal numbers drawn from a text's key."""

    size: int = 120
    name: str = "wide"
    identity: str = "wide v1"

    def encode(self, responses: Responses) -> np.ndarray:
        rows = [np.random.default_rng(int(key)).normal(size=self.size) for key in responses.keys_R]
        return np.array(rows, np.float32)


def certain(users: int, each: int, seed: int = 0) -> Comparisons:
    """People with tastes of their own who never err, on pairs that nobody shares."""
    rng = np.random.default_rng(seed)
    n = users * each
    pairs = from_columns(
        [f"u{i % users}" for i in range(n)], ["?"] * n, [f"a {i}" for i in range(n)], [f"b {i}" for i in range(n)]
    )
    x_RD = Wide().encode(pairs.responses)
    taste_UD = rng.normal(size=(users, x_RD.shape[1]))
    gap_N = ((x_RD[pairs.chosen_N] - x_RD[pairs.rejected_N]) * taste_UD[pairs.user_N]).sum(axis=1)
    chosen, rejected = (
        pairs.responses.texts_R.gather(np.where(gap_N > 0, one, other))
        for one, other in ((pairs.chosen_N, pairs.rejected_N), (pairs.rejected_N, pairs.chosen_N))
    )
    return from_columns(pairs.users.ids.gather(pairs.user_N), ["?"] * n, chosen, rejected)


@pytest.mark.parametrize(
    ("each", "asked", "used"), [(40, None, FEWEST), (400, None, 100), (900, None, 120), (400, 5, 5)]
)
def test_directions_grow_with_the_judgements_of_a_user(each, asked, used):
    assert Inputs.fit(Wide(), certain(2, each), asked).size == used + 2


def test_thousands_of_certain_judgements_on_many_inputs_are_fitted():
    """In single precision what d leaves of the population's weights was lost here (NotConverged, an error in tests)."""
    c = certain(3, 1500)
    test_N = np.arange(len(c)) % 5 == 0
    scorer = LEARNERS["hierarchical"].fit(c.take(~test_N), encoder=Wide(), seed=0)
    assert scorer.selection["apart"]
    assert (margins(scorer, c.take(test_N)).value_Q > 0).mean() > 0.88
