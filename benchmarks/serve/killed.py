"""kill -9 at random moments under load: python benchmarks/serve/killed.py --folder FOLDER [--kills 200] [--clients 16]

One store. A server is started, ``clients`` connections judge as fast as they can, and at a random moment within the
first 1.5 seconds of load the server is killed. The next server is started on what is left; judgements whose
acknowledgement did not come are sent again under their ids. Before each next kill, SQLite reads the store by itself:
every acknowledged judgement is there, none twice, and every person's count is their number of rows. Targets: 0 lost,
0 twice, started within 5 s.

What was acknowledged is written to ``acknowledged.txt`` in the folder, and each kill to ``kills.jsonl``; a run that was
stopped is gone on with. A kill does not tell whether a commit was synced, since the system keeps what a process wrote:
``syncs.py`` does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from random import Random

import numpy as np
from load import Client, Server, machine, request, text

LATEST_S, START_S, PEOPLE = 1.5, 5.0, 50


class Kills:
    """Many lives of one server."""

    def __init__(self, folder: Path, clients: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.clients, self.store = folder, clients, folder / "store.db"
        self.done = [json.loads(line) for line in self._lines("kills.jsonl")]
        self.acknowledged = set(self._lines("acknowledged.txt"))
        self.open: dict[int, tuple[str, bytes]] = {}  # by client: what was sent and not acknowledged

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def life(self, kill: int) -> dict:
        """One server until it is killed; what was found before."""
        server = Server(self.folder, str(self.store))
        draw, before = Random(kill), len(self.acknowledged)
        try:
            found = self.checked()
            asyncio.run(self._load(server, kill, draw.uniform(0, LATEST_S)))
        finally:
            server.kill()
        return {
            "kill": kill,
            "started": server.started,
            "computed": server.computed,
            **found,
            "new": len(self.acknowledged) - before,
        }

    async def _load(self, server: Server, kill: int, moment: float) -> None:
        loads = [asyncio.create_task(self._client(server.port, kill, number)) for number in range(self.clients)]
        await asyncio.sleep(moment)
        server.process.kill()
        await asyncio.gather(*loads)

    async def _client(self, port: int, kill: int, number: int) -> None:
        client, at = Client(port), 0
        with (self.folder / "acknowledged.txt").open("a") as kept:
            while True:
                name, raw = self.open.get(number) or self._judgement(kill, number, at)
                self.open[number] = (name, raw)
                try:
                    status, told = await client.ask(raw)
                except (OSError, asyncio.IncompleteReadError):
                    return
                assert status == 200 and told["id"] == name, told
                self.acknowledged.add(name)
                kept.write(f"{name}\n")
                del self.open[number]
                at += 1

    def _judgement(self, kill: int, number: int, at: int) -> tuple[str, bytes]:
        name, seed = f"{kill}-{number}-{at}", kill * 10**6 + number * 10**4 + at
        body = {"user": f"u{seed % PEOPLE}", "prompt": "What shall I read?", "id": name}
        return name, request("/v1/feedback", body | {"chosen": text(seed), "rejected": text(seed + 1)})

    def checked(self) -> dict:
        """What the store holds, against what was acknowledged."""
        to = sqlite3.connect(self.store)
        ids = [name for (name,) in to.execute("SELECT id FROM judgements")]
        rows = dict(to.execute('SELECT "user", count(*) FROM judgements GROUP BY "user"'))
        counts = dict(to.execute('SELECT "user", judgements FROM people'))
        (sound,) = to.execute("PRAGMA quick_check").fetchone()
        to.close()
        assert rows == counts and sound == "ok", (rows, counts, sound)
        return {"stored": len(ids), "lost": len(self.acknowledged - set(ids)), "twice": len(ids) - len(set(ids))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    print(machine(), flush=True)
    run = Kills(options.folder, options.clients)
    for kill in range(len(run.done), options.kills):
        run.done.append(run.life(kill))
        with (run.folder / "kills.jsonl").open("a") as kept:
            kept.write(json.dumps(run.done[-1]) + "\n")
        if kill % 20 == 19:
            print(f"{kill + 1} kills, {len(run.acknowledged):,} acknowledged", file=sys.stderr, flush=True)
    last = Server(run.folder, str(run.store))
    found = run.checked()
    last.stop()
    lost, twice = (max([one[name] for one in run.done] + [found[name]]) for name in ("lost", "twice"))
    started = np.array([one["started"] for one in run.done] + [last.started])
    print(
        f"{len(run.done)} kills, {options.clients} clients, seeds 0 to {len(run.done) - 1}; moments up to {LATEST_S} s"
    )
    print("| figure | value | target |\n|---|---|---|")
    print(
        f"| acknowledged | {len(run.acknowledged):,} | |\n| of them lost | {lost} | 0 |\n| stored twice | {twice} | 0 |"
    )
    computed = [one["computed"] for one in run.done if "computed" in one] + [last.computed]
    late = int((started > START_S).sum())
    print(f"| seconds until it answers, median | {np.median(started):.2f} | |")
    print(
        f"| the same, greatest ({late} of {len(started)} over {START_S:.0f} s) | {started.max():.2f} | {START_S:.0f} |"
    )
    print(f"| of them of computing, greatest | {max(computed):.2f} | |")
    return int(bool(lost or twice))


if __name__ == "__main__":
    sys.exit(main())
