"""What the tests of finetune run on: a tiny random Llama with a tokenizer of its own, and judgements of short texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from polypref.comparisons import Comparisons, Responses, from_columns
from polypref.finetune import LEARNERS, Recipe
from polypref.finetune.scorer import TunedScorer
from polypref.finetune.vpl import Vpl

WORDS = ("warm", "cold", "long", "short", "plain", "rich", "kind", "dry", "yes", "no", "tea", "soup")
TINY = Recipe(rank=4, lora_alpha=8, steps=6, looks=2, batch=8, micro_batch=4, rate=1e-2)


@dataclass(frozen=True)
class Words:
    """Which of WORDS a response has: an encoder without a model."""

    name: str = "words"
    identity: str = "words v2"

    def encode(self, responses: Responses) -> np.ndarray:
        return np.array([[word in text.split() for word in WORDS] for text in responses.texts_R], np.float32)


def llama(folder: Path, pad: str | None = None, side: str = "right") -> str:
    """A folder with a Llama of two layers at random weights; ``pad`` is its tokenizer's padding token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    names = ["<unk>", "<s>", "</s>", "<pad>", "User", "ID", ":", "generic", *map(str, range(10)), *WORDS]
    inner = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad, padding_side=side
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(names),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    LlamaModel(config).save_pretrained(folder)
    return str(folder)


def judgements(users: int = 3, each: int = 24, seed: int = 0) -> Comparisons:
    """Everybody judges pairs of texts; even users like the one that ends in "warm", odd users the other."""
    rng = np.random.default_rng(seed)
    names, prompts, chosen, rejected = [], [], [], []
    for u in range(users):
        for _ in range(each):
            texts = [" ".join([*rng.choice(WORDS[2:], rng.integers(1, 8)), end]) for end in ("warm", "cold")]
            names.append(f"person {u}")
            prompts.append(" ".join(rng.choice(WORDS[2:], 3)))
            chosen.append(texts[u % 2])
            rejected.append(texts[1 - u % 2])
    return from_columns(names, prompts, chosen, rejected)


def fitted(method: str, backbone: str, rows: Comparisons | None = None, seed: int = 0, **recipe: object) -> TunedScorer:
    """``method`` tuned for a few steps on the tiny network."""
    learner = LEARNERS[f"finetune:{method}"]
    learner = replace(learner, recipe=replace(TINY, backbone=backbone, **recipe))
    if isinstance(learner, Vpl):
        learner = replace(learner, latent=8, hidden=16, context=6)
    return learner.fit(judgements() if rows is None else rows, encoder=Words(), seed=seed)


def asked(rows: Comparisons) -> tuple[Responses, list[str]]:
    """Every response of some rows, asked in turn by everybody and by a stranger."""
    ids = [*rows.users.ids.to_list(), "a stranger"]
    return rows.responses, [ids[r % len(ids)] for r in range(len(rows.responses))]
