"""What the benchmarks of the store share: a small scorer, real servers, and clients over plain sockets."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

IDLE_S = 2.0  # after which the server may close a connection
WORDS = ("the", "a", "of", "reads", "writes", "long", "short", "warm", "cold", "person", "book", "river", "light")


def machine() -> str:
    """The versions that a figure depends on, in a line."""
    names = ("polypref", "fastapi", "uvicorn", "pydantic")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}"


def scorer(folder: Path) -> Path:
    """A scorer that learns from use, in ``folder``; fitted once."""
    if not (found := folder / "scorer").exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = "simulate two-tastes --users 16 --judgements 40 --out world.jsonl --force"
        fit = "fit world.jsonl --learner hierarchical --encoder static --out scorer"
        for command in (words, fit):
            subprocess.run(
                [sys.executable, "-m", "polypref", *command.split()], cwd=folder, check=True, stdout=subprocess.DEVNULL
            )
    return found


class Server:
    """A server in a process of its own; ``started`` is how many seconds it took until it answered, ``computed`` for
    how many of them it had a core."""

    def __init__(self, folder: Path, store: str, *more: str, port: int = 0, wrap: tuple[str, ...] = ()) -> None:
        begun = time.perf_counter()
        words = ["serve", str(scorer(folder)), "--store", store, "--port", str(port), *more]
        self.process = subprocess.Popen(
            [*wrap, sys.executable, "-m", "polypref", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.port = int(line.rstrip().rpartition(":")[2])
                break
        else:
            raise AssertionError("the server did not start")
        with socket.create_connection(("127.0.0.1", self.port), 60) as to:
            to.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in to.recv(1000)
        self.started = time.perf_counter() - begun
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        self.computed = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0

    def memory(self) -> int:
        """Bytes that are resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@contextmanager
def serving(folder: Path, store: str, *more: str) -> Iterator[Server]:
    server = Server(folder, store, *more)
    try:
        yield server
    finally:
        server.stop()


def request(path: str, body: dict[str, Any] | None = None, method: str = "POST") -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


class Client:
    """One connection, kept open."""

    def __init__(self, port: int) -> None:
        self.port, self._to, self._used = port, None, 0.0

    async def ask(self, raw: bytes) -> tuple[int, dict]:
        """Status and body of the answer. Raises OSError or asyncio.IncompleteReadError if the server is gone."""
        if time.perf_counter() - self._used > IDLE_S:
            self.close()
        if self._to is None:
            self._to = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._to
        try:
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            at = lower.index(b"content-length:") + 15
            body = await reader.readexactly(int(lower[at : lower.index(b"\r", at)]))
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            raise
        self._used = time.perf_counter()
        return int(head[9:12]), json.loads(body)

    def close(self) -> None:
        if self._to is not None:
            self._to[1].close()
            self._to = None


def text(number: int, words: int = 30) -> str:
    """A text of its own for each number."""
    return f"{number}: " + " ".join(WORDS[(number * 7 + at * (1 + number % 5)) % len(WORDS)] for at in range(words))
