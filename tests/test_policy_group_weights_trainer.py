"""Group weights in the real TRL trainers and in align, with a tiny random language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judge_cases import save_judge
from polypref.errors import ArtifactError, SettingsError

pytest.importorskip("trl")

from policy_cases import config, rows, trainer, weights
from polypref.align import Task
from polypref.align.trainer import arguments
from polypref.policy import history_file
from polypref.policy import trl as module
from polypref.policy.group_weights import GroupWeights
from test_policy_bounded_trainer import args_of, bounded, check_bound
from test_policy_bounded_trainer import recorded as recorded_bounds


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("model") / "m", template=None, pad="<pad>", side="left")


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """TRL's own advantages, the groups, and what is used instead, of every batch."""
    found: list[dict[str, Any]] = []
    own, ours = (kind._generate_and_score_completions for kind in (module.GRPOTrainer, module.PGRPOTrainer))

    def trls(self: Any, inputs: Any) -> Any:
        output = own(self, inputs)
        keys = [key for (key,) in self._rewards_and_keys[1]]
        found.append({"trl": output["advantages"].double().numpy().copy(), "key": keys})
        return output

    def used(self: Any, inputs: Any) -> Any:
        output = ours(self, inputs)
        found[-1]["used"] = output["advantages"].double().numpy().copy()
        return output

    monkeypatch.setattr(module.GRPOTrainer, "_generate_and_score_completions", trls)
    monkeypatch.setattr(module.PGRPOTrainer, "_generate_and_score_completions", used)
    return found


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_plain_grpo_with_weights_is_trls_own_times_the_weights(model: Path, tmp_path, monkeypatch, alpha) -> None:
    found = recorded(monkeypatch)
    run = trainer(model, config(tmp_path, advantage_baseline="grpo", group_weight=alpha))
    run.train()
    weigh, seen = GroupWeights(alpha), set()
    for batch in found:
        weight_B = weigh(np.array([int(key == "b") for key in batch["key"]]), np.ones(16, bool))
        np.testing.assert_allclose(batch["used"], batch["trl"] * weight_B, atol=1e-5)
        seen |= set(np.round(weight_B, 6).tolist())
    assert (seen == {1.0}) == (alpha == 0)
    assert run.state.log_history[-2]["pgrpo/fell_back"] == 0


def test_weights_are_logged_and_the_rarer_group_counts_more(model: Path, tmp_path: Path) -> None:
    run = trainer(model, config(tmp_path, group_weight=1.0))
    run.train()
    logs = [one for one in run.state.log_history if "pgrpo/a/weight" in one and "pgrpo/b/weight" in one]
    assert logs and all(one["pgrpo/a/weight"] < 1 < one["pgrpo/b/weight"] for one in logs)


def test_a_resumed_run_is_the_uninterrupted_one_and_other_weights_are_refused(model: Path, tmp_path: Path) -> None:
    whole = trainer(model, config(tmp_path / "whole", group_weight=1.0))
    whole.train()
    again = trainer(model, config(tmp_path / "again", group_weight=1.0))
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert again.histories[0].weights.seen_G.sum() == 64
    assert history_file.digest(again.histories) == history_file.digest(whole.histories)
    assert weights(again) == weights(whole)
    other = trainer(model, config(tmp_path / "other"))
    with pytest.raises(ArtifactError, match=r"group_weight was 1\.0, now 0\.5"):
        other.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))


def test_the_papers_formula_weighs_nobody(tmp_path: Path) -> None:
    assert config(tmp_path).normalization().group_weight == 0.5
    assert config(tmp_path, paper=True, group_weight=1.0).normalization().group_weight == 0


@pytest.mark.parametrize("baseline", ["prompt", "grpo"])
def test_one_completion_a_prompt_needs_a_history(tmp_path: Path, baseline: str) -> None:
    with pytest.raises(SettingsError, match=f"advantage_baseline='{baseline}' .* num_generations is 1: nothing would"):
        config(tmp_path, num_generations=1, advantage_baseline=baseline)


def test_a_baseline_within_the_prompt_is_not_warned_of(model: Path, tmp_path: Path, recwarn) -> None:
    trainer(model, config(tmp_path, top_p=0.9, advantage_baseline="grpo"))
    assert not [one for one in recwarn if "completions are not drawn" in str(one.message)]


def test_inside_bounds_nothing_unsafe_is_reinforced(model: Path, tmp_path: Path) -> None:
    for baseline in ("shrunken", "grpo"):
        args = args_of(tmp_path / baseline, group_weight=1.0, advantage_baseline=baseline, unsafe_rate=0.1)
        run = bounded(model, args)
        found = recorded_bounds(run)
        run.train()
        assert len(found) == 4
        safe = sum(int(check_bound(batch, 1).sum()) for batch in found)
        assert run.histories[0].weights.seen_G.sum() == safe, "unsafe completions are in no group's share"


def test_align_has_a_setting_of_its_own(tmp_path: Path) -> None:
    assert arguments(Task("m"), tmp_path).normalization().group_weight == 0.5
    assert arguments(Task("m", group_weight=1.0), tmp_path).normalization().group_weight == 1
    with pytest.raises(SettingsError, match="group_weight is 2; expected a finite number from 0 to 1"):
        Task("m", group_weight=2)
    with pytest.raises(SettingsError, match="unknown setting of the trainer 'group_weight'"):
        arguments(Task("m", trainer={"group_weight": 1.0}), tmp_path)


def test_rows_have_a_rarer_group() -> None:
    assert rows()["group"].count("a") == 3 * rows()["group"].count("b")
