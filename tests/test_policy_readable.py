"""The study on a real language model: figures of hand-made runs, the study that is stored, and runs that are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judge_cases import save_judge
from polypref.report.readable import markdown, page, read
from polypref.runs.execute import run_cells
from polypref.studies.policy import readable_figures as figures
from polypref.studies.policy import readable_queue as queued
from polypref.studies.policy.readable import Model, Run
from polypref.studies.policy.readable_study import stored
from polypref.studies.policy.styles import REWARDS, TASKS

TINY = Run("lines", "GRPO", 4, 2, 0.0, "true", 0.01, 6, 0)
LATE = replace(TINY, seed=1, steps=2_000)


class Judge:
    """Likes texts for the first group as many times as they say "metre", and for the second as they say "moon"."""

    accuracy = 1.0

    @classmethod
    def of(cls, styles: tuple[str, str]) -> Judge:
        return cls()

    def values(self, texts: list[str]) -> Any:
        return np.array([text.count("metre") - float(text.count("moon")) for text in texts])


def made(method: str, size: int, prompts: int, gains: tuple[float, float], seed: int) -> dict[str, Any]:
    """A run in which every answer of a group gained the same, and said "metre" or "moon" once more."""
    group, before = [0, 0, 1, 1], [1.0, 3.0, 2.0, 6.0]
    spread = [2**0.5, 8**0.5]
    step = {"reward": [2.0, 4.0], "kl": 0.5, "different": 0.5, "texts": [], "group": []}
    texts = ["metre", "", "moon", ""]
    return {
        "run": {
            "task": "lines",
            "method": method,
            "generations": size,
            "prompts": prompts,
            "group_weight": 0.0,
            "labels": "true",
            "rate": 0.1,
            "steps": 8,
            "seed": seed,
        },
        "group": group,
        "topic": [0, 1, 0, 1],
        "before": texts,
        "after": [f"{text} {word}" for text, word in zip(texts, ["metre", "metre", "moon", "moon"], strict=True)],
        "reward_before": before,
        "reward_after": [value + gains[g] * spread[g] for value, g in zip(before, group, strict=True)],
        "steps": [step] * 8,
        "collapsed": False,
    }


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    monkeypatch.setattr(figures, "StyleJudge", Judge)
    runs = [made("GRPO", 8, 4, (3.0, 1.0 + seed), seed) for seed in range(3)]
    runs += [made("P-GRPO shrunken", 2, 10, (2.0, 2.5 + seed + 0.1 * seed), seed) for seed in range(3)]
    arms, right = figures.arms(runs)
    assert right == {"lines": 1.0}
    return {row["method"]: row for row in figures.rows(arms)}


def test_figures_of_runs_made_by_hand(rows: dict[str, dict[str, Any]]) -> None:
    grpo, shrunken = rows["GRPO"], rows["P-GRPO shrunken"]
    assert grpo["worst"]["value"] == pytest.approx(2.0), "1, 2, 3: the second group's, then either's"
    assert grpo["worst"]["hi"] - grpo["worst"]["value"] == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert grpo["majority"]["value"] == pytest.approx(3.0) and grpo["users"]["value"] == pytest.approx(2.8)
    assert shrunken["worst, over GRPO"]["value"] == pytest.approx(0.0), "2 - 1, 2 - 2, 2 - 3"
    apart = shrunken["minority, over GRPO"]
    assert apart["value"] == pytest.approx(1.6)
    assert apart["hi"] - apart["lo"] == pytest.approx(2 * 4.303 * 0.1 / 3**0.5, rel=1e-3), "seed by seed"
    assert shrunken["completions"] == pytest.approx(0.625) and grpo["completions"] == 1
    assert grpo["minority, judge"]["value"] == pytest.approx(2**0.5), "one more, in spreads of what was said before"
    assert grpo["curve"][0] == [pytest.approx(0.0), pytest.approx(0.0)]


def test_the_stored_study_says_what_its_seeds_say() -> None:
    content = stored()
    for row, again in zip(content["rows"], figures.rows(content["arms"]), strict=True):
        for what in ("worst", "users", "worst, judge", "worst, over GRPO"):
            if what in row:
                known = {key: value for key, value in row[what].items() if value is not None}
                assert known == pytest.approx({key: again[what][key] for key in known}, abs=1e-3), (row["method"], what)
    for row in content["rows"]:
        if row["generations"] == 2:
            assert row["completions"] <= 0.7
    text = markdown(content)
    assert text.count("\n## ") == len(content["tasks"]) == 5
    html = page(content, None)
    for kept in content["examples"].values():
        assert {one["group"] for one in kept} == {0, 1}
        assert kept[0]["asked"] in html
    assert len(read(content)) == 3 * len(content["examples"]["P-GRPO"])


def test_the_stored_answers_have_the_rewards_that_are_told() -> None:
    """Of the answers that are kept, the mean reward has moved as the study says that it did on this seed."""
    content = stored()
    for arm in ("GRPO", "P-GRPO"):
        kept = [one for one in content["examples"][arm] if one["group"] == 0]
        reward = REWARDS[TASKS["lines"].styles[0]]
        assert np.mean([reward(one["after"]) - reward(one["before"]) for one in kept]) > 0


SCRIPT = """
import sys
from functools import cached_property
from pathlib import Path
from polypref.runs.execute import run_cells
from polypref.studies.policy import readable_queue as queued
from polypref.studies.policy.readable import Model, Run

class Job(queued.Job):
    @cached_property
    def model(self):
        return Model.load(self.model_folder, 1)

job = Job(Path(sys.argv[1]), sys.argv[2], "tiny")
runs = [Run(**one) for one in eval(sys.argv[3])]
run_cells(job, runs, 1, lambda cell, error: print(cell, error, flush=True), queued.run)
"""


class Job(queued.Job):
    """Of a tiny model, loaded once."""

    loaded: Model

    @cached_property
    def model(self) -> Model:
        return self.loaded


def told(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    return {name: value for name, value in found.items() if name not in ("sha256", "cpu_seconds")}


def test_a_killed_study_goes_on_where_it_was(tmp_path: Path) -> None:
    """Kill -9 amid the second run: the first is kept as it is, the second leaves nothing, and both are as if alone."""
    folder, out = str(save_judge(tmp_path / "model")), tmp_path / "runs"
    out.mkdir()
    runs = [one.__dict__ for one in (TINY, LATE)]
    command = [sys.executable, "-c", SCRIPT, str(out), folder, repr(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"{TINY} None\n"
    finally:
        process.kill()
        process.communicate()
    kept = [path for path in out.iterdir() if path.suffix == ".json"]
    assert len(kept) == 1
    was = kept[0].read_bytes()

    Job.loaded = Model.load(folder, 1)
    job, short = Job(out, folder, "tiny"), replace(LATE, steps=3)
    assert job.is_stored(TINY) and not job.is_stored(LATE)
    job.path(LATE).write_bytes(was)  # whole, and another run's
    assert not job.is_stored(LATE) and not job.path(LATE).exists()
    assert run_cells(job, [TINY, short], 1, lambda *_: None, queued.run) == 1, "the first is not run again"
    assert kept[0].read_bytes() == was
    alone = Job(tmp_path / "alone", folder, "tiny")
    alone.folder.mkdir()
    run_cells(alone, [TINY, short], 1, lambda *_: None, queued.run)
    for one in (TINY, short):
        assert told(job.path(one)) == told(alone.path(one))


def test_a_run_that_was_changed_is_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(tmp_path, "m", "tiny")
    job.path(TINY).write_text('{"reward_after": [9.0], "sha256": "0"}')
    assert not job.is_stored(TINY)
    assert not job.path(TINY).exists()
    assert "was changed after it was written" in capsys.readouterr().err
