"""From comparisons to a policy: `polypref align` on a tiny random language model."""

from __future__ import annotations

import json
import shutil
from contextvars import Context
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("trl")

import align_cases as cases
from align_cases import RUN
from polypref.align import Task, align, groups_from, measured, questions
from polypref.align.rewards import ScorerReward
from polypref.cli.align import settings_from
from polypref.comparisons import Comparisons, from_columns
from polypref.errors import ArtifactError, CacheError, EncoderError, NotEnoughData, SettingsError
from polypref.files import held_for_run
from polypref.groups import from_mapping
from polypref.report.alignment import curves, page, summary


class Stopped(Exception):
    """What a test stops a run with."""


@pytest.fixture(scope="module")
def comparisons() -> Comparisons:
    return cases.people()


@pytest.fixture(scope="module")
def group_of(comparisons: Comparisons) -> dict[str, str]:
    return cases.groups(comparisons)


@pytest.fixture(scope="module")
def scorers(comparisons: Comparisons) -> dict[str, Any]:
    return cases.fitted(comparisons)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return cases.tiny(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def ran(comparisons, group_of, scorers, model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("aligned") / "out"
    align(comparisons, group_of, Task(model, samples=4, trainer=RUN), scorers, out, lambda *_: None)
    return out


def test_every_prompt_is_asked_for_every_known_user(comparisons: Comparisons, group_of: dict[str, str]) -> None:
    asked, judged = questions(comparisons, group_of, Task("m"))
    users = asked["user_id"].unique().to_list()
    assert len(users) == 7 and "u7" not in users, "u7 belongs to no known group"
    prompts = len(comparisons.responses.prompts)
    assert len(asked) == 7 * (prompts - prompts // 5)
    assert judged["asked"].n_unique() == prompts // 5
    assert not set(judged["asked"]) & set(asked["asked"]), "what is measured is never trained on"
    assert asked["group"].to_list() == [group_of[user] for user in asked["user_id"]]
    one = asked.row(0, named=True)
    assert one["prompt"] == f"{one['group']}: {one['asked']}\n"
    assert questions(comparisons, group_of, Task("m"))[0].equals(asked)
    assert not questions(comparisons, group_of, Task("m", seed=1))[0].equals(asked)
    with pytest.raises(NotEnoughData, match="known group gave 1000 judgements or more; lower min_judgements"):
        questions(comparisons, group_of, Task("m", min_judgements=1000))
    with pytest.raises(NotEnoughData, match="none of the users is in a known group"):
        questions(comparisons, {}, Task("m"))
    few = from_columns(*[["u0", "u1"], ["p", "p"], ["a", "a"], ["b", "b"]])
    with pytest.raises(NotEnoughData, match=r"group 'even' has 1 questions, .* expected 2 at least"):
        questions(few, group_of, Task("m", min_judgements=1))


def test_a_run_is_measured_per_group_by_scorer_and_judge(ran: Path) -> None:
    found = json.loads((ran / "align.json").read_text())
    assert set(found["groups"]) == {"even", "odd"}
    for about in found["groups"].values():
        assert about["samples"] == 4 and 0.2 < about["weight"] < 5
        for name in ("reward", "judge"):
            assert about[name]["lo"] <= about[name]["gain"] <= about[name]["hi"]
    assert [one["step"] for one in found["curve"]] == [1, 2, 3, 4]
    assert (ran / "model" / "model.safetensors").exists()
    assert {one["group"] for one in found["examples"]} == {"even", "odd"}


def test_gains_are_differences_in_spreads_before(comparisons, group_of, scorers) -> None:
    judged = questions(comparisons, group_of, Task("m"))[0].head(40)
    texts = {
        "before": ["you should rest"] * 20 + ["one must unquestionably rest"] * 20,
        "after": ["you should rest"] * 40,
    }
    found = measured(judged, texts, {"reward": scorers["reward"]})
    reward = ScorerReward(scorers["reward"], prompt_column="asked")
    columns = {"asked": judged["asked"].to_list(), "user_id": judged["user_id"].to_list()}
    before, after = (np.array(reward(prompts=columns["asked"], completions=texts[k], **columns)) for k in texts)
    for group, about in found.items():
        own = (judged["group"] == group).to_numpy()
        gain = (after - before)[own] / before[own].std(ddof=1)
        users = judged.filter(own)["user_id"].to_numpy()
        assert about["reward"]["gain"] == pytest.approx(np.mean([gain[users == user].mean() for user in set(users)]))


def test_a_run_that_was_stopped_goes_on_to_the_same_end(ran, comparisons, group_of, scorers, model, tmp_path) -> None:
    out, task = tmp_path / "out", Task(model, samples=4, trainer=RUN)

    def stop(step: int, total: int, logs: Any) -> None:
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        align(comparisons, group_of, task, scorers, out, stop)
    assert not (out / "align.json").exists()
    told: list[int] = []
    align(comparisons, group_of, task, scorers, out, lambda step, total, logs: told.append(step))
    assert told[0] == 3, "steps 1 and 2 are not done again"
    assert json.loads((out / "align.json").read_text()) == json.loads((ran / "align.json").read_text())
    assert (out / "model/model.safetensors").read_bytes() == (ran / "model/model.safetensors").read_bytes()
    told.clear()
    align(comparisons, group_of, task, scorers, out, lambda step, total, logs: told.append(step))
    assert told == [], "what is done is not done again"


def test_a_run_that_was_stopped_after_its_last_step_takes_none_more(
    ran, comparisons, group_of, scorers, model, tmp_path
) -> None:
    shutil.copytree(ran, tmp_path / "out")
    (tmp_path / "out/align.json").unlink()
    shutil.rmtree(tmp_path / "out/model")
    told: list[int] = []
    task = Task(model, samples=4, trainer=RUN)
    align(comparisons, group_of, task, scorers, tmp_path / "out", lambda step, total, logs: told.append(step))
    assert told == []
    assert not (tmp_path / "out/checkpoints/checkpoint-5").exists()
    assert json.loads((tmp_path / "out/align.json").read_text()) == json.loads((ran / "align.json").read_text())
    for name in ("model.safetensors", "generation_config.json", "config.json"):
        assert (tmp_path / "out/model" / name).read_bytes() == (ran / "model" / name).read_bytes()


def test_a_checkpoint_that_was_cut_short_is_passed_over(ran, comparisons, group_of, scorers, model, tmp_path) -> None:
    shutil.copytree(ran, tmp_path / "out")
    for name in ("align.json", "model"):
        path = tmp_path / "out" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "out/checkpoints/checkpoint-4/trainer_state.json").unlink()
    told: list[int] = []
    task = Task(model, samples=4, trainer=RUN)
    align(comparisons, group_of, task, scorers, tmp_path / "out", lambda step, total, logs: told.append(step))
    assert told == [3, 4], "it goes on from the one before"
    assert (tmp_path / "out/align.json").read_text() == (ran / "align.json").read_text()


def test_a_judge_that_is_the_scorer_is_refused(comparisons, group_of, scorers, model, tmp_path) -> None:
    same = {"reward": scorers["reward"], "judge": scorers["reward"]}
    with pytest.raises(SettingsError, match="judge is the scorer itself"):
        align(comparisons, group_of, Task(model, samples=4, trainer=RUN), same, tmp_path / "out", print)


def test_another_run_in_the_folder_is_refused(ran, comparisons, group_of, scorers, model) -> None:
    task = Task(model, samples=4, trainer={**RUN, "learning_rate": 2e-3})
    with pytest.raises(SettingsError, match=r"holds another run: trainer was .*0\.001.*now .*0\.002.* Choose another"):
        align(comparisons, group_of, task, scorers, ran, lambda *_: None)
    with pytest.raises(SettingsError, match=r"holds another run: judge was '\w+', now None"):
        align(comparisons, group_of, Task(model, samples=4, trainer=RUN), {"reward": scorers["reward"]}, ran, print)


def test_two_runs_in_one_folder_do_not_write_it_both(comparisons, group_of, scorers, model, tmp_path) -> None:
    task = Task(model, samples=4, trainer=RUN)
    with held_for_run(tmp_path), pytest.raises(SettingsError, match=r"another run .*is writing"):
        Context().run(align, comparisons, group_of, task, scorers, tmp_path, print)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("setting", [{"temperature": 0}, {"loss_type": "foo"}, {"learning_rate": -1.0}])
def test_settings_that_fail_only_in_the_first_step(setting, comparisons, group_of, scorers, model, tmp_path) -> None:
    with pytest.raises(SettingsError, match="the trainer's settings cannot work"):
        align(comparisons, group_of, Task(model, samples=4, trainer=RUN | setting), scorers, tmp_path, print)
    assert not (tmp_path / "run.json").exists(), "other settings may be tried in this folder"


def test_a_file_where_the_folder_should_be(comparisons, group_of, scorers, model, tmp_path) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(CacheError, match=r"cannot write .*plain"):
        align(comparisons, group_of, Task(model, samples=4, trainer=RUN), scorers, tmp_path / "plain", print)


def test_settings_that_are_lists_are_lists() -> None:
    from polypref.align.trainer import _ensure_kind

    _ensure_kind("include_for_metrics", ["inputs"], list[str])
    _ensure_kind("report_to", "none", None | str | list[str])


def test_a_damaged_result_is_one_line(ran, comparisons, group_of, scorers, model, tmp_path) -> None:
    shutil.copytree(ran, tmp_path / "out")
    (tmp_path / "out" / "align.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"align.json cannot be read .* and run again"):
        align(comparisons, group_of, Task(model, samples=4, trainer=RUN), scorers, tmp_path / "out", print)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"template": "{prompt}"}, "lacks {prompt}, or both {group} and {user}"),
        ({"template": "{group} {nobody} {prompt}"}, "cannot be filled"),
        ({"template": "{group"}, "cannot be filled"),
        ({"samples": 1}, "samples is 1; expected a whole number from 2"),
        ({"min_judgements": 0}, "min_judgements is 0; expected a whole number from 1"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"group_weight": 1.1}, "group_weight is 1.1; expected a finite number from 0 to 1"),
        ({"template": "{group} {prompt.x}"}, "cannot be filled"),
        ({"trainer": {**RUN, "num_generations": 0}}, "the trainer's settings cannot work"),
        ({"trainer": {**RUN, "max_steps": "ten"}}, "the trainer's max_steps is 'ten'; expected a whole number."),
        ({"trainer": {**RUN, "max_steps": 4.5}}, "the trainer's max_steps is 4.5; expected a whole number."),
        ({"trainer": {**RUN, "paper": "yes"}}, "the trainer's paper is 'yes'; expected true or false."),
        ({"trainer": {**RUN, "beta": True}}, "the trainer's beta is True; expected a number."),
        ({"trainer": {**RUN, "history_half_life": "1k"}}, "is '1k'; expected a number or nothing."),
        ({"trainer": {**RUN, "learning_rate": float("nan")}}, "learning_rate is nan; expected a finite number."),
        (
            {"trainer": {"learning_rat": 1}},
            "unknown setting of the trainer 'learning_rat'. Did you mean 'learning_rate'?",
        ),
        ({"trainer": {"output_dir": "x"}}, "unknown setting of the trainer 'output_dir'"),
        ({"trainer": {**RUN, "num_generations": 3}}, "the trainer's settings cannot work"),
        ({"trainer": {**RUN, "max_steps": 0}}, "max_steps is 0; nothing would be trained"),
        ({"trainer": {**RUN, "advantage_baseline": "mean"}}, "baseline is 'mean'"),
    ],
)
def test_settings_that_cannot_work(task, message, comparisons, group_of, scorers, model, tmp_path) -> None:
    with pytest.raises(SettingsError) as caught:
        align(comparisons, group_of, Task(**{"model": model, **task}), scorers, tmp_path / "out", print)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_a_folder_without_a_model(comparisons, group_of, scorers, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match=r"the language model in .*empty cannot be loaded"):
        align(comparisons, group_of, Task(str(tmp_path / "empty")), scorers, tmp_path / "out", print)


def test_groups_from_a_folder_or_an_attribute(comparisons: Comparisons, group_of, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="attribute"):
        groups_from(comparisons, "no such")
    known = comparisons.users.attributes
    assert known is not None
    told = groups_from(comparisons, known.columns[0])
    assert list(told.values()) == known[known.columns[0]].cast(str).to_list()
    from_mapping(group_of).save(tmp_path / "groups")
    assert groups_from(comparisons, str(tmp_path / "groups")) == {**group_of, "u7": "unknown"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="empty"):
        groups_from(comparisons, str(tmp_path / "empty"))


def test_trainer_settings_are_read_as_toml_or_text() -> None:
    found = settings_from(("learning_rate=1e-5", "num_generations=4", "paper=true", "loss_type=grpo", "bf16=False"))
    assert settings_from(("run_name=2024-01-01",)) == {"run_name": "2024-01-01"}
    assert found == {"learning_rate": 1e-5, "num_generations": 4, "paper": True, "loss_type": "grpo", "bf16": False}
    with pytest.raises(SettingsError, match="--trainer fast: expected NAME=VALUE"):
        settings_from(("fast",))


def test_equal_rewards_before_give_no_gain_rather_than_a_huge_one(comparisons, group_of, scorers) -> None:
    judged = questions(comparisons, group_of, Task("m"))[1]
    judged = judged.filter(pl.col("asked") == judged["asked"][0], pl.col("user_id") == judged["user_id"][0])
    judged = pl.concat([judged, judged])
    texts = {"before": ["rest"] * len(judged), "after": ["you should rest"] * len(judged)}
    (about,) = measured(judged, texts, {"reward": scorers["reward"]}).values()
    assert about["reward"]["gain"] is None
    found = {"groups": {"a": about}, "curve": [{"step": 1, "reward": {"a": 1.0}}]}
    assert "unknown: all rewards before training were equal" in summary(found)
    assert curves(found) == {"a": []}


# the report


def test_the_page_holds_curves_gains_and_answers_escaped(ran: Path) -> None:
    found = json.loads((ran / "align.json").read_text())
    found["examples"][0]["after"] = "<script>alert(1)</script>"
    html = page(found)
    assert "<script>" not in html and "&lt;script&gt;alert(1)" in html
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.append(tag)

    Reader().feed(html)
    assert seen.count("polyline") == 3, "two groups' rewards, and distinct words"
    assert "KL divergence was not computed" in html
    assert html.index("Before and after") < html.index("The same question"), "the verdict comes first"
    assert "ends after 6 tokens" in html and "{group}: {prompt}" in html and "trainer.max_steps" in html
    assert html.count("<h4>") == len(found["examples"]) == 2 * html.count("<h3"), "each question, for both groups"
    for group, about in found["groups"].items():
        judge, reward = (f"{about[name]['gain']:+.2f}".replace("-", "−") for name in ("judge", "reward"))
        assert judge in html and reward in html and f">{about['weight']:.2f}<" in html
        assert f"{group} ({about['users']} users): {reward}" in summary(found)


def test_points_of_a_curve_are_means_over_stretches_in_spreads() -> None:
    steps = [{"step": s, "reward": {"a": float(s), "b": None if s % 2 else 0.0}} for s in range(1, 121)]
    groups: dict[str, Any] = {name: {"reward": {"mean": 1.0, "spread": 2.0}} for name in ("a", "b")}
    drawn = curves({"curve": steps, "groups": groups})
    assert drawn["a"][0] == (1.5, 0.25)
    assert len(drawn["a"]) == len(drawn["b"]) == 60
    assert drawn["b"][5] == (11.5, -0.5)
