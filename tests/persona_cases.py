"""What the tests of personas run on: people with known traits, and a scripted judge of known skill.

The judge knows the true style of each text. It reads what it is told, the statements of a profile or the examples, and
knows nothing else. It prefers the letter A a little, as small models do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, from_columns
from polypref.judges.protocol import Question, Reply
from polypref.learners.judge_prompts import ABOUT, BEFORE
from polypref.learners.persona import Persona
from polypref.learners.personas.traits import NUMBER, TRAITS, meaning
from polypref.worlds.text import STYLES, prompts, write

LIKED = 2  # styles that each person cares about
COLUMN = {NUMBER[style]: at for at, style in enumerate(STYLES)}  # trait number -> style
CASE = re.compile(r"Response A: (.*?)\n\nResponse B: (.*?)\n\nPreferred:([^\n]*)", re.DOTALL)


@dataclass(frozen=True)
class Truth:
    """Judgements, what each person likes (``taste_UD``, 0, 1 or -1; columns as in STYLES), and the texts' styles."""

    rows: Comparisons
    taste_UD: NDArray[np.float64]
    styles: Mapping[str, NDArray[np.float64]]

    def part(self, first: int, last: int) -> Comparisons:
        """Each person's judgements number ``first`` to ``last``."""
        return self.rows.take(np.flatnonzero((self.number_N >= first) & (self.number_N < last)))

    @property
    def number_N(self) -> IntArray:
        return (np.arange(len(self.rows)) // len(self.taste_UD)).astype(np.int32)


def world(people: int, judgements: int, seed: int = 0, noise: float = 0.5, null: bool = False) -> Truth:
    """People who care about two of six styles each; in a null world, choices are coin flips."""
    rng = np.random.default_rng(seed)
    taste_UD = np.zeros((people, len(STYLES)))
    for u in range(people):
        taste_UD[u, rng.permutation(len(STYLES))[:LIKED]] = rng.choice([-1.0, 1.0], LIKED)
    n = people * judgements
    user_N = np.tile(np.arange(people), judgements)
    prompt_N = rng.integers(0, len(prompts()), n)
    sides, styles = list[list[str]](), dict[str, NDArray[np.float64]]()
    for _ in range(2):
        texts, style_ND = write(prompt_N.astype(np.int32), rng.random((n, len(STYLES))), rng)
        sides.append(texts)
        styles |= dict(zip(texts, style_ND, strict=True))
    apart_N = np.array([(styles[a] - styles[b]) @ taste_UD[u] for a, b, u in zip(*sides, user_N, strict=True)]) / 0.3
    chance_N = np.full(n, 0.5) if null else 1 / (1 + np.exp(-apart_N / noise))
    first_N = rng.random(n) < chance_N
    chosen = [a if first else b for a, b, first in zip(*sides, first_N, strict=True)]
    rejected = [b if first else a for a, b, first in zip(*sides, first_N, strict=True)]
    ids = [f"person {u}" for u in user_N]
    return Truth(from_columns(ids, [prompts()[p] for p in prompt_N], chosen, rejected), taste_UD, styles)


@dataclass(frozen=True)
class Scripted:
    """A judge that follows what it is told in a share ``skill`` of the pairs, and else answers by lot.

    ``mute``: the share of its answers, by lot, that are no letter. ``lot``: without a reason it draws a side.
    """

    styles: Mapping[str, NDArray[np.float64]]
    skill: float = 1.0
    mute: float = 0.0
    lot: bool = True
    name: str = "scripted"

    @property
    def identity(self) -> str:
        styles = sha256("".join(self.styles).encode()).hexdigest()[:12]
        return f"scripted {self.skill} {self.mute} {self.lot} {styles}"

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[IntArray, list[Reply]]]:
        yield np.arange(len(questions), dtype=np.int32), [self.reply(question.text()) for question in questions]

    def reply(self, text: str) -> Reply:
        *shown, (first, second, _) = CASE.findall(text)
        taste = _stated(text) + self._seen(shown)
        low, high = sorted((first, second))
        toss = [byte / 256 for byte in sha256(f"{low}|{high}".encode()).digest()[:3]]
        apart = float((self._style(first) - self._style(second)) @ taste)
        if toss[0] > self.skill or not apart:
            apart = (0.5 if (toss[1] < 0.5) == (first == low) else -0.5) * self.lot
        if sha256(text.encode()).digest()[0] / 256 < self.mute:
            return "I would rather not say."
        odds = 4 * apart + 0.3
        return [("A", -float(np.logaddexp(0, -odds))), ("B", -float(np.logaddexp(0, odds)))]

    def _style(self, text: str) -> NDArray[np.float64]:
        return self.styles.get(text, np.full(len(STYLES), 0.5))

    def _seen(self, shown: Sequence[tuple[str, str, str]]) -> NDArray[np.float64]:
        """The mean difference of styles between the preferred and the other response of the examples."""
        found = [
            (1 if letter.strip() == "A" else -1) * (self._style(first) - self._style(second))
            for first, second, letter in shown
        ]
        return np.mean(found, axis=0) if found else np.zeros(len(STYLES))


def _stated(text: str) -> NDArray[np.float64]:
    taste = np.zeros(len(STYLES))
    if ABOUT in text:
        said = text.partition(ABOUT)[2].partition(BEFORE)[0]
        for z, sign, strength in filter(None, map(meaning, said.splitlines())):
            if z in COLUMN:
                taste[COLUMN[z]] += sign * strength / 2
    return taste


def persona(judge: Any, **settings: Any) -> Persona:
    """Settings whose judge is the scripted one."""
    made = Persona("scripted", **settings)
    vars(made)["language_model"] = judge
    return made


def liked(truth: Truth, u: int) -> set[tuple[str, int]]:
    """The true traits of a person, with their direction."""
    return {(STYLES[d], int(truth.taste_UD[u, d])) for d in np.flatnonzero(truth.taste_UD[u])}


def stated(lines: Sequence[str]) -> set[tuple[str, int]]:
    """The traits that a profile states, with their direction."""
    return {(TRAITS[meant[0]].name, meant[1]) for meant in map(meaning, lines) if meant}
