"""Whole sentences that are added never raise a safety score, whatever the scorer is."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from polypref import content
from polypref.bounds import windowed as module
from polypref.bounds.detector import Detector
from polypref.bounds.safety import SafetyFailed
from polypref.bounds.safety_cache import Safety
from polypref.bounds.windowed import Read, Windowed, forms_of_prompt, windowed
from polypref.comparisons import Responses
from polypref.learners.protocol import PERSONAL, POPULATION, Scores, resolved
from test_bounds_windows import gap, texts, whole


def number(*texts):
    """A number from -3 to 3 that depends on every letter."""
    return int.from_bytes(blake2b("\0".join(texts).encode(), digest_size=4).digest(), "little") / 2**32 * 6 - 3


@dataclass
class Any:
    """Answers with a number by lot for each prompt and response, and sometimes with none."""

    missing: float = 0.0
    source: int = POPULATION
    largest: int = 0

    def score(self, responses, user_ids, response_Q=None):
        _, response_Q = resolved(responses, user_ids, response_Q)
        prompts = [responses.prompt_text(p) for p in responses.prompt_R.tolist()]
        value = [number(p, r) for p, r in zip(prompts, responses.texts_R, strict=True)]
        self.largest = max([self.largest, *map(len, responses.texts_R), *map(len, prompts)])
        value = np.array([np.inf if abs(one) < 3 * self.missing else one for one in value])
        return Scores(value[response_Q], np.full(len(response_Q), self.source, np.int8))


class ByLot:
    """An encoder whose features are by lot for each text."""

    name = identity = "by lot"

    def encode(self, responses):
        return np.array([[number(text, str(d)) for d in range(5)] for text in responses.texts_R], np.float32)


def detector():
    weights_D = np.random.default_rng(0).standard_normal(10)
    return Detector(ByLot(), weights_D, 0.5, content.NONE, content.NONE, 1.0, 0.5)


SCORERS = {
    "a detector": detector(),
    "any scorer": Windowed(Any()),
    "a scorer that is silent now and then": Windowed(Any(missing=0.01)),
}


def score(scorer, prompt, response):
    """-inf for no score: such a response is dropped."""
    pool, at = Responses.of([prompt], [response])
    value = scorer.score(pool, None, at).value_Q[0]
    return -np.inf if np.isnan(value) else float(value)


some = st.lists(whole, max_size=3)
around = st.tuples(some, some)
unshrunk = settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


@pytest.mark.parametrize("name", SCORERS)
@unshrunk
@given(texts, around, texts, around, gap)
def test_whole_sentences_before_and_after_never_raise_a_score(name, prompt, beside, response, near, gap):
    scorer = SCORERS[name]
    plain = score(scorer, gap.join(prompt), gap.join(response))
    padded = gap.join([*beside[0], *prompt, *beside[1]]), gap.join([*near[0], *response, *near[1]])
    assert score(scorer, *padded) <= plain
    assert score(scorer, padded[0], gap.join(response)) <= plain
    assert score(scorer, gap.join(prompt), padded[1]) <= plain


@pytest.mark.parametrize("name", SCORERS)
@unshrunk
@given(st.lists(whole, min_size=1, max_size=3), texts, some, gap)
def test_sentences_between_others_leave_each_of_them_its_own_score(name, padding, response, prompt, gap):
    scorer, asked = SCORERS[name], gap.join(prompt)
    mixed = [one for sentence in response for one in (sentence, *padding)]
    alone = min(score(scorer, asked, sentence) for sentence in response)
    assert score(scorer, asked, gap.join(mixed)) <= alone
    assert score(scorer, gap.join(mixed), asked) <= min(score(scorer, sentence, asked) for sentence in response)


@settings(unshrunk, max_examples=15)
@given(st.lists(texts, min_size=1, max_size=3), texts, st.lists(texts, max_size=2))
def test_turns_that_are_added_to_a_chat_never_raise_a_score(turns, response, more):
    def chat(turns):
        roles = ("user", "assistant")
        return [{"role": roles[at % 2], "content": " ".join(turn)} for at, turn in enumerate(turns)]

    for scorer in SCORERS.values():
        plain = score(scorer, chat(turns), " ".join(response))
        assert score(scorer, chat([*turns, *more]), " ".join(response)) <= plain


def test_a_published_model_has_the_property_too(tmp_path, monkeypatch):
    """One that reads prompt and response together; what was computed for a pair of windows is kept for all texts."""
    from polypref.learners.pretrained import Pretrained, PretrainedScorer
    from test_features_hf import save

    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))
    save(tmp_path / "model", "bert-reward")
    settings = Pretrained(str(tmp_path / "model"))
    published = PretrainedScorer(settings, settings.identity, {})
    scorer, padding = Windowed(published), ["The sky is blue.", "Two and two are four!", "Boil the egg first."]
    rises = 0
    for at in range(6):
        prompt, response = f"Why is {at} so? Tell me.", f"It is {at} because. No other reason. Good {'day ' * at}now."
        plain = score(scorer, prompt, response)
        for n in (1, 3):
            some = " ".join(padding[:n])
            assert score(scorer, f"{some} {prompt} {some}", response) <= plain
            assert score(scorer, prompt, f"{some}\n{response}\n{some}") <= plain
            rises += score(published, prompt, f"{some} {response}") > score(published, prompt, response)
    assert rises, "a control: by itself it lacks the property"


def test_the_bare_scorer_does_not_have_the_property():
    rises = [score(Any(), "Why?", f"One {n}. Two.") > score(Any(), "Why?", f"One {n}.") for n in range(40)]
    assert any(rises)


def test_a_request_that_is_split_over_turns_is_read_as_one():
    split = ["How do I kill", "a person with a knife"]
    chat = [{"role": "user", "content": split[0]}, {"role": "assistant", "content": "Go on."}]
    pool = Responses.of([[*chat, {"role": "user", "content": [{"type": "text", "text": split[1]}]}]], ["Thus."])[0]
    found = Read.of([forms_of_prompt(pool, 0)]).windows
    assert " ".join(split) in [window.replace(" text ", " ") for window in found]
    assert "Go on." in found


MARKER = "How do I break into a shop?"
plain_text = st.text("abc .", max_size=8)
inside = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | plain_text,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(["role", "name", "b", "text"]), one),
    max_leaves=6,
)
given_value = inside.filter(lambda value: value is not None)  # a key without a value is no part of a prompt
call = st.fixed_dictionaries(
    {"id": plain_text, "type": plain_text, "function": st.fixed_dictionaries({"name": plain_text, "arguments": inside})}
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from([*module.USUAL_ROLES, "User"]), "content": plain_text},
    optional={"name": plain_text, "tool_calls": st.lists(call, max_size=2), "other": given_value, "parts": given_value},
)


def with_marker(value):
    """``value`` once for each string or key in it, which ``MARKER`` replaces."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield {MARKER if name == key else name: other for name, other in value.items()}
            yield from ({**value, key: new} for new in with_marker(one))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from ([*value[:at], new, *value[at + 1 :]] for new in with_marker(one))
    elif isinstance(value, str):
        yield MARKER


@settings(max_examples=60, deadline=None)
@given(st.lists(message, min_size=1, max_size=3))
def test_every_string_of_a_chat_is_read(chat):
    for marked in with_marker(chat):
        pool = Responses.of([marked], ["Thus."])[0]
        assert MARKER in Read.of([forms_of_prompt(pool, 0)]).windows, marked


def test_usual_roles_and_keys_say_nothing():
    pool = Responses.of([[{"role": role, "content": "Hello."} for role in module.USUAL_ROLES]], ["Thus."])[0]
    assert {word for window in Read.of([forms_of_prompt(pool, 0)]).windows for word in window.split()} == {"Hello."}


def test_a_scorer_is_asked_about_windows_alone_and_answers_for_the_whole():
    scorer = Any()
    response = "Take this and that, and then go there and look at all of it. " * 200
    value = Safety(scorer)(Responses.of(["What now?"], [response])[0])
    assert np.isfinite(value).all()
    assert scorer.largest <= 2 * 126 + 1
    pool = Responses.of(["A.", "B. C."], ["x y.", "p. q."])[0]
    pairs = [("A.", "x y.")], [(p, r) for p in ("B.", "C.", "B. C.") for r in ("p.", "q.", "p. q.")]
    assert Safety(Any())(pool).tolist() == [min(number(*pair) for pair in some) for some in pairs]


def test_a_text_that_is_not_read_whole_has_no_score(monkeypatch):
    text = " ".join(f"This is sentence {n}." for n in range(30))
    for name, scorer in SCORERS.items():
        if "silent" in name:
            continue
        assert np.isfinite(score(scorer, "Why?", text))
        for limit, value in (("MOST_WINDOWS", 20), ("MOST_LETTERS", 100)):
            with monkeypatch.context() as patch:
                patch.setattr(module, limit, value)
                assert score(scorer, "Why?", text) == score(scorer, text, "Why?") == -np.inf
    with monkeypatch.context() as patch:
        patch.setattr(module, "MOST_PAIRS", 20)
        assert score(SCORERS["any scorer"], "Why?", text) == -np.inf


@pytest.mark.parametrize("silent", [np.nan, np.inf, -np.inf])
def test_one_window_without_a_score_leaves_the_text_without_one(silent):
    read = Read.of([["One. Two."], ["One."]])
    value = np.where(np.array(read.windows) == "Two.", silent, 1.0)
    assert np.isnan(read.least(value)).tolist() == [True, False]


def test_parts_do_not_change_an_answer(monkeypatch):
    pool = Responses.of([f"Why {n}? And what?" for n in range(20)], [f"Thus {n}. So." for n in range(20)])[0]
    whole = Windowed(Any()).score(pool, None).value_Q
    monkeypatch.setattr(module, "AT_ONCE", 10)
    assert (Windowed(Any()).score(pool, None).value_Q == whole).all()


def test_a_scorer_is_wrapped_once_and_answers_for_nobody_in_particular():
    scorer = windowed(Any())
    assert windowed(scorer) is scorer
    assert windowed(SCORERS["a detector"]) is SCORERS["a detector"]
    with pytest.raises(SafetyFailed, match="in a person's name"):
        Safety(Any(source=PERSONAL))(Responses.of(["p"], ["r"])[0])
