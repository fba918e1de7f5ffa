"""A Llama with random weights in bfloat16, of 7B shape or tiny, made from a configuration, with a tokenizer of its own.

Speed and memory do not depend on the values of weights. Every word of the vocabulary is one token.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from polypref.studies.policy.styles import PLAYFUL, SERIOUS, STORY

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|im_end|>")
SHAPES: dict[str, dict[str, int]] = {
    "7b": {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
    },
    "tiny": {
        "vocab_size": 640,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    },
}
WORDS = 400  # of the vocabulary, from which texts are made


def words(shape: str) -> list[str]:
    """The vocabulary without its special tokens: English words first, since the study's rewards look for some."""
    size = SHAPES[shape]["vocab_size"] - len(SPECIAL)
    known = sorted(word for word in STORY | PLAYFUL | SERIOUS if re.fullmatch("[a-z]+", word))
    return [*known, *(f"w{n}" for n in range(size))][:size]


def weights(shape: str) -> int:
    """Of the layers' matrices, which do almost all of the work."""
    size = SHAPES[shape]
    width, heads = size["hidden_size"], size["num_attention_heads"]
    attention = 2 * width * width * (1 + size["num_key_value_heads"] / heads)
    return int(size["num_hidden_layers"] * (attention + 3 * width * size["intermediate_size"]))


def backbone(out: Path, shape: str, seed: int) -> str:
    """The model's folder beneath ``out``; it is made once, aside, so that it is whole wherever it is found."""
    folder = out / f"llama-{shape}-{seed}"
    if not folder.exists():
        aside = out / f".{folder.name}.partial"
        shutil.rmtree(aside, ignore_errors=True)
        _make(aside, shape, seed)
        aside.rename(folder)
    return str(folder)


def _make(folder: Path, shape: str, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    _tokenizer(shape).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(**SHAPES[shape], bos_token_id=1, eos_token_id=2, pad_token_id=3, tie_word_embeddings=False)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # a 7B in float32 would need 27 GB on the way
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)


def _tokenizer(shape: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, *words(shape)]
    inner = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    named: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, padding_side="left", additional_special_tokens=["<|im_end|>"], **named
    )
