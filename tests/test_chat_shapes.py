"""Shapes of prompts and responses that products and libraries write: read, or refused; nothing vanishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polypref import PolyprefError, read
from polypref.data.read import Reading
from polypref.errors import InputError


def written(folder: Path, rows: list[dict], kind: str = "jsonl") -> Path:
    path = folder / f"prefs.{kind}"
    if kind == "parquet":
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    elif kind == "csv":
        cells = [{key: one if isinstance(one, str) else json.dumps(one) for key, one in row.items()} for row in rows]
        pl.DataFrame(cells).write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def told(reading: Reading) -> list[tuple[str, str, str]]:
    """Each judgement as (prompt, chosen, rejected)."""
    data, pool = reading.comparisons, reading.comparisons.responses
    texts = pool.texts_R
    return [
        (pool.prompt_text(int(pool.prompt_R[c])), texts[int(c)], texts[int(r)])
        for c, r in zip(data.chosen_N, data.rejected_N, strict=True)
    ]


def role(name: str, text: Any) -> dict:
    return {"role": name, "content": text}


def part(text: str) -> list[dict]:
    return [{"type": "text", "text": text}]


ASK, YES, NO = "Is it red?", "Yes, red.", "No, blue."
CHAT = f"user: {ASK}"
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
CALLED = '[{"function":{"arguments":"{}","name":"look"}}]'

READ: dict[str, tuple[dict, tuple[str, str, str]]] = {
    "role and content": (
        {"prompt": [role("user", ASK)], "chosen": [role("assistant", YES)], "rejected": [role("assistant", NO)]},
        (CHAT, YES, NO),
    ),
    "role and value": (
        {
            "prompt": [{"role": "user", "value": ASK}],
            "chosen": [{"role": "assistant", "value": YES}],
            "rejected": [{"role": "assistant", "value": NO}],
        },
        (CHAT, YES, NO),
    ),
    "from and value, conversations and one message each": (
        {
            "conversations": [{"from": "human", "value": ASK}],
            "chosen": {"from": "gpt", "value": YES},
            "rejected": {"from": "gpt", "value": NO},
        },
        (CHAT, YES, NO),
    ),
    "from and value, the prompt shared": (
        {
            "chosen": [{"from": "human", "value": ASK}, {"from": "gpt", "value": YES}],
            "rejected": [{"from": "human", "value": ASK}, {"from": "gpt", "value": NO}],
        },
        (CHAT, YES, NO),
    ),
    "speaker and text": (
        {
            "prompt": [{"speaker": "human", "text": ASK}],
            "chosen": [{"speaker": "bot", "text": YES}],
            "rejected": [{"speaker": "bot", "text": NO}],
        },
        (CHAT, YES, NO),
    ),
    "role and parts": (
        {
            "prompt": [{"role": "user", "parts": [{"text": ASK}]}],
            "chosen": [{"role": "model", "parts": [{"text": YES}]}],
            "rejected": [{"role": "model", "parts": [{"text": NO}]}],
        },
        (CHAT, YES, NO),
    ),
    "contents in parts": (
        {
            "prompt": [role("user", part(ASK))],
            "chosen": [role("assistant", part(YES))],
            "rejected": [role("assistant", part(NO))],
        },
        (CHAT, YES, NO),
    ),
    "parts without a role": ({"prompt": ASK, "chosen": part(YES), "rejected": part(NO)}, (ASK, YES, NO)),
    "OpenAI's preferences": (
        {
            "input": {"messages": [role("user", ASK)], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [role("assistant", YES)],
            "non_preferred_output": [role("assistant", NO)],
        },
        (CHAT, YES, NO),
    ),
    "choices of a server": (
        {
            "prompt": ASK,
            "chosen": {"index": 0, "message": role("assistant", YES), "finish_reason": "stop"},
            "rejected": {"index": 1, "message": role("assistant", NO), "finish_reason": "stop"},
        },
        (ASK, YES, NO),
    ),
    "messages and one message each": (
        {"messages": [role("user", ASK)], "chosen": role("assistant", YES), "rejected": role("assistant", NO)},
        (CHAT, YES, NO),
    ),
    "an object with a score": (
        {"prompt": ASK, "chosen": {"text": YES, "score": 9}, "rejected": {"text": NO, "score": 1}},
        (ASK, YES, NO),
    ),
    "lists of one text": ({"prompt": [ASK], "chosen": [YES], "rejected": [NO]}, (ASK, YES, NO)),
    "lists of texts, the prompt shared": ({"chosen": [ASK, YES], "rejected": [ASK, NO]}, (CHAT, YES, NO)),
    "lists of texts that repeat the prompt": (
        {"prompt": ASK, "chosen": [ASK, YES], "rejected": [ASK, NO]},
        (ASK, YES, NO),
    ),
    "turns of both in columns of their own": (
        {"prompt": [ASK, "Sure?"], "chosen": ["Hm.", YES], "rejected": ["Hm.", NO]},
        (f"user: {ASK}\nassistant: Hm.\nuser: Sure?", YES, NO),
    ),
    "a call of a tool": (
        {"prompt": [role("user", ASK)], "chosen": [CALL], "rejected": [role("assistant", NO)]},
        (CHAT, CALLED, NO),
    ),
    "a ranking of objects": (
        {
            "prompt": ASK,
            "completions": [{"model": "m", "response": NO, "score": 1}, {"model": "n", "response": YES, "score": 9}],
            "ranking": [2, 1],
        },
        (ASK, YES, NO),
    ),
    "a ranking of messages": (
        {
            "prompt": ASK,
            "responses": [[role("assistant", YES)], [role("assistant", NO)]],
            "ranking": [1, 2],
        },
        (ASK, YES, NO),
    ),
    "hh-rlhf": (
        {"chosen": f"\n\nHuman: {ASK}\n\nAssistant: {YES}", "rejected": f"\n\nHuman: {ASK}\n\nAssistant: {NO}"},
        (f"\n\nHuman: {ASK}\n\nAssistant:", f" {YES}", f" {NO}"),
    ),
}

REFUSED: dict[str, tuple[dict, str]] = {
    "an object with two texts": (
        {"prompt": ASK, "chosen": {"text": YES, "response": NO}, "rejected": NO},
        "which text counts is not clear",
    ),
    "an object without text": ({"prompt": ASK, "chosen": {"score": 3}, "rejected": NO}, "none of text, content"),
    "numbers": ({"prompt": ASK, "chosen": [1, 2], "rejected": NO}, "a part of type int is not text"),
    "an empty list": ({"prompt": ASK, "chosen": [], "rejected": NO}, "an empty list"),
    "an image": (
        {"prompt": [role("user", [{"type": "image"}])], "chosen": YES, "rejected": NO},
        "a part of type image is not text",
    ),
    "two texts after a prompt": ({"prompt": ASK, "chosen": [YES, "And?"], "rejected": [NO, "And?"]}, "who says which"),
    "an even number of turns as a prompt": (
        {"prompt": [ASK, YES], "chosen": "Thanks.", "rejected": "No."},
        "would be the assistant's",
    ),
    "ranked objects with two texts": (
        {"prompt": ASK, "responses": [{"text": YES, "answer": YES}, {"text": NO, "answer": NO}], "ranking": [1, 2]},
        "both text and answer",
    ),
    "ranked numbers": ({"prompt": ASK, "responses": [1, 2], "ranking": [1, 2]}, "1 is not a text"),
}


class TestShapes:
    @pytest.mark.parametrize("kind", ["jsonl", "parquet"])
    @pytest.mark.parametrize("name", READ)
    def test_read(self, tmp_path, name, kind):
        row, expected = READ[name]
        rows = [{"user_id": f"u{k}", **row} for k in range(3)]
        if kind == "parquet" and "tool" in name:  # no empty objects in Parquet
            rows = json.loads(json.dumps(rows))
        reading = read([written(tmp_path, rows, kind)])
        assert told(reading) == [expected] * 3
        assert not [problem for problem in reading.problems if not problem.kept]

    @pytest.mark.parametrize("name", REFUSED)
    def test_refused(self, tmp_path, name):
        row, reason = REFUSED[name]
        path = written(tmp_path, [{"user_id": f"u{k}", **row} for k in range(3)])
        with pytest.raises(InputError) as caught:
            read([path])
        assert reason in str(caught.value) and f"line 1 of {path}" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", [n for n in READ if n.startswith(("role", "from", "speaker", "turns"))])
    def test_lists_as_texts_in_csv(self, tmp_path, name):
        row, expected = READ[name]
        assert told(read([written(tmp_path, [{"user_id": "u", **row}] * 3, "csv")])) == [expected] * 3

    def test_lists_as_python_prints_them(self, tmp_path):
        turns = {"prompt": [role("user", ASK)], "chosen": [role("assistant", "It's")], "rejected": [role("a", None)]}
        rows = [{"user_id": "u"} | {key: str(value) for key, value in turns.items()}]
        pl.DataFrame(rows).write_csv(tmp_path / "p.csv")
        assert told(read([tmp_path / "p.csv"])) == [(CHAT, "It's", "")]

    def test_lists_as_numpy_prints_them(self, tmp_path):
        rows = {
            "prompt": str(np.array([role("user", ASK), role("assistant", "x"), role("user", "y")])),
            "chosen": str(np.array([role("assistant", "It's")])),
            "rejected": str(np.array([role("assistant", "a 'b' c")])),
        }
        pl.DataFrame([{"user_id": "u"} | rows]).write_csv(tmp_path / "p.csv")
        ((prompt, *texts),) = told(read([tmp_path / "p.csv"]))
        assert prompt == f"user: {ASK}\nassistant: x\nuser: y" and texts == ["It's", "a 'b' c"]
        pair = {"chosen": str(np.array([ASK, "a'b", 'c "d']))} | {"rejected": str(np.array([ASK, "e", "f"]))}
        pl.DataFrame([{"user_id": "u"} | pair]).write_csv(tmp_path / "p.csv")
        with pytest.raises(InputError, match="a list of 3 texts"):  # three, and not one joined text
            read([tmp_path / "p.csv"])

    def test_what_numpy_leaves_out_is_refused(self, tmp_path):
        cut = "[{'role': 'user', 'content': 'x'} ... {'role': 'assistant', 'content': 'y'}]"
        pl.DataFrame([{"user_id": "u", "prompt": ASK, "chosen": cut, "rejected": NO}]).write_csv(tmp_path / "p.csv")
        with pytest.raises(InputError, match="expected a text, an object with a text, or a JSON list"):
            read([tmp_path / "p.csv"])

    def test_keys_that_are_not_read_are_said(self, tmp_path):
        row, _ = READ["an object with a score"]
        (problem,) = read([written(tmp_path, [{"user_id": "u", **row}])]).problems
        assert problem.kept and '"score"' in problem.text


class TestMixed:
    def test_an_object_late_in_a_column_of_texts(self, tmp_path):
        rows: list[dict[str, Any]] = [
            {"user_id": f"u{k % 5}", "prompt": ASK, "chosen": f"{YES} {k}", "rejected": NO} for k in range(1200)
        ]
        rows[1100]["chosen"] = {"text": "late", "score": 9}
        rows[1150]["chosen"] = {"score": 9}
        rows[7]["rejected"] = '{"an": "answer"}'
        reading = read([written(tmp_path, rows)])
        found = told(reading)
        assert found[1100] == (ASK, "late", NO) and found[7][2] == '{"an": "answer"}'
        lost = [problem for problem in reading.problems if not problem.kept]
        assert [(problem.line, problem.count) for problem in lost] == [(1151, 1)] and len(found) == 1199

    def test_one_answer_that_is_a_list_is_an_answer(self, tmp_path):
        rows = [{"user_id": "u", "prompt": ASK, "chosen": YES, "rejected": NO} for _ in range(3)]
        rows[1]["chosen"] = '["a", "b"]'
        assert [chosen for _, chosen, _ in told(read([written(tmp_path, rows)]))] == [YES, '["a", "b"]', YES]

    def test_a_chat_with_a_rating(self, tmp_path):
        rows = [
            {"user_id": "u", "messages": [role("user", ASK), role("assistant", text)], "rating": rating}
            for text, rating in ((YES, 5), (NO, 1))
        ]
        assert told(read([written(tmp_path, rows)])) == [(CHAT, YES, NO)]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "[", '{"x"', "[{", "\n\nHuman: q"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "text", "messages", "tool_calls", "score"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


class TestAnything:
    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_every_row_is_read_or_said_and_no_structure_becomes_text(self, tmp_path, data):
        """Values of any JSON type in the text columns of a few rows."""
        shape = data.draw(st.sampled_from(["pairs", "rankings", "ratings"]))
        names = {"pairs": ["chosen", "rejected"], "rankings": ["responses"], "ratings": ["response"]}[shape]
        rows = [
            {"user_id": "u", "prompt": data.draw(VALUES), **{name: data.draw(VALUES) for name in names}}
            | ({"ranking": [1, 2]} if shape == "rankings" else {"rating": k} if shape == "ratings" else {})
            for k in range(data.draw(st.integers(1, 4)))
        ]
        try:
            reading = read([written(tmp_path, rows)])
        except PolyprefError as error:
            assert "\n" not in str(error)
            return
        lost = sum(problem.count for problem in reading.problems if not problem.kept)
        assert reading.rows_read == len(rows)
        if shape == "pairs":
            assert len(reading.comparisons) + lost == len(rows)
        brackets = tuple(text for row in rows for text in _texts_in(row) if text[:1] in ("[", "{"))
        for text in reading.comparisons.responses.texts_R:
            assert not text.startswith(("[", "{")) or text.startswith(brackets) or "tool_calls" in str(rows), text
        assert np.isfinite(reading.comparisons.chosen_N).all()


def _texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for one in inner for text in _texts_in(one)]
