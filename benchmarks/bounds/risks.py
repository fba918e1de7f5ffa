"""Slow risks in simulated communities, as a table: what ``docs/risks.md`` quotes.

python benchmarks/bounds/risks.py                         # all risks, 5 seeds
python benchmarks/bounds/risks.py --only lock-in --seeds 2 --json risks.json
python benchmarks/bounds/risks.py --file FILE             # membership and re-identification on real judgements
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from polypref.data.linting.lint import clean, lint
from polypref.data.read import read
from polypref.evaluation.cohorts import keep_users
from polypref.features import encoder as encoder_by_name
from polypref.files import write_json
from polypref.learners import LEARNERS
from polypref.learners.hierarchical import Hierarchical
from polypref.studies.risks import RISKS, SlowRisks, slow_risks
from polypref.studies.risks.privacy import as_strangers, membership, rank_one


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def show(rows: list[dict]) -> None:
    print("| risk | measure | arm | value | 95 % interval | n |\n|---|---|---|---|---|---|")
    for row in rows:
        ends = "-" if row["lo"] is None else f"{number(row['lo'])} to {number(row['hi'])}"
        print(f"| {row['risk']} | {row['measure']} | {row['arm']} | {number(row['value'])} | {ends} | {row['n']} |")


def real(path: str, encoder_name: str, pairs: int) -> None:
    """On a file: the attack on shared parts, and whether two halves of a user (no text pair in both) match."""
    reading = read([path])
    data = keep_users(clean(reading, lint(reading)), 20).comparisons
    users, encoder = np.unique(data.user_N), encoder_by_name(encoder_name)
    print(f"{len(users)} users with at least 20 judgements, {len(data)} judgements, encoder {encoder_name}")
    for name in ("pooled", "pooled-effects"):

        def fit(rows, seed, learner=LEARNERS[name]):
            return as_strangers(learner.fit(rows, encoder=encoder, seed=0))

        told = membership(fit, data, pairs, 0)
        print(f"membership, {name}: {told}", flush=True)
    half_of = np.random.default_rng(0).permutation(len(data.responses)) % 2
    side_N = half_of[np.minimum(data.chosen_N, data.rejected_N)]
    enough = [u for u in users if min(np.bincount(side_N[data.user_N == u], minlength=2)) >= 10]
    known = enough[::2]
    scorer = Hierarchical().fit(data.take(~np.isin(data.user_N, known)), encoder=encoder, seed=0)
    vectors: list[list[np.ndarray]] = [[], []]
    for side, found in enumerate(vectors):
        for u in known:
            own = data.take((data.user_N == u) & (side_N == side))
            found.append(scorer.adapt("somebody", own).newcomers["somebody"].weights_K)
    told = rank_one(np.stack(vectors[0]), np.stack(vectors[1]))
    print(f"re-identification of {len(known)} people, given a fit on others: {told:.3f}, chance {1 / len(known):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(RISKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--file", help="real judgements instead of simulated communities")
    parser.add_argument("--encoder", default="static")
    parser.add_argument("--pairs", type=int, default=6)
    args = parser.parse_args()
    started = time.perf_counter()
    if args.file:
        real(args.file, args.encoder, args.pairs)
    else:
        found = slow_risks(SlowRisks(seeds=args.seeds), args.only)
        show(found["rows"])
        if args.json:
            write_json(Path(args.json), found)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
