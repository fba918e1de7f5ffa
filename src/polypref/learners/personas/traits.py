"""Statements about what a person prefers, and a rough measure of each trait in a text; no language model.

A statement has a strength and a direction: "Prefers the answer that is longer." The measures only serve to propose:
whether a statement is kept is decided by what a judge foretells with it. They are counts of English words, lists and
signs; a text in another language has a length, lists, figures and questions, and nothing else.

Suffixes here: ``_Z`` traits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WEAK, PLAIN, STRONG = 1, 2, 3
STRENGTHS = {WEAK: "Slightly prefers", PLAIN: "Prefers", STRONG: "Strongly prefers"}
FORM = "Prefers the answer that ..."


@dataclass(frozen=True)
class Trait:
    """Something that a text has more or less of; ``more`` and ``less`` end a statement."""

    name: str
    more: str
    less: str
    measure: Callable[[str], float]

    def statement(self, sign: int, strength: int = PLAIN) -> str:
        """The preference for more (1) or less (-1) of it."""
        return f"{STRENGTHS[strength]} the answer that {self.more if sign > 0 else self.less}."


def _count(pattern: str) -> Callable[[str], float]:
    found = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    return lambda text: float(len(found.findall(text)))


def _words(*words: str) -> Callable[[str], float]:
    return _count(rf"\b(?:{'|'.join(words)})\b")


def _length(text: str) -> float:
    return float(len(text.split()))


def _word_length(text: str) -> float:
    words = text.split()
    return sum(map(len, words)) / len(words) if words else 0.0


_casual = _words(
    "gonna|gotta|dude|yeah|kinda|totally|stuff|guys|ya|c'mon|dunno|hey|okay|ok|lol", r"\w+'(?:s|re|ve|ll|d|m|t)"
)
_solemn = _words(
    "imperative|one must|shall|therefore|hereby|incumbent|obliged|prudent|advisable|regarding|furthermore|thus"
)


def _formality(text: str) -> float:
    return _solemn(text) - _casual(text)


TRAITS = (
    Trait("length", "is longer and more detailed", "is shorter and to the point", _length),
    Trait("lists", "is set out as a list", "is plain prose without lists", _count(r"^\s*(?:[-*•]|\d+[.)])\s")),
    Trait(
        "examples",
        "gives concrete examples",
        "does without examples",
        _words("example", "instance", "e\\.g", "picture"),
    ),
    Trait(
        "hedging",
        "admits what is uncertain",
        "is certain and does not hedge",
        _words("perhaps|maybe|might|may|could|possibly|unsure|uncertain|conceivably|albeit", "not sure", "depends"),
    ),
    Trait(
        "warmth",
        "is warm and encouraging",
        "is matter-of-fact and not emotional",
        _words(
            "thanks?|happy|glad|love|lovely|dear|friend|kind|wonderful\\w*|joy|proud|hugs|warm\\w*|heart\\w*|sorry|gentle"
        ),
    ),
    Trait("formality", "is formal in tone", "is casual in tone", _formality),
    Trait("jargon", "uses technical terms", "uses everyday words", _word_length),
    Trait("figures", "gives numbers and figures", "does without figures", _count(r"\d+")),
    Trait("questions", "asks something back", "asks nothing back", _count(r"\?")),
    Trait("first person", "speaks in the first person", "does not speak of itself", _words("I|I'm|me|my|mine")),
)

NUMBER = {trait.name: z for z, trait in enumerate(TRAITS)}
_MEANT = {
    trait.statement(sign, strength): (z, sign, strength)
    for z, trait in enumerate(TRAITS)
    for sign in (1, -1)
    for strength in STRENGTHS
}


@lru_cache(maxsize=1 << 16)
def _measured(text: str) -> tuple[float, ...]:
    return tuple(trait.measure(text) for trait in TRAITS)


def contrast(chosen: str, rejected: str) -> NDArray[np.float64]:
    """How much more of each trait the first text has, (Z,), from -1 to 1: the difference over the sum."""
    one_Z, other_Z = np.array(_measured(chosen)), np.array(_measured(rejected))
    return (one_Z - other_Z) / np.maximum(np.abs(one_Z) + np.abs(other_Z), 1e-9)


def meaning(statement: str) -> tuple[int, int, int] | None:
    """The trait, direction and strength of a statement of this file; None for any other text."""
    return _MEANT.get(statement.strip())


def sentences(profile: str) -> list[str]:
    """The sentences of a profile: it ends them with a line break, or with a full stop and a space."""
    return [one.strip() for one in re.split(r"(?<=[.!?])\s+|\n+", profile) if one.strip()]


def joined(statements: list[str]) -> str:
    """A profile of these sentences, one a line."""
    return "\n".join(statements)
