"""Part 3: MiniLM through ``encoder("minilm")``, cache and all, against sentence-transformers, and equal vectors.

The same weights, texts, batch size and limit of 256 word pieces, in single precision, in alternating order after a
batch that warms up. Every round of ours has an empty cache, which it fills.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from part import Found, Line, Part, Place, ratio, verdict

from polypref.features import encoder, minilm
from polypref.features.transformer import quiet
from polypref.files import temporary

ASKED, CLOSE = 1.0, 1e-5


def settings(place: Place) -> dict[str, Any]:
    """What decides the figures."""
    size = {"texts": 24, "rounds": 3, "batch": 8} if place.miniature else {"texts": 20_000, "rounds": 5, "batch": 256}
    return {**size, "dtype": "float32", "max_length": 256}


def minutes(place: Place) -> float:
    """Expected of the whole part."""
    return 0.4 if place.miniature else 3.0


def texts_of(count: int, seed: int) -> list[str]:
    """Different texts of 5 to 120 made-up words."""
    rng = np.random.default_rng([seed, 3])
    words = [f"word{n}" for n in range(2000)]
    return [" ".join([f"{n}", *rng.choice(words, rng.integers(5, 120))]) for n in range(count)]


def run(place: Place) -> Found:
    """All rounds."""
    from encode import pool_of, timed
    from sentence_transformers import SentenceTransformer

    told = settings(place)
    texts, size = texts_of(told["texts"], place.seed), told["batch"]
    with quiet():
        theirs = SentenceTransformer(str(minilm.checked_folder()), device=place.device, local_files_only=True)
    theirs.max_seq_length = told["max_length"]

    def ours(some: list[str]) -> np.ndarray:
        with temporary() as folder:
            own = encoder("minilm", cache_folder=str(folder), batch_size=size, device=place.device)
            return np.asarray(own.encode(pool_of(some)))

    def others(some: list[str]) -> np.ndarray:
        return np.asarray(theirs.encode(some, batch_size=size, normalize_embeddings=True, show_progress_bar=False))

    sides = {"ours": ours, "sentence-transformers": others}
    speed: dict[str, list[float]] = {side: [] for side in sides}
    apart = 0.0
    for side in sides.values():
        side(texts[:size])
    for turn in range(told["rounds"]):
        vectors = {}
        for side in sorted(sides, reverse=bool(turn % 2)):
            spent, _, vectors[side] = timed(lambda side=side: sides[side](texts))
            speed[side].append(len(texts) / spent)
        apart = max(apart, float(np.abs(vectors["ours"] - vectors["sentence-transformers"]).max()))
    gain = ratio(speed["ours"], speed["sentence-transformers"])
    return Found({"texts_a_second": speed, "ratio": gain, "apart": apart}, lines(speed, gain, apart))


def lines(speed: dict[str, list[float]], gain: dict[str, float], apart: float) -> list[Line]:
    """Of the table."""
    told = ", ".join(f"{side} {np.median(values):,.0f}" for side, values in speed.items())
    reached = f"{gain['value']:.2f} ({gain['lo']:.2f} to {gain['hi']:.2f})"
    met = verdict(gain["lo"], gain["hi"], ASKED, at_least=True)
    close = "yes" if apart <= CLOSE else "no"
    return [
        Line("MiniLM, texts/s, median", told),
        Line("the same, ours over sentence-transformers'", reached, f"at least {ASKED:.1f}", met),
        Line("largest difference of a vector's numbers", f"{apart:.1g}", f"at most {CLOSE:g}", close),
    ]


PART = Part("3-encoding", "encoding against sentence-transformers", settings, minutes, run)
