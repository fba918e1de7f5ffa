"""``polypref reproduce paper``: all three sets in miniature, the estimate, interruption, what is said without them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from paper_files import personalllm_file, psoups_mirror, rewardbench, tldr_files
from polypref import features
from polypref.cli import main
from polypref.cli.tax import Tax
from polypref.data.files import hub
from polypref.errors import InputError
from polypref.report.paper import published
from polypref.studies.paper import SETS, cut
from toy_learners import LengthEncoder

QUICK = ("--scale", "0.01", "--seeds", "1", "--learners", "pooled", "individual", "--routes", "individual")
QUICK += ("--workers", "1")


@pytest.fixture
def quick(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features, "encoder", lambda name, **_: LengthEncoder())


def files_of(folder: Path) -> list[str]:
    return [
        *("--psoups", psoups_mirror(folder), "--tldr", *tldr_files(folder)),
        *("--personalllm", personalllm_file(folder), "--suite", rewardbench(folder)),
    ]


def test_the_whole_protocol_in_miniature(quick, tmp_path, capsys):
    words = ["reproduce", "paper", *files_of(tmp_path), *QUICK, "--out", "out"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for name in SETS:
        assert f"{name}: " in said and "of one core to fit" in said
    page = Path("out/tables/tables.md").read_text()
    for part in ("Accuracy by number of training comparisons", "New users", "Room and gain", "shuffled users"):
        assert part in page
    assert "Published: Dong et al." in page
    assert "psoups: own sections after tuning" in page
    content = json.loads(Path("out/psoups/results.json").read_text())
    accuracy = {row["learner"]: row["value"] for row in content["rows"] if row["metric"] == "accuracy_micro"}
    assert accuracy["individual"] == 1.0 and accuracy["pooled"] == 0.5  # opposed tastes on the same pairs
    assert content["split"]["rule"] == "prompt" and content["placebo"]
    assert Path("out/personalllm/new_users.json").exists() and not Path("out/psoups/new_users.json").exists()


def test_an_interrupted_run_goes_on_where_it_stopped(quick, tmp_path, monkeypatch, capsys):
    words = ["reproduce", "paper", "--psoups", psoups_mirror(tmp_path), "--suite", rewardbench(tmp_path), *QUICK]
    run = Tax.run

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Tax, "run", stop)
    assert main([*words, "--out", "out"]) == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    cells = {path: path.stat().st_mtime_ns for path in Path("out/psoups/cells").rglob("*") if path.is_file()}
    assert cells
    monkeypatch.setattr(Tax, "run", run)
    assert main([*words, "--out", "out"]) == 0
    assert {path: path.stat().st_mtime_ns for path in cells} == cells
    said = capsys.readouterr().out
    assert "left out: tldr, personalllm (no file is given)" in said
    assert main([*words, "--seeds", "2", "--out", "out"]) == 2
    assert "holds a finished reproduce of other settings: --seeds was 1, now 2" in capsys.readouterr().err


def test_the_estimate_measures_nothing_more(quick, tmp_path, capsys):
    words = ["--tldr", *tldr_files(tmp_path), *QUICK, "--estimate", "--out", "out"]
    assert main(["reproduce", "paper", *words]) == 0
    said = capsys.readouterr().out
    assert "tldr: 220 judgements of 5 people" in said and "left out: the tax (no --suite)" in said
    assert "cells; about 0:0" in said
    assert [path.name for path in Path("out").iterdir() if not path.name.startswith(".")] == ["data"]
    words[words.index("0.01")] = "0.02"  # and is no result, which other settings would have to replace
    assert main(["reproduce", "paper", *words]) == 0


def test_without_a_hub_one_line_says_which_files_can_be_given(quick, monkeypatch, capsys):
    def unreachable():
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub, "hub", unreachable)
    assert main(["reproduce", "paper", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in ("psoups, tldr, personalllm", "cannot reach hf://", "--psoups FILE ... --tldr FILE", "--suite FILE"):
        assert part in error


def test_a_file_of_another_set_is_one_line(quick, tmp_path, capsys):
    assert main(["reproduce", "paper", "--tldr", psoups_mirror(tmp_path), "--out", "out"]) == 2
    assert 'column "info" of TL;DR is missing' in capsys.readouterr().err
    suite = tmp_path / "bad.jsonl"
    suite.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b", "subset": "chat-esay"}) + "\n")
    words = ["--psoups", psoups_mirror(tmp_path), "--suite", str(suite), "--out", "out"]
    assert main(["reproduce", "paper", *words]) == 2
    assert "has no subset 'chat-esay'" in capsys.readouterr().err


def test_a_cut_holds_whole_prompts_and_enough_rows():
    rng = np.random.default_rng(0)
    prompts = [f"p{n}" for n in np.repeat(np.arange(3000), rng.integers(1, 9, 3000))]
    table = pl.DataFrame({"prompt": prompts, "row": range(len(prompts))})
    rows, sizes = cut(table, (100, 1000, 4000))
    assert sizes == (100, 1000, 4000) and 5000 < rows.height < 7000
    assert rows["row"].is_sorted()
    counts = dict(table["prompt"].value_counts().iter_rows())
    assert all(counts[prompt] == count for prompt, count in rows["prompt"].value_counts().iter_rows())
    smaller, _ = cut(table, (100, 1000))
    assert set(smaller["row"]) < set(rows["row"])
    whole, possible = cut(table, (100, 1_000_000))
    assert whole.height == table.height and possible == (100,)


def test_the_sets_are_those_of_the_published_tables():
    sizes = published()["accuracy"]["sizes"]
    assert SETS.keys() == sizes.keys() == published()["sets"].keys()


def test_a_broken_tax_beside_the_results_is_one_line(quick, tmp_path, capsys):
    words = ["reproduce", "paper", "--psoups", psoups_mirror(tmp_path), *QUICK, "--out", "out"]
    assert main(words) == 0
    broken = Path("out/psoups/tax/individual/tax.json")
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    capsys.readouterr()
    assert main(["table", "out/psoups", "--out", "t"]) == 2
    assert "tax.json cannot be read as JSON" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no scores"):
        from polypref.evaluation.collect_results import collect

        broken.write_text("{}")
        collect(["out/psoups"])
