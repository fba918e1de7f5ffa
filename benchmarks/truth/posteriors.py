"""Do the posteriors of ``hierarchical`` cover? Reward differences in linear worlds whose truth is known.

Every person's reward is linear in eight standard normal features of a text; weights are drawn around the population's.
A scorer is fitted on everybody's judgements. Then reward differences between fresh texts are compared with the truth:
of users it was fitted on, of new users after 5 and 30 answers, and of strangers. A row of the table is a world, over
``--seeds`` seeds: share of 95 % intervals that hold the truth, the standard deviation of error over standard error,
and the estimated spread of users (root of its trace) over the true one.

    python benchmarks/truth/posteriors.py [--seeds 20] [--worlds NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from polypref.comparisons import Comparisons, from_columns
from polypref.learners.hierarchical import Hierarchical, HierarchicalScorer
from polypref.learners.protocol import margins

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from recovery_worlds import DIMENSIONS, Normal

STRENGTHS = {"identical": 0.0, "moderate": 0.35, "strong": 0.75, "very strong": 1.5, "extreme": 3.0}
NEW, ANSWERS, FRESH = 20, (5, 30), 40


@dataclass(frozen=True)
class World:
    """``users`` people with ``judgements`` each; weights differ from the population's by N(0, strength^2)."""

    users: int
    judgements: int
    strength: str

    @property
    def name(self) -> str:
        """Like ``60 x 40 strong``."""
        return f"{self.users} x {self.judgements} {self.strength}"


WORLDS = [
    *(World(60, n, strength) for n in (40, 15) for strength in ("moderate", "strong", "very strong")),
    World(30, 20, "strong"),
    World(60, 15, "extreme"),
    World(60, 40, "identical"),
]


def judgements(weights_UD: np.ndarray, each: int, rng: np.random.Generator, name: str) -> Comparisons:
    """``each`` judgements of every user, all about pairs of their own texts; chosen and rejected by a logistic coin."""
    users = len(weights_UD)
    user_N = np.repeat(np.arange(users), each)
    n = len(user_N)
    texts = [[f"{name} {side}{i:06d} {rng.integers(1 << 40)}" for i in range(n)] for side in "ab"]
    ids = [f"{name} {u:04d}" for u in user_N]
    one = from_columns(ids, [f"prompt {i % 5}" for i in range(n)], *texts)
    true_N = truth(weights_UD, one)
    wins_N = rng.random(n) < expit(true_N)
    chosen = [a if win else b for a, b, win in zip(*texts, wins_N, strict=True)]
    rejected = [b if win else a for a, b, win in zip(*texts, wins_N, strict=True)]
    return from_columns(ids, [f"prompt {i % 5}" for i in range(n)], chosen, rejected)


def truth(weights_UD: np.ndarray, rows: Comparisons) -> np.ndarray:
    """True reward difference of every row; users are in the order of their first row."""
    x_RD = Normal().encode(rows.responses).astype(float)
    return ((x_RD[rows.chosen_N] - x_RD[rows.rejected_N]) * weights_UD[rows.user_N]).sum(axis=1)


def errors(scorer: HierarchicalScorer, weights_UD: np.ndarray, rows: Comparisons) -> np.ndarray:
    """Error over standard error of every row; NaN where the scorer knows no spread."""
    return (margins(scorer, rows).value_Q - truth(weights_UD, rows)) / scorer.margin_sd(rows)


def run(world: World, seed: int) -> dict[str, np.ndarray | float]:
    """Standardised errors by whose they are, and estimated over true spread."""
    rng = np.random.default_rng([seed, world.users, world.judgements])
    strength = STRENGTHS[world.strength]
    population_D = rng.normal(0, 0.5, DIMENSIONS)
    weights_UD, new_UD, other_UD = (
        population_D + rng.normal(0, strength, (n, DIMENSIONS)) for n in (world.users, NEW, 200)
    )
    train = judgements(weights_UD, world.judgements, rng, "user")
    scorer = Hierarchical().fit(train, encoder=Normal(), seed=seed)
    found: dict[str, np.ndarray | float] = {
        "known": errors(scorer, weights_UD, judgements(weights_UD, FRESH, rng, "user"))
    }
    for answers in ANSWERS:
        few = judgements(new_UD, answers, rng, f"new {answers}")
        taught = scorer
        for u in range(NEW):
            taught = taught.adapt(f"new {answers} {u:04d}", few.take(few.user_N == u))
        found[f"new, {answers}"] = errors(taught, new_UD, judgements(new_UD, FRESH, rng, f"new {answers}"))
    found["strangers"] = errors(scorer, other_UD, judgements(other_UD, 5, rng, "stranger"))
    k = scorer.inputs.size
    spread = scorer.prior.spread_KK[: k - 2, : k - 2]
    # inputs are rotated and scaled features: undo the scale to compare with the truth
    scale_DK = scorer.inputs.directions_DK
    found["spread"] = float(np.sqrt(np.trace(scale_DK @ spread @ scale_DK.T) / DIMENSIONS) / max(strength, 0.1))
    found["collapsed"] = float(not scorer.prior.differ)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--worlds", nargs="*", default=[])
    asked = parser.parse_args()
    print(
        f"{'world':24s} {'spread':>7s} {'none':>5s}  "
        + "  ".join(f"{who:>18s}" for who in ("known", "new, 5", "new, 30", "strangers"))
    )
    for world in WORLDS:
        if asked.worlds and not any(part in world.name for part in asked.worlds):
            continue
        runs = [run(world, seed) for seed in range(asked.seeds)]
        cells = []
        for who in ("known", "new, 5", "new, 30", "strangers"):
            z_N = np.concatenate([np.asarray(r[who]) for r in runs])
            z_N = z_N[np.isfinite(z_N)]
            cells.append(f"{(abs(z_N) < 1.96).mean():.3f} (sd {z_N.std():4.2f})" if len(z_N) else "-")
        spread = np.mean([r["spread"] for r in runs])
        none = np.mean([r["collapsed"] for r in runs])
        print(f"{world.name:24s} {spread:7.2f} {none:5.2f}  " + "  ".join(f"{c:>18s}" for c in cells), flush=True)


if __name__ == "__main__":
    main()
