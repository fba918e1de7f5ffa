"""How often ``compare`` says "yes" where people differ and where they do not: what ``docs/protocol.md`` quotes.

python benchmarks/truth/verdict.py                             # fast learners: 100 opposed and 400 equal worlds each
python benchmarks/truth/verdict.py --learners oracle --worlds 100
python benchmarks/truth/verdict.py --learners default --worlds 40 --out DIR    # as the command line; resumes

24 people judge 40 pairs of their own each. Their tastes are linear in eight features of a text; in an opposed world
every fourth person likes what the others dislike, in an equal one nobody does. The logit of a choice is ``--sharp``
times the difference of two texts' rewards (standard deviation 1.41): with 1, 2 and 4 somebody who knows all tastes
predicts .72, .83 and .91 of the choices.

``default``  ``polypref.compare`` as the command line calls it, with the default learners.
``fast``     the same from predictions on (``evaluation.measure``), with stand-ins for the default learners: two for
             everyone alike and five that know people, so that as many share the 5 %. They are logistic regressions on
             the eight features; a person's weights are drawn around everyone's by a prior of five strengths.
``oracle``   one learner in place of the five, which knows everybody's taste: nobody can do better.

Suffixes here: ``_D`` features.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
from scipy.special import expit, ndtri

from polypref import compare
from polypref.comparisons import Comparisons, Responses, from_columns
from polypref.evaluation.cells import Job
from polypref.evaluation.measure import Arms, measure
from polypref.evaluation.placebo import shuffle_users
from polypref.evaluation.settings import Settings
from polypref.evaluation.tables import Arm

USERS, JUDGEMENTS, FEATURES = 24, 40, 8
ALIKE, AROUND = (1.0, 10.0), (0.3, 1.0, 3.0, 10.0, 30.0)
STEPS = 6


@dataclass(frozen=True)
class Known:
    """Eight standard normal numbers made from a text."""

    name: str = "known"
    identity: str = "normal of eight, sha256"

    def encode(self, responses: Responses) -> np.ndarray:
        digest_R = [hashlib.sha256(text.encode()).digest() for text in responses.texts_R]
        bits_RD = np.frombuffer(b"".join(digest_R), "<u4").reshape(-1, FEATURES)
        return ndtri((bits_RD + 0.5) / 2.0**32).astype(np.float32)


@dataclass(frozen=True)
class World:
    """``taste_UD`` of everybody, and what they said."""

    taste_UD: np.ndarray
    comparisons: Comparisons

    @staticmethod
    def draw(opposed: bool, sharp: float, seed: int) -> World:
        rng = np.random.default_rng([seed, opposed])
        taste_D = rng.normal(size=FEATURES)
        against_U = opposed & (np.arange(USERS) % 4 == 3)
        taste_UD = np.where(against_U, -1.0, 1.0)[:, None] * taste_D / np.linalg.norm(taste_D) * sharp
        user_N = np.repeat(np.arange(USERS), JUDGEMENTS)
        texts = [[f"{seed} {opposed} {side} {i}" for i in range(len(user_N))] for side in "ab"]
        one_ND, other_ND = (Known().encode(_pool(side)) for side in texts)
        first_N = rng.random(len(user_N)) < expit(((one_ND - other_ND) * taste_UD[user_N]).sum(axis=1))
        chosen, rejected = (np.where(first_N == way, *map(np.array, texts)).tolist() for way in (True, False))
        return World(taste_UD, from_columns([f"u{u:02d}" for u in user_N], ["?"] * len(user_N), chosen, rejected))

    @cached_property
    def gap_ND(self) -> np.ndarray:
        """Features of the chosen less those of the rejected text."""
        x_RD = Known().encode(self.comparisons.responses).astype(float)
        return x_RD[self.comparisons.chosen_N] - x_RD[self.comparisons.rejected_N]


def _pool(texts: list[str]) -> Responses:
    return Responses(pl.Series(["?"]), np.zeros(len(texts), np.int32), pl.Series(texts, dtype=pl.String))


def newton(gap_ND: np.ndarray, user_N: np.ndarray, mean_UD: np.ndarray, strength: float) -> np.ndarray:
    """The most likely weights (U, D) of each user's choices, by a normal prior around ``mean_UD``."""
    order_N = np.argsort(user_N, kind="stable")
    x_ND, user_N = gap_ND[order_N], user_N[order_N]
    users, first = np.unique(user_N, return_index=True)
    outer_NDD = x_ND[:, :, None] * x_ND[:, None, :]
    weight_UD = mean_UD.copy()
    for _ in range(STEPS):
        wrong_N = expit(-(x_ND * weight_UD[user_N]).sum(axis=1))
        curved_UDD = np.add.reduceat(outer_NDD * (wrong_N * (1 - wrong_N))[:, None, None], first)
        slope_UD = np.add.reduceat(x_ND * wrong_N[:, None], first) - strength * (weight_UD - mean_UD)[users]
        step_UD = np.linalg.solve(curved_UDD + strength * np.eye(FEATURES), slope_UD[:, :, None])[:, :, 0]
        weight_UD[users] += step_UD
    return weight_UD


def margins(world: World, job: Job, seed: int, which: str) -> dict[str, dict[str, Any]]:
    """What every learner says of the test rows of one cut, arm -> learner -> ``margin_H``, and ``valid`` accuracies."""
    parts, c = job.parts(seed), world.comparisons
    nobody_N = np.zeros(len(c), np.int64)
    rows_N = np.concatenate([parts.train_rows, parts.valid_rows])
    shuffled_N = np.concatenate([shuffle_users(c.take(r), seed).user_N for r in (parts.train_rows, parts.valid_rows)])
    held_ND, user_H = world.gap_ND[parts.test_rows], c.user_N[parts.test_rows]
    nothing_1D = np.zeros((1, FEATURES))
    found: dict[str, dict[str, Any]] = {"alike": {}, "valid": {}, "real": {}, "shuffled": {}}
    for strength in ALIKE:
        early_1D = newton(world.gap_ND[parts.train_rows], nobody_N[parts.train_rows], nothing_1D, strength)
        found["valid"][f"alike {strength:g}"] = float((world.gap_ND[parts.valid_rows] @ early_1D[0] > 0).mean())
        final_1D = newton(world.gap_ND[rows_N], nobody_N[rows_N], nothing_1D, strength)
        found["alike"][f"alike {strength:g}"] = held_ND @ final_1D[0]
    mean_UD = np.repeat(newton(world.gap_ND[rows_N], nobody_N[rows_N], nothing_1D, 1.0), USERS, axis=0)
    for arm, user_N in (("real", c.user_N[rows_N]), ("shuffled", shuffled_N)):
        if which == "oracle":
            others_U = np.random.default_rng(seed).permutation(USERS)
            taste_UD = world.taste_UD if arm == "real" else world.taste_UD[others_U]
            found[arm]["oracle"] = (held_ND * taste_UD[user_H]).sum(axis=1)
            continue
        for strength in AROUND:
            weight_UD = newton(world.gap_ND[rows_N], user_N, mean_UD, strength)
            found[arm][f"around {strength:g}"] = (held_ND * weight_UD[user_H]).sum(axis=1)
    return found


def arms_of(world: World, job: Job, settings: Settings, which: str) -> Arms:
    """As ``run_arms`` reads them from its cells."""
    by_seed = [margins(world, job, seed, which) for seed in range(settings.seeds)]

    def arm(name: str, of: str) -> Arm:
        chosen: Sequence[Mapping[str, Any]] = [
            {"valid_accuracy": found["valid"][name]} if of == "alike" else {} for found in by_seed
        ]
        serves = "population" if of == "alike" else "seen_users"
        return Arm(name, serves, tuple(chosen), np.concatenate([found[of][name] for found in by_seed]))

    full = {name: arm(name, of) for of in ("alike", "real") for name in by_seed[0][of]}
    return Arms({0: full}, 0, {name: arm(name, "shuffled") for name in by_seed[0]["shuffled"]}, {})


def answer(opposed: bool, sharp: float, seed: int, which: str = "fast", out: Path | None = None) -> dict[str, str]:
    """The verdict of one world; that of ``default`` is read back where ``out`` has it."""
    world, settings = World.draw(opposed, sharp, seed), Settings()
    if which != "default":
        job = Job(world.comparisons, Known(), {}, "pair", Path())
        return measure(job, settings, arms_of(world, job, settings, which))[0]["verdict"]
    folder = None if out is None else out / f"{'opposed' if opposed else 'equal'}-{sharp:g}-{seed}"
    if folder is not None and (folder / "results.json").exists():
        return json.loads((folder / "results.json").read_text())["verdict"]
    return dict(compare(world.comparisons, None, Known(), out=folder, workers=1).verdict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", choices=("fast", "default", "oracle"), default="fast")
    parser.add_argument("--sharp", nargs="*", type=float, default=(1.0, 2.0, 4.0))
    parser.add_argument(
        "--worlds", nargs="*", type=int, default=(100, 400), help="opposed and equal ones; one: of each"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder to keep results in; a second run goes on")
    asked = parser.parse_args()
    print("| worlds | sharp | learners | worlds | yes | no | unclear | seconds |\n" + "|---" * 8 + "|")
    for sharp in asked.sharp:
        for opposed, worlds in zip((True, False), (*asked.worlds, *asked.worlds)[:2], strict=True):
            started = time.process_time()
            rooms = [answer(opposed, sharp, s, asked.learners, asked.out)["room"] for s in range(worlds)]
            counts = " | ".join(str(rooms.count(room)) for room in ("yes", "no", "unclear"))
            name, seconds = "opposed" if opposed else "equal", time.process_time() - started
            print(f"| {name} | {sharp:g} | {asked.learners} | {worlds} | {counts} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
