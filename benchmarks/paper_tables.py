"""The evaluation paper's tables, measured anew: worlds and real sets through ``compare``, ``adapt`` and ``table``.

    python benchmarks/paper_tables.py --out runs/paper [--sets psoups-like llmfao] [--scale 0.1] [--new-users]

The worlds are made in the image of the paper's three data sets and measured at its sizes (``--scale 1``: 1,000, 10,000
and 50,000, 100,000 or 35,000 comparisons in all), so that they stand beside the published figures. Real people's sets
are measured at all their data and at a tenth. Finished cells are not computed again; files are written under --out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TRAIN_SHARE = 0.8  # of a world's pairs, give or take


@dataclass(frozen=True)
class World:
    """A simulated set: how many people, and the paper's sizes, in comparisons of all of them."""

    users: int
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Real:
    """Real people's judgements under --data: how they are cut, and a smaller size to measure."""

    flags: tuple[str, ...]
    sizes: tuple[int, ...]


SETS: dict[str, World | Real] = {
    "personalllm-like": World(8, (1000, 10_000, 100_000)),
    "tldr-like": World(5, (1000, 10_000, 35_000)),
    "psoups-like": World(6, (1000, 10_000, 50_000)),
    "two-tastes": World(40, (1000, 10_000)),
    "llmfao": Real(("--min-judgements", "40", "--split", "pair"), (300,)),
    "ukpconvarg1": Real(("--min-judgements", "60", "--split", "pair"), (3000,)),
    "polis_opendata": Real(("--min-judgements", "100", "--split", "response"), (20_000,)),
    "pandalm": Real((), (200,)),
    "squality_humaneval": Real((), (100,)),
}


def polypref(*words: str) -> None:
    """Run one command; its output goes to standard error, so that standard output holds the tables alone."""
    print("$ polypref", *words, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "polypref", *words], check=True, stdout=sys.stderr)


def prepared(name: str, chosen: World | Real, args: argparse.Namespace) -> tuple[Path, tuple[str, ...]]:
    """The set's file, simulated where it is not there yet, and the flags that cut it."""
    if isinstance(chosen, Real):
        return args.data / f"{name}.parquet", (*chosen.flags, "--sizes", *map(str, chosen.sizes))
    sizes = tuple(max(50, round(size * args.scale)) for size in chosen.sizes)
    each = sizes[-1] / TRAIN_SHARE / chosen.users
    judgements = round(each + 2 * each**0.5) + 1  # four standard deviations of the pairs that a split holds out
    file = args.out / "data" / f"{name}-{judgements}.parquet"
    if not file.exists():
        polypref("simulate", name, "--judgements", str(judgements), "--out", str(file))
    return file, ("--split", "pair", "--sizes", *map(str, sizes))


def measure(name: str, args: argparse.Namespace) -> Path:
    """Compare the learners on one set, and the routes for new people; returns the folder of the results."""
    file, cut = prepared(name, SETS[name], args)
    folder = args.out / name
    learners = ("--learners", *args.learners) if args.learners else ()
    common = ("--encoder", args.encoder, "--seeds", str(args.seeds))
    polypref("compare", str(file), *cut, *learners, *common, "--out", str(folder))
    if args.new_users is not None:
        routes = ("--learners", *args.new_users) if args.new_users else ()
        polypref("adapt", str(file), *routes, *common, "--out", str(folder))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POLYPREF_DATA", "../shared/data")))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--learners", nargs="+", default=[], help="default: the standard ones")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the worlds' sizes; below 1 for a quick look")
    parser.add_argument("--new-users", nargs="*", metavar="ROUTE", help="run adapt on every set, too; default: all")
    args = parser.parse_args()
    folders = []
    for name in args.sets:
        started = time.perf_counter()
        folders.append(measure(name, args))
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    polypref("table", *map(str, folders), "--out", str(args.out / "tables"))
    print((args.out / "tables" / "tables.md").read_text())


if __name__ == "__main__":
    main()
