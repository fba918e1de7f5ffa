"""Small columns are read in Python, large ones by Polars: the answers, and the errors, are the same."""

from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polypref import content
from polypref.comparisons import Responses, Users, from_columns
from polypref.content import BAR
from polypref.errors import InputError

PIECES = ["", "7", "7.0", "-7.00", "7.", ".0", "70", "1.50", "٣.0", "३.00", "a\0b", "\0", BAR, "é", "e\u0301", "\ud800"]
PIECES += ["7.0\n", "x.0", "💡 two", "[]", "\r\n"]
TEXT = st.one_of(st.sampled_from(PIECES), st.text(max_size=6))
TEXTS = st.lists(TEXT, max_size=7)
CHAT = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}), max_size=2)
PROMPTS = st.one_of(TEXT, CHAT)


def both(ask):
    """What ``ask`` gives, or its error, the fast way and the general way."""
    found = []
    for few in (content.FEW, -1):
        with patch.object(content, "FEW", few):
            try:
                found.append(ask())
            except (InputError, TypeError, UnicodeEncodeError) as error:
                found.append((type(error), str(error)))
    return found


def is_text(one):
    return not any("\ud800" <= character <= "\udfff" for character in one)


def parts(pool):
    """All of a pool, with types and names."""
    series = [(one.name, one.dtype, one.to_list()) for one in (pool.prompts, pool.texts_R)]
    arrays = [pool.prompt_R, pool.is_chat_P, pool.lengths_R, pool.bar_R, pool.identity_R, pool.keys_R]
    return series, [(one.dtype, one.tolist()) for one in arrays], pool.chat_P is None


def of(*asked):
    pool, code_Q = Responses.of(*asked)
    return parts(pool), code_Q.dtype, code_Q.tolist()


def test_the_general_way_is_another_way():
    with patch.object(content, "_fine", side_effect=AssertionError), patch.object(content, "FEW", -1):
        Responses.of(["p"], ["t"])
    with patch.object(content, "_fine", side_effect=AssertionError), pytest.raises(AssertionError):
        Responses.of(["p"], ["t"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(PROMPTS, TEXT), max_size=7))
@example([("p", "t"), ("q", "t"), ("p", "t"), ("p", "")])
@example([([{"role": "user", "content": "p"}], "t"), ('[{"content":"p","role":"user"}]', "t")])
def test_pools(rows):
    fast, general = both(lambda: of([prompt for prompt, _ in rows], [text for _, text in rows]))
    assert fast == general


@settings(max_examples=100, deadline=None)
@given(PROMPTS, st.lists(TEXT, min_size=1, max_size=7))
@example("p", ["t", "t", "u"])
@example([{"role": "user", "content": "p"}], ["t", "t", "u"])
def test_a_slate_is_a_pool_of_one_prompt(prompt, texts):
    def slate():
        pool, code_Q = Responses.slate(prompt, texts)
        return parts(pool), code_Q.dtype, code_Q.tolist()

    found = both(slate) + both(lambda: of([prompt] * len(texts), texts))
    if isinstance(found[0][0], type):  # the same refusal; one counts one prompt, the other several
        assert len({one[0] for one in found}) == 1
    else:
        assert all(one == found[0] for one in found)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_judgements(rows):
    def columns():
        data = from_columns(*(list(column) for column in zip(*rows, strict=True)))
        numbers = [data.user_N, data.chosen_N, data.rejected_N]
        return parts(data.responses), data.users.ids.to_list(), [(one.dtype, one.tolist()) for one in numbers]

    fast, general = both(columns)
    assert fast == general


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), TEXT), max_size=6), st.booleans(), st.booleans())
def test_ids(values, nobody, as_series):
    if as_series:
        values = pl.Series("who", [one for one in values if one is None or is_text(one)], dtype=pl.String)

    def ids():
        found = content.ids(values, nobody=nobody)
        return found.name, found.dtype, found.to_list()

    fast, general = both(ids)
    assert fast == general


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), TEXT), max_size=8), st.lists(TEXT, max_size=8, unique=True))
@example([None, "a", "b"], ["b", "a"])
def test_places_of_users(wanted, known):
    known = [one for one in known if one and "\0" not in one and is_text(one)]
    users = Users(pl.Series("id", known, dtype=pl.String))
    fast, general = both(lambda: [*(found := users.index(wanted)).tolist(), str(found.dtype)])
    assert fast == general
    fast, general = both(lambda: users.with_nobody().index(content.strangers(2)).tolist())
    assert fast == general == [-1, -1]


def test_large_texts_take_the_general_way():
    assert content.are_few(pl.Series(["a"] * content.FEW))
    assert not content.are_few(pl.Series(["a"] * (content.FEW + 1)))
    assert not content.are_few(pl.Series(["a" * content.FEW_BYTES, "b" * 100]))
    pool, code_Q = Responses.slate("p", ["a", "b", "a"] * content.FEW)
    assert pool.texts_R.to_list() == ["a", "b"] and np.array_equal(code_Q[:3], [0, 1, 0])
