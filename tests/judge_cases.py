"""What the judge's tests run on: a tiny random language model that knows the letters, and a few judgements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from polypref.comparisons import Comparisons, from_columns

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "A", "B", "Yes", "No", "Prompt:", "Response", "Preferred:"]
WORDS += ["good", "bad", "long", "short", "cats", "dogs", "like", "why", "one"]
TEMPLATE = "<s>{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} </s>{% endif %}"


def save_judge(
    folder: Path, template: str | None = TEMPLATE, pad: str | None = None, side: str = "right", context: int = 512
) -> Path:
    """A Llama of two layers with random weights, spread so that answers differ; the same for any tokenizer settings."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    named: dict[str, Any] = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "padding_side": side}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=context, **named, **({"pad_token": pad} if pad else {})
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=context, bos_token_id=2, eos_token_id=3, **size)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data = parameter.data * 4
    model.save_pretrained(folder)
    return folder


def judgements(users: int = 2, each: int = 6, seed: int = 0) -> Comparisons:
    """Each user judges pairs of texts of a few known words, all different."""
    rng = np.random.default_rng(seed)
    n = users * each
    texts = [[" ".join(rng.choice(WORDS[11:], 4)) + f" {seed}-{i}-{side}" for i in range(n)] for side in (0, 1)]
    ids = [f"person {i % users}" for i in range(n)]
    return from_columns(ids, [f"why {i % 3}" for i in range(n)], *texts)
