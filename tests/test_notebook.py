"""How objects look in a console and in a notebook."""

from __future__ import annotations

import json

import polypref
from polypref.notebook import Shown, table
from toy_learners import people

EVIL = "<script>alert(1)</script>\u202e"


def test_data_types_are_one_short_line():
    data = people(users=6, per_user=20)
    line = repr(data)
    assert line.startswith("<Comparisons: 120 judgements, 6 users, ")
    assert repr(data.users) == "<Users: 6 users>"
    assert repr(data.responses).startswith("<Responses: ")
    assert max(len(line), len(repr(data.responses))) < 200
    assert "<td>120</td>" in data._repr_html_()


def test_ties_attributes_and_origin_are_said(tmp_path):
    rows = [
        {"user_id": "a", "prompt": "p", "response_a": "x", "response_b": "y", "label": label, "attributes": {"age": 3}}
        for label in ("A", "B", "tie")
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    reading = polypref.read(tmp_path / "p.jsonl")
    line = repr(reading)
    assert line.startswith("<Reading: 4 rows, 1 unusable row, 3 judgements, 1 tie, 1 user, attributes age, ")
    assert "p.jsonl" in line
    assert "1 tie" in repr(reading.comparisons)


def test_what_comes_from_data_is_escaped():
    class Odd(Shown):
        def facts(self):
            return {EVIL: EVIL, "many": "x" * 500, "gone": None, "zero": 0}

    line, page = repr(Odd()), Odd()._repr_html_()
    assert "\u202e" not in line + page
    assert len(line) < 250
    assert "gone" not in line + page
    assert "0 zero" in line
    assert "<script>" not in page
    assert page.count("<tr>") == 3
    assert "<script>" not in table([[EVIL]], [EVIL], EVIL)
