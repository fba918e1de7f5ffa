"""Encoders side by side: ``minilm+static`` gives a text the features of both, one after the other.

What one encoder loses another may keep: MiniLM's mean of contextual vectors says what a text is about and little of the
words it is said in; static vectors say the words and nothing of their order. Each part keeps its own cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Responses
from polypref.errors import SettingsError
from polypref.features.protocol import Encoder

_JOINED: WeakKeyDictionary[Responses, dict[str, NDArray[np.float32]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Joined:
    """Two or more different encoders, each as it is: one whose numbers are larger weighs more."""

    parts: tuple[Encoder, ...]

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise SettingsError("encoders are joined by twos or more, as in minilm+static.")
        for part in self.parts:
            if self.parts.count(part) > 1:
                raise SettingsError(f"encoder {self.name!r} has {part.name} twice; expected different encoders.")

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def identity(self) -> str:
        return " + ".join(part.identity for part in self.parts)

    def encode(self, responses: Responses) -> NDArray[np.float32]:
        """``features_RD`` (R, sum of the parts' sizes), read-only; raises what the parts raise."""
        memo = _JOINED.setdefault(responses, {})
        if self.identity not in memo:
            memo[self.identity] = np.concatenate([part.encode(responses) for part in self.parts], axis=1)
            memo[self.identity].flags.writeable = False
        return memo[self.identity]
