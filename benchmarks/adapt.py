"""Time to take in a new user from 30 comparisons, and what new people gain in simulated and real data.

    python benchmarks/adapt.py                                 # times, features given, one core
    python benchmarks/adapt.py --world personalllm-like        # accuracy of new people; also --file FILE
    python benchmarks/adapt.py --learners hierarchical low-rank gpo --comparisons 30

Times are CPU times of one thread, the median of 50 runs, the scorer fitted on 300 users and 20,000 comparisons of
``speed.py``'s crowd with 64 features and two lengths a text.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from speed import crowd

from polypref.data.linting.lint import clean, lint
from polypref.data.read import read
from polypref.learners import Adapts
from polypref.newcomers.new_users import named_routes, new_users
from polypref.newcomers.tables import gain_lines, table_lines
from polypref.worlds import simulate


def times(names: list[str], comparisons: int) -> None:
    data, encoder = crowd(300, 20_000, 0)
    data.responses.keys_R, data.responses.identity_R, data.responses.lengths_R  # noqa: B018  # given, as features are
    few = data.take(np.flatnonzero(data.user_N == 3)[:comparisons])
    print(f"| learner | ms to learn a user from {len(few)} comparisons |\n|---|---|")
    for name, learner in named_routes(names).items():
        scorer = learner.fit(data, encoder=encoder, seed=0)
        if not isinstance(scorer, Adapts):
            continue
        spent = []
        for _ in range(50):
            before = time.process_time()
            scorer.adapt("new", few)
            spent.append(1000 * (time.process_time() - before))
        print(f"| {name} | {np.median(spent):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", nargs="*", default=["hierarchical", "low-rank", "personalized", "gpo"])
    parser.add_argument("--comparisons", type=int, default=30)
    parser.add_argument("--world")
    parser.add_argument("--file")
    parser.add_argument("--alpha", type=float, help="of the Dirichlet users of personalllm-like")
    parser.add_argument("--users", type=int, help="people of the world")
    parser.add_argument("--judgements", type=int, help="of each of them")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out")
    args = parser.parse_args()
    if not args.world and not args.file:
        times(args.learners, args.comparisons)
        return
    if args.file:
        reading = read([args.file])
        data = clean(reading, lint(reading))
    else:
        changes = {name: getattr(args, name) for name in ("alpha", "users", "judgements")}
        data = simulate(args.world, **{name: value for name, value in changes.items() if value is not None}).comparisons
    found = new_users(data, args.learners or None, seeds=args.seeds, out=args.out)
    for lines in (table_lines(found.contents), gain_lines(found.contents)):
        print(*("| " + " | ".join(line) + " |" for line in lines), sep="\n")
        print()
    gaps = [g for g in found.content["gaps"] if g["metric"] == "accuracy_micro" and g["size"] == args.comparisons]
    for gap in gaps:
        ends = "" if gap["lo"] is None else f" [{gap['lo']:+.3f}, {gap['hi']:+.3f}]"
        print(f"{gap['learner']} at {gap['size']} less {gap['baseline']}: {gap['value']:+.3f}{ends}")


if __name__ == "__main__":
    main()
