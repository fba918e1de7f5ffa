"""CSV files as spreadsheets and databases write them: ids of nobody, spaces, titles, decimal commas, short times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from polypref import PolyprefError, read
from polypref.cli import main
from polypref.data.read import Reading

ROWS = 12
PAIRS: list[dict[str, Any]] = [
    {"user_id": f"u{k % 3}", "prompt": f"q{k}", "chosen": f"a{k}", "rejected": f"b{k}"} for k in range(ROWS)
]


def saved(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pl.DataFrame(rows).write_csv(folder / "p.csv")
    return folder / "p.csv"


def pairs(reading: Reading) -> list[str]:
    texts = reading.comparisons.responses.texts_R
    chosen_N, rejected_N = reading.comparisons.chosen_N, reading.comparisons.rejected_N
    return [f"{texts[int(one)]}>{texts[int(other)]}" for one, other in zip(chosen_N, rejected_N, strict=True)]


@pytest.mark.parametrize("nobody", ["NA", "NaN", "None", "NULL", "#N/A", "\\N"])
def test_nobody_in_a_csv_is_no_person(tmp_path, nobody):
    rows = [row | {"user_id": nobody if k == 4 else row["user_id"]} for k, row in enumerate(PAIRS)]
    reading = read([saved(tmp_path, rows)])
    assert reading.comparisons.users.ids.to_list() == ["u0", "u1", "u2"]
    assert [(p.name, p.count) for p in reading.problems] == [("missing user_id", 1)]
    assert nobody in read(rows).comparisons.users.ids.to_list()  # a text that has a type is an id


def test_separators_at_the_end_of_rows_alone(tmp_path):
    text = saved(tmp_path, PAIRS).read_text()
    head, *rest = text.splitlines()
    (tmp_path / "p.csv").write_text("\n".join([head, *(f"{line},," for line in rest)]))
    reading = read([tmp_path / "p.csv"])
    assert len(reading.comparisons) == ROWS and not reading.problems


def test_a_space_between_separator_and_quote(tmp_path):
    rows = [f'u{k % 3}, "q, {k}", "a ""{k}""", b{k}' for k in range(ROWS)]
    (tmp_path / "p.csv").write_text("\n".join(["user_id, prompt, chosen, rejected", *rows]))
    reading = read([tmp_path / "p.csv"])
    assert pairs(reading) == [f'a "{k}">b{k}' for k in range(ROWS)] and "q, 3" in set(
        reading.comparisons.responses.prompts
    )
    assert any("space" in rule for rule in reading.rules)


@pytest.mark.parametrize("title", ["# exported 2024\n# by x\n", "Preference export\n\n"])
def test_a_title_above_the_header(tmp_path, title):
    text = saved(tmp_path, PAIRS).read_text()
    (tmp_path / "t.csv").write_text(title + text)
    with pytest.raises(PolyprefError, match=r"line 3 has 4 fields.* tail -n \+3 FILE"):
        read([tmp_path / "t.csv"])
    (tmp_path / "t.csv").write_text("\n".join((title + text).split("\n")[2:]))
    assert len(read([tmp_path / "t.csv"]).comparisons) == ROWS


def test_decimal_commas_of_weights_and_durations(tmp_path):
    written = ["0,5", "1,5", "2", "12,25", ",5", "1,2345", "3,0", "0,125"]
    rows = [row | {"weight": written[k % 8], "seconds": "12,5"} for k, row in enumerate(PAIRS)]
    pl.DataFrame(rows).write_csv(tmp_path / "p.csv", separator=";")
    reading = read([tmp_path / "p.csv"])
    weight_N = reading.comparisons.weight_N
    assert weight_N is not None and weight_N.tolist()[:8] == [0.5, 1.5, 2, 12.25, 0.5, 1.2345, 3, 0.125]
    assert set(reading.seconds_N) == {12.5} and not reading.problems
    rows[0]["weight"] = "1,250"  # thousands, or decimals
    pl.DataFrame(rows).write_csv(tmp_path / "p.csv", separator=";")
    assert [(one.name, one.count) for one in read([tmp_path / "p.csv"]).problems] == [("unreadable weight", 1)]


def test_times_without_seconds_and_ids_that_a_spreadsheet_rounded(tmp_path, capsys):
    ids = ["1.23457E+15", "1.23458E+15", "2.5E+15"]
    rows = [row | {"user_id": ids[k % 3], "timestamp": f"2024-01-02 03:{k:02}"} for k, row in enumerate(PAIRS)]
    path = saved(tmp_path, rows)
    reading = read([path])
    time_N = reading.comparisons.time_N
    assert time_N is not None and time_N[1] - time_N[0] == 60 and not reading.problems
    assert main(["check", str(path)]) == 0
    assert "rounded user ids\t3 of 3 users" in capsys.readouterr().out
