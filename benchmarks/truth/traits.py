"""Are the intervals of ``polypref describe`` true, and is "clear" too severe? People whose weights are known.

    python benchmarks/truth/traits.py [--worlds 4] [--people 40]

Texts are random vectors of DIRECTIONS numbers, rewards linear in them, choices logistic. Seven traits have a mean
direction of a length drawn from SIZES (0: no trait at all), around which each of eight pairs lies (``uneven``: by how
much in each direction). The true value of a person's trait is the mean direction's reward, in units of the spread of
their true reward over the same texts: what other topics would give. Tastes are normal, or one in four is
opposed. Worlds in which no differences between people are found have no people to describe, and are left out.
Printed: how often all seven intervals of a person hold the truth (.95 is promised), clear likings with
the wrong sign, clear likings of traits that are none, and how many likings of .5 or 1 spread and more are called clear.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from polypref.comparisons import Responses, from_columns
from polypref.learners.hierarchical import Hierarchical
from polypref.traits import describe
from polypref.traits.describe import spread
from polypref.traits.table import Table

DIRECTIONS, TRAITS, PAIRS = 8, 7, 8
SIZES = (0.0, 0.5, 1.0, 1.5)
PROMPTS, EACH = 60, 6  # prompts that are judged, and responses of each
TOLD = ("tastes", "judgements", "uneven", "all seven hold", "clear", "wrong sign", "clear of none", "of .5", "of 1")


class Known:
    """Texts are names of vectors."""

    name = identity = "known vectors"

    def __init__(self):
        self.vectors: dict[str, np.ndarray] = {}

    def encode(self, responses: Responses) -> np.ndarray:
        return np.array([self.vectors[text] for text in responses.texts_R.to_list()], np.float32)


def pairs(encoder: Known, uneven: float, rng: np.random.Generator) -> tuple[Table, np.ndarray]:
    """Pairs of texts, and the mean direction (T, D) of each trait."""
    mean_TD = rng.standard_normal((TRAITS, DIRECTIONS))
    mean_TD *= (rng.choice(SIZES, TRAITS) / np.linalg.norm(mean_TD, axis=1))[:, None]
    prompts, texts = [], []
    for trait in range(TRAITS):
        for pair in range(PAIRS):
            middle = 0.7 * rng.standard_normal(DIRECTIONS)
            apart = mean_TD[trait] + uneven * rng.standard_normal(DIRECTIONS)
            for side in (0.5, -0.5):
                prompts.append(f"topic {pair}")
                texts.append(f"q{len(texts):07d}")  # of one length
                encoder.vectors[texts[-1]] = middle + side * apart
    pool, place_Q = Responses.of(prompts, texts)
    place_TX2 = place_Q.reshape(TRAITS, PAIRS, 2)
    names = tuple(f"trait {n}" for n in range(TRAITS))
    return Table(names, tuple((name, f"less {name}") for name in names), pool, *np.moveaxis(place_TX2, 2, 0)), mean_TD


def tastes(kind: str, people: int, rng: np.random.Generator) -> np.ndarray:
    """Weights (U, D)."""
    mean_D = 0.3 * rng.standard_normal(DIRECTIONS)
    if kind == "normal":
        return mean_D + 0.7 * rng.standard_normal((people, DIRECTIONS))
    way_D = rng.standard_normal(DIRECTIONS)
    return np.where(rng.random(people) < 0.25, -2, 2)[:, None] * way_D / np.linalg.norm(way_D)


def world(kind: str, each: int, uneven: float, people: int, seed: int) -> np.ndarray:
    """Of each person and trait (U, T, 5): true value, said value, lo, hi, clear."""
    rng, encoder = np.random.default_rng(seed), Known()
    table, mean_TD = pairs(encoder, uneven, rng)
    weight_UD = tastes(kind, people, rng)
    texts = [f"r{n:07d}" for n in range(PROMPTS * EACH)]
    encoder.vectors |= dict(zip(texts, rng.standard_normal((len(texts), DIRECTIONS)), strict=True))
    user_N = np.repeat(np.arange(people), each)
    prompt_N = rng.integers(PROMPTS, size=len(user_N))
    two_N2 = np.array([rng.choice(EACH, 2, replace=False) for _ in user_N]) + EACH * prompt_N[:, None]
    vector_RD = np.array([encoder.vectors[text] for text in texts])
    margin_N = ((vector_RD[two_N2[:, 0]] - vector_RD[two_N2[:, 1]]) * weight_UD[user_N]).sum(axis=1)
    other_N = rng.random(len(user_N)) > 1 / (1 + np.exp(-margin_N))
    two_N2[other_N] = two_N2[other_N, ::-1]
    sides = [[texts[at] for at in side_N] for side_N in two_N2.T]
    rows = from_columns([f"u{u}" for u in user_N], [f"p{p}" for p in prompt_N], *sides)
    scorer = Hierarchical().fit(rows, encoder=encoder, seed=0)
    reward_UR = weight_UD @ encoder.encode(table.pool).astype(np.float64).T
    if not len(scorer.known_users().ids):
        return np.zeros((0, TRAITS, 5))
    true_UT = (weight_UD @ mean_TD.T) / spread(reward_UR, table)[:, None]
    found = []
    for true_T, person in zip(true_UT, describe(scorer, [f"u{u}" for u in range(people)], table=table), strict=True):
        by_name = {one.name: one for one in person.traits}
        said = [by_name[name] for name in table.names_T]
        found.append([[true, one.value, one.lo, one.hi, one.clear] for true, one in zip(true_T, said, strict=True)])
    return np.array(found, float)


def line(found_UT5: np.ndarray) -> list[str]:
    """Figures of all people of all worlds."""
    true, value, lo, hi, clear = np.moveaxis(found_UT5, 2, 0)
    clear, none = clear > 0, np.abs(true) < 1e-9
    wrong = clear & ~none & (np.sign(value) != np.sign(true))
    liked = [clear[np.abs(true) >= least] for least in (0.5, 1.0)]
    held = ((lo <= true) & (true <= hi)).all(axis=1).mean()
    figures = [f"{part.mean():.3f}" if part.size else "none" for part in (clear[none], *liked)]
    return [f"{held:.3f}", str(clear.sum()), str(wrong.sum()), *figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--people", type=int, default=40)
    args = parser.parse_args()
    print(f"| {' | '.join(TOLD)} |\n|{'---|' * len(TOLD)}")
    for kind in ("normal", "opposed"):
        for each in (15, 45, 150):
            for uneven in (0.15, 0.4):
                found = [world(kind, each, uneven, args.people, seed) for seed in range(args.worlds)]
                print(f"| {kind} | {each} | {uneven} | {' | '.join(line(np.concatenate(found)))} |", flush=True)


if __name__ == "__main__":
    main()
