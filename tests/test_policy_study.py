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
from polypref.report.policy import markdown
from polypref.report.policy_chart import chart
from polypref.studies.policy import bandit
from polypref.studies.policy import language as policy_language
from polypref.studies.policy.arms import COMPARING, PLANS, WEIGHTS, bandit_arms, language_arms
from polypref.studies.policy.language import Tastes
from polypref.studies.policy.measure import Arm, curves, seeds_of
from polypref.studies.policy.study import Study, study

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
    names = ("setting", "method", "generations", "group_weight")
    assert len({tuple(row[name] for name in names) for row in rows}) == len(bandit_arms(True)) == 8
    by = {(*(row[name] for name in names), row["metric"]): row for row in rows}
    for (setting, *arm, metric), row in by.items():
        assert row["seeds"] == 3
        if metric.endswith("_gain"):
            own, reference = by[setting, *arm, metric[:-5]], by[setting, "GRPO", 8, 0.0, metric[:-5]]
            assert row["value"] == pytest.approx(own["value"] - reference["value"])
            assert (row["lo"] == row["hi"] == 0) == (arm[0] == "GRPO")
            assert row["lo"] <= row["value"] <= row["hi"]
    worst = (by[setting, "GRPO", 8, 0.0, "worst"]["value"] for setting in ("identical groups", "minority scale 0.1"))
    assert next(worst) > next(worst)


def test_each_groups_end_is_told(ran: Path) -> None:
    content = json.loads((ran / "policy.json").read_text())
    final = {
        (row["setting"], row["method"], row["group_weight"], row["metric"]): row["value"] for row in content["rows"]
    }
    for one in content["ends"]:
        key, shares = (
            (one["setting"], one["method"], one["group_weight"]),
            content["settings"]["shares"][one["setting"]],
        )
        assert len(one["ends"]) == len(shares) == 2
        assert np.mean(one["ends"]) == pytest.approx(final[*key, "final_macro"])
        assert np.dot(one["ends"], shares) == pytest.approx(final[*key, "final_users"])
        assert min(one["ends"]) >= final[*key, "final_worst"] - 1e-12


def test_levers_are_differences_to_their_controls(ran: Path) -> None:
    content = json.loads((ran / "policy.json").read_text())
    mean = {
        (row["setting"], row["method"], row["group_weight"], row["metric"]): row["value"]
        for row in content["rows"]
        if not row["metric"].endswith("gain")
    }
    controls = {"history": ("Dr. GRPO", 0.0), "group weight": ("P-GRPO shrunken", 0.0)}
    assert {(row["lever"], row["group_weight"]) for row in content["levers"]} == {
        ("history", 0.0),
        ("group weight", 1.0),
    }
    for row in content["levers"]:
        method, weight = controls[row["lever"]]
        assert row["control"] == f"{method}, 2"
        own = mean[row["setting"], "P-GRPO shrunken", row["group_weight"], row["metric"]]
        assert row["value"] == pytest.approx(own - mean[row["setting"], method, weight, row["metric"]])
    assert "| history, weight 0 | weight 1: P-GRPO shrunken, 2 |" in markdown(content)


def test_rivals_are_compared_at_their_best_and_with_equal_weight(ran: Path) -> None:
    content = json.loads((ran / "policy.json").read_text())
    mean = {
        (row["setting"], row["method"], row["group_weight"], row["metric"]): row["value"]
        for row in content["rows"]
        if not row["metric"].endswith("gain")
    }
    found = {(one["setting"], one["method"], one["group_weight"], one["metric"]) for one in content["rivals"]}
    methods, settings = ("GRPO", "Dr. GRPO"), ("minority scale 0.1", "identical groups")
    assert found == set(product(settings, methods, (0.0,), ("worst", "macro", "users")))
    for one in content["rivals"]:
        mine = mean[one["setting"], "P-GRPO shrunken", one["group_weight"], one["metric"]]
        assert one["value"] == pytest.approx(mine - mean[one["setting"], one["method"], 0.0, one["metric"]])


def test_a_regret_is_what_is_missing_to_the_best(ran: Path) -> None:
    content = json.loads((ran / "policy.json").read_text())
    rows = [row for row in content["rows"] if row["metric"] == "worst"]
    best = {
        setting: max(row["value"] for row in rows if row["setting"] == setting)
        for setting in content["settings"]["shares"]
    }
    told = {
        (row["method"], row["generations"], row["group_weight"]): row
        for row in content["regrets"]
        if row["metric"] == "worst"
    }
    for row in rows:
        one = told[row["method"], row["generations"], row["group_weight"]]
        assert one["settings"][row["setting"]] == pytest.approx(best[row["setting"]] - row["value"])
        assert one["most"] == max(one["settings"].values()) >= 0
    anew = told["P-GRPO shrunken", None, None]["settings"]
    both = [told["P-GRPO shrunken", 2, weight]["settings"] for weight in (0.0, 1.0)]
    assert anew == {setting: min(one[setting] for one in both) for setting in anew}


def test_the_whole_study_has_every_method_at_every_size_and_weight_in_every_setting() -> None:
    chosen = bandit_arms(False)
    assert len(set(chosen)) == len(chosen)
    for setting in bandit.SETTINGS:
        here = {(arm.method, arm.generations, arm.group_weight) for arm in chosen if arm.setting == setting}
        assert here >= set(product(COMPARING, (2, 4, 8), WEIGHTS))
        assert here >= set(product(("REINFORCE++", "P-GRPO paper", "P-GRPO shrunken"), (1, 2, 4, 8), WEIGHTS))
    assert {arm.labels for arm in chosen} == {"true", "shuffled", "random"}
    on_language = language_arms(False)
    assert len(set(on_language)) == len(on_language)
    for setting in {arm.setting for arm in on_language}:
        assert Arm(setting, "GRPO", 8, learner="language model") in on_language
    plan = PLANS["language model"]
    assert plan.most is not None and plan.most >= 8, "eight paired seeds at least"


def test_settings_are_independent_and_rates_are_chosen_on_other_seeds() -> None:
    drawn = [seeds_of(name, 500, tuning) for name in bandit.SETTINGS for tuning in (False, True)]
    assert len(np.unique(np.concatenate(drawn))) == 1000 * len(bandit.SETTINGS)
    assert np.concatenate(drawn).max() < 2**32, "every generator takes them"


def test_a_hundred_groups_get_as_much_each_as_the_smallest_of_five() -> None:
    assert {name: one.length for name, one in bandit.SETTINGS.items() if one.length > 1} == {"100 groups": 5}
    arm = Arm("100 groups", "GRPO", 8)
    assert curves(arm, np.full(2, 0.02), np.arange(2), steps=20).shape == (2, 2, 100), "a look every 50 steps of 100"


def test_when_the_command_is_killed_its_workers_end(tmp_path: Path) -> None:
    """Kill -9 to the parent alone, amid arms of a quarter of a minute: what computes for nobody must not go on."""
    command = [sys.executable, "-m", "polypref", "bench-policy", "--learners", "bandit", "--out", str(tmp_path)]
    parent = psutil.Popen([*command, "--workers", "2"], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 180
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
    assert text.count("| GRPO | 8 | 0 |") == 2
    controlled = [{**row, "groups": "shuffled"} for row in content["rows"] if row["setting"] == "minority scale 0.1"]
    assert markdown({**content, "rows": content["rows"] + controlled}).count("### minority scale 0.1") == 1
    sure = [row for row in content["rows"] if row["metric"] == "macro_gain" and row["lo"] > 0]
    assert sure and all(f"**{100 * row['value']:+.1f} (" in text for row in sure)
    assert np.isfinite([row["value"] for row in content["rows"] if row["value"] is not None]).all()


def test_the_picture_marks_every_interval_where_it_is(ran: Path) -> None:
    content = json.loads((ran / "policy.json").read_text())
    svg = ElementTree.fromstring(chart(content))
    marks = [one for one in svg.iter("{http://www.w3.org/2000/svg}line") if one.get("stroke-width") == "2"]
    assert len(marks) == 6, "three of the five arms in two settings; the others are not in the quick study"
    assert all(float(one.get("x1", 0)) < float(one.get("x2", 0)) for one in marks)


@pytest.mark.parametrize("flags", [["--seeds", "1"], ["--workers", "-1"]])
def test_settings_that_cannot_work(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-policy", "--quick", "--out", str(tmp_path), *flags]) == 2
    assert f"{flags[0]} {flags[1]}" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_an_arm_that_fails_leaves_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(Study, "arms", [*bandit_arms(True)[:1], Arm("5 groups", "no such method", 8)])
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
    assert capsys.readouterr().err.count("a finished arm is measured again") == 1
    (tmp_path / "plain").touch()
    with pytest.raises(CacheError, match=r"cannot write .*plain: Not a directory"):
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
    arm = Arm("other tastes alone", "P-GRPO shrunken", 2, learner="language model")
    found = policy_language.curve(arm, rate=0.003, seed=0, steps=40)
    assert found.shape == (4, 2)
    assert abs(found[0].mean()) < 0.2, "it begins near uniform choice"
    assert found[-1, 0] > found[0, 0] + 0.15
    np.testing.assert_array_equal(policy_language.curve(arm, rate=0.003, seed=0, steps=40), found)


@pytest.mark.parametrize(
    ("method", "weight", "kind", "told"),
    [
        ("GRPO", 0.0, "GRPOTrainer", {}),
        ("GRPO", 0.5, "PGRPOTrainer", {"group_weight": 0.5, "advantage_baseline": "grpo"}),
        ("P-GRPO shrunken", 0.0, "PGRPOTrainer", {"group_weight": 0.0, "advantage_baseline": "shrunken"}),
        ("P-GRPO shrunken", 1.0, "PGRPOTrainer", {"group_weight": 1.0, "advantage_baseline": "shrunken"}),
    ],
)
def test_arms_of_the_language_model_are_trainers(method: str, weight: float, kind: str, told, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    arm = Arm("other tastes alone", method, 2, weight, learner="language model")
    tastes = Tastes.draw(bandit.SETTINGS[arm.setting], 0)
    data = policy_language._prompts(tastes.setting, "true", 0, 128)
    run = {"learning_rate": 0.001, "seed": 0, "max_steps": 1, "output_dir": str(tmp_path)}
    trainer = policy_language._trainer(arm, policy_language._Reward(tastes, 0, 1), data, run)
    assert type(trainer).__name__ == kind
    assert {name: getattr(trainer.args, name) for name in told} == told


def test_rewards_have_the_settings_scale_mean_and_drift() -> None:
    setting = bandit.Setting(scales=(1.0, 0.1), means=(0.0, -3.0), drift=5.0)
    reward = policy_language._Reward(Tastes.draw(setting, 0), seed=0, steps=10)
    groups, first = 2, policy_language._first_word(2)
    truth = np.repeat([0, 1], 2000) * len(policy_language.PROMPTS_PA)
    ids = (first + np.random.default_rng(0).integers(0, policy_language.WORDS, (4000, 4))).tolist()
    for step, shift in ((0, 0.0), (5, 5.0)):
        state = SimpleNamespace(global_step=step)
        found = np.array(reward(completion_ids=ids, row=list(range(4000)), truth=truth.tolist(), trainer_state=state))
        of_a, of_b = found.reshape(groups, -1)
        assert of_b.mean() == pytest.approx(-3.0 + shift, abs=0.1)
        assert of_b.std() == pytest.approx(0.1 * of_a.std(), rel=0.2)
