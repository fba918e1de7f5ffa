"""Joined encoders: ``minilm+static`` concatenates the features of both.

One encoder may keep what another loses: MiniLM's mean of contextual vectors captures what a text is about but little of
its wording; static vectors capture the words but not their order. Each part has its own cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Responses
from polypref.errors import SettingsError
from polypref.features.encode_missing import Cache, place_of
from polypref.features.protocol import Encoder, Read, read_by, reads_prompt

_JOINED: WeakKeyDictionary[Responses, dict[str, NDArray[np.float32]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Joined:
    """Two or more different encoders, not rescaled, so that one with larger numbers weighs more."""

    parts: tuple[Encoder, ...]

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise SettingsError("joined encoders need at least two parts, as in minilm+static.")
        for part in self.parts:
            if self.parts.count(part) > 1:
                raise SettingsError(f"encoder {self.name!r} has {part.name} twice; expected different encoders.")

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def identity(self) -> str:
        return " + ".join(part.identity for part in self.parts)

    @property
    def features(self) -> Read:
        """What learners read, as the first part says."""
        return read_by(self.parts[0])

    @property
    def reads_prompt(self) -> bool:
        """Whether any part's vectors depend on the prompt."""
        return any(map(reads_prompt, self.parts))

    @property
    def cache(self) -> Cache:
        """The first part's ``cache``."""
        return place_of(self.parts[0])[1]

    @property
    def cache_folder(self) -> Path | str | None:
        """The first part's cache folder; None: the usual one."""
        return place_of(self.parts[0])[0]

    def encode(self, responses: Responses) -> NDArray[np.float32]:
        """``features_RD`` (R, sum of the parts' sizes), read-only; raises what the parts raise."""
        memo = _JOINED.setdefault(responses, {})
        if self.identity not in memo:
            memo[self.identity] = np.concatenate([part.encode(responses) for part in self.parts], axis=1)
            memo[self.identity].flags.writeable = False
        return memo[self.identity]
