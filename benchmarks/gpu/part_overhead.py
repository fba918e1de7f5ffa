"""Part 2: what P-GRPO costs beside GRPO in TRL, on the random Llama with LoRA, by ``benchmarks/policy/overhead.py``.

Whole steps: trainers of both kinds with equal seeds, model and data, one after the other in alternating order; the
overhead is that of the pairs, with a 95 % t interval. Own part: seconds within P-GRPO's own code as a share of rollout
and scoring, which is less noisy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from clock import clocked
from part import Found, Line, Part, Place, ratio, verdict
from shapes import backbone, weights

from polypref.features.memory import release
from polypref.stats.cluster_robust import mean_with_half

ASKED = 0.01
KINDS = ("GRPO", "P-GRPO")
STEP_SECONDS = 1.4e-9  # for each weight of the layers, sampling included: what the estimate expects of a card


def settings(place: Place) -> dict[str, Any]:
    """What decides the figures."""
    if place.miniature:
        return {"completions": 16, "tokens": 4, "steps": 3, "pairs": 3, "dtype": "bfloat16", "rank": 16}
    return {"completions": 64, "tokens": 64, "steps": 6, "pairs": 6, "dtype": "bfloat16", "rank": 16}


def minutes(place: Place) -> float:
    """Expected of the whole part."""
    if place.miniature:
        return 0.2
    told = settings(place)
    runs = 2 * told["pairs"] + 1
    return runs * (weights(place.shape) * (2e-9 + told["steps"] * STEP_SECONDS) + 5) / 60


def given(place: Place) -> dict[str, Any]:
    """The trainers' configuration."""
    from peft import LoraConfig

    told, card = settings(place), not place.miniature
    return {
        "output_dir": str(place.out / "trl"),
        "max_completion_length": told["tokens"],
        "use_cpu": not card,
        "bf16": card,
        "gradient_checkpointing": card,
        "seed": place.seed,
        "peft_config": LoraConfig(r=told["rank"], lora_alpha=2 * told["rank"], target_modules="all-linear"),
    }


def run(place: Place) -> Found:
    """All pairs, then P-GRPO's own part."""
    from overhead import own_part, trained

    told, model = settings(place), Path(backbone(place.out, place.shape, place.seed))
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    memory: dict[str, float | None] = {}
    for pair in range(told["pairs"]):
        for kind in sorted(KINDS, reverse=bool(pair % 2)):
            with clocked() as seen:
                trained(kind, model, told["completions"], told["steps"], **given(place)).train()
            seconds[kind].append(seen.seconds)
            memory[kind] = seen.memory_gib
            release()
    own, whole = own_part(model, told["completions"], told["steps"], **given(place))
    over = ratio(seconds["P-GRPO"], seconds["GRPO"])
    mean, half = mean_with_half(np.divide(own, whole))
    figures = {"step_seconds": seconds, "ratio": over, "own_seconds": own, "rollout_and_scoring_seconds": whole}
    figures |= {"own_share": {"value": mean, "lo": mean - half, "hi": mean + half}, "memory_gib": memory}
    return Found(figures, lines(figures))


def lines(figures: dict[str, Any]) -> list[Line]:
    """Of the table."""
    steps = ", ".join(f"{kind} {1000 * np.median(times):,.0f} ms" for kind, times in figures["step_seconds"].items())
    over = {name: value - 1 for name, value in figures["ratio"].items()}
    asked = f"below {100 * ASKED:g} %"
    return [
        Line("a step in TRL, median", steps),
        *(
            Line(name, _percent(share), asked, verdict(share["lo"], share["hi"], ASKED, at_least=False))
            for name, share in (
                (f"P-GRPO over GRPO, {len(figures['step_seconds']['GRPO'])} pairs of runs in turn", over),
                ("P-GRPO's own part of rollout and scoring", figures["own_share"]),
            )
        ),
    ]


def _percent(share: dict[str, float]) -> str:
    value, low, high = (100 * share[name] for name in ("value", "lo", "hi"))
    return f"{value:+.2f} % ({low:+.2f} to {high:+.2f})"


PART = Part("2-overhead", "P-GRPO's steps against GRPO's", settings, minutes, run)
