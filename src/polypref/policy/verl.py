"""P-GRPO on verl's synchronous trainer. Experimental: checked against verl's method signatures, never run on GPUs.

    VERL_USE_EXTERNAL_MODULES=polypref.policy.verl python -m verl.trainer.main_ppo algorithm.adv_estimator=grpo \
        trainer.v1.trainer_mode=pgrpo_sync +trainer.v1.pgrpo.group_column=persona ...

Source: Wang et al. (2026), arXiv 2603.10009; see ``advantages``. verl first computes its own advantages, with its
additions to rewards; then this class reads rewards, masks and the data set's group column and replaces advantages and
returns. One process does this for all workers, so there is one set of histories, stored in ``global_step_N`` with the
rest.

``trainer.v1.pgrpo`` holds ``group_column`` and ``user_column``, columns of the data set itself (not of its
``extra_info``), ``paper`` and the settings of ``advantages.Normalization`` by their names. Where Ray runs on several
hosts, each needs polypref and the variable above (``ray_kwargs.ray_init.runtime_env.env_vars``).

Covered: KL in rewards, rollout correction, several outputs of a session, rows that pad a batch, resuming by path or by
latest. Refused: estimators other than grpo. Not covered: verl's asynchronous trainers and its old trainer; checkpoints
on remote file systems; logging of groups.

Suffixes here: ``_L`` levels of groups.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from polypref.errors import InputError, PolyprefError, SettingsError
from polypref.policy import compat, history_file
from polypref.policy.advantages import check_keys, normalizer_of
from polypref.policy.token_advantages import token_advantages

try:
    from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer, trainer_base  # type: ignore
    from verl.workers.utils.padding import response_to_nested  # type: ignore
except ImportError as error:
    raise PolyprefError(
        f"P-GRPO on verl needs verl and its TransferQueue ({error}): pip install 'verl[verl-core]==0.9.1'"
    ) from error

TESTED = "0.9.1"
EXTENDED = {
    "__init__": ("self", "config"),
    "_compute_advantage": ("self", "batch", "metrics"),
    "_save_checkpoint": ("self",),
    "_load_checkpoint": ("self",),
}


def check_verl() -> None:
    """Refuse a verl whose methods are no longer those that the trainer extends."""
    remedy = f"Install the version that was checked: pip install 'verl=={TESTED}'"
    where = "verl's PPOTrainerSync.{name}"
    compat.check_signatures(PPOTrainerSync, EXTENDED, where, f"verl has changed what P-GRPO extends. {remedy}")


@register_trainer("pgrpo_sync")
class PGRPOTrainerSync(PPOTrainerSync):
    """``PPOTrainerSync`` whose advantages compare each reward with the history of its preference group."""

    def __init__(self, config: Any) -> None:
        check_verl()
        if config.algorithm.adv_estimator != "grpo":
            raise SettingsError(
                f"algorithm.adv_estimator is {config.algorithm.adv_estimator!r}; pgrpo_sync replaces grpo's advantages."
            )
        config.trainer.v1.trainer_mode = "sync"  # verl compares this name in many places
        super().__init__(config)
        self.normalizer = normalizer_of(dict(config.trainer.v1.get("pgrpo", {})), "trainer.v1.pgrpo")

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch = super()._compute_advantage(batch, metrics)
        rewards = "token_level_rewards" if self.config.algorithm.use_kl_in_reward else "rm_scores"
        columns = self.normalizer.names
        where = {"keys": batch.keys, "partition_id": batch.partition_id}
        try:
            rows = trainer_base.tq.kv_batch_get(
                **where, select_fields=[rewards, "response_mask", "advantages", *columns]
            )
            key_LB = [rows[column].tolist() for column in columns]
        except Exception as error:
            raise InputError(
                f"{', '.join(columns)} of the rows cannot be fetched ({type(error).__name__}: {error}); expected "
                "columns of the data set. Set +trainer.v1.pgrpo.group_column."
            ) from error
        check_keys([list(row) for row in zip(*key_LB, strict=True)], columns)
        mask = rows["response_mask"]
        padded = {name: rows[name].to_padded_tensor(0.0).double().cpu().numpy() for name in (rewards, "response_mask")}
        filler_B = np.array([bool(tag.get("is_padding")) for tag in batch.tags])
        value_BT, found = token_advantages(
            self.normalizer, padded[rewards], padded["response_mask"] > 0, batch.keys, key_LB, filler_B
        )
        metrics["pgrpo/fell_back"] = float(found.fell_back_B.mean())
        fields = rows.select("advantages")
        value = rows["advantages"].to_padded_tensor(0.0).new_tensor(value_BT)
        fields["advantages"] = response_to_nested(value, mask)
        fields["returns"] = fields["advantages"]
        return trainer_base.tq.kv_batch_put(**where, fields=fields)

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        history_file.save(folder / history_file.NAME, [self.normalizer], step=self.global_steps)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if not self.global_steps:
            return
        trainer = self.config.trainer
        folder = Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        if trainer.resume_mode == "resume_path":
            folder = Path(trainer.resume_from_path)
        (self.normalizer,), _ = history_file.load(folder / history_file.NAME, [self.normalizer])
