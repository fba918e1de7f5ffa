"""Rows in memory are read as a file of the same rows: lists of dicts, pandas, Polars, Arrow, Hugging Face."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polypref
from polypref.data.given import comparisons_of
from polypref.errors import InputError, PolyprefError, SettingsError

ROWS = [
    {"user_id": f"u{n % 3}", "prompt": f"q{n}?", "chosen": f"yes {n}", "rejected": f"no {n}", "weight": 1 + n % 2}
    for n in range(12)
]
CHAT = [{"role": "user", "content": "Why?"}]


def hashed(data, **options) -> str:
    return polypref.read(data, polypref.ReadOptions(**options)).comparisons.content_hash


def written(rows, folder: Path) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return hashed(path)


def forms(rows):
    """The same rows in every form that is read."""
    pandas, pyarrow, datasets = (pytest.importorskip(name) for name in ("pandas", "pyarrow", "datasets"))
    return {
        "dicts": rows,
        "tuple": tuple(rows),
        "polars": pl.DataFrame(rows),
        "arrow": pyarrow.Table.from_pylist(rows),
        "pandas": pandas.DataFrame(rows),
        "datasets": datasets.Dataset.from_list(rows),
    }


@pytest.mark.parametrize("prompt", ["text", "chat"])
def test_every_form_is_what_a_file_of_it_would_be(prompt, tmp_path):
    rows = [{**row, "prompt": CHAT} if prompt == "chat" else row for row in ROWS]
    expected = written(rows, tmp_path)
    assert {name: hashed(data) for name, data in forms(rows).items()} == dict.fromkeys(forms(rows), expected)


def test_ratings_labels_and_columns_are_read_as_in_files(tmp_path):
    rated = [{"who": n % 2, "prompt": "q", "response": f"r{n % 4}", "rating": 1.5 * n} for n in range(8)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    columns = {"user_id": "who"}
    assert hashed(rated, columns=columns) == hashed(tmp_path / "r.jsonl", columns=columns)
    judged = [{"user_id": "u", "response_a": f"a{n}", "response_b": "b", "label": n % 2} for n in range(9)]
    with pytest.raises(InputError, match="--labels"):
        polypref.read(judged)
    found = polypref.read(judged, polypref.ReadOptions(labels="1=A,0=B")).comparisons
    assert found.responses.texts_R.gather(found.chosen_N[:2]).to_list() == ["b", "a1"]


@pytest.mark.parametrize(
    "values",
    [[0, 1], [1, 2], [0.0, 1.0], [True, False], [-1, 0, 1], [-3, 1, 2, 3], ["A", "B"], [None, "A", "B"], [1, 2, 3, 7]],
    ids=str,
)
@pytest.mark.parametrize("labels", ["", "index", "scale", "0=A,1=B", "scale:1..7"])
def test_labels_mean_the_same_whatever_their_type_and_their_file(values, labels, tmp_path):
    rows = [
        {"user_id": f"u{n % 3}", "prompt": "q", "response_a": f"a{n}", "response_b": f"b{n}", "label": value}
        for n, value in enumerate(values * 6)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    said = set()
    for data in (tmp_path / "rows.jsonl", tmp_path / "rows.parquet", pl.DataFrame(rows), rows):
        try:
            said.add(hashed(data, labels=labels))
        except PolyprefError as error:
            said.add(str(error).replace(str(data), "rows in memory"))
    assert len(said) == 1
    assert "cannot be read (" not in said.pop()


def test_numbers_in_lists_and_in_mixed_columns_are_those_of_a_file(tmp_path):
    ranked = [
        {"user_id": 7.0 if n % 2 else "b", "responses": ["x", "y", f"z{n}"], "ranking": [1, 2, 3]} for n in range(6)
    ]
    kinds = [np.int64(1), Decimal("2"), 3.0]
    typed = [{**row, "responses": tuple(row["responses"]), "ranking": kinds} for row in ranked]
    arrays = [{**row, "ranking": np.array(row["ranking"], float)} for row in ranked]
    assert hashed(typed) == hashed(arrays) == written(ranked, tmp_path)


def test_ids_of_every_type_are_one_person():
    ids = [7, 7.0, "7", Decimal("7.00"), np.int64(7), np.float32(7)]
    rows = [{"user_id": user, "chosen": f"a{n}", "rejected": f"b{n}"} for n, user in enumerate(ids)]
    assert polypref.read(rows).comparisons.users.ids.to_list() == ["7"]


def test_absent_values_are_absent_whatever_says_so():
    pandas = pytest.importorskip("pandas")
    for nothing in (None, float("nan"), np.nan, pandas.NA, pandas.NaT):
        rows = [{**row, "weight": nothing if n == 3 else 2.0} for n, row in enumerate(ROWS)]
        assert comparisons_of(rows).weights_N.tolist().count(1.0) == 1
    late = [*ROWS[:5], *({**row, "tie": True} for row in ROWS[5:])]
    assert comparisons_of(late).tie_N.sum() == 7


def test_times_of_python_numpy_and_pandas_are_times():
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    for value in (when, when.date(), np.datetime64("2026-01-02"), when.isoformat()):
        found = comparisons_of([{**row, "timestamp": value} for row in ROWS])
        assert set(found.time_N) == {when.timestamp()}, value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([{**ROWS[0]}, "x"], "row 2 of 2 is .x.; expected a dict"),
        ([{1: "x"}], "a column is named .1"),
        ([{**ROWS[0], "prompt": {1, 2}}], 'column "prompt" holds .*, a set; expected'),
        ([{**ROWS[0], "weight": 1j}], 'column "weight" holds .*, a complex; expected'),
        ([{"user_id": "u"}], "rows in memory"),
        (3, "the data is 3"),
        ([], "no file given"),
        (ROWS[0], "the data is"),
    ],
)
def test_what_is_no_table_is_one_line(data, said):
    with pytest.raises((InputError, SettingsError), match=said) as found:
        polypref.read(data)
    assert "\n" not in str(found.value)


def test_functions_take_rows_readings_and_paths(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    written(ROWS, tmp_path)
    rows = [*ROWS, {**ROWS[0], "chosen": ""}]
    first, *others = (polypref.profile(data).as_dict() for data in (path, rows, polypref.read(path)))
    assert others == [first, first]
    said = capsys.readouterr().err
    assert said.count("dropped: 1 row") == 1
    with pytest.raises(InputError, match=r"comparisons is .3.; expected Comparisons"):
        polypref.profile(3)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["user_id", "prompt", "chosen", "rejected", "weight", "tie", "timestamp", "other"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(NAMES, VALUES), min_size=1, max_size=6))
def test_any_rows_are_read_or_refused_and_none_leaves_without_a_line(changes):
    rows = [{**ROWS[n], **change} for n, change in enumerate(changes)]
    try:
        reading = polypref.read(rows)
    except PolyprefError as error:
        assert "\n" not in str(error)
        return
    lost = sum(problem.count for problem in reading.problems if not problem.kept)
    assert reading.rows_read == len(rows)
    if any(isinstance(row.get(side), list) for row in rows for side in ("chosen", "rejected")):
        assert len(reading.comparisons) + lost >= len(rows)  # a list of answers is several judgements
    else:
        assert len(reading.comparisons) + lost == len(rows)
