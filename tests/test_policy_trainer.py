"""P-GRPO on the real TRL trainer, with a tiny random language model."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from contextvars import Context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judge_cases import save_judge
from polypref.errors import ArtifactError, InputError, MissingExtra, PolyprefError, SettingsError
from polypref.files import held_for_run

pytest.importorskip("trl")

import policy_cases as cases
from policy_cases import config, liked, rows, short, trainer, weights
from polypref.policy import history_file
from polypref.policy import trl as module
from polypref.policy.advantages import EPSILON, PAPER, Normalizer

CASES = Path(cases.__file__)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("model") / "m", template=None, pad="<pad>", side="left")


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What TRL itself computes and what is used instead, of every batch."""
    found: list[dict[str, Any]] = []
    own = module.GRPOTrainer._generate_and_score_completions
    ours = module.PGRPOTrainer._generate_and_score_completions

    def trls(self: Any, inputs: Any) -> Any:
        output = own(self, inputs)
        rewards, keys = self._rewards_and_keys
        found.append({"trl": output["advantages"].clone(), "reward": rewards.clone(), "keys": keys, "rows": inputs})
        return output

    def used(self: Any, inputs: Any) -> Any:
        output = ours(self, inputs)
        found[-1]["used"] = output["advantages"]
        found[-1]["logged"] = list(self._logs["advantages"])[-len(output["advantages"]) :]
        return output

    monkeypatch.setattr(module.GRPOTrainer, "_generate_and_score_completions", trls)
    monkeypatch.setattr(module.PGRPOTrainer, "_generate_and_score_completions", used)
    return found


# the advantages


def test_the_papers_corollary_against_trls_own_advantages(model: Path, tmp_path: Path, monkeypatch) -> None:
    """A = (sigma_G / sigma_p) A_GRPO + (mu_G - mu_p) / sigma_p."""
    found = recorded(monkeypatch)
    trainer(model, config(tmp_path, paper=True)).train()
    assert len(found) == 4
    seen: dict[str, list[float]] = {"a": [], "b": []}
    for batch in found:
        reward_B = batch["reward"][:, 0].double().numpy()
        group_B = np.array([key for (key,) in batch["keys"]])
        for group, reward in zip(group_B, reward_B, strict=True):
            seen[group].append(reward)
        for at in np.arange(16).reshape(4, 4):
            own = np.array(seen[group_B[at[0]]])
            if len(own) < 2:
                continue
            of_prompt, scale = reward_B[at].std(ddof=1) + EPSILON, own.std() + EPSILON
            expected = of_prompt / scale * batch["trl"][at].double().numpy()
            expected += (reward_B[at].mean() - own.mean()) / scale
            np.testing.assert_allclose(batch["used"][at].numpy(), expected, atol=5e-6)  # TRL's are single precision


def test_what_is_logged_is_what_is_used(model: Path, tmp_path: Path, monkeypatch) -> None:
    found = recorded(monkeypatch)
    run = trainer(model, config(tmp_path))
    run.train()
    for batch in found:
        np.testing.assert_allclose(batch["logged"], batch["used"].numpy(), rtol=1e-6)
    assert any(not np.allclose(batch["used"].numpy(), batch["trl"].numpy()) for batch in found)
    log = run.state.log_history[-2]
    assert log["pgrpo/a/count"] + log["pgrpo/b/count"] == 64
    assert log["pgrpo/b/mean"] < -3 < 0 < log["pgrpo/a/mean"]
    assert log["pgrpo/b/scale"] < log["pgrpo/a/scale"]
    assert log["pgrpo/a/signal"] + log.get("pgrpo/b/signal", 0) == pytest.approx(1)
    assert 0 <= log["pgrpo/fell_back"] <= 1


def test_several_rewards_are_summed_or_have_a_history_each(model: Path, tmp_path: Path, monkeypatch) -> None:
    for how in ("sum_then_normalize", "normalize_then_sum"):
        with monkeypatch.context() as patch:
            found = recorded(patch)
            args = config(tmp_path / how, multi_objective_aggregation=how, reward_weights=[1.0, 0.5], paper=True)
            run = trainer(model, args, [liked, short])
            run.train()
        each = how == "normalize_then_sum"
        again = [Normalizer(PAPER) for _ in range(2 if each else 1)]
        for batch in found:
            reward_BF, keys = batch["reward"].double().numpy(), [[key for (key,) in batch["keys"]]]
            columns = [(reward_BF[:, 0], 1.0), (reward_BF[:, 1], 0.5)] if each else [(reward_BF @ [1.0, 0.5], 1.0)]
            expected = sum(
                weight * normalizer(reward_B, np.arange(16) // 4, keys).value_B
                for normalizer, (reward_B, weight) in zip(again, columns, strict=True)
            )
            np.testing.assert_allclose(batch["used"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_one_completion_a_prompt_is_enough(model: Path, tmp_path: Path, monkeypatch) -> None:
    found = recorded(monkeypatch)
    run = trainer(model, config(tmp_path, num_generations=1), data=rows(32))
    before = weights(run)
    run.train()
    assert not found[-1]["trl"].any(), "GRPO has nothing to learn from"
    assert (found[-1]["used"] != 0).sum() > 8, "all but rewards that are just their group's mean"
    assert weights(run) != before


def test_sampling_that_is_cut_short_is_warned_of(model: Path, tmp_path: Path) -> None:
    """Log-probabilities are then not those of what samples, and a baseline from history biases the gradient."""
    with pytest.warns(UserWarning, match="top_p: completions are not drawn from the policy that is trained"):
        trainer(model, config(tmp_path, top_p=0.9))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "top_p|top_k|min_p|repetition")
        trainer(model, config(tmp_path))
        trainer(model, config(tmp_path, top_p=0.9, advantage_baseline="prompt"))


def test_evaluation_leaves_the_histories_alone(model: Path, tmp_path: Path) -> None:
    run = trainer(model, config(tmp_path, per_device_eval_batch_size=4), eval_dataset=rows(4))
    run.train()
    before = history_file.digest(run.histories)
    found = run.evaluate()
    assert history_file.digest(run.histories) == before
    assert np.isfinite(found["eval_pgrpo/a/reward"])


def test_evaluation_may_be_larger_than_a_batch_of_generations(model: Path, tmp_path: Path) -> None:
    small = config(tmp_path, per_device_train_batch_size=2, num_generations=2, per_device_eval_batch_size=8)
    run = trainer(model, small, eval_dataset=rows(8))
    run.train()
    run.evaluate()
    assert len(run._logs["advantages"]) == 4, "TRL keeps as many as a batch of generations holds"


def test_with_peft(model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    run = trainer(model, config(tmp_path), peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    run.train()
    assert run.histories[0].levels[0].rewards.count_G[0] == 64
    assert (tmp_path / "checkpoint-4" / history_file.NAME).exists()


# checkpoints


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(model: Path, tmp_path: Path) -> None:
    whole = trainer(model, config(tmp_path / "whole"))
    whole.train()
    for checkpoint in ("checkpoint-2",):
        again = trainer(model, config(tmp_path / "again"))
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / checkpoint))
        assert history_file.digest(again.histories) == history_file.digest(whole.histories)
        assert weights(again) == weights(whole)


def test_resuming_without_the_histories_is_refused(model: Path, tmp_path: Path) -> None:
    trainer(model, config(tmp_path)).train()
    file = tmp_path / "checkpoint-2" / history_file.NAME
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(ArtifactError, match="is missing: groups would start again without history"):
        trainer(model, config(tmp_path)).train(resume_from_checkpoint=str(file.parent))
    file.write_bytes(content[:100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        trainer(model, config(tmp_path)).train(resume_from_checkpoint=str(file.parent))
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match="baseline was 'shrunken', now 'group'"):
        changed = config(tmp_path, advantage_baseline="group")
        trainer(model, changed).train(resume_from_checkpoint=str(file.parent))


def test_resuming_with_other_rewards_is_refused(model: Path, tmp_path: Path) -> None:
    trainer(model, config(tmp_path, reward_weights=[1.0, 0.5]), [liked, short]).train()
    checkpoint = str(tmp_path / "checkpoint-2")
    heavier = trainer(model, config(tmp_path, reward_weights=[1.0, 50.0]), [liked, short])
    with pytest.raises(ArtifactError, match=r"reward_weights was \[1\.0, 0\.5\], now \[1\.0, 50\.0\]"):
        heavier.train(resume_from_checkpoint=checkpoint)
    swapped = trainer(model, config(tmp_path, reward_weights=[1.0, 0.5]), [short, liked])
    with pytest.raises(ArtifactError, match=r"rewards was \['liked', 'short'\], now \['short', 'liked'\]"):
        swapped.train(resume_from_checkpoint=checkpoint)


def test_checkpoints_amid_a_batch_of_generations_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"save_steps=1 would save within .* used for 2 steps"):
        trainer(model, config(tmp_path, save_steps=1, num_iterations=2))
    odd = config(tmp_path, save_strategy="epoch", num_iterations=2, max_steps=3)
    trainer(model, odd, data=rows(4)).train()
    (folder,) = (f for f in tmp_path.glob("checkpoint-*") if int(f.name.split("-")[1]) % 2)
    with pytest.raises(SettingsError, match=rf"{folder.name} was saved within a batch of generations"):
        trainer(model, replace_out(odd, tmp_path), data=rows(4)).train(resume_from_checkpoint=str(folder))


def replace_out(args: Any, out: Path) -> Any:
    args.output_dir = str(out / "again")
    return args


def test_two_processes_are_one(model: Path, tmp_path: Path) -> None:
    """Equal histories and weights on both; advantages are those of one process that is told all rewards."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launch, str(CASES), str(model), str(tmp_path), "4"], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    used = [list(zip(*[[batch.pop("used") for batch in one["batches"]] for one in (first, second)], strict=True))]
    assert first == second
    alone = Normalizer(config(tmp_path).normalization(), ("group",))
    assert len(first["batches"]) == 4
    for batch, (of_0, of_1) in zip(first["batches"], used[0], strict=True):
        np.testing.assert_allclose([*of_0, *of_1], batch["value"], rtol=1e-6)
        assert of_0 != of_1
        found = alone(np.array(batch["reward"]), np.arange(16) // 4, [batch["key"]])
        np.testing.assert_array_equal(found.value_B, batch["value"])
    assert history_file.digest([alone]) == first["histories"]


# what is refused


def test_one_completion_a_prompt_needs_even_batches(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="num_generations=1 needs an even number of completions"):
        config(tmp_path, num_generations=1, per_device_train_batch_size=1, gradient_accumulation_steps=1)


@pytest.mark.parametrize("setting", [{"advantage_baseline": "grp"}, {"advantage_order": "pre"}, {"history_cold": "x"}])
def test_misspelt_settings(tmp_path: Path, setting: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"is '{next(iter(setting.values()))}'; expected '"):
        config(tmp_path, **setting)


@pytest.mark.parametrize(
    ("column", "line"),
    [
        (["a", "", "b", "b"], "group of a row is ''; expected text or a whole number"),
        (["a", None, "b", "b"], "group of a row is None; expected text or a whole number"),
        ([1.5, 2.0, 1.5, 2.0], "group of a row is 1.5; expected text or a whole number"),
        ([True, False, True, True], "group of a row is True; expected text"),
    ],
)
def test_groups_that_are_none(model: Path, tmp_path: Path, column: list[Any], line: str) -> None:
    from datasets import Dataset

    data = Dataset.from_dict({"prompt": ["why one"] * 4, "group": column})
    with pytest.raises(InputError, match=line.replace("(", r"\(")):
        trainer(model, config(tmp_path, seed=0), data=data).train()


def test_mixed_kinds_of_group() -> None:
    with pytest.raises(InputError, match="group mixes text and numbers"):
        module.check_keys([["a"], [1]], ("group",))


def test_no_group_column(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no column 'persona'; found: prompt, group\. Set group_column"):
        trainer(model, config(tmp_path, group_column="persona"))


def test_a_groups_first_rewards_fall_back(model: Path, tmp_path: Path, monkeypatch) -> None:
    found = recorded(monkeypatch)
    trainer(model, config(tmp_path, history_min_count=1000, group_weight=0.0)).train()
    for batch in found:
        np.testing.assert_allclose(batch["used"].numpy(), batch["trl"].numpy(), atol=1e-5)


@pytest.mark.parametrize("value", [None, float("nan"), 1.0])
def test_rewards_that_say_nothing_move_nothing(model: Path, tmp_path: Path, monkeypatch, value: float | None) -> None:
    found = recorded(monkeypatch)
    run = trainer(model, config(tmp_path), lambda completions, **_: [value] * len(completions))
    run.train()
    assert not any(batch["used"].any() for batch in found)
    assert run.histories[0].levels[0].rewards.count_G.sum() == (64 if value == 1.0 else 0)


def test_one_infinite_reward_never_enters(model: Path, tmp_path: Path, monkeypatch) -> None:
    found = recorded(monkeypatch)
    run = trainer(model, config(tmp_path), lambda completions, **_: [float("inf"), *range(1, len(completions))])
    run.train()
    assert all(batch["used"].isfinite().all() and batch["used"][0] == 0 for batch in found)
    assert np.isfinite(run.histories[0].levels[0].rewards.mean_G).all()


def test_a_reward_function_that_raises_is_named_with_its_step(model: Path, tmp_path: Path) -> None:
    calls = []

    def fails(completions: Any, **_: Any) -> list[float]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("no such user")
        return [1.0] * len(completions)

    with pytest.raises(InputError, match=r"a reward function failed at step 2: KeyError: 'no such user'"):
        trainer(model, config(tmp_path), fails).train()
    assert (tmp_path / "checkpoint-2" / history_file.NAME).exists()


def test_two_trainers_of_one_folder(model: Path, tmp_path: Path) -> None:
    with (
        held_for_run(tmp_path),
        pytest.raises(SettingsError, match=r"another trainer .*is writing .*choose another output_dir"),
    ):
        Context().run(trainer(model, config(tmp_path)).train)


def test_a_plain_config_is_refused(model: Path, tmp_path: Path) -> None:
    plain = module.GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    with pytest.raises(SettingsError, match="args is a GRPOConfig; expected a PGRPOConfig"):
        trainer(model, plain)


def test_a_trl_that_has_moved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module.check_trl()
    monkeypatch.setattr(module.GRPOTrainer, "_calculate_rewards", lambda self, inputs, batch: None)
    with pytest.raises(PolyprefError, match=r"_calculate_rewards of trl .* takes .* pip install 'trl==1\.16"):
        module.PGRPOTrainer()


def test_without_trl_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "polypref.policy.trl")
    with pytest.raises(MissingExtra, match=r"pip install 'polypref\[policy\]'"):
        importlib.import_module("polypref.policy.trl")
