"""Durable judgements a second over HTTP: python benchmarks/serve/feedback.py [--clients 64] [--seconds 20] [--rounds 5]

``clients`` connections to one ``polypref serve`` in a process of its own; each sends a judgement of a random person,
two texts of 30 words, and the next one as soon as the last was acknowledged. A round is a new store. At the end every
acknowledged judgement is looked for in the store, read by SQLite itself. Targets, with SQLite and 64 clients: 1,000 a
second; 95 of 100 acknowledged within 50 ms.

``--pace N``: clients send N a second together, at random times, instead of as fast as they can.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np
from load import Client, machine, request, serving, text

PEOPLE = 1000
RATE, WITHIN_MS, SHARE = 1000, 50, 0.95


async def load(port: int, clients: int, seconds: float, pace: float, seed: int) -> tuple[np.ndarray, list[str], float]:
    """Seconds until each acknowledgement, the acknowledged ids, and how long it all took."""
    took: list[float] = []
    acknowledged: list[str] = []
    begun = time.perf_counter()

    async def one(number: int) -> None:
        draw, client, at = Random(f"{seed} {number}"), Client(port), 0
        due = begun
        while time.perf_counter() - begun < seconds:
            if pace:
                due += draw.expovariate(pace / clients)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            name = f"{number}-{at}"
            body = {"user": f"u{draw.randrange(PEOPLE)}", "prompt": "What shall I read?", "id": name}
            first = draw.randrange(10**9)
            raw = request("/v1/feedback", body | {"chosen": text(first), "rejected": text(first + 1)})
            asked = due if pace else time.perf_counter()
            status, told = await client.ask(raw)
            took.append(time.perf_counter() - asked)
            assert status == 200 and told["new"], told
            acknowledged.append(name)
            at += 1
        client.close()

    await asyncio.gather(*(one(number) for number in range(clients)))
    return np.array(took), acknowledged, time.perf_counter() - begun


def stored(path: Path) -> list[str]:
    to = sqlite3.connect(path)
    ids = [name for (name,) in to.execute("SELECT id FROM judgements")]
    to.close()
    return ids


def measured(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, float]:
    store = folder / f"feedback-{seed}.db"
    for old in folder.glob(f"{store.name}*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    with serving(folder, str(store)) as server:
        took, acknowledged, seconds = asyncio.run(
            load(server.port, options.clients, options.seconds, options.pace, seed)
        )
    ids = stored(store)
    lost, twice = len(set(acknowledged) - set(ids)), len(ids) - len(set(ids))
    assert not lost and not twice, (lost, twice)
    quantiles = dict(zip(("p50", "p95", "p99"), 1e3 * np.quantile(took, [0.5, 0.95, 0.99]), strict=True))
    return {"rate": len(took) / seconds, "within": float(np.mean(took <= WITHIN_MS / 1e3)), **quantiles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pace", type=float, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where scorer and stores are made")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        rounds = [measured(options, options.folder or Path(folder), seed) for seed in range(options.rounds)]
    print(f"{options.clients} clients, {options.seconds:.0f} s, rounds with seeds 0 to {options.rounds - 1}")
    print("| figure | median | least | greatest | target |\n|---|---|---|---|---|")
    names = {"rate": ("judgements/s", RATE), "within": (f"within {WITHIN_MS} ms", SHARE)}
    for name in rounds[0]:
        values = np.array([one[name] for one in rounds])
        what, target = names.get(name, (f"{name}, ms", ""))
        shown = "{:.3f}" if name == "within" else "{:.1f}"
        cells = [shown.format(value) for value in (np.median(values), values.min(), values.max())]
        print(f"| {what} | {' | '.join(cells)} | {target} |")


if __name__ == "__main__":
    main()
