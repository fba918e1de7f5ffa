"""Makes and checks the trainer of ``polypref align``; errors are one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

import polars as pl

from polypref.align import lora, processes
from polypref.align.language_model import LanguageModel
from polypref.align.rewards import ScorerReward
from polypref.align.task import Task
from polypref.align.watch import callback
from polypref.errors import SettingsError, unknown_name
from polypref.features.model_folder import line
from polypref.terminal import say

if TYPE_CHECKING:
    from polypref.policy.trl import PGRPOConfig, PGRPOTrainer

DEFAULTS: dict[str, Any] = {"num_generations": 2, "logging_steps": 1, "save_steps": 50, "report_to": "none"}
TRACKERS = ("wandb", "trackio", "mlflow")
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def arguments(task: Task, folder: Path) -> PGRPOConfig:
    """The trainer's settings: the user's, ours, and without an accelerator those needed to run."""
    import torch

    from polypref.policy.trl import PGRPOConfig

    known = {one.name for one in fields(PGRPOConfig)} - {"output_dir", "group_column", "seed", "group_weight"}
    kinds = get_type_hints(PGRPOConfig)
    for name, value in task.trainer.items():
        if name not in known:
            raise unknown_name("setting of the trainer", name, known)
        _ensure_kind(name, value, kinds[name])
    if task.trainer.get("max_steps") == 0:
        raise SettingsError("the trainer's max_steps is 0; nothing would be trained. Leave it out or give 1 or more.")
    _ensure_installed(task.trainer)
    plain = {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    ours = {"output_dir": str(folder), "seed": task.seed, "group_weight": task.group_weight, "disable_tqdm": True}
    settings = {**DEFAULTS, **plain, **task.trainer, **ours}
    try:
        return PGRPOConfig(**settings)
    except (TypeError, ValueError, ZeroDivisionError, OSError) as error:  # OSError: fsdp_config may be a file
        raise cannot_work(error) from error


def _ensure_installed(settings: Mapping[str, Any]) -> None:
    """Raise SettingsError if a tracker, or vLLM, is to be used and not installed; says how to install it."""
    report_to = settings.get("report_to")
    names = report_to if isinstance(report_to, list) else [report_to]
    missing = [name for name in names if name in TRACKERS and find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the trainer's report_to names {' and '.join(missing)}, not installed here: pip install "
            f"{' '.join(missing)}. Without it: report_to=none."
        )
    if settings.get("use_vllm") and find_spec("vllm") is None:
        raise SettingsError(
            "the trainer's use_vllm needs vLLM, not installed here: pip install 'trl[vllm]'. Without it: "
            "use_vllm=false."
        )


def cannot_work(error: Exception) -> SettingsError:
    """An error of TRL, transformers or torch about settings, in one line."""
    reason = "a batch size or num_generations is 0" if isinstance(error, ZeroDivisionError) else line(error)
    return SettingsError(f"the trainer's settings cannot work: {reason}. See --trainer, and docs/pgrpo.md.")


def _ensure_kind(name: str, value: Any, kind: Any) -> None:
    """Raise SettingsError if a setting annotated as number, text or boolean has another type."""
    kinds = set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {kind}
    if isinstance(value, float) and not isfinite(value):
        raise SettingsError(f"the trainer's {name} is {value!r}; expected a finite number.")
    if not kinds <= {bool, int, float, str, NoneType}:
        return
    if type(value) in kinds or (float in kinds and type(value) is int):
        return
    expected = " or ".join(sorted("nothing" if one is NoneType else KINDS[one] for one in kinds))
    raise SettingsError(f"the trainer's {name} is {value!r}; expected {expected}.")


def smaller(task: Task, folder: Path, halvings: int) -> PGRPOConfig:
    """The settings with batches halved so many times, and as many more of them accumulated: the same update.

    Raises SettingsError if a batch cannot be halved so often, or other processes would wait for this one.
    """
    args = arguments(task, folder)
    if not halvings:
        return args
    by, batch = 2**halvings, args.per_device_train_batch_size
    if processes.count() > 1 or batch % by:
        piece = max(batch // (by // 2), 1)
        halve = (
            ""
            if piece % 2
            else (
                "halve per_device_train_batch_size and double gradient_accumulation_steps, which leaves the update the "
                "same, or "
            )
        )
        raise SettingsError(
            f"memory does not suffice for a batch of {piece} completions; {halve}lower max_completion_length, or take "
            "a smaller model."
        )
    changed = {
        "per_device_train_batch_size": batch // by,
        "gradient_accumulation_steps": args.gradient_accumulation_steps * by,
    }
    if "steps_per_generation" in task.trainer:
        changed["steps_per_generation"] = int(args.steps_per_generation or 1) * by
    say(f"memory does not suffice: {batch // by} completions at a time instead of {batch}; the update is the same.")
    return arguments(replace(task, trainer={**task.trainer, **changed}), folder)


def trainer_for(
    task: Task, asked: LanguageModel, reward: ScorerReward, args: PGRPOConfig, train_rows: pl.DataFrame, tell: Any
) -> PGRPOTrainer:
    """The trainer, which reports every logged step and stops at a collapse. Raises SettingsError if TRL refuses."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    from polypref.policy.trl import PGRPOTrainer

    class Told(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "reward" in logs:
                tell(state.global_step, state.max_steps, logs)

    model, adapter = lora.adapted(asked.model, task.lora, asked.base) if task.lora else (asked.model, None)
    rows = {**train_rows.to_dict(as_series=False), "prompt": asked.prompts(train_rows["prompt"].to_list())}
    torch.manual_seed(task.seed)  # for the adapter's first weights
    try:
        trainer = PGRPOTrainer(
            model=model,
            reward_funcs=cast(Any, reward),
            args=args,
            train_dataset=Dataset.from_dict(rows),
            processing_class=asked.tokenizer,
            peft_config=adapter,
            callbacks=[Told(), callback(task.collapse_floor, task.collapse_steps)],
        )
    except (TypeError, ValueError, ImportError, RuntimeError) as error:  # RuntimeError: a tracker is not installed
        raise cannot_work(error) from error
    trainer.remove_callback(PrinterCallback)
    return trainer
