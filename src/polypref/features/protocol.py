"""The Encoder contract, which everything that turns text into vectors fulfils."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from polypref.arguments import quoted
from polypref.comparisons import Responses
from polypref.errors import InputError


class Encoder(Protocol):
    """A frozen dataclass of settings that turns a pool of responses into features.

    ``name``      as given on the command line: ``minilm``, ``static``, ``hf:<model>``, ``endpoint:<url>``.
    ``identity``  names everything that affects a feature's value (model, weights' hash, pooling, length limit), and
                  nothing that only affects speed (batch size, device). Equal identity and text mean equal features.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def encode(self, responses: Responses) -> NDArray[np.float32]:
        """``features_RD`` of each (prompt, response) in the pool's order; cached on disk by content key."""
        ...


def ensure_encoder(value: object) -> None:
    """Raise InputError unless ``value`` is an Encoder; says how to get one."""
    if not all(hasattr(value, name) for name in ("name", "identity", "encode")):
        raise InputError(f"encoder is {quoted(value)}; expected an Encoder, as polypref.encoder('minilm') returns.")
