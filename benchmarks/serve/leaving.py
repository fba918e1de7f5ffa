"""People leave while others ask and judge: python benchmarks/serve/leaving.py [--people 1000] [--clients 4]

One server on one SQLite file. Each of ``people`` has four judgements and two answers, of texts of their own; 50
witnesses have judgements too, of texts that everybody shares. While ``clients`` connections judge and ask, every one of
the people is deleted over HTTP. Then all files of the store are searched for the ids and texts, and the witnesses'
rewards are compared with those before, to the bit. Targets: nothing found, every receipt without residue, nothing
pending, all rewards equal. Before, the search has to find them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np
from load import Client, machine, request, serving, text

MARK, WITNESSES, JUDGEMENTS = "leaver", 50, 4
SHARED = [text(at, 12) for at in range(6)]
PROMPT = "What shall I read?"


def own(person: int, at: int) -> str:
    return f"{MARK}-{person:05d} alone wrote text {at}: {text(person * 10 + at, 40)}"


async def told(client: Client, path: str, body: dict | None = None, method: str = "POST") -> dict:
    status, found = await client.ask(request(path, body, method))
    assert status == 200, found
    return found


async def arrive(client: Client, user: str, texts: list[str]) -> None:
    for at in range(JUDGEMENTS):
        chosen, rejected = texts[at % len(texts)], texts[(at + 1) % len(texts)]
        body = {"user": user, "prompt": PROMPT, "chosen": chosen, "rejected": rejected, "comment": texts[0]}
        await told(client, "/v1/feedback", body)
    for _ in range(2):
        await told(client, "/rerank", {"query": PROMPT, "documents": texts, "user": user})


async def rewards(client: Client) -> list[str]:
    """What the witnesses get, as it was sent."""
    asked = [{"query": PROMPT, "texts": SHARED, "user": f"witness-{at}", "raw_scores": True} for at in range(WITNESSES)]
    return [json.dumps(await told(client, "/rerank", body)) for body in asked]


async def load(port: int, number: int, ends: asyncio.Event) -> int:
    client, draw, done = Client(port), Random(number), 0
    while not ends.is_set():
        user, (chosen, rejected) = f"busy-{draw.randrange(200)}", draw.sample(SHARED, 2)
        await told(client, "/v1/feedback", {"user": user, "prompt": PROMPT, "chosen": chosen, "rejected": rejected})
        await told(client, "/rerank", {"query": PROMPT, "documents": SHARED, "user": user})
        done += 2
    client.close()
    return done


def seen(store: Path) -> int:
    """How often anything of those who leave stands in the store's files."""
    files = [path for path in store.parent.rglob("*") if path.is_file()]  # of the store, and whatever is beside it
    return sum(path.read_bytes().count(MARK.encode()) for path in files)


async def measured(port: int, store: Path, people: int, clients: int) -> dict[str, float]:
    client = Client(port)

    async def arriving(part: int) -> None:
        one = Client(port)
        for person in range(part, people, 16):
            await arrive(one, f"{MARK}-{person:05d}", [own(person, at) for at in range(3)])
        one.close()

    await asyncio.gather(*(arriving(part) for part in range(16)))
    for at in range(WITNESSES):
        await arrive(client, f"witness-{at}", SHARED[at % 3 :])
    before, control = await rewards(client), seen(store)
    assert control >= people * (JUDGEMENTS + 2)
    ends = asyncio.Event()
    loads = [asyncio.create_task(load(port, number, ends)) for number in range(clients)]
    receipts, took = [], []
    for person in range(people):
        begun = time.perf_counter()
        receipts.append(await told(client, f"/v1/users/{MARK}-{person:05d}", method="DELETE"))
        took.append(time.perf_counter() - begun)
    ends.set()
    done = sum(await asyncio.gather(*loads))
    left, after = seen(store), await rewards(client)
    client.close()
    rows = [(one["rows"]["judgements"], one["rows"]["answers"]) for one in receipts]
    assert rows == [(JUDGEMENTS, 2)] * people
    return {
        "people deleted": people,
        "requests of others meanwhile": done,
        "marks in the files before": control,
        "marks in the files after": left,
        "receipts with residue": sum(bool(one["residue"]) for one in receipts),
        "receipts with bytes pending": sum(one["pending"] for one in receipts),
        "witnesses whose rewards changed": sum(a != b for a, b in zip(before, after, strict=True)),
        "milliseconds for one, median": round(1e3 * float(np.median(took)), 1),
        "milliseconds for one, of 99 in 100": round(1e3 * float(np.quantile(took, 0.99)), 1),
        "store, MB": round(store.stat().st_size / 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name, "store.db")
        with serving(Path(name), str(store)) as server:
            found = asyncio.run(measured(server.port, store, options.people, options.clients))
    print("| figure | value |\n|---|---|")
    for what, value in found.items():
        print(f"| {what} | {value:,} |")
    wrong = [value for what, value in found.items() if "after" in what or "receipts" in what or "witnesses" in what]
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
