"""Worlds of battles with known strengths, as arrays and as rows of a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from polypref.leaderboard import Battles


def world(
    seed: int,
    *,
    systems: int = 6,
    people: int = 60,
    each: int = 40,
    apart: tuple[float, float] = (0.5, 0.0),
    position: float = 0.0,
    ties: float = 0.0,
) -> tuple[Battles, np.ndarray, np.ndarray, np.ndarray]:
    """Battles, prompts, the true strengths and those of each person; every judgement is on a prompt of its own.

    ``apart``: standard deviation of strengths between systems, and of a person's about everybody's.
    """
    rng = np.random.default_rng(seed)
    gap, spread = apart
    theta_M = gap * rng.standard_normal(systems)
    own_UM = theta_M + spread * rng.standard_normal((people, systems))
    user_N = np.repeat(np.arange(people), each)
    first_N = rng.integers(systems, size=len(user_N))
    second_N = (first_N + rng.integers(1, systems, size=len(user_N))) % systems
    logit_N = own_UM[user_N, first_N] - own_UM[user_N, second_N] + position
    label_N = (rng.random(len(user_N)) < 1 / (1 + np.exp(-logit_N))).astype(float)
    label_N[rng.random(len(user_N)) < ties] = 0.5
    names = tuple(f"s{at}" for at in range(systems))
    extra_NE = np.ones((len(user_N), 1))
    one = np.ones(len(user_N))
    found = Battles(names, first_N, second_N, label_N, one, user_N, people, extra_NE, ("shown first",))
    return found, np.arange(len(user_N)), theta_M, own_UM


def rows(battles: Battles, names: tuple[str, ...] | None = None, **more: Any) -> list[dict[str, Any]]:
    """The battles as rows of a preference file with the systems of chosen and rejected; each has texts of its own."""
    names = battles.names if names is None else names
    found = []
    for at in range(len(battles)):
        a, b, label = battles.first_N[at], battles.second_N[at], battles.label_N[at]
        chosen, rejected = (a, b) if label > 0 else (b, a)
        found.append(
            {
                "user_id": f"u{battles.user_N[at]}",
                "prompt": f"question {at}",
                "chosen": f"answer {at} of {chosen}",
                "rejected": f"answer {at} of {rejected}",
                "chosen_pos": 0 if label > 0 else 1,
                "chosen_model": names[chosen],
                "rejected_model": names[rejected],
                "attributes": {"land": "ab"[int(battles.user_N[at]) % 2]},
                "tie": bool(label == 0.5),
                **more,
            }
        )
    return found
