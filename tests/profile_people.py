"""Small sets of judgements with known structure, for the tests of ``profile``."""

from __future__ import annotations

import numpy as np

from polypref.comparisons import Comparisons, from_columns


def judged(
    rows: list[tuple[str, str, str, str]], ties: list[bool] | None = None, pairs: list[int] | None = None
) -> Comparisons:
    """Rows of (user, prompt, chosen, rejected)."""
    users, prompts, chosen, rejected = (list(column) for column in zip(*rows, strict=True))
    return from_columns(
        users,
        prompts,
        chosen,
        rejected,
        tie_N=None if ties is None else np.array(ties),
        pair_N=None if pairs is None else np.array(pairs, np.int32),
    )


def panel(outcomes: list[str], first: int = 0) -> list[tuple[str, str, str, str]]:
    """One pair per string: its k-th letter says whether user k takes "a" or "b" ("." did not judge)."""
    rows = []
    for q, letters in enumerate(outcomes, first):
        for u, letter in enumerate(letters):
            if letter != ".":
                rows.append((f"u{u}", f"p{q}", letter, "b" if letter == "a" else "a"))
    return rows


def crowd(kind: str, seed: int, users: int = 40, prompts: int = 20, responses: int = 5, judges: int = 5) -> Comparisons:
    """A crowd judging every pair of each prompt's responses, ``judges`` of them at a time.

    ``alike``  everyone follows one Bradley-Terry strength per response.
    ``camps``  every fourth user's strengths are turned round.
    ``circle`` everyone prefers each response to the next ones in a circle: a planted Condorcet paradox.
    """
    rng = np.random.default_rng(seed)
    strength = rng.normal(size=(prompts, responses))
    rows = []
    for p in range(prompts):
        for i in range(responses):
            for j in range(i + 1, responses):
                for u in rng.choice(users, judges, replace=False):
                    gap = strength[p, i] - strength[p, j]
                    if kind == "camps":
                        gap *= -3 if u % 4 == 0 else 3
                    elif kind == "circle":
                        gap = 3 if (j - i) % responses <= responses // 2 else -3
                    else:
                        assert kind == "alike"
                    better, worse = (i, j) if rng.random() < 1 / (1 + np.exp(-gap)) else (j, i)
                    rows.append((f"u{u}", f"p{p}", f"text {better}", f"text {worse}"))
    return judged(rows)
