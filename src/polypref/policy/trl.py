"""P-GRPO on TRL: ``GRPOTrainer`` with advantages from the preference groups' own histories.

    from polypref.policy.trainer import PGRPOConfig, PGRPOTrainer
    args = PGRPOConfig(group_column="group", ...)          # a GRPOConfig with a few settings more
    trainer = PGRPOTrainer(model, reward_funcs, args, train_dataset)

Source: Wang et al. (2026), arXiv 2603.10009; see ``advantages`` for the formulas and for what is ours. TRL's own code
runs unchanged; this class reads the gathered rewards, replaces the advantages, and stores the histories with the
checkpoints.

Covered: several processes (every one updates the same histories from the same gathered rewards; equality is checked at
each save), several reward functions (summed, or with ``multi_objective_aggregation="normalize_then_sum"`` one history
each), PEFT, vLLM generation (rewards and advantages are computed in the same place as without it), one completion per
prompt, resuming between two batches of generations. Refused: other checkpoints, from which TRL would generate again, so
that rewards would count twice. Not covered: TRL's asynchronous GRPO, whose workers compute advantages themselves.
``scale_rewards`` has no effect.

Suffixes here: ``_F`` reward functions, ``_L`` levels of groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from polypref import files
from polypref.errors import InputError, MissingExtra, PolyprefError, SettingsError
from polypref.policy import compat, distinct, history_file
from polypref.policy.advantages import PAPER, Advantages, Key, Normalization, Normalizer, check_keys

try:
    from accelerate.utils import gather_object
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
    from trl import __version__ as trl_version
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer
except ImportError as error:
    raise MissingExtra("P-GRPO's trainer", "policy") from error

TESTED = "1.16"
EXTENDED = {
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_save_checkpoint": ("self", "model", "trial"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
}
WITHIN = ("prompt", "grpo")  # baselines that remove everything that the completions of a prompt share
SHOWN = 32  # groups with metrics of their own


@dataclass
class PGRPOConfig(GRPOConfig):
    """GRPO's settings, and those of ``advantages.Normalization`` under longer names."""

    group_column: str = field(default="group", metadata={"help": "Column with each prompt's preference group."})
    user_column: str | None = field(default=None, metadata={"help": "Column with users: a finer level of groups."})
    paper: bool = field(default=False, metadata={"help": "The paper's formula; the settings below are ignored."})
    group_weight: float = field(default=0.5, metadata={"help": "0: every rollout counts alike; 1: every group does."})
    advantage_baseline: str = field(default="shrunken", metadata={"help": "group (the paper), prompt, shrunken, grpo."})
    advantage_order: str = field(default="after", metadata={"help": "Advantages after or before the update."})
    advantage_clip: float | None = field(default=None, metadata={"help": "Largest absolute advantage."})
    history_half_life: float | None = field(
        default=None, metadata={"help": "In rewards of the group; None: no forgetting."}
    )
    history_min_count: int = field(default=16, metadata={"help": "Rewards before a group's history is used."})
    history_cold: str = field(default="prompt", metadata={"help": "Until then: prompt (GRPO) or parent (level above)."})
    history_adaptive: bool = field(
        default=False, metadata={"help": "Cut a history when its group's drift is detected."}
    )
    history_shrinkage: float = field(default=0.0, metadata={"help": "Rewards that the level above counts for."})

    def __post_init__(self) -> None:
        alone = self.num_generations == 1
        if alone:  # TRL asks for two, since GRPO learns nothing from one; a history does
            self.num_generations = 2
        try:
            super().__post_init__()
        except ValueError as error:
            if alone and "divisible by" in str(error):
                raise SettingsError(
                    "num_generations=1 needs an even number of completions in a batch of generations and in one of "
                    "evaluation, over all processes; choose even batch sizes."
                ) from error
            raise
        self.num_generations = 1 if alone else self.num_generations
        how = self.normalization()
        if alone and how.baseline in WITHIN:
            raise SettingsError(
                f"advantage_baseline={self.advantage_baseline!r} compares the completions of a prompt with each other, "
                "and num_generations is 1: nothing would be learned. Choose another, or 2 completions or more."
            )

    def normalization(self) -> Normalization:
        """How rewards become advantages."""
        if self.paper:
            return PAPER
        return Normalization(
            baseline=self.advantage_baseline,  # type: ignore[arg-type]
            order=self.advantage_order,  # type: ignore[arg-type]
            half_life=self.history_half_life,
            min_count=self.history_min_count,
            cold=self.history_cold,  # type: ignore[arg-type]
            shrinkage=self.history_shrinkage,
            clip=self.advantage_clip,
            adaptive=self.history_adaptive,
            group_weight=self.group_weight,
        )


def check_trl() -> None:
    """Refuse a TRL whose methods are no longer those that ``PGRPOTrainer`` extends."""
    remedy = f"Install the version that was tested: pip install 'trl=={TESTED}.*'"
    where = f"GRPOTrainer.{{name}} of trl {trl_version}"
    compat.check_signatures(GRPOTrainer, EXTENDED, where, f"TRL has changed what P-GRPO extends. {remedy}")


class PGRPOTrainer(GRPOTrainer):
    """``GRPOTrainer`` whose advantages compare each reward with the history of its preference group."""

    args: PGRPOConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_trl()
        super().__init__(*args, **kwargs)
        if not isinstance(self.args, PGRPOConfig):
            raise SettingsError(f"args is a {type(self.args).__name__}; expected a PGRPOConfig.")
        users = self.args.user_column
        self._columns = (self.args.group_column, *([users] if users else []))
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for data in (self.train_dataset, *evaluated):
            _check_columns(getattr(data, "column_names", None), self._columns)
        self._check_boundaries()
        self._warn_of_truncation()
        each = self.multi_objective_aggregation == "normalize_then_sum"
        histories = len(self.reward_funcs) if each else 1
        self.histories = [Normalizer(self.args.normalization(), self._columns) for _ in range(histories)]
        self._rewards_and_keys: tuple[Any, list[list[Key]]] | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As GRPOTrainer's; refuses an output folder that another trainer is writing."""
        if not self.accelerator.is_main_process:
            return super().train(*args, **kwargs)
        folder = Path(str(self.args.output_dir))
        with files.held_for_run(folder, "trainer", "choose another output_dir"):
            return super().train(*args, **kwargs)

    @property
    def _learns(self) -> bool:
        """Whether TRL is training, not evaluating."""
        return cast(Any, self.model).training

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        keys = [[row.get(column) for column in self._columns] for row in inputs]
        check_keys(keys, self._columns)
        try:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        except PolyprefError:
            raise
        except Exception as error:
            raise InputError(
                f"a reward function failed at step {self.state.global_step}: {type(error).__name__}: {error}. Fix it "
                "and resume from the last checkpoint, where there is one."
            ) from error
        self._rewards_and_keys = rewards, gather_object(keys)
        for name, share in distinct.shares(gather_object(distinct.seen(completions))).items():
            self._metrics["train" if self._learns else "eval"][name].append(share)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        assert self._rewards_and_keys is not None, "TRL asks for rewards while it scores completions"
        rewards, keys = self._rewards_and_keys
        self._rewards_and_keys = None
        reward_BF = rewards.detach().double().cpu().numpy()
        generations = cast(int, self.num_generations if self._learns else self.num_generations_eval)
        prompt_B = np.arange(len(reward_BF)) // generations
        value_B = self._advantages(reward_BF, prompt_B, list(zip(*keys, strict=True)))
        local = output["advantages"]
        start = self.accelerator.process_index * len(local)
        output["advantages"] = local.new_tensor(value_B[start : start + len(local)])
        log = self._logs["advantages"]  # TRL has logged its own, as many as fit
        shown = value_B.tolist()[-len(log) :]
        for at, value in zip(range(-len(shown), 0), shown, strict=True):
            log[at] = value
        return output

    def _advantages(self, reward_BF: np.ndarray, prompt_B: np.ndarray, key_LB: list[tuple[Key, ...]]) -> np.ndarray:
        """Advantages of the whole batch, which are logged."""
        weight_F = self.reward_weights.double().cpu().numpy()
        told_BF = np.where(np.isfinite(reward_BF), reward_BF, np.nan)
        sum_B = np.where(np.isnan(reward_BF).all(axis=1), np.nan, np.nansum(reward_BF * weight_F, axis=1))
        columns = [(sum_B, 1.0)] if len(self.histories) == 1 else list(zip(told_BF.T, weight_F, strict=True))
        found = [
            normalizer(reward_B, prompt_B, key_LB, learn=self._learns)
            for normalizer, (reward_B, _) in zip(self.histories, columns, strict=True)
        ]
        value_B = np.sum([one.value_B * weight for one, (_, weight) in zip(found, columns, strict=True)], axis=0)
        if self.args.advantage_clip is not None and not self.args.paper:
            value_B = value_B.clip(-self.args.advantage_clip, self.args.advantage_clip)
        self._log_groups(found, sum_B, value_B)
        return value_B

    def _log_groups(self, found: list[Advantages], reward_B: np.ndarray, value_B: np.ndarray) -> None:
        """Figures of the groups that came first; count, mean, scale and weight where there is one history."""
        metrics = self._metrics["train" if self._learns else "eval"]
        metrics["pgrpo/fell_back"].append(float(np.mean([one.fell_back_B.mean() for one in found])))
        if self.args.history_adaptive:
            metrics["pgrpo/alarms"].append(float(sum(len(one.alarmed) for one in found)))
        groups, number_B = self.histories[0].levels[1], found[0].group_LB[1]
        names = [str(path[0]) for path in islice(groups.numbers, SHOWN)]
        at_B = number_B < len(names)
        told_B = at_B & np.isfinite(reward_B)
        in_G, told_G = (np.bincount(number_B[which_B], minlength=len(names)) for which_B in (at_B, told_B))
        sum_G = np.bincount(number_B[told_B], reward_B[told_B], len(names))
        signal_G = np.bincount(number_B[at_B], np.abs(value_B[at_B]), len(names))
        signal_G /= max(float(np.abs(value_B).sum()), 1e-12)
        with np.errstate(invalid="ignore"):
            shown = {"reward": sum_G / told_G, "signal": signal_G}
        here = np.flatnonzero(in_G)
        if len(found) == 1:
            count_G, mean_G, variance_G = groups.rewards.of(np.arange(len(names)))
            weight_G = np.bincount(number_B[at_B], found[0].weight_B[at_B], len(names)) / np.maximum(in_G, 1)
            shown |= {"count": count_G, "mean": mean_G, "scale": np.sqrt(variance_G), "weight": weight_G}
        for name, value_G in shown.items():
            for number in here.tolist():
                metrics[f"pgrpo/{names[number]}/{name}"].append(float(value_G[number]))

    # --- checkpoints

    def _every(self) -> int:
        """Micro-steps that one batch of generations is used for."""
        return cast(int, self.args.steps_per_generation) * self.num_iterations

    def _told(self) -> dict[str, Any]:
        """What the rewards in the histories are."""
        weights = self.reward_weights.tolist()
        return {"rewards": list(self.reward_func_names), "reward_weights": weights}

    def _check_boundaries(self) -> None:
        args = self.args
        if args.save_strategy == "steps" and args.save_steps >= 1:
            micro = int(args.save_steps) * args.gradient_accumulation_steps
            if micro % self._every():
                raise SettingsError(
                    f"save_steps={int(args.save_steps)} would save within a batch of generations, which is used for "
                    f"{self._every() / args.gradient_accumulation_steps:g} steps; a resumed run would generate it "
                    "again and count its rewards twice. Choose a multiple."
                )

    def _warn_of_truncation(self) -> None:
        """A baseline is unbiased only if completions are drawn from the policy whose log-probabilities are trained."""
        args = self.args
        cut = {"top_p": args.top_p != 1.0, "top_k": bool(args.top_k and args.top_k > 0), "min_p": bool(args.min_p)}
        cut |= {name: True for name in ("suppress_tokens", "bad_words_ids") if name in (args.generation_kwargs or {})}
        cut |= {"repetition_penalty": args.repetition_penalty != 1.0}
        if any(cut.values()) and args.normalization().baseline not in WITHIN:
            names = ", ".join(name for name, on in cut.items() if on)
            warnings.warn(
                f"{names}: completions are not drawn from the policy that is trained, so what a history subtracts "
                'biases the gradient (docs/pgrpo.md). Sample without, or set advantage_baseline="prompt".',
                stacklevel=3,
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        digests = set(gather_object([history_file.digest(self.histories)]))
        assert len(digests) == 1, "every process has the same histories"
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            whole = self._step % self._every() == 0  # micro-steps since the run began, on such a boundary
            history_file.save(
                folder / history_file.NAME, self.histories, **self._told(), step=self.state.global_step, whole=whole
            )
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.histories, about = history_file.load(Path(checkpoint) / history_file.NAME, self.histories, **self._told())
        if not about["whole"]:
            raise SettingsError(
                f"{checkpoint} was saved within a batch of generations, which is used for {self._every()} micro-steps; "
                "resuming would generate it again and count its rewards twice. Resume from another checkpoint."
            )


def _check_columns(found: Iterable[str] | None, columns: tuple[str, ...]) -> None:
    for column in columns:
        if found is not None and column not in found:  # None: a stream, checked row by row
            raise SettingsError(
                f"the dataset has no column {column!r}; found: {', '.join(found)}. Set group_column to the one with "
                "each prompt's preference group."
            )
