"""Runs cells: stored ones are skipped, the others run here or in worker processes, one thread each.

The figures are the same to the bit for any number of workers and after any interruption. A killed run can be started
again: finished cells are not repeated. A failed cell does not stop the others; all failures are raised together at the
end.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from polypref import files
from polypref.errors import PolyprefError
from polypref.runs.threads import ONE_THREAD, one_thread
from polypref.runs.worker import failure

FAILURES_SHOWN = 3
TRACEBACK = "failed.txt"
PIECE = 1 << 20
AWAKE_EVERY_SECONDS = 0.2

Cell = Any  # of the job's own kind; ``str(cell)`` describes it
Tell = Callable[[Cell, str | None], None]  # called for each finished cell, with its error if it failed
Run = Callable[[Any, Cell], None]  # runs a cell of the job and stores it; the workers find it by name
_Answer = tuple[int, dict[str, str]]  # number of the cell, and its error; empty on success


class Job(Protocol):
    """The shared part of a run's cells, as in ``cells.Job``; pickled for the workers."""

    @property
    def learners(self) -> Mapping[str, Any]: ...

    @property
    def folder(self) -> Path: ...

    def is_stored(self, cell: Any, /) -> bool: ...


def run_cells(job: Job, cells: Sequence[Cell], workers: int, tell: Tell, run: Run) -> int:
    """``run`` the cells that are not stored yet; returns how many were run.

    ``tell`` is called after each. Raises PolyprefError, after all others are done, if some failed.
    """
    waiting = [cell for cell in cells if not job.is_stored(cell)]
    if not waiting:
        return 0
    failures: list[tuple[Cell, dict[str, str]]] = []

    def done(cell: Cell, answer: dict[str, str]) -> None:
        if answer:
            failures.append((cell, answer))
        tell(cell, answer.get("error"))

    if workers <= 1 or any(type(learner).__module__ == "__main__" for learner in job.learners.values()):
        for cell in waiting:
            done(cell, _run_here(job, cell, run))
    else:
        _run_in_workers((job, waiting, run), min(workers, len(waiting)), done)
    if failures:
        raise PolyprefError(_summary(job, failures, len(cells)))
    (job.folder / TRACEBACK).unlink(missing_ok=True)
    return len(waiting)


def _run_here(job: Job, cell: Cell, run: Run) -> dict[str, str]:
    try:
        with one_thread():
            run(job, cell)
    except Exception as error:
        return failure(error)
    return {}


def _run_in_workers(
    task: tuple[Job, list[Cell], Run], workers: int, done: Callable[[Cell, dict[str, str]], None]
) -> None:
    """Threads that each own a worker process and feed it from one queue."""
    cells = task[1]
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(cells)):
        todo.put(number)
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    stop = threading.Event()
    with files.nameless() as job_file:  # it contains users' texts; without a name, nobody can read it
        with files.writable(tempfile.gettempdir(), files.TMPDIR):
            pickle.dump(task, job_file)
            job_file.flush()
        owners = [_Owner(job_file, todo, answers, stop) for _ in range(workers)]
        try:
            for owner in owners:
                owner.start()
            for _ in cells:
                number, answer = _next(answers)
                done(cells[number], answer)
        finally:  # also on Ctrl-C: running cells are abandoned, stored ones stay
            stop.set()
            for owner in owners:
                owner.kill()
            for owner in owners:
                owner.bury()


def _next(answers: queue.SimpleQueue[_Answer]) -> _Answer:
    """The next answer, polled with short timeouts.

    The system may deliver Ctrl-C to any thread, and one that blocks until an answer comes would not notice it.
    """
    while True:
        try:
            return answers.get(timeout=AWAKE_EVERY_SECONDS)
        except queue.Empty:
            continue


class _Owner(threading.Thread):
    """Starts a worker, gives it one cell after another, and starts a new one if it dies."""

    def __init__(self, job_file: BinaryIO, todo: queue.SimpleQueue, answers: queue.SimpleQueue, stop: threading.Event):
        super().__init__(daemon=True)
        self._job_file, self._todo, self._answers, self._stop_event = job_file, todo, answers, stop
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()  # so that no worker starts after the run was abandoned

    def run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # inherited by workers: on Ctrl-C the parent decides
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        while not self._stop_event.is_set():
            try:
                number = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                answer = self._ask(number)
            except Exception as error:  # an owner that ends without an answer would leave the run waiting forever
                answer = failure(error)
            if not self._stop_event.is_set():
                self._answers.put((number, answer))

    def kill(self) -> None:
        """Stop the worker, whatever it does; ``stop`` is already set."""
        with self._starting:
            if self._process is not None:
                self._process.kill()

    def bury(self) -> None:
        """Wait until the killed worker is gone."""
        if self._process is not None:
            self._process.wait()
        if self.is_alive():
            self.join(timeout=1)

    def _ask(self, number: int) -> dict[str, str]:
        with self._starting:
            if self._stop_event.is_set():
                return {}
            fresh = self._process is None or self._process.poll() is not None
            process = self._process = _start() if fresh or self._process is None else self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            if fresh:
                _send(self._job_file, process.stdin)
            process.stdin.write(b"%d\n" % number)
            process.stdin.flush()
            if line := process.stdout.readline():
                return json.loads(line)
        except BrokenPipeError:
            pass
        code = process.wait()
        return {"error": f"its worker process ended with code {code}" + (" (out of memory?)" if code == -9 else "")}


def _start() -> subprocess.Popen[bytes]:
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "polypref.runs.worker"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _send(job_file: BinaryIO, to: IO[bytes]) -> None:
    """The job's length in bytes, a newline, and the job. Several owners read the same file."""
    number = job_file.fileno()
    to.write(b"%d\n" % os.fstat(number).st_size)
    place = 0
    while piece := os.pread(number, PIECE, place):
        to.write(piece)
        place += len(piece)


def _summary(job: Job, failures: list[tuple[Cell, dict[str, str]]], n_cells: int) -> str:
    alike: dict[str, list[Cell]] = {}
    for cell, answer in failures:
        alike.setdefault(answer["error"], []).append(cell)
    told = [
        f"[{cells[0]}] {error}" + (f" ({len(cells)} cells failed alike)" if len(cells) > 1 else "")
        for error, cells in alike.items()
    ]
    shown = "; ".join(told[:FAILURES_SHOWN])
    more = f"; and {len(told) - FAILURES_SHOWN} other errors" if len(told) > FAILURES_SHOWN else ""
    log = next((answer["traceback"] for _, answer in failures if answer.get("traceback")), "")
    where = ""
    if log:
        files.write(path := job.folder / TRACEBACK, log)
        where = f" Traceback of the first: {path}."
    return (
        f"{len(failures)} of {n_cells} cells failed: {shown}{more}.{where} Finished cells are kept; run again to go on."
    )
