"""A run replaces its own results and nobody else's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polypref.cli import COMMANDS, main
from polypref.cli.settings import command_class
from polypref.cli.shared import WritesFolder
from polypref.errors import SettingsError
from polypref.files import MARK, owned

ARTIFACTS = ("fit", "groups")  # their folders are artifacts, which ``artifact.save`` keeps from other files


@pytest.fixture
def prefs(tmp_path: Path) -> Path:
    rows = []
    for user in range(6):
        for at in range(12):
            texts = sorted([f"{'so ' * ((at + side * 3) % 5 + 1)}{user} {at} {side}" for side in range(2)], key=len)
            texts = texts if user % 2 else texts[::-1]
            rows.append({"user_id": f"u{user}", "prompt": "p", "chosen": texts[0], "rejected": texts[1]})
    path = tmp_path / "prefs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def folders() -> list[str]:
    return [name for name in COMMANDS if issubclass(command_class(name), WritesFolder)]


@pytest.mark.parametrize("name", folders())
def test_every_command_names_what_it_writes(name: str) -> None:
    kind = command_class(name)
    if name in ARTIFACTS:
        assert kind.writes is WritesFolder.writes
        return
    assert kind.writes is not WritesFolder.writes


@pytest.mark.parametrize("name", ["results.json", "report.html", "users.parquet"])
def test_a_file_of_somebody_else_stays(tmp_path: Path, prefs: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text('{"my": "precious"}')
    run = ["compare", str(prefs), "--out", str(folder), "--encoder", "static", "--seeds", "1", "--learners", "pooled"]
    assert main(run) == 2
    assert f"{folder / name} exists and polypref did not write it" in capsys.readouterr().err
    assert [one.name for one in folder.iterdir()] == [name]
    assert (folder / name).read_text() == '{"my": "precious"}'
    (folder / name).rename(folder / "mine.txt")
    assert main(run) == 0  # other files in the folder do no harm
    assert main(run) == 0  # its own results are replaced
    assert (folder / "mine.txt").read_text() == '{"my": "precious"}'
    assert main(["table", str(folder), "--out", str(folder)]) == 0
    assert main(["table", str(folder), "--out", str(folder)]) == 0


def test_a_table_of_somebody_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "tables.md").write_text("mine")
    assert main(["table", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "polypref did not write it" in capsys.readouterr().err
    assert (tmp_path / "tables.md").read_text() == "mine"


def test_scores_never_replace_a_file_unasked(tmp_path: Path, prefs: Path, capsys: pytest.CaptureFixture) -> None:
    fit = ["fit", str(prefs), "--out", str(tmp_path / "s"), "--encoder", "static", "--learner", "pooled"]
    assert main(fit) == 0
    before = prefs.read_bytes()
    score = ["score", str(tmp_path / "s"), str(prefs), "--columns", "response=chosen", "--out"]
    assert main([*score, str(prefs)]) == 2
    assert main([*score, str(tmp_path)]) == 2
    assert "exists" in capsys.readouterr().err
    assert prefs.read_bytes() == before
    assert main([*score, str(tmp_path / "new.jsonl")]) == 0
    assert main([*score, str(tmp_path / "new.jsonl")]) == 2
    assert main([*score, str(tmp_path / "new.jsonl"), "--force"]) == 0
    assert main([*score, "/dev/null"]) == 0


def test_the_mark_goes_with_a_run_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), owned(tmp_path, ["a"]):
        assert (tmp_path / MARK).exists()
        raise KeyError
    assert not list(tmp_path.iterdir())
    with owned(tmp_path, ["a"]):
        (tmp_path / "a").write_text("")
    with owned(tmp_path, ["a"]):
        pass
    (tmp_path / MARK).unlink()
    with pytest.raises(SettingsError, match="did not write it"), owned(tmp_path, ["b", "a"]):
        pass
