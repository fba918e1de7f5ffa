"""A store of a million people: python benchmarks/serve/millions.py --folder FOLDER [--users N] [--judgements N]

The store is written by SQLite itself, in bulk: judgements of random people, two texts each out of 2,000. Then a server
is started on it (seconds until it answers; target: under 10) and asked for 16 candidates at random times, ``--rate`` a
second on average, for ``--seconds``:

``strangers``  people of the store whom the server has not yet seen: their states are derived from their judgements
``known``      200 people, again and again (targets: p50 under 5 ms, p99 under 25 ms)

Latency counts from the time at which a request was due. Memory is what is resident at the end, after ``--visits`` more
people were asked for as fast as they were answered; target: under 4 GiB. A store that is there already is used.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import time
from pathlib import Path

import numpy as np
from load import Client, machine, request, serving, text

from polypref.serve.store.sqlite import Sqlite

TEXTS, CANDIDATES, KNOWN = 2000, 16, 200
PROMPT = "What shall I read?"
BODY = f"""json_object('id', 'k' || printf('%09d', i), 'kind', 'pair', 'prompt', '{PROMPT}', 'chosen', a.text,
    'rejected', b.text, 'value', NULL, 'tags', json_array(), 'comment', NULL, 'request', NULL, 'context',
    json_object())"""
ROWS = f"""
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end)
INSERT INTO judgements (seq, tenant, "user", id, at, digest, body)
SELECT i + 1, '', 'u' || ((i * 2654435761 + i / :users) % :users), 'k' || printf('%09d', i), 1.7e9 + i, randomblob(32),
    CAST({BODY} AS BLOB)
FROM n JOIN texts a ON a.number = (i * 7919) % {TEXTS} JOIN texts b ON b.number = (i * 7919 + 1 + i % 97) % {TEXTS}
"""


def made(path: Path, users: int, judgements: int) -> float:
    """Write the store unless it is there; how many seconds it took."""
    if path.exists():
        return 0.0
    begun, building = time.perf_counter(), path.with_suffix(".making")
    Sqlite(building).close()  # the tables as they are
    to = sqlite3.connect(building, isolation_level=None)
    for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1000000", "temp_store = MEMORY"):
        to.execute(f"PRAGMA {setting}")
    indexes = to.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for name, _ in indexes:
        to.execute(f"DROP INDEX {name}")
    to.execute("CREATE TEMP TABLE texts (number INTEGER PRIMARY KEY, text TEXT)")
    to.executemany("INSERT INTO texts VALUES (?, ?)", ((at, text(at, 12)) for at in range(TEXTS)))
    to.execute("BEGIN")
    to.execute(ROWS, {"end": judgements, "users": users})
    to.execute(
        'INSERT INTO people (tenant, "user", version, judgements) '
        'SELECT tenant, "user", max(seq), count(*) FROM judgements GROUP BY tenant, "user"'
    )
    to.execute("UPDATE changes SET number = ?", (judgements,))
    for _, sql in indexes:
        to.execute(sql)
    to.execute("COMMIT")
    to.close()
    building.rename(path)
    return time.perf_counter() - begun


def ask(user: str, draw: np.random.Generator) -> bytes:
    first = int(draw.integers(TEXTS))
    texts = [text((first + 97 * at) % TEXTS, 12) for at in range(CANDIDATES)]
    return request("/rerank", {"query": PROMPT, "documents": texts, "user": user})


async def open_loop(port: int, raws: list[bytes], rate: float, seed: int) -> np.ndarray:
    """Milliseconds from when each request was due to its answer."""
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, len(raws)))
    took, free, begun = np.empty(len(raws)), list[Client](), time.perf_counter()

    async def one(at: int) -> None:
        client = free.pop() if free else Client(port)
        status, told = await client.ask(raws[at])
        assert status == 200 and told["personalization"]["source"] == "personal", told
        took[at] = 1e3 * (time.perf_counter() - begun - due[at])
        free.append(client)

    running = []
    for at in range(len(raws)):
        await asyncio.sleep(max(0.0, begun + due[at] - time.perf_counter()))
        running.append(asyncio.create_task(one(at)))
    await asyncio.gather(*running)
    for client in free:
        client.close()
    return took


async def closed_loop(port: int, raws: list[bytes], clients: int = 8) -> None:
    left = iter(raws)

    async def one() -> None:
        client = Client(port)
        for raw in left:
            await client.ask(raw)
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))


async def measured(port: int, options: argparse.Namespace) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(options.seed)
    people = draw.permutation(options.users)
    count = int(options.rate * options.seconds)
    known = [f"u{one}" for one in people[:KNOWN]]
    warm = [ask(f"u{one}", draw) for one in people[:KNOWN]]
    await closed_loop(
        port, [ask(known[0], draw) for _ in range(TEXTS)] + warm
    )  # every text and the known are in memory
    few = [ask(known[at % KNOWN], draw) for at in range(count)]
    many = [ask(f"u{one}", draw) for one in people[KNOWN : KNOWN + count]]
    found = {
        "known": await open_loop(port, few, options.rate, 0),
        "strangers": await open_loop(port, many, options.rate, 1),
    }
    await closed_loop(port, [ask(f"u{one}", draw) for one in people[KNOWN + count :][: options.visits]])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--judgements", type=int, default=20_000_000)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--visits", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    store = options.folder / "store.db"
    print(machine(), flush=True)
    making = made(store, options.users, options.judgements)
    print(f"{options.users:,} people, {options.judgements:,} judgements, {store.stat().st_size / 1e9:.2f} GB", end="")
    print(f", written in {making:.0f} s; seed {options.seed}", flush=True)
    with serving(options.folder, str(store)) as server:
        begun = server.memory()
        took = asyncio.run(measured(server.port, options))
        ended = server.memory()
    print("| figure | value | target |\n|---|---|---|")
    print(f"| seconds until it answers | {server.started:.2f} | 10 |")
    print(f"| of them of computing | {server.computed:.2f} | |")
    for name, target in (("known", ("5", "25")), ("strangers", ("", ""))):
        for quantile, goal in zip((0.5, 0.99), target, strict=True):
            print(f"| {name}, p{quantile * 100:.0f}, ms | {np.quantile(took[name], quantile):.1f} | {goal} |")
    print(f"| resident at the start, MiB | {begun / 2**20:.0f} | |")
    people = KNOWN + len(took["strangers"]) + options.visits
    print(f"| resident after {people:,} people, MiB | {ended / 2**20:.0f} | 4,096 |")


if __name__ == "__main__":
    main()
