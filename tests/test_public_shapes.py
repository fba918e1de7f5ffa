"""Files as their publishers and products write them: each is read right, or refused with a next step that works."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polypref import PolyprefError, read
from polypref.cli import main
from polypref.content import BAR
from polypref.data.read import Reading, ReadOptions
from polypref.data.rows.layouts import parse_columns
from polypref.data.rows.words import Said, meaning

ROWS = 12
Row = dict[str, Any]


def asked(at: int) -> Row:
    return {"user_id": f"u{at % 3}", "prompt": f"q{at}"}


def said(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def saved(folder: Path, rows: list[Row], suffix: str = ".jsonl") -> Path:
    path = folder / f"p{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pl.DataFrame(rows).write_csv(path)
    return path


def outcomes(reading: Reading) -> list[str]:
    """``winner>loser`` or ``one=other`` of each judgement; the bar is |."""
    c, texts = reading.comparisons, reading.comparisons.responses.texts_R
    ties = c.tie_N if c.tie_N is not None else [False] * len(c)
    names = [("|" if text == BAR else text) for text in texts]
    return [
        f"{names[int(one)]}{'=' if tie else '>'}{names[int(other)]}"
        for one, other, tie in zip(c.chosen_N, c.rejected_N, ties, strict=True)
    ]


def prompts(reading: Reading) -> set[str]:
    return set(reading.comparisons.responses.prompts)


def alternately(at: int, *values: Any) -> Any:
    return values[at % len(values)]


# What a row holds beside the person and the question -> the judgements of the first rows.
SHAPES: dict[str, tuple[Any, list[str]]] = {
    "AlpacaFarm": (
        lambda k: {"output_1": f"a{k}", "output_2": f"b{k}", "preference": alternately(k, 1, 2)},
        ["a0>b0", "b1>a1"],
    ),
    "letters in chosen and rejected": (
        lambda k: {"response_a": f"a{k}", "response_b": f"b{k}"}
        | {"chosen": alternately(k, "A", "B"), "rejected": alternately(k, "B", "A")},
        ["a0>b0", "b1>a1"],
    ),
    "models in chosen and rejected": (
        lambda k: {"response_a": f"a{k}", "response_b": f"b{k}", "model_a": "gpt", "model_b": "llama"}
        | {"chosen": alternately(k, "gpt", "llama"), "rejected": alternately(k, "llama", "gpt")},
        ["a0>b0", "b1>a1"],
    ),
    "texts repeated in chosen and rejected": (
        lambda k: {"response_a": f"a{k}", "response_b": f"b{k}"}
        | {"chosen": f"{alternately(k, 'a', 'b')}{k}", "rejected": f"{alternately(k, 'b', 'a')}{k}"},
        ["a0>b0", "b1>a1"],
    ),
    "WebGPT": (
        lambda k: {"answer_0": f"a{k}", "answer_1": f"b{k}", "score_0": 1 - k % 3, "score_1": k % 3 - 1},
        ["a0>b0", "a1=b1", "b2>a2"],
    ),
    "ratings of both as texts": (
        lambda k: {"response_1": f"a{k}", "response_2": f"b{k}", "rating_1": "4,5", "rating_2": f"{3 + k},0"},
        ["a0>b0", "a1>b1", "b2>a2"],
    ),
    "Nectar": (
        lambda k: {"answers": [{"answer": f"b{k}", "model": "m", "rank": 2.0}, {"answer": f"a{k}", "rank": 1.0}]},
        ["a0>b0", "a1>b1"],
    ),
    "UltraFeedback": (
        lambda k: {"completions": [{"response": f"{s}{k}", "overall_score": n} for s, n in (("a", 7 - k), ("b", 6))]},
        ["a0>b0", "a1=b1", "b2>a2"],
    ),
    "distilabel": (
        lambda k: {"generations": [f"a{k}", f"b{k}", f"c{k}"], "rating": [9.0, 4.0, 4.0]},
        ["a0>b0", "a0>c0", "b0=c0"],
    ),
    "the index of the best": (
        lambda k: {"responses": [f"a{k}", f"b{k}", f"c{k}"], "chosen": k % 3},
        ["a0>b0", "a0>c0", "b1>a1", "b1>c1"],
    ),
    "the number of the best": (
        lambda k: {"completions": [f"a{k}", f"b{k}"], "choice": 1 + k % 2},
        ["a0>b0", "b1>a1"],
    ),
    "RewardBench 2": (
        lambda k: {"chosen": [f"a{k}"], "rejected": [f"b{k}", f"c{k}", f"d{k}"]},
        ["a0>b0", "a0>c0", "a0>d0", "a1>b1"],
    ),
    "several rejected texts": (lambda k: {"chosen": f"a{k}", "rejected": [f"b{k}", f"c{k}"]}, ["a0>b0", "a0>c0"]),
    "arena": (
        lambda k: {"winner": alternately(k, "model_a", "tie (bothbad)")}
        | {f"conversation_{side}": [{"role": "user", "content": f"q{k}"}, *said(f"{side}{k}")] for side in "ab"},
        ["a0>b0", "a1=b1"],
    ),
    "a chat and a rating in words": (
        lambda k: {"messages": [{"role": "user", "content": f"q{k}"}, *said(f"a{k}")]}
        | {"rating": alternately(k // 3, "thumbs_up", "thumbs_down")},
        ["a0>|", "a1>|", "a2>|", "|>a3"],
    ),
    "thumbs of a tone": (
        lambda k: {"response": f"a{k}", "reaction": alternately(k // 3, "👍🏽", "👎🏻")},
        ["a0>|", "a1>|", "a2>|", "|>a3"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_published_shapes_are_read_right(tmp_path, name):
    make, expected = SHAPES[name]
    rows = [asked(k) | make(k) for k in range(ROWS)]
    if "messages" in rows[0] or "conversation_a" in rows[0]:
        rows = [{key: value for key, value in row.items() if key != "prompt"} for row in rows]
    reading = read([saved(tmp_path, rows)])
    assert outcomes(reading)[: len(expected)] == expected
    assert len(prompts(reading)) == ROWS
    assert not any(not problem.kept for problem in reading.problems)


def test_an_instruction_and_its_input_are_one_prompt(tmp_path):
    rows = [
        {"user_id": f"u{k % 3}", "instruction": "Sum up.", "input": f"text {k}" if k else None}
        | {"chosen": f"a{k}", "rejected": f"b{k}"}
        for k in range(ROWS)
    ]
    assert prompts(read([saved(tmp_path, rows)])) == {"Sum up."} | {f"Sum up.\n\ntext {k}" for k in range(1, ROWS)}
    other = [{"question" if key == "instruction" else key: value for key, value in row.items()} for row in rows]
    assert prompts(read([saved(tmp_path, other)])) == {"Sum up."}  # what is behind a question is not known


PAIRS = [asked(k) | {"chosen": f"a{k}", "rejected": f'b{k} "x", [y]\n}}\n{{ NaN'} for k in range(ROWS)]
LINES = "".join(json.dumps(row) + "\n" for row in PAIRS)
JSON_FORMS = {
    "a list": json.dumps(PAIRS),
    "an indented list": json.dumps(PAIRS, indent=2),
    "a list, a row a line": "[\n" + ",\n".join(map(json.dumps, PAIRS)) + "\n]\n",
    "a wrapped list": json.dumps({"version": 1, "data": PAIRS}),
    "a wrapped list beside columns": json.dumps({"columns": [{"name": "x"}], "data": PAIRS}),
    "an indented wrapped list": json.dumps({"data": PAIRS}, indent=1),
    "indented objects": "\n".join(json.dumps(row, indent=2) for row in PAIRS),
    "commas behind lines": LINES.replace("\n", ",\n"),
    "lines that end in CR": LINES.replace("\n", "\r"),
    "a sequence (RFC 7464)": "".join(f"\x1e{line}\n" for line in LINES.splitlines()),
}


@pytest.mark.parametrize("form", JSON_FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_json_in_every_form_and_encoding(tmp_path, form, encoding):
    path = tmp_path / "p.json"
    path.write_bytes(JSON_FORMS[form].encode(encoding))
    reading = read([path])
    plain = read([saved(tmp_path, PAIRS)])
    assert outcomes(reading) == outcomes(plain) and prompts(reading) == prompts(plain) and not reading.problems
    assert reading.line_N.tolist() == plain.line_N.tolist()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=4),
    indent=st.sampled_from([None, 0, 2]),
    form=st.sampled_from(["list", "data", "objects"]),
)
def test_documents_hold_the_same_rows_as_lines(tmp_path, texts, indent, form):
    rows = [{"user_id": "u", "prompt": f"q{k}", "chosen": f"a{text}", "rejected": "b"} for k, text in enumerate(texts)]
    whole = {"list": rows, "data": {"data": rows}}.get(form)
    text = json.dumps(whole, indent=indent) if whole else "\n".join(json.dumps(row, indent=indent) for row in rows)
    (tmp_path / "d.json").write_text(text)
    assert outcomes(read([tmp_path / "d.json"])) == outcomes(read([saved(tmp_path, rows)]))


def test_a_key_that_comes_late_in_a_list(tmp_path):
    rows = [row | {"rejected": f"b{k}"} for k, row in enumerate(PAIRS * 100)]
    rows[1150]["weight"] = 0.5
    (tmp_path / "p.json").write_text(json.dumps(rows))
    weight_N = read([tmp_path / "p.json"]).comparisons.weight_N
    assert weight_N is not None and sorted(set(weight_N)) == [0.5, 1.0]


def test_nan_is_nothing_and_stays_in_texts(tmp_path):
    rows = [asked(k) | {"chosen": "NaN, NaN", "rejected": f"b{k}", "weight": float("nan")} for k in range(ROWS)]
    rows[3]["user_id"] = float("nan")
    reading = read([saved(tmp_path, rows)])
    assert set(reading.comparisons.responses.texts_R) >= {"NaN, NaN"} and len(reading.comparisons) == ROWS - 1
    assert [(p.name, p.count) for p in reading.problems] == [("missing user_id", 1)]


OTHER_KINDS = {
    "p.xlsx": (b"PK\x03\x04\x14\x00", "pandas.read_excel"),
    "p.csv": (b"PK\x03\x04\x14\x00\nx", "workbook"),
    "p.xls": (b"\xd0\xcf\x11\xe0", "CSV UTF-8"),
    "p.db": (b"SQLite format 3\0", "SQLite"),
    "p.jsonl": (b"version https://git-lfs.github.com/spec/v1\noid x", "git lfs pull"),
    "q.csv": (b"<!DOCTYPE html>\n<html>", "a web page"),
    "q.json": (b'[\n{"user_id": "u"},\n', "is cut short"),
    "r.json": (json.dumps({"data": [{"a": 1}], "rows": [{"a": 2}]}).encode(), "jq -c '.data[]'"),
    "r2.json": (json.dumps({"data": [{"a": 1}], "test": [{"a": 2}]}).encode(), "jq -c '.data[]'"),
    "s.json": (b'{"user_id": "u"}\n{"user_id": x}\n', 'column "chosen" is missing'),
    "t.jsonl": (codecs.BOM_UTF16_LE + b"{\0}", "begins as UTF-16 and is damaged"),
    "u.jsonl": (codecs.BOM_UTF32_LE + b"{\0", "begins as UTF-32 and is damaged"),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_other_kinds_of_files_are_named(tmp_path, name):
    content, told = OTHER_KINDS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PolyprefError) as caught:
        read([tmp_path / name])
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_compressed_files_are_known_by_their_content(tmp_path, name):
    buffer = io.BytesIO()
    pl.DataFrame(PAIRS).write_csv(buffer)
    (tmp_path / name).write_bytes(gzip.compress(LINES.encode() if name == "p.jsonl" else buffer.getvalue()))
    assert len(read([tmp_path / name]).comparisons) == ROWS


WORDS: dict[str | None, list[str]] = {
    "A": ["A better than B", "A is much better than B", "prefer A over B", "B is worse", "A preferred to B", "B loses"],
    "B": ["B better than A", "Response B is slightly better than A", "A worse than B", "A is clearly worse"],
    "tie": [
        "Neutral",
        "Responses are about the same",
        "A same as B",
        "A and B are equal",
        "roughly equal",
        "A equals B",
    ],
    None: [
        "A is not better",
        "better",
        "A and B",
        "equally better than A",
        "same A",
        "not the same",
        "C better than A",
    ],
}


@pytest.mark.parametrize(("side", "text"), [(side, text) for side, texts in WORDS.items() for text in texts])
def test_comparisons_in_words(side, text):
    found = meaning(text)
    assert (found.side if isinstance(found, Said) else found) == side


# What a row holds beside the person -> the judgements of the first rows when the advice is followed.
ADVISED: dict[str, tuple[Any, list[str]]] = {
    "model_1_response": (
        lambda k: {"prompt": f"q{k}", "model_1_response": f"a{k}", "model_2_response": f"b{k}"}
        | {"preference": alternately(k, "model_1", "model_2", "tie")},
        ["a0>b0", "b1>a1", "a2=b2"],
    ),
    "responses by model": (
        lambda k: {"prompt": f"q{k}", "gpt_response": f"a{k}", "llama_response": f"b{k}"}
        | {"winner": alternately(k, "gpt", "llama", "tie")},
        ["a0>b0", "b1>a1", "a2=b2"],
    ),
    "a is better": (
        lambda k: {"prompt": f"q{k}", "response_a": f"a{k}", "response_b": f"b{k}", "a_is_better": bool(k % 2)},
        ["b0>a0", "a1>b1"],
    ),
    "the index of the best": (
        lambda k: {"prompt": f"q{k}", "responses": [f"a{k}", f"b{k}"], "best": k % 2},
        ["a0>b0", "b1>a1"],
    ),
    "feedback of a product": (
        lambda k: {"input": f"q{k}", "output": f"a{k}", "user_feedback": alternately(k // 3, "up", "down")},
        ["a0>|", "a1>|", "a2>|", "|>a3"],
    ),
    "a chat product's log": (
        lambda k: {"message": f"q{k}", "reply": f"a{k}", "feedback": alternately(k // 3, "up", "down")},
        ["a0>|", "a1>|", "a2>|", "|>a3"],
    ),
    "a chat product's log, sides": (
        lambda k: {"user_message": f"q{k}", "bot_reply": f"a{k}", "thumb": alternately(k // 3, "up", "down")},
        ["a0>|", "a1>|", "a2>|", "|>a3"],
    ),
    "a log of requests": (
        lambda k: {"task": f"q{k}", "reply_text": f"a{k}", "thumb": alternately(k // 3, "up", "down")},
        ["a0>|", "a1>|", "a2>|", "|>a3"],
    ),
    "an event log": (
        lambda k: {"properties.input": f"q{k}", "properties.output": f"a{k}"}
        | {"properties.thumb": alternately(k // 3, "up", "down")},
        ["a0>|", "a1>|", "a2>|", "|>a3"],
    ),
    "HelpSteer2": (
        lambda k: {"prompt": f"q{k // 2}", "response": f"{'ab'[k // 3 % 2]}{k % 3}", "helpfulness": 4 - k // 3}
        | {"prompt": f"q{k % 3}"},
        ["a0>b0"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVISED)
def test_the_advice_reads_the_file(tmp_path, capsys, name):
    make, expected = ADVISED[name]
    path = saved(tmp_path, [{"user_id": f"u{k % 3}"} | make(k) for k in range(ROWS)])
    assert main(["check", str(path)]) == 2
    told = capsys.readouterr().err
    flags = shlex.split(told[told.index("--columns ", told.index("map yours")) :].strip().rstrip("."))
    flags = [flag.rstrip(",") for flag in flags]
    end = next((at for at, flag in enumerate(flags) if "=" not in flag and not flag.startswith("--")), len(flags))
    labels = flags[flags.index("--labels") + 1] if "--labels" in flags else ""
    columns = [flag for flag in flags[1:end] if flag != "--labels" and flag != labels]
    reading = read([path], ReadOptions(columns=parse_columns(columns), labels=labels))
    assert outcomes(reading)[: len(expected)] == expected
    assert "" not in prompts(reading)
    assert main(["check", str(path), *flags[:end]]) == 0


def test_a_published_set_is_named_with_a_command_that_works(tmp_path, capsys):
    rows = [
        {"conversation_id": f"c{k // 4}", "user_id": f"u{k // 8}", "turn": 0, "within_turn_id": k % 4}
        | {"user_prompt": f"q{k // 4}", "model_response": f"a{k}", "score": k % 4, "if_chosen": k % 4 == 0}
        for k in range(32)
    ]
    assert main(["check", str(saved(tmp_path, rows))]) == 2
    told = capsys.readouterr().err
    command = shlex.split(re.search(r"polypref (convert .*)\.\n", told)[1])  # type: ignore[index]
    command[-1] = str(tmp_path / command[-1])
    assert main(command) == 0 and main(["check", command[-1]]) == 0


def test_values_within_objects_are_said_not_to_be_read(tmp_path, capsys):
    rows = [{"id": k, "data": {"prompt": "q"}, "remarks": [{"completed_by": 1}]} for k in range(ROWS)]
    assert main(["check", str(saved(tmp_path, rows))]) == 2
    assert "Values within data, remarks are not looked into" in capsys.readouterr().err


def test_a_column_of_row_numbers_is_not_offered_as_people(tmp_path, capsys):
    rows = [{"id": k, "prompt": f"q{k}", "chosen": f"a{k}", "rejected": f"b{k}"} for k in range(ROWS)]
    assert main(["check", str(saved(tmp_path, rows))]) == 2
    assert "user_id=id" not in capsys.readouterr().err


def test_a_label_beside_chosen_and_rejected_is_told(tmp_path):
    rows = [row | {"label": k % 2} for k, row in enumerate(PAIRS)]
    (rule,) = read([saved(tmp_path, rows)]).rules
    assert rule == 'column "label" holds "0" (6) and "1" (6) and is not used: chosen and rejected say who won'
