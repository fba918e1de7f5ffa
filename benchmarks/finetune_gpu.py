"""A random Llama of 7B shape tuned in bfloat16 on one GPU: tokens per second, memory, share of the GPU's peak.

    python benchmarks/finetune_gpu.py --folder FOLDER [--peak 989] [--method personalized] [--tokens 512]

``--folder`` receives the random backbone (14 GB) and is reused. ``--peak`` is the GPU's dense bfloat16 peak in TFLOP/s
(989: H100 SXM). The time of a step is the difference between a long and a short fit, so loading and saving do not
count. FLOPs counted: 2 per weight and token forward, 2 backward (frozen weights have no gradient of their own), and 2
more with gradient checkpointing; attention's own and LoRA's are left out, so the share is a lower bound.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from polypref.comparisons import Comparisons, from_columns
from polypref.finetune import LEARNERS, PREFIX, Recipe

VOCABULARY = 32_000
SHORT, LONG = 3, 13


def backbone(folder: Path, layers: int) -> str:
    """Llama-2-7B's shape at random weights, and a tokenizer of one token per word."""
    if (folder / "config.json").exists():
        return str(folder)
    names = ["<unk>", "<s>", *(f"w{n}" for n in range(VOCABULARY - 2))]
    inner = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        LlamaModel(config).to(torch.bfloat16).save_pretrained(folder)
    return str(folder)


def judgements(count: int, tokens: int) -> Comparisons:
    """Pairs of random texts of exactly ``tokens`` tokens with their prompt."""
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(VOCABULARY - 2)]
    texts = [[" ".join(rng.choice(words, tokens - 9)) for _ in range(count)] for _ in range(2)]
    return from_columns([f"u{n % 8}" for n in range(count)], ["w1 w2 w3 w4 w5 w6 w7 w8"] * count, *texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--peak", type=float, default=989.0)
    parser.add_argument(
        "--method",
        choices=sorted({name.removeprefix(PREFIX) for name in LEARNERS} - {"individual", "vpl"}),
        default="personalized",
    )
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--keep-activations", action="store_true")
    arguments = parser.parse_args()
    recipe = Recipe(
        backbone=backbone(arguments.folder, arguments.layers),
        batch=arguments.batch,
        micro_batch=arguments.micro_batch,
        bf16=True,
        gradient_checkpointing=not arguments.keep_activations,
        looks=1,
    )
    rows = judgements(4 * arguments.batch, arguments.tokens)
    none = rows.take(np.zeros(0, np.int64))
    seconds = {}
    for steps in (SHORT, LONG):
        start = time.perf_counter()
        learner = replace(LEARNERS[PREFIX + arguments.method], recipe=replace(recipe, steps=steps))
        learner.fit(rows, encoder=None, seed=0, valid=none)
        seconds[steps] = time.perf_counter() - start
    step = (seconds[LONG] - seconds[SHORT]) / (LONG - SHORT)
    views = 1 if arguments.method == "pooled" else 2
    soft = 10 if arguments.method.startswith("personalized") else 0
    tokens = arguments.batch * views * 2 * (arguments.tokens + soft)
    weights = arguments.layers * (4 * 4096**2 + 3 * 4096 * 11_008)
    flops = tokens * weights * (4 if arguments.keep_activations else 6)
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")
    print("| method | weights | step, s | tokens/s | memory, GiB | share of peak |\n|---|---|---|---|---|---|")
    share = flops / step / (arguments.peak * 1e12)
    print(f"| {arguments.method} | {weights:,} | {step:.2f} | {tokens / step:,.0f} | {memory:.1f} | {share:.1%} |")


if __name__ == "__main__":
    main()
