"""persona: profiles in words from judgements. A scripted judge of known skill stands in for a language model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from contract_cases import Words, permuted
from persona_cases import Scripted, Truth, liked, persona, stated, world
from polypref import artifact
from polypref.comparisons import Comparisons, from_columns
from polypref.errors import ArtifactError, NotEnoughData, SettingsError
from polypref.forgetting import bits_apart, forget, residue
from polypref.judges.protocol import LanguageModel
from polypref.learners import learner, margins
from polypref.learners.judge_prompts import Case
from polypref.learners.persona import Persona, PersonaScorer
from polypref.learners.personas.leaks import without_copies, without_quotes
from polypref.learners.personas.methods import sides, tail
from polypref.learners.personas.ownership import owned
from polypref.learners.personas.traits import sentences
from polypref.learners.protocol import PERSONAL, POPULATION, Compares, Forgets
from polypref.scorers import load, save
from polypref.stats import binomial
from polypref.testing import LearnerContract
from polypref.worlds import simulate

PEOPLE, BEFORE, AFTER = 14, 60, 12


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def truth() -> Truth:
    return world(PEOPLE, BEFORE + AFTER)


FITTED: dict[object, PersonaScorer] = {}


def fitted(truth: Truth, judge: LanguageModel | None = None, **settings: Any) -> PersonaScorer:
    """The fit of the earlier judgements; each only once."""
    judge = judge or Scripted(truth.styles, skill=0.9)
    key = (id(truth), judge.identity, *settings.items())
    if key not in FITTED:
        FITTED[key] = persona(judge, **settings).fit(truth.part(0, BEFORE), encoder=Words(), seed=0)
    return FITTED[key]


def right_U(scorer: PersonaScorer, truth: Truth) -> np.ndarray:
    """Each person's share of later choices that are foretold, ties one half."""
    later = truth.part(BEFORE, BEFORE + AFTER)
    right_N = 0.5 + 0.5 * np.sign(margins(scorer, later).value_Q)
    return np.bincount(later.user_N, right_N) / np.bincount(later.user_N)


def few(truth: Truth) -> Comparisons:
    """Four later judgements, with no other texts."""
    later = truth.part(BEFORE, BEFORE + AFTER).take(np.arange(4))
    texts, prompts = later.responses.texts_R, later.responses.prompts
    asked = prompts.gather(later.responses.prompt_R[later.chosen_N])
    ids = later.users.ids.gather(later.user_N)
    return from_columns(ids, asked, texts.gather(later.chosen_N), texts.gather(later.rejected_N))


# --- what is recovered, and what it is worth


def test_stated_traits_are_the_true_ones(truth):
    """Precision over statements, with an exact interval: what is kept is true, though not all that is true is kept."""
    scorer = fitted(truth)
    found = [stated(sentences(one.texts[-1])) for one in scorer.profiles]
    wanted = [liked(truth, int(name.split()[-1])) for name in scorer.users.ids]
    hits, said = sum(len(a & b) for a, b in zip(found, wanted, strict=True)), sum(map(len, found))
    assert said >= PEOPLE / 2
    assert binomial.interval(hits, said)[0] > 0.7
    assert hits / (2 * PEOPLE) > 0.3
    for one in scorer.profiles:
        assert [s.p <= 0.05 and s.right > s.of / 2 for s in one.support] == [True] * len(one.support)


@pytest.mark.parametrize("method", ["history", "hypotheses", "fermi", "synthesize"])
def test_their_own_profile_helps_and_no_placebo_does(truth, method):
    own_U, other_U, all_U, none_U = (
        right_U(fitted(truth, method=method, neighbours=12, rounds=2, profile_of=of), truth)
        for of in ("own", "other", "everybody", "none")
    )
    for placebo_U in (other_U, all_U, none_U):
        gain_U = own_U - placebo_U
        assert gain_U.mean() > 2 * gain_U.std(ddof=1) / np.sqrt(PEOPLE), method
    assert none_U.mean() < 0.6  # the judge by itself knows nothing of people


def test_a_more_skilful_judge_makes_more_of_a_profile(truth):
    good, poor = (
        right_U(fitted(truth, Scripted(truth.styles, s), method="fermi", rounds=2), truth).mean() for s in (1.0, 0.0)
    )
    assert good > 0.7
    assert poor < 0.6


def test_where_choices_are_coin_flips_hypotheses_are_kept_no_more_often_than_stated():
    """The probability that anything is kept about a person, of whom nothing is true, against its exact interval."""
    null = world(120, 16, seed=5, null=True)
    scorer = persona(Scripted(null.styles), proposals=4).fit(null.rows, encoder=Words(), seed=0)
    kept = sum(not one.silent for one in scorer.profiles)
    assert binomial.interval(kept, 120, 0.99)[0] <= 0.05, kept
    lenient = persona(Scripted(null.styles), proposals=2, alpha=0.5).fit(null.rows, encoder=Words(), seed=0)
    assert sum(not one.silent for one in lenient.profiles) > 120 * 0.05  # the test could fail


def test_an_exact_test_counts_pairs_and_takes_no_side_where_there_is_none():
    margin_N = np.array([1.0, 2.0, -1.0, np.nan, 0.0, 3.0])
    assert sides(margin_N, np.array([0, 0, 1, 2, 3, 4])) == (2, 3)  # the first two are one pair
    assert tail(8, 10) == pytest.approx((45 + 10 + 1) / 1024)
    assert tail(0, 0) == 1.0


def test_fermis_memory_rises_and_retrieval_chooses_from_it(truth):
    judge = Scripted(truth.styles, skill=0.9)
    scorer = fitted(truth, judge, method="fermi", rounds=2)
    assert {len(one.texts) for one in scorer.profiles} == {5}
    assert all(np.shape(one.agreement) == (5, BEFORE) for one in scorer.profiles)
    plain = replace(scorer, settings=persona(judge, method="fermi", rounds=2, neighbours=0))
    later = truth.part(BEFORE, BEFORE + AFTER)
    retrieved, best = (margins(one, later).value_Q for one in (scorer, plain))
    assert 0 < (retrieved != best).mean() < 1
    first = fitted(truth, judge, method="fermi", rounds=0)
    assert {len(one.texts) for one in first.profiles} == {1}
    agreed = [np.mean([np.mean(one.agreement[-1]) for one in made.profiles]) for made in (scorer, first)]
    assert agreed[0] > agreed[1]  # on the judgements that it was written from


@pytest.mark.parametrize("parts", ["persona", "demonstrations", "both"])
def test_synthesize_gives_the_parts_that_are_asked_for(truth, parts):
    scorer = fitted(truth, method="synthesize", parts=parts, candidates=2)
    assert all(bool(one.texts[-1]) == (parts != "demonstrations") for one in scorer.profiles)
    assert all(len(one.shown) == (0 if parts == "persona" else 4) for one in scorer.profiles)
    assert len(scorer.memory.rows) == sum(len(one.shown) for one in scorer.profiles)  # nothing else is kept


# --- the rules of asking


def test_what_is_not_a_letter_is_no_answer_and_counted(truth):
    later = truth.part(BEFORE, BEFORE + AFTER)
    scores = margins(fitted(truth, Scripted(truth.styles, mute=0.3)), later)
    assert scores.unanswered_Q is not None
    assert 0.2 < scores.unanswered_Q.mean() < 0.4
    assert (scores.value_Q[scores.unanswered_Q == 1] == 0).all()
    mute = fitted(truth, Scripted(truth.styles, mute=1.0))
    assert all(one.silent for one in mute.profiles)


def test_swapped_judgements_get_the_opposite_and_order_and_seed_do_not_matter(truth):
    judge, later = Scripted(truth.styles, skill=0.9), truth.part(BEFORE, BEFORE + AFTER)
    scorer = fitted(truth, judge)
    assert isinstance(scorer, Compares)
    value_N = margins(scorer, later).value_Q
    np.testing.assert_array_equal(margins(scorer, later.swapped()).value_Q, -value_N)
    mixed = persona(judge).fit(permuted(truth.part(0, BEFORE)), encoder=Words(), seed=0)
    np.testing.assert_array_equal(margins(mixed, later).value_Q, value_N)


def test_who_has_no_profile_is_answered_by_the_population(truth):
    scorer, later = fitted(truth, alpha=0.002), truth.part(BEFORE, BEFORE + AFTER)
    silent = [user for user, one in zip(scorer.users.ids, scorer.profiles, strict=True) if one.silent]
    told_N = ~later.users.ids.is_in(silent).to_numpy()[later.user_N]
    scores = margins(scorer, later)
    assert 0 < len(silent) < PEOPLE
    np.testing.assert_array_equal(scores.source_Q, np.where(told_N, PERSONAL, POPULATION))
    nobody = margins(fitted(truth, profile_of="none"), later).value_Q
    np.testing.assert_array_equal(scores.value_Q[~told_N], nobody[~told_N])
    assert (margins(fitted(truth, method="history", profile_of="everybody"), later).source_Q == POPULATION).all()


def test_nobody_gets_their_own_profile_as_the_placebo(truth):
    rows = truth.part(0, BEFORE)
    owner = dict(zip(rows.pair_key_N.tolist(), rows.users.ids.gather(rows.user_N), strict=True))

    def read(of: Any) -> set[tuple[str, str]]:
        """Who has whose judgements."""
        kept = owned(rows, of, 1000, 0)
        ids = kept.rows.users.ids.gather(kept.rows.user_N)
        return {(user, owner[key]) for user, key in zip(ids, kept.unit_N.tolist(), strict=True)}

    assert all(a == b for a, b in read("own"))
    assert all(a != b for a, b in read("other"))
    assert len({b for _, b in read("other")}) == len(read("other")) == PEOPLE
    with pytest.raises(NotEnoughData, match="two people"):
        owned(rows.take(rows.user_N == 0), "other", 60, 0)
    assert len(owned(rows, "everybody", 60, 0).rows) == 60


def test_the_cost_of_writing_is_reported(truth):
    asked: list[int] = []

    class Counting(Scripted):
        def replies(self, questions):
            asked.append(len(questions))
            return super().replies(questions)

    scorer = fitted(truth, Counting(truth.styles, skill=0.8), method="synthesize", candidates=2)
    assert sum(one.calls for one in scorer.profiles) == sum(asked)
    assert scorer.selection["calls_a_person"] == sum(asked) / PEOPLE
    assert all(one.tokens > 50 * one.calls for one in scorer.profiles)


# --- no profile quotes the question


QUESTION = Case(
    "How do I keep a small herb garden alive indoors in winter?",
    "Put it near a bright window and water it twice a week.",
    "No.",
)


def test_sentences_that_quote_the_question_are_left_out():
    quote = "They like it when you put it near a bright window and water it daily."
    profile = f"Prefers the answer that is longer.\n{quote}\nThey keep a garden."
    assert without_quotes(profile, QUESTION) == ("Prefers the answer that is longer.\nThey keep a garden.", 1)
    assert without_quotes("They water it twice a week.", QUESTION) == ("They water it twice a week.", 0)
    assert without_quotes("", QUESTION) == ("", 0)


def test_earlier_choices_that_show_the_question_are_left_out():
    longer = Case("Why?", "Yes.", f"{QUESTION.first[:-1]}, or thrice if its soil is dry.")
    assert without_copies([replace(QUESTION, prompt="Another"), longer], QUESTION) == []
    kept = [Case("Why?", "Because.", "No."), replace(QUESTION, first="Yes.", second="Perhaps.")]
    assert without_copies(kept, QUESTION) == kept


def test_a_leak_is_said_and_changes_what_is_asked(truth, capsys):
    scorer, later = fitted(truth), truth.part(BEFORE, BEFORE + AFTER)
    text = later.responses.texts_R[int(later.chosen_N[0])]
    quote = f"They would choose: {' '.join(re.findall('[a-zA-Z]+', text)[:12])}."
    planted = tuple(replace(one, texts=(quote,)) for one in scorer.profiles)
    scores = margins(replace(scorer, profiles=planted), later.take(np.arange(1)))
    assert scores.source_Q.tolist() == [POPULATION]
    assert "left out, because they share text with the question: 1 sentence" in capsys.readouterr().err


# --- personal data, saved and loaded


def saved(scorer: PersonaScorer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> PersonaScorer:
    judge = scorer.settings.language_model
    monkeypatch.setattr("polypref.learners.judge_settings.language_model", lambda *_, **__: judge)
    save(scorer, folder)
    again = load(folder, Words())
    assert isinstance(again, PersonaScorer)
    return again


@pytest.mark.parametrize("method", ["history", "hypotheses", "fermi", "synthesize"])
def test_a_person_is_forgotten_bit_for_bit_and_leaves_nothing(truth, method, tmp_path, monkeypatch):
    scorer, later = fitted(truth, method=method, rounds=1), few(truth)
    assert isinstance(scorer, Forgets)
    again = saved(scorer, tmp_path / "scorer", monkeypatch)
    np.testing.assert_array_equal(margins(again, later).value_Q, margins(scorer, later).value_Q)
    assert again.profiles == scorer.profiles
    told = [user for user, one in zip(scorer.users.ids, scorer.profiles, strict=True) if not one.silent]
    gone = "person 3" if method == "history" else told[0]
    assert residue(tmp_path / "scorer", gone)
    left = forget(scorer, gone)
    assert isinstance(left, PersonaScorer)
    assert gone not in left.known_users().ids.to_list()
    assert left.profile(gone) is None
    assert bits_apart(left, left, later, [gone], ["nobody"]) == 0
    stays = [user for user in scorer.users.ids if user != gone][:3]
    assert bits_apart(left, scorer, later, stays, stays) == 0
    save(left, tmp_path / "left")
    assert residue(tmp_path / "left", gone) == []
    content = b"".join(path.read_bytes() for path in (tmp_path / "left").iterdir())
    mine = truth.part(0, BEFORE)
    texts = mine.responses.texts_R.gather(mine.chosen_N[(mine.users.ids == gone).to_numpy()[mine.user_N]])
    assert not any(text.encode() in content for text in texts)


def test_a_placebo_of_another_persons_profile_cannot_forget(truth):
    with pytest.raises(SettingsError, match="kept under another person's id"):
        forget(fitted(truth, profile_of="other"), "person 1")
    everybody = fitted(truth, profile_of="everybody", method="history")
    assert len(everybody.known_users()) == 0
    left = forget(everybody, "person 1")
    assert isinstance(left, PersonaScorer)
    assert left.profiles == everybody.profiles


def test_a_malformed_profile_is_refused(truth, tmp_path, monkeypatch):
    saved(fitted(truth, method="fermi", rounds=1), tmp_path / "scorer", monkeypatch)
    config, arrays = artifact.load(tmp_path / "scorer", "scorer")
    first = config["state"]["profiles"][0]
    for profiles, match in {
        "few": ([first], "there are 1 profiles of 14 users"),
        "no text": ([{**first, "texts": []}, *config["state"]["profiles"][1:]], "a profile has no text"),
        "short": ([{**first, "agreement": [[0.5]]}, *config["state"]["profiles"][1:]], "agreement of a profile"),
        "odd": ([{**first, "texts": [7]}, *config["state"]["profiles"][1:]], "expected text"),
    }.values():
        artifact.save(
            tmp_path / "odd", "scorer", {**config, "state": {**config["state"], "profiles": profiles}}, arrays
        )
        with pytest.raises(ArtifactError, match=match):
            load(tmp_path / "odd", Words())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ("method=magic", "method = 'magic'; expected history, hypotheses, fermi or synthesize"),
        ("profile_of=mine", "profile_of = 'mine'; expected own, other"),
        ("rounds=-1", "rounds = -1; expected a whole number from 0"),
        ("alpha=1.5", "alpha = 1.5; expected a number between 0 and 1"),
        ("round=3", "Did you mean 'rounds'"),
    ],
)
def test_impossible_settings_are_one_line(settings, match):
    with pytest.raises(SettingsError, match=match):
        learner(f"persona:some/model,{settings}")
    assert learner("persona:some/model,method=fermi,rounds=3") == Persona("some/model", method="fermi", rounds=3)


# --- the contract, and a judge behind a server


@pytest.fixture(scope="module")
def styles() -> dict[str, np.ndarray]:
    """The texts of the contract suite."""
    found = dict[str, np.ndarray]()
    for seed, judgements in ((0, 30), (1, 10)):
        one = simulate("two-tastes", seed=seed, users=8, judgements=judgements, judges=4)
        found |= dict(zip(one.comparisons.responses.texts_R, one.style_RD, strict=True))
    return found


class TestContract(LearnerContract):
    learner = Persona("scripted", alpha=0.3)

    @pytest.fixture(autouse=True)
    def _judge(self, styles: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
        judge = Scripted(styles, lot=False)
        monkeypatch.setattr("polypref.learners.judge_settings.language_model", lambda *_, **__: judge)


def test_a_server_is_asked_as_a_model_here(truth):
    judge = Scripted(truth.styles, skill=0.9)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            listed = [{"token": token, "logprob": p} for token, p in judge.reply(body["messages"][0]["content"])]
            choice = {"message": {"content": "A"}, "logprobs": {"content": [{"top_logprobs": listed}]}}
            content = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *_: object) -> None:
            pass

    rows = truth.part(0, 12)
    rows = rows.take(rows.user_N < 3)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        there = Persona(f"http://127.0.0.1:{http.server_port}/v1#scripted", alpha=0.5, proposals=3)
        asked = margins(there.fit(rows, encoder=Words(), seed=0), few(truth)).value_Q
        http.shutdown()
    here = persona(judge, alpha=0.5, proposals=3).fit(rows, encoder=Words(), seed=0)
    assert any(not one.silent for one in here.profiles)
    np.testing.assert_allclose(asked, margins(here, few(truth)).value_Q, atol=1e-5)
