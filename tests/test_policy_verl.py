"""Token-level advantages for verl; with verl installed, its trainer's signatures and one step of its own code."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

from polypref.errors import ArtifactError, PolyprefError, SettingsError
from polypref.policy import history_file
from polypref.policy.advantages import Normalization, Normalizer
from polypref.policy.token_advantages import token_advantages

HOW = Normalization(min_count=2)
NAMES = ["p_0_0", "p_0_1", "p_1_0", "q_0_0", "q_1_0", "pad7_0_0"]
GROUPS = ["a", "a", "a", "b", "b", "a"]
FILLER = np.array([False] * 5 + [True])
REWARD = np.array([[9.0, 9, 9], [0, 0, 1], [0, 2, 0], [0.1, 0, 0], [0.3, 0, 0], [0, 0, 0]])
MASK = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]], bool)


def test_the_last_output_of_a_session_speaks_for_it() -> None:
    value_BT, found = token_advantages(Normalizer(HOW), REWARD, MASK, NAMES, [GROUPS], FILLER)
    expected = Normalizer(HOW)(np.array([1, 2, 0.1, 0.3]), np.array([0, 0, 1, 1]), [["a", "a", "b", "b"]]).value_B
    np.testing.assert_array_equal(found.value_B, expected)
    np.testing.assert_array_equal(value_BT, MASK * np.r_[expected[0], expected, 0.0][:, None])


def test_rows_that_fill_up_a_batch_enter_no_history() -> None:
    normalizer = Normalizer(HOW)
    token_advantages(normalizer, REWARD, MASK, NAMES, [GROUPS], FILLER)
    assert normalizer.levels[0].rewards.count_G[0] == 4
    filler, nothing = Normalizer(HOW), np.ones(6, bool)
    assert not token_advantages(filler, REWARD, MASK, NAMES, [GROUPS], nothing)[0].any()
    assert not filler.levels[0].rewards.count_G.any()


def test_how_rows_are_spread_over_workers_does_not_matter() -> None:
    order, one, other = np.array([4, 5, 0, 3, 2, 1]), Normalizer(HOW), Normalizer(HOW)
    value_BT, _ = token_advantages(one, REWARD, MASK, NAMES, [GROUPS], FILLER)
    names, groups = ([row[b] for b in order] for row in (NAMES, GROUPS))
    mixed_BT, _ = token_advantages(other, REWARD[order], MASK[order], names, [groups], FILLER[order])
    np.testing.assert_array_equal(mixed_BT, value_BT[order])
    assert history_file.digest([one]) == history_file.digest([other])


def test_rewards_that_are_not_finite() -> None:
    reward = REWARD.copy()
    reward[4, 0] = np.nan
    value_BT, _ = token_advantages(Normalizer(HOW), reward, MASK, NAMES, [GROUPS], FILLER)
    assert np.isfinite(value_BT).all()
    assert not value_BT[4].any()


def test_one_prompt_in_two_groups() -> None:
    with pytest.raises(SettingsError, match="answer one prompt and belong to different groups"):
        token_advantages(Normalizer(HOW), REWARD, MASK, NAMES, [["a", "a", "b", "b", "b", "a"]], FILLER)


def test_without_verl_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.v1", None)
    monkeypatch.delitem(sys.modules, "polypref.policy.verl", raising=False)
    with pytest.raises(PolyprefError, match=r"P-GRPO on verl needs verl .* pip install 'verl\[verl-core\]==0\.9\.1'"):
        importlib.import_module("polypref.policy.verl")


# with verl

with_verl = pytest.mark.skipif(importlib.util.find_spec("verl") is None, reason="verl is not installed")


class Store:
    """verl's TransferQueue, in this process."""

    def __init__(self, fields: Any) -> None:
        self.fields, self.batch = fields, None

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> Any:
        assert keys == NAMES
        return self.fields.select(*select_fields, strict=False)

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: Any) -> Any:
        self.fields.update(fields)
        return self.batch


def step(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> tuple[Any, Store, Any]:
    """A trainer without workers, on the settings that its two steps ask for, and a batch as verl's agents leave it."""
    import torch
    from omegaconf import OmegaConf  # type: ignore
    from transfer_queue import KVBatchMeta  # type: ignore
    from verl.trainer.ppo.v1 import trainer_base, trainer_sync  # type: ignore
    from verl.utils import tensordict_utils  # type: ignore

    module = importlib.import_module("polypref.policy.verl")
    lengths = [3, 3, 3, 1, 2, 1]

    def nested(rows: np.ndarray, kind: Any) -> Any:
        cut = [torch.tensor(row[:n], dtype=kind) for row, n in zip(rows, lengths, strict=True)]
        return torch.nested.as_nested_tensor(cut, layout=torch.jagged)

    told = {"rm_scores": nested(REWARD, torch.float32), "response_mask": nested(MASK, torch.int64)}
    uids = [name.rsplit("_", 2)[0] for name in NAMES]
    store = Store(tensordict_utils.get_tensordict({**told, "uid": uids, "group": GROUPS}))
    algorithm = {"adv_estimator": "grpo", "use_kl_in_reward": False, "gamma": 1.0, "lam": 1.0}
    trainer = {"v1": {"trainer_mode": "pgrpo_sync", "pgrpo": {"min_count": 2}}, "default_local_dir": str(tmp_path)}
    trainer["resume_mode"] = "auto"
    config = OmegaConf.create({"algorithm": algorithm, "trainer": trainer, "actor_rollout_ref": {"rollout": {"n": 2}}})
    OmegaConf.set_struct(config, True)
    monkeypatch.setattr(trainer_base, "tq", store)
    monkeypatch.setattr(trainer_sync.PPOTrainerSync, "__init__", lambda self, config: setattr(self, "config", config))
    monkeypatch.setattr(module, "check_verl", lambda: None)
    tags = [{"is_padding": bool(filler)} for filler in FILLER]
    store.batch = KVBatchMeta(partition_id="train", keys=NAMES, tags=tags)
    return module.PGRPOTrainerSync(config), store, store.batch


@with_verl
def test_the_extended_methods_are_there() -> None:
    from verl.trainer.ppo.v1 import get_trainer_cls  # type: ignore

    module = importlib.import_module("polypref.policy.verl")
    module.check_verl()
    assert get_trainer_cls("pgrpo_sync") is module.PGRPOTrainerSync


@with_verl
def test_verls_own_advantages_are_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    trainer, store, batch = step(monkeypatch, tmp_path)
    base = type(trainer).__mro__[1]
    seen: list[Any] = []
    own = base._compute_advantage

    def watched(self: Any, batch: Any, metrics: Any) -> Any:
        own(self, batch, metrics)
        seen.append(store.fields["advantages"].to_padded_tensor(0.0).numpy().copy())
        return batch

    monkeypatch.setattr(base, "_compute_advantage", watched)
    metrics: dict[str, Any] = {}
    trainer._compute_advantage(batch, metrics)
    expected_BT, _ = token_advantages(Normalizer(HOW), REWARD, MASK, NAMES, [GROUPS], FILLER)
    for name in ("advantages", "returns"):
        np.testing.assert_allclose(store.fields[name].to_padded_tensor(0.0).numpy(), expected_BT, rtol=1e-6)
    grpo = np.array([-(0.5**0.5), 0.5**0.5])
    np.testing.assert_allclose(seen[0][[1, 2], 0], grpo, rtol=1e-4)  # what verl itself computes
    assert not np.allclose(seen[0], expected_BT)
    assert metrics["pgrpo/fell_back"] == 0


@with_verl
def test_histories_lie_with_verls_checkpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    trainer, store, batch = step(monkeypatch, tmp_path)
    base = type(trainer).__mro__[1]
    monkeypatch.setattr(base, "_compute_advantage", lambda self, batch, metrics: batch)
    monkeypatch.setattr(base, "_save_checkpoint", lambda self: None)
    monkeypatch.setattr(base, "_load_checkpoint", lambda self: None)
    store.fields["advantages"] = store.fields["rm_scores"] * 0
    trainer._compute_advantage(batch, {})
    trainer.global_steps = 3
    trainer._save_checkpoint()
    again, _, _ = step(monkeypatch, tmp_path)
    again.global_steps = 3
    again._load_checkpoint()
    assert history_file.digest([again.normalizer]) == history_file.digest([trainer.normalizer])
    again.global_steps = 4
    with pytest.raises(ArtifactError, match="is missing: groups would start again"):
        again._load_checkpoint()
