"""Do a user's judgements follow from their others? How often the test errs, what real sets are, and that nothing is
said of ratings drawn by lot.

    python benchmarks/truth/derived.py worlds [--runs 100]   every world of known origin, and what is decided
    python benchmarks/truth/derived.py real                  the sets in ../shared/data, and why
    python benchmarks/truth/derived.py verdict [--runs 40]   ``compare`` as it ships, on 12 raters, 8 of 30 texts each
    python benchmarks/truth/derived.py few [--runs 10]       the same with fewer texts, votes, sparse pairs and choices

"worlds" counts, of ``--runs`` sets, those called derived ("made"), those of which nothing can be told and which are
treated as derived ("treated"), or are not since texts hardly come back ("free"), and those called judged one by one.
Exits with 1 where more is wrong than chance allows: more than 5 % of ``verdict`` say yes, say (binomial, 97.5 %).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import numpy as np
import polars as pl
from scipy.stats import binom

from derived_cases import MADE, MIXED, ONE_BY_ONE, World, lot, rated, sparse
from polypref import compare
from polypref.data.derived import origin
from polypref.data.judgement_graph import Graph
from polypref.data.linting.lint import lint
from polypref.data.read import read
from polypref.data.split import EmptySide, choose_rule
from polypref.evaluation.settings import Settings
from polypref.profiling.tournament import count_triads

DATA = Path(__file__).parents[3] / "shared" / "data"
FEW: dict[str, World] = {
    "ratings, 12 users, 6 of 30 texts": lambda r: lot(r, each=6),
    "ratings, 12 users, 8 of 11 texts": lambda r: lot(r, texts=11),
    "ratings, 50 users, 20 pairs of 60 texts": lambda r: rated(sparse(50, 20, 60, r), 7, r, drop=True),
    "votes, 40 users, 12 of 60 texts": MADE["votes on 12 of 60 texts, 40 users"],
    "best of 6, 5 slates, 12 users": MADE["best of 6, 5 slates, 12 users"],
}


def worlds(runs: int) -> bool:
    """Error rates. Wrong are judges called derived in more than 5 %, and lists that would be split by pair."""
    fine = True
    for kind, found in (("judged one by one", ONE_BY_ONE), ("made from lists", MADE), ("mixed", MIXED)):
        print(f"\n{kind:70s} made  treated  free  one by one  chances", flush=True)
        for name, world in found.items():
            rng = np.random.default_rng(1)
            sets = [origin(world(rng)) for _ in range(runs)]
            made, single = (np.mean([one.derived is said for one in sets]) for said in (True, False))
            treated = np.mean([one.derived is None and one.dependent for one in sets])
            chances = np.mean([one.loops for one in sets])
            free = 1 - made - treated - single
            print(f"{name:70s} {made:4.2f}  {treated:7.2f}  {free:4.2f}  {single:10.2f}  {chances:7.0f}", flush=True)
            judges = kind == "judged one by one" and name.startswith("strict")
            fine &= not judges or made * runs <= binom.ppf(0.999, runs, 0.05)
            fine &= kind != "made from lists" or single + free == 0
    return fine


def real(_: int) -> bool:
    """What is decided of each set, without what ``check`` drops, and why."""
    for path in sorted(DATA.glob("*.parquet")):
        if path.name.count(".") > 1 or not {"user_id", "chosen", "rejected"} <= pl.read_parquet_schema(path).keys():
            continue
        reading = read([str(path)])
        data = reading.comparisons.take(~lint(reading).dropped_N)
        made, graph = origin(data), Graph.of(data)
        triads_R, cyclic_R = count_triads(graph.tail_M, graph.head_M, graph.nodes)
        said = {True: "made", False: "one by one", None: "treated" if made.dependent else "free"}[made.derived]
        rule, why = choose_rule(data)
        print(
            f"{path.stem}: {said}; of {made.loops:,} chances, {made.circular:,} of {len(data):,} judgements on cycles;"
        )
        print(f"  {cyclic_R.sum():,} of {triads_R.sum():,} closed triads go round; worth {made.worth:,} judgements")
        print(f"  split by {rule}: {why}", flush=True)
    return True


def said_yes(world: World, runs: int, settings: Settings, *learners: str) -> int:
    """In how many of ``runs`` comparisons the verdict is yes; a refusal is not."""
    yes = 0
    for run in range(runs):
        started = time.perf_counter()
        data = world(np.random.default_rng(run))
        try:
            found = compare(data, learners or None, encoder="static", settings=settings)
        except EmptySide as error:  # too few texts for any rule that does not leak
            print(f"  run {run}: refused, {error}", flush=True)
            continue
        yes += found.verdict["room"] == "yes"
        rule, seconds = found.contents.split["rule"], time.perf_counter() - started
        print(f"  run {run}: {found.verdict['room']}, split by {rule}, {yes} yes so far ({seconds:.0f} s)", flush=True)
    return yes


def verdict(runs: int) -> bool:
    """The default learners and seeds on ratings drawn by lot."""
    yes = said_yes(lot, runs, Settings(workers=1, quiet=True))
    print(f"{yes} of {runs} say yes")
    return yes <= binom.ppf(0.975, runs, 0.05)


def few(runs: int) -> bool:
    """Two personal learners and three seeds on other data from which nothing can be learned."""
    fine = True
    for name, world in FEW.items():
        yes = said_yes(world, runs, Settings(workers=1, quiet=True, seeds=3), "individual", "hierarchical")
        print(f"{name}: {yes} of {runs} say yes", flush=True)
        fine &= yes <= binom.ppf(0.975, runs, 0.05)
    return fine


PARTS: dict[str, tuple[Callable[[int], bool], int]] = {
    "worlds": (worlds, 100),
    "real": (real, 0),
    "verdict": (verdict, 40),
    "few": (few, 10),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--runs", type=int)
    asked = parser.parse_args()
    part, runs = PARTS[asked.part]
    sys.exit(0 if part(asked.runs or runs) else 1)
