"""Answers swapped between two questions are worth less, whatever people think of answers that copy the question."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from polypref.comparisons import Responses
from polypref.features.encode_once import encode_once
from polypref.features.prompts import prompt_texts
from polypref.learners import LEARNERS
from polypref.learners.inputs import CLIP, Inputs
from polypref.learners.swapped import differences
from test_question import TOPICS, Bags, from_columns, on_topic

WORDS = "old new red blue quick slow north south green small tall deep wide plain".split()  # noqa: SIM905


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


def against_copies(n: int = 240):
    """Judgements between answers that all name their topic; the one that repeats the whole question loses."""
    rng = np.random.default_rng(0)
    asked = [f"Tell me of {TOPICS[t]} in {WORDS[rng.integers(14)]} words" for t in rng.integers(0, len(TOPICS), n)]
    filler = [" ".join(rng.choice(WORDS, 4)) for _ in range(2 * n)]
    plain = [f"{' '.join(p.split()[3:5])} {text}." for p, text in zip(asked, filler, strict=False)]
    copies = [f"{p} {text}." for p, text in zip(asked, filler[n:], strict=False)]
    return from_columns([f"u{i % 6}" for i in range(n)], asked, plain, copies)


@pytest.mark.parametrize("name", ["pooled", "hierarchical"])
def test_answers_stay_with_their_questions_though_people_dislike_copies(name):
    asked = [f"Tell me of {topic} in blue words" for topic in TOPICS]
    texts = [f"{topic} old red quick slow." for topic in TOPICS]
    responses, at_Q = Responses.of([*asked, *asked], [*texts, *texts[1:], texts[0]])
    margin = {}
    for swaps in (0.0, 0.05):
        learner = replace(LEARNERS[name], swaps=swaps)  # type: ignore[type-var]
        value_Q = learner.fit(against_copies(), encoder=Bags(), seed=0).score(responses, None, at_Q).value_Q
        own_Q, other_Q = np.split(value_Q, 2)
        margin[swaps] = own_Q.sum() - other_Q.sum()
    assert margin[0.0] < 0 < margin[0.05]


def test_a_swap_is_about_the_relation_alone_and_does_not_depend_on_the_order_of_rows():
    rows = on_topic()
    inputs = Inputs.fit(Bags(), rows)
    found_XK = differences(inputs, rows.responses)
    directions = inputs.kinds[0]
    assert len(found_XK) and not found_XK[:, :directions].any() and not found_XK[:, -2:].any()
    style = slice(directions + 6, directions + 18)
    assert np.abs(found_XK[:, style]).max() < 1e-9 < found_XK[:, directions].mean()  # more of the cosine on their own
    assert found_XK[:, sum(inputs.kinds[:2])].mean() > 0
    shuffled = from_columns(*again(rows, np.random.default_rng(1).permutation(len(rows))))
    assert np.allclose(differences(inputs, shuffled.responses), found_XK)


def again(rows, order):
    pool = rows.responses
    sides = [pool.texts_R.gather(side[order]).to_list() for side in (rows.chosen_N, rows.rejected_N)]
    prompts = pool.prompts.gather(pool.prompt_R[rows.chosen_N[order]]).to_list()
    return rows.users.ids.gather(rows.user_N[order]).to_list(), prompts, *sides


@dataclass(frozen=True)
class Joint(Bags):
    reads_prompt: bool = True


def test_there_are_no_swaps_where_the_prompt_is_not_read_or_read_with_the_answer():
    rows = on_topic(n=60)
    assert len(differences(Inputs.fit(Bags(), rows), rows.responses))
    assert not len(differences(Inputs.fit(Bags("response"), rows), rows.responses))
    assert not len(differences(Inputs.fit(Joint(), rows), rows.responses))
    one = rows.take(rows.responses.prompt_R[rows.chosen_N] == 0)
    assert not len(differences(Inputs.fit(Bags(), rows), one.responses.take(np.unique(one.chosen_N))))


def test_how_far_the_cosine_is_below_is_zero_for_most_answers_and_never_above():
    rows = on_topic()
    inputs = Inputs.fit(Bags(), rows)
    far_R = inputs(rows.responses)[:, -3]
    assert far_R.max() == 0 and far_R.min() >= -CLIP
    assert 0.1 < (far_R < 0).mean() < 0.3


def test_workers_encode_no_prompt_of_the_pool_again(tmp_path):
    rows = on_topic(n=60)
    shared = encode_once(Bags(), rows.responses, tmp_path)
    prompts, _ = prompt_texts(rows.responses)
    few = prompts.take(np.array([3, 1], np.int32))
    expected = Bags().encode(few)

    def refuse(self, responses):
        raise AssertionError("encoded again")

    patched = type("Refuses", (Bags,), {"encode": refuse})
    object.__setattr__(shared, "inner", patched())
    assert np.allclose(shared.encode(few), expected)
    with pytest.raises(AssertionError, match="again"):
        shared.encode(Responses.of(["a new prompt"], ["a new text"])[0])
