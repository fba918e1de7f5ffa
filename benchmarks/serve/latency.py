"""Latency of polypref serve: python benchmarks/serve/latency.py [--rounds 5] [--seconds 10] [--rate 100] [--out FOLDER]

``cached``    16 candidates whose texts are known, asked for at random times, ``rate`` a second on average, whether or
              not earlier answers came (an open loop). Latency counts from the time at which a request was due. Targets:
              p50 under 5 ms, p99 under 25 ms.
``new``       16 clients, each with 16 new texts at a time, without bounds: texts per second, by the clock and by the
              server's processor time, against the network called directly on as many texts in batches of 32, in turns
              in the same run. Target: .9 of it. Other work on the machine disturbs processor time less.
``overhead``  what one answer costs in the server's process, by parts: reading the body, ranking, storing, writing.
              Target: under 1 ms, p50.

Servers, each its own process, in turns in the same run: polypref without and with bounds, and ``peer.py``. Requests
name a person of the fit, a person with 12 judgements of their own, a stranger and nobody in turn. They come from this
process over plain sockets. Each figure is the median over the rounds, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

HERE = Path(__file__).parent
CANDIDATES, CLIENTS, JUDGED, IDLE = 16, 16, 12, 2.0
BOUNDS = '[immutable]\nsafety = "safety"\nalpha = 0.1\ndelta = 0.1\n\n[organisation]\ncap = 1.0\n'
NAMES = ("polypref", "bounded", "peer")
PERSONS = ("u3", "of-the-store", "a-stranger", None)


# --- what is served


def prepared(folder: Path) -> list[tuple[str, list[str]]]:
    """A world, its scorer, a detector and calibrated bounds in ``folder``; slates of the world's texts."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "scorer").exists():
        command(folder, "simulate two-tastes --users 60 --judgements 60 --out world.jsonl --force")
        command(folder, "fit world.jsonl --learner hierarchical --out scorer")
    if not (folder / "bounds.calibration.json").exists():
        (folder / "bounds.toml").write_text(BOUNDS)
        labelled(folder)
        command(folder, "bounds detector bounds.toml --slates labelled.jsonl --part 1/3 --safe world.jsonl")
        command(folder, "bounds calibrate bounds.toml --slates labelled.jsonl --part 2/3")
    texts: dict[str, dict[str, None]] = {}
    rows = pl.read_ndjson(folder / "world.jsonl")
    for prompt, chosen, rejected in rows.select("prompt", "chosen", "rejected").iter_rows():
        texts.setdefault(prompt, {}).update({chosen: None, rejected: None})
    return [(prompt, list(found)[:CANDIDATES]) for prompt, found in texts.items() if len(found) >= CANDIDATES]


def labelled(folder: Path) -> None:
    """Labelled slates of 16 candidates, since bounds hold for slates as large as those that they were calibrated on."""
    sys.path.insert(0, str(HERE.parents[1] / "examples"))
    import labelled_slates

    rows, rng = labelled_slates.rows(), np.random.default_rng(0)
    safe = sorted({str(row["response"]) for row in rows if not row["unsafe"]})
    slates: dict[object, list[dict]] = {}
    for row in rows:
        slates.setdefault(row["prompt"], []).append(row)
    for prompt, slate in slates.items():
        more = [text for text in rng.permutation(safe) if text not in {row["response"] for row in slate}]
        about = {"prompt": prompt, "unsafe": False, "category": slate[0]["category"]}
        slate += [about | {"response": text} for text in more[: CANDIDATES - len(slate)]]
    lines = [json.dumps(row) for slate in slates.values() for row in slate]
    (folder / "labelled.jsonl").write_text("\n".join(lines) + "\n")


def command(folder: Path, words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "polypref", *words.split()], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )


def emptied(folder: Path, store: str) -> None:
    """Remove a store, its side files and its scorers."""
    for path in folder.glob(f"{store}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def serving(folder: Path, name: str) -> Iterator[tuple[int, int]]:
    """The port and the process of a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = folder / f"{name}.db"
    emptied(folder, f"{name}.db")
    own = ["-m", "polypref", "serve", "scorer", "--store", store.name, "--port", str(port)]
    own += ["--bounds", "bounds.toml"] if name == "bounded" else []
    words = [str(HERE.resolve() / "peer.py"), str(port)] if name == "peer" else own
    process = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, f"{name} did not start"
                time.sleep(0.2)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


# --- asking


def request(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def rerank(prompt: str, texts: list[str], user: str | None) -> bytes:
    return request("/rerank", {"query": prompt, "documents": texts} | ({"user": user} if user else {}))


class Connections:
    """Sockets to one server, kept open."""

    def __init__(self, port: int) -> None:
        self.port, self.free = port, []

    async def ask(self, raw: bytes) -> dict:
        """The answer to one request. Raises AssertionError unless it is 200."""
        self.free = [one for one in self.free if time.perf_counter() - one[2] < IDLE]  # the server closes idle ones
        reader, writer = self.free.pop()[:2] if self.free else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length:" in line)
        body = await reader.readexactly(length)
        assert head.startswith(b"HTTP/1.1 200"), (head, body)
        self.free.append((reader, writer, time.perf_counter()))
        return json.loads(body)

    def close(self) -> None:
        for _, writer, _ in self.free:
            writer.close()


async def open_loop(ask: Callable[[bytes], Awaitable[dict]], raws: list[bytes], rate: float, seed: int) -> np.ndarray:
    """Seconds from when each request was due to its answer."""
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, len(raws)))
    took = np.empty(len(raws))
    begun = time.perf_counter()

    async def one(at: int) -> None:
        await ask(raws[at])
        took[at] = time.perf_counter() - begun - due[at]

    running = []
    for at in range(len(raws)):
        await asyncio.sleep(max(0.0, begun + due[at] - time.perf_counter()))
        running.append(asyncio.create_task(one(at)))
    await asyncio.gather(*running)
    return took


async def closed_loop(ask: Callable[[bytes], Awaitable[dict]], raws: list[bytes], clients: int) -> float:
    """Seconds in which ``clients`` got all answers, each asking again as soon as it had one."""
    left = iter(raws)

    async def one() -> None:
        for raw in left:
            await ask(raw)

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return time.perf_counter() - begun


def judge(ask: Callable[[bytes], Awaitable[dict]], slates: list) -> Awaitable[Any]:
    """Twelve judgements of one person."""
    bodies = [
        {"user": PERSONS[1], "prompt": prompt, "chosen": texts[at % 7], "rejected": texts[7 + at % 9]}
        for at, (prompt, texts) in zip(range(JUDGED), slates, strict=False)
    ]
    return asyncio.gather(*(ask(request("/v1/feedback", body)) for body in bodies))


def spent(process: int) -> float:
    """Seconds of processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def cached(
    port: int, process: int, slates: list, options: argparse.Namespace, seed: int, learns: bool
) -> dict[str, float]:
    """Milliseconds in which half and 99 in 100 of the answers came, and processor time of the server for each."""
    to = Connections(port)
    if learns:
        await judge(to.ask, slates)
    warm = [rerank(prompt, texts, user) for prompt, texts in slates for user in PERSONS]
    await closed_loop(to.ask, warm, 4)
    count = int(options.rate * options.seconds)
    raws = [rerank(*slates[at % len(slates)], PERSONS[at % len(PERSONS)]) for at in range(count)]
    before = spent(process)
    took = await open_loop(to.ask, raws, options.rate, seed)
    to.close()
    found = {"p50": float(np.median(took)), "p99": float(np.quantile(took, 0.99))}
    found["processor, each"] = (spent(process) - before) / count
    return {name: seconds * 1e3 for name, seconds in found.items()}


def unseen(slates: list, requests: int, seed: int, name: str) -> list[tuple[str, list[str]]]:
    """Slates of texts that nobody has encoded: the world's sentences, shuffled, under the world's prompts."""
    rng = np.random.default_rng(seed)
    sentences = sorted({part for _, texts in slates for text in texts for part in text.split(". ")})
    return [
        (slate[0], [f"{name} {seed} {at} {c}: {'. '.join(rng.choice(sentences, 5))}" for c in range(CANDIDATES)])
        for at, slate in zip(range(requests), cycle(slates), strict=False)
    ]


async def new(port: int, process: int, slates: list[tuple[str, list[str]]]) -> dict[str, float]:
    """New texts per second of the clock, and of the server's processor time."""
    to, before, texts = Connections(port), spent(process), sum(len(texts) for _, texts in slates)
    seconds = await closed_loop(to.ask, [rerank(prompt, texts, "u3") for prompt, texts in slates], CLIENTS)
    to.close()
    return {"new": texts / seconds, "new, processor": texts / (spent(process) - before)}


def network(texts: list[str]) -> dict[str, float]:
    """The same of the network alone, in this process."""
    from peer import vectors

    vectors(texts[:8])
    begun, busy = time.perf_counter(), time.process_time()
    vectors(texts)
    spent = time.perf_counter() - begun, time.process_time() - busy
    return {"new": len(texts) / spent[0], "new, processor": len(texts) / spent[1]}


# --- overhead by parts


@dataclass
class Parts:
    """Seconds of each part of many answers."""

    took: dict[str, list[float]]

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        found = work()
        self.took.setdefault(name, []).append(time.perf_counter() - begun)
        return found


def overhead(folder: Path, slates: list, bounded: bool, answers: int = 400) -> dict[str, float]:
    """Milliseconds, p50, of an answer in this process: of the whole application without a socket, and of its parts."""
    from polypref.serve.app import app_of
    from polypref.serve.dialects.rerank import Rerank, rendered
    from polypref.serve.start import Within, core_of
    from polypref.serve.store.contract import Person

    emptied(folder, "parts.db")
    within = Within(folder / "bounds.toml") if bounded else Within()
    core = core_of(folder / "scorer", folder / "parts.db", within=within)
    app, parts = app_of(core), Parts({})

    async def whole(raw: bytes) -> None:
        sent = []
        messages = iter([{"type": "http.request", "body": raw, "more_body": False}])

        async def receive() -> dict:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/rerank"}
        scope |= {"raw_path": b"/rerank", "query_string": b"", "root_path": "", "scheme": "http", "server": ("x", 80)}
        scope |= {"client": ("x", 1), "headers": [(b"content-type", b"application/json")], "state": {}}
        begun = time.perf_counter()
        await app(scope, receive, send)
        parts.took.setdefault("whole", []).append(time.perf_counter() - begun)
        assert sent[0]["status"] == 200, sent

    async def each(prompt: str, texts: list[str], user: str | None) -> None:
        raw = json.dumps({"query": prompt, "documents": texts, "user": user}).encode()
        await whole(raw)
        body = parts.timed("read", lambda: Rerank.model_validate(json.loads(raw)))
        begun = time.perf_counter()
        answer = await core.rank(Person("", user), prompt, texts, "rerank")
        parts.took.setdefault("rank and store", []).append(time.perf_counter() - begun)
        parts.timed("write", lambda: json.dumps(rendered(body, texts, answer)).encode())

    async def every() -> None:
        for prompt, texts in slates:
            await core.rank(Person("", None), prompt, texts, "rerank")
        for at in range(answers):
            await each(*slates[at % len(slates)], "u3")
            await asyncio.sleep(0.002)

    asyncio.run(every())
    core.close()
    core.store.close()
    return {name: round(median(took) * 1e3, 3) for name, took in parts.took.items()}


# --- all of it


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 2), "least": round(min(values), 2), "greatest": round(max(values), 2)}


def one_round(options: argparse.Namespace, turn: int, slates: list, add: Callable[[str, dict], None]) -> None:
    """Each server once, in another order each time."""
    for name in NAMES[turn % 3 :] + NAMES[: turn % 3]:
        with serving(options.out, name) as (port, process):
            if "cached" in options.only:
                add(name, asyncio.run(cached(port, process, slates, options, turn, name != "peer")))
            if "new" in options.only and name != "bounded":
                asyncio.run(new(port, process, unseen(slates, 1, turn, f"warm {name}")))
                add(name, asyncio.run(new(port, process, unseen(slates, options.requests, turn, name))))
        if "new" in options.only and name == "polypref":
            fresh = unseen(slates, options.requests, turn, "network")
            add("network", network([text for _, texts in fresh for text in texts]))


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--rounds", type=int, default=5)
    told.add_argument("--seconds", type=float, default=10)
    told.add_argument("--rate", type=float, default=100)
    told.add_argument("--slates", type=int, default=8, help="different slates of known texts")
    told.add_argument("--requests", type=int, default=48, help="requests of new texts in a round")
    told.add_argument("--out", type=Path, default=Path("runs/serve-latency"))
    told.add_argument("--only", nargs="*", default=["cached", "new", "overhead"])
    options = told.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["POLYPREF_CACHE"] = str((options.out / "cache").resolve())
    slates = prepared(options.out)[: options.slates]
    found: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count(), "load before": os.getloadavg()}
    found["versions"] = {name: version(name) for name in ("polypref", "fastapi", "uvicorn", "numpy", "polars", "torch")}
    seen: dict[str, dict[str, list[float]]] = {}

    def add(name: str, figures: dict[str, float]) -> None:
        shown = {what: round(value, 2) for what, value in figures.items()}
        print(json.dumps({name: shown}), os.getloadavg(), flush=True)
        for what, value in figures.items():
            seen.setdefault(name, {}).setdefault(what, []).append(value)

    for turn in range(options.rounds):
        one_round(options, turn, slates, add)
    found |= {name: {what: spread(values) for what, values in one.items()} for name, one in seen.items()}
    if "new" in options.only:
        for what in ("new", "new, processor"):
            for name in ("polypref", "peer"):
                ratios = [a / b for a, b in zip(seen[name][what], seen["network"][what], strict=True)]
                found[f"{what}: {name} over the network"] = spread(ratios)
    if "overhead" in options.only:
        found["overhead, ms"] = {name: overhead(options.out, slates, name == "bounded") for name in NAMES[:2]}
    found["load after"] = os.getloadavg()
    print(json.dumps(found, indent=1))
    (options.out / f"latency-{'-'.join(options.only)}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
