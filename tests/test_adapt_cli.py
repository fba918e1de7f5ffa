"""`polypref adapt`: the grid of new people from the command line, and a saved scorer that learns somebody."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from polypref import features
from polypref.cli import main
from polypref.scorers import load, metadata
from test_fit_score import Words, preferences, write_rows


@pytest.fixture(autouse=True)
def words_encoder(monkeypatch):
    monkeypatch.setattr(features, "encoder", lambda name, **_: Words(name))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A folder with prefs.jsonl, new.jsonl (two people more) and scorers; never changed by a test."""
    folder = tmp_path_factory.mktemp("adapt")
    prefs = write_rows(folder / "prefs.jsonl", preferences())
    rows = [
        row | {"user_id": {"u0": "ann", "u8": "bob"}[row["user_id"]]}
        for row in preferences(1)
        if row["user_id"] in ("u0", "u8")
    ]
    write_rows(folder / "new.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "encoder", lambda name, **_: Words(name))
        for learner in ("hierarchical", "individual"):
            arguments = ["fit", prefs, "--learner", learner, "--encoder", "words", "--out", str(folder / learner)]
            assert main(arguments) == 0
    return folder


def error(arguments: list[str], capsys) -> str:
    """The one line of an error that a user can mend."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_the_grid(fitted, tmp_path, capsys):
    arguments = ["adapt", str(fitted / "prefs.jsonl"), "--learners", "further-fine-tuning", "--sizes", "0", "3", "10"]
    arguments += ["--seeds", "1", "--workers", "1", "--quiet", "--out", str(tmp_path), "--encoder", "words"]
    assert main(arguments) == 0
    printed, said = capsys.readouterr()
    assert said == ""
    assert re.search(r"^comparisons of the new person +0 +3 +10$", printed, re.M)
    assert "Gain over `pooled" in printed and max(map(len, printed[printed.index("Accuracy on") :].splitlines())) < 120
    assert "further-fine-tuning" in printed
    assert "10 comparisons: " in printed
    content = json.loads((tmp_path / "new_users.json").read_text())
    assert [row["size"] for row in content["sizes"]] == [0, 3, 10]
    assert content["data"]["files"] == [arguments[1]]
    assert content["reproduce"]["command"].startswith(f"polypref adapt {arguments[1]} --quiet --workers 1")
    assert isinstance(content["findings"], list)
    assert main(arguments) == 0
    assert json.loads((tmp_path / "new_users.json").read_text())["timing"]["cells_run"] == 0


def test_a_saved_scorer_learns_one_new_person(fitted, tmp_path, capsys):
    out = tmp_path / "taught"
    new = str(fitted / "new.jsonl")
    assert main(["adapt", new, "--scorer", str(fitted / "hierarchical"), "--user", "bob", "--out", str(out)]) == 0
    assert "learned 1 person from 40 comparisons" in capsys.readouterr().out
    before, after = load(fitted / "hierarchical", Words("words")), load(out, Words("words"))
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"user_id": u, "prompt": "How do I boil an egg?", "response": f"{w} boil it"}
        for u in ("bob", "ann", "u0")
        for w in ("please", "now")
    ]
    write_rows(questions, rows)
    assert main(["score", str(out), str(questions), "--out", str(tmp_path / "scores.jsonl")]) == 0
    scored = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [row["source"] for row in scored] == ["personal"] * 2 + ["population"] * 2 + ["personal"] * 2
    assert scored[1]["score"] > scored[0]["score"]  # bob likes "now"
    assert metadata(out).adapted == {"bob": 40}
    assert before.kind == after.kind
    assert np.isfinite([row["score"] for row in scored]).all()


def test_everybody_in_the_file_and_then_once_more(fitted, tmp_path, capsys):
    new, out = str(fitted / "new.jsonl"), tmp_path / "taught"
    assert main(["adapt", new, "--scorer", str(fitted / "hierarchical"), "--out", str(out)]) == 0
    assert "learned 2 people from 80 comparisons" in capsys.readouterr().out
    assert main(["adapt", new, "--scorer", str(out), "--user", "ann", "--out", str(out)]) == 0
    assert metadata(out).adapted == {"ann": 80, "bob": 40}, "added to what it knew"


def test_what_a_user_can_mend_is_one_line(fitted, tmp_path, capsys):
    new, out = str(fitted / "new.jsonl"), ["--out", str(tmp_path / "out")]
    scorer = ["--scorer", str(fitted / "hierarchical")]
    assert "user 'eve' has no usable comparison" in error(["adapt", new, *scorer, "--user", "eve", *out], capsys)
    assert "found: 'ann', 'bob'" in error(["adapt", new, *scorer, "--user", "eve", *out], capsys)
    cannot = error(["adapt", new, "--scorer", str(fitted / "individual"), *out], capsys)
    assert "holds a scorer of kind 'linear', which cannot learn new users" in cannot
    assert "--user ann needs --scorer DIR" in error(["adapt", new, "--user", "ann", *out], capsys)
    assert "no folder of a saved scorer" in error(["adapt", new, "--scorer", str(tmp_path / "none"), *out], capsys)
    assert "adapt needs at least one preference file" in error(["adapt", *out], capsys)
    assert "unknown learner 'hierarchial'" in error(["adapt", new, "--learners", "hierarchial", *out], capsys)
    assert "--sizes -3: expected a whole number from 0" in error(["adapt", new, "--sizes=-3", *out], capsys)
    assert "users cannot be divided into" in error(["adapt", new, *out], capsys)
    assert not (tmp_path / "out").exists()
