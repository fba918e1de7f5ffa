"""`polypref score` gives the caller's own rows back, whole, in the format of the file's ending; ``--best`` chooses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polypref
from polypref.cli import main
from polypref.cli.scored_rows import Scored, joined
from polypref.testing import people

PROMPT = "How do I boil an egg?"
TAGS = '{"user_id": "u0", "n": 1.50, "big": 12345678901234567890123, "prompt": "P", "response": "short", "t": ["a"]}'
LATE = '{"response":"a longer response","prompt":"P","user_id":"u0","extra":{"deep":[1,{"x":"\\u202e"}]}}'
OTHER = '{"user_id": "stranger", "prompt": "P", "response": "a longer response", "n": 2, "text": "q\\"}"}'
LINES = [TAGS, LATE, OTHER]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> str:
    """Rewards that grow with length: no encoder, so that each test is fast."""
    folder = tmp_path_factory.mktemp("scorer") / "s"
    fitted = polypref.LEARNERS["length"].fit(people(), encoder=polypref.encoder("minilm"), seed=0)
    polypref.save(fitted, folder)
    return str(folder)


@pytest.fixture
def rows(tmp_path) -> str:
    (tmp_path / "q.jsonl").write_text("\n\n".join(LINES) + "\n")
    return str(tmp_path / "q.jsonl")


def score(*arguments: object) -> int:
    return main(["score", *map(str, arguments)])


def answers(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_json_row_stays_the_line_that_it_was(scorer, rows, tmp_path, capsys):
    assert score(scorer, rows) == 0
    shown = capsys.readouterr().out.splitlines()
    for line, given_line in zip(shown, LINES, strict=True):
        assert line.startswith(given_line.rstrip("}")[:20])
        assert line.partition(', "score": ')[0] + "}" == given_line
        found = json.loads(line)
        assert set(found) - set(json.loads(given_line)) == {"score", "source"}
    assert '"n": 1.50, "big": 12345678901234567890123' in shown[0], "numbers as written"


def test_csv_and_parquet_by_ending(scorer, rows, tmp_path):
    assert score(scorer, rows, "--out", tmp_path / "a.csv") == 0
    table = pl.read_csv(tmp_path / "a.csv")
    assert table.columns == ["user_id", "n", "big", "prompt", "response", "t", "extra", "text", "score", "source"]
    assert json.loads(table["t"][0]) == ["a"]
    assert json.loads(table["extra"][1]) == {"deep": [1, {"x": "\u202e"}]} or "deep" in table["extra"][1]
    frame = pl.DataFrame({"user_id": ["u0", "x"], "prompt": ["P", "P"], "response": ["a", "bb"], "tags": [[1], [2, 3]]})
    frame.with_columns(day=pl.date(2026, 1, 2)).write_parquet(tmp_path / "q.parquet")
    assert score(scorer, tmp_path / "q.parquet", "--out", tmp_path / "b.parquet") == 0
    again = pl.read_parquet(tmp_path / "b.parquet")
    assert again.select(frame.columns).equals(frame), "types and lists stay"
    assert again.columns == [*frame.columns, "day", "score", "source"]
    assert score(scorer, tmp_path / "q.parquet", "--out", tmp_path / "c.jsonl") == 0
    assert [(row["tags"], row["day"]) for row in answers(tmp_path / "c.jsonl")] == [
        ([1], "2026-01-02"),
        ([2, 3], "2026-01-02"),
    ]
    (tmp_path / "q.csv").write_text('user_id,prompt,response,id\nu0,P,"a, b",007\nu1,P,c,\n')
    assert score(scorer, tmp_path / "q.csv", "--out", tmp_path / "d.csv") == 0
    lines = (tmp_path / "d.csv").read_text().splitlines()
    assert lines[0] == "user_id,prompt,response,id,score,source"
    assert lines[1].startswith('u0,P,"a, b",007,')
    assert lines[2].startswith("u1,P,c,,")


def test_an_answer_hides_no_column(scorer, tmp_path, capsys):
    row = {"user_id": "u0", "prompt": "P", "response": "r"}
    late = [row] * 1200 + [{**row, "score": 3}]
    for number, found in enumerate(([{**row, "score": 3}], [{**row, "source": "web"}], late)):
        path = tmp_path / f"q{number}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in found))
        for out in ("a.jsonl", "a.parquet"):
            assert score(scorer, path, "--out", tmp_path / out) == 2
            told = capsys.readouterr().err
            assert told.count("\n") == 1
            assert "--prefix my_" in told
            assert not (tmp_path / out).exists()
        assert score(scorer, path, "--prefix", "my_") == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert {key: last[key] for key in found[-1]} == found[-1]
        assert {"my_score", "my_source"} <= set(last)


def test_other_endings_are_refused(scorer, rows, tmp_path, capsys):
    assert score(scorer, rows, "--out", tmp_path / "a.xlsx") == 2
    assert "expected one of .jsonl, .csv, .parquet" in capsys.readouterr().err


def test_best_keeps_one_response_of_each_user_and_prompt(scorer, rows, tmp_path, capsys):
    assert score(scorer, rows, "--best", "--out", tmp_path / "a.jsonl") == 0
    assert [(a["user_id"], a["response"]) for a in answers(tmp_path / "a.jsonl")] == [
        ("u0", "a longer response"),
        ("stranger", "a longer response"),
    ]
    assert score(scorer, rows, "--best", "--out", tmp_path / "a.csv") == 0
    assert pl.read_csv(tmp_path / "a.csv")["user_id"].to_list() == ["u0", "stranger"]
    chat = [{"role": "user", "content": "P"}]
    asked = [{"user_id": "u0", "prompt": p, "response": r} for p in ("P", chat) for r in ("x", "longer")]
    (tmp_path / "q2.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    capsys.readouterr()
    assert score(scorer, tmp_path / "q2.jsonl", "--best") == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(a["prompt"], a["response"]) for a in shown] == [("P", "longer"), (chat, "longer")]


some = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("pq"), st.sampled_from([None, 0.0, 1.0])), max_size=12)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some, st.integers(1, 5))
def test_best_is_the_first_highest_whatever_the_batches(rows, size):
    def scored(part: list, start: int) -> Scored:
        keys = pl.DataFrame(
            {"user_id": [r[0] for r in part], "prompt": [r[1] for r in part], "chat": [False] * len(part)}
        )
        own = pl.DataFrame({"at": np.arange(start, start + len(part)), "x": [0] * len(part)})
        return Scored(keys, own, pl.DataFrame({"score": pl.Series([r[2] for r in part], dtype=pl.Float64)}))

    held: list[Scored] = []
    for start in range(0, len(rows), size):
        held = [joined([*held, scored(rows[start : start + size], start)]).best()]
    expected = {}
    for at, (user, prompt, value) in enumerate(rows):
        before = expected.get((user, prompt))
        if before is None or (value is not None and (rows[before][2] is None or value > rows[before][2])):
            expected[user, prompt] = at
    found = held[0].rows["at"].to_list() if held else []
    assert found == sorted(expected.values())
    if held:
        left = held[0].answered().rows["at"].to_list()
        assert left == [at for at in found if rows[at][2] is not None]
