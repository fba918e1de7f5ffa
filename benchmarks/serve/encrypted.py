"""What ``polypref serve --encrypt`` costs: judgements a second, time of an answer, bytes, beside a store in plain text.

    python benchmarks/serve/encrypted.py [--people 200] [--judgements 5000]

Both stores do the same work in turns, in the same process and folder.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import tempfile
import time
from pathlib import Path

import polypref
from polypref.learners.hierarchical import Hierarchical
from polypref.serve.core import Core
from polypref.serve.remembered import Remembered
from polypref.serve.store.contract import Judgement, Person
from polypref.serve.store.opened import opened
from polypref.worlds import simulate

TEXT = "A text of about two hundred characters, as long as a short answer of a chat. " * 3
CONCURRENT = 64
ROUNDS = 3


def pair(number: int) -> Judgement:
    return Judgement(id=str(number), kind="pair", prompt="p", chosen=f"{number} {TEXT}", rejected=TEXT)


async def judged(core: Core, people: int, first: int, many: int) -> float:
    """Judgements a second, with ``CONCURRENT`` waiting at a time."""
    numbers = iter(range(first, first + many))

    async def client() -> None:
        for number in numbers:
            await asyncio.wrap_future(core.store.judge(Person("", f"person {number % people}"), pair(number)))

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONCURRENT)))
    return many / (time.perf_counter() - begun)


async def ranked(core: Core, people: int, many: int) -> list[float]:
    """Seconds of answers to people whose state and texts are in memory."""
    texts = [f"{number} {TEXT}" for number in range(16)]
    found = []
    for number in range(many + people):
        begun = time.perf_counter()
        await core.rank(Person("", f"known {number % people}"), "p", texts, "bench")
        found.append(time.perf_counter() - begun)
    return found[people:]


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--people", type=int, default=200)
    asked.add_argument("--judgements", type=int, default=5000)
    asked = asked.parse_args()
    os.environ["POLYPREF_MASTER_KEY"] = secrets.token_urlsafe(48)
    world = simulate("two-tastes", users=16, judgements=40, judges=4).comparisons
    scorer = Hierarchical(steps=5).fit(world, encoder=Remembered(polypref.encoder("static")), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        cores = {
            name: Core(scorer, "s", opened(Path(folder) / f"{name}.db", encrypt=name == "encrypted"))
            for name in ("plain", "encrypted")
        }
        rates: dict[str, list[float]] = {name: [] for name in cores}
        times: dict[str, list[float]] = {name: [] for name in cores}
        for round_ in range(ROUNDS):
            for name, core in cores.items():
                first = round_ * asked.judgements
                rates[name].append(asyncio.run(judged(core, asked.people, first, asked.judgements)))
                times[name] += asyncio.run(ranked(core, 20, 400))
        for name, core in cores.items():
            begun = time.perf_counter()
            rows = sum(len(core.store.judgements(Person("", f"person {at}"))) for at in range(asked.people))
            read = time.perf_counter() - begun
            core.close()
            core.store.close()
            size = sum(path.stat().st_size for path in Path(folder).glob(f"{name}.db*"))
            taken, rate = [1000 * one for one in sorted(times[name])], statistics.median(rates[name])
            print(
                f"{name:10} {rate:8,.0f} judgements/s   answer p50 {taken[len(taken) // 2]:.2f} ms "
                f"p99 {taken[int(len(taken) * 0.99)]:.2f} ms   {1e6 * read / rows:.0f} us to read a judgement   "
                f"{size / rows:,.0f} bytes a judgement"
            )


if __name__ == "__main__":
    main()
