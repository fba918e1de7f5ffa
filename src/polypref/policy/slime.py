"""P-GRPO on slime (THUDM/slime), through two of its hooks and nothing else.

    --advantage-estimator grpo --metadata-key metadata
    --custom-reward-post-process-path polypref.policy.slime.post_process
    --custom-rollout-log-function-path polypref.policy.slime.log_rollout
    --custom-config-path pgrpo.yaml                    # pgrpo: {group_column: persona, baseline: shrunken}

Source: Wang et al. (2026), arXiv 2603.10009; see ``advantages``. slime hands the samples of a training rollout to
``post_process(args, samples)``, in one process, instead of normalising rewards itself; what the hook returns becomes
the advantages. slime does not pass the rollout's number to that hook, and its arguments do not say where a resumed run
begins. The log hook, which is called just before, gets the number; it stores it in ``args`` and leaves logging to
slime.

The histories after rollout N are in ``<save>/pgrpo/rollout_N.npz``; rollout N + 1 begins with them, in this process or
after a restart (then from ``<load>``), so a run resumed from any of slime's checkpoints equals the uninterrupted one
bit for bit, and a repeated rollout counts once. Files of rollouts without a checkpoint may be removed.

``pgrpo`` in the configuration holds ``group_column`` and ``user_column``, the keys of ``sample.metadata`` with each
prompt's group and user (default: group, and no users), ``paper: true`` for the published formula, and the settings of
``advantages.Normalization`` by their names.

Covered: prompts with unequal numbers of samples, filtered prompts (slime drops whole ones before), one sample per
prompt, samples without a usable reward (advantage 0, in no history), ``--reward-key``, several training samples of one
rollout of a prompt (equal ``rollout_id``): a reward that they share counts once. Evaluation does not use this hook. Not
covered: several rewards with a history each; siblings without ``rollout_id`` (their reward counts for each); fully
asynchronous rollouts, whose samples come in no fixed order, so a resumed run is sound but not equal bit for bit. Tested
on samples of slime's shape, never on its GPUs.

Suffixes here: ``_C`` completions: samples taken together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from polypref.errors import InputError, SettingsError
from polypref.policy import history_file
from polypref.policy.advantages import check_keys, normalizer_of

HOOKS = "--custom-rollout-log-function-path polypref.policy.slime.log_rollout"


def log_rollout(rollout_id: int, args: Any, samples: Any, rollout_extra_metrics: Any, rollout_time: float) -> bool:
    """Store the number of the rollout that the next rewards belong to; False: slime logs as usual."""
    args.pgrpo_rollout = rollout_id
    return False


def post_process(args: Any, samples: list[Any]) -> tuple[list[Any], list[float]]:
    """Raw rewards and advantages of a training rollout's samples; the histories move on by one rollout.

    Raises SettingsError or InputError where a hook, a folder, a group or a reward is missing, ArtifactError where the
    histories after the rollout before are.
    """
    rollout = getattr(args, "pgrpo_rollout", None)
    if rollout is None:
        raise SettingsError(f"the number of this rollout is not known; add {HOOKS}.")
    if not args.save:
        raise SettingsError("--save is not set; P-GRPO keeps its histories there, beside slime's checkpoints.")
    normalizer = normalizer_of(dict(getattr(args, "pgrpo", None) or {}), "pgrpo")
    if rollout > 0:
        mine = getattr(args, "pgrpo_done", -1) >= rollout - 1  # by this process; otherwise slime resumes from --load
        (normalizer,), _ = history_file.load(_file(args.save if mine else args.load, rollout - 1), [normalizer])
    raw_B = [sample.get_reward_value(args) for sample in samples]
    reward_B = np.array([_number(value) for value in raw_B])
    keys = [[_group(sample, column) for column in normalizer.names] for sample in samples]
    check_keys(keys, normalizer.names)
    first_of: dict[Any, int] = {}  # samples of one rollout of a prompt that share a reward are one completion
    of_B = []
    for b, sample in enumerate(samples):
        execution = getattr(sample, "rollout_id", None)
        same = (sample.group_index, b if execution is None else -1, execution, repr(reward_B[b]))
        of_B.append(first_of.setdefault(same, len(first_of)))
    at_C = np.unique(of_B, return_index=True)[1]
    prompt_B = np.array([sample.group_index for sample in samples])
    found = normalizer(
        reward_B[at_C], prompt_B[at_C], [[keys[b][n] for b in at_C] for n in range(len(normalizer.names))]
    )
    history_file.save(_file(args.save, rollout), [normalizer], rollout=rollout)
    args.pgrpo_done = rollout
    return raw_B, found.value_B[of_B].tolist()


def _file(folder: str | None, rollout: int) -> Path:
    if folder is None:
        raise SettingsError(
            f"slime begins at rollout {rollout + 1} and --load is not set; P-GRPO's histories lie there."
        )
    return Path(folder) / "pgrpo" / f"rollout_{rollout}.npz"


def _group(sample: Any, column: str) -> Any:
    if sample.group_index is None:
        raise InputError(f"sample {sample.index} has no group_index, which identifies its prompt.")
    if column not in (sample.metadata or {}):
        found = ", ".join(sample.metadata or {}) or "nothing"
        raise InputError(
            f"sample {sample.index} has no {column!r} in its metadata; found: {found}. "
            "Set group_column (or user_column) of pgrpo, and --metadata-key to the data's column that holds it."
        )
    return sample.metadata[column]


def _number(value: Any) -> float:
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"a reward is {value!r}; expected a number. Set --reward-key where there are several."
        ) from None
