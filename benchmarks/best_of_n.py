"""Does a more accurate reward pick better responses? Accuracy and best of n under true utility, learner by learner.

    python benchmarks/best_of_n.py [--worlds two-tastes psoups-like personalllm-like] [--learners ...]

Each learner is fitted on the world's judgements less a held-out fifth of its pairs; accuracy is measured there, the
share of attainable true utility on 200 fresh prompts of 4, 16 and 64 responses (docs/worlds.md).
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
from scipy.stats import spearmanr

from polypref.data.split import split
from polypref.features import encoder
from polypref.learners import margins
from polypref.scorers import learner
from polypref.studies.best_of_n import best_of_n
from polypref.worlds import candidates, simulate

SIZES = (4, 16, 64)
NAMES = ("length", "pooled", "individual", "personalized", "personalized-cluster", "low-rank", "hierarchical")


def measure(world_name: str, args: argparse.Namespace) -> None:
    text_encoder = encoder(args.encoder)
    rows: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        world = simulate(world_name, judgements=args.judgements, seed=seed)
        choices = [candidates(world, args.prompts, n) for n in SIZES]
        parts = split(world.comparisons, "pair", seed)
        train, valid, test = (world.comparisons.take(r) for r in (parts.train_rows, parts.valid_rows, parts.test_rows))
        for name in args.learners:
            scorer = learner(name).fit(train, encoder=text_encoder, seed=seed, valid=valid)
            right = (margins(scorer, test).value_Q > 0).mean()
            found = [best_of_n(scorer, world, choice) for choice in choices]
            worst = found[1].share_U.min()
            rows.setdefault(name, []).append([right, *(f.mean for f in found), worst, found[1].se])  # type: ignore[arg-type]
            print(f"{world_name}, seed {seed}, {name}: {np.round(rows[name][-1], 3).tolist()}", flush=True)
    print(f"\n### {world_name}, {args.judgements} judgements each, {args.seeds} seeds\n")
    print("| learner | accuracy | best of 4 | best of 16 | best of 64 | worst user, of 16 |\n" + "|---" * 6 + "|")
    mean = {name: np.mean(values, axis=0) for name, values in rows.items()}
    for name, (right, four, sixteen, many, worst, se) in mean.items():
        print(f"| {name} | {right:.3f} | {four:.3f} | {sixteen:.3f} ± {se:.3f} | {many:.3f} | {worst:.3f} |")
    if len(mean) > 2:
        table = np.array(list(mean.values()))
        print(f"\nRank correlation of accuracy with best of 16: {spearmanr(table[:, 0], table[:, 2]).statistic:.2f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=["two-tastes", "psoups-like", "personalllm-like"])
    parser.add_argument("--learners", nargs="+", default=list(NAMES))
    parser.add_argument("--judgements", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", default="minilm")
    args = parser.parse_args()
    for world in args.worlds:
        measure(world, args)


if __name__ == "__main__":
    main()
