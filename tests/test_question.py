"""The columns of relation and style: what they are, that learners use them, and that they survive every road."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.comparisons import Responses, from_columns
from polypref.errors import ArtifactError
from polypref.features import encoder, minilm, question, wording
from polypref.features.encode_once import encode_once
from polypref.features.prompts import prompt_texts
from polypref.features.protocol import Read, read_by
from polypref.learners import LEARNERS
from polypref.learners.inputs import CLIP, Inputs
from polypref.scorers import SCORERS, load, save

TOPICS = ("river boats", "apple trees", "winter trains", "stone bridges", "summer bees", "paper maps")
WORDS = "old new red blue quick slow north south green small tall deep wide plain".split()  # noqa: SIM905


@dataclass(frozen=True)
class Bags:
    """An encoder of any text: hashed letters; ``features`` says what learners read."""

    features: Read = "pair"
    name: str = "bags"
    identity: str = "bags"

    def encode(self, responses: Responses):
        count_RD = np.zeros((len(responses), 16), np.float32)
        for r, text in enumerate(responses.texts_R):
            np.add.at(count_RD[r], [ord(c) % 16 for c in text], 1)
        return count_RD / np.maximum(np.linalg.norm(count_RD, axis=1, keepdims=True), 1e-9)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


def on_topic(seed: int = 0, n: int = 180):
    """Judgements that prefer the answer that repeats the words of its question."""
    rng = np.random.default_rng(seed)
    topic_N = rng.integers(0, len(TOPICS), n)
    filler = [" ".join(rng.choice(WORDS, 5)) for _ in range(2 * n)]
    other_N = (topic_N + rng.integers(1, len(TOPICS), n)) % len(TOPICS)
    asked = [f"Tell me of {TOPICS[t]} please" for t in topic_N]
    right = [f"{TOPICS[t]} {text}." for t, text in zip(topic_N, filler, strict=False)]
    wrong = [f"{TOPICS[t]} {text}." for t, text in zip(other_N, filler[n:], strict=False)]
    return from_columns([f"u{i % 6}" for i in range(n)], asked, right, wrong)


def pool(prompts: list[str], texts: list[str]) -> Responses:
    responses, at_Q = Responses.of(prompts, texts)
    assert (at_Q == np.arange(len(texts))).all()
    return responses


def test_shares_of_words_and_bigrams_are_those_counted_by_hand():
    asked = "What is the capital of France?"
    responses = pool([asked, asked, ""], ["The capital of France is Paris.", "No idea", "x"])
    prompts, prompt_R = prompt_texts(responses)
    overlap = wording.overlap(responses.texts_R, prompts.texts_R, prompt_R)
    # content words: capital, france | capital, france, paris; bigrams: 5 asked, 5 answered, 3 in both
    assert overlap[0] == pytest.approx([1.0, 2 / 3, 3 / 5, 3 / 5])
    assert not overlap[1:].any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30), max_size=5))
def test_style_of_any_texts_is_that_of_each_text_alone(texts):
    together = wording.style(pl.Series(texts, dtype=pl.String))
    assert together.shape == (len(texts), len(wording.STYLE)) and np.isfinite(together).all()
    for row, text in zip(together, texts, strict=True):
        assert row == pytest.approx(wording.style(pl.Series([text]))[0])


def test_style_says_what_its_names_say():
    text = "I'm sorry, no. I'm sorry, no.\n- one\n2. TWO?"
    found = dict(zip(wording.STYLE, wording.style(pl.Series([text, "Fine."])).T, strict=True))
    assert found["refusal word"].tolist() == [1, 0] and found["ends with punctuation"].tolist() == [1, 1]
    assert found["log list items"][0] == pytest.approx(np.log1p(2))
    assert found["log newlines"][0] == pytest.approx(np.log1p(2)) and found["log newlines"][1] == 0
    assert found["repeated trigrams"][0] > 0 == found["repeated trigrams"][1]
    assert found["share of digits"][0] == pytest.approx(1 / len(text))


@pytest.mark.parametrize("name", ["pooled", "individual", "hierarchical"])
def test_two_answers_swapped_between_two_questions_are_told_apart(name):
    train = on_topic()
    texts = [f"{topic} old red quick." for topic in TOPICS]
    asked = [f"Tell me of {topic} please" for topic in TOPICS]
    responses, at_Q = Responses.of([*asked, *asked], [*texts, *texts[1:], texts[0]])
    margin = {}
    for read in ("pair", "response"):
        scorer = LEARNERS[name].fit(train, encoder=Bags(read), seed=0)
        value_Q = scorer.score(responses, None, at_Q).value_Q
        margin[read] = (value_Q[: len(TOPICS)] - np.roll(value_Q[len(TOPICS) :], 1)).min()
    assert margin["pair"] > 1
    assert margin["response"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["pooled", "individual", "hierarchical"])
def test_columns_survive_saving_adapting_and_forgetting(name, tmp_path):
    train = on_topic(n=100)
    scorer = LEARNERS[name].fit(train, encoder=Bags(), seed=0)
    save(scorer, tmp_path / "scorer")
    again = load(tmp_path / "scorer", Bags("response"))  # what the fit read is in the scorer, not in the encoder
    one, at_Q = Responses.of(["Tell me of paper maps please"] * 3, ["Paper maps.", "Apple trees.", "No."])
    assert again.score(one, None, at_Q).value_Q.tolist() == scorer.score(one, None, at_Q).value_Q.tolist()
    if hasattr(scorer, "adapt"):
        known = again.adapt("new", train.take(np.arange(8)))
        assert known.forget("new").score(one, ["new"] * 3).value_Q.tolist() == again.score(one, None).value_Q.tolist()


def test_scorers_without_columns_have_the_arrays_of_earlier_versions(tmp_path):
    scorer = LEARNERS["pooled"].fit(on_topic(n=100), encoder=Bags("response"), seed=0)
    _, arrays = scorer.state()
    assert not any("column" in name for name in arrays)
    save(scorer, tmp_path / "old")
    assert len(load(tmp_path / "old", Bags()).inputs.column_center_F) == 0


def test_a_number_of_columns_that_no_version_has_is_refused():
    scorer = LEARNERS["pooled"].fit(on_topic(n=100), encoder=Bags(), seed=0)
    config, arrays = scorer.state()
    SCORERS["population"].layout.check(config, arrays, "here")
    with pytest.raises(ArtifactError, match='column_scale_F" is missing'):
        half = {name: a for name, a in arrays.items() if not name.endswith("column_scale_F")}
        SCORERS["population"].layout.check(config, half, "here")
    with pytest.raises(ArtifactError, match="reads 3 columns"):
        cut = {n: a[:3] if n.endswith(("center_F", "scale_F")) else a for n, a in arrays.items()}
        SCORERS["population"].from_state(config, cut, Bags())


def test_one_prompt_switches_the_columns_off():
    train = on_topic(n=100)
    first = train.take(train.responses.prompt_R[train.chosen_N] == 0)
    assert len(Inputs.fit(Bags(), first).column_center_F) == 0
    inputs = Inputs.fit(Bags(), train)
    x_RF = inputs(train.responses)[:, inputs.kinds[0] : -2]
    assert x_RF.shape[1] == len(inputs.column_center_F) and np.abs(x_RF).max() <= CLIP


def test_without_minilms_weights_word_vectors_are_left_out_and_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(minilm, "at_hand", lambda: False)
    question.has_word_vectors.cache_clear()
    try:
        inputs = Inputs.fit(Bags(), on_topic(n=60))
    finally:
        question.has_word_vectors.cache_clear()
    assert len(inputs.column_center_F) == question.WITHOUT_WORD_VECTORS + 1  # and how far the cosine is below
    assert "polypref[offline]" in capsys.readouterr().err


def test_workers_find_the_columns_of_the_pool_in_memory(tmp_path):
    train = on_topic(n=60)
    shared = encode_once(Bags(), train.responses, tmp_path)
    some = train.responses.take(np.array([5, 3, 8], np.int32))
    found = question.columns(shared, some, shared.encode(some))
    assert found.tolist() == question.columns(Bags(), some, Bags().encode(some)).tolist()
    other, _ = Responses.of(["Tell me of it"], ["Something new."])
    assert question.columns(shared, other, shared.encode(other)).shape == (1, found.shape[1])


def test_every_named_encoder_reads_the_pair_unless_told_otherwise():
    assert read_by(encoder("minilm")) == read_by(encoder("minilm+static")) == "pair"
    assert read_by(encoder("minilm+static", features="response")) == "response"
    assert encoder("minilm").identity == replace(encoder("minilm"), features="response").identity
    with pytest.raises(Exception, match="features"):
        encoder("minilm", features="both")
