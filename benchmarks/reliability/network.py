"""Every command on artifacts from elsewhere that name servers and models: is the network asked for anything?

python benchmarks/reliability/network.py

Sockets are denied in this process, and every attempt is counted: name look-ups, connections, datagrams. The artifacts
are of every kind that names an encoder or a model, with hashes that fit. A control run, in which the user names the
server, has to be seen; the environment holds an API key throughout.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import stage
from forge import forged
from runner import run_here

SERVER = "http://127.0.0.1:9/v1"
EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")
NAMES = (
    f"endpoint:{SERVER}/embeddings",
    "hf:nobody/nothing",
    f"static+endpoint:{SERVER}/embeddings",
    "minilm+hf:nobody/nothing",
)
ASKED: list[str] = []


def deny() -> None:
    """From now on this process reaches nothing; ASKED holds what it tried."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS:
            ASKED.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[:2]}")
            raise OSError(101, "Network is unreachable (denied by the study)")

    sys.addaudithook(watch)


# --- artifacts from elsewhere


def foreign(source: Path, target: Path, name: str) -> Path:
    """A copy of an artifact that names another encoder, wherever it named its own, under hashes that fit."""
    shutil.copytree(source, target)
    own, theirs = _identity("static"), _identity(name)

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(one) for key, one in value.items()}
        if isinstance(value, list):
            return [renamed(one) for one in value]
        return {"static": name, own: theirs}.get(value, value) if isinstance(value, str) else value

    forged(target, config=renamed)
    return target


def _identity(name: str) -> str:
    """What the encoder calls itself; the name where that cannot be told without its model."""
    from polypref.errors import PolyprefError
    from polypref.features import encoder

    try:
        return encoder(name).identity
    except (PolyprefError, OSError):
        return name


def judged(target: Path, model: str, ask: bool) -> Path:
    """A saved scorer that is a model elsewhere."""
    from polypref.learners.pretrained import Pretrained, PretrainedScorer
    from polypref.scorers import save

    save(PretrainedScorer(Pretrained(model, ask=ask), f"{model} label=0 sign=1", {}), target)
    return target


def scorers(world: Path, folder: Path) -> dict[str, Path]:
    """Foreign scorers by what they name."""
    made = {f"encoder {name}": folder / f"scorer-{n}" for n, name in enumerate(NAMES)}
    for name, place in zip(NAMES, made.values(), strict=True):
        foreign(world / "scorer-individual", place, name)
    made["a model to ask"] = judged(folder / "asked", f"{SERVER}#m", True)
    made["a model on the hub"] = judged(folder / "hub", "nobody/nothing", False)
    made["a model on the hub to ask"] = judged(folder / "hub-asked", "nobody/nothing", True)
    return made


# --- commands


QUICK = ("--tested", 100, "--recalibrations", 100, "--vectors", 100, "--tries", 0)
Case = tuple[str, str, tuple[object, ...]]  # command, what it is given, words


def cases(world: Path, folder: Path) -> list[tuple[str, str, list[str]]]:
    """All of them, words as text."""
    found: list[Case] = []
    for number, (what, place) in enumerate(scorers(world, folder).items()):
        found += of_scorer(world, place, f"scorer naming {what}", folder / f"out-{number}")
    for number, name in enumerate(NAMES):
        found += of_bounds(world, folder / f"bounds-{number}", name)
        group = foreign(world / "grouping", folder / f"grouping-{number}", name)
        words = ("groups", world / "pairs.jsonl", "--attribute", "group", "--out", group)
        found.append(("groups", f"over a grouping naming {name}", words))
    (folder / "arena.jsonl").write_bytes(stage.lines(stage.arena()))
    convert = ("convert", "arena", folder / "arena.jsonl", "--out", folder / "arena-out.jsonl")
    found += [
        ("check", "a file of another's", ("check", world / "pairs.jsonl")),
        ("profile", "a file of another's", ("profile", world / "pairs.jsonl")),
        ("convert", "a file of another's", convert),
        ("table", "results of another's", ("table", world / "results", "--out", folder / "tables")),
    ]
    return [(command, what, [str(word) for word in words]) for command, what, words in found]


def of_scorer(world: Path, place: Path, what: str, out: Path) -> list[Case]:
    """Every command that reads a scorer."""
    prefs, asked, bounds = world / "pairs.jsonl", world / "questions.jsonl", world / "bounds.toml"
    pooled, static = world / "scorer-pooled", ("--encoder", "static")
    held = ("--bounds", bounds, "--slates", world / "slates.jsonl", "--part", "3/3", *QUICK, "--out", out / "audit")
    tax = ("tax", world / "suite.jsonl", "--prefs", prefs, "--min-judgements", 1, "--draws", 50, "--out", out)
    over = place.with_name(f"{place.name}-over")
    shutil.copytree(place, over)
    found: list[Case] = [
        ("score", what, ("score", place, asked)),
        ("adapt", what, ("adapt", prefs, "--scorer", place, "--out", out / "taught")),
        ("tax", what, (*tax, "--scorer", place, "--pooled", pooled)),
        ("tax", f"pooled {what}", (*tax, "--scorer", pooled, "--pooled", place)),
        ("tax", f"base {what}", (*tax, "--base", place, "--learner", "pooled", *static)),
        ("bounds explain", what, ("bounds", "explain", bounds, "--scorer", place, "--questions", asked)),
        ("bounds certify", what, ("bounds", "certify", bounds, "--scorer", place, *held[2:6])),
        ("audit", what, ("audit", place, *held)),
        ("audit", f"aggregated {what}", ("audit", pooled, "--aggregated", place, *held)),
        ("fit", f"over a {what}", ("fit", prefs, "--learner", "length", *static, "--out", over)),
    ]
    if "align" in WITH:
        given = ("--model", world / "model", "--groups", "group", "--out", out / "aligned")
        found.append(("align", what, ("align", prefs, "--scorer", place, *given)))
    return found


def of_bounds(world: Path, place: Path, name: str) -> list[Case]:
    """Every command that reads a detector."""
    place.mkdir()
    for file in ("bounds.toml", "bounds.calibration.json"):
        shutil.copy(world / file, place / file)
    foreign(world / "safety", place / "safety", name)
    toml, what, pooled = place / "bounds.toml", f"detector naming {name}", world / "scorer-pooled"
    asked, cut = ("--questions", world / "questions.jsonl"), ("--slates", world / "slates.jsonl", "--part")
    return [
        ("bounds check", what, ("bounds", "check", toml)),
        ("bounds explain", what, ("bounds", "explain", toml, "--scorer", pooled, *asked)),
        ("bounds calibrate", what, ("bounds", "calibrate", toml, *cut, "2/3")),
        ("bounds detector", f"over a {what}", ("bounds", "detector", toml, *cut, "1/3", "--encoder", "static")),
        ("audit", what, ("audit", pooled, "--bounds", toml, *cut, "3/3", *QUICK, "--out", place / "audit")),
    ]


WITH: list[str] = []


def study(world: Path, folder: Path, only: str = "") -> dict[str, Any]:
    """Run them with sockets denied; the rows are (command, given, exit code, attempts, what was tried first)."""
    words = cases(world, folder)
    deny()
    os.environ["POLYPREF_API_KEY"] = "a-key-that-nobody-may-see"
    rows = []
    for command, what, arguments in words:
        if only in f"{command} {what}":
            ASKED.clear()
            one = run_here(arguments, folder)
            leaked = "a-key-that" in one.out + one.err
            rows.append([command, what, one.code, len(ASKED), (ASKED or [""])[0], one.kinds + ["key shown"] * leaked])
    ASKED.clear()
    control = foreign(world / "scorer-individual", folder / "control", NAMES[0])
    run_here(["score", str(control), str(world / "questions.jsonl"), "--encoder", NAMES[0]], folder)
    return {
        "study": "network",
        "commands": len(rows),
        "asked": sum(bool(row[3]) for row in rows),
        "faults": [row for row in rows if row[3] or row[5]],
        "control": len(ASKED),
        "rows": rows,
        "versions": stage.environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polypref-reliability")
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--align", action="store_true", help="with align, which loads a language model")
    chosen = parser.parse_args()
    world = stage.build(chosen.folder, (*stage.QUICK, *stage.KINDS))
    WITH[:] = ["align"] if chosen.align else []
    scratch = Path(tempfile.mkdtemp(prefix="network-"))
    try:
        found = study(world, scratch, chosen.only)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print("| command | given | exit code | asked of the network |\n|---|---|---:|---:|")
    for command, what, code, asked, _, _ in found.pop("rows"):
        print(f"| {command} | {what} | {code} | {asked} |")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
