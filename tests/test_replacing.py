"""A command that writes one file replaces nothing unasked, not even what appears while it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polypref.cli import main, score

ROWS = [{"user_id": f"u{n % 3}", "prompt": "p", "response": f"{'so ' * n}x"} for n in range(6)]


@pytest.fixture
def scorer(tmp_path: Path) -> list[str]:
    rows = [
        {"user_id": f"u{n % 3}", "prompt": f"p{n}", "chosen": f"a {'so ' * n}", "rejected": f"b {'no ' * (n % 7)}"}
        for n in range(40)
    ]
    (tmp_path / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    fit = ["fit", str(tmp_path / "prefs.jsonl"), "--learner", "length", "--out", str(tmp_path / "s"), "--quiet"]
    assert main(fit) == 0
    return ["score", str(tmp_path / "s"), str(tmp_path / "rows.jsonl"), "--out"]


def commands(scorer: list[str]) -> list[list[str]]:
    world = ["simulate", "two-tastes", "--users", "4", "--judgements", "4", "--out"]
    return [scorer, world, ["convert", "psoups", "nowhere.json", "--out"]]


@pytest.mark.parametrize("kind", ["file", "empty", "link", "dangling link", "folder", "link to a folder"])
def test_what_is_there_is_not_replaced(
    tmp_path: Path, scorer: list[str], kind: str, capsys: pytest.CaptureFixture
) -> None:
    out, other = tmp_path / "out.jsonl", tmp_path / "other"
    if "folder" in kind:
        other.mkdir()
    elif kind != "dangling link":
        other.write_text("" if kind == "empty" else "MINE")
    out.symlink_to(other) if "link" in kind else other.rename(out)
    for command in commands(scorer):
        assert main([*command, str(out)]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and ("exists. Choose another --out" in told or "is a folder" in told)
        assert out.is_symlink() == ("link" in kind)
        assert other.exists() == ("link" in kind and kind != "dangling link")


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_appears_meanwhile_is_not_replaced(
    tmp_path: Path, scorer: list[str], kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.jsonl"

    def appears() -> None:
        out.symlink_to(tmp_path / "nowhere") if kind == "dangling link" else out.write_text("MINE")

    rows_of = score.rows_of
    monkeypatch.setattr(score, "rows_of", lambda *given: (appears(), rows_of(*given))[1])
    before = {one.name for one in tmp_path.iterdir()} | {out.name}
    assert main([*scorer, str(out)]) == 2
    assert f"{out} exists" in capsys.readouterr().err
    assert out.is_symlink() or out.read_text() == "MINE"
    assert {one.name for one in tmp_path.iterdir()} == before
    out.unlink()
    assert main([*scorer, str(out), "--force"]) == 0
    assert len(out.read_text().splitlines()) == len(ROWS)


def test_long_names_and_devices(tmp_path: Path, scorer: list[str], capsys: pytest.CaptureFixture) -> None:
    for command in commands(scorer):
        assert main([*command, str(tmp_path / ("x" * 5000 + ".jsonl"))]) == 2
        assert capsys.readouterr().err.endswith("File name too long. Choose a shorter name.\n")
    assert main([*scorer, "/dev/null"]) == 0
