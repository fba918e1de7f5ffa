"""Bounds in TRL: P-GRPO and GRPO that never reinforce unsafe completions; see ``bounded`` for the formulas.

    from polypref.policy.trl_bounded import BoundedPGRPOConfig, BoundedPGRPOTrainer
    args = BoundedPGRPOConfig(unsafe_below=0.5, group_column="group", ...)
    BoundedPGRPOTrainer(model, reward_funcs, args, train_dataset, safety_func=judge).train()

``safety_func`` is anything that TRL takes as a reward function: a function (async too), a model, or a model's name. Its
scores are not a reward: TRL lists them among the rewards with weight 0. ``BoundedGRPOTrainer`` does the same without
groups, and keeps TRL's own advantages for safe completions, ``scale_rewards`` included.

Covered: several reward functions, several processes, evaluation (nothing is learned there), resuming (multipliers are
in the checkpoint beside the histories; another bound, another safety function and missing multipliers are refused). A
safety function that raises stops the run; None and NaN count as unsafe. Not covered: the limits of ``bounded``; under
``BoundedGRPOTrainer`` TRL's own ``reward`` figures are those of safe completions.

Suffixes here: ``_F`` reward functions, ``_K`` groups of a batch, ``_L`` levels of groups.
"""

from __future__ import annotations

import json
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from polypref import strict_json
from polypref.errors import ArtifactError, SettingsError, reason
from polypref.files import write_json
from polypref.policy.advantages import Key
from polypref.policy.bounded import EVERYONE, Bound, Bounded, Guard, judged
from polypref.policy.trl import (
    PREFIX_CHECKPOINT_DIR,
    SHOWN,
    GRPOConfig,
    GRPOTrainer,
    PGRPOConfig,
    PGRPOTrainer,
    check_trl,
    gather_object,
)
from polypref.regular_files import content_of

NAME = "pgrpo_bounds.json"


@dataclass
class BoundedGRPOConfig(GRPOConfig):
    """GRPO's settings, and the bound."""

    unsafe_below: float | None = field(default=None, metadata={"help": "Safety scores below it are unsafe. Required."})
    unsafe_gap: float = field(default=1.0, metadata={"help": "Least distance of unsafe advantages to safe ones."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bound()

    def bound(self) -> Bound:
        """The bound, without multipliers."""
        return _single(Bound(_least(self.unsafe_below), self.unsafe_gap))


@dataclass
class BoundedPGRPOConfig(PGRPOConfig):
    """P-GRPO's settings, and those of ``bounded.Bound`` under longer names."""

    unsafe_below: float | None = field(default=None, metadata={"help": "Safety scores below it are unsafe. Required."})
    unsafe_gap: float = field(default=1.0, metadata={"help": "Least distance of unsafe advantages to safe ones."})
    unsafe_rate: float | None = field(
        default=None, metadata={"help": "Target share of unsafe completions in each group."}
    )
    multiplier_step: float = field(default=1.0, metadata={"help": "Of a group's multiplier, per batch and excess."})
    multiplier_most: float = field(default=10.0, metadata={"help": "Largest multiplier of a group."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bound()

    def bound(self) -> Bound:
        """The bound, and how groups' multipliers are updated."""
        rest = self.unsafe_gap, self.unsafe_rate, self.multiplier_step, self.multiplier_most
        return _single(Bound(_least(self.unsafe_below), *rest))


def _least(unsafe_below: float | None) -> float:
    if unsafe_below is None:
        raise SettingsError("unsafe_below is not set; expected the least score of safety_func that is safe, like 0.5.")
    return unsafe_below


def _single(bound: Bound) -> Bound:
    """The bound in single precision, as TRL keeps scores: otherwise one that is just safe would count as unsafe."""
    return replace(bound, unsafe_below=float(np.float32(bound.unsafe_below)))


class _Judged(GRPOTrainer):
    """``GRPOTrainer`` with a safety function among its rewards, in column ``safety_at``, with weight 0."""

    settings: ClassVar[type] = BoundedGRPOConfig

    def __init__(self, *args: Any, safety_func: Any, safety_processing_class: Any = None, **kwargs: Any) -> None:
        check_trl()
        named = signature(GRPOTrainer.__init__).bind_partial(self, *args, **kwargs).arguments
        named.pop("self")
        settings: Any = named.get("args")
        if not isinstance(settings, self.settings):
            raise SettingsError(f"args is a {type(settings).__name__}; expected a {self.settings.__name__}.")
        rewards = _as_list(named.get("reward_funcs"))
        self.safety_at = len(rewards)  # rewards that environments bring come behind it
        named["reward_funcs"] = [*rewards, safety_func]
        if named.get("reward_processing_classes") is not None or safety_processing_class is not None:
            read_by = _as_list(named.get("reward_processing_classes")) or [None] * len(rewards)
            named["reward_processing_classes"] = [*read_by, safety_processing_class]
        if settings.reward_weights is not None:
            named["args"] = settings = copy(settings)  # the caller's own stay as they are
            settings.reward_weights = [*settings.reward_weights, 0.0]
        super().__init__(**named)
        self.reward_weights[self.safety_at] = 0.0
        self.guard = Guard(settings.bound())

    @property
    def _noted(self) -> Any:
        """TRL's metrics of its present mode, training or evaluation."""
        return self._metrics["train" if cast(Any, self.model).training else "eval"]

    def _log_bounds(self, found: Bounded) -> None:
        whole = {"violation": 1 - found.safe_B.mean(), "unscored": found.unscored_B.mean(), "kappa": found.kappa}
        for name, value in whole.items():
            self._noted[f"bounded/{name}"].append(float(value))


class BoundedGRPOTrainer(_Judged):
    """``GRPOTrainer`` whose advantages are TRL's among the safe completions, and a penalty for all others."""

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        score_B = rewards[:, self.safety_at].detach().double().cpu().numpy()
        safe_B, _ = judged(score_B, self.guard.bound.unsafe_below)
        kept = rewards.clone()
        kept[:, self.safety_at] = float("nan")
        kept[~rewards.new_tensor(safe_B).bool()] = float("nan")  # TRL leaves such rows out of means and scales
        self._rewards_and_scores = rewards, score_B
        return kept

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        rewards, score_B = self._rewards_and_scores
        local = output["advantages"]
        preference_B = cast(Any, self.accelerator.gather(local)).double().cpu().numpy()
        found = self.guard(preference_B, score_B, [EVERYONE] * len(score_B), learn=False)
        start = self.accelerator.process_index * len(local)
        output["advantages"] = local.new_tensor(found.value_B[start : start + len(local)])
        _note(self._logs["advantages"], found.value_B.tolist())
        for name, column in zip(self.reward_func_names, rewards.T.tolist(), strict=True):
            _note(self._logs["rewards"][name], column)
        scored_B, judge = score_B[np.isfinite(score_B)], self.reward_func_names[self.safety_at]
        if len(scored_B) > 1:
            self._noted[f"rewards/{judge}/mean"][-1] = float(scored_B.mean())
            self._noted[f"rewards/{judge}/std"][-1] = float(scored_B.std(ddof=1))
        self._log_bounds(found)
        return output


class BoundedPGRPOTrainer(PGRPOTrainer, _Judged):
    """``PGRPOTrainer`` whose histories hold safe rewards alone, and whose unsafe completions get a penalty."""

    settings = BoundedPGRPOConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.histories) > 1:
            del self.histories[self.safety_at]

    def _advantages(self, reward_BF: np.ndarray, prompt_B: np.ndarray, key_LB: list[tuple[Key, ...]]) -> np.ndarray:
        score_B = reward_BF[:, self.safety_at]
        safe_B, _ = judged(score_B, self.guard.bound.unsafe_below)
        told_BF = np.where(safe_B[:, None], np.delete(reward_BF, self.safety_at, axis=1), np.nan)
        weights, kept_F = self.reward_weights, np.arange(len(self.reward_weights)) != self.safety_at
        self.reward_weights = weights[kept_F.tolist()]  # those of the rewards by preference
        try:
            preference_B = super()._advantages(told_BF, prompt_B, key_LB)
        finally:
            self.reward_weights = weights
        found = self.guard(preference_B, score_B, key_LB[0], learn=self._learns)
        self._log_bounds(found)
        self._log_groups_bounds(found)
        return found.value_B

    def _log_groups_bounds(self, found: Bounded) -> None:
        """Figures of the groups that came first."""
        shown = {path[0] for path in islice(self.histories[0].levels[1].numbers, SHOWN)}
        for key, violation, multiplier in zip(found.key_K, found.violation_K, found.multiplier_K, strict=True):
            if key in shown:
                self._noted[f"bounded/{key}/violation"].append(float(violation))
                self._noted[f"bounded/{key}/multiplier"].append(float(multiplier))

    # --- checkpoints

    def _told(self) -> dict[str, Any]:
        return {**super()._told(), "bound": asdict(self.guard.bound)}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        multipliers = gather_object([json.dumps(self.guard.state())])
        assert len(set(multipliers)) == 1, "every process has the same multipliers"
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            write_json(folder / NAME, {"step": self.state.global_step, "multipliers": self.guard.state()})
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint) / NAME
        try:
            content = strict_json.loads(content_of(path))
            multipliers, step = content["multipliers"], content["step"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactError(
                f"{path} cannot be read ({reason(error)}): groups' multipliers would start again at "
                f"0. Resume from another "
                "checkpoint, or start a new run."
            ) from error
        saved = int(Path(checkpoint).name.rpartition("-")[2]) if Path(checkpoint).name[-1:].isdigit() else step
        if step != saved:
            raise ArtifactError(
                f"{path} is of step {step}, and the checkpoint of step {saved}; resume from a complete one."
            )
        self.guard = self.guard.restored(multipliers)


def _as_list(given: Any) -> list[Any]:
    """An argument that TRL takes as one value, several, or None, as a list."""
    return [] if given is None else list(given) if isinstance(given, list) else [given]


def _note(log: Any, values: list[float]) -> None:
    """Replace TRL's own values, the last in ``log``, by ``values``, as many as fit."""
    shown = values[-len(log) :]
    for at, value in zip(range(-len(shown), 0), shown, strict=True):
        log[at] = value
