"""What the gate adds to scoring once safety scores are remembered: for one slate and for many, bounds off and on.

python benchmarks/bounds/gate.py SCORER BOUNDS.TOML SLATES
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from polypref.bounds.bounds_file import load_bounds
from polypref.bounds.gate import Limits
from polypref.bounds.load_safety import safety_from
from polypref.bounds.slates import read_slates
from polypref.scorers import load

LOOKS = 30


def seconds(work) -> float:
    """Median of some looks."""
    found = []
    for _ in range(LOOKS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return median(found)


def main(folder: Path, bounds: Path, slates_file: str) -> None:
    calibrated = load_bounds(bounds)
    scorer = load(folder)
    bounded = calibrated.bind(scorer, safety_from(calibrated.file))
    pool = read_slates(slates_file).responses
    bounded.safety(pool)  # remembered from here on
    for many in (16, 256, len(pool)):
        some = pool.take(np.arange(many, dtype=np.int32))
        _ = some.identity_R
        free = seconds(lambda s=some: scorer.score(s, None))
        gated = seconds(lambda s=some: replace(bounded, limits=Limits()).score(s, None))
        held = seconds(lambda s=some: bounded.score(s, None))
        gate = seconds(lambda s=some: bounded.gate.passes(bounded.safety(s)))
        print(f"{many:>6,} responses: scoring {free * 1e3:.2f} ms; the gate's own work is {gate / free:.1%} of that")
        print(f"        with the gate {gated * 1e3:.2f} ms, with gate and cap {held * 1e3:.2f} ms")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
