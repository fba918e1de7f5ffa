"""Syncs for each group of commits: python benchmarks/serve/syncs.py [--bursts 200]

kill -9 cannot tell whether a commit was synced: what a process wrote, the system keeps. Here strace writes down each
write to the write-ahead log, each ``fdatasync`` of it and each acknowledgement, of bursts of 1 to 200 judgements that
wait for the store together. Whenever one is acknowledged, every earlier write to the log has to be synced, and a group
is synced once (the log is synced once more where a checkpoint moves it into the file). Target: 0 acknowledged unsynced.

A store with ``synchronous=NORMAL`` is measured beside it: there it has to be found that they are not synced.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHILD = """
import os, sys, threading
from random import Random
from polypref.serve.store import sqlite
from polypref.serve.store.contract import Judgement, Person
if sys.argv[3] == "NORMAL":
    sqlite.SETTINGS["synchronous"] = 1
store, draw, number = sqlite.Sqlite(sys.argv[1]), Random(0), 0
tell = lambda _: os.write(1, b"acknowledged\\n")
link, groups, changes = store.writer.link, 0, 0
commit = link.commit
def counted():
    global groups, changes
    groups, changes = groups + (link._to.total_changes > changes), link._to.total_changes
    commit()
link.commit = counted
store.writer.submit(lambda to: None).result()
groups = 0
os.write(1, b"opened\\n")
for burst in range(int(sys.argv[2])):
    gate, waiting = threading.Event(), []
    store.writer.submit(lambda to: gate.wait())  # until all of the burst wait
    for _ in range(draw.randint(1, 200)):
        one = Judgement(id=str(number), kind="pair", prompt="p", chosen="a" * 300, rejected="b")
        waiting.append(store.judge(Person("", f"u{number % 50}"), one))
        waiting[-1].add_done_callback(tell)
        number += 1
    gate.set()
    assert all(one.result() for one in waiting)
os.write(1, f"groups {groups}\\n".encode())
store.close()
"""
CALL = re.compile(r"(pwrite64|write|fdatasync|fsync)\((\d+)<([^>]*)>(.*)")


@dataclass(frozen=True)
class Counted:
    """What was seen: groups of commits, syncs of the log, acknowledgements, those of them before a sync, and the syncs
    that checkpoints make."""

    groups: int
    syncs: int
    acknowledged: int
    unsynced: int
    checkpoints: int


def measured(bursts: int, synchronous: str) -> Counted:
    """Judge under strace. Raises AssertionError where it cannot trace."""
    with tempfile.TemporaryDirectory() as folder:
        traced, store = Path(folder, "trace"), Path(folder, "store.db")
        calls = ("-e", "trace=pwrite64,write,fdatasync,fsync")
        command = ["strace", "-f", "-y", *calls, "-o", str(traced), sys.executable, "-c", CHILD]
        done = subprocess.run(
            [*command, str(store), str(bursts), synchronous], capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        (groups,) = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("groups"))
        return counted(traced.read_text().splitlines(), groups)


def counted(lines: list[str], groups: int) -> Counted:
    """Whether the log had unsynced writes at each acknowledgement; calls of two threads may be written in two parts."""
    dirty, syncs, acknowledged, unsynced, checkpoints, begun = False, 0, 0, 0, 0, dict[str, str]()
    for line in lines:
        thread, _, call = line.partition(" ")
        if call.strip().startswith("<..."):
            call = begun.pop(thread, "")
        elif call.endswith("<unfinished ...>"):
            begun[thread] = call.strip()
            if "sync(" in call:  # counts when it has ended
                continue
        if (found := CALL.search(call)) is None:
            continue
        name, _, path, rest = found.groups()
        if path.endswith("-wal"):
            dirty, syncs = "write" in name, syncs + ("sync" in name)
        elif path.endswith(".db") and "sync" in name:
            checkpoints += 1
        elif "opened" in rest:
            syncs = checkpoints = 0
        elif "acknowledged" in rest:
            acknowledged, unsynced = acknowledged + 1, unsynced + dirty
    return Counted(groups, syncs, acknowledged, unsynced, checkpoints)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursts", type=int, default=200)
    bursts = parser.parse_args().bursts
    assert shutil.which("strace"), "strace is not installed"
    print("| synchronous | groups | syncs of the log | checkpoints | acknowledged | of them unsynced |")
    print("|---|---|---|---|---|---|")
    for synchronous in ("FULL", "NORMAL"):
        one = measured(bursts, synchronous)
        cells = (synchronous, one.groups, one.syncs, one.checkpoints, one.acknowledged, one.unsynced)
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
