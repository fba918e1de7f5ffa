"""``--made-from``: every command that reads judgements takes it, and it decides or is recorded."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from polypref import features
from polypref.cli import COMMANDS, main
from polypref.cli.settings import command_class
from polypref.cli.shared import ReadsJudgements
from polypref.comparisons import Comparisons
from polypref.scorers import metadata
from test_fit_score import Words, write_rows

SAID = ("ratings", "pairs")


@pytest.fixture(autouse=True)
def words_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "encoder", lambda name, **_: Words(name))


@pytest.fixture(scope="module")
def prefs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve people, each with 40 pairs of the same 120 texts, by a taste of their own and noise."""
    rng, rows = np.random.default_rng(0), []
    for user in range(12):
        taste_T = rng.normal(size=120) + np.arange(120) % 2 * (user % 2)
        for _ in range(40):
            first, second = rng.choice(24, 2, replace=False) + 24 * rng.integers(5)
            better = taste_T[first] + rng.gumbel() > taste_T[second] + rng.gumbel()
            chosen, rejected = (first, second) if better else (second, first)
            texts = {"chosen": f"word{chosen} " * (1 + chosen % 3), "rejected": f"word{rejected} " * (1 + rejected % 3)}
            rows.append(
                {"user_id": f"u{user}", "prompt": f"p{first // 24}", "attributes": {"g": "ab"[user % 2]}} | texts
            )
    return write_rows(tmp_path_factory.mktemp("made-from") / "prefs.jsonl", rows)


def run(words: list[str], made_from: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints."""
    code = main([*words, "--made-from", made_from])
    printed, said = capsys.readouterr()
    assert code == 0, said
    return printed


def test_every_command_that_reads_judgements_takes_it():
    """All read them by ``reading_of``, which hands it on, so no command may have the files and not the flag."""
    reads = {name for name in COMMANDS if issubclass(command_class(name), ReadsJudgements)}
    assert reads == {
        *("check", "profile", "compare", "adapt", "fit", "tax", "groups", "align", "audit", "refit", "leaderboard"),
    }
    for name in COMMANDS:
        own = {field.name for field in fields(command_class(name))}  # type: ignore[arg-type]
        assert ("made_from" in own) == (name in reads)
        assert not own & {"ties", "prefs", "held_out"} or name in reads


@pytest.mark.parametrize("command", ["check", "profile"])
def test_what_is_printed_says_so(command, prefs, capsys):
    found = [json.loads(run([command, prefs, "--json"], said, capsys))["origin"] for said in SAID]
    assert [one["derived"] for one in found] == [True, False]


GRID = ["--seeds", "1", "--workers", "1", "--quiet", "--min-judgements", "2", "--learners", "pooled"]


@pytest.mark.parametrize(
    ("command", "more", "file"),
    [("compare", ["--no-placebo"], "results.json"), ("adapt", ["--sizes", "0", "3", "--no-asked"], "new_users.json")],
)
def test_the_split_of_a_grid_goes_by_it(command, more, file, prefs, tmp_path, capsys):
    rules, commands = [], []
    for said in SAID:
        run([command, prefs, *GRID, *more, "--out", str(tmp_path / said)], said, capsys)
        found = json.loads((tmp_path / said / file).read_text())
        rules.append(found["split"]["rule"])
        commands.append(found["reproduce"]["command"])
    assert rules == ["response", "pair"]
    assert [f"--made-from {said}" in one for said, one in zip(SAID, commands, strict=True)] == [True, True]


def test_the_validation_rows_of_a_fit_go_by_it(prefs, tmp_path, capsys):
    for said, rule in zip(SAID, ("response", "pair"), strict=True):
        printed = run(["fit", prefs, "--learner", "pooled", "--out", str(tmp_path / said)], said, capsys)
        found = metadata(tmp_path / said)
        assert found is not None and found.split == rule
        assert f"split by {rule}: " in printed


def test_groups_count_judgements_by_it(prefs, tmp_path, capsys):
    found = [run(["groups", prefs, "--groups", "2", "--out", str(tmp_path / said)], said, capsys) for said in SAID]
    assert "origin: pairs were made from ratings\n" in found[0]
    assert "origin: pairs were judged one by one, as you said" in found[1]
    gains = [text.partition("gain over one")[2].partition("saved to")[0] for text in found]
    assert all(gains) and gains[0] != gains[1]


def test_the_tax_says_it_and_its_fits_go_by_it(prefs, tmp_path, capsys):
    suite = [
        {"prompt": f"p{n}", "chosen": f"word{n}", "rejected": f"word{n + 1} " * 2, "subset": "s", "section": "t"}
        for n in range(8)
    ]
    words = ["tax", write_rows(tmp_path / "suite.jsonl", suite), "--prefs", prefs, "--learner", "individual"]
    words += ["--users", "3", "--draws", "200", "--quiet"]
    notes = []
    for said in SAID:
        run([*words, "--out", str(tmp_path / said)], said, capsys)
        found = json.loads((tmp_path / said / "tax.json").read_text())
        assert found["inputs"]["made_from"] == said
        notes.append(next(note for note in found["notes"] if "split by" in note))
    assert "split by response" in notes[0] and "split by pair" in notes[1]


def test_align_records_it(prefs, tmp_path, capsys, monkeypatch):
    """It trains alike whatever the judgements were made from; the report says what was said."""
    import polypref.align
    from polypref.report import alignment

    seen: list[tuple[Comparisons, Any]] = []
    monkeypatch.setattr(polypref.align, "align", lambda data, groups, task, *_: seen.append((data, task)) or {})
    monkeypatch.setattr(alignment, "page", lambda found: "")
    monkeypatch.setattr(alignment, "summary", lambda found: "")
    run(["fit", prefs, "--learner", "pooled", "--out", str(tmp_path / "scorer")], "auto", capsys)
    words = ["align", prefs, "--model", "m", "--scorer", str(tmp_path / "scorer"), "--groups", "g"]
    for said in SAID:
        run([*words, "--out", str(tmp_path / said)], said, capsys)
    assert [task.inputs["made_from"] for _, task in seen] == [*SAID]
    assert [data.lists for data, _ in seen] == [*SAID]
    assert seen[0][0].content_hash != seen[1][0].content_hash, "so the data's hash in align.json differs too"
