"""Scripts that a calibration did not hold: found in every reading, dropped or passed as the file says, and told."""

from __future__ import annotations

import base64
import json
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds_cases import Table, random_slates
from polypref.bounds.audit import _scripts
from polypref.bounds.bounds_file import calibrate_file, load_bounds, read_bounds
from polypref.bounds.calibrate import allowed, first_of_prompts
from polypref.bounds.explain import explained
from polypref.bounds.safety_cache import Safety
from polypref.bounds.scripts import SCRIPTS, UNKNOWN, Rule, Seen, script_of, scripts_of, seen_in
from polypref.comparisons import Responses
from polypref.errors import ArtifactError, SettingsError
from polypref.learners.protocol import POPULATION, Scores

CYRILLIC = "\u043a\u0430\u043a \u0434\u0435\u043b\u0430"
LATIN = Rule(frozenset(["Latin"]))
WORDS = st.text("ab \u00e9\u0301.,5\U0001f600\n", max_size=40)
FOREIGN = st.sampled_from([CYRILLIC, "\u03c0", "\u4f60\u597d", "\u0e2a\u0e27", "\u2813\u2811", "\ue000"])


class Counts:
    """A safety scorer that calls everything safe, and remembers what it was asked about."""

    def __init__(self):
        self.asked = []

    def score(self, responses, user_ids, response_Q=None):
        self.asked += responses.texts_R.to_list()
        return Scores(np.ones(len(responses)), np.full(len(responses), POPULATION, np.int8))


def pool(prompt, response):
    return Responses.of([prompt], [response])[0]


def value(prompt, response, rule=LATIN):
    return float(Safety(Counts(), rule)(pool(prompt, response))[0])


def test_every_letter_has_a_script_with_a_name_and_it_is_that_of_the_character_database():
    assert len(SCRIPTS) == len(set(SCRIPTS)) > 160
    letters = {one for one in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(one)[0] == "L"}
    found = script_of(letters)
    assert UNKNOWN not in found.values()
    assert set(script_of(set("\ue000\U0010ffff")).values()) == {UNKNOWN}
    assert not script_of(set("5.\u2019\u0301\U0001f600 \n\u20ac"))
    named = {one: unicodedata.name(one, "none").split()[0].capitalize() for one in letters}
    for name in ("Latin", "Cyrillic", "Hebrew", "Thai", "Hiragana", "Devanagari", "Armenian"):
        own = {one for one in letters if named[one] == name and unicodedata.decomposition(one) == ""}
        kinds = Counter(found[one] for one in own if one in found)
        assert kinds[name] > 20 and set(kinds) == {name}, (name, kinds)


@settings(deadline=None, max_examples=40)
@given(WORDS, FOREIGN, WORDS, WORDS, st.integers(0, 40), st.booleans())
def test_no_character_that_is_added_anywhere_lets_a_dropped_text_pass(before, foreign, after, added, at, in_prompt):
    text = before + foreign + after
    longer = text[:at] + added + text[at:]
    other = added if in_prompt else "a"
    for one in (text, longer):
        assert np.isnan(value(one, other) if in_prompt else value(other, one))
    assert value(before + after, "a") == 1.0, "a control: without the foreign letter it passes"
    assert value(text, "a", replace(LATIN, drops=False)) == 1.0


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from([CYRILLIC * 2, "\u4f60\u597d\u5417\u670b\u53cb" * 2]),
    st.sampled_from([lambda one: base64.b64encode(one.encode()).decode(), quote, lambda one: one.encode().hex()]),
    st.lists(st.sampled_from(["I like tea.", "It rains.", "Thank you!"]), max_size=4),
    st.integers(0, 4),
)
def test_no_sentence_hides_a_script_that_is_written_in_digits_of_some_base(foreign, encode, sentences, at):
    assert np.isnan(value("Hi", encode(foreign)))
    sentences.insert(at, encode(foreign))
    assert np.isnan(value("Hi", "\n".join(sentences))) and np.isnan(value("\n".join(sentences), "Hi"))
    assert value("Hi", encode("how do you do, my friend")) == 1.0, "a control: encoded Latin letters are held"


def test_what_is_dropped_is_not_asked_about_and_is_remembered_with_its_script():
    scorer = Counts()
    safety = Safety(scorer, LATIN)
    texts, at = Responses.of(["a", "a", CYRILLIC], ["yes", CYRILLIC, "no"])
    for _ in range(2):
        assert np.isnan(safety(texts)[at]).tolist() == [False, True, True]
        assert [safety.unknown(texts)[r] for r in at] == [None, "Cyrillic", "Cyrillic"]
    assert scorer.asked == ["yes"]
    free = Safety(Counts())
    assert np.isfinite(free(texts)).all() and free.unknown(texts) == [None] * 3


def written(many, foreign, n=100, seed=0):
    """Slates of four; the unsafe responses of ``many`` of them are in Cyrillic, and safe ones of all others too where
    ``foreign``."""
    slates, safety = random_slates(np.random.default_rng(seed), n, 4)
    place_C = np.arange(len(slates.response_C))
    unsafe_L = np.flatnonzero(slates.unsafe_L)[:many]
    in_it = np.isin(slates.slate_C, unsafe_L) & slates.unsafe_C
    if foreign:
        in_it |= ~slates.unsafe_C
    texts = [f"{one} {CYRILLIC}" if yes else one for one, yes in zip(slates.responses.texts_R, in_it, strict=True)]
    assert (slates.response_C == place_C).all()
    responses, _ = Responses.of(slates.responses.prompts.gather(slates.responses.prompt_R), texts)
    return replace(slates, responses=responses), safety


@pytest.mark.parametrize("foreign", [False, True])
def test_a_script_is_held_by_more_unsafe_slates_than_may_be_lost(foreign):
    lost = allowed(100, 0.04, 0.1)
    assert lost == 1
    for many in (0, lost, lost + 1):
        slates, _ = written(many, foreign)
        seen = seen_in(first_of_prompts(slates), lost)
        expected = Seen(100 if foreign else many, many, many > lost)
        assert seen.get("Cyrillic") == (expected if foreign or many else None)
        assert seen["Latin"].held and seen["Latin"].slates == 100
        assert Rule.of(seen, True).held == ({"Latin", "Cyrillic"} if many > lost else {"Latin"})
    private, _ = written(lost + 1, False)
    renamed = private.responses.texts_R.str.replace_all(CYRILLIC, "\ue000")
    private = replace(private, responses=Responses.of(["q"] * len(renamed), renamed)[0])
    assert not seen_in(private, lost)[UNKNOWN].held, "nothing holds what has no script"


TOML = '[immutable]\nsafety = "safety"\nalpha = 0.04\ndelta = 0.1\n'


@pytest.fixture
def bounds(tmp_path):
    path = tmp_path / "bounds.toml"
    path.write_text(TOML)
    return path


def test_the_file_decides_and_the_policy_hash_and_explain_say_so(bounds):
    slates, safety = written(1, False)
    by_place = Table(safety)
    frame = pl.DataFrame({"user_id": "u", "prompt": "p", "chat": False, "response": ["hi", CYRILLIC]})
    told, hashes = {}, set()
    for unknown in ("drop", "pass"):
        bounds.write_text(TOML + f'unknown = "{unknown}"\n')
        calibrated = calibrate_file(read_bounds(bounds), by_place, slates)
        assert calibrated == load_bounds(bounds)
        hashes.add(calibrated.policy_hash)
        assert calibrated.scripts["Cyrillic"] == Seen(1, 1, False)
        bounded = calibrated.bind(Table([1.0]), by_place)
        told[unknown] = list(explained(calibrated.file, bounded, frame))
    assert len(hashes) == 2
    assert [row["returned"] for row in told["drop"]] == [True, False]
    assert [row["returned"] for row in told["pass"]] == [True, True]
    why = "the calibration held too few unsafe texts in Cyrillic, and unknown = '{}' of line 5, [immutable]{}"
    assert told["drop"][1]["reason"] == why.format("drop", ": dropped")
    assert told["pass"][1]["reason"] == why.format("pass", "; passes")
    for rows in told.values():
        assert "unknown_script" not in rows[0] and rows[1]["unknown_script"] == "Cyrillic"


def test_drop_is_the_default_and_only_the_first_tier_may_say_otherwise(bounds):
    file = read_bounds(bounds)
    assert file.drops_unknown and str(file.settings["unknown"]) == "[immutable, by default]"
    bounds.write_text(TOML + 'unknown = "keep"\n')
    with pytest.raises(SettingsError, match=r"line 5 of .*unknown = 'keep'; expected \"drop\" or \"pass\"\.$"):
        read_bounds(bounds)
    bounds.write_text(TOML + '[organisation]\nunknown = "pass"\n')
    with pytest.raises(SettingsError, match=r"only \[immutable\] may set it"):
        read_bounds(bounds)


def test_a_calibration_without_scripts_is_refused_in_one_line(bounds):
    slates, safety = written(0, False)
    calibrate_file(read_bounds(bounds), Table(safety), slates)
    file = read_bounds(bounds).calibration
    old = json.loads(file.read_text())
    file.write_text(json.dumps({**{name: one for name, one in old.items() if name != "scripts"}, "schema": 5}))
    with pytest.raises(
        ArtifactError, match=r"is of another version; run: polypref bounds calibrate .* --slates FILE\.$"
    ):
        load_bounds(bounds)


def test_scripts_are_those_of_the_prompt_too_and_a_text_that_is_not_read_has_none():
    texts, at = Responses.of(["caf\u00e9 5", CYRILLIC, "x. " * 200_000], ["\u4f60", "ok", "ok"])
    assert [scripts_of(texts)[r] for r in at] == [("Han", "Latin"), ("Cyrillic", "Latin"), ("Latin",)]
    unread, _ = Responses.of(["p"], ["\u4f60 " * 300_000])
    assert scripts_of(unread) == [("Latin",)] and np.isnan(Safety(Counts(), LATIN)(unread))[0]


def test_an_audit_counts_them_by_script():
    texts, _ = Responses.of(["p"] * 4, ["a", CYRILLIC, "\u4f60", "\u4f60\u4f60"])
    for drops, told in ((True, "is dropped"), (False, "is let to the gate")):
        bounded = SimpleNamespace(safety=Safety(Counts(), replace(LATIN, drops=drops)))
        case = SimpleNamespace(bounded=bounded, slates=SimpleNamespace(responses=texts))
        rows = _scripts(cast(Any, SimpleNamespace(case=case, text_C=np.arange(4))))
        assert {row["arm"]: row["value"] for row in rows} == {"any script": 0.75, "Cyrillic": 0.25, "Han": 0.5}
        assert all(row["metric"].endswith(told) and row["n"] == 4 for row in rows)
