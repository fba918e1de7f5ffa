"""Texts that begin with the user: ``[opening of the tokenizer] [user] [prompt] [response] [closing]``.

The user's part (soft tokens, or an id as text) has reserved space: a long prompt loses its beginning and a very long
response its end, but the user's part stays. Padding has its own mask, so neither the tokenizer's padding side nor its
padding token (which may be the end-of-text token, or missing) can change a reward.

Suffixes here: ``_V`` users and the generic one, ``_X`` texts of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from polypref.comparisons import Responses
from polypref.features.hf import Plan, tokenise
from polypref.features.transformer import Framer, Tokens
from polypref.finetune.network import Asking
from polypref.finetune.recipe import reads_types

if TYPE_CHECKING:
    from torch import Tensor

Side = Literal["right", "left"]


@dataclass(frozen=True, eq=False)
class Reader:
    """Turns responses into tokens and puts the user's part before them.

    ``user_tokens_V``  the tokens of each user's part, number 0 being the generic user; empty lists without users.
    ``soft``     the user's part holds places for learned vectors; its token ids have no meaning.
    ``start``    tokens with which the tokenizer opens every text.
    """

    tokenizer: Any
    plan: Plan
    user_tokens_V: Sequence[Sequence[int]]
    soft: bool
    start: Sequence[int]
    types: bool

    @classmethod
    def of(cls, tokenizer: Any, plan: Plan, asking: Asking) -> Self:
        """Reserve space for the longest user's part. Raises EncoderError if none is left for a text."""
        user_tokens_V = asking.user_tokens_V(tokenizer)
        plan = replace(plan, max_length=plan.max_length - max(map(len, user_tokens_V)))
        start = Framer(tokenizer, plan.max_length).before
        return cls(tokenizer, plan, user_tokens_V, asking.soft, start, reads_types(tokenizer, plan))

    def read(self, responses: Responses) -> list[Tokens]:
        """Token ids of each response, with its prompt where the plan says so."""
        return tokenise(self.tokenizer, responses, self.plan)

    def inputs(self, texts: Sequence[Tokens], users: Sequence[int], side: Side = "right") -> dict[str, Tensor]:
        """The network's input for X texts, each with a user's number: arrays (X, T), and ``user`` (X,).

        ``slot`` marks the places of soft tokens, ``position`` counts the tokens of a text from 0.
        """
        import torch

        length_X = [len(text.ids) + len(self.user_tokens_V[user]) for text, user in zip(texts, users, strict=True)]
        shape = (len(texts), max(length_X))
        names = ["input_ids", "attention_mask", "slot", "position"] + ["token_type_ids"] * self.types
        arrays = {name: np.zeros(shape, np.int64) for name in names}
        for row, (text, user) in enumerate(zip(texts, users, strict=True)):
            ids, user_tokens = list(text.ids), self.user_tokens_V[user]
            at = len(self.start) if ids[: len(self.start)] == list(self.start) else 0
            here = slice(0, length_X[row]) if side == "right" else slice(shape[1] - length_X[row], shape[1])
            arrays["input_ids"][row, here] = [*ids[:at], *user_tokens, *ids[at:]]
            arrays["attention_mask"][row, here] = 1
            arrays["position"][row, here] = np.arange(length_X[row])
            if self.soft:
                arrays["slot"][row, here.start + at : here.start + at + len(user_tokens)] = 1
            if self.types and text.n_head:
                arrays["token_type_ids"][row, here.start + text.n_head + len(user_tokens) : here.stop] = 1
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return tensors | {"user": torch.tensor(users, dtype=torch.int64)}
