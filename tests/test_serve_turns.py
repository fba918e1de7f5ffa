"""Conversations in a chat template, read back as messages whatever the template, in time that grows with the length."""

from __future__ import annotations

import time

import pytest

from polypref.serve.dialects import turns
from serve_cases import CHATML, TEMPLATES


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_read_back(name):
    text = TEMPLATES[name].format("why?", "Because.\n\nSo <b>it</b> is.")
    found = turns.cut(turns.without_begins(text))
    assert (found.prompt, found.text, found.within) == ("why?", "Because.\n\nSo <b>it</b> is.", found.text)
    begun = TEMPLATES[name].split("{1}")[0].format("why?")
    assert turns.prompt_of(begun) == "why?"


def test_marks_are_taken_off_in_a_time_that_grows_with_the_length():
    assert (
        turns.without_ends("a b </s> \n<pad><pad>\n") == "a b " and turns.without_begins(" <s> <pad>a <s>") == "a <s>"
    )
    assert turns.without_ends("a \n") == "a \n" and turns.without_begins(" a") == " a"
    begun = time.process_time()
    for text in (" " * 900_000, "</s>" * 200_000, "<|im_start|>user\n" * 50_000, "<|im_start|>" + "a" * 900_000):
        turns.without_ends(f"a{text}b"), turns.without_ends(text), turns.without_begins(text), turns.prompt_of(text)
    assert time.process_time() - begun < 10  # quadratic: minutes


def test_a_conversation_stays_a_conversation():
    text = "<|im_start|>system\nBe kind.<|im_end|>\n" + CHATML.format("one", "two") + CHATML.format("three", "four")
    found = turns.cut(text)
    assert found.prompt == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    assert found.text == "four" and found.within.startswith("two") and found.within.endswith("four")
    assert turns.prompt_of("no marks at all") == "no marks at all"
