"""Several processes that answer on one socket, over one store: started, watched, stopped together.

Each has its own copy of the scorer and its own cache of people's states; what counts is in the store, which they share,
so a judgement that one of them acknowledged counts in the next answer of every other. A process that dies is started
again. If the first process dies, the others stop.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Protocol

from polypref import files
from polypref.errors import PolyprefError
from polypref.serve.running.metrics import FOLDER, ended
from polypref.terminal import out, say

KIB = 1 if sys.platform == "darwin" else 1024  # of the unit in which the kernel tells memory


class Work(Protocol):
    """What a worker does until it is stopped; pickled. ``tells``: it says what is in force; ``ready`` is called once it
    answers."""

    def __call__(self, listening: socket.socket, tells: bool, ready: Callable[[], None]) -> None: ...


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    memory: int | None = None  # bytes, once it answers


@dataclass
class _Team:
    work: Work
    listening: socket.socket
    workers: list[_Worker] = field(default_factory=list)
    stopping: bool = False
    told: bool = False  # that all of them answer

    def start(self, tells: bool) -> None:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(self.work, self.listening, theirs, tells)
        )
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))

    def stop(self, sig: int, _: FrameType | None = None) -> None:
        """Ask all to end what is in hand; the second time, end at once."""
        if self.stopping:
            for one in self.workers:
                one.process.kill()
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.stopping = True
        for one in self.workers:
            one.process.terminate()


def supervised(work: Work, listening: socket.socket, many: int, told: str) -> None:
    """Run ``many`` processes until they are stopped; ``told`` is said once all of them answer.

    Raises what a worker raised before it answered, and PolyprefError for one that failed to stop in order.
    """
    team = _Team(work, listening)
    with files.temporary() as folder:
        os.environ[FOLDER] = str(folder)
        handlers = {one: signal.signal(one, team.stop) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in range(many):
                team.start(tells=number == 0)
            _watch(team, told)
        finally:
            for one in team.workers:
                one.process.kill()
                one.process.join()
            for name, handler in handlers.items():
                signal.signal(name, handler)
            del os.environ[FOLDER]


def _watch(team: _Team, told: str) -> None:
    failed: list[str] = []
    while team.workers:
        heard = wait([one for worker in team.workers for one in (worker.pipe, worker.process.sentinel)])
        for worker in list(team.workers):
            if worker.pipe in heard:
                _hear(worker, team, told)
            if worker.process.sentinel in heard:
                team.workers.remove(worker)
                _ended(worker, team, failed)
    if failed:
        raise PolyprefError(f"{failed[0]}.")


def _hear(worker: _Worker, team: _Team, told: str) -> None:
    """A worker says that it answers, or why it cannot. Raises what it says."""
    try:
        said: Any = worker.pipe.recv()
    except EOFError:
        return
    if isinstance(said, BaseException):
        raise said
    worker.memory = said
    memories = [one.memory for one in team.workers]
    if all(memories) and not team.told:
        team.told = True
        most = max(one for one in memories if one)
        out(f"{len(memories)} workers, each with {most / 1e6:,.0f} MB of memory at most", told)


def _ended(worker: _Worker, team: _Team, failed: list[str]) -> None:
    process, answered = worker.process, worker.memory is not None
    process.join()
    worker.pipe.close()
    ended(process.pid or 0)
    how = f"worker {process.pid} ended with {process.exitcode}"
    if team.stopping:
        if answered and process.exitcode != 0:
            failed.append(how)
    elif not answered:
        raise PolyprefError(f"{how} before it answered.")
    else:
        say(f"{how} and is started again")
        team.start(tells=False)


def _run(work: Work, listening: socket.socket, pipe: Connection, tells: bool) -> None:
    """A worker's whole life."""
    os.setpgrp()  # a key pressed in the terminal reaches the first process alone
    threading.Thread(target=_follow, args=(pipe,), daemon=True).start()
    try:
        work(listening, tells, lambda: pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB))
    except PolyprefError as error:
        pipe.send(error)
        sys.exit(2)


def _follow(pipe: Connection) -> None:
    """Stop when the first process is gone."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
