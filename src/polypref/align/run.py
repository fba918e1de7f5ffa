"""From comparisons to a policy: trains a language model with P-GRPO on a fitted scorer's rewards for its users.

Every prompt of the comparisons is used for users of every group. The template names the group or user, since a policy
without that information can please only the mixture. Each completion gets the reward of its own user. Before and after
training, the model answers the same questions with the same random numbers. The gain is reported per group, in units of
the group's spread of rewards before: by the scorer used in training and, if given, by a judge that was not used. With
five prompts or more, a fifth of them is held out for this measurement.

Covered: an interrupted run resumes from its last complete checkpoint; another run's folder is refused. Not covered:
several processes (the trainer itself runs under ``torchrun``, ``docs/pgrpo.md``); whether people like the answers. A
judge is also a model of their judgements; if its gain is below the scorer's, the policy has exploited the scorer's
weaknesses (Gao et al. 2023, arXiv 2210.10760). Intervals are over users and ignore that users share prompts and one
policy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from polypref import content, strict_json
from polypref.align.rewards import ScorerReward
from polypref.align.task import Task
from polypref.align.trainer import arguments, cannot_work, load_model, trainer_for
from polypref.comparisons import Comparisons
from polypref.data.zero_weight import counted
from polypref.errors import ArtifactError, NotEnoughData, SettingsError, reason
from polypref.features.model_folder import locate
from polypref.features.transformer import quiet
from polypref.files import held_for_run, writable, write_json
from polypref.groups import UNKNOWN, Grouping, from_attribute
from polypref.learners.protocol import Scorer
from polypref.policy.history import Floats
from polypref.policy.history_file import is_whole
from polypref.regular_files import content_of
from polypref.stats.cluster_robust import mean_with_half

if TYPE_CHECKING:
    from polypref.policy.trl import PGRPOTrainer

MOST_QUESTIONS = 50_000
ROUNDING = 1e-12
AT_ONCE = 64  # completions generated together before and after training
ENOUGH_PROMPTS = 5  # to hold out a fifth of them for measuring
RUN, RESULT, BEFORE = "run.json", "align.json", "before.json"


def questions(comparisons: Comparisons, group_of: Mapping[str, str], task: Task) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training and measurement rows in random order: ``prompt`` as the model reads it, ``asked`` as people read it,
    ``group`` and ``user_id``. Both share prompts only if there are too few to hold some out.

    Raises NotEnoughData if no group has users with enough judgements, or a group has too few questions.
    """
    users = _users(comparisons, group_of, task)
    pool = comparisons.responses
    prompts = [pool.prompt_text(p) for p in np.unique(pool.prompt_R).tolist()]
    rng = np.random.default_rng([task.seed, 29])
    order = rng.permutation(len(prompts))
    kept = order[: len(prompts) // 5] if len(prompts) >= ENOUGH_PROMPTS else order
    rest = order[len(kept) :] if len(kept) < len(order) else order
    tables = []
    for at in (rest, kept):
        whole = len(users) * len(at)
        chosen = rng.permutation(whole) if whole <= MOST_QUESTIONS else rng.choice(whole, MOST_QUESTIONS, replace=False)
        user_Q, prompt_Q = np.divmod(chosen, len(at))
        triples = [(*users[u], prompts[at[p]]) for u, p in zip(user_Q.tolist(), prompt_Q.tolist(), strict=True)]
        tables.append(_table(triples, task.template))
    of_group = [tables[1].filter(pl.col("group") == name) for name in _names(tables[1])]
    measured_on = pl.concat([table.gather(np.resize(np.arange(len(table)), task.samples)) for table in of_group])
    for name in sorted({group for _, group in users}):
        for table in (tables[0], measured_on):
            if (count := int((table["group"] == name).sum())) < 2:
                raise NotEnoughData(
                    f"group {name!r} has {count} questions, of users with "
                    f"{task.min_judgements} judgements or more; "
                    "expected 2 at least. Lower min_judgements, give more data, or leave the group out."
                )
    return tables[0], measured_on


def _table(triples: list[tuple[str, str, str]], template: str) -> pl.DataFrame:
    """Questions of (user, group, prompt)."""
    model_input = {
        "prompt": [template.format(group=group, prompt=prompt, user=user) for user, group, prompt in triples]
    }
    return pl.DataFrame(
        {
            **model_input,
            "asked": [prompt for _, _, prompt in triples],
            "group": [group for _, group, _ in triples],
            "user_id": [user for user, _, _ in triples],
        }
    )


def _users(comparisons: Comparisons, group_of: Mapping[str, str], task: Task) -> list[tuple[str, str]]:
    """Users to train for, with their groups."""
    many_U = np.bincount(comparisons.user_N, minlength=len(comparisons.users))
    known = [(user, group_of.get(user, UNKNOWN)) for user in comparisons.users.ids]
    known = [(*one, many) for one, many in zip(known, many_U.tolist(), strict=True) if one[1] != UNKNOWN]
    if not known:
        raise NotEnoughData("none of the users is in a known group; give the groups of these users.")
    found = [(user, group) for user, group, many in known if many >= task.min_judgements]
    if not found:
        raise NotEnoughData(
            f"no user of a known group gave {task.min_judgements} judgements or more; lower min_judgements, or give "
            "more data."
        )
    return found


def align(
    comparisons: Comparisons,
    group_of: Mapping[str, str],
    task: Task,
    scorers: Mapping[str, Scorer],
    out: Path,
    tell: Callable[[int, int, Mapping[str, float]], None],
    force: bool = False,
) -> dict[str, Any]:
    """Train, measure, write ``align.json`` and the model to ``out``; returns the content of ``align.json``.

    ``scorers`` are ``reward``, which training maximises, and optionally ``judge``. ``tell`` is called for every logged
    step. ``force`` removes another run in ``out``. Raises SettingsError if ``out`` contains another run, EncoderError
    without the model.
    """
    comparisons = counted(comparisons)
    train_rows, judged = questions(comparisons, group_of, task)
    args = arguments(task, out / "checkpoints")
    metadata = _metadata(comparisons, pl.concat([train_rows, judged]), task, scorers)
    if len(set(metadata["scorers"].values())) < len(scorers):
        raise SettingsError(
            "judge is the scorer itself; give one with other features, another method or other judgements."
        )
    if force and _differs(out, metadata):
        with held_for_run(out):
            _remove_run(out)
    _ensure_same(out, metadata)
    if (out / RESULT).exists():
        return _read(out / RESULT)
    model, tokenizer = load_model(task.model)
    with held_for_run(out):
        _ensure_same(out, metadata)  # another run may have started or ended meanwhile
        if (out / RESULT).exists():
            return _read(out / RESULT)
        reward = ScorerReward(scorers["reward"], prompt_column="asked")
        trainer = trainer_for(model, tokenizer, reward, args, train_rows, tell)
        found = _run(trainer, tokenizer, (train_rows, judged), metadata, scorers, out)
        found = {**found, "inputs": dict(task.inputs)}
        write_json(out / RESULT, found)
    return found


def _run(
    trainer: PGRPOTrainer,
    tokenizer: Any,
    questions: tuple[pl.DataFrame, pl.DataFrame],
    metadata: dict[str, Any],
    scorers: Mapping[str, Scorer],
    out: Path,
) -> dict[str, Any]:
    """Answer, train, answer again; returns the results."""
    train_rows, judged = questions
    write_json(out / RUN, metadata)
    try:
        if not (out / BEFORE).exists():
            write_json(out / BEFORE, answers(trainer, tokenizer, judged))
        with quiet(), writable(out):  # hides the progress bars of every save
            _train(trainer, _last_whole(out / "checkpoints"))
            trainer.save_model(str(out / "model"))
    except (TypeError, ValueError) as error:
        if trainer.state.global_step:
            raise
        (out / RUN).unlink()  # allows other settings in this folder
        (out / BEFORE).unlink(missing_ok=True)
        raise cannot_work(error) from error
    texts = {"before": cast(list[str], _read(out / BEFORE)), "after": answers(trainer, tokenizer, judged)}
    with writable(out / "model"):
        tokenizer.save_pretrained(out / "model")
    return {
        **metadata,
        "held_out": sorted(set(judged["asked"]) - set(train_rows["asked"])),
        "groups": _weighed(measured(judged, texts, scorers), trainer.state.log_history),
        "curve": _curve(trainer.state.log_history, _names(train_rows)),
        "examples": _examples(judged, texts),
    }


def _train(trainer: PGRPOTrainer, last: str | None) -> None:
    """Train, from the checkpoint ``last`` if any; a finished run only restores its model, as ``train`` would go on."""
    from transformers import GenerationConfig, TrainerState

    if last is not None:
        state = TrainerState.load_from_json(str(Path(last) / "trainer_state.json"))
        if 0 < state.max_steps <= state.global_step:
            trainer._load_from_checkpoint(last)
            trainer.state = state
            model = trainer.accelerator.unwrap_model(trainer.model)
            model.generation_config = GenerationConfig.from_pretrained(last)  # with the tokenizer's special tokens
            return
    trainer.train(resume_from_checkpoint=last)


def _last_whole(folder: Path) -> str | None:
    """The newest complete checkpoint between batches of generations; None: there is none."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((str(path) for path in found if (path / "trainer_state.json").exists() and is_whole(path)), None)


def _names(rows: pl.DataFrame) -> list[str]:
    return sorted(rows["group"].unique().to_list())


def answers(trainer: PGRPOTrainer, tokenizer: Any, rows: pl.DataFrame) -> list[str]:
    """One completion for each row, drawn as in training; equal random numbers in every call."""
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    model.eval()
    texts: list[str] = []
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(trainer.args.seed)
        for at in range(0, len(rows), AT_ONCE):
            batch = tokenizer(rows["prompt"][at : at + AT_ONCE].to_list(), return_tensors="pt", padding=True)
            batch = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
            ids = cast(Any, model).generate(**batch, generation_config=trainer.generation_config)
            texts += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def measured(
    judged: pl.DataFrame, texts: Mapping[str, Sequence[str]], scorers: Mapping[str, Scorer]
) -> dict[str, dict[str, Any]]:
    """Per group and scorer: mean and spread before training, and the gain in spreads with a 95 % interval."""
    columns = {"asked": judged["asked"].to_list(), "user_id": judged["user_id"].to_list()}
    prompts = judged["prompt"].to_list()
    found: dict[str, dict[str, Any]] = {}
    for name, scorer in scorers.items():
        reward = ScorerReward(scorer, prompt_column="asked")
        before_Q, after_Q = (
            np.array(reward(prompts=prompts, completions=texts[when], **columns)) for when in ("before", "after")
        )
        for group in _names(judged):
            own_Q = (judged["group"] == group).to_numpy()
            users = judged.filter(own_Q)["user_id"]
            about = found.setdefault(group, {"users": users.n_unique(), "samples": len(users)})
            about[name] = _gain(before_Q[own_Q], after_Q[own_Q], users)
    return found


def _gain(before_Q: Floats, after_Q: Floats, users: pl.Series) -> dict[str, float | None]:
    """The gain in spreads before training; None if all those rewards were equal; bounds None for one user."""
    mean, spread = float(before_Q.mean()), float(before_Q.std(ddof=1))
    if spread <= ROUNDING * abs(mean):
        return {"mean": mean, "spread": 0.0, "gain": None, "lo": None, "hi": None}
    table = pl.DataFrame({"user": users, "gain": (after_Q - before_Q) / spread})
    gain_U = table.group_by("user", maintain_order=True).agg(pl.col("gain").mean())["gain"].to_numpy()
    if len(gain_U) < 2:
        return {"mean": mean, "spread": spread, "gain": float(gain_U[0]), "lo": None, "hi": None}
    gain, half = mean_with_half(gain_U)
    return {"mean": mean, "spread": spread, "gain": gain, "lo": gain - half, "hi": gain + half}


def _examples(judged: pl.DataFrame, texts: Mapping[str, Sequence[str]], each: int = 3) -> list[dict[str, str]]:
    shown = judged.with_columns(before=pl.Series(texts["before"]), after=pl.Series(texts["after"]))
    shown = shown.group_by("group", maintain_order=True).head(each)
    return shown.select("group", "asked", "before", "after").to_dicts()


def _weighed(groups: dict[str, dict[str, Any]], log: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Adds ``weight``, the last logged weight of a rollout of each group; None: never logged."""
    last: dict[str, float] = {}
    for one in log:
        last |= one
    return {name: {**about, "weight": last.get(f"pgrpo/{name}/weight")} for name, about in groups.items()}


def _curve(log: list[dict[str, float]], names: list[str]) -> list[dict[str, Any]]:
    """Mean reward of each group's completions at each logged step."""
    return [
        {"step": one["step"], "reward": {name: one.get(f"pgrpo/{name}/reward") for name in names}}
        for one in log
        if "reward" in one
    ]


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
    settings = {name: value for name, value in asdict(task).items() if name != "inputs"}
    data = {"comparisons": comparisons.content_hash, "questions": whole, "model": locate(task.model, None)[1]}
    return {"settings": settings, "data": data, "scorers": states, "versions": versions}


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


def _ensure_same(out: Path, metadata: dict[str, Any]) -> None:
    """Raise SettingsError if ``out`` contains a run with other ``metadata``."""
    if differs := _differs(out, metadata):
        raise SettingsError(
            f"{out} holds another run: {'; '.join(differs)}. Choose another folder, or replace it with --force."
        )


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


def groups_from(comparisons: Comparisons, groups: str, allow_network: bool = False) -> dict[str, str]:
    """Each user's group: from a folder written by `polypref groups`, or by the attribute of that name."""
    if Path(groups).is_dir():
        grouping = Grouping.load(groups, allow_network=allow_network)
    else:
        grouping = from_attribute(comparisons.users, groups)
    return dict(zip(comparisons.users.ids, grouping.of(comparisons.users.ids), strict=True))
