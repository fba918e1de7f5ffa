"""A key twice in one JSON object: in rows the last one counts, whoever reads them; polypref's own files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polypref import forgetting, strict_json
from polypref.align import run as align_run
from polypref.cli import main
from polypref.cli.score import rows_of
from polypref.data.benchmarks import read_suite
from polypref.data.files.limits import Limits
from polypref.data.files.sources import open_source
from polypref.data.read import read
from polypref.data.rows.layouts import find_columns
from polypref.errors import PolyprefError
from polypref.evaluation.results_schema import Contents
from polypref.finetune import tuning
from polypref.policy import history_file

WRONG = ("wrong", 7, None, [], {"wrong": "wrong"}, True)


def doubled(value: Any, first: Callable[[], Any]) -> str:
    """JSON in which every key of every object stands twice, the first time with another value."""
    if isinstance(value, dict):
        pairs = [
            f"{json.dumps(k)}: {json.dumps(first())}, {json.dumps(k)}: {doubled(v, first)}" for k, v in value.items()
        ]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(doubled(one, first) for one in value) + "]"
    return json.dumps(value)


def written(path: Path, rows: list[dict], seed: int | None) -> str:
    """The rows as JSONL, with every key twice if there is a ``seed``."""
    rng = np.random.default_rng(seed)
    first = (lambda: WRONG[int(rng.integers(len(WRONG)))]) if seed is not None else None
    path.write_text("".join((json.dumps(row) if first is None else doubled(row, first)) + "\n" for row in rows))
    return str(path)


def chat(text: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def judgements(n: int) -> list[dict]:
    return [
        {
            "user_id": f"u{at % 3}",
            "prompt": chat(f"prompt {at}") if at % 2 else f"prompt {at}",
            "chosen": f"yes {at}",
            "rejected": f"no {at}",
            "attributes": {"land": "ab"[at % 3 % 2], "deep": {"x": [at % 3]}},
            "weight": 1 + at % 2,
        }
        for at in range(n)
    ]


def ratings(n: int) -> list[dict]:
    return [
        {"user_id": f"u{at % 3}", "prompt": f"p {at // 6}", "response": f"r {at}", "rating": at % 5} for at in range(n)
    ]


def rankings(n: int) -> list[dict]:
    return [
        {"user_id": f"u{at % 3}", "prompt": f"p {at}", "responses": [f"a {at}", f"b {at}"], "ranking": [at % 2, 1]}
        for at in range(n)
    ]


def asked(n: int) -> list[dict]:
    return [{"user_id": f"u{at}", "prompt": chat(f"p {at}"), "response": f"r {at}"} for at in range(n)]


def items(n: int) -> list[dict]:
    return [
        {
            "prompt": [{"role": "user", "content": f"p {at}"}],
            "chosen": [f"a {at}"],
            "rejected": [f"b {at}", f"c {at}"],
            "section": "s",
        }
        for at in range(n)
    ]


def of_read(path: str) -> Any:
    found = read([path])
    return found.comparisons.content_hash, found.rows_read, found.problems


def of_score(path: str) -> Any:
    source = open_source(path, Limits())
    names = find_columns(path, source.types, ("user_id", "prompt", "response"), {})
    return [frame.to_dicts() for frame in rows_of(source, names, Limits())]


READERS = {
    "judgements": (judgements, of_read),
    "ratings": (ratings, of_read),
    "rankings": (rankings, of_read),
    "rows to score": (asked, of_score),
    "suite": (items, lambda path: read_suite(path).content_hash),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reader", READERS)
def test_in_rows_the_last_one_counts(reader, seed, tmp_path):
    rows, of = READERS[reader]
    wanted = of(written(tmp_path / "rows.jsonl", rows(24), None))
    assert of(written(tmp_path / "rows.jsonl", rows(24), seed)) == wanted
    assert of(written(tmp_path / "rows.jsonl", rows(23), None)) != wanted


def test_a_cell_of_a_table_has_the_same_rule(tmp_path):
    def table(attributes: str) -> str:
        cell = attributes.replace('"', '""')
        lines = [f'u{at % 2},p,a{at},b{at},"{cell}"' for at in range(4)]
        (tmp_path / "rows.csv").write_text("\n".join(["user_id,prompt,chosen,rejected,attributes", *lines]) + "\n")
        return read([tmp_path / "rows.csv"]).comparisons.content_hash

    assert table('{"land": "b", "land": "a"}') == table('{"land": "a"}') != table('{"land": "b"}')


# --- polypref's own files

TWICE = b'{"schema": 1, "step": 2, "steps": 3, "version": 1, "step": 3}'
OWN: dict[str, Callable[[Path], Any]] = {
    "results": Contents.read,
    "align": align_run._read,
    "a finished fit": lambda path: tuning._read(path.parent),
    "histories": lambda path: history_file._json(np.frombuffer(path.read_bytes(), np.uint8)),
}


@pytest.mark.parametrize("kind", OWN)
def test_own_files_are_refused(kind, tmp_path):
    path = tmp_path / "tuned.json"
    path.write_bytes(TWICE)
    with pytest.raises((PolyprefError, ValueError), match='the key "step" occurs twice') as refused:
        OWN[kind](path)
    assert "\n" not in str(refused.value)


def test_a_table_of_results_with_a_key_twice_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_bytes(TWICE)
    assert main(["table", "run", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert 'the key "step" occurs twice' in error
    assert error.count("\n") == 1


def test_every_value_of_a_key_is_looked_through(tmp_path):
    (tmp_path / "a.json").write_text('{"user": "ann", "user": "bob", "more": {"x": "eve", "x": 1}}')
    for name in ("ann", "bob", "eve"):
        assert forgetting.residue(tmp_path, name), name
    assert not forgetting.residue(tmp_path, "zoe")


def test_strict_json_says_which_key():
    for text in ('{"a": {"b": 1, "b": 1}}', '[{"b": 1, "c": 2, "b": 2}]'):
        with pytest.raises(ValueError, match=r'^the key "b" occurs twice$'):
            strict_json.loads(text.encode())
    assert strict_json.loads(b'[{"b": 1}, {"b": 2}]') == [{"b": 1}, {"b": 2}]
