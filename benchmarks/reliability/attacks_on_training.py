"""Attacks on bounds in training: rewards, scores and groups that would have an unsafe completion reinforced."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gate import Attempt, Ended

from polypref.policy.advantages import PAPER, Normalization, Normalizer
from polypref.policy.bounded import Bound, Guard, bounded_advantages

MANY = 32
UNSAFE_B = np.arange(MANY) % 4 == 1
GROUPS = ["ab"[n // 4 % 2] for n in range(MANY)]


def attempts(world: Path, folder: Path) -> Iterator[Attempt]:
    fine = np.random.default_rng(0).standard_normal(MANY)
    assert _batch(fine)[0] == "held", "an honest batch is accepted"
    odd = {"infinite": np.inf, "NaN": np.nan, "huge": 1e300, "minus infinite": -np.inf, "tiny": 5e-324}
    for name, value in odd.items():
        yield Attempt(f"training: unsafe rewards are {name}", partial(_batch, np.where(UNSAFE_B, value, fine)))
        yield Attempt(f"training: safe rewards are {name}", partial(_batch, np.where(UNSAFE_B, fine, value)))
        score_B = np.where(UNSAFE_B, value if np.isnan(value) or value < 0.5 or np.isinf(value) else 0.0, 1.0)
        yield Attempt(f"training: safety scores are {name}", partial(_batch, fine, score_B))
    just = np.where(UNSAFE_B, np.nextafter(0.5, 0), 0.5)
    yield Attempt("training: safety scores just below", partial(_batch, fine, just))
    yield Attempt("training: everything is unsafe", partial(_batch, fine, np.zeros(MANY), unsafe_B=np.ones(MANY, bool)))
    yield Attempt("training: a history of unsafe rewards", partial(_batch, fine, before=200))
    for baseline in ("group", "shrunken", "prompt"):
        how = Normalization(baseline=baseline)  # type: ignore[arg-type]
        yield Attempt(
            f"training: against {baseline}", partial(_batch, np.where(UNSAFE_B, 1e6, fine), how=how, before=50)
        )
    for key in ("\0", "\x1b[2J", "", "x" * 10_000):
        yield Attempt(f"training: a group named {key!r:.12}", partial(_batch, fine, keys=[key] * MANY))
    for told in ([["a", -5.0]], [["a", np.nan]], [["a", 1e9]], [["a"]], "x", [[None, 1.0]]):
        yield Attempt(f"training: multipliers from a file are {told!r}", partial(_restored, told))
    for field, value in (
        ("unsafe_below", np.nan),
        ("unsafe_below", -np.inf),
        ("gap", 0.0),
        ("gap", -1.0),
        ("rate", 1.5),
    ):
        yield Attempt(f"training: a bound with {field} of {value}", partial(_bound, field, value))


def _batch(
    reward_B: Any,
    score_B: Any = None,
    unsafe_B: Any = UNSAFE_B,
    how: Any = PAPER,
    before: int = 0,
    keys: Any = GROUPS,
) -> Ended:
    """Advantages of a batch after ``before`` others: is anything unsafe not below 0, or not below all that is safe?"""
    guard, normalizer = Guard(Bound(unsafe_below=0.5, rate=0.1)), Normalizer(how)
    score_B = np.where(unsafe_B, 0.0, 1.0) if score_B is None else score_B
    prompt_B = np.arange(MANY) // 4
    for n in range(before):
        drawn = np.random.default_rng(n).standard_normal(MANY)
        bounded_advantages(normalizer, guard, np.where(unsafe_B, 100.0, drawn), score_B, prompt_B, [keys])
    value_B = bounded_advantages(normalizer, guard, reward_B, score_B, prompt_B, [keys]).value_B
    least = value_B[~unsafe_B].min(initial=0.0)
    if not (value_B[unsafe_B] < least).all():
        return "through", f"{value_B[unsafe_B].max()} beside {least}"
    return "held", f"at most {value_B[unsafe_B].max():.3g}"


def _restored(told: Any) -> Ended:
    guard = Guard(Bound(unsafe_below=0.5, rate=0.1)).restored(told)
    return "through", f"accepted: {guard.multipliers}"


def _bound(field: str, value: float) -> Ended:
    made = Bound(**({"unsafe_below": 0.5} | {field: value}))  # type: ignore[arg-type]
    return "through", f"accepted: {made}"
