"""From comparisons to a policy: trains a language model with P-GRPO on a fitted scorer's rewards for its users.

The template names the group or user, since a policy without that information can please only the mixture. Each
completion gets the reward of its own user. Questions are in ``questions``, measurements in ``measures``.

With LoRA, ``adapter`` holds what was trained and names the weights it belongs to, and ``model`` holds the model with
the adapter merged into it, which any program can load.

Covered: an interrupted run resumes from its last complete checkpoint; another run's folder is refused; training stops
at a collapse; a batch that is too large for memory is halved; several processes (``processes``), of which only the main
one writes. Not covered: whether people like the answers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from polypref import content, strict_json
from polypref.align import language_model, measures, processes
from polypref.align.language_model import LanguageModel
from polypref.align.questions import names, questions, shown
from polypref.align.rewards import ScorerReward
from polypref.align.task import Task
from polypref.align.trainer import arguments, cannot_work, smaller, trainer_for
from polypref.align.watch import collapsed_at
from polypref.comparisons import Comparisons
from polypref.data.zero_weight import counted
from polypref.errors import ArtifactError, SettingsError, reason
from polypref.features.memory import ran_out
from polypref.features.model_folder import locate
from polypref.features.transformer import quiet
from polypref.files import held_for_run, writable, write_json
from polypref.learners.protocol import Scorer
from polypref.policy.history_file import is_whole
from polypref.regular_files import content_of

if TYPE_CHECKING:
    from polypref.policy.trl import PGRPOTrainer

RUN, RESULT, BEFORE = "run.json", "align.json", "before.json"
WAIT_S = 7200.0  # for another process, where the trainer's ddp_timeout says nothing else

Tell = Callable[[int, int, Mapping[str, float]], None]


def align(
    comparisons: Comparisons,
    group_of: Mapping[str, str],
    task: Task,
    scorers: Mapping[str, Scorer],
    out: Path,
    tell: Tell,
    force: bool = False,
) -> dict[str, Any]:
    """Train, measure, write ``align.json`` and the model to ``out``; returns the content of ``align.json``.

    ``scorers`` are ``reward``, which training maximises, and optionally ``judge``. ``tell`` is called for every logged
    step. ``force`` removes another run in ``out``. Raises SettingsError if ``out`` contains another run, EncoderError
    without the model.
    """
    comparisons = counted(comparisons)
    with processes.together(float(task.trainer.get("ddp_timeout", WAIT_S))):
        tables = questions(comparisons, group_of, task)
        args = arguments(task, out / "checkpoints")
        metadata = _metadata(comparisons, pl.concat(tables), task, scorers)
        if len(set(metadata["scorers"].values())) < len(scorers):
            raise SettingsError(
                "judge is the scorer itself; give one with other features, another method or other judgements."
            )
        if processes.is_main() and force and _differs(out, metadata):
            with held_for_run(out):
                _remove_run(out)
        if (found := processes.from_main(lambda: _finished(out, metadata))) is not None:
            return found
        asked = language_model.load(task)
        asked.ensure_fits(pl.concat(tables)["prompt"].to_list(), args.max_completion_length or 0)
        with held_for_run(out if processes.is_main() else None):
            # another run may have started or ended meanwhile
            if (found := processes.from_main(lambda: _finished(out, metadata))) is not None:
                return found
            run = _Run(task, asked, tables, scorers, out, tell)
            found = {**metadata, **run.results(metadata), "inputs": dict(task.inputs)}
            if processes.is_main():
                write_json(out / RESULT, found)
    return found


class _Run:
    """One run in its folder, from the first answers to the last."""

    def __init__(
        self,
        task: Task,
        asked: LanguageModel,
        tables: tuple[pl.DataFrame, pl.DataFrame],
        scorers: Mapping[str, Scorer],
        out: Path,
        tell: Tell,
    ) -> None:
        self.task, self.asked, self.scorers, self.out, self.tell = task, asked, scorers, out, tell
        self.train_rows, self.judged = tables
        self.shown = shown(self.judged, task)
        self.halvings = 0
        self.trainer = self._trainer()

    def results(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Answer, train, answer again; returns what was found."""
        if processes.is_main():
            write_json(self.out / RUN, metadata)
        try:
            before = self._before()
            with quiet(), writable(self.out):  # hides the progress bars of every save
                self._train()
                self.trainer.save_model(str(self.out / ("adapter" if self.task.lora else "model")))
        except (TypeError, ValueError) as error:
            if self.trainer.state.global_step:
                raise
            if processes.is_main():
                (self.out / RUN).unlink(missing_ok=True)  # allows other settings in this folder
                (self.out / BEFORE).unlink(missing_ok=True)
            raise cannot_work(error) from error
        if processes.is_main():
            self._save_model()
        after = self._answers(self._policy())
        log, many = self.trainer.state.log_history, len(self.judged)
        texts = {"before": before[:many], "after": after[:many]}
        return {
            "held_out": sorted(set(self.judged["asked"]) - set(self.train_rows["asked"])),
            "groups": measures.weighed(measures.measured(self.judged, texts, self.scorers), log),
            "curve": measures.curve(log, names(self.train_rows)),
            "examples": measures.examples(self.shown, before[many:], after[many:]),
            "collapsed": collapsed_at(log, self.task.collapse_floor, self.task.collapse_steps),
            "chat": self.asked.chat,
            "answer_tokens": self.trainer.args.max_completion_length,
            "halvings": self.halvings,
        }

    def _trainer(self) -> PGRPOTrainer:
        args = smaller(self.task, self.out / "checkpoints", self.halvings)
        reward = ScorerReward(self.scorers["reward"], prompt_column="asked")
        with quiet():
            trainer = trainer_for(self.task, self.asked, reward, args, self.train_rows, self.tell)
        # TRL has divided the loss by the accumulated steps, and Accelerate divides the gradient by them once more: as
        # often as without halving, so that the update is the same
        trainer.accelerator.gradient_accumulation_steps = args.gradient_accumulation_steps // 2**self.halvings
        return trainer

    def _before(self) -> list[str]:
        """The answers before training, of this run or, if it was interrupted, of its beginning."""
        if processes.from_main((self.out / BEFORE).exists):
            return processes.from_main(lambda: _read(self.out / BEFORE))
        policy: Any = self.trainer.accelerator.unwrap_model(self.trainer.model)
        found = self._answers(policy.to(self.trainer.args.device))
        if processes.is_main():
            write_json(self.out / BEFORE, found)
        return found

    def _answers(self, policy: Any) -> list[str]:
        rows = pl.concat([self.judged, self.shown])
        return measures.answers(policy, self.asked, rows, self.trainer.generation_config, self.task.seed)

    def _train(self) -> None:
        """Train to the end, with smaller batches if memory does not suffice."""
        while True:
            last = processes.from_main(lambda: _last_whole(self.out / "checkpoints"))
            try:
                _train(self.trainer, last, self.task)
                return
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                self.halvings += 1
            del self.trainer  # and its memory
            self.asked = language_model.load(self.task)
            self.trainer = self._trainer()

    def _policy(self) -> Any:
        """The trained policy; one whose weights are spread over the processes is read again from the folder."""
        trainer = self.trainer
        if not trainer.is_fsdp_enabled:
            return trainer.accelerator.unwrap_model(trainer.model)
        trainer.accelerator.wait_for_everyone()
        return language_model.saved(self.task, self.out).to(trainer.args.device)

    def _save_model(self) -> None:
        with quiet(), writable(self.out / "model"):
            if self.task.lora:
                language_model.save_merged(self.task, self.asked.base, self.out)
            self.asked.tokenizer.save_pretrained(self.out / "model")


def _train(trainer: PGRPOTrainer, last: str | None, task: Task) -> None:
    """Train, from the checkpoint ``last`` if any; a finished run only restores its model, as ``train`` would go on."""
    from transformers import GenerationConfig, TrainerState

    if last is not None:
        state = TrainerState.load_from_json(str(Path(last) / "trainer_state.json"))
        collapsed = collapsed_at(state.log_history, task.collapse_floor, task.collapse_steps)
        if 0 < state.max_steps <= state.global_step or collapsed is not None:
            trainer._load_from_checkpoint(last)
            trainer.state = state
            if (Path(last) / "generation_config.json").exists():  # with the tokenizer's special tokens
                model = trainer.accelerator.unwrap_model(trainer.model)
                model.generation_config = GenerationConfig.from_pretrained(last)
            return
    trainer.train(resume_from_checkpoint=last)


def _last_whole(folder: Path) -> str | None:
    """The newest complete checkpoint between batches of generations; None: there is none."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((str(path) for path in found if (path / "trainer_state.json").exists() and is_whole(path)), None)


# --- the folder


def _metadata(
    comparisons: Comparisons, rows: pl.DataFrame, task: Task, scorers: Mapping[str, Scorer]
) -> dict[str, Any]:
    """Everything that affects the run; all of it must be the same to resume a run."""
    import transformers
    import trl

    whole = content.hexdigest(json.dumps(rows.to_dicts()))
    states = {name: _digest(scorer) for name, scorer in scorers.items()}
    versions = {"polypref": version("polypref"), "trl": trl.__version__, "transformers": transformers.__version__}
    data = {"comparisons": comparisons.content_hash, "questions": whole, "model": locate(task.model, None)[1]}
    return {"settings": task.settings(), "data": data, "scorers": states, "versions": versions}


def _digest(scorer: Scorer) -> str:
    config, arrays = scorer.state()
    named = [part for name in sorted(arrays) for part in (name, np.asarray(arrays[name]))]
    return content.hexdigest(json.dumps(config, sort_keys=True, default=str), *named)


def _differs(out: Path, metadata: dict[str, Any]) -> list[str]:
    """How the run in ``out``, if there is one, differs from one with ``metadata``."""
    if not (out / RUN).exists():
        return []
    had = _read(out / RUN)
    wanted = json.loads(json.dumps(metadata))
    pairs = [
        (name, had.get(part, {}).get(name), wanted[part].get(name))
        for part in wanted
        for name in {**had.get(part, {}), **wanted[part]}
    ]
    return [f"{name} was {was!r}, now {now!r}" for name, was, now in pairs if was != now]


def _finished(out: Path, metadata: dict[str, Any]) -> dict[str, Any] | None:
    """The result in ``out``; None: not there yet. Raises SettingsError if it is of a run with other ``metadata``."""
    if differs := _differs(out, metadata):
        raise SettingsError(
            f"{out} holds another run: {'; '.join(differs)}. Choose another folder, or replace it with --force."
        )
    return _read(out / RESULT) if (out / RESULT).exists() else None


def _remove_run(out: Path) -> None:
    """Remove a run's state, so that another starts over; its model stays until the new one replaces it."""
    with writable(out):
        for name in (RUN, RESULT, BEFORE):
            (out / name).unlink(missing_ok=True)
        if (out / "checkpoints").exists():
            shutil.rmtree(out / "checkpoints")


def _read(path: Path) -> Any:
    try:
        return strict_json.loads(content_of(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read ({reason(error)}); remove {path.parent} and run again.") from error
