"""`polypref fit` then `polypref score`: the answers are the scorer's own, in order, and say who answered."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import polypref
from contract_cases import QUICK
from polypref import artifact, features
from polypref.cli import main
from polypref.comparisons import Responses, from_columns
from polypref.data.linting.lint import clean
from polypref.data.split import holdout
from polypref.errors import PolyprefError
from polypref.learners import LEARNERS
from polypref.scorers import metadata

PROMPT = "How do I boil an egg?"


@dataclass(frozen=True)
class Words:
    """Two features that decide the toy tastes: how often "please" and "now" occur."""

    name: str = "words"
    identity: str = "words v1"

    def encode(self, responses: Responses) -> np.ndarray:
        texts = responses.texts_R.str
        return np.column_stack([texts.count_matches(word).to_numpy() for word in ("please", "now")]).astype(np.float32)


@pytest.fixture(autouse=True)
def words_encoder(monkeypatch):
    monkeypatch.setattr(features, "encoder", lambda name, **_: Words(name))


def preferences(seed: int = 0) -> list[dict[str, str]]:
    """Six people like "please", three like "now"; each judges 40 pairs."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(9):
        for _ in range(40):
            polite, brisk = (f"{word} boil it, {rng.integers(1000)}" for word in ("please", "now"))
            chosen, rejected = (polite, brisk) if user < 6 else (brisk, polite)
            rows.append({"user_id": f"u{user}", "prompt": PROMPT, "chosen": chosen, "rejected": rejected})
    return rows


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A folder with prefs.jsonl and a fitted scorer; never changed by a test."""
    folder = tmp_path_factory.mktemp("fitted")
    prefs = write_rows(folder / "prefs.jsonl", preferences())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "encoder", lambda name, **_: Words(name))
        assert (
            main(["fit", prefs, "--learner", "individual", "--encoder", "words", "--out", str(folder / "scorer")]) == 0
        )
    return folder


QUESTIONS = [
    {"user_id": user, "prompt": prompt, "response": response}
    for user in ("u8", "stranger", "u0", "__proto__")
    for prompt, response in [(PROMPT, "please boil it"), (PROMPT, "now boil it"), ("مرحبا 🥚", "please, please 🥚")]
]


def without_encoder(folder: Path, to: Path) -> Path:
    """A copy of a saved scorer that names no encoder."""
    config, arrays = artifact.load(folder, "scorer")
    artifact.save(to, "scorer", config | {"encoder": None}, arrays)
    return to


def test_scores_are_the_scorers_own(fitted, tmp_path):
    questions = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    assert main(["score", str(fitted / "scorer"), questions, "--out", str(tmp_path / "a.jsonl")]) == 0
    answers = read_rows(tmp_path / "a.jsonl")
    assert [{k: a[k] for k in ("user_id", "prompt", "response")} for a in answers] == QUESTIONS

    comparisons = polypref.read([fitted / "prefs.jsonl"]).comparisons
    kept, held = holdout(comparisons, metadata(fitted / "scorer").split, 0, 0.1)
    scorer = polypref.LEARNERS["individual"].fit(
        comparisons.take(kept), encoder=Words(), seed=0, valid=comparisons.take(held)
    )
    columns = pl.DataFrame(QUESTIONS)
    pool = from_columns(columns["user_id"], columns["prompt"], columns["response"], columns["response"])
    expected = scorer.score(pool.responses, columns["user_id"], pool.chosen_N)
    np.testing.assert_allclose([a["score"] for a in answers], expected.value_Q, atol=1e-6)


def test_each_person_is_answered_as_themselves(fitted, tmp_path, capsys):
    questions = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    assert main(["score", str(fitted / "scorer"), questions]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    polite = {a["user_id"]: a["score"] for a in answers if a["response"] == "please boil it"}
    brisk = {a["user_id"]: a["score"] for a in answers if a["response"] == "now boil it"}
    assert polite["u0"] > brisk["u0"]
    assert polite["u8"] < brisk["u8"]
    source = {a["user_id"]: a["source"] for a in answers}
    assert source == {"u8": "personal", "u0": "personal", "stranger": "population", "__proto__": "population"}


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_is_fitted_and_scores(learner, tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS, learner, QUICK[learner])
    few = [row for i, row in enumerate(preferences()) if i % 40 < 14]  # how well it learns is the contract's matter
    prefs, out = write_rows(tmp_path / "prefs.jsonl", few), str(tmp_path / "scorer")
    assert main(["fit", prefs, "--learner", learner, "--encoder", "words", "--out", out]) == 0
    questions = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    assert main(["score", out, questions, "--out", str(tmp_path / "a.jsonl")]) == 0
    assert np.isfinite([a["score"] for a in read_rows(tmp_path / "a.jsonl")]).all()


def test_fit_says_what_it_did(fitted, tmp_path, capsys):
    prefs = write_rows(tmp_path / "prefs.jsonl", [*preferences(), {**preferences()[0], "chosen": ""}])
    assert main(["fit", prefs, "--learner", "pooled", "--encoder", "words", "--out", str(tmp_path / "s")]) == 0
    out = capsys.readouterr().out
    assert "of 361 judgements by 9 users" in out  # the empty response is dropped
    known = metadata(tmp_path / "s")
    assert (known.learner, known.encoder, known.read) == ("pooled", "words", {"judgements": 361, "rows": 361})
    assert known.judgements <= 360
    reading = polypref.read([prefs])
    assert known.data[0] == clean(reading, polypref.lint(reading)).content_hash


def test_chat_prompts_and_other_column_names(fitted, tmp_path):
    chat = [{"role": "user", "content": PROMPT}]
    rows = [{"who": "u0", "prompt": chat, "answer": "please"}, {"who": "u0", "prompt": chat, "answer": "now"}]
    questions = write_rows(tmp_path / "q.jsonl", rows)
    arguments = ["score", str(fitted / "scorer"), questions, "--columns", "user_id=who", "response=answer"]
    assert main([*arguments, "--out", str(tmp_path / "a.jsonl")]) == 0
    first, second = read_rows(tmp_path / "a.jsonl")
    assert first["prompt"] == chat
    assert first["score"] > second["score"]
    pl.DataFrame(rows).write_parquet(tmp_path / "q.parquet")
    arguments[2] = str(tmp_path / "q.parquet")
    assert main([*arguments, "--out", str(tmp_path / "b.jsonl")]) == 0
    assert read_rows(tmp_path / "b.jsonl") == [first, second]


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(list(map(str, arguments))) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"user_id": "a", "prompt": "p"}\n', ['"response" is missing', "user_id, prompt"]),
        (
            '{"user_id": "a", "prompt": "p", "response": "r"}\n{"user_id": "a", "prompt": "p"}\n',
            ["line 2", '"response"'],
        ),
        ('{"user_id": "a", "prompt": "p", "response": "r"}\n{"user_id"\n', ["line 2", "cannot be read"]),
        ("", ["is empty"]),
    ],
)
def test_a_bad_row_is_one_line_and_leaves_no_file(fitted, tmp_path, capsys, text, words):
    questions = tmp_path / "q.jsonl"
    questions.write_text(text)
    err = complaint(capsys, "score", fitted / "scorer", questions, "--out", tmp_path / "a.jsonl")
    assert all(word in err for word in words)
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_a_scorer_that_cannot_be_used_says_why(fitted, tmp_path, capsys, monkeypatch):
    questions = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    assert "polypref fit FILE --out" in complaint(capsys, "score", tmp_path / "absent", questions)
    nameless = without_encoder(fitted / "scorer", tmp_path / "nameless")
    assert "--encoder" in complaint(capsys, "score", nameless, questions)
    assert main(["score", str(nameless), questions, "--encoder", "words"]) == 0
    monkeypatch.setattr(features, "encoder", lambda name, **_: Words(name, "words v2"))
    err = complaint(capsys, "score", fitted / "scorer", questions)
    assert "[words v1]" in err
    assert "[words v2]" in err
    (nameless / "manifest.json").write_text("{")
    assert "manifest.json is not JSON" in complaint(capsys, "score", nameless, questions)


def test_fit_refuses_what_cannot_work(fitted, tmp_path, capsys):
    prefs = fitted / "prefs.jsonl"
    assert "Did you mean 'individual'" in complaint(
        capsys, "fit", prefs, "--learner", "indivdual", "--out", tmp_path / "s"
    )
    assert "at least one" in complaint(capsys, "fit", "--out", tmp_path / "s")
    assert "out" in complaint(capsys, "fit", prefs)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    arguments = ["--encoder", "words", "--learner", "pooled", "--out", tmp_path / "mine"]
    assert "not a polypref artifact" in complaint(capsys, "fit", prefs, *arguments)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_full_disk_is_one_line(fitted, tmp_path, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("skipped: this system has no /dev/full")
    questions = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    assert "No space left" in complaint(capsys, "score", fitted / "scorer", questions, "--out", "/dev/full")


def test_non_ascii_answers_reach_an_ascii_terminal_unharmed(fitted, tmp_path, monkeypatch):
    questions = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["score", str(fitted / "scorer"), questions]) == 0
    lines = terminal.buffer.getvalue().decode("utf-8").splitlines()  # type: ignore[attr-defined]
    assert [json.loads(line)["prompt"] for line in lines] == [row["prompt"] for row in QUESTIONS]


def test_score_takes_the_columns_and_chats_that_fit_takes(fitted, tmp_path):
    """Texts and chats in one file, whole conversations as responses, columns known by other names."""
    chat = [{"role": "user", "content": PROMPT}]
    rows = [
        {"worker": "u0", "question": PROMPT, "chosen": "please"},
        {"worker": "u0", "question": chat, "chosen": [{"role": "assistant", "content": "please"}]},
        {"worker": "u0", "question": chat, "chosen": [*chat, {"role": "assistant", "content": "please"}]},
    ]
    questions = write_rows(tmp_path / "q.jsonl", rows)
    out = tmp_path / "a.jsonl"
    assert main(["score", str(fitted / "scorer"), questions, "--columns", "response=chosen", "--out", str(out)]) == 0
    answers = read_rows(out)
    assert [{k: a[k] for k in rows[0]} for a in answers] == rows, "the caller's own columns"
    assert len({a["score"] for a in answers}) == 1


def test_a_missing_column_is_told_with_the_flag_that_works(fitted, tmp_path, capsys):
    questions = write_rows(tmp_path / "q.jsonl", [{"user_id": "u0", "prompt": PROMPT, "text": "please"}])
    err = complaint(capsys, "score", fitted / "scorer", questions)
    assert "--columns response=text" in err
    assert main(["score", str(fitted / "scorer"), questions, "--columns", "response=text"]) == 0


def row(user: str, chosen: str, rejected: str, **more: object) -> dict:
    return {"user_id": user, "prompt": PROMPT, "chosen": chosen, "rejected": rejected, **more}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(f"u{k % 2}", f"a{k}", f"b{k}", tie=True) for k in range(40)], "every judgement is a tie"),
        ([row("u", f"a{k}", f"b{k}") for k in range(40)], "all judgements are by one user"),
        ([row("u", "a", "b"), row("u", "b", "c"), row("v", "d", "e")], "3 judgements that are not ties; fit needs"),
    ],
)
def test_fit_refuses_what_nobody_can_learn(tmp_path, capsys, rows, words):
    prefs = write_rows(tmp_path / "p.jsonl", rows)
    arguments = ["--encoder", "words", "--learner", "pooled", "--out", tmp_path / "s"]
    assert words in complaint(capsys, "fit", prefs, *arguments)
    assert not (tmp_path / "s").exists()


def test_fit_warns_of_few_validation_rows_and_tells_rows_from_judgements(tmp_path, capsys):
    rows = [
        {"user_id": f"u{u}", "prompt": f"p{k}", "response": f"{word} {k}", "rating": r}
        for u in range(2)
        for k in range(8)
        for r, word in enumerate(("please", "now", "well"))
    ]
    prefs = write_rows(tmp_path / "p.jsonl", rows)
    assert main(["fit", prefs, "--encoder", "words", "--learner", "pooled", "--out", str(tmp_path / "s")]) == 0
    out, err = capsys.readouterr()
    assert "of 48 judgements by 2 users (48 rows read)" in out
    assert "pairs were made from ratings" in out
    assert "\npolypref: warning: only " in err
    assert err.count("\n") == 2


def test_load_takes_the_encoder_that_fit_named(fitted, tmp_path, monkeypatch):
    scorer = polypref.load(fitted / "scorer")
    pool = polypref.from_columns(["u0"], [PROMPT], ["please"], ["now"])
    polite, brisk = scorer.score(pool.responses, ["u0", "u0"]).value_Q
    assert polite > brisk
    nameless = without_encoder(fitted / "scorer", tmp_path / "nameless")
    with pytest.raises(PolyprefError, match="does not say which encoder"):
        polypref.load(nameless)
    assert polypref.load(nameless, "words").score(pool.responses, ["u0", "u0"]).value_Q[0] == polite
    with pytest.raises(PolyprefError, match=r"fit FILE --out nowhere"):
        polypref.load("nowhere")
