"""Loads and checks the model and the trainer of ``polypref align``; errors are one line."""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

import polars as pl

from polypref.align.rewards import ScorerReward
from polypref.align.task import Task
from polypref.errors import EncoderError, SettingsError, unknown_name
from polypref.features.model_folder import line, locate
from polypref.features.transformer import LOCAL, WEIGHTS, quiet

if TYPE_CHECKING:
    from polypref.policy.trl import PGRPOConfig, PGRPOTrainer

DEFAULTS: dict[str, Any] = {"num_generations": 2, "logging_steps": 1, "save_steps": 50, "report_to": "none"}
TRACKERS = ("wandb", "trackio", "mlflow")
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def load_model(name: str) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, padded on the left. Raises EncoderError if they are not available."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = locate(name, None)
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(folder, **WEIGHTS)
            tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL, padding_side="left")
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        raise EncoderError(f"the language model in {folder} cannot be loaded: {line(error)}.") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


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
    _ensure_reported(task.trainer.get("report_to"))
    plain = {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    ours = {"output_dir": str(folder), "seed": task.seed, "group_weight": task.group_weight, "disable_tqdm": True}
    settings = {**DEFAULTS, **plain, **task.trainer, **ours}
    try:
        return PGRPOConfig(**settings)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise cannot_work(error) from error


def _ensure_reported(report_to: Any) -> None:
    """Raise SettingsError if a tracker that ``report_to`` names is not installed; says how to install it."""
    names = report_to if isinstance(report_to, list) else [report_to]
    missing = [name for name in names if name in TRACKERS and find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the trainer's report_to names {' and '.join(missing)}, not installed here: pip install "
            f"{' '.join(missing)}. Without it: report_to=none."
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


def trainer_for(
    model: Any, tokenizer: Any, reward: ScorerReward, args: PGRPOConfig, train_rows: pl.DataFrame, tell: Any
) -> PGRPOTrainer:
    """The trainer, which reports every logged step. Raises SettingsError if TRL refuses the settings."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    from polypref.policy.trl import PGRPOTrainer

    class Told(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "reward" in logs:
                tell(state.global_step, state.max_steps, logs)

    try:
        trainer = PGRPOTrainer(
            model=model,
            reward_funcs=cast(Any, reward),
            args=args,
            train_dataset=Dataset.from_dict(train_rows.to_dict(as_series=False)),
            processing_class=tokenizer,
            callbacks=[Told()],
        )
    except (TypeError, ValueError, ImportError, RuntimeError) as error:  # RuntimeError: a tracker is not installed
        raise cannot_work(error) from error
    trainer.remove_callback(PrinterCallback)
    return trainer
