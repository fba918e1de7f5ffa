"""What the trainer's tests run on: a tiny random language model, prompts of two groups, rewards that differ by group.

Run as a program, ``policy_cases.py MODEL OUT SIZE``, it trains and writes what each process came to.
"""

from __future__ import annotations

import json
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

from judge_cases import WORDS


def rows(prompts: int = 12) -> Any:
    """Prompts of groups a and b in turn, three in four of a."""
    from datasets import Dataset

    groups = ["b" if i % 4 == 3 else "a" for i in range(prompts)]
    return Dataset.from_dict({"prompt": [f"why {WORDS[11 + i % 8]}" for i in range(prompts)], "group": groups})


def liked(completion_ids: list[list[int]], group: list[str], **_: Any) -> list[float]:
    """a likes long answers of even tokens; b the contrary, on a tenth of the scale, three lower."""
    even = [sum(1 for token in ids if token % 2 == 0) for ids in completion_ids]
    return [float(n) if g == "a" else -0.1 * n - 3 for n, g in zip(even, group, strict=True)]


def short(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Everybody's second reward."""
    return [-float(len(ids)) for ids in completion_ids]


def config(out: Path, **settings: Any) -> Any:
    """A small run: 4 steps of 4 prompts and 4 completions."""
    from polypref.policy.trl import PGRPOConfig

    base: dict[str, Any] = {
        "output_dir": str(out),
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 4,
        "save_steps": 2,
        "save_strategy": "steps",
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": 3,
        "history_min_count": 4,
    }
    return PGRPOConfig(**{**base, **settings})


def trainer(model: Path, args: Any, reward_funcs: Any = liked, data: Any = None, **more: Any) -> Any:
    """A trainer of the tiny model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from polypref.policy.trl import PGRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    return PGRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=reward_funcs,
        args=args,
        train_dataset=rows() if data is None else data,
        processing_class=tokenizer,
        **more,
    )


def weights(trained: Any) -> str:
    """Equal for equal weights, bit for bit."""
    whole = blake2b(digest_size=16)
    for _, value in sorted(trained.accelerator.unwrap_model(trained.model).state_dict().items()):
        whole.update(value.detach().cpu().float().numpy().tobytes())
    return whole.hexdigest()


def recorded(run: Any) -> list[dict[str, Any]]:
    """What the trainer's normalizers are told and answer, and what this process trains on, batch by batch."""
    found: list[dict[str, Any]] = []
    own, output = run._advantages, run._generate_and_score_completions

    def advantages(reward_BF: Any, prompt_B: Any, key_LB: Any) -> Any:
        value_B = own(reward_BF, prompt_B, key_LB)
        found.append({"reward": reward_BF[:, 0].tolist(), "key": list(key_LB[0]), "value": value_B.tolist()})
        return value_B

    def scored(inputs: Any) -> Any:
        result = output(inputs)
        found[-1]["used"] = result["advantages"].tolist()
        return result

    run._advantages, run._generate_and_score_completions = advantages, scored
    return found


if __name__ == "__main__":
    from polypref.policy.history_file import digest

    model, out, size = sys.argv[1:]
    run = trainer(Path(model), config(Path(out), per_device_train_batch_size=int(size)))
    batches = recorded(run)
    run.train()
    told = {"histories": digest(run.histories), "weights": weights(run), "batches": batches}
    Path(out, f"rank-{run.accelerator.process_index}.json").write_text(json.dumps(told))
    run.accelerator.end_training()  # or gloo's threads may abort the process while Python ends
