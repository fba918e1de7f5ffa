"""``polypref simulate``: what it writes can be read back, and nothing is overwritten by accident."""

from __future__ import annotations

import json
import os

import polars as pl
import pytest

from polypref.cli import main
from polypref.data.read import read
from polypref.worlds import simulate

SMALL = ("--users", "8", "--judgements", "10", "--seed", "3")
COLUMNS = ["user_id", "pair_id", "prompt", "chosen", "rejected", "chosen_pos", "attributes"]
READERS = {"jsonl": pl.read_ndjson, "csv": pl.read_csv, "parquet": pl.read_parquet}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", READERS)
def test_a_world_comes_back_as_it_was(ending, tmp_path, capsys):
    path = tmp_path / "new" / f"world.{ending}"
    assert main(["simulate", "two-tastes", "--out", str(path), *SMALL]) == 0
    out = capsys.readouterr().out
    assert "two-tastes: 80 judgements of 8 users on 7 pairs, seed 3" in out
    assert "majority 6, minority 2" in out
    assert names(path.parent) == [path.name]  # nothing half-written is left

    table = READERS[ending](path)
    assert table.columns == COLUMNS
    assert set(table["chosen_pos"]) == {0, 1}
    assert {json.loads(a)["group"] for a in table["attributes"]} == {"majority", "minority"}

    world = simulate("two-tastes", users=8, judgements=10, seed=3)
    reading = read([str(path)])
    found = reading.comparisons
    assert found.content_hash == world.comparisons.content_hash
    assert found.users.attributes is not None
    groups = dict(zip(found.users.ids, found.users.attributes["group"], strict=True))
    assert groups == dict(zip(world.comparisons.users.ids, world.people.group_U, strict=True))
    assert (reading.shown_first_N == 1 - world.chosen_pos_N).all()


def test_equal_commands_write_equal_files(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        assert main(["simulate", "tldr-like", "--out", str(tmp_path / name), "--judgements", "12"]) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert main(["simulate", "tldr-like", "--out", str(tmp_path / "c.jsonl"), "--judgements", "12", "--seed", "1"]) == 0
    assert (tmp_path / "a.jsonl").read_bytes() != (tmp_path / "c.jsonl").read_bytes()


def test_a_file_is_replaced_only_by_force(tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_text("precious")
    arguments = ["simulate", "two-tastes", "--out", str(path), *SMALL]
    assert main(arguments) == 2
    assert "mine.csv exists. Choose another --out, or replace it with --force." in capsys.readouterr().err
    assert path.read_text() == "precious"
    assert main([*arguments, "--force"]) == 0
    assert path.read_text().startswith("user_id,")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["two-taste", "--out", "x.jsonl"], "unknown world 'two-taste'. Did you mean 'two-tastes'?"),
        (["two-tastes", "--out", "x.txt"], "ends in '.txt'; expected one of .jsonl, .csv, .parquet"),
        (["two-tastes", "--out", "x.jsonl", "--users", "0"], "--users 0: expected a whole number from 1"),
        (["two-tastes", "--out", "x.jsonl", "--judgements", "1"], "judgements is 1; expected at least 6"),
        (["two-tastes", "--out", "folder.csv"], "folder.csv is a folder; name a file in it"),
        (["two-tastes", "--out", "file/x.csv"], "cannot write file/x.csv"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["simulate", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("polypref: error: ") and error.count("\n") == 1
    assert names(tmp_path) == ["file", "folder.csv"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, capsys):
    path = tmp_path / "world.jsonl"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(["simulate", "two-tastes", "--out", str(path), "--force", *SMALL]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert path.read_text() == "old"
    assert names(tmp_path) == ["world.jsonl"]
