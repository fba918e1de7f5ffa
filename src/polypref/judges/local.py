"""A judge in this process: any causal language model of transformers, by folder or hub name.

The question goes through the tokenizer's chat template if it has one, else it is plain text. Only the first token of
the answer is read, so nothing is generated. Batches are padded on the right with our own mask, so padding side, padding
token (which may be missing) and batch size do not change an answer. If a question is longer than the context, all its
parts are cut shorter. In half precision the last layer stays in float32: log-probabilities would be rounded to steps of
an eighth, more than a small model's opinions, and batch size changes an answer a little all the same. Not covered:
models that reason before they answer.

Suffixes here: ``_V`` tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import IntArray
from polypref.control_tokens import chat
from polypref.errors import EncoderError, SettingsError
from polypref.features.hf import inspect
from polypref.features.memory import answered_within
from polypref.features.model_folder import line, locate
from polypref.features.transformer import LOCAL, WEIGHTS, Framer, Tokens, default_device, inputs_of, quiet
from polypref.judges.protocol import TOP, Question, Reply
from polypref.network_access import Permission, present
from polypref.regular_files import expanded
from polypref.terminal import say

if TYPE_CHECKING:
    import torch

MAX_LENGTH = 8192  # tokens, unless the model reads fewer or the settings say otherwise
MOST_HALVINGS = 10
LESS = "set dtype=bfloat16 or a smaller max_length"


@dataclass(frozen=True)
class Causal:
    """A causal language model. ``batch_size`` and ``device`` affect speed and place, never values."""

    model: str
    max_length: int | None = None
    dtype: str = "float32"
    batch_size: int = 8
    device: str | None = None
    permission: Permission = field(default_factory=present, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> str:
        folder, weights, max_length = self.plan()
        known = folder.name if expanded(self.model).is_dir() else self.model
        head = "" if self.dtype == "float32" else " head=float32"
        return f"judge:{known} weights={weights} max_length={max_length} dtype={self.dtype}{head}"

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[IntArray, list[Reply]]]:
        """See ``judge.LanguageModel``. Raises EncoderError when the model cannot be had or a question is too long."""
        folder, weights, max_length = self.plan()
        network, tokenizer = load(folder, weights, self.dtype, self.device or default_device())
        tokens = [_tokens(tokenizer, question, max_length) for question in questions]
        if cut := sum(text.cut for text in tokens):
            say(f"{cut:,} of {len(tokens):,} questions are cut to the {max_length} tokens that {self.model} reads.")
        for index_B, inputs in inputs_of(tokens, self.batch_size, network.device):
            top_B2V = answered_within(partial(_answers, network, inputs), np.arange(len(index_B)), LESS)
            words = tokenizer.batch_decode(top_B2V[:, 1].astype(np.int64).reshape(-1, 1).tolist())
            pairs = list(zip(words, top_B2V[:, 0].flatten().tolist(), strict=True))
            yield index_B, [pairs[at : at + top_B2V.shape[2]] for at in range(0, len(pairs), top_B2V.shape[2])]

    def plan(self) -> tuple[Path, str, int]:
        """The model's folder, a name for its weights, and the number of tokens it reads."""
        folder, weights = locate(self.model, None, self.permission)
        kind, _, limit = inspect(folder, weights)
        if kind != "causal":
            raise EncoderError(f"{self.model} holds a model of kind {kind!r}; a judge must be a causal language model.")
        if self.max_length is not None and self.max_length > limit:
            raise SettingsError(f"{self.model} reads at most {limit} tokens; max_length = {self.max_length}.")
        return folder, weights, self.max_length or min(limit, MAX_LENGTH)


def _tokens(tokenizer: Any, question: Question, max_length: int) -> Tokens:
    """Token ids of a question, cut shorter until the model can read it."""
    ids: list[int] = []
    for halvings in range(MOST_HALVINGS + 1):
        text, before = question.text(halvings), []
        if tokenizer.chat_template:
            text = _rendered(tokenizer, text)
        else:
            before = Framer(tokenizer, max_length).before
        ids = [*before, *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
        if len(ids) <= max_length:
            return Tokens(ids, 0, halvings > 0)
    raise EncoderError(
        f"a question takes {len(ids)} tokens when cut short and the judge reads {max_length}; use one that reads more."
    )


def _rendered(tokenizer: Any, text: str) -> str:
    from jinja2 import TemplateError

    try:
        return chat(tokenizer, [{"role": "user", "content": text}])
    except TemplateError as error:
        raise EncoderError(f"the judge's chat template refuses a user's message: {line(error)}.") from error


def _answers(network: Any, inputs: dict[str, torch.Tensor], rows_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """The likeliest tokens' log-probabilities and numbers (B, 2, V) of some of a batch's questions."""
    top = _likeliest(network, {name: tensor[rows_B] for name, tensor in inputs.items()})
    return np.stack([top.values.double().cpu().numpy(), top.indices.cpu().numpy()], axis=1)


def _likeliest(network: Any, inputs: dict[str, torch.Tensor]) -> Any:
    """Values and indices (B, at most TOP) of the likeliest next tokens' log-probabilities."""
    import torch

    last_B = inputs["attention_mask"].sum(1) - 1  # padding is on the right
    kept, place_B = last_B.unique(return_inverse=True)  # a whole batch's logits may not fit into memory
    with torch.inference_mode():
        logits_BTV = network(**inputs, logits_to_keep=kept).logits
        logits_BV = logits_BTV[torch.arange(len(place_B), device=place_B.device), place_B].float()
        return logits_BV.log_softmax(1).topk(min(TOP, logits_BV.shape[1]), dim=1)


@lru_cache(maxsize=1)
def load(folder: Path, weights: str, dtype: str, device: str) -> tuple[Any, Any]:
    """The network, in evaluation mode, and its tokenizer; ``weights`` names the content of the folder.

    Raises EncoderError when they cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet():
            both: Any = AutoModelForCausalLM.from_pretrained(
                folder, **WEIGHTS, dtype=getattr(torch, dtype), output_loading_info=True
            )
            network, info = both
            network, tokenizer = network.eval().to(device), AutoTokenizer.from_pretrained(folder, **LOCAL)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise EncoderError(f"the judge in {folder} cannot be loaded: {line(error)}.") from error
    if info["missing_keys"]:
        raise EncoderError(f"the judge in {folder} lacks {', '.join(sorted(info['missing_keys']))}; save it whole.")
    if dtype != "float32":
        _exact_head(network)
    return network, tokenizer


def _exact_head(network: Any) -> None:
    """Compute the logits in float32; the head may share its weights with the embedding, which stays as it is."""
    head = deepcopy(network.get_output_embeddings()).float()
    head.register_forward_pre_hook(lambda _, inputs: tuple(hidden.float() for hidden in inputs))
    network.set_output_embeddings(head)
