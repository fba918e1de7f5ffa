"""A judgement counts in the next answer, whoever gives it: python benchmarks/serve/reflects.py [--trials 10000]

Two servers, each a process of its own, on one store; 8 tasks, each with people of its own. A trial: one server
acknowledges a judgement, the other is asked at once. The answer has to count the judgement, be the person's own, and
put the chosen text further before the rejected one than it was. Servers take turns, texts and sides are drawn.
Target: all of 10,000 trials. ``--store postgresql://...`` measures another store.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from load import Client, machine, request, serving, text

TASKS, PER_PERSON = 8, 10
TEXTS = [text(at, 12) for at in range(6)]
PROMPT = "What shall I read?"


async def asked(client: Client, user: str) -> tuple[dict[int, float], int, str]:
    """The rewards of the texts, how many judgements they follow, and who answered."""
    body = {"query": PROMPT, "documents": TEXTS, "user": user, "raw_scores": True}
    status, told = await client.ask(request("/rerank", body))
    assert status == 200, told
    about = told["personalization"]
    return {row["index"]: row["relevance_score"] for row in told["results"]}, about["judgements"], about["source"]


async def trials(ports: list[int], task: int, many: int, run: str) -> Counter[str]:
    clients, draw, found = [Client(port) for port in ports], Random(f"{run} {task}"), Counter[str]()
    for trial in range(many):
        person, at = divmod(trial, PER_PERSON)
        user, first = f"{run}-{task}-{person}", trial % 2
        if not at:
            reward, _, _ = await asked(clients[1 - first], user)
        chosen, rejected = draw.sample(range(len(TEXTS)), 2)
        body = {"user": user, "prompt": PROMPT, "chosen": TEXTS[chosen], "rejected": TEXTS[rejected]}
        status, told = await clients[first].ask(request("/v1/feedback", body))
        assert status == 200 and told["new"], told
        now, judgements, source = await asked(clients[1 - first], user)
        found["trials"] += 1
        found["counted"] += judgements == at + 1 and source == "personal"
        found["moved"] += now[chosen] - now[rejected] > reward[chosen] - reward[rejected]
        reward = now
    for client in clients:
        client.close()
    return found


async def all_trials(ports: list[int], many: int, run: str) -> Counter[str]:
    found = await asyncio.gather(*(trials(ports, task, many // TASKS, run) for task in range(TASKS)))
    return sum(found, Counter())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--store")
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder, begun = Path(name), time.perf_counter()
        store = options.store or str(folder / "store.db")
        with serving(folder, store) as one, serving(folder, store) as two:
            found = asyncio.run(all_trials([one.port, two.port], options.trials, f"{int(time.time())}"))
    print("| figure | value | target |\n|---|---|---|")
    print(f"| trials | {found['trials']:,} | 10,000 |\n| counted in the next answer | {found['counted']:,} | all |")
    print(
        f"| moved the two texts apart | {found['moved']:,} | all |\n| seconds | {time.perf_counter() - begun:.0f} | |"
    )
    return int(not found["trials"] == found["counted"] == found["moved"])


if __name__ == "__main__":
    sys.exit(main())
