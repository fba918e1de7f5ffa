"""One person under every way to write an id, in files, in Python and when scoring; known people are kept."""

from __future__ import annotations

import json
from decimal import Decimal

import polars as pl
import pytest

from polypref import from_columns, read
from polypref.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::polypref.errors.NotConverged")  # sixty judgements of sure people


def put(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows_of(user, n=15, prompt=True):
    texts = [(f"short {k}", f"a much longer and careful answer {k}") for k in range(n)]
    asked = [{"prompt": f"Q{k}?"} if prompt else {} for k in range(n)]
    sides = ("chosen", "rejected")
    likes = [sides[:: 1 if user % 2 else -1] for _ in range(n)]  # odd people like short answers
    rows = zip(likes, texts, asked, strict=True)
    return [{"user_id": user} | dict(zip(names, two, strict=True)) | q for names, two, q in rows]


@pytest.mark.parametrize(
    "ids",
    [[7, 7.0, "7", "7.0"], ["7.00", 7], [-3, "-3.0"]],
)
def test_one_person_in_jsonl(tmp_path, ids):
    rows = [{"user_id": one, "prompt": "q", "chosen": "a", "rejected": "b"} for one in ids]
    assert read([put(tmp_path / "p.jsonl", rows)]).comparisons.users.ids.to_list() == [str(int(float(ids[0])))]


@pytest.mark.parametrize("column", [[7, 8], [7.0, 8.0], ["7", "8.0"], [Decimal("7.00"), Decimal("8.00")]])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_one_person_in_tables(tmp_path, column, kind):
    frame = pl.DataFrame({"user_id": column, "prompt": ["q", "q"], "chosen": ["a", "a"], "rejected": ["b", "c"]})
    getattr(frame, f"write_{kind}")(tmp_path / f"p.{kind}")
    assert read([tmp_path / f"p.{kind}"]).comparisons.users.ids.to_list() == ["7", "8"]


@pytest.mark.parametrize("ids", [[7, 12], [7.0, 12.0], ["7.0", "12"], pl.Series([Decimal("7.00"), Decimal(12)])])
def test_one_person_in_python(ids):
    assert from_columns(ids, ["q", "q"], ["a", "a"], ["b", "b"]).users.ids.to_list() == ["7", "12"]


def test_other_texts_are_other_people(tmp_path):
    ids = ["007", "7", "7.01", "v7.0", "7.0.0"]
    rows = [{"user_id": one, "prompt": "q", "chosen": "a", "rejected": "b"} for one in ids]
    assert read([put(tmp_path / "p.jsonl", rows)]).comparisons.users.ids.to_list() == ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("ids")
    for name, prompt in (("with", True), ("without", False)):
        rows = [row for user in (7, 8, 17, 18) for row in rows_of(user, prompt=prompt)]
        file = put(here / f"{name}.jsonl", rows)
        assert main(["fit", file, "--learner", "hierarchical", "--encoder", "static", "--out", str(here / name)]) == 0
    return here


def scored(capsys, *words):
    assert main(["score", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_who_is_asked_for_is_found(folder, tmp_path, capsys):
    path = tmp_path / "q.csv"
    path.write_text("user_id,prompt,response\n" + "".join(f"{u},Q1?,short 1\n" for u in ("7", "7.0", "007")))
    assert [row["source"] for row in scored(capsys, str(folder / "with"), str(path))] == [
        "personal",
        "personal",
        "population",
    ]


@pytest.mark.parametrize("text", ["user_id,response\n7,short 1\n", "user_id,prompt,response\n7,,short 1\n"])
def test_a_scorer_without_prompts_is_asked_from_csv(folder, tmp_path, capsys, text):
    path = tmp_path / "q.csv"
    path.write_text(text)
    (row,) = scored(capsys, str(folder / "without"), str(path))
    same = put(tmp_path / "q.jsonl", [{"user_id": 7, "prompt": "", "response": "short 1"}])
    assert row["score"] == scored(capsys, str(folder / "without"), same)[0]["score"] != 0


def test_a_known_person_is_not_forgotten_for_one_judgement(folder, tmp_path, capsys):
    """One judgement moves somebody who is known by many less than somebody of whom nothing is known."""
    new = put(tmp_path / "one.jsonl", rows_of(7, 1) + rows_of(9, 1))
    assert main(["adapt", new, "--scorer", str(folder / "with"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "known before: '7'; what FILE says is added" in said and "'9'" not in said
    asked = put(tmp_path / "q.jsonl", [{"user_id": who, "prompt": "", "response": "short 1"} for who in (7, 9)])
    (known, stranger), (after, taught) = (
        [row["score"] for row in scored(capsys, str(where), asked)] for where in (folder / "with", tmp_path / "out")
    )
    assert 0 < abs(after - known) < abs(taught - stranger)
