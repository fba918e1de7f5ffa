"""Ratings drawn by lot: nothing can be learned from them, and ``compare`` does not say yes.

``benchmarks/truth/derived.py`` has the runs as the command ships, 40 of them, and other shapes of data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from derived_cases import lot
from polypref import compare
from polypref.comparisons import Comparisons, Responses
from polypref.evaluation.results import Results


@dataclass(frozen=True)
class Numbers:
    """Forty features that name a text and say nothing of it."""

    name: str = "numbers"
    identity: str = "numbers v1"

    def encode(self, responses: Responses) -> np.ndarray:
        drawn = [np.random.default_rng(int(key)).normal(size=40) for key in responses.keys_R]
        return np.stack(drawn).astype(np.float32)


def compared(data: Comparisons, **settings) -> Results:
    return compare(data, ["individual"], Numbers(), seeds=2, workers=1, quiet=True, **settings)


@pytest.mark.slow
def test_ratings_drawn_by_lot_are_nothing_to_personalise():
    found = [compared(lot(np.random.default_rng(run))) for run in range(10)]
    assert all(one.contents.split["rule"] == "response" for one in found)
    assert sum(one.verdict["room"] == "yes" for one in found) <= 1


def test_by_pair_they_look_personal_and_the_verdict_says_why_they_may_not_be():
    data = lot(np.random.default_rng(1), each=10)
    told = compared(replace(data, lists="pairs"))  # as the user said, and it is not so
    assert (told.contents.split["rule"], told.verdict["room"]) == ("pair", "yes")
    forced = compared(data, split="pair")
    assert (forced.contents.split["rule"], forced.verdict["room"]) == ("pair", "unclear")
    assert "and never did" in forced.verdict["text"] and "Measure with --split auto." in forced.verdict["text"]
    assert forced.contents.split["why"].startswith("chosen by the caller, although pairs look made from ratings")
    rows = [one.contents.gains.at("individual", "accuracy_micro", size=one.contents.size) for one in (told, forced)]
    assert rows[0].value == rows[1].value > 0.1
