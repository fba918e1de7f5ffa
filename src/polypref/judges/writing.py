"""Language models that write: the same models and servers as judges, sampled.

Covered: chats, several answers that differ by their seed, a chat that the model cannot read. Not covered: streaming; a
server that ignores the seed, which writes something else each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polypref.control_tokens import chat
from polypref.errors import EncoderError
from polypref.features.model_folder import line
from polypref.features.transformer import default_device
from polypref.judges.local import Causal, load
from polypref.judges.protocol import Writer
from polypref.judges.server import Chat

Messages = Sequence[Mapping[str, str]]


def writer(model: str, *, timeout: float = 60.0, retries: int = 5, pause: float = 1.0) -> Writer:
    """The model at ``http://host:8000/v1#name``, in a local folder, or on the hub. Loads nothing yet.

    ``timeout``, ``retries`` and ``pause`` are for a server. Raises SettingsError for an invalid address.
    """
    if model.startswith(("http://", "https://")):
        return ChatWriter(Chat(model, timeout, retries, pause))
    return LocalWriter(Causal(model))


@dataclass(frozen=True)
class ChatWriter:
    """A server in OpenAI's form; ``n`` answers are ``n`` requests, since not all servers know the number."""

    server: Chat

    @property
    def identity(self) -> str:
        return f"writer {self.server.identity}"

    def write(self, messages: Messages, n: int, max_tokens: int, temperature: float, seed: int) -> list[str]:
        """See ``judges.protocol.Writer``. Raises EncoderError without an answer."""
        body = {"messages": [*map(dict, messages)], "max_tokens": max_tokens, "temperature": temperature}
        return [self.server.asked(body | {"seed": seed + i}, _text) for i in range(n)]


def _text(choice: Mapping[str, Any]) -> str:
    return str(choice["message"]["content"] or "")


@dataclass(frozen=True)
class LocalWriter:
    """A causal model of transformers in this process; it needs a chat template."""

    model: Causal

    @property
    def identity(self) -> str:
        return f"writer {self.model.identity}"

    def write(self, messages: Messages, n: int, max_tokens: int, temperature: float, seed: int) -> list[str]:
        """See ``judges.protocol.Writer``. Raises EncoderError for a chat that the model cannot read."""
        import torch
        from jinja2 import TemplateError

        folder, weights, limit = self.model.plan()
        network, tokenizer = load(folder, weights, self.model.dtype, self.model.device or default_device())
        if not tokenizer.chat_template:
            raise EncoderError(f"{self.model.name} has no chat template, so it cannot write; use an instructed model.")
        try:
            text = chat(tokenizer, messages)
        except TemplateError as error:
            raise EncoderError(f"the chat template of {self.model.name} refuses a chat: {line(error)}.") from error
        inputs = tokenizer(text, add_special_tokens=False, verbose=False, return_tensors="pt").to(network.device)
        read = inputs["input_ids"].shape[1]
        if read + max_tokens > limit:
            raise EncoderError(
                f"a chat takes {read} tokens, its answer up to {max_tokens}, and {self.model.name} reads {limit}; give "
                "it fewer judgements or shorter texts."
            )
        sampled = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            answers = network.generate(
                **inputs, **sampled, num_return_sequences=n, max_new_tokens=max_tokens, pad_token_id=pad
            )
        return tokenizer.batch_decode(answers[:, read:], skip_special_tokens=True)
