"""Small worlds with a planted structure, in eight standard normal features per text."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, ndtri

from polypref.comparisons import Comparisons, Responses, from_columns

DIMENSIONS = 8


@dataclass(frozen=True)
class Normal:
    """Eight standard normal numbers made from a text's key."""

    name: str = "normal"
    identity: str = "normal of eight v1"

    def encode(self, responses: Responses) -> np.ndarray:
        with np.errstate(over="ignore"):
            bits_RD = responses.keys_R[:, None] * np.arange(1, 2 * DIMENSIONS, 2, dtype=np.uint64)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # splitmix64
                bits_RD = (bits_RD ^ (bits_RD >> np.uint64(shift))) * np.uint64(factor)
        return ndtri((bits_RD >> np.uint64(11)) / 2.0**53 + 2.0**-54).astype(np.float32)


def judged(users: int, judgements: int, reward, seed: int = 0) -> Comparisons:
    """Everybody judges pairs of their own; ``reward(user_N, x_ND)`` is the truth, choices are logistic in it."""
    rng = np.random.default_rng(seed)
    user_N = np.repeat(np.arange(users), judgements)
    n = len(user_N)
    texts = [[f"{side}{i:06d}" for i in range(n)] for side in "ab"]
    c = from_columns([f"u{u:03d}" for u in user_N], [f"p{i % 5}" for i in range(n)], *texts)
    x_RD = Normal().encode(c.responses).astype(np.float64)
    margin_N = reward(user_N, x_RD[c.chosen_N]) - reward(user_N, x_RD[c.rejected_N])
    wins_N = rng.random(n) < expit(margin_N)
    return replace(
        c,
        chosen_N=np.where(wins_N, c.chosen_N, c.rejected_N),
        rejected_N=np.where(wins_N, c.rejected_N, c.chosen_N),
    )


def ideal_points(points_GD: np.ndarray, users: int, judgements: int, seed: int = 0) -> Comparisons:
    """User u belongs to group u modulo G and likes texts near its point."""
    group_U = np.arange(users) % len(points_GD)
    return judged(
        users, judgements, lambda user_N, x_ND: -3.0 * np.linalg.norm(x_ND - points_GD[group_U[user_N]], axis=1), seed
    )


def linear_tastes(basis_GD: np.ndarray, users: int, judgements: int) -> Comparisons:
    """Everybody's taste is a combination of the basis, with standard normal shares."""
    share_UG = np.random.default_rng(1).normal(size=(users, len(basis_GD)))
    return judged(users, judgements, lambda user_N, x_ND: 2.0 * ((share_UG @ basis_GD)[user_N] * x_ND).sum(axis=1))
