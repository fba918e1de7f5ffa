"""``rank`` and ``reward``, which every scorer has: plain texts in, and the same answers as ``score``."""

from __future__ import annotations

from dataclasses import is_dataclass

import numpy as np
import polars as pl
import pytest

from contract_cases import NAMES, each, fitted, small
from polypref.bounds.gate import DROPPED, Bounded, Gate, Limits
from polypref.bounds.safety_cache import Safety
from polypref.comparisons import Responses
from polypref.errors import InputError, SettingsError
from polypref.learners.protocol import PERSONAL, POPULATION, SOURCES, RanksTexts, Scores
from polypref.scorers import SCORERS

PROMPT = "How do I boil an egg?"
TEXTS = ["now boil it", "please boil it, well", "please", "now boil it"]
CHAT = [{"role": "user", "content": PROMPT}]


def test_every_scorer_has_them_and_a_short_repr():
    assert len(SCORERS) > 15
    for cls in SCORERS.values():
        assert issubclass(cls, RanksTexts), cls
        assert is_dataclass(cls)
        assert cls.__repr__ is RanksTexts.__repr__, f"{cls.__name__}: @dataclass(repr=False)"


@each
def test_the_order_is_that_of_the_scores(name):
    scorer = fitted(name)
    for user in (small().users.ids[0], "a stranger", None):
        pool, place_Q = Responses.of([PROMPT] * 4, TEXTS)
        scores = scorer.score(pool, [user] * 4, place_Q)
        ranked = scorer.rank(user, PROMPT, TEXTS)
        assert sorted(one.place for one in ranked) == [0, 1, 2, 3], "duplicates are kept"
        for one in ranked:
            assert one.text == TEXTS[one.place]
            assert one.reward == scores.value_Q[one.place]
            assert one.source == SOURCES[scores.source_Q[one.place]]
        assert [one.reward for one in ranked] == sorted(scores.value_Q, reverse=True)
        equal = [one.place for one in ranked if one.place in (0, 3)]
        assert equal == [0, 3], "equal rewards stay in the given order"
        assert scorer.reward(user, PROMPT, TEXTS[1]) == pytest.approx(scores.value_Q[1], rel=1e-4, abs=1e-5)


def test_chats_series_and_empty_lists():
    scorer = fitted("pooled")
    assert [one.text for one in scorer.rank(None, CHAT, TEXTS)] == [one.text for one in scorer.rank("x", CHAT, TEXTS)]
    assert scorer.rank("x", PROMPT, pl.Series(TEXTS)) == scorer.rank("x", PROMPT, TEXTS)
    assert scorer.rank("x", PROMPT, []) == []


@pytest.mark.parametrize(
    ("user", "prompt", "texts", "words"),
    [
        ("u", PROMPT, "one text", "expected a list of texts"),
        ("u", PROMPT, ["a", None], "response"),
        ("u", PROMPT, ["a\0"], "NUL"),
        ("", PROMPT, ["a"], "user id"),
        ("u", None, ["a"], "prompt"),
        ("u", 7, ["a"], "prompt"),
    ],
)
def test_what_cannot_be_asked_is_one_error(user, prompt, texts, words):
    with pytest.raises(InputError, match=words):
        fitted("pooled").rank(user, prompt, texts)


class Table:
    """Rewards by text; ``own`` for everybody who has an id."""

    def __init__(self, shared: dict[str, float], own: dict[str, float] | None = None):
        self.shared, self.own = shared, own

    def score(self, responses, user_ids, response_Q=None):
        place_Q = np.arange(len(responses)) if response_Q is None else np.asarray(response_Q)
        texts = [responses.texts_R[int(at)] for at in place_Q]
        ids = [None] * len(texts) if user_ids is None else list(user_ids)
        known = [self.own is not None and user is not None for user in ids]
        value = [(self.own if own else self.shared)[text] for text, own in zip(texts, known, strict=True)]
        return Scores(np.array(value, float), np.where(known, PERSONAL, POPULATION).astype(np.int8))


def test_within_bounds_only_what_passes_is_ranked():
    safety = Safety(Table({"a": 1.0, "b": -1.0, "c": 2.0}))
    scorer = Table(dict.fromkeys("abc", 0.0), {"a": 1.0, "b": 9.0, "c": 2.0})
    bounded = Bounded(scorer, safety, Gate({"": 0.0}), Limits(most_candidates=3))
    ranked = bounded.rank("u", PROMPT, ["a", "b", "c"])
    assert [(one.text, one.reward, one.source, one.place) for one in ranked] == [
        ("c", 2.0, "personal", 2),
        ("a", 1.0, "personal", 0),
    ]
    assert bounded.rank_slate(Responses.of([PROMPT] * 3, ["a", "b", "c"])[0], "u").dropped == (1,)
    assert bounded.reward("u", PROMPT, "b") == DROPPED
    assert bounded.reward("u", PROMPT, "c") == 2.0
    assert bounded.rank("u", PROMPT, ["b"]) == [], "abstain"
    assert [one.source for one in bounded.rank(None, PROMPT, ["a", "c"])] == ["population"] * 2
    with pytest.raises(SettingsError, match="slate of 4"):
        bounded.rank("u", PROMPT, ["a", "b", "c", "a"])


def test_a_repr_is_short_and_says_what_it_was_fitted_on():
    for name in NAMES:
        line = repr(fitted(name))
        assert line.startswith(f"<{type(fitted(name)).__name__}: kind ")
        assert "judgements" in line
        assert "8 users" in line
        assert len(line) < 200
        assert "\n" not in line
