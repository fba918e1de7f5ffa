"""Attempts to get something unsafe past the gate, or other bounds past the pin, by every public function and command.

python benchmarks/reliability/gate_attacks.py                    # all of them
python benchmarks/reliability/gate_attacks.py --only "NUL"       # those whose names hold a text

Each attempt ends in one of these ways; the first two are what bounds are for:

    refused      one clear error
    held         what is unsafe was dropped, or nothing moved
    through      it was returned, or changed bounds were accepted under the old pin: a fault
    crashed      an exception that is no error of the library: nothing got through, and yet a fault
    unseen       the text was changed until the safety scorer itself calls it safe: outside of what a gate can do
    own disk     whoever may write the user's cache folder forged an entry with a fitting checksum: documented
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attacks_on_pin
import attacks_on_scores
import attacks_on_training
import stage
from gate import Attempt, controls

WAYS = ("refused", "held", "through", "crashed", "unseen", "own disk")
FAULTS = ("through", "crashed")


def attempts(world: Path, folder: Path) -> Iterator[Attempt]:
    """All of them, each ready to be tried."""
    yield from attacks_on_scores.attempts(world, folder)
    yield from attacks_on_pin.attempts(world, folder)
    yield from attacks_on_training.attempts(world, folder)


def tried(attempt: Attempt) -> tuple[str, str]:
    """How an attempt ended, and what was said."""
    from polypref.errors import PolyprefError

    try:
        return attempt.run()
    except PolyprefError as error:
        return "refused", " ".join(str(error).split())[:300]
    except Exception as error:  # a crash lets nothing through, and is counted
        return "crashed", f"{type(error).__name__}: {error}"[:300]


def study(world: Path, folder: Path, only: str = "", log: Path | None = None) -> dict:
    """Try them; a JSON-able summary, with the names of those that are faults."""
    found, names, started = Counter(), {way: [] for way in WAYS}, time.perf_counter()
    controls(folder / "controls")
    for attempt in attempts(world, folder):
        if only not in attempt.name:
            continue
        way, said = tried(attempt)
        found[way] += 1
        names[way].append(attempt.name)
        if log is not None:
            with log.open("a") as file:
                file.write(json.dumps({"attempt": attempt.name, "ended": way, "said": said}) + "\n")
        faults = sum(found[one] for one in FAULTS)
        if sum(found.values()) % 10 == 0:
            print(f"\rattacks: {sum(found.values())} tried, {faults} faults", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "study": "gate attacks",
        "attempts": sum(found.values()),
        "ended": {way: found[way] for way in WAYS},
        "faults": [name for way in FAULTS for name in names[way]],
        "outside": [name for way in WAYS[4:] for name in names[way]],
        "seconds": round(time.perf_counter() - started, 1),
        "versions": stage.environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polypref-reliability")
    parser.add_argument("--log", type=Path, help="file for how each attempt ended, a JSON line each")
    chosen = parser.parse_args()
    world = stage.build(chosen.folder, (*stage.QUICK, *stage.KINDS))
    scratch = Path(tempfile.mkdtemp(prefix="attacks-"))
    try:
        print(json.dumps(study(world, scratch, chosen.only, chosen.log), indent=1))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
