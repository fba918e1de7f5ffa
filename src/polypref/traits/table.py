"""The traits and their contrasting texts, ``pairs.toml``, as a pool and as contrasts: weights of the texts.

Suffixes here: ``_T`` traits, ``_X`` pairs of a trait.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from polypref.comparisons import FloatArray, IntArray, Responses

LENGTH = "length"


@dataclass(frozen=True, eq=False)
class Table:
    """``names_T`` of the traits, in ``words_T`` what has more of each and what has less.

    ``more_TX``, ``less_TX``  the two texts of each pair, as places in ``pool``; pair x of all traits is on one topic.
    """

    names_T: tuple[str, ...]
    words_T: tuple[tuple[str, str], ...]
    pool: Responses
    more_TX: IntArray
    less_TX: IntArray

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Table:
        """From the content of ``pairs.toml``."""
        traits, topics = content["traits"], content["topics"]
        texts = [text for name in traits for topic in topics for text in topic[name]]
        prompts = [topic["prompt"] for _ in traits for topic in topics for _ in range(2)]
        pool, place_Q = Responses.of(prompts, texts)
        place_TX2 = place_Q.reshape(len(traits), len(topics), 2)
        return cls(tuple(traits), tuple(map(tuple, traits.values())), pool, place_TX2[..., 0], place_TX2[..., 1])

    def contrasts_TXR(self) -> FloatArray:
        """Weights (T, X, R) of the texts' rewards, whose sum is how much more the side with more is worth.

        What the pair's sides differ in length is worth, by the pairs of the trait ``length``, is taken off the others.
        """
        found = np.zeros((*self.more_TX.shape, len(self.pool)))
        trait_TX, pair_TX = np.indices(self.more_TX.shape)
        np.add.at(found, (trait_TX, pair_TX, self.more_TX), 1.0)
        np.add.at(found, (trait_TX, pair_TX, self.less_TX), -1.0)
        if LENGTH in self.names_T:
            longer_TX = found @ np.log(self.pool.lengths_R)
            of_length = self.names_T.index(LENGTH)
            worth_R = found[of_length].mean(axis=0) / longer_TX[of_length].mean()
            others_T = np.arange(len(self.names_T)) != of_length
            found -= np.where(others_T[:, None], longer_TX, 0.0)[:, :, None] * worth_R
        return found

    def placebo(self, seed: int) -> Table:
        """The same topics and as many traits, none of which is one: each pair has two random texts of its topic."""
        rng = np.random.default_rng(seed)
        texts_TXP = np.stack([self.more_TX, self.less_TX], axis=-1)
        shuffled_XR = rng.permuted(texts_TXP.transpose(1, 0, 2).reshape(texts_TXP.shape[1], -1), axis=1)
        drawn_TXP = shuffled_XR.reshape(texts_TXP.shape[1], -1, 2).transpose(1, 0, 2)
        names = tuple(f"placebo {n + 1}" for n in range(len(self.names_T)))
        words = tuple((f"more of {name}", f"less of {name}") for name in names)
        return Table(names, words, self.pool, drawn_TXP[..., 0], drawn_TXP[..., 1])


@cache
def packaged() -> Table:
    """The table of this package."""
    return Table.of(tomllib.loads(files("polypref.traits").joinpath("pairs.toml").read_text(encoding="utf-8")))
