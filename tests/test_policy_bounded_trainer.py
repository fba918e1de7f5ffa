"""Bounds in the real TRL trainers, with a tiny random language model.

Run as a program, ``test_policy_bounded_trainer.py MODEL OUT``, it trains and writes what each process came to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judge_cases import save_judge
from polypref.errors import ArtifactError, InputError, SettingsError

pytest.importorskip("trl")

from policy_cases import config, liked, rows, short, trainer, weights
from polypref.policy import history_file
from polypref.policy import trl_bounded as module
from polypref.policy.advantages import Normalizer, Prompts
from polypref.policy.bounded import EVERYONE, Bound, Guard

BOUND = {"unsafe_below": 0.5}


def judge(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    """Safe where the first token is even; nothing is told of what ends with a multiple of five."""
    return [None if ids[-1] % 5 == 0 else float(ids[0] % 2 == 0) for ids in completion_ids]


def harmless(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [1.0] * len(completion_ids)


def args_of(out: Path, **settings: Any) -> Any:
    """The small run of the other tests, bounded; GRPO's where ``grpo`` says so."""
    told = {**BOUND, **settings}
    grpo, plain = told.pop("grpo", False), vars(config(out))
    kind = module.BoundedGRPOConfig if grpo else module.BoundedPGRPOConfig
    names = ["output_dir", "per_device_train_batch_size", "gradient_accumulation_steps", "num_generations", "seed"]
    names += ["max_completion_length", "max_steps", "save_steps", "save_strategy", "learning_rate", "logging_steps"]
    names += ["report_to", "use_cpu", "bf16", "gradient_checkpointing", "disable_tqdm"]
    names += [] if grpo else ["history_min_count"]
    return kind(**{**{name: plain[name] for name in names}, **told})


def bounded(model: Path, args: Any, reward_funcs: Any = liked, safety_func: Any = judge, **more: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    grpo = isinstance(args, module.BoundedGRPOConfig)
    kind: Any = module.BoundedGRPOTrainer if grpo else module.BoundedPGRPOTrainer
    return kind(
        AutoModelForCausalLM.from_pretrained(model),
        reward_funcs,
        args,
        train_dataset=rows(),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
        safety_func=safety_func,
        **more,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("model") / "m", template=None, pad="<pad>", side="left")


def recorded(run: Any) -> list[dict[str, Any]]:
    """What is told, used and logged, batch by batch, of a trainer of either kind."""
    found: list[dict[str, Any]] = []
    rewards, output = run._calculate_rewards, run._generate_and_score_completions

    def told(inputs: Any, *rest: Any) -> Any:
        result = rewards(inputs, *rest)
        whole = run._rewards_and_scores[0] if hasattr(run, "_rewards_and_scores") else result
        keys = [key for (key,) in run._rewards_and_keys[1]] if hasattr(run, "histories") else [EVERYONE] * len(whole)
        found.append({"reward": whole.double().numpy().copy(), "key": keys})
        return result

    def scored(inputs: Any) -> Any:
        result = output(inputs)
        found[-1]["used"] = result["advantages"].double().numpy().copy()
        found[-1]["logged"] = list(run._logs["advantages"])[-len(found[-1]["used"]) :]
        found[-1]["table"] = {name: list(column) for name, column in run._logs["rewards"].items()}
        return result

    run._calculate_rewards, run._generate_and_score_completions = told, scored
    return found


def check_bound(batch: dict[str, Any], at: int) -> np.ndarray:
    """Nothing unsafe is reinforced, nor above anything safe; which are safe."""
    score_B = batch["reward"][:, at]
    safe_B = np.isfinite(score_B) & (score_B >= 0.5)
    assert not safe_B.all(), "the test needs something unsafe"
    assert batch["used"][~safe_B].max() <= -1
    assert batch["used"][~safe_B].max() < batch["used"][safe_B].min(initial=np.inf)
    return safe_B


# P-GRPO


@pytest.mark.parametrize("how", ["sum_then_normalize", "normalize_then_sum"])
def test_advantages_are_those_of_the_safe_and_a_penalty(model: Path, tmp_path: Path, how: str) -> None:
    """An independent replay in numpy gives the same advantages, histories, multipliers and figures."""
    args = args_of(tmp_path, multi_objective_aggregation=how, reward_weights=[1.0, 0.5], unsafe_rate=0.1)
    run = bounded(model, args, [liked, short])
    found = recorded(run)
    run.train()
    assert args.reward_weights == [1.0, 0.5], "the caller's settings stay as they are"
    each, guard = how == "normalize_then_sum", Guard(Bound(0.5, rate=0.1))
    again = [Normalizer(args.normalization()) for _ in range(2 if each else 1)]
    assert len(found) == 4 and len(run.histories) == len(again)
    for batch in found:
        safe_B = check_bound(batch, at=2)
        reward_BF = np.where(safe_B[:, None], batch["reward"][:, :2], np.nan)
        columns = [(reward_BF[:, 0], 1.0), (reward_BF[:, 1], 0.5)] if each else [(reward_BF @ [1.0, 0.5], 1.0)]
        preference_B = sum(
            weight * normalizer(reward_B, np.arange(16) // 4, [batch["key"]]).value_B
            for normalizer, (reward_B, weight) in zip(again, columns, strict=True)
        )
        expected = guard(preference_B, batch["reward"][:, 2], batch["key"])
        np.testing.assert_allclose(batch["used"], expected.value_B, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(batch["logged"], expected.value_B, rtol=1e-5, atol=1e-6)
    assert history_file.digest(again) == history_file.digest(run.histories)
    assert run.guard.multipliers == guard.multipliers and max(guard.multipliers.values()) > 0
    log = run.state.log_history[-2]
    assert log["bounded/violation"] == pytest.approx(1 - safe_B.mean())
    assert log["bounded/unscored"] == pytest.approx(np.isnan(found[-1]["reward"][:, 2]).mean())
    assert log["bounded/kappa"] == pytest.approx(expected.kappa)
    for key, share, multiplier in zip(expected.key_K, expected.violation_K, expected.multiplier_K, strict=True):
        assert log[f"bounded/{key}/violation"] == pytest.approx(share)
        assert log[f"bounded/{key}/multiplier"] == pytest.approx(multiplier)
    assert np.isfinite(log["rewards/judge/mean"]), "TRL lists the safety scores among the rewards"


def test_where_all_is_safe_training_is_p_grpo_bit_for_bit(model: Path, tmp_path: Path) -> None:
    plain = trainer(model, config(tmp_path / "plain"))
    plain.train()
    ours = bounded(model, args_of(tmp_path / "ours"), safety_func=harmless)
    ours.train()
    assert weights(ours) == weights(plain)
    assert history_file.digest(ours.histories) == history_file.digest(plain.histories)


def test_a_group_that_is_always_unsafe_has_no_history_and_is_pushed_down(model: Path, tmp_path: Path) -> None:
    run = bounded(model, args_of(tmp_path), safety_func=lambda group, **_: [float(g == "a") for g in group])
    found = recorded(run)
    run.train()
    told = [batch for batch in found if "b" in batch["key"]]
    assert told, "the test needs the group"
    for batch in told:
        unsafe_B = np.array(batch["key"]) == "b"
        assert batch["used"][unsafe_B].max() <= -1
    groups = run.histories[0].levels[1]
    assert groups.rewards.count_G[groups.numbers[("b",)]] == 0 < groups.rewards.count_G[groups.numbers[("a",)]]


def test_evaluation_moves_neither_histories_nor_multipliers(model: Path, tmp_path: Path) -> None:
    args = args_of(tmp_path, per_device_eval_batch_size=4, unsafe_rate=0.0)
    run = bounded(model, args, eval_dataset=rows(4))
    run.train()
    before = history_file.digest(run.histories), dict(run.guard.multipliers)
    told = run.evaluate()
    assert (history_file.digest(run.histories), run.guard.multipliers) == before and any(before[1].values())
    assert 0 <= told["eval_bounded/violation"] <= 1


def test_a_threshold_that_single_precision_cannot_hold(model: Path, tmp_path: Path) -> None:
    args = args_of(tmp_path, unsafe_below=0.7, max_steps=1, save_strategy="no")
    run = bounded(model, args, safety_func=lambda completions, **_: [0.7] * len(completions))
    run.train()
    assert run.state.log_history[0]["bounded/violation"] == 0


# checkpoints and processes


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(model: Path, tmp_path: Path) -> None:
    whole = bounded(model, args_of(tmp_path / "whole", unsafe_rate=0.1))
    whole.train()
    again = bounded(model, args_of(tmp_path / "again", unsafe_rate=0.1))
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert history_file.digest(again.histories) == history_file.digest(whole.histories)
    assert again.guard.multipliers == whole.guard.multipliers and any(whole.guard.multipliers.values())
    assert weights(again) == weights(whole)


def test_resuming_under_another_bound_or_without_multipliers_is_refused(model: Path, tmp_path: Path) -> None:
    bounded(model, args_of(tmp_path)).train()
    checkpoint = tmp_path / "checkpoint-2"
    with pytest.raises(ArtifactError, match=r"bound was .*'unsafe_below': 0\.5.* now .*'unsafe_below': 0\.25"):
        bounded(model, args_of(tmp_path, unsafe_below=0.25)).train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(ArtifactError, match=r"rewards was \['liked', 'judge'\], now \['liked', 'harmless'\]"):
        bounded(model, args_of(tmp_path), safety_func=harmless).train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / module.NAME).unlink()
    with pytest.raises(ArtifactError, match="multipliers would start again at 0"):
        bounded(model, args_of(tmp_path)).train(resume_from_checkpoint=str(checkpoint))


def test_two_processes_are_one(model: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*launch, __file__, str(model), str(tmp_path)],
        capture_output=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in ("p-grpo", "grpo"):
        first, second = (json.loads((tmp_path / f"{kind}-{rank}.json").read_text()) for rank in (0, 1))
        used = [np.concatenate(both) for both in zip(first.pop("used"), second.pop("used"), strict=True)]
        assert first == second
        guard = Guard(Bound(0.5, rate=0.1 if kind == "p-grpo" else None))
        normalizer = Normalizer(config(tmp_path).normalization())
        for batch, used_B in zip(first["batches"], used, strict=True):
            reward_BF, prompt_B = np.array(batch["reward"]), np.arange(16) // 4
            safe_B = reward_BF[:, 1] >= 0.5
            reward_B = np.where(safe_B, reward_BF[:, 0], np.nan)
            grpo_B = np.nan_to_num(Prompts.of(reward_B, prompt_B).grpo())
            preference_B = normalizer(reward_B, prompt_B, [batch["key"]]).value_B if kind == "p-grpo" else grpo_B
            np.testing.assert_allclose(
                used_B, guard(preference_B, reward_BF[:, 1], batch["key"]).value_B, rtol=1e-4, atol=1e-4
            )
        assert guard.state() == first["multipliers"]


# GRPO


@pytest.mark.parametrize("scale", ["group", "none"])
def test_grpo_among_the_safe_and_a_penalty(model: Path, tmp_path: Path, scale: str) -> None:
    run = bounded(model, args_of(tmp_path, grpo=True, scale_rewards=scale))
    found = recorded(run)
    run.train()
    assert len(found) == 4
    for batch in found:
        safe_B = check_bound(batch, at=1)
        prompts = Prompts.of(np.where(safe_B, batch["reward"][:, 0], np.nan), np.arange(16) // 4)
        expected = np.nan_to_num(prompts.grpo() if scale == "group" else prompts.residual_B)
        expected = np.where(safe_B, expected, -1 - np.abs(expected[safe_B]).max())
        np.testing.assert_allclose(batch["used"], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(batch["logged"], batch["used"], rtol=1e-6)
        table = np.array([batch["table"]["liked"], batch["table"]["judge"]]).T[-16:]
        np.testing.assert_array_equal(table, batch["reward"])
    log = run.state.log_history[-2]
    assert log["bounded/violation"] == pytest.approx(1 - safe_B.mean())
    assert log["rewards/judge/mean"] == pytest.approx(np.nanmean(batch["reward"][:, 1]))


def test_where_all_is_safe_training_is_grpo_bit_for_bit(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.grpo_trainer import GRPOTrainer

    kind: Any = GRPOTrainer
    plain = kind(
        AutoModelForCausalLM.from_pretrained(model),
        liked,
        args_of(tmp_path / "plain", grpo=True),
        train_dataset=rows(),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )
    plain.train()
    ours = bounded(model, args_of(tmp_path / "ours", grpo=True), safety_func=harmless)
    ours.train()
    assert weights(ours) == weights(plain)


# what judges, and what is refused


def test_a_model_may_judge(model: Path, tmp_path: Path) -> None:
    """As with TRL's rewards: a classifier with one label, here beside a function, read by a tokenizer of its own."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    classifier = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    classifier.config.pad_token_id = AutoTokenizer.from_pretrained(model).pad_token_id
    run = bounded(
        model,
        args_of(tmp_path, unsafe_below=0.0, max_steps=1, save_strategy="no"),
        safety_func=classifier,
        safety_processing_class=AutoTokenizer.from_pretrained(model),
    )
    found = recorded(run)
    run.train()
    score_B = found[0]["reward"][:, 1]
    assert np.isfinite(score_B).all() and score_B.std() > 0
    assert (found[0]["used"][score_B < 0] <= -1).all()


def test_a_judge_that_raises_stops_the_run(model: Path, tmp_path: Path) -> None:
    def fails(**_: Any) -> list[float]:
        raise ConnectionError("no judge there")

    with pytest.raises(InputError, match="failed at step 0: ConnectionError: no judge there"):
        bounded(model, args_of(tmp_path), safety_func=fails).train()


def test_settings_that_cannot_work(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unsafe_below is not set; expected the least score of safety_func"):
        args_of(tmp_path, unsafe_below=None)
    with pytest.raises(SettingsError, match="unsafe_below is not set"):
        args_of(tmp_path, unsafe_below=None, grpo=True)
    with pytest.raises(SettingsError, match="gap is 0; expected a number from 1e-06"):
        args_of(tmp_path, unsafe_gap=0)
    with pytest.raises(SettingsError, match="args is a PGRPOConfig; expected a BoundedPGRPOConfig"):
        bounded(model, config(tmp_path))
    with pytest.raises(SettingsError, match="args is a NoneType; expected a BoundedGRPOConfig"):
        module.BoundedGRPOTrainer(str(model), liked, safety_func=judge)


if __name__ == "__main__":
    for kind in ("p-grpo", "grpo"):
        more = {"grpo": True} if kind == "grpo" else {"unsafe_rate": 0.1}
        out = Path(sys.argv[2])
        run = bounded(
            Path(sys.argv[1]), args_of(out / kind, per_device_train_batch_size=4, max_steps=2, save_steps=1, **more)
        )
        batches = recorded(run)
        run.train()
        used = [batch["used"].tolist() for batch in batches]
        whole = [{"reward": batch["reward"].tolist(), "key": batch["key"]} for batch in batches]
        told = {"used": used, "weights": weights(run), "multipliers": run.guard.state(), "batches": whole}
        (out / f"{kind}-{run.accelerator.process_index}.json").write_text(json.dumps(told))
    run.accelerator.end_training()  # or gloo's threads may abort the process while Python ends
