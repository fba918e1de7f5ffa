"""A refit under load: python benchmarks/serve/refit.py [--people 60] [--judged 40] [--clients 4] [--out FOLDER]

A bounded server answers ``clients`` that ask without a pause while people judge, ``polypref refit`` fits, compares and
puts in force, and is then rolled back. Told: requests and failures, how long after its row in the store the scorer
answers, latency before, during and after, and the refit's own time and figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import polars as pl
from latency import BOUNDS, command, labelled


def ask(address: str, users: list[str], slates: list[dict], stops: threading.Event, found: list) -> None:
    """Ask for one person after the other, and keep when, how long, the status and who answered."""
    with httpx.Client(timeout=600) as client:
        for at in range(10**9):
            if stops.is_set():
                return
            body = slates[at % len(slates)] | {"user": users[at % len(users)]}
            begun = time.time()
            answer = client.post(f"{address}/rerank", json=body)
            scorer = answer.json()["personalization"]["scorer"] if answer.status_code == 200 else None
            found.append((begun, time.time() - begun, answer.status_code, scorer))


def judged(address: str, rows: pl.DataFrame) -> None:
    """What people of a preference file say, in an order that mixes them."""
    with httpx.Client(timeout=600) as client:
        for row in rows.sample(len(rows), shuffle=True, seed=0).iter_rows(named=True):
            body = {"user": row["user_id"], **{name: row[name] for name in ("prompt", "chosen", "rejected")}}
            assert client.post(f"{address}/v1/feedback", json=body).status_code == 200


def told(name: str, rows: list) -> dict[str, object]:
    """Latency of some requests, in ms."""
    took = np.array([one[1] for one in rows]) * 1000
    middle, tail = (round(float(np.quantile(took, share)), 1) for share in (0.5, 0.99)) if len(took) else (None, None)
    most = round(float(took.max()), 1) if len(took) else None
    return {"part": name, "requests": len(rows), "p50_ms": middle, "p99_ms": tail, "most_ms": most}


def main() -> None:
    """Run it and print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("--people", 60), ("--judged", 40), ("--clients", 4)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    folder = given.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    command(folder, "simulate two-tastes --users 40 --judgements 40 --seed 1 --out first.jsonl --force")
    command(folder, "fit first.jsonl --learner hierarchical --out scorer --force")
    how = f"--users {given.people} --judgements {given.judged} --seed 2"
    command(folder, f"simulate two-tastes {how} --out world.jsonl --force")
    (folder / "bounds.toml").write_text(BOUNDS)
    labelled(folder)
    command(folder, "bounds detector bounds.toml --slates labelled.jsonl --part 1/3 --safe first.jsonl")
    command(folder, "bounds calibrate bounds.toml --slates labelled.jsonl --part 2/3")
    (folder / "store.db").unlink(missing_ok=True)
    serve = ["-m", "polypref", "serve", "scorer", "--store", "store.db", "--bounds", "bounds.toml", "--port", "0"]
    server = subprocess.Popen([sys.executable, *serve], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = next(line.split()[-1] for line in server.stdout if line.startswith("listening on "))
    world = pl.read_ndjson(folder / "world.jsonl")
    judged(address, world)
    users = [*world["user_id"].unique(maintain_order=True), "a-stranger"]
    texts = world["chosen"].to_list()
    slates = [{"query": row, "documents": texts[at : at + 8]} for at, row in enumerate(world["prompt"][:200])]
    with httpx.Client(timeout=600) as client:
        for one in slates:  # their texts are known before anything is measured
            assert client.post(f"{address}/rerank", json=one).status_code == 200
    stops, found = threading.Event(), []
    clients = [
        threading.Thread(target=ask, args=(address, users[at:], slates, stops, found)) for at in range(given.clients)
    ]
    for one in clients:
        one.start()
    time.sleep(5)
    began = time.time()
    for words in ("refit --store store.db", "refit --store store.db --rollback"):
        ran = subprocess.run(
            [sys.executable, "-m", "polypref", *words.split()], cwd=folder, capture_output=True, text=True
        )
        print(json.dumps({"ran": words, "rc": ran.returncode, "seconds": round(time.time() - began, 1)}), flush=True)
        print(ran.stdout, flush=True)
        assert ran.returncode == 0, ran.stderr
        if "--rollback" not in words:
            fitted = time.time()
        time.sleep(6)
    stops.set()
    for one in clients:
        one.join()
    server.terminate()
    server.wait()
    shown(folder, sorted(found), began, fitted)


def shown(folder: Path, found: list, began: float, fitted: float) -> None:
    """Print what happened to the requests."""
    from polypref.serve.store.sqlite import Sqlite

    store = Sqlite(folder / "store.db")
    history = store.scorers()
    store.close()
    print(json.dumps(told("before", [one for one in found if one[0] < began])))
    print(json.dumps(told("while it is fitted", [one for one in found if began <= one[0] < fitted])))
    print(json.dumps(told("after", [one for one in found if one[0] >= fitted])))
    print(json.dumps({"requests": len(found), "failed": sum(one[2] != 200 for one in found)}))
    for row, ends in zip(history[1:], [*(one.at for one in history[2:]), float("inf")], strict=True):
        answered = [begun + took for begun, took, _, scorer in found if scorer == row.hash and begun > row.at - 1]
        first = min(answered, default=None)
        late = [one for one in found if first is not None and first < one[0] < ends and one[3] == row.before]
        about = {"by": row.why, "answers_after_s": first and round(first - row.at, 2), "old_after": len(late)}
        print(json.dumps(about | {"accuracy": row.report and row.report["accuracy"]}))


if __name__ == "__main__":
    main()
