"""Mutated inputs over all readers, and malformed artifacts, caches and settings files: nothing may end in a traceback.

python benchmarks/reliability/mutants.py                          # 5,000 inputs and 1,000 artifacts, seed 0
python benchmarks/reliability/mutants.py --inputs 200 --artifacts 50 --seed 3
python benchmarks/reliability/mutants.py --only inputs:1234       # one case: its command, its files, what it said

Counted: tracebacks (any exception but an exit with 0, 1 or 2; panics of native libraries; "Traceback" in what is
printed), hangs (over 30 s), deaths of the process, control characters printed (C0 but newline and tab, C1, marks of
direction, U+2028 and U+2029, surrogates), errors of more lines than one. Cases run in one process, as in a service.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import mutants_of_artifacts
import stage
from hostile import FILE_NAMES, FORMATS
from mutations import encoded, put, spoil_bytes, spoil_columns, spoil_count, spoil_inside, spoil_values
from runner import Outcome, Worker, run_here

LIMIT = 6 * 2**30  # bytes of address space: a reader without bounds dies here and not the machine
ROW_WAYS = (spoil_values, spoil_values, spoil_inside, spoil_columns, spoil_count)
AUDIT = ("--tested", 100, "--recalibrations", 100, "--vectors", 100, "--tries", 0)
FEW = ("--min-judgements", 1, "--draws", 50)


def readers(folder: Path, draw: Random, out: Path) -> tuple[list[stage.Row], str, tuple[object, ...]]:
    """Rows, the format to write them in, and the command's words; FILE stands for the file."""
    what = draw.choices(("layouts", "questions", "slates", "suite", "published"), (60, 10, 10, 8, 12))[0]
    form = draw.choice(FORMATS)
    static, pooled, own = ("--encoder", "static"), folder / "scorer-pooled", folder / "scorer-random"
    if what == "layouts":
        rows = stage.LAYOUTS[draw.choice(list(stage.LAYOUTS))]()
        fit = ("fit", "FILE", "--learner", draw.choice(("random", "length", "pooled", "individual")), *static)
        group = ("groups", "FILE", "--attribute", "group", "--out", out)
        tax = ("tax", folder / "suite.jsonl", "--prefs", "FILE", "--scorer", pooled, "--pooled", own, "--out", out)
        teach = ("adapt", "FILE", "--scorer", folder / "scorer-individual", "--out", out)
        words: list[tuple[object, ...]] = [("check", "FILE"), ("check", "FILE", "--json"), ("profile", "FILE")]
        words += [(*fit, "--out", out), group, (*tax, *FEW), teach]
        words += [("check", folder / "pairs.jsonl", "--ties", "FILE"), ("check", "FILE", "--rating-gap", 1)]
        words += [("audit", pooled, "--bounds", folder / "bounds.toml", "--slates", folder / "slates.jsonl", "--part")]
        words[-1] += ("3/3", *AUDIT, "--held-out", "FILE", "--out", out)
        return rows, form, draw.choices(words, (22, 8, 22, 22, 8, 6, 6, 3, 2, 1))[0]
    if what == "questions":
        explain = ("bounds", "explain", folder / "bounds.toml", "--scorer", pooled, "--questions", "FILE")
        return (
            stage.questions(),
            form,
            draw.choice((("score", pooled, "FILE"), ("score", own, "FILE", "--out", out), explain)),
        )
    if what == "slates":
        rows, cut = stage.slates(), ("--slates", "FILE")
        copied = out.parent / "bounds"
        shutil.copytree(folder / "safety", copied / "safety")
        for name in ("bounds.toml", "bounds.calibration.json"):
            shutil.copy(folder / name, copied / name)
        toml = copied / "bounds.toml"
        words = [("bounds", "calibrate", toml, *cut, "--part", "2/3"), ("bounds", "detector", toml, *cut, *static)]
        words += [
            ("bounds", "certify", toml, *cut, "--scorer", pooled),
            ("audit", pooled, "--bounds", toml, *cut, *AUDIT, "--out", out),
        ]
        return rows, form, draw.choices(words, (4, 2, 2, 1))[0]
    if what == "suite":
        fitted = ("--scorer", pooled, "--pooled", own, "--prefs", folder / "pairs.jsonl", *FEW)
        return stage.suite(), form, ("tax", "FILE", *fitted, "--out", out)
    name = draw.choice(list(stage.PUBLISHED))
    form = (
        "json"
        if name == "psoups" and draw.random() < 0.7
        else draw.choice(("jsonl", "jsonl", "parquet", "jsonl.gz", "json"))
    )
    return (
        stage.PUBLISHED[name](),
        form,
        ("convert", name, "FILE", "--out", out.with_suffix(draw.choice((".jsonl", ".csv", ".parquet")))),
    )


def input_case(folder: Path, scratch: Path, draw: Random) -> list[str]:
    """Write one mutated input under ``scratch``; the words of the command that reads it."""
    rows, form, words = readers(folder, draw, scratch / "out")
    name = {"psoups": "P1A"}.get(str(words[1]), "prefs") + "." + form
    way = draw.choices(("rows", "bytes", "both", "place", "name"), (45, 35, 8, 7, 5))[0]
    for _ in range(draw.choice((1, 1, 2, 3)) if way in ("rows", "both") else 0):
        rows = draw.choice(ROW_WAYS)(rows, draw) if rows and rows[0] else rows
    content = encoded(rows, form, draw) if rows else b""
    for _ in range(draw.choice((1, 1, 2)) if way in ("bytes", "both") else 0):
        content = spoil_bytes(content, draw)
    if way == "name":
        name = draw.choice(FILE_NAMES)
    path = scratch / name
    if way == "place":
        put(
            path,
            content,
            folder / draw.choice(("slates.jsonl", "bounds.toml", "scorer-pooled/manifest.json")),
            draw,
        )
    else:
        path.write_bytes(content)
    return [str(path) if word == "FILE" else str(word) for word in words]


def prepare(arguments: list[str], limited: bool = True):
    """What a worker runs: from a case's part and number to its outcome. See ``runner.work``."""
    folder, seed, keep = Path(arguments[0]), int(arguments[1]), arguments[2:] == ["keep"]
    stage.use_cache(folder / "cache")
    import polypref.bounds.bounds_file
    import polypref.cli.check
    import polypref.cli.fit
    import polypref.cli.profile  # noqa: F401  what is loaded before the limit does not count

    stage.command("score", folder / "scorer-pooled", folder / "questions.jsonl", "--out", folder / "warm.jsonl")
    if limited:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

    def run(case: list) -> Outcome:
        part, number = case
        scratch = Path(tempfile.mkdtemp(prefix="mutant-"))
        draw = Random(f"{seed} {part} {number}")
        try:
            work = scratch / "work"
            work.mkdir()
            if part == "inputs":
                words, cache = input_case(folder, work, draw), None
            else:
                words, cache = mutants_of_artifacts.case(folder, work, draw)
            if keep:
                print(f"files: {scratch}\npolypref {' '.join(map(repr, words))}", file=sys.stderr)
            (folder / "last").write_text(f"polypref {' '.join(map(repr, words))}")
            os.environ["POLYPREF_CACHE"] = str(cache or folder / "cache")
            before = Path.cwd()
            os.chdir(work)
            found = (
                mutants_of_artifacts.run_python(words, scratch) if words[0] == "python" else run_here(words, scratch)
            )
            os.chdir(before)
            found.out = f"{words[:3]} {found.out}"[:3000] if found.kinds else ""
            found.err = found.err[:3000] if found.kinds or keep else ""
            return found
        finally:
            os.environ["POLYPREF_CACHE"] = str(folder / "cache")
            if not keep:
                shutil.rmtree(scratch, ignore_errors=True)

    return run


def where(error: str) -> str:
    """The last place of ours in a traceback, and the exception: cases that agree here are one fault."""
    lines = [line.strip() for line in error.splitlines()]
    own = [line for line in lines if line.startswith("File ") and "polypref" in line and "/benchmarks/" not in line]
    place = own[-1].split("polypref/")[-1].replace('"', "") if own else "?"
    return f"{place}: {(lines or ['?'])[-1][:100]}"


def study(folder: Path, counts: dict[str, int], seed: int, log: Path | None = None, limit: float = 30.0) -> dict:
    """Run so many cases of each part; a JSON-able summary. What went wrong is written to ``log``, a line each."""
    found: dict = {part: Counter() for part in counts}
    faults: Counter = Counter()
    worker, slowest, started = Worker("mutants", [str(folder), str(seed)], limit), 0.0, time.perf_counter()
    try:
        for part, many in counts.items():
            for number in range(many):
                one = worker([part, number])
                if {"hang", "death"} & set(one.kinds):
                    one.out = (folder / "last").read_text()
                found[part].update([f"exit {one.code}" if one.code is not None else "no exit code", *one.kinds])
                slowest = max(slowest, one.seconds)
                for kind in one.kinds:
                    faults[f"{kind}: {where(one.error) if one.error else (one.err or one.out)[-120:]}"] += 1
                if one.kinds and log is not None:
                    told = {"case": f"{part}:{number}", "kinds": one.kinds, "error": one.error[-1500:]}
                    told |= {
                        "out": one.out[:300],
                        "err": one.err[:600],
                        "seconds": one.seconds,
                        "mebibytes": one.mebibytes,
                    }
                    with log.open("a") as file:
                        file.write(json.dumps(told) + "\n")
                if number % 20 == 19 or number == many - 1:
                    bad = sum(count for kind, count in found[part].items() if not kind.startswith("exit"))
                    print(f"\r{part}: {number + 1} of {many}, {bad} faults", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
    finally:
        worker.close()
    return {
        "study": "mutants",
        "seed": seed,
        "cases": counts,
        "found": {part: dict(sorted(one.items())) for part, one in found.items()},
        "faults": dict(faults.most_common()),
        "slowest_seconds": slowest,
        "seconds": round(time.perf_counter() - started, 1),
        "versions": stage.environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--artifacts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polypref-reliability")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds until a case is called a hang")
    parser.add_argument("--log", type=Path, help="file for what went wrong, a JSON line each")
    parser.add_argument("--only", metavar="PART:NUMBER", help="run one case, and keep its files")
    chosen = parser.parse_args()
    folder = stage.build(chosen.folder, (*stage.QUICK, *stage.KINDS))
    if chosen.only:
        part, number = chosen.only.split(":")
        one = prepare([str(folder), str(chosen.seed), "keep"])([part, int(number)])
        print(one.error or one.err, one.out, one.code, one.kinds, sep="\n")
        return
    counts = {"inputs": chosen.inputs, "artifacts": chosen.artifacts}
    print(json.dumps(study(folder, counts, chosen.seed, chosen.log, chosen.limit), indent=1))


if __name__ == "__main__":
    main()
