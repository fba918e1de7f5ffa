"""retrieval-judge: the rule of an answer, retrieval, and a local model as judge. The server is in test_judge_server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from contract_cases import Words, permuted, renamed, small
from judge_cases import judgements, save_judge
from polypref.comparisons import Comparisons, concat
from polypref.errors import ArtifactError, EncoderError, NotEnoughData, SettingsError
from polypref.judges.ask import LEAST, WORD, ask, odds
from polypref.judges.local import Causal
from polypref.learners import learner, margins
from polypref.learners.judge_prompts import Case, Choice
from polypref.learners.protocol import PERSONAL, POPULATION, Compares
from polypref.learners.retrieval import Memory, Places
from polypref.learners.retrieval_judge import RetrievalJudge
from polypref.scorers import load, save

AB = ("A", "B")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judge") / "model")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


def fresh(c: Comparisons) -> Comparisons:
    """Judgements by the same people of other texts."""
    return replace(judgements(seed=1), users=c.users)


# --- what counts as an answer


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ([("A", -1.0), ("B", -3.0)], 2.0),
        ([(" A", -1.0), ("x", -1.5), ("\u0042", -3.0)], 2.0),
        ([("A", np.log(0.2)), ("A.", np.log(0.3)), ("B", np.log(0.25))], np.log(2.0)),  # one answer in two spellings
        ([("B", -1.0), ("x", -4.0)], -3.0),  # A is at most as likely as the least that is listed
        ([("B", 0.0), ("A", float("-inf"))], LEAST),
        ([("B", 0.0), ("A", -9999.0)], LEAST),
        ([("B", 0.0), ("A", None)], LEAST),
        ("A", WORD),
        (" **B**.\n", -WORD),
    ],
)
def test_an_answer_is_read_from_the_first_token(reply, expected):
    assert odds(reply, AB) == pytest.approx(expected)


@pytest.mark.parametrize("reply", ["", "Apple", "a", "A or B", "C", [("Apple", -1.0), ("a", -2.0)], [("AB", -1.0)]])
def test_nonsense_is_no_answer_and_no_tie(reply):
    """The released code takes any capital A, so "Apple" votes for A."""
    assert np.isnan(odds(reply, AB))


# --- retrieval


def test_the_nearest_are_the_users_own_most_similar():
    c, queries = judgements(each=20), fresh(judgements())
    memory = Memory.of(Words(), c)
    found_NK = memory.nearest(queries, 3)
    places, asked = Places.of(Words(), memory.rows.responses), Places.of(Words(), queries.responses)
    like_NM = asked(queries) @ places(memory.rows).T
    names = memory.rows.users.ids
    mine_NM = np.array(
        [[names[int(u)] == queries.users.ids[int(q)] for u in memory.rows.user_N] for q in queries.user_N]
    )
    for found, like, mine in zip(found_NK, like_NM, mine_NM, strict=True):
        assert mine[found].all()
        np.testing.assert_allclose(like[found], np.sort(like[mine])[::-1][:3], atol=1e-5)
    assert (memory.nearest(queries.swapped(), 3) == found_NK).all()


def test_a_query_does_not_know_its_label_and_never_finds_itself():
    c = judgements()
    memory = Memory.of(Words(), c)
    found_NK = memory.nearest(c, 100)
    keys = np.append(memory.rows.pair_key_N, 0)
    assert (found_NK >= 0).sum(axis=1).tolist() == [5] * len(c)  # six each, less the one that is asked about
    assert not (keys[found_NK] == c.pair_key_N[:, None]).any()
    np.testing.assert_array_equal(Places.of(Words(), c.responses)(c), Places.of(Words(), c.responses)(c.swapped()))


def test_ties_and_weightless_judgements_are_not_remembered():
    c = judgements()
    ties = replace(c, tie_N=np.arange(len(c)) % 2 == 0, weight_N=np.where(np.arange(len(c)) == 1, 0.0, 1.0))
    assert len(Memory.of(Words(), ties).rows) == len(c) // 2 - 1
    assert (Memory.of(Words(), c.take(np.zeros(0, np.int64))).nearest(c, 3) == -1).all()


# --- a model in this process


def test_margins_are_the_mean_of_both_orders(folder):
    """Against transformers itself, one question at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    c = judgements()
    queries = fresh(c).take(np.arange(4))
    scorer = RetrievalJudge(str(folder)).fit(c, encoder=Words(), seed=0)
    assert isinstance(scorer, Compares)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    letters = tokenizer.convert_tokens_to_ids(list(AB))
    memory, texts = scorer.memory.rows, scorer.memory.rows.responses.texts_R
    found_NK = scorer.memory.nearest(queries, 3)
    expected = []
    for n in range(len(queries)):
        shown = []
        for m in found_NK[n, ::-1]:
            chosen, rejected = int(memory.chosen_N[m]), int(memory.rejected_N[m])
            first, second = min(chosen, rejected), max(chosen, rejected)
            prompt = memory.responses.prompts[int(memory.responses.prompt_R[chosen])]
            shown.append(Case(prompt, texts[first], texts[second], "A" if first == chosen else "B"))
        sides = [queries.responses.texts_R[int(side[n])] for side in (queries.chosen_N, queries.rejected_N)]
        prompt = queries.responses.prompts[int(queries.responses.prompt_R[queries.chosen_N[n]])]
        both = []
        for one, other in (sides, sides[::-1]):
            text = "<s>" + Choice(Case(prompt, one, other), shown).text() + " </s>"
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.inference_mode():
                a, b = model(ids).logits[0, -1, letters].tolist()
            both.append(a - b)
        expected.append((both[0] - both[1]) / 2)
    scores = margins(scorer, queries)
    np.testing.assert_allclose(scores.value_Q, expected, atol=1e-3)
    assert np.abs(expected).min() > 1e-3
    assert scores.unanswered_Q is not None
    assert (scores.unanswered_Q == 0).all()


def test_swapped_judgements_get_the_opposite_and_names_and_order_do_not_matter(folder):
    c, settings = judgements(), RetrievalJudge(str(folder))
    queries = fresh(c)
    value_N = margins(settings.fit(c, encoder=Words(), seed=0), queries).value_Q
    assert (margins(settings.fit(c, encoder=Words(), seed=1), queries.swapped()).value_Q == -value_N).all()
    assert (margins(settings.fit(renamed(c), encoder=Words(), seed=0), renamed(queries)).value_Q == value_N).all()
    assert (margins(settings.fit(permuted(c), encoder=Words(), seed=0), queries).value_Q == value_N).all()
    halves = c.take(np.arange(8)), c.take(np.arange(8, 12))
    joined = settings.fit(halves[0], encoder=Words(), seed=0, valid=halves[1])
    assert (margins(joined, queries).value_Q == value_N).all()
    other = settings.fit(c.swapped(), encoder=Words(), seed=0)
    assert (margins(other, queries).value_Q != value_N).any()  # what is remembered is read


def test_strangers_are_judged_without_examples(folder):
    c = judgements()
    queries = replace(fresh(c), users=replace(c.users, ids=pl.Series("id", ["person 0", "nobody"])))
    scores = margins(RetrievalJudge(str(folder)).fit(c, encoder=Words(), seed=0), queries)
    plain = margins(RetrievalJudge(str(folder), neighbours=0).fit(c, encoder=Words(), seed=0), queries)
    stranger_N = queries.user_N == 1
    assert (scores.source_Q == np.where(stranger_N, POPULATION, PERSONAL)).all()
    assert (scores.value_Q == plain.value_Q)[stranger_N].all()
    assert (scores.value_Q != plain.value_Q)[~stranger_N].all()


def test_a_single_response_is_scored_against_an_empty_one(folder):
    c = judgements()
    scorer = RetrievalJudge(str(folder)).fit(c, encoder=Words(), seed=0)
    r = fresh(c).responses
    whole = scorer.score(r, ["person 1"] * len(r)).value_Q
    part = scorer.score(r, ["person 1"] * 2, np.array([7, 3], np.int32)).value_Q
    np.testing.assert_allclose(part, whole[[7, 3]], atol=1e-5)
    assert len(np.unique(whole)) == len(r)
    empty = r.take(np.array([0], np.int32))
    empty = replace(empty, texts_R=pl.Series([""]))
    assert scorer.score(empty, ["person 1"]).value_Q.tolist() == [0.0]


@pytest.mark.parametrize("template", [None, "<s>{% for m in messages %}{{ m.content }}{% endfor %} </s>"])
def test_batch_size_padding_side_and_pad_token_change_nothing(tmp_path, template):
    questions = [Choice(Case("why", "good " * (1 + 7 * i % 11), "bad " * (1 + i))) for i in range(9)]
    found = []
    for n, (side, pad, size) in enumerate([("right", "<pad>", 1), ("left", "</s>", 3), ("left", None, 7)]):
        model = Causal(str(save_judge(tmp_path / f"{n}", template, pad, side)), batch_size=size)
        found.append(ask(model, questions, AB))
    assert len(np.unique(found[0])) == 9
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-4)


def test_texts_longer_than_the_context_are_cut_shorter_and_counted(tmp_path, capsys):
    c = judgements()
    r = replace(c.responses, texts_R=c.responses.texts_R + pl.Series([" good bad like" * 300]))
    long = replace(c, responses=r)
    small = str(save_judge(tmp_path / "small", context=300))
    value_N = margins(RetrievalJudge(small).fit(long, encoder=Words(), seed=0), replace(fresh(c), responses=r)).value_Q
    assert np.isfinite(value_N).all()
    assert len(np.unique(value_N)) > 3
    assert re.search(r"(\d+) of \d+ questions are cut to the 300 tokens that .* reads", capsys.readouterr().err)
    with pytest.raises(EncoderError, match=r"a question takes \d+ tokens when cut short and the judge reads 20"):
        margins(RetrievalJudge(small, max_length=20).fit(c, encoder=Words(), seed=0), c)
    with pytest.raises(SettingsError, match="reads at most 300 tokens; max_length = 301"):
        RetrievalJudge(small, max_length=301).fit(c, encoder=Words(), seed=0)
    assert Choice(Case("x" * 99 + "p", "r" + "y" * 99, "s"), characters=4 * 16).text(2).count("...") == 2


def test_a_question_is_asked_once(folder, monkeypatch):
    c = judgements()
    scorer = RetrievalJudge(str(folder)).fit(c, encoder=Words(), seed=0)
    twice = concat(c, c)
    asked: list[int] = []
    replies = Causal.replies
    monkeypatch.setattr(Causal, "replies", lambda self, q: asked.append(len(q)) or replies(self, q))
    first = margins(scorer, twice).value_Q
    assert (margins(scorer, c.swapped()).value_Q == -first[: len(c)]).all()
    assert asked == [2 * len(c)]


READ = """
import sys, numpy as np
from judge_cases import judgements
from contract_cases import Words
from polypref.learners import margins
from polypref.scorers import load
np.save(sys.argv[2], margins(load(sys.argv[1], Words()), judgements(seed=1)).value_Q)
"""


def test_another_process_answers_the_same(folder, tmp_path, monkeypatch):
    c = judgements()
    scorer = RetrievalJudge(str(folder)).fit(c, encoder=Words(), seed=0)
    save(scorer, tmp_path / "scorer")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "POLYPREF_CACHE": str(tmp_path / "other")}
    command = [sys.executable, "-c", READ, str(tmp_path / "scorer"), str(tmp_path / "there.npy")]
    subprocess.run(command, check=True, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), margins(scorer, fresh(c)).value_Q, atol=1e-6)
    monkeypatch.setattr("polypref.judges.local.locate", lambda *_: (folder, "other weights"))
    with pytest.raises(ArtifactError, match="has changed since the scorer was saved"):
        load(tmp_path / "scorer", Words())


# --- what cannot work


def test_a_judge_that_cannot_be_is_one_line(tmp_path, folder):
    from test_features_hf import save as save_other

    c = judgements()
    save_other(tmp_path / "bert", "bert")
    save_other(tmp_path / "reward", "llama-reward")
    for model, match in {
        "./absent": "there is no such folder",
        str(tmp_path / "bert"): "'encoder'; a judge must be a causal language model",
        str(tmp_path / "reward"): "'reward'; a judge must be a causal language model",
    }.items():
        with pytest.raises(EncoderError, match=match) as caught:
            RetrievalJudge(model).fit(c, encoder=Words(), seed=0)
        assert "\n" not in str(caught.value)
    with pytest.raises(NotEnoughData, match="0 training rows"):
        RetrievalJudge(str(folder)).fit(c.take(np.zeros(0, np.int64)), encoder=Words(), seed=0)
    refusing = str(save_judge(tmp_path / "refusing", "{{ raise_exception('no user here') }}"))
    with pytest.raises(EncoderError, match="chat template refuses a user's message: no user here"):
        margins(RetrievalJudge(refusing).fit(c, encoder=Words(), seed=0), c)


def test_settings_may_stand_behind_the_models_name():
    assert learner("retrieval-judge:some/model") == RetrievalJudge("some/model")
    made = learner("retrieval-judge:http://localhost:8000/v1#org/model,neighbours=5,timeout=2.5")
    assert made == RetrievalJudge("http://localhost:8000/v1#org/model", neighbours=5, timeout=2.5)
    for name, match in {
        "retrieval-judge": "needs a model",
        "retrieval-judge:m,neighbour=5": "Did you mean 'neighbours'",
        "retrieval-judge:m,neighbours=many": "neighbours = 'many'; expected a whole number from 0",
        "retrieval-judge:m,characters=0": "characters = 0; expected a whole number from 1",
    }.items():
        with pytest.raises(SettingsError, match=match):
            learner(name)


def test_compare_takes_a_judge_and_says_how_often_it_did_not_answer(folder, tmp_path):
    from polypref.evaluation import compare

    name = f"retrieval-judge:{folder},neighbours=1"
    results = compare(small(), [name], Words(), out=tmp_path, seeds=1, workers=1, min_judgements=5)
    assert [found["test_unanswered"] for found in results.content["selection"][name]] == [0.0]
