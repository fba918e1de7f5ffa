"""``polypref serve --demo``: a simulated world, its scorer, questions and bounds, made when the server starts.

The world has two opposed tastes (docs/worlds.md), so a visitor sees within a few answers that the server follows them
instead of the majority. The scorer is ``hierarchical`` on counts of words, so no weights have to be downloaded or run.

Some of the responses have a planted sentence of dangerous advice. The demo's safety scorer only knows these sentences:
it shows the gate at work, and is not a safety scorer for anything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.bounds.gate import Bounded, Gate
from polypref.bounds.safety_cache import Safety
from polypref.comparisons import IntArray, Responses
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.protocol import POPULATION, Scores, UserIds, resolved
from polypref.serve.core import FLOOR, Core
from polypref.serve.questions import Question
from polypref.serve.remembered import Remembered
from polypref.serve.store.opened import opened
from polypref.worlds import candidates, simulate

WORLD = {"users": 24, "judgements": 40, "judges": 8}
BUCKETS = 32  # of words
USUAL_LENGTH, USUAL_WORD = 400, 5  # characters
PROMPTS, RESPONSES = 9, 6  # the first prompt is the slate
EVERY = 4  # every fourth response is unsafe
UNSAFE = (
    "If it still hurts, take three times the dose that the label allows.",
    "Leave the smoke alarm switched off, it only beeps.",
    "Drive on even if you cannot keep your eyes open.",
    "Pour petrol on it first, then it burns better.",
)


@dataclass(frozen=True)
class Words:
    """Signed counts of words in ``BUCKETS``, at unit length, the length of the text and that of its words.

    Enough for the demo's texts, whose styles differ in their words, and for no others.
    """

    name: str = "words"
    identity: str = f"words of the demo, {BUCKETS} buckets v1"

    def encode(self, responses: Responses) -> NDArray[np.float32]:
        """See ``features.protocol.Encoder``."""
        found_RD = np.zeros((len(responses), BUCKETS + 2), np.float32)
        for row_D, text in zip(found_RD, responses.texts_R, strict=True):
            words = re.findall(r"[a-z']+", text.lower())
            hashed = np.array([crc32(word.encode()) for word in words], np.uint32)
            np.add.at(row_D, hashed % BUCKETS, np.where(hashed & BUCKETS, 1.0, -1.0))
            row_D /= max(float(np.linalg.norm(row_D)), 1.0)
            row_D[BUCKETS] = np.log(max(len(text), 1) / USUAL_LENGTH)
            row_D[BUCKETS + 1] = sum(map(len, words)) / max(len(words), 1) - USUAL_WORD
        return found_RD


class Planted:
    """Safety scores: -1 for a text with one of the sentences of ``UNSAFE``, 1 for others."""

    reads = "whole texts"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``bounds.safety.Answers``."""
        ids, response_Q = resolved(responses, user_ids, response_Q)
        unsafe_R = responses.texts_R.str.contains_any(list(UNSAFE)).to_numpy()
        return Scores(1.0 - 2.0 * unsafe_R[response_Q], np.full(len(ids), POPULATION, np.int8))


def demo(store: str, floor: float = FLOOR, encrypt: bool = False, seed: int = 0) -> tuple[Core, tuple[Question, ...]]:
    """A core within the demo's bounds, and its questions, in the store at ``store``. Raises StoreError."""
    world = simulate("two-tastes", seed=seed, **WORLD)
    scorer = Hierarchical().fit(world.comparisons, encoder=Remembered(Words()), seed=seed)
    bounds = Bounded(scorer, Safety(Planted()), Gate({"": 0.0}), policy_hash=content.hexdigest("demo", *UNSAFE))
    pool = candidates(world, PROMPTS, RESPONSES, seed=seed + 1).responses
    return Core(scorer, content.hexdigest("demo", str(seed)), opened(store, encrypt), bounds, floor), questions_of(pool)


def questions_of(pool: Responses) -> tuple[Question, ...]:
    """Each prompt with its responses, some of them unsafe; the first one is the slate."""
    texts = pool.texts_R.to_list()
    for number, at in enumerate(range(EVERY - 1, len(texts), EVERY)):
        texts[at] = f"{texts[at]} {UNSAFE[number % len(UNSAFE)]}"
    prompts = pool.prompts.gather(pool.prompt_R).to_list()
    found: dict[str, list[str]] = {}
    for prompt, text in zip(prompts, texts, strict=True):
        found.setdefault(prompt, []).append(text)
    few = {prompt: tuple(texts[:RESPONSES]) for prompt, texts in found.items()}  # a prompt may have been drawn twice
    return tuple(Question(prompt, texts, at == 0) for at, (prompt, texts) in enumerate(few.items()))
