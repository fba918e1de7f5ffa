"""``polypref forget``: who is forgotten is a stranger, nobody else's scores change, and what remains is told."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from contract_cases import QUICK, Words, fitted, fresh, small
from kills import kills
from polypref import artifact, features
from polypref.cli import main
from polypref.cli.forget import replace_saved
from polypref.comparisons import Users
from polypref.files import held_for_run
from polypref.forgetting import bits_apart, forget, residue, traces
from polypref.scorers import SCORERS, load, save

IDS = small().users.ids.to_list()


@pytest.fixture(autouse=True)
def words_encoder(monkeypatch):
    monkeypatch.setattr(features, "encoder", lambda name, **_: Words())


@pytest.fixture
def saved(tmp_path) -> Path:
    save(fitted("hierarchical"), tmp_path / "scorer")
    return tmp_path / "scorer"


def told(capsys) -> tuple[list[str], list[str]]:
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def test_in_place_they_are_strangers_and_in_no_file(saved, capsys):
    before, gone, others = load(saved), IDS[:2], IDS[2:]
    assert residue(saved, gone[0]) and bits_apart(before, before, fresh(), gone, ["nobody"]) > 1e-3
    assert main(["forget", str(saved), *gone, gone[0]]) == 0
    after = load(saved)
    assert bits_apart(after, after, fresh(), gone, ["nobody"]) == 0.0
    assert bits_apart(after, before, fresh(), others, others) == 0.0
    assert [residue(saved, one) for one in gone] == [[], []]
    assert len(list(saved.iterdir())) == 2
    out, err = told(capsys)
    assert out[0] == f"2 of {len(IDS)} users are forgotten; nobody else's scores change"
    assert "  manifest.json: 1 place that named them" in out
    assert f"weights_UK {len(IDS)} to {len(IDS) - 2}" in out[2]
    assert out[-2:] == [f"saved to {saved}", f"no file in {saved} names them"] and not err


def test_a_short_id_is_named_only_where_it_stands_for_a_person(tmp_path, capsys):
    """Ids of digits are also versions, shapes, offsets and parts of hashes; none of these names anybody."""
    numbered = replace(small(), users=Users(pl.Series([str(n) for n in range(len(IDS))], dtype=pl.String)))
    scorer, data = tmp_path / "scorer", tmp_path / "data"
    save(QUICK["hierarchical"].fit(numbered, encoder=Words(), seed=0), scorer)
    assert main(["forget", str(scorer), *(gone := ["1", "0", "2"])]) == 0
    out, err = told(capsys)
    assert "  manifest.json: 1 place that named them" in out and not err
    assert f"no file in {scorer} names them" in out and not any(line.startswith("still") for line in out)
    assert {one.sure for found in traces(scorer, gone).values() for one in found} == {False}
    assert {one.sure for found in traces(scorer, ["3"]).values() for one in found} == {False, True}

    data.mkdir()
    (data / "mine.jsonl").write_text('{"user_id": 1, "label": 0, "text": "2 eggs"}\n')
    pl.DataFrame({"worker": ["2"], "n": [7]}).write_parquet(data / "mine.parquet")
    assert main(["forget", str(scorer), "3", "--search", str(data)]) == 0
    assert f"no file in {scorer}, {data} names them" in told(capsys)[0]
    for user_id, places in {
        "0": {("line 1.label", False)},
        "1": {("line 1.user_id", True)},
        "2": {("line 1.text", False), ("column worker", True)},
        "7": {("column n", False)},
    }.items():
        assert {tuple(one) for found in traces(data, [user_id]).values() for one in found} == places


def test_to_another_folder_the_old_scorer_and_files_that_remain_are_told(saved, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "prefs.jsonl").write_text("".join(json.dumps({"user_id": one, "n": 1}) + "\n" for one in (*IDS, IDS[0])))
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    arguments = ["forget", str(saved), IDS[0], "--out", str(out), "--search", str(data), str(tmp_path)]
    assert main(arguments) == 0
    assert before == {path.name: path.read_bytes() for path in saved.iterdir()}
    assert residue(out, IDS[0]) == []
    lines, _ = told(capsys)
    assert [line for line in lines if line.startswith("still named")] == [
        f"still named in {saved / 'manifest.json'}: 1 place, the first at .config.state.users[]",
        f"still named in {data / 'prefs.jsonl'}: 2 places, the first at line 1.user_id",
    ]
    shutil.rmtree(saved)
    (data / "prefs.jsonl").unlink()
    assert main(["forget", str(out), IDS[1], "--search", str(tmp_path)]) == 0
    assert not any(line.startswith("still named") for line in told(capsys)[0])


@pytest.mark.parametrize("gone", [["nobody here"], [IDS[0], "nobody here"], [IDS[0].upper() + " "]])
def test_one_unknown_id_and_nothing_is_written(saved, gone, capsys):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert main(["forget", str(saved), *gone]) == 2
    _, (line,) = told(capsys)
    assert f"does not know {gone[-1]!r}; nothing was written. It knows {len(IDS)} users: {IDS[0]!r}, " in line
    assert before == {path.name: path.read_bytes() for path in saved.iterdir()}


@pytest.mark.parametrize("name", ["pooled", "nearest-neighbours", "length"])
def test_scorers_that_cannot_forget_are_refused_with_what_to_do(name, tmp_path, capsys):
    assert fitted(name).kind in SCORERS
    save(fitted(name), tmp_path / "s")
    assert main(["forget", str(tmp_path / "s"), IDS[0], "--out", str(tmp_path / "new")]) == 2
    _, (line,) = told(capsys)
    alike = fitted(name).serves == "population"
    assert ("answers everybody alike" if alike else "cannot forget single users; fit it again without") in line
    assert "fit" in line and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scorer"], "needs at least one user id: polypref forget SCORER USER_ID ..."),
        (["absent", "a"], "absent is no folder of a saved scorer"),
        (["scorer", ""], "is empty, which names nobody"),
        (["scorer", "a\0b"], "NUL character"),
        (["scorer", IDS[0], "--search", "absent"], "--search absent is not a folder"),
        (["scorer", IDS[0], "--out", "mine"], "mine exists and is not a polypref artifact"),
        (["group", IDS[0]], "expected kind 'scorer'"),
    ],
)
def test_what_cannot_be_is_one_line(saved, words, said, monkeypatch, capsys):
    monkeypatch.chdir(saved.parent)
    Path("mine").mkdir()
    Path("mine", "notes.txt").write_text("mine")
    artifact.save("group", "grouping", {}, {})
    before = sorted(Path().rglob("*"))
    assert main(["forget", *words]) == 2
    _, (line,) = told(capsys)
    assert said in line and sorted(Path().rglob("*")) == before


def test_a_scorer_that_another_run_writes_is_left_alone(saved, capsys):
    with held_for_run(saved), ThreadPoolExecutor(1) as other:  # a thread of its own does not hold the lock
        assert other.submit(main, ["forget", str(saved), IDS[0]]).result() == 2
    _, (line,) = told(capsys)
    assert "another run" in line and residue(saved, IDS[0])


def test_killed_at_any_moment_it_is_the_old_or_the_new_scorer_and_the_next_run_leaves_nothing(saved, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(saved, old)
    before, others, seen = load(old), IDS[1:], set()
    less = forget(before, IDS[0])
    for _ in kills(replace_saved, less, saved):
        now = load(saved)
        forgotten = bits_apart(now, now, fresh(), IDS[:1], ["nobody"]) == 0.0
        seen.add(forgotten)
        assert forgotten or bits_apart(now, before, fresh(), IDS[:1], IDS[:1]) == 0.0
        assert bits_apart(now, before, fresh(), others, others) == 0.0
        assert main(["forget", str(saved), IDS[0], "--quiet"]) == (2 if forgotten else 0)
        assert len(list(saved.iterdir())) == 2 and residue(saved, IDS[0]) == []
        shutil.rmtree(saved)
        shutil.copytree(old, saved)
    assert seen == {False, True}
