"""One fit through transformers' Trainer; one GPU, several, FSDP and DeepSpeed are launcher flags, not code.

    loss = mean over the step's judgements of  weight * sum over views of share * -log P(label)  (+ what a method adds)

A step has ``recipe.batch`` judgements whatever the processes and pieces, and weights have mean 1 over all rows, so the
loss of a step is the same sum however it is cut. The check with the least loss on validation rows is kept.

With ``recipe.checkpoints`` each fit has a folder there, named by everything that affects it. An interrupted fit resumes
from its last complete check and ends like an uninterrupted one; a finished one is read back.

Suffixes here: ``_V`` views of a judgement, ``_X`` texts of a batch.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polypref import strict_json
from polypref.errors import ArtifactError, CacheError, Diverged, reason
from polypref.features.memory import trained_within
from polypref.features.transformer import quiet
from polypref.files import alone, temporary, writable, write_json
from polypref.finetune.batches import Batches
from polypref.finetune.network import State, put
from polypref.finetune.recipe import Recipe, processes
from polypref.finetune.vpl_network import ContextBatches
from polypref.regular_files import content_of, expanded, memory
from polypref.terminal import silenced

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer, TrainingArguments

VERSION = 1
"""Format version of checkpoints and saved scorers; others cannot be read."""

WHOLE = ("trainer_state.json", "scheduler.pt", "adapter_model.safetensors")
"""A checkpoint that lacks one of these was being written when the fit was interrupted."""


@dataclass(frozen=True, eq=False)
class Task:
    """One fit: the network at its start, the training judgements, the validation judgements, its name."""

    recipe: Recipe
    build: Callable[[], Any]
    train: Batches | ContextBatches
    valid: Batches | ContextBatches | None
    seed: int
    name: Mapping[str, Any]
    start: State | None = None


@dataclass(frozen=True, eq=False)
class Tuned:
    """The result of a fit: all trained weights, and the number of steps."""

    state: dict[str, NDArray[np.float32]]
    steps: int


def tune(task: Task) -> Tuned:
    """Fit, or resume an interrupted fit.

    Raises Diverged if the loss is not finite, ArtifactError for a checkpoint of another version, CacheError.
    """
    with _folder(task) as folder, _random_numbers_kept(), quiet():
        done = folder / "tuned"
        if not (done / "tuned.json").exists():
            with writable(folder, "choose another folder for the checkpoints"):
                trained_within(
                    lambda size: _train(replace(task, recipe=replace(task.recipe, micro_batch=size)), folder, done),
                    task.recipe.pieces()[0],
                    task.recipe.batch,
                    processes(),
                )
        for checkpoint in folder.glob("checkpoint-*"):  # also those left by a killed fit
            shutil.rmtree(checkpoint, ignore_errors=True)
        return _read(done)


def _read(done: Path) -> Tuned:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        steps = strict_json.loads(content_of(done / "tuned.json", within=done))["steps"]
        return Tuned(load(content_of(done / "adapter_model.safetensors", memory(), within=done)), steps)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CacheError(f"the finished fit in {done} cannot be used ({reason(error)}); remove that folder.") from error


def _train(task: Task, folder: Path, done: Path) -> None:
    from transformers import PrinterCallback

    arguments = _arguments(task, folder)
    model = task.build()
    if task.start is not None:
        put(model, task.start)
    trainer = trainer_class()(
        task.valid,
        model=model,
        args=arguments,
        data_collator=task.train,
        train_dataset=range(len(task.train)),  # type: ignore[arg-type]
        eval_dataset=None if task.valid is None else range(len(task.valid)),  # type: ignore[arg-type]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_last(folder))
    trainer.save_model(str(done))
    best = trainer.state.best_global_step if task.valid is not None else None
    if trainer.is_world_process_zero():
        write_json(done / "tuned.json", {"version": VERSION, "steps": best or task.recipe.steps})
    trainer.accelerator.wait_for_everyone()


def _arguments(task: Task, folder: Path) -> TrainingArguments:
    import torch
    from transformers import TrainingArguments

    recipe = task.recipe
    piece, pieces = recipe.pieces()
    every = -(-recipe.steps // recipe.looks)
    look = task.valid is not None
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=piece,
        per_device_eval_batch_size=piece,
        gradient_accumulation_steps=pieces,
        learning_rate=recipe.rate,
        lr_scheduler_type="linear",
        warmup_steps=max(1, round(recipe.warmup * recipe.steps)) if recipe.warmup else 0,
        weight_decay=recipe.decay,
        optim="adamw_torch",
        bf16=recipe.bf16,
        eval_strategy="steps" if look else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,  # besides the best one
        load_best_model_at_end=look,
        metric_for_best_model="eval_loss" if look else None,
        greater_is_better=False if look else None,
        train_sampling_strategy="sequential",  # the plan is the order
        remove_unused_columns=False,
        label_names=["label_B"],
        prediction_loss_only=True,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=_on_cpu(),
        logging_strategy="no",
        report_to="none",
        disable_tqdm=silenced() or not sys.stderr.isatty(),
        seed=task.seed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a process never spreads over devices; launch more processes
    return arguments


@cache
def trainer_class() -> Callable[..., Trainer]:
    """The class of the trainer: Trainer with the loss above, which stops at a loss that is not finite."""
    import torch
    from torch.nn.functional import softplus
    from torch.utils.data import DataLoader
    from transformers import Trainer

    class PreferenceTrainer(Trainer):
        def __init__(self, valid: Batches | ContextBatches | None, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.valid_batches = valid

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
            # Trainer's own does not work: with some versions of Accelerate both divide by the pieces, which weakens
            # clipping
            model.train()
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, self._prepare_inputs(inputs)) / self.args.gradient_accumulation_steps
            if self.is_deepspeed_enabled:
                self.accelerator.backward(loss, scale_wrt_gas=False)
            else:
                self.accelerator.backward(loss * self.accelerator.gradient_accumulation_steps)
            return loss.detach()

        def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
            training, self.data_collator = self.data_collator, self.valid_batches
            try:
                return super().get_eval_dataloader(eval_dataset)
            finally:
                self.data_collator = training

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            reward_X, extra = model(**inputs["network"])
            share_V, label_B1 = inputs["share_V"], inputs["label_B"][:, None]
            reward_BV2 = reward_X.reshape(len(label_B1), len(share_V), 2)
            margin_BV = reward_BV2[..., 0] - reward_BV2[..., 1]
            loss_BV = softplus(-margin_BV) + (1.0 - label_B1) * margin_BV
            loss = (inputs["weight_B"] * (loss_BV @ share_V)).mean() + extra
            self._stop_unless_finite(loss, inputs)
            return (loss, {}) if return_outputs else loss

        def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, None, None]:
            with torch.no_grad(), self.compute_loss_context_manager():
                return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

        def _stop_unless_finite(self, loss: Tensor, inputs: Any) -> None:
            if not torch.isfinite(loss):
                rows = ", ".join(map(str, inputs["row_B"].tolist()[:8]))
                raise Diverged(
                    f"the loss is {loss.item()} at step {self.state.global_step + 1} of {self.args.max_steps}, in the "
                    f"batch with the comparisons {rows}; lower recipe.rate ({self.args.learning_rate:g})."
                )

    return PreferenceTrainer


@contextmanager
def _folder(task: Task) -> Iterator[Path]:
    """The fit's folder among the checkpoints, or a temporary one; the same in all processes."""
    if task.recipe.checkpoints is None:
        with ExitStack() as own:
            yield Path(_agreed(lambda: str(own.enter_context(temporary()))))
            _meet()  # no process reads there any more
        return
    folder = expanded(task.recipe.checkpoints) / identity(task)
    note = folder / "fit.json"
    try:
        if not note.exists():
            write_json(note, {"version": VERSION, **task.name})
        version = strict_json.loads(content_of(note)).get("version")
    except (OSError, ValueError, AttributeError) as error:
        raise CacheError(
            f"the checkpoints in {folder} cannot be used ({reason(error)}); choose another folder."
        ) from error
    if version != VERSION:
        raise ArtifactError(
            f"{folder} holds checkpoints of version {version}; this polypref writes {VERSION}. Finish the fit with the "
            "version that began it, or remove the folder."
        )
    with alone(folder) if _is_first() else nullcontext():  # another process may be fitting the same: it is waited for
        _meet()  # before any process looks whether the fit is finished
        yield folder


def identity(task: Task) -> str:
    """A name for everything that affects a fit's values, and nothing that only affects its speed or place."""
    recipe = asdict(task.recipe)
    for name in ("checkpoints", "micro_batch", "gradient_checkpointing", "attention"):
        recipe.pop(name)
    start = None if task.start is None else {name: blake2b(v.tobytes()).hexdigest() for name, v in task.start.items()}
    content = {"recipe": recipe, "seed": task.seed, "shares": task.train.shares, "start": start, **task.name}
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=10).hexdigest()


def _last(folder: Path) -> str | None:
    """The newest complete checkpoint."""
    found = [path for path in folder.glob("checkpoint-*") if all((path / name).exists() for name in WHOLE)]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def _on_cpu() -> bool:
    import torch

    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def _is_first() -> bool:
    from accelerate import PartialState

    return PartialState(cpu=_on_cpu()).is_main_process


def _meet() -> None:
    """Wait for the other processes."""
    from accelerate import PartialState

    PartialState(cpu=_on_cpu()).wait_for_everyone()


def _agreed(make: Callable[[], Any]) -> Any:
    """The first process's value, shared with all processes."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState(cpu=_on_cpu())
    made = [make() if state.is_main_process else None]
    return broadcast_object_list(made)[0]


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Restores the caller's random state, since Trainer seeds the generators of the whole process."""
    import random

    import torch

    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
