"""An upstream that goes wrong gives a clear error and no answer; settings, keys and models of an upstream."""

from __future__ import annotations

import socket
import time

import httpx
import openai
import pytest

from polypref.errors import SettingsError
from polypref.serve.dialects.upstream_http import KEY, HttpUpstream
from serve_cases import TEXTS, core, running
from serve_upstream import ASK, USAGE, best, client, message, offers, serving, upstream


def status_of(error):
    return error.value.status_code, str(error.value)


# --- an upstream that goes wrong


@pytest.mark.parametrize("knows", [False, "refuses"])
def test_an_upstream_that_does_not_know_n_is_asked_for_one_at_a_time(tmp_path, knows):
    with serving(tmp_path, TEXTS[:4], knows_n=knows) as (asked, at, _):
        for turn in range(2):
            found = client(at).chat.completions.create(**ASK, user="ann", seed=5)
            assert found.choices[0].message.content == best(TEXTS[:4], None)[0]
            assert found.usage.total_tokens == 4 * USAGE["total_tokens"]
            singles = [one for one in asked.asked if "n" not in one]
            assert len(singles) == (4 if turn else 3 + (knows == "refuses")) + (turn and 3 + (knows == "refuses"))
        assert {one["seed"] for one in asked.asked} == {5, 6, 7, 8}
        assert sum("n" in one for one in asked.asked) == 1  # remembered


def test_more_or_fewer_candidates_than_asked(tmp_path):
    with serving(tmp_path, candidates=4, choices=[message(text) for text in TEXTS]) as (asked, at, served):
        client(at).chat.completions.create(**ASK, user="ann")
        assert offers(served, "ann")[0].texts == tuple(TEXTS[:4])
        asked.choices = [message(TEXTS[0]), message(TEXTS[1])]
        client(at).chat.completions.create(**ASK, user="ben")  # two of four, then one each of the missing two
        assert offers(served, "ben")[0].texts == (*TEXTS[:2], *TEXTS[:2])
        alike = client(at).chat.completions.create(**ASK, user="ben")
        assert alike.candidates == {"asked": 4, "given": 4, "different": 2}
        assert 'polypref_upstream_candidates_total{what="different"} 8.0' in httpx.get(f"{at}/metrics").text
        asked.choices, asked.usage = [message(TEXTS[0])], None
        assert client(at).chat.completions.create(**ASK).usage is None  # unknown is not zero


BROKEN = [
    ({"raw": b"<html>"}, 502, "form of OpenAI"),
    ({"raw": b"[" * 100_000}, 502, "form of OpenAI"),
    ({"raw": b'{"choices": [7]}'}, 502, "form of OpenAI"),
    ({"raw": b'{"choices": [{"message": {"content": "a\\u0000"}}]}'}, 502, "without any text"),
    ({"raw": b'{"choices": [{"message": {"content": "\\ud800"}}]}'}, 502, "without any text"),
    ({"choices": []}, 502, "without any text"),
    ({"choices": [message("x" * 1_000_001)]}, 502, "characters"),
    ({"raw": b" " * (17 << 20)}, 502, "16 MiB"),
    ({"cut": 20}, 502, "no answer"),
    ({"reply": {"Content-Encoding": "br"}}, 502, "packs"),
    ({"status": 302, "reply": {"Location": "http://127.0.0.1:1"}}, 502, "HTTP 302"),
    ({"status": 500}, 502, "HTTP 500"),
    ({"status": 504}, 504, "time-out"),
    ({"status": 401}, 502, KEY),
    ({"status": 403}, 502, KEY),
    ({"status": 404}, 404, "status 404"),
    ({"status": 400}, 400, "status 400"),
    ({"status": 422, "raw": b"no JSON"}, 422, "no JSON"),
]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("wrong"), candidates=2, bounded=True) as found:
        yield found


@pytest.mark.parametrize(("how", "status", "says"), BROKEN)
@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_goes_wrong_is_told_and_gives_no_answer(scripted, how, status, says, stream):
    asked, at, served = scripted
    usual = dict(asked.__dict__)
    asked.__dict__.update(how)
    try:
        with pytest.raises(openai.APIStatusError) as error:
            client(at).chat.completions.create(**ASK, user="zoe", stream=stream)
    finally:
        asked.__dict__.update({name: usual[name] for name in how})
    assert status_of(error)[0] == status and says in status_of(error)[1]
    assert offers(served, "zoe") == []


def test_too_many_requests_are_the_clients_business(scripted):
    asked, at, _ = scripted
    asked.status, asked.reply = 429, {"Retry-After": "7"}
    found = httpx.post(f"{at}/v1/chat/completions", json=ASK)
    asked.status, asked.reply = 200, {}
    assert found.status_code == 429 and found.headers["retry-after"] == "7"


def test_a_dead_upstream(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/v1#m"
    with running(core(tmp_path / "dead.db"), upstream=HttpUpstream(dead)) as at:
        with pytest.raises(openai.InternalServerError) as error:
            client(at).chat.completions.create(**ASK)
        assert status_of(error)[0] == 502 and "is it running" in status_of(error)[1]


@pytest.mark.parametrize("slow", [{"wait": 30}, {"drips": True}])
def test_a_slow_upstream(tmp_path, slow):
    with serving(tmp_path, timeout=0.3, candidates=1, **slow) as (_, at, _):
        begun = time.monotonic()
        with pytest.raises(openai.InternalServerError) as error:
            client(at).chat.completions.create(**ASK)
        assert status_of(error)[0] == 504 and time.monotonic() - begun < 5
        metrics = httpx.get(f"{at}/metrics").text
        assert 'polypref_upstream_seconds_count{outcome="slow"} 1.0' in metrics
        assert 'polypref_upstream_candidates_total{what="given"} 0.0' in metrics


def test_a_client_that_leaves_ends_the_work(tmp_path):
    with serving(tmp_path, wait=30, candidates=1) as (asked, at, served):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{at}/v1/chat/completions", json=ASK | {"user": "ann"}, timeout=0.3)
        until = time.monotonic() + 5
        while not asked.left and time.monotonic() < until:
            time.sleep(0.02)
        assert asked.left == 1  # the upstream saw it too
        assert 'outcome="abandoned"} 1.0' in httpx.get(f"{at}/metrics").text
        assert offers(served, "ann") == []
        asked.wait = 0
        assert client(at).chat.completions.create(**ASK, user="ann").choices  # and nobody else is harmed


def test_the_upstreams_key_is_sent_to_it_and_shown_to_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "secret-of-the-operator")
    told = b'{"error": {"message": "no model for secret-of-the-operator"}}'
    with serving(tmp_path, status=404, raw=told) as (asked, at, _):
        with pytest.raises(openai.NotFoundError) as error:
            client(at).chat.completions.create(**ASK)
        assert "no model for ***" in str(error.value) and "secret" not in str(error.value)
        assert asked.headers[0]["Authorization"] == "Bearer secret-of-the-operator"
        assert "secret" not in repr(HttpUpstream("http://h/v1"))


# --- settings


def test_without_an_upstream_chats_are_refused_with_a_reason(tmp_path):
    with running(core(tmp_path / "s.db")) as at, pytest.raises(openai.NotFoundError, match="--upstream URL"):
        client(at).chat.completions.create(**ASK)


def test_whose_model_is_asked(tmp_path):
    with upstream(TEXTS) as (asked, url), running(core(tmp_path / "s.db"), upstream=HttpUpstream(url)) as at:
        for model in ("polypref", "polypref@ann"):
            with pytest.raises(openai.BadRequestError, match="--upstream URL#model"):
                client(at).chat.completions.create(**ASK | {"model": model})
        client(at).chat.completions.create(**ASK | {"model": "own/choice"})
        assert asked.asked[-1]["model"] == "own/choice" and asked.headers[-1]["path"] == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("url", "more"),
    [("host:80", {}), ("ftp://h/v1", {}), ("http://me:pw@h/v1", {}), ("http://h/v1?key=k", {}),
     ("http://h/v1", {"candidates": 0}), ("http://h/v1", {"candidates": 65}), ("http://h/v1", {"timeout": 0})],
)  # fmt: skip
def test_impossible_settings(url, more):
    with pytest.raises(SettingsError, match=r"--(upstream|candidates)"):
        HttpUpstream(url, **more)


def test_models_are_listed_and_found(tmp_path):
    with serving(tmp_path) as (_, at, _):
        assert [one.id for one in client(at).models.list()] == ["polypref", "up-model"]
        for name in ("polypref", "up-model", "polypref@ann"):
            assert client(at).models.retrieve(name).id == name
        with pytest.raises(openai.NotFoundError, match="found: polypref, up-model"):
            client(at).models.retrieve("gpt/other")
