"""Part 1: LoRA reward models, ours against TRL's RewardTrainer, in turns on the same tokens in the same batches.

Both have LoRA of rank 16 on every linear layer, a trained head, weights in bfloat16 and gradient checkpointing. Texts
have between half and all of ``tokens``, and tokens are counted without padding. A step is timed at its end by one clock
for both; loading, tokenising and saving do not count. Then one step of ours with far more comparisons than the card
holds at a time, which it must split by itself; in miniature a card that holds few is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from clock import Steps, clocked
from part import Found, Line, Part, Place, ratio, verdict
from shapes import WORDS, backbone, weights, words

from polypref.comparisons import Comparisons, from_columns
from polypref.features import encoder
from polypref.features.memory import release, trained_within
from polypref.files import temporary
from polypref.finetune import Pooled, Recipe
from polypref.finetune.fitting import Study
from polypref.finetune.network import Asking

ASKED = 1.0
PROMPT = 8
SPEED = 4e14  # FLOP/s that the estimate expects of a card in bfloat16, some 40 % of an H100's peak


@dataclass(frozen=True)
class Size:
    """``large``: comparisons of the step that is larger than memory; ``room``: that a simulated card holds."""

    tokens: int
    batch: int
    piece: int
    steps: int
    rounds: int
    large: int
    room: int | None


def size(place: Place) -> Size:
    """Of the texts, batches and rounds."""
    if place.shape == "7b":
        return Size(512, 32, 8, 12, 3, 512, 64 if place.miniature else None)
    return Size(32, 8, 4, 3, 2, 32, 8 if place.miniature else None)


def settings(place: Place) -> dict[str, Any]:
    """What decides the figures."""
    return {**vars(size(place)), "dtype": "bfloat16", "rank": Recipe().rank, "gradient_checkpointing": True}


def minutes(place: Place) -> float:
    """Expected of the whole part."""
    if place.miniature:
        return 0.3
    one = size(place)
    tokens = 2 * one.rounds * one.steps * one.batch * 2 * one.tokens + 3 * one.large * 2 * one.tokens
    loading = (2 * one.rounds + 1) * weights(place.shape) * 2 / 1e9  # seconds at 1 GB/s
    return 1 + (6 * weights(place.shape) * tokens / SPEED + loading) / 60


def judgements(place: Place, count: int) -> Comparisons:
    """Pairs of texts of random words."""
    one, rng = size(place), np.random.default_rng([place.seed, 1])
    known = words(place.shape)[:WORDS]
    lengths = rng.integers(one.tokens // 2, one.tokens, (2, count)) - PROMPT - 1
    texts = [[" ".join(rng.choice(known, n)) for n in side] for side in lengths.tolist()]
    prompts = [" ".join(rng.choice(known, PROMPT)) for _ in range(count)]
    return from_columns([f"u{n % 8}" for n in range(count)], prompts, *texts)


def recipe(place: Place, steps: int, batch: int, piece: int) -> Recipe:
    """Ours; ``looks`` is 1, since nothing is checked before the end."""
    folder = backbone(place.out, place.shape, place.seed)
    rules = Recipe(folder, steps=steps, batch=batch, micro_batch=piece, looks=1)
    return replace(rules, bf16=True, gradient_checkpointing=True)


def ours(rules: Recipe, rows: Comparisons, seed: int, room: int | None = None) -> Steps:
    """A fit of ``finetune:pooled``; the encoder is named, and not used."""
    with clocked(room) as seen:
        Pooled(rules).fit(rows, encoder=encoder("minilm"), seed=seed, valid=rows.take(np.zeros(0, np.int64)))
    return seen


def pairs(rules: Recipe, rows: Comparisons, seed: int) -> dict[str, list[list[int]]]:
    """The tokens that ours reads, in its order."""
    study = Study.of(rules, rows, rows.take(np.zeros(0, np.int64)), seed)
    reader, texts = study.texts(Asking())
    batches = study.batches(reader, texts, study.train, (0.0, 1.0))
    order = study.order(study.train)
    sides = {"chosen_ids": batches.chosen_N[order], "rejected_ids": batches.rejected_N[order]}
    return {side: [list(texts[at].ids) for at in found] for side, found in sides.items()}


def theirs(rules: Recipe, tokens: dict[str, list[list[int]]], seed: int, room: int | None = None) -> Steps:
    """TRL's trainer on these tokens; its pieces are halved by our rule, since it has none."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    def train(piece: int) -> None:
        args = RewardConfig(
            output_dir=str(folder),
            per_device_train_batch_size=piece,
            gradient_accumulation_steps=rules.batch // piece,
            max_steps=rules.steps,
            learning_rate=rules.rate,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=True,
            train_sampling_strategy="sequential",
            max_length=None,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            seed=seed,
            model_init_kwargs={"dtype": "bfloat16"},
        )
        lora: Any = LoraConfig(
            task_type="SEQ_CLS",
            r=rules.rank,
            lora_alpha=rules.lora_alpha,
            target_modules="all-linear",
            modules_to_save=["score"],
        )
        tokenizer = AutoTokenizer.from_pretrained(rules.backbone)
        data: Any = Dataset.from_dict(tokens)
        RewardTrainer(
            rules.backbone, args=args, train_dataset=data, processing_class=tokenizer, peft_config=lora
        ).train()

    with temporary() as folder, clocked(room) as seen:
        trained_within(train, rules.micro_batch, rules.batch, 1)
    return seen


def run(place: Place) -> Found:
    """All rounds, then the large step."""
    one = size(place)
    rules, rows = recipe(place, one.steps, one.batch, one.piece), judgements(place, 2 * one.batch)
    tokens = pairs(rules, rows, place.seed)
    read = sum(len(ids) for side in tokens.values() for ids in side) / one.steps
    seen: dict[str, list[Steps]] = {"ours": [], "TRL": []}
    for turn in range(one.rounds):
        for name in sorted(seen, reverse=bool(turn % 2)):
            fit = ours(rules, rows, place.seed) if name == "ours" else theirs(rules, tokens, place.seed)
            seen[name].append(fit)
            release()
    speed = {name: [read / fit.seconds for fit in fits] for name, fits in seen.items()}
    gain = ratio(speed["ours"], speed["TRL"])
    split = ours(recipe(place, 1, one.large, one.large), judgements(place, one.large), place.seed, one.room)
    memory = {name: [fit.memory_gib for fit in fits] for name, fits in seen.items()}
    figures = {"tokens_a_second": speed, "ratio": gain, "memory_gib": memory, "tokens_a_step": read}
    figures["pieces"] = {name: [fit.piece for fit in fits] for name, fits in seen.items()}
    figures["large"] = {"comparisons": one.large, "at_a_time": split.piece, "simulated": one.room is not None}
    return Found(figures, [*_compared(figures), _split(figures["large"])])


def _compared(figures: dict[str, Any]) -> list[Line]:
    speed, gain = figures["tokens_a_second"], figures["ratio"]
    told = ", ".join(f"{name} {np.mean(values):,.0f}" for name, values in speed.items())
    held = {name: [value for value in values if value is not None] for name, values in figures["memory_gib"].items()}
    memory = ", ".join(f"{name} {max(values):.1f}" for name, values in held.items() if values)
    return [
        Line("LoRA reward model, tokens/s", told),
        Line(
            "the same, ours over TRL's",
            f"{gain['value']:.2f} ({gain['lo']:.2f} to {gain['hi']:.2f})",
            f"at least {ASKED:.1f}",
            verdict(gain["lo"], gain["hi"], ASKED, at_least=True),
        ),
        Line("the same, peak memory of the card, GiB", memory or "no card"),
    ]


def _split(large: dict[str, Any]) -> Line:
    simulated = " (simulated)" if large["simulated"] else ""
    reached = f"{large['comparisons']} comparisons a step, {large['at_a_time']} at a time{simulated}"
    met = "yes" if large["at_a_time"] < large["comparisons"] else "open"
    return Line("a step larger than memory", reached, "splits by itself", met)


PART = Part("1-reward", "LoRA reward models against TRL", settings, minutes, run)
