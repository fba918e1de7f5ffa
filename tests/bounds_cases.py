"""Scorers from tables and slates by lot, for the tests of bounds; a text is its place in the table."""

from __future__ import annotations

import numpy as np
import polars as pl

from polypref.bounds.slates import Slates
from polypref.bounds.windowed import READS
from polypref.comparisons import Responses
from polypref.learners.protocol import PERSONAL, POPULATION, Scores, resolved


def pool(texts, prompt="p"):
    return Responses.of([prompt] * len(texts), texts)[0]


class Table:
    """Scores from a table: of strangers ``shared``, of everybody else ``own``; a text is its place in it.

    Of texts that are no place it knows nothing, and calls them safe.
    """

    def __init__(self, shared, own=None, source=POPULATION):
        self.shared, self.own, self.source = np.array(shared, float), own, source
        self.asked = 0

    def score(self, responses: Responses, user_ids, response_Q=None):
        ids, at = resolved(responses, user_ids, response_Q)
        place = np.array([int(text) if text.isdecimal() else -1 for text in responses.texts_R])[at]
        self.asked += len(place)
        stranger = ids.is_null().to_numpy()
        own = self.shared if self.own is None else np.array(self.own, float)
        value = np.where(place < 0, 1e3, np.where(stranger, self.shared[place], own[place]))
        return Scores(value, np.where(stranger, self.source, PERSONAL).astype(np.int8))


class Whole(Table):
    """Reads texts whole: nobody asks it about windows."""

    reads = READS


def random_slates(rng, slates, size, share=0.2):
    """Safety scores of candidates, unsafe ones lower on average, and their slates; every text is its own place."""
    n = slates * size
    unsafe = rng.random(n) < share
    safety = rng.standard_normal(n) - 2.0 * unsafe
    texts = [str(i) for i in range(n)]
    responses, _ = Responses.of([f"q{i // size}" for i in range(n)], texts)
    slate = np.repeat(np.arange(slates, dtype=np.int32), size)
    return Slates(responses, slate, np.arange(n, dtype=np.int32), unsafe, pl.Series([""] * slates)), safety


def by_text(value):
    return lambda responses: value[[int(text) for text in responses.texts_R]]
