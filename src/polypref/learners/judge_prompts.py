"""The prompts of language-model judges: which of two responses a person prefers, or whether a response is good.

Every part of a question has at most ``characters`` characters: a longer prompt loses its beginning, a longer response
its end, and ``...`` marks the cut. Source of the form: Dong et al. 2025 (their RAG judge), in our words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from polypref.comparisons import Comparisons, Responses

CHARACTERS = 2000
FEWEST = 8  # characters of a part that is cut for a model with a short context

TASK = "You foretell which of two responses one person prefers."
ABOUT = "This is known about the person."
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
    """Which of two responses does a person prefer? ``shown`` are their earlier choices, the most similar last.

    ``profile`` describes the person in words; it is never cut.
    """

    asked: Case
    shown: Sequence[Case] = ()
    characters: int = CHARACTERS
    profile: str = ""

    def text(self, halvings: int = 0) -> str:
        """See ``features.judge.Question``."""
        characters = max(self.characters >> halvings, FEWEST)
        parts = [TASK, *([ABOUT, self.profile] if self.profile else [])]
        if self.shown:
            parts += [BEFORE, *(case.lines(characters) for case in self.shown), NOW]
        return "\n\n".join([*parts, LAST, self.asked.lines(characters)])

    def turned(self) -> Choice:
        """The same question with the two responses in the other order."""
        return replace(self, asked=replace(self.asked, first=self.asked.second, second=self.asked.first))


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


def cases_of(rows: Comparisons) -> list[Case]:
    """Judgements as text: the response whose place in the pool is lower is A."""
    prompts, texts = prompt_texts(rows.responses), rows.responses.texts_R.to_list()
    prompt_N = rows.responses.prompt_R[rows.chosen_N].tolist()
    cases = []
    for p, chosen, rejected in zip(prompt_N, rows.chosen_N.tolist(), rows.rejected_N.tolist(), strict=True):
        first, second = sorted((chosen, rejected))
        cases.append(Case(prompts[p], texts[first], texts[second], "A" if first == chosen else "B"))
    return cases


def _head(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + "..."


def _tail(text: str, characters: int) -> str:
    return text if len(text) <= characters else "..." + text[-characters:]
