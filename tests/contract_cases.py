"""What the contract suite of the learners runs on: encoders, small data sets, fitted scorers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import ndtri

from polypref.comparisons import Comparisons, Responses, Users, from_columns
from polypref.learners import LEARNERS
from polypref.testing import Words as Words
from polypref.testing import answers as answers
from polypref.testing import apart as apart
from polypref.worlds import simulate

NAMES = sorted(LEARNERS)
FOLDER = Path(__file__).parent.parent / "src" / "polypref" / "learners"

# Settings that answer for everyone alike, and those that answer each user; every learner is one of the two.
EVERYONE = {"random", "length", "pooled", "pooled-majority", "pooled-effects", "dpl", "jury"}
EACH = set(NAMES) - EVERYONE
BLIND = {"random"}  # to labels

# Answer each user, and yet cannot turn round for one: a reward that is linear in features of "User ID: 7, prompt,
# response" gives the id to both responses alike, so it all but cancels. They are held to what population learners are.
ALIKE = {"conditional"}

# Settings that need not be at their best here; the planted minority is met with the real ones.
QUICK = {
    name: replace(learner, most_steps=30) if hasattr(learner, "most_steps") else learner
    for name, learner in LEARNERS.items()
}

# Reads what users are called: the id stands in the text.
READS_IDS = {"conditional"}

each = pytest.mark.parametrize("name", NAMES)
personal = pytest.mark.parametrize("name", sorted(EACH))


# --- what the suite runs on


@dataclass(frozen=True)
class Constant:
    """Every text alike."""

    name: str = "constant"
    identity: str = "constant v1"

    def encode(self, responses: Responses) -> np.ndarray:
        return np.ones((len(responses), 3), np.float32)


@dataclass(frozen=True)
class Normal:
    """Four standard normal numbers made from a text's key."""

    name: str = "normal"
    identity: str = "normal v1"

    def encode(self, responses: Responses) -> np.ndarray:
        with np.errstate(over="ignore"):
            bits_RD = responses.keys_R[:, None] * np.array([1, 3, 5, 7], np.uint64)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # splitmix64
                bits_RD = (bits_RD ^ (bits_RD >> np.uint64(shift))) * np.uint64(factor)
        return ndtri((bits_RD >> np.uint64(11)) / 2.0**53 + 2.0**-54).astype(np.float32)


@cache
def small() -> Comparisons:
    return simulate("two-tastes", users=8, judgements=30, judges=4).comparisons


@cache
def fresh() -> Comparisons:
    """Judgements by the same people of texts that nobody saw in training."""
    other = simulate("two-tastes", seed=1, users=8, judgements=10, judges=4).comparisons
    return replace(other, users=small().users)


def permuted(c: Comparisons) -> Comparisons:
    """The same judgements from a file in another order: users and texts get other numbers."""
    rows = c.take(np.random.default_rng(0).permutation(len(c)))
    r = rows.responses
    prompts = [r.prompts[int(p)] for p in r.prompt_R[rows.chosen_N]]
    texts = (r.texts_R.gather(side_N) for side_N in (rows.chosen_N, rows.rejected_N))
    return from_columns(rows.users.ids.gather(rows.user_N), prompts, *texts)


def renamed(c: Comparisons) -> Comparisons:
    names = pl.Series("id", [f"{n:03d} \N{SNOWMAN}" for n in range(len(c.users))[::-1]], dtype=pl.String)
    return replace(c, users=Users(names))


def tied(c: Comparisons) -> Comparisons:
    return replace(c, tie_N=np.ones(len(c), bool))


VARIANTS: dict[str, Callable[[Comparisons], Comparisons]] = {
    "small": lambda c: c,
    "again": lambda c: c,
    "permuted": permuted,
    "renamed": renamed,
    "swapped": Comparisons.swapped,
    "doubled": lambda c: c.take(np.concatenate([np.arange(len(c)), np.arange(0, len(c), 3)])),
    "weighted": lambda c: replace(c, weight_N=np.where(np.arange(len(c)) % 3 == 0, 2.0, 1.0)),
}


@cache
def fitted(name: str, variant: str = "small"):
    return QUICK[name].fit(VARIANTS[variant](small()), encoder=Words(), seed=0)
