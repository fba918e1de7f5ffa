"""Tastes that may be prompts' effects are pointed out."""

from __future__ import annotations

import numpy as np
import pytest

from polypref import compare
from polypref.comparisons import Comparisons, from_columns
from polypref.evaluation.nested_prompts import caveat
from recovery_worlds import Normal


def world(users: int, each: int, prompt_of, seed: int = 0) -> Comparisons:
    """Everybody has the same taste, which depends on the prompt alone; ``prompt_of(user, at)``."""
    user_N = np.repeat(np.arange(users), each)
    prompts = [prompt_of(user, at) for user, at in zip(user_N, np.tile(np.arange(each), users), strict=True)]
    texts = [[f"{seed} {side} {at}" for at in range(len(user_N))] for side in "ab"]
    rows = from_columns([f"u{user:02d}" for user in user_N], prompts, *texts)
    x_RD = Normal().encode(rows.responses).astype(float)
    taste = {prompt: np.random.default_rng([9, at]).normal(size=8) for at, prompt in enumerate(sorted(set(prompts)))}
    taste_ND = np.stack([taste[prompt] for prompt in prompts])
    first_N = ((x_RD[rows.chosen_N] - x_RD[rows.rejected_N]) * taste_ND).sum(1) > 0
    sides = np.array(texts)
    chosen, rejected = (
        sides[1 - first_N.astype(int), range(len(user_N))],
        sides[first_N.astype(int), range(len(user_N))],
    )
    return from_columns([f"u{user:02d}" for user in user_N], prompts, chosen.tolist(), rejected.tolist())


@pytest.mark.parametrize(
    ("prompt_of", "words"),
    [
        (lambda user, at: f"q{at % 5}", ""),
        (lambda user, at: "q", ""),
        (lambda user, at: f"q{user}", "100 % of the judgements answer prompts that nobody else judged"),
        (lambda user, at: f"q{user} {at}", "100 % of the judgements answer prompts that nobody else judged"),
        (lambda user, at: f"q{user % 3}", "100 % of the judgements are by users who judged one prompt"),
        (lambda user, at: f"q{user}" if at % 4 else "common", "answer prompts that nobody else judged"),
        (lambda user, at: "common" if at % 4 else f"q{user}", ""),
    ],
)
def test_who_answers_what(prompt_of, words: str) -> None:
    found = caveat(world(12, 8, prompt_of))
    assert words in found
    assert bool(found) == bool(words)


def test_a_prompts_effect_is_not_called_taste_without_a_word() -> None:
    nested = world(12, 40, lambda user, at: f"topic {user}")
    result = compare(nested, ["individual"], Normal(), seeds=2, workers=1, quiet=True).verdict
    assert result["room"] == "yes"
    assert "may come from what people are asked, not from what they like" in result["text"]
    crossed = world(12, 40, lambda user, at: f"topic {at % 12}")
    assert "asked" not in compare(crossed, ["individual"], Normal(), seeds=2, workers=1, quiet=True).verdict["text"]
