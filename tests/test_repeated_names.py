"""Names, settings and judgements that occur twice are refused or reported, not silently lost."""

from __future__ import annotations

import csv
import itertools

import polars as pl
import pytest

import polypref
from polypref.cli import main
from polypref.data.linting.lint import lint
from polypref.data.read import read
from polypref.data.rows.layouts import parse_columns
from polypref.data.rows.roles import ALIASES
from polypref.errors import InputError, SettingsError

NAMES = ("user_id", "prompt", "chosen", "rejected", "note")


@pytest.mark.parametrize(("twice", "at"), list(itertools.product(NAMES, range(len(NAMES) + 1))))
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_two_columns_of_one_name_are_refused(twice, at, separator, tmp_path):
    header = [*NAMES[:at], twice, *NAMES[at:]]
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, [f"x{i}" for i in range(len(header))]])
    with pytest.raises(
        InputError, match=f'p.csv: two columns are named "{twice}"; give each a name of its own'
    ) as caught:
        read(tmp_path / "p.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("unnamed", [1, 2])
def test_unnamed_columns_are_listed(unnamed, tmp_path, capsys):
    (tmp_path / "p.csv").write_text(
        "user_id,prompt,chosen,rejected" + "," * unnamed + "\nu,p,a,b" + ",z" * unnamed + "\n"
    )
    assert main(["check", str(tmp_path / "p.csv")]) == 0
    assert "not used: (unnamed)" in capsys.readouterr().out


@pytest.mark.parametrize("role", ALIASES)
def test_a_role_has_one_column(role):
    assert parse_columns([f"{role}=a"]) == {role: "a"}
    for second in ("a", "b", ""):
        with pytest.raises(SettingsError, match=f"--columns {role}=a {role}={second}: expected one column for {role}"):
            parse_columns([f"{role}=a", f"{role}={second}"])


WORLD = polypref.simulate("tldr-like", users=4, judgements=12).table().drop("pair_id", "chosen_pos")


@pytest.mark.parametrize("copies", [1, 2, 3])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("left_out", [0, 1])
def test_a_file_that_holds_everything_twice(copies, shuffled, left_out, tmp_path):
    once = WORLD.unique(["user_id", "prompt", "chosen", "rejected"], maintain_order=True)
    table = pl.concat([once] * copies)
    table = table.head(table.height - left_out)
    if shuffled:
        table = table.sample(fraction=1, shuffle=True, seed=0)
    table.write_ndjson(tmp_path / "p.jsonl")
    found = {finding.name: finding for finding in lint(read(tmp_path / "p.jsonl")).findings}
    doubled = copies - left_out >= 2
    assert ("all judgements repeated" in found) == doubled
    if doubled:
        told = found["all judgements repeated"]
        assert (told.count, told.total, told.action) == (table.height, table.height, "counted")
        assert ("twice" if copies - left_out == 2 else "3 times") in told.text
    reading = read(tmp_path / "p.jsonl")
    assert len(polypref.clean(reading, lint(reading))) == table.height


def test_copies_under_pair_ids_are_dropped_instead(tmp_path):
    world = polypref.simulate("tldr-like", users=4, judgements=12).table()
    pl.concat([world, world]).write_ndjson(tmp_path / "p.jsonl")
    names = [finding.name for finding in lint(read(tmp_path / "p.jsonl")).findings]
    assert "duplicate judgement" in names
    assert "all judgements repeated" not in names
