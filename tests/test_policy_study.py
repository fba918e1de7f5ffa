"""The study of advantages on bandits: what is stored, what is compared, what is printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from polypref.cli import main
from polypref.errors import ArtifactError, CacheError
from polypref.evaluation.policy_study import Arm, arms, study
from polypref.report.policy import chart, markdown


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("policy")
    study(out, quick=True, seeds=3, workers=2, tell=lambda *_: None)
    return out


def test_what_is_stored_is_found_again_and_gives_the_same(ran: Path) -> None:
    before = json.loads((ran / "policy.json").read_text())
    told: list[Arm] = []
    first = sorted((ran / "arms").iterdir())[0]
    first.unlink()
    again = study(ran, quick=True, seeds=3, workers=1, tell=lambda done, total, arm: told.append(arm))
    assert len(told) == 1
    assert first.exists()
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


def test_a_damaged_arm_and_a_file_for_a_folder_are_one_line(ran: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    damaged = sorted((copy / "arms").iterdir())[0]
    damaged.write_text("{")
    with pytest.raises(ArtifactError, match=rf"{damaged.name} cannot be read .* remove it and run again"):
        study(copy, quick=True, seeds=3, workers=1, tell=lambda *_: None)
    (tmp_path / "plain").touch()
    with pytest.raises(CacheError, match=r"cannot write .*plain/arms: Not a directory"):
        study(tmp_path / "plain", quick=True, seeds=3, workers=1, tell=lambda *_: None)
