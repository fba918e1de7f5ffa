"""Small real learners and an encoder for tests of the grid: importable by worker processes, with counted work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import numpy as np
import polars as pl

from polypref.comparisons import Comparisons, Responses, from_columns
from polypref.learners.protocol import PERSONAL, POPULATION, Scores


def note(path: str, line: str) -> None:
    if path:
        with Path(path).open("a") as file:
            file.write(line + "\n")


@dataclass(frozen=True)
class LengthEncoder:
    """One feature: the text's length, standardised by a constant."""

    name: str = "length"
    identity: str = "length v1"
    log: str = ""

    def encode(self, responses: Responses) -> np.ndarray:
        note(self.log, "encode")
        return (responses.lengths_R[:, None] / 50.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class LinearScorer:
    """Reward = weight times the one feature; ``weight_of`` holds users with a weight of their own."""

    encoder: object
    weight: float
    weight_of: Mapping[str, float]
    valid_accuracy: float

    kind: ClassVar[str] = "toy"
    serves: ClassVar[str] = "population"

    @property
    def selection(self) -> dict[str, float]:
        return {"valid_accuracy": self.valid_accuracy}

    def score(self, responses, user_ids, response_Q=None) -> Scores:
        x_R = self.encoder.encode(responses)[:, 0].astype(float)
        x_Q = x_R if response_Q is None else x_R[response_Q]
        ids = pl.Series(user_ids, dtype=pl.String)
        w_Q = ids.replace_strict(self.weight_of, default=self.weight, return_dtype=pl.Float64).to_numpy()
        known_Q = ids.is_in(list(self.weight_of)).to_numpy()
        return Scores(w_Q * x_Q, np.where(known_Q, PERSONAL, POPULATION).astype(np.int8))


class PersonalScorer(LinearScorer):
    serves: ClassVar[str] = "seen_users"


def slope(x_N: np.ndarray) -> float:
    """Ridge estimate of how much longer what was chosen is."""
    return float(x_N.sum() / (np.abs(x_N).sum() + 1.0))


@dataclass(frozen=True)
class Length:
    """Longer or shorter, the same for everyone."""

    strength: float = 2.0
    log: str = ""
    pause: float = 0.0
    fails_on: tuple[int, ...] = ()

    def fit(self, train: Comparisons, *, encoder, seed: int, valid: Comparisons | None = None):
        time.sleep(self.pause)
        if seed in self.fails_on:
            raise ValueError(f"no fit for seed {seed}")
        note(self.log, f"fit {seed}")
        x_R = encoder.encode(train.responses)[:, 0].astype(float)
        x_N = x_R[train.chosen_N] - x_R[train.rejected_N]
        weight = self.strength * slope(x_N)
        right = self._right(x_R, valid or train, np.full(len(train.users), weight))
        return LinearScorer(encoder, weight, {}, right)

    def _right(self, x_R, c: Comparisons, weight_U) -> float:
        margin_N = weight_U[c.user_N] * (x_R[c.chosen_N] - x_R[c.rejected_N])
        return float(np.mean(np.where(margin_N == 0, 0.5, margin_N > 0)))


@dataclass(frozen=True)
class OwnLength(Length):
    """Longer or shorter, user by user."""

    def fit(self, train: Comparisons, *, encoder, seed: int, valid: Comparisons | None = None):
        population = super().fit(train, encoder=encoder, seed=seed, valid=valid)
        x_R = encoder.encode(train.responses)[:, 0].astype(float)
        x_N = x_R[train.chosen_N] - x_R[train.rejected_N]
        n = len(train.users)
        total_U, size_U = (np.bincount(train.user_N, v, n) for v in (x_N, np.abs(x_N)))
        weight_U = self.strength * (total_U + 2 * slope(x_N)) / (size_U + 2.0)
        seen = np.unique(train.user_N)
        weight_of = dict(zip(train.users.ids.gather(seen).to_list(), weight_U[seen].tolist(), strict=True))
        right = self._right(x_R, valid or train, weight_U)
        return PersonalScorer(encoder, population.weight, weight_of, right)


@dataclass(frozen=True)
class Noise(Length):
    """A population learner that knows nothing: rewards by the text's content key."""

    def fit(self, train: Comparisons, *, encoder, seed: int, valid: Comparisons | None = None):
        return NoiseScorer(encoder, 0.0, {}, 0.5)


class NoiseScorer(LinearScorer):
    def score(self, responses, user_ids, response_Q=None) -> Scores:
        value_R = (responses.keys_R % np.uint64(1000)).astype(float) / 1000
        value_Q = value_R if response_Q is None else value_R[response_Q]
        return Scores(value_Q, np.zeros(len(value_Q), np.int8))


@dataclass(frozen=True)
class Sham(Length):
    """Says it knows the users, and only has the better population part."""

    def fit(self, train: Comparisons, *, encoder, seed: int, valid: Comparisons | None = None):
        population = super().fit(train, encoder=encoder, seed=seed, valid=valid)
        return PersonalScorer(encoder, population.weight, {}, population.valid_accuracy)


@dataclass(frozen=True)
class Threaded(Length):
    """A weight that depends on how many threads summed it."""

    def fit(self, train: Comparisons, *, encoder, seed: int, valid: Comparisons | None = None):
        x_ND = np.random.default_rng(seed).standard_normal((20_000, 50), np.float32)
        summed_D = x_ND.T @ np.ones(len(x_ND), np.float32)
        return LinearScorer(encoder, 1.0 + crc32(summed_D.tobytes()) % 1000, {}, 0.5)


@dataclass(frozen=True)
class Dies(Length):
    """Takes its process with it."""

    def fit(self, train: Comparisons, *, encoder, seed: int, valid: Comparisons | None = None):
        if seed in self.fails_on:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(train, encoder=encoder, seed=seed, valid=valid)


@dataclass(frozen=True)
class Unparsable(Length):
    """Scores that are no numbers."""

    def fit(self, train: Comparisons, *, encoder, seed: int, valid: Comparisons | None = None):
        return LinearScorer(encoder, float("nan"), {}, 0.5)


def people(
    users: int = 24, per_user: int = 40, opposed: float = 0.25, noise: float = 0.2, seed: int = 0
) -> Comparisons:
    """Users who like long texts, and a share of ``opposed`` ones who like short ones; ``noise`` flips judgements."""
    rng = np.random.default_rng(seed)
    n = users * per_user
    user = np.repeat(np.arange(users), per_user)
    wants_short = (user < opposed * users) ^ (rng.random(n) < noise)
    item = rng.integers(0, n // 3, n)
    lengths = np.random.default_rng(seed + 1)
    long, short = lengths.integers(45, 90, n)[item], lengths.integers(5, 40, n)[item]
    texts_long = [f"{i}".ljust(k, "x") for i, k in zip(item, long, strict=True)]
    texts_short = [f"{i}".ljust(k, "y") for i, k in zip(item, short, strict=True)]
    chosen = [s if w else k for k, s, w in zip(texts_long, texts_short, wants_short, strict=True)]
    rejected = [k if w else s for k, s, w in zip(texts_long, texts_short, wants_short, strict=True)]
    return from_columns([f"u{u}" for u in user], [f"p{i % 40}" for i in item], chosen, rejected)
