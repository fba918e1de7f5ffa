"""Reads Parquet files of ten million judgements and measures memory and speed: python benchmarks/read_10m.py [ROWS]

``few``  20,000 distinct responses judged over and over, as in crowd-sourced sets: what is kept is mostly codes.
``many`` two responses of their own in every row, as in chat logs: texts beyond the budget go to mapped files.

Each file is written to a temporary folder, read in a process of its own, and removed. ``anonymous`` is the peak of the
memory that only this process holds; mapped texts are not in it, since the system can drop their pages at any time.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

ROWS = 10_000_000
PART = 500_000
WORDS = 8


def write(path: Path, kind: str, rows: int, seed: int = 0) -> None:
    """A file of ``rows`` judgements by 50,000 users in row groups of half a million."""
    rng = np.random.default_rng(seed)
    words = pl.Series([f"word{n:05d}abcd" for n in range(5000)])
    few = sentences(words, rng, 20_000)
    prompts = sentences(words, rng, 2000)
    writer = None
    for start in range(0, rows, PART):
        n = min(PART, rows - start)
        if kind == "few":
            first = rng.integers(0, len(few), n)
            second = first // 10 * 10 + (first + rng.integers(1, 10, n)) % 10  # ten responses to each prompt
            prompt, chosen, rejected = first // 10, few.gather(first), few.gather(second)
        else:
            prompt = rng.integers(0, len(prompts), n)
            number = pl.Series(np.arange(start, start + n)).cast(pl.String)
            base = sentences(words, rng, n)
            chosen, rejected = "a" + number + " " + base, "b" + number + " " + base
        frame = pl.DataFrame(
            {
                "user_id": "u" + pl.Series(rng.integers(0, 50_000, n)).cast(pl.String),
                "prompt": prompts.gather(prompt),
                "chosen": chosen,
                "rejected": rejected,
                "pair_id": "p" + pl.Series(rng.integers(0, 1_000_000, n)).cast(pl.String),
            }
        )
        table = frame.to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def sentences(words: pl.Series, rng: np.random.Generator, n: int) -> pl.Series:
    """``n`` texts of eight random words, 111 characters."""
    columns = {f"w{k}": words.gather(rng.integers(0, len(words), n)) for k in range(WORDS)}
    return pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator=" ")).to_series()


def resident(name: str) -> int:
    """MiB of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) >> 10


def measure(path: str) -> None:
    """Read ``path`` here and print what it took as JSON."""
    from polypref.data.read import read

    peak, stop = {"anonymous": 0, "resident": 0}, threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            peak["anonymous"] = max(peak["anonymous"], resident("RssAnon"))
            peak["resident"] = max(peak["resident"], resident("VmRSS"))

    before = resident("RssAnon")
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    reading = read([path])
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    data = reading.comparisons
    found = {
        "rows": len(data), "users": len(data.users), "texts": len(data.responses), "seconds": round(seconds, 1),
        "rows_per_second": round(len(data) / seconds), "before_mib": before, "left_mib": resident("RssAnon"),
    }  # fmt: skip
    print(json.dumps(found | {f"peak_{name}_mib": value for name, value in peak.items()}))


def main() -> None:
    """Write, read and remove one file after the other."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    print(f"{platform.machine()}, Python {platform.python_version()}, polars {pl.__version__}, seed 0")
    for kind in ("few", "many"):
        with tempfile.TemporaryDirectory(prefix="polypref-read-") as folder:
            path = Path(folder) / f"{kind}.parquet"
            start = time.perf_counter()
            write(path, kind, rows)
            size = path.stat().st_size >> 20
            print(f"{kind}: file of {size} MiB written in {time.perf_counter() - start:.0f} s", flush=True)
            subprocess.run([sys.executable, __file__, "--measure", str(path)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2])
    else:
        main()
