"""The judge contract: a model that gets questions and says how likely each answer is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from polypref.comparisons import IntArray

TOP = 20  # most likely first tokens that are read, the maximum that servers list

Reply = Sequence[tuple[str, float]] | str
"""The most likely first tokens with log-probabilities, or the text if a server gives no more."""


class Question(Protocol):
    """A question to a judge."""

    def text(self, halvings: int = 0) -> str:
        """The question's text; each of ``halvings`` halves the maximum length of its parts, for short contexts."""
        ...


class LanguageModel(Protocol):
    """A model that answers questions."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """Names everything that affects a reply, as in ``features.protocol.Encoder``."""
        ...

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[IntArray, list[Reply]]]:
        """Batches ``(index_B, replies)`` that together cover the questions once, in any order."""
        ...


class Writer(Protocol):
    """A model that writes text."""

    @property
    def identity(self) -> str:
        """Names everything that affects what it writes."""
        ...

    def write(
        self, messages: Sequence[Mapping[str, str]], n: int, max_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """``n`` answers to a chat, each of at most ``max_tokens`` tokens; equal arguments may give equal answers."""
        ...
