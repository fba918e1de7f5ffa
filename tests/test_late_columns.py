"""Columns of JSONL files that first stand late: a file says the same as if its head had them all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.data.files import late_columns, textfiles
from polypref.data.files.late_columns import LateColumns, read_again, watched
from polypref.data.read import Reading, ReadOptions, read
from polypref.errors import PolyprefError

TEXTS = st.sampled_from(["a", "b", "Human: q Assistant: a", "Human: q Assistant: b", "a c", "a d"])
ROWS = st.fixed_dictionaries(
    {"note": st.just({"tie": True})},
    optional={
        "user_id": st.sampled_from("uv"),
        "prompt": st.sampled_from("pq"),
        "chosen": TEXTS,
        "rejected": TEXTS,
        "response_a": TEXTS,
        "response_b": TEXTS,
        "label": st.sampled_from(["A", "B", "tie"]),
        "response": TEXTS,
        "rating": st.sampled_from([1, 2, 3]),
        "tie": st.booleans(),
        "weight": st.sampled_from([0.5, 2]),
        "attributes": st.fixed_dictionaries({}, optional={"k": st.sampled_from("xy")}),
        "mine": TEXTS,
    },
)
FILES = st.lists(st.lists(ROWS, min_size=1, max_size=12), min_size=1, max_size=3)


def told(paths: list[Path], options: ReadOptions) -> object:
    """All that a reading says, or the kind of its error."""
    try:
        found = read(paths, options)
    except PolyprefError as error:
        return type(error)
    layouts = []
    for layout in found.layouts:  # a late column that plays no role is not always listed
        one = layout.shape, layout.names, set(layout.guessed)
        layouts += [] if one in layouts else [one]
    tables = [found.comparisons.content_hash, found.line_N.tolist(), found.file_N.tolist()]
    users, texts = found.comparisons.users, found.comparisons.responses.texts_R.to_list()
    people = [users.ids.to_list(), None if users.attributes is None else users.attributes.to_dicts()]
    return tables, people, texts, found.rows_read, found.problems, set(found.rules), layouts


@given(FILES, st.sampled_from([{}, {"chosen": "mine"}, {"tie": ""}]), st.sampled_from([40, 150]))
@settings(max_examples=100, deadline=None)
def test_late_columns_count_as_those_of_the_head_do(tmp_path_factory, files, columns, block):
    folder = tmp_path_factory.mktemp("late")
    paths = [folder / f"{n}.jsonl" for n in range(len(files))]
    for path, rows in zip(paths, files, strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ReadOptions(columns=columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfiles, "BLOCK", block)
        expected = told(paths, options)
        patch.setattr(textfiles, "HEAD_LINES", 2)
        patch.setattr(late_columns, "AHEAD", block)
        assert told(paths, options) == expected


def reading_of(path: Path, rows: list[dict]) -> Reading:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read([path])


def test_a_key_that_first_stands_late_in_the_file_is_read(tmp_path):
    row = {"user_id": "u", "prompt": "p", "chosen": "x", "rejected": 'not a key: "tie":'}
    data = reading_of(tmp_path / "p.jsonl", [row] * 1500 + [row | {"tie": True}] + [row | {"weight": 3}]).comparisons
    assert data.tie_N is not None and np.flatnonzero(data.tie_N).tolist() == [1500]
    assert data.weights_N[1500:].tolist() == [1, 3]
    assert reading_of(tmp_path / "p.jsonl", [row] * 1500).comparisons.weight_N is None


def test_what_all_rows_need_may_stand_late(tmp_path):
    row = {"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"}
    reading = reading_of(tmp_path / "p.jsonl", [{"prompt": "p"}] * 1500 + [row] * 1600)
    assert len(reading.comparisons) == 1600 and reading.problems[0].count == 1500


def test_watched_looks_as_far_ahead_as_it_has_read(monkeypatch):
    monkeypatch.setattr(late_columns, "AHEAD", 30)
    line = b'{"a": 1}\n'
    late = [b'{"b": 1}\n', b'{"c": 1}\n', b'{"n": {"d": 1}}\n']
    seen = []

    def stream(between: int):
        for block in [*[line] * 10, late[0], *[line] * between, *late[1:]]:
            seen.append(block)
            yield 1, block

    def names(between: int) -> tuple[str, ...]:
        seen.clear()
        with pytest.raises(LateColumns) as caught:
            list(watched(stream(between), ["d", "c", "b"]))
        return caught.value.names

    assert names(5) == ("c", "b") and names(15) == ("b",) and len(seen) < 24
    assert len(list(watched(stream(5), ["d"]))) == 18


def test_read_again_knows_more_each_time():
    known = []

    def attempt(late: tuple[str, ...]) -> int:
        known.append(late)
        if len(late) < 3:
            raise LateColumns([f"c{len(late)}"])
        return len(late)

    assert read_again(attempt) == 3
    assert known == [(), ("c0",), ("c0", "c1"), ("c0", "c1", "c2")]
