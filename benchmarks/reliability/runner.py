"""Runs commands of hostile input in a process of their own, one after the other, and says how each ended.

A worker is a fresh process that imports the command once and then takes cases from its standard input; one that does
not answer in time is killed and counted as a hang, one that dies as a death, and the next case gets a new worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
FINE = (0, 1, 2)


@dataclass
class Outcome:
    """How one case ended. ``kinds`` names what is wrong with it; empty: nothing."""

    code: int | None = None
    error: str = ""
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    mebibytes: float = 0.0
    kinds: list[str] = field(default_factory=list)

    def judge(self) -> Outcome:
        """Fill ``kinds`` from what was printed and how it ended."""
        said = self.out + self.err
        if self.error or "Traceback (most recent call last)" in said or "panicked at" in said:
            self.kinds.append("traceback")
        elif self.code not in FINE:
            self.kinds.append("exit code")
        if CONTROL.search(said):
            self.kinds.append("control characters")
        if self.code == 2 and not self.error:
            told = [line for line in self.err.splitlines() if line.startswith("polypref: error: ")]
            if len(told) != 1:
                self.kinds.append("not one error line")
        return self


def run_here(words: list[str], scratch: Path) -> Outcome:
    """Run one command in this process, both outputs caught as the operating system sees them."""
    from polypref.cli import main

    paths = scratch / "stdout", scratch / "stderr"
    kept = os.dup(1), os.dup(2)
    before = sys.stdout, sys.stderr
    for number, path in enumerate(paths, 1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    found, started = Outcome(), time.perf_counter()
    try:
        found.code = main(words)
    except SystemExit as stop:
        found.code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # a panic of a native library is no Exception
        found.error = traceback.format_exc()
    finally:
        found.seconds = round(time.perf_counter() - started, 3)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before
        for number, one in enumerate(kept, 1):
            os.dup2(one, number)
            os.close(one)
    found.out, found.err = (path.read_bytes()[:200_000].decode("utf-8", "surrogateescape") for path in paths)
    found.mebibytes = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return found.judge()


def work(maker: str, arguments: list[str]) -> None:
    """A worker: ``maker`` is a module here whose ``prepare(arguments)`` gives a function from a case to an Outcome."""
    from importlib import import_module

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = import_module(maker).prepare(arguments)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(asdict(run(json.loads(line)))) + "\n")
        answers.flush()


class Worker:
    """One worker process, started anew when it hangs or dies."""

    def __init__(self, maker: str, arguments: list[str], limit: float = 30.0, start: float = 1200.0) -> None:
        self.maker, self.arguments, self.limit, self.start = maker, arguments, limit, start
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, case: object) -> Outcome:
        process = self.process or self._begin()
        started = time.perf_counter()
        assert process.stdin is not None
        process.stdin.write(json.dumps(case) + "\n")
        process.stdin.flush()
        line = self._line(process, self.limit)
        if line:
            return Outcome(**json.loads(line))
        with contextlib.suppress(subprocess.TimeoutExpired):  # an end of file comes before the end of the process
            process.wait(timeout=5 if time.perf_counter() - started < self.limit else 0)
        hung = process.poll() is None
        if not hung and (process.returncode or 0) > 0:
            raise RuntimeError(f"case {case}: the study itself failed, not what it studies")
        self.close()
        seconds = round(time.perf_counter() - started, 1)
        return Outcome(seconds=seconds, kinds=["hang" if hung else "death"])

    def _begin(self) -> subprocess.Popen[str]:
        words = [sys.executable, str(HERE / "runner.py"), self.maker, *self.arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(words, text=True, **pipes)  # type: ignore[call-overload]
        if self._line(self.process, self.start) != "ready\n":
            self.close()
            raise RuntimeError(f"the worker of {self.maker} did not start")
        return self.process

    def _line(self, process: subprocess.Popen[str], seconds: float) -> str:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        return process.stdout.readline() if ready else ""

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2:])
