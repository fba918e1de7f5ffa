"""SIGKILL at chosen moments of every command that keeps what it finished: what is left, and what the next run does.

python benchmarks/reliability/kills.py                              # 100 kills of each of seven commands
python benchmarks/reliability/kills.py --commands fit groups --kills 20
python benchmarks/reliability/kills.py --only fit:17:main            # one moment; its folder is kept

A run is repeated with kills at moments spread evenly over its calls that change a disk (see ``killer``): of its main
process, of the process that makes the call, or of all its processes at once. After each kill: processes that are left,
whether an artifact that was there can still be loaded, then the same command again: its exit code, finished units that
were made again, files that an unkilled run does not leave (in the output's folder, TMPDIR, the cache), and whether the
results are those of an unkilled run, byte for byte but for times.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random

import stage
from runs_to_kill import RUNS, Run

HERE = Path(__file__).parent
WHO = ("main", "self", "group")
TIMES = re.compile(r"second|timing|time|cells_run|started|finished|duration|runtime|per_second")
PROBE = re.compile(r"tmp/[a-z0-9_]{8}")  # Python's own, by which it finds out whether TMPDIR can be written
PATIENCE = 600.0  # seconds for one run


@dataclass
class Ended:
    """One run: its exit code (negative: the signal), seconds, and the session it led."""

    code: int
    seconds: float
    session: int
    said: str


class Zygote:
    """Starts runs of one command; see ``zygote``."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        words = [sys.executable, str(HERE / "zygote.py"), *modules]
        self.process = subprocess.Popen(words, **pipes)  # type: ignore[call-overload]
        assert self._line(1200) == "ready\n", "the runs' parent did not start"

    def _line(self, seconds: float) -> str:
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready else ""

    def run(self, words: list[str], folder: Path, environment: dict[str, str]) -> Ended:
        out, started = folder / "said.txt", time.perf_counter()
        run = {"words": words, "folder": str(folder), "environment": environment, "out": str(out)}
        self.process.stdin.write(json.dumps(run) + "\n")
        self.process.stdin.flush()
        pid = json.loads(self._line(30))["pid"]
        line = self._line(PATIENCE)
        if not line:
            os.killpg(pid, 9)
            line = self._line(30)
        said = out.read_text(errors="replace") if out.exists() else ""
        out.unlink(missing_ok=True)
        return Ended(json.loads(line)["status"], time.perf_counter() - started, pid, said)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def of_session(session: int) -> list[int]:
    """Processes that belong to a session and run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def orphans(session: int, patience: float = 3.0) -> int:
    """Processes of the session that are still there after a while; they are then killed."""
    end = time.perf_counter() + patience
    while (left := of_session(session)) and time.perf_counter() < end:
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, 9)
    return len(left)


def paths_in(folder: Path) -> Counter[str]:
    """Files and folders by name, how many of each: arrays are named by their content, times among it."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return Counter(re.sub(r"[0-9a-f]{64}", "HASH", name) for name in names)


def results_in(folder: Path, run: Run) -> dict[str, str]:
    """Hashes of the files of the results; JSON without times."""
    found = {}
    for path in sorted((folder / run.out).rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix in (".json", ".jsonl"):
                content = _untimed(content)
            found[str(path.relative_to(folder))] = sha256(content).hexdigest()
    return found


def _untimed(content: bytes) -> bytes:
    def clean(value):
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items() if not TIMES.search(key)}
        return [clean(one) for one in value] if isinstance(value, list) else value

    try:
        return json.dumps(
            [clean(json.loads(line)) for line in (content.splitlines() if b"}\n{" in content else [content])]
        ).encode()
    except ValueError:
        return content


def units_in(folder: Path, run: Run) -> dict[str, tuple[int, int]]:
    """Finished units: when each was written, and its place on the disk."""
    return (
        {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.glob(run.units)}
        if run.units
        else {}
    )


class Sandbox:
    """A folder of a run's own: its inputs, output, TMPDIR and cache."""

    def __init__(self, world: Path, run: Run, parent: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"kill-{run.name}-", dir=parent))
        (self.folder / "tmp").mkdir()
        shutil.copytree(world / "cache", self.folder / "cache", copy_function=stage.linked)
        run.prepare(world, self.folder)

    def environment(self, at: int, who: str) -> dict[str, str]:
        counter = self.folder.with_suffix(".count")
        counter.unlink(missing_ok=True)
        plan = {"counter": str(counter), "at": at, "who": who, "root": str(self.folder)}
        own = {
            "TMPDIR": str(self.folder / "tmp"),
            "POLYPREF_CACHE": str(self.folder / "cache"),
            "POLYPREF_KILL": json.dumps(plan),
        }
        return own | {
            "PYTHONPATH": f"{HERE / 'hook'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": "1",
        }

    def calls(self) -> int:
        return self.folder.with_suffix(".count").stat().st_size

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.with_suffix(".count").unlink(missing_ok=True)


@dataclass
class Reference:
    """What an unkilled run leaves, and how many calls it makes; ``varying`` files differ between two such runs."""

    calls: int
    results: dict[str, str]
    paths: Counter[str]
    varying: list[str]
    seconds: float


def reference(world: Path, run: Run, zygote: Zygote, parent: Path) -> Reference:
    results, paths, calls, seconds = [], Counter(), 0, 0.0
    for _ in range(2):
        box = Sandbox(world, run, parent)
        ended = zygote.run(list(run.words), box.folder, box.environment(0, "main"))
        if ended.code:
            raise RuntimeError(f"{run.name} does not run: {ended.code} {ended.said[-800:]}")
        results.append(results_in(box.folder, run))
        paths |= paths_in(box.folder)
        calls, seconds = box.calls(), ended.seconds
        box.remove()
    varying = sorted(name for name in results[0] if results[0][name] != results[1].get(name))
    return Reference(calls, results[0], paths, varying, seconds)


def one_kill(box: Sandbox, run: Run, zygote: Zygote, wanted: Reference, at: int, who: str) -> list[str]:
    """Kill at call ``at``, look, run again, look again; what went wrong."""
    wrong = []
    ended = zygote.run(list(run.words), box.folder, box.environment(at, who))
    if left := orphans(ended.session):
        wrong.append(f"orphans: {left} processes")
    if run.usable is not None and (why := run.usable(box.folder)):
        wrong.append(f"lost: {why}")
    before = units_in(box.folder, run)
    again = zygote.run(list(run.words), box.folder, box.environment(0, "main"))
    if again.code:
        wrong.append(f"rerun: ended with {again.code}: {again.said[-300:]}")
    after = units_in(box.folder, run)
    redone = sum(after.get(name) != stamp for name, stamp in before.items())
    if redone:
        wrong.append(f"redone: {redone} of {len(before)} finished units")
    more = sorted(paths_in(box.folder) - wanted.paths)
    if more := [name for name in more if not PROBE.fullmatch(name)]:
        wrong.append(f"leftovers: {', '.join(more[:4])}")
    results = results_in(box.folder, run)
    compared = wanted.results.items() if not again.code else ()
    unlike = sorted(name for name, value in compared if name not in wanted.varying and results.get(name) != value)
    if unlike:
        wrong.append(f"results differ: {', '.join(unlike[:4])}")
    return wrong


def study_of(world: Path, run: Run, kills: int, parent: Path, log: Path | None, until: float) -> dict:
    """The kills of one command."""
    zygote, started = Zygote(run.modules), time.perf_counter()
    found, done = Counter(), 0
    try:
        wanted = reference(world, run, zygote, parent)
        for number in Random(0).sample(range(kills), kills):  # so that a study cut short has seen all of the run
            if time.perf_counter() > until:
                break
            at, who = 1 + number * wanted.calls // kills, WHO[number % 3]
            box = Sandbox(world, run, parent)
            wrong = one_kill(box, run, zygote, wanted, at, who)
            found.update(one.split(":")[0] for one in wrong)
            done += 1
            if wrong and log is not None:
                with log.open("a") as file:
                    file.write(json.dumps({"case": f"{run.name}:{at}:{who}", "wrong": wrong}) + "\n")
            box.remove()
            told = f"{run.name}: {done} of {kills} kills, {sum(found.values())} faults"
            print(f"\r{told}", end="", file=sys.stderr, flush=True)
    finally:
        zygote.close()
    print(file=sys.stderr)
    seconds = round(time.perf_counter() - started, 1)
    about = {"kills": done, "calls": wanted.calls, "faults": dict(found), "not compared": wanted.varying}
    return about | {"seconds": seconds, "seconds_of_a_run": round(wanted.seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=sorted(RUNS), default=list(RUNS))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=1e6, help="stop each command's kills after so many")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polypref-reliability")
    parser.add_argument("--log", type=Path, help="file for what went wrong, a JSON line each")
    parser.add_argument("--only", metavar="COMMAND:CALL:WHO", help="one moment, its folder kept")
    chosen = parser.parse_args()
    world = stage.build(chosen.folder, (*stage.QUICK, *stage.KINDS))
    parent = Path(tempfile.mkdtemp(prefix="kills-"))
    if chosen.only:
        name, at, who = chosen.only.split(":")
        zygote = Zygote(RUNS[name].modules)
        wanted = reference(world, RUNS[name], zygote, parent)
        box = Sandbox(world, RUNS[name], parent)
        print(*one_kill(box, RUNS[name], zygote, wanted, int(at), who), box.folder, wanted.calls, sep="\n")
        zygote.close()
        return
    found = {}
    for name in chosen.commands:
        until = time.perf_counter() + 60 * chosen.minutes
        found[name] = study_of(world, RUNS[name], chosen.kills, parent, chosen.log, until)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    shutil.rmtree(parent, ignore_errors=True)
    print(json.dumps({"study": "kills", "found": found, "versions": stage.environment()}, indent=1))


if __name__ == "__main__":
    main()
