"""The language model of ``polypref align``: loaded, asked through its chat template, and saved.

An instructed model reads a question as the message of a user, through the chat template in its folder; a model without
a template reads plain text. Control tokens that a message spells out stay text. Padding is masked, so a padding token
that is also the end of a text changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polypref import content
from polypref.align import lora
from polypref.align.task import Task
from polypref.control_tokens import spelled_out
from polypref.errors import EncoderError, InputError
from polypref.features.model_folder import line, locate
from polypref.features.transformer import LOCAL, WEIGHTS, quiet


@dataclass(frozen=True)
class LanguageModel:
    """A causal model, its tokenizer (padded on the left), the name of its weights, and whether it reads messages."""

    model: Any
    tokenizer: Any
    base: str
    chat: bool

    def prompts(self, texts: Sequence[str]) -> list[Any]:
        """The questions as the trainer takes them: messages, or plain text."""
        if not self.chat:
            return list(texts)
        return [[{"role": "user", "content": text}] for text in spelled_out(self.tokenizer, texts)]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The questions as token ids, special tokens included. Raises EncoderError if the template cannot be used."""
        if not self.chat:
            return self.tokenizer(list(texts))["input_ids"] if texts else []
        try:
            framed = self.tokenizer.apply_chat_template(self.prompts(texts), add_generation_prompt=True, tokenize=False)
        except Exception as error:  # templates are programs of the model's makers
            raise EncoderError(f"the model's chat template fails: {line(error)}; give --no-chat.") from error
        return self.tokenizer(framed, add_special_tokens=False)["input_ids"]

    def ensure_fits(self, texts: Sequence[str], new: int) -> None:
        """Raise InputError if a question and an answer of ``new`` tokens are longer than the model's context."""
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        texts = list(dict.fromkeys(texts))
        lengths = [len(ids) for ids in self.tokens(texts)]
        if most is None or max(lengths, default=0) + new <= most:
            return
        longest = lengths.index(max(lengths))
        raise InputError(
            f"the question {content.excerpt(texts[longest])} has {lengths[longest]:,} tokens and an answer may "
            f"have {new:,}; the model's context is {most:,}. Leave the question out, or lower max_completion_length."
        )


def load(task: Task) -> LanguageModel:
    """The task's model. Raises EncoderError if it is not available."""
    folder, base = locate(task.model, None)
    model = _weights(folder, task)
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL, padding_side="left")
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        raise EncoderError(f"the language model in {folder} cannot be loaded: {line(error)}.") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(model, tokenizer, base, task.chat and bool(tokenizer.chat_template))


def _weights(folder: Path, task: Task) -> Any:
    from transformers import AutoModelForCausalLM

    chosen = {} if task.dtype == "stored" else {"dtype": task.dtype}
    try:
        with quiet():
            return AutoModelForCausalLM.from_pretrained(folder, **WEIGHTS, **chosen)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        raise EncoderError(f"the language model in {folder} cannot be loaded: {line(error)}.") from error


def saved(task: Task, out: Path) -> Any:
    """The trained policy, read from ``out``: the model, or the base with its adapter on."""
    if task.lora is None:
        return _weights(out / "model", task)
    from peft import PeftModel

    return PeftModel.from_pretrained(_weights(locate(task.model, None)[0], task), str(out / "adapter"))


def save_merged(task: Task, base: str, out: Path) -> None:
    """Name the weights of the adapter in ``out``, and save the model with the adapter merged into it beside it."""
    lora.mark(out / "adapter", base, task.model)
    whole = lora.merged(_weights(locate(task.model, None)[0], task), out / "adapter")
    whole.save_pretrained(str(out / "model"))
