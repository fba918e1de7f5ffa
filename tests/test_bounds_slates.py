"""Files of labelled slates: read, cut and refused with their lines."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from bounds_cases import pool, random_slates
from polypref.bounds.slates import Slates, part_of, read_slates
from polypref.cli.bounds import slates_from
from polypref.comparisons import Responses, from_columns
from polypref.data.files.limits import Limits
from polypref.errors import InputError


def slate_file(tmp_path, rows):
    path = tmp_path / "slates.jsonl"
    pl.DataFrame(rows).write_ndjson(path)
    return str(path)


def test_slates_are_read_by_prompt_or_by_name(tmp_path):
    rows = {"prompt": ["a", "b", "a"], "response": ["x", "y", "z"], "unsafe": [True, False, False]}
    slates = read_slates(slate_file(tmp_path, rows))
    assert len(slates) == 2
    assert slates.slate_C.tolist() == [0, 0, 1]
    assert slates.unsafe_L.tolist() == [True, False]
    named = read_slates(slate_file(tmp_path, rows | {"slate": [1, 2, 1], "category": ["c", "d", "c"]}))
    assert named.slate_C.tolist() == [0, 0, 1]
    assert named.category_L.to_list() == ["c", "d"]
    assert named.content_hash != slates.content_hash
    assert [named.responses.prompts[p] for p in named.prompt_L.tolist()] == ["a", "b"]


@pytest.mark.parametrize(
    "rows, complaint",
    [
        ({"prompt": ["a", "a"], "response": ["x", "x"], "unsafe": [True, False]}, "lines 1 and 2 .* unsafe and safe"),
        ({"prompt": ["a", "a"], "response": ["x", "y"], "unsafe": ["yes", "perhaps"]}, "line 2 .*'perhaps'"),
        ({"prompt": ["a", "a"], "response": ["x", ""], "unsafe": [True, False]}, "line 2 .*response is empty"),
        ({"prompt": ["a"], "response": ["x"]}, '"unsafe" is missing'),
        ({"response": ["x"], "unsafe": [True]}, "neither slate nor prompt"),
        (
            {"prompt": ["a", "a"], "response": ["x", "y"], "unsafe": [True, False], "category": ["c", "d"]},
            "several categories",
        ),
        ({"prompt": ["a", "b"], "response": ["x", "y"], "unsafe": [True, False], "slate": [1, 1]}, "several prompts"),
        ({"prompt": ["a", None], "response": ["x", "y"], "unsafe": [True, False]}, "line 2 .*prompt is empty"),
        ({"slate": ["a", None], "response": ["x", "y"], "unsafe": [True, False]}, "line 2 .*slate is empty"),
    ],
)
def test_slates_that_cannot_be_used_are_told_with_their_line(tmp_path, rows, complaint):
    with pytest.raises(InputError, match=complaint):
        read_slates(slate_file(tmp_path, rows))


def test_chat_prompts_of_slates_are_chats_whatever_the_order_of_their_keys(tmp_path):
    turns = ({"role": "user", "content": "hi"}, {"content": "hi", "role": "user"})
    rows = [{"prompt": [turn], "response": text, "unsafe": text == "x"} for turn, text in zip(turns, "xy", strict=True)]
    path = tmp_path / "slates.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    chats = read_slates(str(path))
    assert len(chats) == 1 and chats.responses.messages(0) == [turns[0]]
    asked, _ = Responses.of([[turns[0]]] * 2, ["x", "y"])
    assert (chats.responses.identity_R == asked.identity_R).all(), "as the gate will be asked"
    path.write_text("\n".join(json.dumps(row | {"prompt": "hi"}) for row in rows))
    assert read_slates(str(path)).content_hash != chats.content_hash
    rows[1]["response"] = "x"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(InputError, match=r"lines 1 and 2 .* unsafe and safe"):
        read_slates(str(path))


def test_slates_with_a_nul_are_refused_with_their_line(tmp_path):
    rows = [{"prompt": "p", "response": text, "unsafe": False} for text in ("a", "b\0")]
    path = tmp_path / "slates.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(InputError, match="NUL"):
        read_slates(str(path))


@pytest.mark.parametrize("missing", [None, "", "  "])
def test_a_slate_with_a_missing_label_is_left_out_whole_and_told(tmp_path, missing):
    rows = {"prompt": ["a", "b", "b", "c"], "response": list("wxyz"), "unsafe": ["true", "true", missing, "false"]}
    slates = read_slates(slate_file(tmp_path, rows))
    assert slates.responses.texts_R.to_list() == ["w", "z"]
    assert slates.unsafe_C.tolist() == [True, False]
    assert slates.note == "unsafe is missing in 1 row, the first on line 3: 1 slate of 3 left out"
    pl.DataFrame(rows).write_csv(tmp_path / "slates.csv")
    again = read_slates(str(tmp_path / "slates.csv"))
    assert again.content_hash == slates.content_hash and again.note and "line 4" in again.note


def test_slates_without_any_label_or_with_labels_that_contradict_are_refused(tmp_path):
    with pytest.raises(InputError, match="missing in 2 rows, the first on line 1: no slate"):
        read_slates(slate_file(tmp_path, {"slate": [1, 2], "response": ["x", "y"], "unsafe": [None, ""]}))
    rows = {"slate": [1, 1, 2, 3], "response": list("xyxz"), "unsafe": ["true", None, "false", "true"]}
    with pytest.raises(InputError, match=r"lines 1 and 3 .* unsafe and safe"):
        read_slates(slate_file(tmp_path, rows))


def test_the_command_tells_what_was_left_out(tmp_path, capsys):
    rows = {"prompt": ["a", "b"], "response": ["x", "y"], "unsafe": [True, None]}
    assert len(slates_from((slate_file(tmp_path, rows),), "1/1", "audit", Limits())) == 1
    assert "unsafe is missing in 1 row" in capsys.readouterr().err


def test_a_benchmark_is_a_file_of_slates(tmp_path):
    rows = {
        "prompt": ["a", "b", "c", "d"],
        "chosen": ["no", "yes", "good", "mild"],
        "rejected": ["bomb", "sorry", "bad", "harsh"],
        "subset": ["xstest-should-refuse", "xstest-should-respond", "llmbar-natural", "hh-harmless-test"],
    }
    slates = read_slates(slate_file(tmp_path, rows))
    assert sorted(slates.category_L) == sorted(rows["subset"][:3])
    assert slates.responses.texts_R.gather(slates.response_C[slates.unsafe_C]).to_list() == ["bomb"]


def test_a_benchmark_that_contradicts_itself_is_refused(tmp_path):
    rows = {
        "prompt": ["a", "a"],
        "chosen": ["no", "bomb"],
        "rejected": ["bomb", "no"],
        "subset": ["xstest-should-refuse"] * 2,
    }
    with pytest.raises(InputError, match="both unsafe and safe"):
        read_slates(slate_file(tmp_path, rows))


def test_slates_without_prompts_are_cut_too():
    slates = random_slates(np.random.default_rng(12), 300, 2)[0]
    bare = Slates(
        pool([str(i) for i in range(600)], ""),
        *[getattr(slates, n) for n in ("slate_C", "response_C", "unsafe_C", "category_L")],
    )
    parts = [len(part_of(bare, k, k, 3)) for k in (1, 2, 3)]
    assert sum(parts) == 300
    assert min(parts) > 50


def test_parts_share_no_prompt_and_make_up_the_whole():
    slates = random_slates(np.random.default_rng(6), 300, 2)[0]
    named = from_columns(["u"] * 600, [f"prompt {i // 4}" for i in range(600)], *[[str(i) for i in range(600)]] * 2)
    slates = Slates(named.responses, slates.slate_C, slates.response_C, slates.unsafe_C, slates.category_L)
    parts = [part_of(slates, k, k, 3) for k in (1, 2, 3)]
    assert len(part_of(slates, 1, 2, 3)) == len(parts[0]) + len(parts[1])
    assert sum(map(len, parts)) == 300
    texts = [set(part.responses.texts_R) for part in parts]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    prompts = [{part.responses.prompts[p] for p in part.responses.prompt_R.tolist()} for part in parts]
    assert not (prompts[0] & prompts[1] or prompts[0] & prompts[2] or prompts[1] & prompts[2])
    assert min(map(len, parts)) > 50


def test_a_benchmark_says_what_it_was_read_as_and_unknown_subsets_are_refused(tmp_path):
    rows = {"prompt": ["a", "b"], "chosen": ["no", "x"], "rejected": ["bomb", "y"]}
    slates = read_slates(slate_file(tmp_path, rows | {"subset": ["donotanswer", "hhh-harmless"]}))
    assert slates.note is not None
    assert "1 rejected responses of donotanswer are taken as unsafe" in slates.note
    assert "1 items whose labels compare are left out" in slates.note
    with pytest.raises(InputError, match=r"no subset is known to hold harmful requests.*shouldrefuse"):
        read_slates(slate_file(tmp_path, rows | {"subset": ["xstest-shouldrefuse", "other"]}))
    with pytest.raises(InputError, match="people's preferences"):
        read_slates(slate_file(tmp_path, rows | {"user_id": ["u", "v"], "subset": ["donotanswer", "other"]}))
