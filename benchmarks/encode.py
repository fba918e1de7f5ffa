"""Speed of encoding and of the cache: python benchmarks/encode.py [--texts 512] [--cached 1000000] [--device cpu]

``minilm``  texts per second through ``encoder("minilm")``, cache and all, against the same network called directly on
            batches of the same size sorted by length, in turns in the same run. Target: a ratio of 0.9 or more. The
            ratio is given by the clock and by processor time, which other programs on the machine disturb less.
``static``  the same texts through the static encoder, and how far its similarities agree with MiniLM's.
``cached``  processor seconds to open a full cache, check and gather its features, and to ask again for the same pool.

Texts come from ../shared/data/ukpconvarg1.parquet and llmfao.parquet when present, else they are made up.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from polypref.comparisons import Responses
from polypref.features import cache, encoder, minilm
from polypref.features.encode_missing import encode_cached
from polypref.features.transformer import default_device, pool

DATA = Path(__file__).parents[2] / "shared" / "data"


def sample(count: int, seed: int = 0) -> tuple[list[str], str]:
    """``count`` distinct texts, and where they come from."""
    paths = [DATA / "ukpconvarg1.parquet", DATA / "llmfao.parquet"]
    rng = np.random.default_rng(seed)
    if all(path.exists() for path in paths):
        frames = [pl.read_parquet(path, columns=["chosen", "rejected"]) for path in paths]
        texts = pl.concat([frame[side] for frame in frames for side in frame.columns]).unique().sort()
        texts = texts.filter(texts != "")
        return texts.sample(count, seed=seed).to_list(), "ukpconvarg1 and llmfao"
    words = [f"word{n}" for n in range(2000)]
    return [" ".join(rng.choice(words, rng.integers(5, 120))) for _ in range(count)], "made up"


def pool_of(texts: list[str]) -> Responses:
    return Responses(pl.Series([""]), np.zeros(len(texts), np.int32), pl.Series(texts))


def plain(texts: list[str], batch_size: int, device: str) -> np.ndarray:
    """The network's own batched throughput: tokenise all, sort by length, pad, run, pool."""
    import torch

    network, tokenizer = minilm.load(device)
    ids = tokenizer(texts, truncation=True, max_length=256)["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: -len(ids[i]))
    features = np.empty((len(texts), 384), np.float32)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt").to(device)
        with torch.inference_mode():
            hidden = network(**batch).last_hidden_state
            pooled = torch.nn.functional.normalize(pool(hidden, batch["attention_mask"], "mean"))
        features[rows] = pooled.cpu().numpy()
    return features


def timed(work: Callable[[], np.ndarray]) -> tuple[float, float, np.ndarray]:
    """Seconds by the clock, seconds of processor time, and the result."""
    start, busy = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - start, time.process_time() - busy, result


def encoders(texts: list[str], rounds: int, device: str) -> dict[str, object]:
    size = 32 if device == "cpu" else 256
    seconds: dict[str, list[tuple[float, float]]] = {"plain": [], "minilm": [], "static": []}
    features: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        encoder("static", cache_folder=folder).encode(pool_of([""]))  # distilled before the clock runs
        plain(texts[:size], size, device)
        for turn in range(rounds):
            own = {"cache_folder": f"{folder}/{turn}", "batch_size": size, "device": device}
            work: dict[str, Callable[[], np.ndarray]] = {
                "plain": lambda: plain(texts, size, device),
                "minilm": lambda own=own: encoder("minilm", **own).encode(pool_of(texts)),
                "static": lambda: encoder("static", cache_folder=folder).encode(pool_of(texts)),
            }
            for name in ("plain", "minilm", "static") if turn % 2 else ("minilm", "plain", "static"):
                *spent, features[name] = timed(work[name])
                seconds[name].append((spent[0], spent[1]))
            shutil.rmtree(f"{folder}/features")  # the next round encodes with static again
    clock, busy = ({name: median(s[i] for s in spent) for name, spent in seconds.items()} for i in (0, 1))
    upper = np.triu_indices(len(texts), 1)
    similar = {name: (features[name] @ features[name].T)[upper] for name in ("minilm", "static")}
    return {
        "texts_per_second": {name: round(len(texts) / spent, 1) for name, spent in clock.items()},
        "texts_per_processor_second": {name: round(len(texts) / spent, 1) for name, spent in busy.items()},
        "minilm_over_plain": {
            "clock": round(clock["plain"] / clock["minilm"], 3),
            "processor": round(busy["plain"] / busy["minilm"], 3),
        },
        "static_over_minilm": round(busy["minilm"] / busy["static"], 1),
        "largest_difference_from_plain": float(np.abs(features["minilm"] - features["plain"]).max()),
        "correlation_of_static_similarities": round(float(np.corrcoef(*similar.values())[0, 1]), 3),
    }


class Stored:
    """An encoder whose features are all in the cache."""

    name = "stored"
    identity = "stored for a benchmark"

    def __init__(self, cache_folder: str) -> None:
        self.cache_folder = cache_folder

    def compute(self, responses: Responses) -> None:
        raise AssertionError("everything is cached")


def cached(count: int, dim: int = 384, seed: int = 0) -> dict[str, float]:
    responses = Responses(pl.Series([""]), np.zeros(count, np.int32), pl.Series([f"text {i}" for i in range(count)]))
    _, spent_keys, identity_R = timed(lambda: responses.identity_R)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        stored = Stored(folder)
        order = rng.permutation(count)
        with cache.Store(stored.identity, folder).filling() as writer:
            for start in range(0, count, 50_000):
                rows = order[start : start + 50_000]
                writer.append(identity_R[rows], rng.standard_normal((len(rows), dim), np.float32))
        _, first, _ = timed(lambda: encode_cached(stored, "joint", responses))  # type: ignore[arg-type]
        _, again, _ = timed(lambda: encode_cached(stored, "joint", responses))  # type: ignore[arg-type]
        part = responses.take(rng.permutation(count)[: count // 10].astype(np.int32))
        _, other, _ = timed(lambda: encode_cached(stored, "joint", part))  # type: ignore[arg-type]
    return {
        "keys": round(spent_keys, 3),
        "open_verify_and_gather": round(first, 3),
        "same_pool_again": round(again, 6),
        "a_tenth_as_another_pool": round(other, 3),
    }


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cached", type=int, default=1_000_000)
    parser.add_argument("--device", default=default_device())
    chosen = parser.parse_args()
    texts, source = sample(chosen.texts)
    place = torch.cuda.get_device_name() if chosen.device == "cuda" else platform.machine()
    result = {
        "machine": f"{chosen.device} ({place}), {torch.get_num_threads()} threads",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "texts": f"{len(texts)} from {source}, {np.mean([len(t) for t in texts]):.0f} characters on average",
        "encoders": encoders(texts, chosen.rounds, chosen.device),
        "cached_processor_seconds": {f"{chosen.cached} x 384": cached(chosen.cached)},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
