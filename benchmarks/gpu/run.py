"""What polypref does on a card, in one command: four parts, each stored when it is done, and one table.

    python benchmarks/gpu/run.py --out FOLDER [--parts 1,3] [--budget-minutes 60] [--shape 7b]
    python benchmarks/gpu/run.py --out FOLDER --miniature

Needs one card of the H100's class and no network; ``carry.py`` gathers what is installed there. ``--miniature`` runs
every part on the CPU in less than three minutes, with tiny shapes: it shows that all of it works, and its figures say
nothing about a card. The same command again goes on after the parts that are stored. ``--out`` also receives the random
7B (14 GB).

Ends with 0, with 1 if a part failed (the others are run all the same), with 2 if it cannot begin.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from part import Part, Place

PARTS = {"1": "part_reward", "2": "part_overhead", "3": "part_encoding", "4": "part_policy"}
ROOT = Path(__file__).parents[2]
HEAD = ("part", "line", "reached", "asked", "met")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Of the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, and of the random 7B")
    parser.add_argument("--parts", default=",".join(PARTS), help="numbers of the parts to run, in this order")
    parser.add_argument("--shape", choices=("tiny", "7b"), help="of the random Llama; 7b unless --miniature")
    parser.add_argument("--miniature", action="store_true", help="on the CPU, with tiny shapes")
    parser.add_argument("--budget-minutes", type=float, help="parts that would not end within it are dropped")
    parser.add_argument("--force", action="store_true", help="measure parts again that are stored")
    told = parser.parse_args(given)
    told.parts = [name.strip() for name in told.parts.split(",")]
    if unknown := [name for name in told.parts if name not in PARTS]:
        parser.error(f"--parts has {unknown[0]!r}; there are: {', '.join(PARTS)}.")
    if told.miniature and told.shape == "7b":
        parser.error("--miniature has tiny shapes; leave out --shape 7b.")
    if told.budget_minutes is not None and not told.budget_minutes > 0:
        parser.error(f"--budget-minutes is {told.budget_minutes:g}; expected a number above 0.")
    return told


def begun(told: argparse.Namespace) -> tuple[Place, list[Part]]:
    """The place and the parts. Raises SettingsError without a card or a package."""
    if told.miniature:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path += [str(ROOT / folder) for folder in ("benchmarks", "benchmarks/policy", "tests")]  # parts 2 and 3
    import torch
    from part import Place

    from polypref.errors import SettingsError

    if not told.miniature and not torch.cuda.is_available():
        raise SettingsError("there is no CUDA device; give --miniature to run every part in small on the CPU.")
    place = Place(told.out, told.shape or ("tiny" if told.miniature else "7b"), told.miniature)
    parts = [import_module(PARTS[name]).PART for name in told.parts]
    return place, parts


def chosen(place: Place, parts: Sequence[Part], budget: float | None, force: bool) -> list[Part]:
    """The parts that remain and fit; says the estimate, and what is dropped. Raises SettingsError."""
    from part import stored

    from polypref.terminal import say

    waiting = [part for part in parts if force or stored(part, place) is None]
    source = "measured on two cores" if place.miniature else "from the work to do, not measured on a card"
    told = "; ".join(f"{part.name} {part.minutes(place):.1f}" for part in waiting)
    kept = [part.name for part in parts if part not in waiting]
    say(f"estimated minutes ({source}): {told or 'none'}" + (f"; stored: {', '.join(kept)}" if kept else ""))
    return fitting(place, waiting, budget)


def fitting(place: Place, waiting: Sequence[Part], budget: float | None) -> list[Part]:
    """The parts before the first that would not end in ``budget`` minutes; says which are dropped."""
    from polypref.terminal import say

    total, fit = 0.0, 0
    for part in waiting:
        total += part.minutes(place)
        if budget is not None and total > budget:
            dropped = ", ".join(part.name for part in waiting[fit:])
            say(f"dropped, since they would not end within the {max(budget, 0):.1f} minutes that are left: {dropped}.")
            break
        fit += 1
    return list(waiting[:fit])


def measure(place: Place, waiting: Sequence[Part], budget: float | None) -> dict[str, str]:
    """Run and store the parts; returns why some have no result."""
    from part import store

    from polypref.errors import reason
    from polypref.terminal import fail, say

    start, failed, rest = time.monotonic(), {}, list(waiting)
    while rest:
        part, began = rest.pop(0), time.monotonic()
        say(f"{part.name}: {part.title}")
        try:
            with redirect_stdout(sys.stderr):  # standard output has the table alone
                found = part.run(place)
            store(part, place, found, time.monotonic() - began)
            say(f"{part.name}: done in {(time.monotonic() - began) / 60:.1f} minutes")
        except Exception as error:
            traceback.print_exc()
            failed[part.name] = f"{type(error).__name__}: {reason(error)}"
            fail(f"{part.name} failed ({failed[part.name]}); the next part follows.")
        if budget is not None:
            rest = fitting(place, rest, budget - (time.monotonic() - start) / 60)
    return failed


def table(place: Place, parts: Sequence[Part], failed: dict[str, str]) -> list[dict[str, str]]:
    """A row for each line of each part; a part without a result says so."""
    from part import stored

    rows: list[dict[str, str]] = []
    for part in parts:
        found = None if part.name in failed else stored(part, place)
        if found is None:
            why = failed.get(part.name, "not run")
            rows.append({"part": part.name, "line": part.title, "reached": why, "asked": "", "met": ""})
        else:
            rows += [{"part": part.name, **line} for line in found["lines"]]
    return rows


def written(place: Place, rows: list[dict[str, str]]) -> str:
    """The table as Markdown; it is stored as such and as JSON."""
    from part import PACKAGES, card

    from polypref.files import write, write_json
    from polypref.runs.machine import versions
    from polypref.wording import markdown_line, markdown_text

    content: dict[str, Any] = {"card": card(place), "settings": place.settings(), "versions": versions(PACKAGES)}
    write_json(place.out / "table.json", {**content, "rows": rows})
    lines = [[markdown_text(row[name]) for name in HEAD] for row in rows]
    text = "\n".join(map(markdown_line, [HEAD, ["---"] * len(HEAD), *lines])) + "\n"
    note = "In miniature, on the CPU: these figures say nothing about a card.\n\n" if place.miniature else ""
    write(place.out / "table.md", note + text)
    return note + text


def main(given: Sequence[str] | None = None) -> int:
    """Run the parts and print the table."""
    told = arguments(given)
    from polypref.errors import PolyprefError
    from polypref.files import held_for_run, made
    from polypref.terminal import block, fail

    try:
        place, parts = begun(told)
        with held_for_run(made(place.out)):
            waiting = chosen(place, parts, told.budget_minutes, told.force)
            for part in waiting:
                part.path(place).unlink(missing_ok=True)
            failed = measure(place, waiting, told.budget_minutes)
            block(written(place, table(place, parts, failed)))
    except PolyprefError as error:
        fail(str(error))
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
