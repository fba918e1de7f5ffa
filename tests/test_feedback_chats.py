"""``convert`` of products whose records hold the texts: Open WebUI and Helicone; and of Portkey."""

from __future__ import annotations

import json

import pytest

from feedback_files import (
    AGAIN,
    chat,
    message,
    pairs,
    rating,
    request,
    saved,
)
from polypref.data.feedback.helicone import Helicone
from polypref.data.feedback.judgements import LATEST, NO_ANSWER, NO_PROMPT, NO_USER, SINGLE
from polypref.data.feedback.open_webui import NO_CHAT, OpenWebUI
from polypref.data.feedback.portkey import Portkey
from polypref.errors import InputError, NotEnoughData

# ---------------------------------------------------------------------------------------------------------- Open WebUI


def test_a_liked_answer_is_preferred_to_its_siblings(tmp_path):
    """The prompt is the chat up to the question, not only the question."""
    about = chat(answers=("Boil it.", "Ask a cook.", "Fry it."))
    found = OpenWebUI().convert([saved(tmp_path / "feedback.json", [rating("f1", about, "a0", 1)])])
    assert [row[2:] for row in pairs(found)] == [("Boil it.", "Ask a cook."), ("Boil it.", "Fry it.")]
    asked = json.loads(found.table["prompt"][0])
    assert [(one["role"], one["content"]) for one in asked] == [
        ("user", "Hello"), ("assistant", "Hi there"), ("user", "How do I boil an egg?"),
    ]  # fmt: skip
    assert (found.rows, found.used, found.left_out) == (1, 1, {})


def test_a_disliked_answer_is_worse_than_its_siblings_and_a_string_is_a_rating(tmp_path):
    found = OpenWebUI().convert([saved(tmp_path / "f.json", [rating("f1", chat(), "a0", "-1")])])
    assert [row[2:] for row in pairs(found)] == [("Ask a cook.", "Boil it.")]


def test_two_rated_siblings_are_one_comparison_by_thumb_or_detail(tmp_path):
    about = chat()
    one = [rating("f1", about, "a0", 1), rating("f2", about, "a1", -1)]
    found = OpenWebUI().convert([saved(tmp_path / "one.json", one)])
    assert ([row[2:] for row in pairs(found)], found.used) == ([("Boil it.", "Ask a cook.")], 2)
    detailed = [
        rating("f1", about, "a0", 1, data={"details": {"rating": 6}}),
        rating("f2", about, "a1", 1, data={"details": {"rating": 9}}),
    ]
    found = OpenWebUI().convert([saved(tmp_path / "two.json", detailed)])
    assert ([row[2:] for row in pairs(found)], found.used) == ([("Ask a cook.", "Boil it.")], 2)


def test_two_liked_siblings_say_nothing_about_each_other(tmp_path):
    """By the rule of serving: equal values are no comparison. They are still likes."""
    about = chat()
    path = saved(tmp_path / "f.json", [rating("f1", about, "a0", 1), rating("f2", about, "a1", 1)])
    found = OpenWebUI().convert([path])
    assert found.table["response"].to_list() == ["Boil it.", "Ask a cook."]
    assert found.table["thumb"].to_list() == ["up", "up"]
    assert found.remarks[0].startswith("every thumb is a like")
    with pytest.raises(NotEnoughData, match="2 a like, dislike or rating of one answer; --form single"):
        OpenWebUI(form="pairs").convert([path])


def test_messy_feedback_is_counted(tmp_path):
    gone = chat(key="c2")
    del gone["chat"]["history"]["messages"]["a1"]
    empty = chat(key="c3", answers=("", "Ask a cook."))
    circle = chat(key="c4")
    circle["chat"]["history"]["messages"]["q0"]["parentId"] = "q1"
    failed = chat(key="c5")
    failed["chat"]["history"]["messages"]["a1"]["error"] = {"content": "timeout"}
    rows = [
        rating("f1", chat(), "a0", 1),
        rating("f1", chat(), "a0", 1),  # a page again
        rating("f2", gone, "a0", 1),  # the sibling was deleted: a like of one answer
        rating("f3", gone, "a1", 1),  # the rated message was deleted
        rating("f4", empty, "a0", 1),
        rating("f5", chat(), "a0", 1, user=None),
        rating("f6", chat(key="c6"), "a0", None),
        rating("f7", chat(key="c7"), "a0", 1, snapshot=None),
        rating("f8", chat(key="c8"), "a0", 1, type="survey"),
        rating("f9", circle, "a0", 1),
        rating("f10", failed, "a0", -1, user="u2"),
        rating("f11", chat(), "a0", -1, updated_at=1_760_000_900),  # changed their mind
    ]
    found = OpenWebUI().convert([saved(tmp_path / "f.jsonl", rows, lines=True)])
    assert found.left_out == {
        SINGLE: 2, NO_CHAT: 2, NO_ANSWER: 1, NO_USER: 1, "no rating": 1, "of another type than a rating": 1, AGAIN: 1,
        LATEST: 1,
    }  # fmt: skip
    assert found.used == 2 and found.rows == 12
    assert [row[2:] for row in pairs(found)] == [("Boil it.", "Ask a cook."), ("Ask a cook.", "Boil it.")]


def test_chats_with_ratings_are_read_like_feedback(tmp_path):
    about = chat()
    about["chat"]["history"]["messages"]["a0"]["annotation"] = {"rating": 1, "reason": "x", "tags": []}
    found = OpenWebUI().convert([saved(tmp_path / "chats.json", [about, chat(user="u2", key="c2")])])
    assert (pairs(found)[0][2:], found.rows) == (("Boil it.", "Ask a cook."), 1)


def test_an_edited_answer_is_said(tmp_path):
    about = chat()
    about["chat"]["history"]["messages"]["a0"]["originalContent"] = "Boil."
    found = OpenWebUI().convert([saved(tmp_path / "f.json", [rating("f1", about, "a0", 1)])])
    assert found.remarks == ("1 rated answer had been edited; the text is the edited one",)


# ------------------------------------------------------------------------------------------------- Helicone and Portkey


def test_ratings_of_requests(tmp_path):
    rows = [
        request("1", "ann", "Q?", "one", 1),
        request("2", "ann", "Q?", "two", 0),
        request("2", "ann", "Q?", "two", 0),
        request("3", None, "Q?", "three", 1),
        request("4", "bob", "Q?", "four", None),
        request("5", "bob", "Q?", "five", None, feedback_rating=True),
        request("6", "bob", [], "six", 1),
        request("7", "bob", "Q?", None, 1),
        request("8", "bob", "Q?", "eight", 1, response_body=None, signed_body_url="https://s3"),
    ]
    found = Helicone().convert([saved(tmp_path / "r.json", {"data": rows, "error": None})])
    assert pairs(found) == [("ann", "Q?", "one", "two")]
    assert found.left_out == {NO_ANSWER: 2, AGAIN: 1, NO_USER: 1, "no rating": 1, NO_PROMPT: 1, SINGLE: 1}
    assert found.rows == 9


def test_helicones_own_tool_writes_a_comma_too_many(tmp_path):
    rows = [request("1", "ann", "Q?", "one", 1), request("2", "ann", "Q?", "two", 0)]
    path = tmp_path / "output.json"
    path.write_text("[\n" + "".join(json.dumps(row, indent=2) + ",\n" for row in rows) + "]\n")
    assert pairs(Helicone().convert([str(path)])) == [("ann", "Q?", "one", "two")]
    path.write_text(path.read_text().removesuffix("]\n"))
    with pytest.raises(InputError, match="is cut short: its list is not closed"):
        Helicone().convert([str(path)])


def test_ratings_of_portkey(tmp_path):
    logs = [
        {"trace_id": f"t{at}", "request": {"body": {"messages": [{"role": "user", "content": "Q?"}]}},
         "response": {"body": {"choices": [{"message": {"role": "assistant", "content": f"a{at}"}}]}},
         "metadata": {"_user": "ann"}}
        for at in range(3)
    ]  # fmt: skip
    told = [{"trace_id": f"t{at}", "value": value, "weight": 1} for at, value in enumerate((7, -3, 2))]
    paths = [saved(tmp_path / "l.jsonl", logs, lines=True), saved(tmp_path / "f.json", told)]
    assert [row[2:] for row in pairs(Portkey().convert(paths))] == [("a0", "a1"), ("a0", "a2"), ("a2", "a1")]


def test_a_message_may_lack_anything(tmp_path):
    about = chat()
    about["chat"]["history"]["messages"]["x"] = message("x", "q1", [], "assistant", None)
    about["chat"]["history"]["messages"]["y"] = None
    found = OpenWebUI().convert([saved(tmp_path / "f.json", [rating("f1", about, "a0", 1)])])
    assert found.table.height == 1
