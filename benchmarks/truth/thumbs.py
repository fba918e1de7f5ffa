"""What likes and dislikes of single answers are worth: accuracy on held-out real pairs of a simulated world.

python benchmarks/truth/thumbs.py [--seeds 3] [--people 60] [--each 50]

Each prompt has a direction z, each answer is z plus its own direction e, both as spread; what the encoder sees of a
prompt is z with noise. A person's reward is linear, their weights vary around the population's. Everybody gives the
same number of judgements, once as pairs of two answers to one prompt, once as thumbs, each for one answer:

    absolute   a thumb is up if the answer's reward, with noise, exceeds the person's bar
    relative   the same for the reward less that of the average answer to the same prompt

Bars vary between people by one logit. All are scored on the same held-out pairs of two answers to one prompt, by
``hierarchical`` and ``pooled``. ``across`` is the alternative that polypref does not use: every like paired with
dislikes of the same person, as if they had been compared.

Suffixes here: ``_A`` answers to a prompt.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from polypref.comparisons import Comparisons, Responses, Users
from polypref.data.thumbs import against_bars, ranked, with_bars
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.pooled import Pooled
from polypref.learners.protocol import margins

DIRECTIONS, TESTED = 24, 60
POPULATION, PERSONAL, BAR, UNSEEN = 0.25, 0.3, 1.0, 0.5


@dataclass(frozen=True, eq=False)
class Vectors:
    """An encoder that knows the vector of every text."""

    table: dict[str, np.ndarray] = field(default_factory=dict)
    name: str = "vectors"
    identity: str = "vectors"

    def encode(self, responses: Responses) -> np.ndarray:
        return np.stack([self.table[text] for text in responses.texts_R]).astype(np.float32)

    def texts(self, vector_RD: np.ndarray, kind: str) -> list[str]:
        names = [f"{kind} {len(self.table) + at:07d}" for at in range(len(vector_RD))]
        self.table.update(zip(names, vector_RD, strict=True))
        return names


class World:
    """People, and the judgements that they give."""

    def __init__(self, seed: int, people: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.encoder = Vectors()
        population = self.rng.normal(size=DIRECTIONS) * POPULATION
        self.weights_UD = population + self.rng.normal(size=(people, DIRECTIONS)) * PERSONAL
        self.bar_U = self.rng.normal(size=people) * BAR
        self.users = Users(pl.Series("id", [f"u{u}" for u in range(people)]))

    def asked(self, each: int, answers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """Users (N,), directions of prompts (N, D) and answers (answers, N, D), and the prompts' texts."""
        user_N = np.repeat(np.arange(len(self.users)), each)
        z_ND = self.rng.normal(size=(len(user_N), DIRECTIONS))
        x_AND = z_ND + self.rng.normal(size=(answers, len(user_N), DIRECTIONS))
        prompts = self.encoder.texts(z_ND + UNSEEN * self.rng.normal(size=z_ND.shape), "prompt")
        return user_N.astype(np.int32), z_ND, x_AND, prompts

    def reward(self, user_N: np.ndarray, x_ND: np.ndarray) -> np.ndarray:
        """Reward (N,) of each vector for its user, with the noise of a logistic judge."""
        return (self.weights_UD[user_N] * x_ND).sum(axis=1) + self.rng.logistic(size=len(user_N))

    def pairs(self, each: int) -> Comparisons:
        """Real pairs of two answers to one prompt."""
        user_N, _, (one_ND, other_ND), prompts = self.asked(each, 2)
        first_N = self.reward(user_N, one_ND - other_ND) > 0
        texts = self.encoder.texts(one_ND, "answer") + self.encoder.texts(other_ND, "answer")
        place_N = np.arange(len(user_N), dtype=np.int32)
        prompt_R = np.tile(place_N, 2)
        pool = Responses(pl.Series("prompt", prompts), prompt_R, pl.Series("text", texts))
        sides_2N = np.stack([place_N, place_N + np.int32(len(user_N))])
        chosen_N, rejected_N = np.where(first_N, sides_2N, sides_2N[::-1])
        return Comparisons(pool, self.users, user_N, chosen_N, rejected_N, lists="pairs")

    def thumbs(self, each: int, relative: bool) -> Comparisons:
        """Thumbs, one for the only answer to each prompt."""
        user_N, z_ND, (x_ND,), prompts = self.asked(each, 1)
        up_N = self.reward(user_N, x_ND - z_ND if relative else x_ND) > self.bar_U[user_N]
        place_N = np.arange(len(user_N), dtype=np.int32)
        texts = pl.Series("text", self.encoder.texts(x_ND, "answer"))
        pool, bar_P = with_bars(Responses(pl.Series("prompt", prompts), place_N, texts))
        return against_bars(pool, self.users, user_N, place_N, bar_P, up_N)


def across(thumbs: Comparisons) -> Comparisons:
    """Every like against dislikes of the same person, as if all answered one prompt."""
    pairs = ranked(thumbs)
    pool = replace(pairs.responses, prompt_R=np.zeros_like(pairs.responses.prompt_R))
    return replace(pairs, responses=pool)


def accuracy(train: Comparisons, test: Comparisons, world: World) -> list[float]:
    """Share of the test pairs that ``hierarchical`` and ``pooled`` get right."""
    found = []
    for learner in (Hierarchical(), Pooled()):
        margin_N = margins(learner.fit(train, encoder=world.encoder, seed=0), test).value_Q
        found.append(float(((margin_N > 0) + 0.5 * (margin_N == 0)).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("seeds", 3), ("people", 60), ("each", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    config = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    for seed in range(config.seeds):
        world = World(seed, config.people)
        test = world.pairs(TESTED)
        trains = {"real pairs": world.pairs(config.each)}
        for relative in (False, True):
            thumbs = world.thumbs(config.each, relative)
            judged = "relative" if relative else "absolute"
            trains |= {f"thumbs, {judged}": thumbs, f"across, {judged}": across(thumbs)}
        for name, train in trains.items():
            found.setdefault(name, []).append(accuracy(train, test, world))
            print(seed, name, found[name][-1], flush=True)
    print(f"{'judgements':22} {'hierarchical':>16} {'pooled':>16}   mean and spread over {config.seeds} seeds")
    for name, values in found.items():
        mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
        print(f"{name:22}", *(f"{m:10.3f} ±{s:.3f}" for m, s in zip(mean, spread, strict=True)))


if __name__ == "__main__":
    main()
