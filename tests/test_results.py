"""One table of results: one row, none, or an error; and the keys of results.json, written and read in one place."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from math import nan
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.errors import InputError, SettingsError
from polypref.evaluation.results_schema import CompareContents, Contents
from polypref.evaluation.results_table import PLACEBO, ResultRow, ResultTable
from polypref.newcomers.tables import NewContents

ROWS = [
    {"learner": "pooled", "size": 10, "cohort": "all", "metric": "accuracy_micro", "value": 0.5},
    {"learner": "pooled", "size": 30, "cohort": "all", "metric": "accuracy_micro", "value": 0.6},
    {"learner": "pooled", "size": 30, "cohort": "minority", "metric": "accuracy_micro", "value": None},
]


def test_a_row_is_found_by_its_keys_and_at_the_largest_size_where_none_is_given():
    table = ResultTable.of(ROWS)
    assert table.at("pooled").value == 0.6
    assert table.at("pooled", size=10).value == 0.5
    assert (table.sizes, table.full, table.learners) == ([10, 30], 30, ["pooled"])
    assert [row.size for row in table.at_full()] == [30, 30]


def test_what_is_absent_is_none_and_not_zero():
    table = ResultTable.of(ROWS)
    assert table.at("other") is None
    assert table.at("pooled", size=20) is None
    assert table.at("pooled", cohort="minority").value is None
    assert table.at("pooled").lo is None
    assert ResultTable().full is None
    assert ResultRow.of({"learner": "a", "value": nan}).value is None
    assert ResultRow.of({"learner": "a", "value": 0.1, "lo": 0.0}).bounded is None


def test_two_rows_for_one_question_are_an_error():
    table = ResultTable.of([*ROWS, ROWS[1]])
    assert table.at("pooled", size=10).value == 0.5
    for ask in (lambda: table.at("pooled"), table.by_learner):
        with pytest.raises(InputError, match="2 rows of results match pooled, accuracy_micro, all, size 30"):
            ask()


@pytest.mark.parametrize(
    ("lo", "hi", "kind"), [(0.1, 0.2, "better"), (-0.2, -0.1, "worse"), (-0.1, 0.1, "unclear"), (None, None, "unclear")]
)
def test_which_side_of_zero_an_interval_lies_on(lo, hi, kind):
    assert ResultRow("a", lo=lo, hi=hi).kind == kind


names, numbers = st.sampled_from(["", "a", "é\n"]), st.sampled_from([None, 0, -1.5, 3, 1e300])
rows = st.fixed_dictionaries(
    {"learner": names},
    optional=dict.fromkeys(("value", "lo", "hi", "se", "p", "size", "n_users"), numbers)
    | dict.fromkeys(("cohort", "metric", "baseline", "arm"), names),
)


@settings(max_examples=30)
@given(st.lists(rows, max_size=6))
def test_a_table_survives_its_file(found):
    table = ResultTable.of(found)
    assert ResultTable.of(json.loads(json.dumps(table.as_dicts(PLACEBO)))) == table


JUNK = [None, True, -3, nan, "x", [], [1], [[]], {}, {"a": None}, {"learner": {}}, [{}], [{"learner": 1}]]
JUNK += [[{"learner": "a", "value": wrong}] for wrong in ("x", True, [], {}, nan, 1)]
JUNK += [[{"learner": "a", name: wrong}] for name in ("size", "metric", "variance_parts") for wrong in (1, "x", {})]
keys = sorted({key.name for cls in (CompareContents, NewContents) for key in fields(cls)} | {"learner", "value"})
broken = st.dictionaries(st.sampled_from(keys), st.sampled_from(JUNK), max_size=4)


@settings(max_examples=30)
@given(broken)
def test_a_broken_file_is_read_or_refused_in_one_line(content):
    for cls in (CompareContents, NewContents):
        try:
            found = cls.of(content)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert cls.of(found.as_dict()).as_dict() == found.as_dict()


def test_an_old_schema_and_a_file_that_is_none_are_refused(tmp_path):
    path = tmp_path / "results.json"
    for text, said in (("[]", "has schema None; expected 1"), ('{"schema": 2}', "schema 2"), ("{", "as JSON")):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            Contents.read(path)
    path.write_text('{"schema": 1, "rows": [{"value": 1}]}')
    with pytest.raises(InputError, match=r"results\.json: a row of results names no learner"):
        Contents.read(path)


def test_facts_join_what_was_measured_and_a_key_that_is_none_is_told():
    found = CompareContents(data={"n_users": 3}).with_metadata({"data": {"files": ["a"]}, "findings": []})
    assert (found.data, found.findings) == ({"n_users": 3, "files": ["a"]}, [])
    with pytest.raises(SettingsError, match=r"unknown key of the results 'finding'\. Did you mean 'findings'"):
        found.with_metadata({"finding": []})


def test_every_key_is_in_the_protocol():
    """docs/protocol.md promises the keys of results.json, neither more nor fewer."""
    text = Path(__file__, "../../docs/protocol.md").resolve().read_text(encoding="utf-8")
    table = re.findall(r"^\| (`.*?) \|", text.partition("## results.json, schema 1")[2], re.MULTILINE)
    promised = {key for cell in table for key in re.findall(r"`(\w+)`", cell)}
    assert promised == {key.name for key in fields(CompareContents)}
