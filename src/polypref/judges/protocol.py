"""What a judge is: a model that is asked questions and says how likely each answer is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from polypref.comparisons import IntArray

TOP = 20  # likeliest first tokens that are looked at: what servers list at most

Reply = Sequence[tuple[str, float]] | str
"""The likeliest first tokens with their log-probabilities, or the word where a server gives no more."""


class Question(Protocol):
    """What a judge is asked."""

    def text(self, halvings: int = 0) -> str:
        """The question; ``halvings`` halves the length that its parts may have, for a model that reads little."""
        ...


class LanguageModel(Protocol):
    """A model that can be asked."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """Everything that decides a reply, as in ``features.protocol.Encoder``."""
        ...

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[IntArray, list[Reply]]]:
        """Batches ``(index_B, replies)`` that together cover the questions once, in any order."""
        ...
