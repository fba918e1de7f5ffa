"""``polypref serve`` as a process: it says what is in force, answers, stops when asked, and refuses what cannot be."""

from __future__ import annotations

import asyncio
import signal
import socket

import httpx
import pytest

import polypref
from polypref.cli import main
from polypref.errors import InputError
from polypref.features.static import Static
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.pooled import Pooled
from polypref.serve.in_force import InForce
from polypref.serve.start import core_of, warmed
from polypref.worlds import simulate
from serve_cases import started
from serve_upstream import upstream

TEXTS = ["a short text", "another, longer text"]
ASK = {"query": "q", "documents": TEXTS, "user": "ann"}


@pytest.fixture(scope="module")
def world():
    return simulate("two-tastes", users=8, judgements=20, judges=4).comparisons


@pytest.fixture(scope="module")
def saved(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "scorer"
    polypref.save(Hierarchical(steps=3).fit(world, encoder=polypref.encoder("static"), seed=0), folder)
    return folder


def test_it_answers_keeps_and_stops(saved, tmp_path):
    """Two processes on one store: what one acknowledged the other knows, and a restart too."""
    store = tmp_path / "s.db"
    one, at_one = started(saved, "--store", store)
    two, at_two = started(saved, "--store", store)
    try:
        before = httpx.post(f"{at_two}/rerank", json=ASK, timeout=60).json()
        assert before["personalization"]["source"] == "population"
        after, worst = before, before["results"][-1]["index"]
        for at in range(4):
            body = {
                "user": "ann",
                "prompt": "q",
                "chosen": ASK["documents"][worst],
                "rejected": ASK["documents"][1 - worst],
            }
            told = httpx.post(f"{at_one}/v1/feedback", json=body, headers={"Idempotency-Key": f"k{at}"}, timeout=60)
            assert told.json()["new"]
            after = httpx.post(f"{at_two}/rerank", json=ASK, timeout=60).json()
            assert after["personalization"] | {"judgements": at + 1, "source": "personal"} == after["personalization"]
        assert after["results"][0]["index"] == worst
    finally:
        for run in (one, two):
            run.send_signal(signal.SIGTERM)
    assert [run.wait(timeout=60) for run in (one, two)] == [0, 0]
    for run in (one, two):
        assert "nothing bounds the answers" in run.communicate()[1]
    again, at = started(saved, "--store", store)
    assert httpx.post(f"{at}/rerank", json=ASK, timeout=60).json()["results"] == after["results"]
    again.send_signal(signal.SIGINT)
    assert again.wait(timeout=60) == 0


def refused(capsys, *arguments):
    assert main(["serve", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("polypref: error: ") and said.count("\n") == 1, said
    return said


def test_what_cannot_be_served_is_refused_in_one_line(saved, world, tmp_path, capsys):
    assert "Make one: polypref fit" in refused(capsys, tmp_path / "absent", "--store", tmp_path / "s.db")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "Give another --port" in refused(capsys, saved, "--port", port, "--store", tmp_path / "s.db")
    assert "from 0 to 65,535" in refused(capsys, saved, "--port", 99999, "--store", tmp_path / "s.db")
    (tmp_path / "text.db").write_text("this is no store " * 200)
    assert "name the store's" in refused(capsys, saved, "--port", 0, "--store", tmp_path / "text.db")
    assert "its folder" in refused(capsys, saved, "--port", 0, "--store", tmp_path / "absent" / "s.db")
    said = refused(capsys, saved, "--port", 0, "--store", "mysql://me:secret@host/base")
    assert "mysql://" in said and "expected a file, or postgresql://" in said and "secret" not in said
    assert "add --bounds" in refused(capsys, saved, "--port", 0, "--pin", "x", "--store", tmp_path / "s.db")
    (tmp_path / "keys.toml").write_text("[[key]]\nkey = 'a'")
    assert "key number 1" in refused(capsys, saved, "--port", 0, "--keys", tmp_path / "keys.toml")


def test_a_model_is_loaded_before_the_first_request_even_where_the_disk_knows_the_texts_that_are_tried(
    saved, tmp_path, monkeypatch
):
    """The second server finds the texts that every start tries in the cache on disk, and still loads the model."""
    asked = []
    own = Static.compute
    monkeypatch.setattr(Static, "compute", lambda self, pool: asked.append(len(pool)) or own(self, pool))
    for number in range(2):
        asked.clear()
        core_of(saved, tmp_path / f"{number}.db").store.close()
        assert asked, number


def test_what_cannot_be_encoded_at_the_start_is_told_and_tried_again(saved, tmp_path, monkeypatch, capsys):
    core = core_of(saved, tmp_path / "s.db")

    def fails(self, pool):
        raise InputError("the model is away.")

    with monkeypatch.context() as away:
        away.setattr(InForce, "prepare", fails)
        warmed(core)
    assert core.encoder_fails and "the model is away" in capsys.readouterr().err
    assert asyncio.run(core.failing()) == [] and not core.encoder_fails
    core.close()
    core.store.close()


def test_a_scorer_that_cannot_learn_is_served_and_said(world, tmp_path):
    polypref.save(Pooled().fit(world, encoder=polypref.encoder("static"), seed=0), tmp_path / "pooled")
    run, at = started(tmp_path / "pooled", "--store", tmp_path / "s.db")
    body = {"user": "ann", "prompt": "q", "chosen": "a", "rejected": "b"}
    assert httpx.post(f"{at}/v1/feedback", json=body, timeout=60).json()["used"] is False
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=60) == 0
    assert "cannot learn from use" in run.communicate()[1]


def test_chats_are_answered_by_an_upstream(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("POLYPREF_UPSTREAM_KEY", "secret-of-the-operator")
    chat = {"model": "polypref", "messages": [{"role": "user", "content": "q"}], "user": "ann"}
    with upstream(TEXTS) as (asked, url):
        run, at = started(saved, "--store", tmp_path / "s.db", "--upstream", f"{url}#up-model", "--candidates", 2)
        found = httpx.post(f"{at}/v1/chat/completions", json=chat, timeout=60).json()
        assert found["choices"][0]["message"]["content"] in TEXTS and asked.asked[0]["n"] == 2
        assert asked.headers[0]["Authorization"] == "Bearer secret-of-the-operator"
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=60) == 0
        assert "secret" not in "".join(run.communicate())
    for wrong, says in (
        (("--upstream", "host:80"), "--upstream <url>"),
        (("--upstream", "http://me:secret@host/v1"), "environment variable POLYPREF_UPSTREAM_KEY"),
        (("--upstream", url, "--candidates", 65), "from 1 to 64"),
        (("--upstream", url, "--upstream-timeout", 0), "between 0 and 3,600"),
    ):
        said = refused(capsys, saved, "--port", 0, "--store", tmp_path / "s.db", *wrong)
        assert says in said and "secret" not in said


def test_settings_that_cannot_be_are_refused_in_one_line(saved, world, tmp_path, capsys, monkeypatch):
    at = (saved, "--port", 0, "--store", tmp_path / "s.db")
    (tmp_path / "empty").mkdir()
    assert "polypref fit" in refused(capsys, tmp_path / "empty", "--port", 0, "--store", tmp_path / "s.db")
    assert not (tmp_path / "s.db").exists()  # nothing is made for a scorer that is not there
    assert "no-such-encoder" in refused(capsys, *at, "--encoder", "no-such-encoder")
    assert "concurent" in refused(capsys, *at, "--request-limits", "concurent=5")
    assert "whole number" in refused(capsys, *at, "--request-limits", "body=0")
    assert "--log" in refused(capsys, *at, "--log", tmp_path)
    monkeypatch.setenv("POLYPREF_KEYS", "acme")
    assert "TENANT:KEY" in refused(capsys, *at)
    monkeypatch.setenv("POLYPREF_KEYS", "acme:key")
    (tmp_path / "keys.toml").write_text("[[key]]\nkey = 'key'\ntenant = 'acme'")
    assert "in one of them" in refused(capsys, *at, "--keys", tmp_path / "keys.toml")
    (tmp_path / "keys.toml").write_text("[[jwt]]\nissuer = 'i'\naudience = 'a'\nalgorithm = 'none'\ntenant = 't'")
    assert "expected HS256" in refused(capsys, *at, "--keys", tmp_path / "keys.toml")
