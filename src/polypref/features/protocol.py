"""The Encoder contract, which everything that turns text into vectors fulfils."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from polypref.arguments import quoted
from polypref.comparisons import Responses
from polypref.errors import InputError

Read = Literal["pair", "response"]
"""What learners read: the response and how it relates to its prompt (``question``), or the response alone."""


class Encoder(Protocol):
    """A frozen dataclass of settings that turns a pool of responses into features.

    ``name``      as given on the command line: ``minilm``, ``static``, ``hf:<model>``, ``endpoint:<url>``.
    ``identity``  names everything that affects a feature's value (model, weights' hash, pooling, length limit), and
                  nothing that only affects speed (batch size, device). Equal identity and text mean equal features.
    ``features``  optional: "pair" if learners are also to read the relation to the prompt and the style (``question``),
                  which needs an encoder of any text; "response", the default of your own encoders, if not.
    ``reads_prompt``  optional: True if a response's vector also depends on its prompt.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def encode(self, responses: Responses) -> NDArray[np.float32]:
        """``features_RD`` of each (prompt, response) in the pool's order; cached on disk by content key."""
        ...


def read_by(encoder: Encoder) -> Read:
    """What learners read of an encoder's texts: its setting ``features``; without one, the response alone."""
    return getattr(encoder, "features", "response")


def reads_prompt(encoder: Encoder) -> bool:
    """Whether a response's vector depends on its prompt, as the encoder or its setting ``text`` says; default: no."""
    return getattr(encoder, "reads_prompt", getattr(encoder, "text", "response") != "response")


def ensure_encoder(value: object) -> None:
    """Raise InputError unless ``value`` is an Encoder; says how to get one."""
    if not all(hasattr(value, name) for name in ("name", "identity", "encode")):
        raise InputError(f"encoder is {quoted(value)}; expected an Encoder, as polypref.encoder('minilm') returns.")
