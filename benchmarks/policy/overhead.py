"""What P-GRPO costs beside GRPO: seconds of its own part in a step, and whole steps of both in turn.

    python benchmarks/policy/overhead.py [--repeats 7] [--steps 6]

A random model of two small layers on the CPU, 8 completions a prompt. *Own part*: time within PGRPOTrainer's two
extended methods less the time of TRL's own within them; it holds key checks, gathering, histories, advantages and
logging, and does not depend on the model, so its share of a larger model's step is smaller than any share shown here.
*Whole steps*: PGRPOTrainer and GRPOTrainer with equal seeds, model and data, one after the other, ``repeats`` times.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import numpy as np

SIZES = (64, 512, 4096)
METHODS = ("_calculate_rewards", "_generate_and_score_completions")
GROUPS = 20


def rows(prompts: int) -> Any:
    """Prompts of users of twenty groups."""
    from datasets import Dataset

    groups = [f"group {i % GROUPS}" for i in range(prompts)]
    users = [f"user {i % 97}" for i in range(prompts)]
    return Dataset.from_dict({"prompt": ["why one"] * prompts, "group": groups, "user": users})


def liked(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    """Long answers are liked; every one a little differently, so that no prompt is tied."""
    return [len(ids) + i % 7 / 10 for i, ids in enumerate(completion_ids)]


def trained(kind: str, model: Path, completions: int, steps: int, **settings: Any) -> Any:
    """A trainer, ready to run; ``kind`` is "P-GRPO" or "GRPO", ``settings`` its configuration and ``peft_config``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from polypref.policy.trl import PGRPOConfig, PGRPOTrainer

    host, config = (PGRPOTrainer, PGRPOConfig) if kind == "P-GRPO" else (GRPOTrainer, GRPOConfig)
    lora = settings.pop("peft_config", None)
    small = {
        "output_dir": str(model / kind),
        "max_completion_length": 4,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "seed": 0,
    }
    args = config(
        per_device_train_batch_size=completions,
        num_generations=8,
        max_steps=steps,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        **{**small, **settings},
    )
    policy: Any = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    data = rows(max(completions // 8, 64))
    named = {"train_dataset": data, "processing_class": tokenizer, "peft_config": lora}
    return host(model=policy, reward_funcs=liked, args=args, **named)


def own_part(model: Path, completions: int, steps: int, **settings: Any) -> tuple[list[float], list[float]]:
    """Seconds of each step spent in P-GRPO's own code, and in generating, scoring and advantages altogether."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    from polypref.policy.trl import PGRPOTrainer

    spent = {PGRPOTrainer: [0.0], GRPOTrainer: [0.0]}

    def timed(host: type, whole: Callable[..., Any], last: bool) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            start = time.perf_counter()
            try:
                return whole(*given)
            finally:
                spent[host][-1] += time.perf_counter() - start
                if last:
                    spent[host].append(0.0)

        return run

    originals = {(host, name): getattr(host, name) for host in spent for name in METHODS}
    run = trained("P-GRPO", model, completions, steps, **settings)
    try:
        # TRL's scoring calls P-GRPO's rewards, and those call TRL's: what is P-GRPO's is the outer less the inner
        for (host, name), whole in originals.items():
            setattr(host, name, timed(host, whole, last=name == METHODS[1]))
        run.train()
    finally:
        for (host, name), whole in originals.items():
            setattr(host, name, whole)
    outer, inner = (np.array(spent[host][:steps]) for host in (PGRPOTrainer, GRPOTrainer))
    return (outer - inner)[1:].tolist(), outer[1:].tolist()  # the first step warms up


def step_seconds(kind: str, model: Path, completions: int, steps: int) -> float:
    """Seconds of a step, the first aside."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    run = trained(kind, model, completions, steps)
    run.add_callback(Clock())
    run.train()
    return median(np.diff(ends).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    told = parser.parse_args()
    from transformers.utils import logging

    from judge_cases import save_judge

    logging.set_verbosity_error()
    sys.stdout, out = sys.stderr, sys.stdout  # the trainers' own lines are not the result
    with TemporaryDirectory() as folder:
        model = save_judge(Path(folder), template=None, pad="<pad>", side="left")
        for settings in ({}, {"user_column": "user"}, {"history_adaptive": True}):
            for completions in SIZES:
                own, whole = own_part(model, completions, told.steps + 1, **settings)
                line = f"{completions:5d} completions, {settings or 'defaults'}: own part {1000 * median(own):.2f} ms"
                line += (
                    f" (least {1000 * min(own):.2f}), {100 * median(own) / median(whole):.2f} % of rollout and scoring"
                )
                print(f"{line} with a model of 6,000 weights ({median(whole):.2f} s)", file=out, flush=True)
        for completions in SIZES[:2]:
            seconds: dict[str, list[float]] = {"GRPO": [], "P-GRPO": []}
            for repeat in range(told.repeats):
                for kind in sorted(seconds, reverse=bool(repeat % 2)):
                    seconds[kind].append(step_seconds(kind, model, completions, told.steps + 1))
            gaps = [1000 * (ours - trls) for ours, trls in zip(seconds["P-GRPO"], seconds["GRPO"], strict=True)]
            told_ms = ", ".join(f"{kind} {1000 * median(times):.1f} ms" for kind, times in seconds.items())
            line = f"{completions:5d} completions, whole steps, {told.repeats} repeats in turn: {told_ms}; gap"
            print(f"{line} {median(gaps):+.1f} ms (from {min(gaps):+.1f} to {max(gaps):+.1f})", file=out, flush=True)


if __name__ == "__main__":
    main()
