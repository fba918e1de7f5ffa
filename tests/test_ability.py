"""Benchmark files in their three shapes: items, candidates, and errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from polypref.data.benchmarks import read_suite
from polypref.errors import InputError

ROW = {"prompt": "p", "chosen": "good", "rejected": "bad", "subset": "s", "id": "7"}


def written(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_pairs_become_items_of_two_candidates(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "prompt": "q", "id": "8", "subset": "t"}, {**ROW, "rejected": "worse", "id": "9"}]
    suite = read_suite(written(tmp_path / "a.jsonl", rows))
    assert (len(suite), suite.lists, suite.section_I) == (3, False, None)
    assert suite.item_C.tolist() == [0, 0, 1, 1, 2, 2]
    assert suite.right_C.tolist() == [True, False] * 3
    texts = suite.responses.texts_R.gather(suite.response_C).to_list()
    assert sorted(zip(texts[::2], texts[1::2], strict=True)) == [("good", "bad")] * 2 + [("good", "worse")]
    assert len(suite.responses) == 5, "each text answering a prompt is kept once"
    prompts = [suite.responses.prompt_text(int(p)) for p in suite.responses.prompt_R[suite.response_C]]
    about = zip(suite.id_I, suite.subset_I, prompts[::2], prompts[1::2], map(suite.where, range(3)), strict=True)
    assert sorted(about) == [
        ("7", "s", "p", "p", f"line 1 of {suite.file}"),
        ("8", "t", "q", "q", f"line 2 of {suite.file}"),
        ("9", "s", "p", "p", f"line 3 of {suite.file}"),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_lists_become_items_of_many_candidates(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"prompt": "p", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Math", "id": "1"},
        {"prompt": "q", "chosen": ["e", 'f "quoted"'], "rejected": ["g"], "subset": "Ties", "id": "tied:1"},
    ]
    path = tmp_path / f"b{suffix}"
    pl.DataFrame(rows).write_parquet(path) if suffix == ".parquet" else written(path, rows)
    suite = read_suite(str(path))
    assert suite.lists
    assert suite.item_C.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert suite.right_C.tolist() == [True, False, False, False, True, True, False]
    texts = suite.responses.texts_R.gather(suite.response_C).to_list()
    assert texts == ["a", "b", "c", "d", "e", 'f "quoted"', "g"]


def test_personalized_rewardbench_has_questions_categories_and_profiles(tmp_path: Path) -> None:
    row = {"question": "q?", "profile": "I cook.", "chosen": "a", "rejected": "b", "category": "Lifestyle", "id": "1"}
    path = written(tmp_path / "c.jsonl", [row])
    plain, about = read_suite(path), read_suite(path, profile=True)
    assert plain.section_I is not None
    assert plain.section_I.to_list() == ["Lifestyle"], "its categories are its sections"
    assert plain.responses.prompt_text(0) == "q?"
    assert about.responses.prompt_text(0) == "I cook.\n\nq?"
    assert plain.content_hash != about.content_hash


def test_a_prompt_may_be_chat_messages(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}]
    suite = read_suite(written(tmp_path / "d.jsonl", [{**ROW, "prompt": messages}]))
    assert suite.responses.messages(0) == messages


def test_without_subsets_a_file_is_one_section(tmp_path: Path) -> None:
    row = {name: ROW[name] for name in ("prompt", "chosen", "rejected")}
    suite = read_suite(written(tmp_path / "e.jsonl", [row, {**row, "prompt": "another"}]))
    assert suite.section_I is not None
    assert suite.section_I.to_list() == suite.subset_I.to_list() == ["all", "all"]
    assert sorted(suite.id_I) == ["1", "2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, {**ROW, "chosen": None}], 'line 2 of x.jsonl: "chosen" is missing'),
        ([ROW, {**ROW, "prompt": None}], 'line 2 of x.jsonl: "prompt" is missing'),
        ([ROW, {**ROW, "subset": ""}], 'line 2 of x.jsonl: "subset" is missing; expected a name'),
        ([{"prompt": "p", "chosen": "a"}], 'has no column "rejected"; found: prompt, chosen'),
        ([{**ROW, "chosen": ["a"]}], '"chosen" is list and "rejected" text; expected both alike'),
        ([{**ROW, "chosen": ["a"], "rejected": []}], 'line 1 of x.jsonl: "rejected" is "[]"; expected a list of texts'),
        ([{**ROW, "chosen": ["a"], "rejected": [1]}], 'line 1 of x.jsonl: "rejected" is "[1]"; expected a list of'),
        ([{**ROW, "prompt": ["hi"]}], "expected a list of chat messages"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_suite(written(tmp_path / "x.jsonl", rows))
    assert message.replace("x.jsonl", str(tmp_path / "x.jsonl")) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_row_refuses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(ROW) + "\n{broken\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"1 row of /.*/x.jsonl cannot be read, and a score without them .* line 2 of /.*/x.jsonl"
    ):
        read_suite(str(path))


def test_one_file_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file is named"):
        read_suite(str(tmp_path / "absent.jsonl"))
    for name in ("a.jsonl", "b.jsonl"):
        written(tmp_path / name, [ROW])
    with pytest.raises(InputError, match="stands for 2 files; expected one"):
        read_suite(str(tmp_path / "*.jsonl"))
    with pytest.raises(InputError, match='has no column "profile"'):
        read_suite(str(tmp_path / "a.jsonl"), profile=True)


def test_an_item_that_stands_twice_counts_once_and_contradictions_are_told(tmp_path: Path) -> None:
    other = {**ROW, "chosen": ROW["rejected"], "rejected": ROW["chosen"]}
    rows = [{**ROW, "subset": "a"}, {**ROW, "subset": "b"}, {**ROW, "subset": "a"}, {**other, "subset": "a"}]
    suite = read_suite(written(tmp_path / "twice.jsonl", rows))
    assert sorted(zip(suite.subset_I, suite.line_I.tolist(), strict=True)) == [("a", 1), ("a", 4), ("b", 2)]
    copies, against = suite.notes
    assert copies.startswith("1 item occurred before") and "lines 1 and 3" in copies
    assert against.startswith("1 item ") and "lines 1 and 4" in against
    once = read_suite(written(tmp_path / "once.jsonl", rows[:2]))
    assert once.notes == () and len(once) == 2


@pytest.mark.parametrize("same", [True, False])
def test_candidates_in_another_order_are_the_same_item(tmp_path: Path, same: bool) -> None:
    lists = {"prompt": "p", "chosen": ["right"], "rejected": ["wrong", "worse"]}
    turned = {**lists, "rejected": ["worse", "wrong" if same else "other"]}
    assert len(read_suite(written(tmp_path / "l.jsonl", [lists, turned]))) == (1 if same else 2)
