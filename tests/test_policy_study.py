"""The study of advantages on bandits: what is stored, what is compared, what is printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import psutil
import pytest

from polypref import progress
from polypref.cli import main
from polypref.errors import CacheError, PolyprefError
from polypref.progress import Progress
from polypref.report.policy import chart, markdown
from polypref.studies.policy import bandit
from polypref.studies.policy import language as policy_language
from polypref.studies.policy.language import Tastes
from polypref.studies.policy.study import PLANS, Arm, Study, arms, curves, language_arms, study

QUICK = Study(("bandit",), quick=True, seeds=3, workers=2)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("policy")
    study(out, QUICK, quiet=True)
    return out


def test_what_is_stored_is_found_again_and_gives_the_same(ran: Path) -> None:
    before = json.loads((ran / "policy.json").read_text())
    first = sorted((ran / "arms").iterdir())[0]
    first.unlink()
    others = {path: path.stat().st_mtime_ns for path in first.parent.iterdir()}
    again = study(ran, replace(QUICK, workers=1), quiet=True)
    assert first.exists()
    assert {path: path.stat().st_mtime_ns for path in others} == others, "what is stored is not run again"
    assert again == before


def test_gains_are_differences_to_grpo_seed_by_seed(ran: Path) -> None:
    rows = json.loads((ran / "policy.json").read_text())["rows"]
    assert len({(row["setting"], row["method"], row["generations"]) for row in rows}) == len(arms(True)) == 6
    by = {(row["setting"], row["method"], row["metric"]): row for row in rows}
    for (setting, method, metric), row in by.items():
        assert row["seeds"] == 3
        if metric.endswith("_gain"):
            own, reference = by[setting, method, metric[:-5]], by[setting, "GRPO", metric[:-5]]
            assert row["value"] == pytest.approx(own["value"] - reference["value"])
            assert (row["lo"] == row["hi"] == 0) == (method == "GRPO")
            assert row["lo"] <= row["value"] <= row["hi"]
    assert by["identical groups", "GRPO", "worst"]["value"] > by["minority scale 0.1", "GRPO", "worst"]["value"]


def test_the_whole_study_has_its_reference_and_controls_in_every_setting() -> None:
    chosen = arms(False)
    assert len(set(chosen)) == len(chosen)
    for setting in {arm.setting for arm in chosen}:
        assert Arm(setting, "GRPO", 8) in chosen
        assert Arm(setting, "P-GRPO paper", 1) in chosen
    assert {arm.labels for arm in chosen} == {"true", "shuffled", "random"}
    on_language = language_arms(False)
    for setting in {arm.setting for arm in on_language}:
        assert Arm(setting, "GRPO", 8, learner="language model") in on_language
    plan = PLANS["language model"]
    assert plan.most is not None and plan.most >= 8, "eight paired seeds at least"


def test_a_hundred_groups_get_as_much_each_as_the_smallest_of_five() -> None:
    assert {name: one.length for name, one in bandit.SETTINGS.items() if one.length > 1} == {"100 groups": 5}
    arm = Arm("100 groups", "GRPO", 8)
    assert curves(arm, 0.02, np.arange(2), steps=20).shape == (2, 2, 100), "a look every 50 steps of 100"


def test_when_the_command_is_killed_its_workers_end(tmp_path: Path) -> None:
    """Kill -9 to the parent alone, amid arms of a quarter of a minute: what computes for nobody must not go on."""
    command = [sys.executable, "-m", "polypref", "bench-policy", "--learners", "bandit", "--out", str(tmp_path)]
    parent = psutil.Popen([*command, "--workers", "2"], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while len(busy := [one for one in parent.children() if one.cpu_times().user > 3]) < 2:
            assert time.monotonic() < until, "two workers amid their arms"
            time.sleep(0.1)
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(busy, timeout=5)
    assert not alive


def test_the_time_left_knows_which_arms_are_dear(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("", 5, "arms", {"dear": 90.0, "b": 4.0, "c": 3.0, "d": 3.0}, stored=1) as shown:
        now[0] = 45.0
        shown.tell("dear", None)
        now[0] = 60.0
        shown.tell("b", None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "polypref: 5 arms, 1 of them from an earlier run"
    assert lines[1] == "polypref: 2 of 5 arms, about 0:05 left (dear)"
    assert lines[2] == "polypref: 3 of 5 arms, about 0:04 left (b)"


def test_longer_runs_are_told_of_the_bandits_alone(ran: Path) -> None:
    content = json.loads((ran / "policy.json").read_text())
    assert content["settings"]["longer"] == {}, "the quick study has no hundred groups"
    told = content["settings"] | {"longer": {"100 groups": 5}}
    told["plans"] |= {"language model": {**told["plans"]["bandit"], "most": 2}}
    text = markdown({**content, "settings": told})
    assert "60 steps (100 groups: 5 times as many) of 256 completions; language model: 2 paired" in text


def test_tables_name_every_arm_and_print_what_is_sure_in_bold(ran: Path) -> None:
    content = json.loads((ran / "policy.json").read_text())
    text = markdown(content)
    assert text.count("| GRPO | 8 |") == 2
    controlled = [{**row, "groups": "shuffled"} for row in content["rows"] if row["setting"] == "minority scale 0.1"]
    assert markdown({**content, "rows": content["rows"] + controlled}).count("## minority scale 0.1") == 1
    sure = [row for row in content["rows"] if row["metric"] == "macro_gain" and row["lo"] > 0]
    assert sure and all(f"**{100 * row['value']:+.1f} (" in text for row in sure)
    assert np.isfinite([row["value"] for row in content["rows"] if row["value"] is not None]).all()


def test_the_picture_marks_every_interval_where_it_is(ran: Path) -> None:
    content = json.loads((ran / "policy.json").read_text())
    svg = ElementTree.fromstring(chart(content))
    marks = [one for one in svg.iter("{http://www.w3.org/2000/svg}line") if one.get("stroke-width") == "2"]
    assert len(marks) == 4, "two methods in two settings; GRPO with two completions is not in the quick study"
    assert all(float(one.get("x1", 0)) < float(one.get("x2", 0)) for one in marks)


@pytest.mark.parametrize("flags", [["--seeds", "1"], ["--workers", "-1"]])
def test_settings_that_cannot_work(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-policy", "--quick", "--out", str(tmp_path), *flags]) == 2
    assert f"{flags[0]} {flags[1]}" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_an_arm_that_fails_leaves_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(Study, "arms", [*arms(True)[:1], Arm("5 groups", "no such method", 8)])
    with pytest.raises(PolyprefError, match=r"1 of 2 cells failed: \[bandit, 5 groups: no such method"):
        study(tmp_path, replace(QUICK, workers=workers), quiet=True)
    assert len(list((tmp_path / "arms").glob("*.json"))) == 1


def test_a_damaged_arm_is_made_again_and_a_file_for_a_folder_is_one_line(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    damaged = sorted((copy / "arms").iterdir())[0]
    damaged.write_text("{")
    assert study(copy, QUICK, quiet=True)["rows"] == json.loads((ran / "policy.json").read_text())["rows"]
    assert capsys.readouterr().err.count("a finished arm is made again") == 1
    (tmp_path / "plain").touch()
    with pytest.raises(CacheError, match=r"cannot write .*plain/arms: Not a directory"):
        study(tmp_path / "plain", QUICK, quiet=True)


# the language model


@pytest.fixture(scope="module")
def tastes() -> Tastes:
    return Tastes.draw(bandit.SETTINGS["5 groups"], seed=3)


def test_the_best_completion_and_the_average_one_are_what_trying_all_gives(tastes: Tastes, monkeypatch) -> None:
    words = np.array(list(product(range(policy_language.WORDS), repeat=policy_language.LENGTH)))
    asked = np.arange(0, len(policy_language.PROMPTS_PA), 55)
    worth_PQW = np.array(
        [[tastes.utility(*np.full((2, len(words)), [[p], [q]]), words) for q in asked] for p in (0, 4)]
    )
    monkeypatch.setattr(policy_language, "PROMPTS_PA", policy_language.PROMPTS_PA[asked])
    uniform_G, best_G = tastes.bounds()
    np.testing.assert_allclose(uniform_G[[0, 4]], worth_PQW.mean((1, 2)), atol=1e-12)
    np.testing.assert_allclose(best_G[[0, 4]], worth_PQW.max(2).mean(1))


def test_identical_groups_have_one_taste() -> None:
    taste = Tastes.draw(bandit.SETTINGS["identical groups"], seed=1).taste_GCVV
    np.testing.assert_array_equal(taste[0], taste[1])


def test_a_language_model_learns_the_tastes_through_trl() -> None:
    pytest.importorskip("trl")
    setting = bandit.SETTINGS["other tastes alone"]
    run = {"rate": 0.003, "seed": 0, "steps": 40}
    curves = policy_language.curve(setting, "P-GRPO shrunken", 2, "true", **run)
    assert curves.shape == (4, 2)
    assert abs(curves[0].mean()) < 0.2, "it begins near uniform choice"
    assert curves[-1, 0] > curves[0, 0] + 0.15
    again = policy_language.curve(setting, "P-GRPO shrunken", 2, "true", **run)
    np.testing.assert_array_equal(again, curves)


def test_rewards_have_the_settings_scale_mean_and_drift() -> None:
    setting = bandit.Setting(scales=(1.0, 0.1), means=(0.0, -3.0), drift=5.0)
    reward = policy_language._Reward(Tastes.draw(setting, 0), seed=0, steps=10)
    groups, first = 2, policy_language._first_word(2)
    told = np.repeat([0, 1], 2000) * len(policy_language.PROMPTS_PA)
    ids = (first + np.random.default_rng(0).integers(0, policy_language.WORDS, (4000, 4))).tolist()
    for step, shift in ((0, 0.0), (5, 5.0)):
        state = SimpleNamespace(global_step=step)
        found = np.array(reward(completion_ids=ids, row=list(range(4000)), told=told.tolist(), trainer_state=state))
        of_a, of_b = found.reshape(groups, -1)
        assert of_b.mean() == pytest.approx(-3.0 + shift, abs=0.1)
        assert of_b.std() == pytest.approx(0.1 * of_a.std(), rel=0.2)
