"""The prompts of language-model judges: which of two responses a person prefers, or whether a response is good.

Every part of a question has at most ``characters`` characters: a longer prompt loses its beginning, a longer response
its end, and ``...`` marks the cut. Source of the form: Dong et al. 2025 (their RAG judge), in our words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from polypref.comparisons import Responses

CHARACTERS = 2000
FEWEST = 8  # characters of a part that is cut for a model with a short context

TASK = "You foretell which of two responses one person prefers."
BEFORE = "This is what the person preferred before."
NOW = "Now foretell the person's choice."
LAST = "Answer with one letter, A or B."
APPROVE = "Is this a good response? Answer with one word, Yes or No."


@dataclass(frozen=True)
class Case:
    """Two responses to a prompt, and which of them was preferred: "A", "B", or "" for the case in question."""

    prompt: str
    first: str
    second: str
    preferred: str = ""

    def lines(self, characters: int) -> str:
        """The case as the judge sees it."""
        first, second = _head(self.first, characters), _head(self.second, characters)
        answer = f"Preferred: {self.preferred}".rstrip()
        return f"Prompt: {_tail(self.prompt, characters)}\n\nResponse A: {first}\n\nResponse B: {second}\n\n{answer}"


@dataclass(frozen=True)
class Choice:
    """Which of two responses does a person prefer? ``shown`` are their earlier choices, the most similar last."""

    asked: Case
    shown: Sequence[Case] = ()
    characters: int = CHARACTERS

    def text(self, halvings: int = 0) -> str:
        """See ``features.judge.Question``."""
        characters = max(self.characters >> halvings, FEWEST)
        parts = [TASK]
        if self.shown:
            parts += [BEFORE, *(case.lines(characters) for case in self.shown), NOW]
        return "\n\n".join([*parts, LAST, self.asked.lines(characters)])


@dataclass(frozen=True)
class Approval:
    """Is a response good?"""

    prompt: str
    response: str
    characters: int = 2 * CHARACTERS

    def text(self, halvings: int = 0) -> str:
        """See ``features.judge.Question``."""
        characters = max(self.characters >> halvings, FEWEST)
        prompt, response = _tail(self.prompt, characters), _head(self.response, characters)
        return f"Prompt: {prompt}\n\nResponse: {response}\n\n{APPROVE}\n\nAnswer:"

    @classmethod
    def each(cls, responses: Responses) -> list[Self]:
        """One question for each response of the pool."""
        prompts = prompt_texts(responses)
        return [cls(prompts[p], text) for p, text in zip(responses.prompt_R.tolist(), responses.texts_R, strict=True)]


def prompt_texts(responses: Responses) -> list[str]:
    """Every prompt of the pool as plain text."""
    return [responses.prompt_text(p) for p in range(len(responses.prompts))]


def _head(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + "..."


def _tail(text: str, characters: int) -> str:
    return text if len(text) <= characters else "..." + text[-characters:]
