"""A language model in the server's own process writes chats: together, gated, ranked, and ended when unwanted."""

from __future__ import annotations

import signal
import threading
import time

import httpx
import openai
import pytest

import serve_cases
from judge_cases import save_judge
from lm_cases import embedded
from polypref import save
from polypref.cli import main
from polypref.learners.pooled import Pooled
from polypref.serve.dialects.upstream_http import HttpUpstream
from polypref.serve.dialects.upstream_local import LONGEST, LocalUpstream
from polypref.serve.dialects.upstreams import upstream_of
from polypref.worlds import simulate
from serve_cases import core, running, started
from serve_upstream import best, client, offers

SAID = "why cats like dogs"
ASK = {"model": "polypref", "messages": [{"role": "user", "content": SAID}]}
ENDLESS = {"max_tokens": 100_000, "timeout": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_judge(tmp_path_factory.mktemp("own") / "tiny-chat", context=200_000)


@pytest.fixture(scope="module")
def model(folder):
    return upstream_of(str(folder), 4, 20.0)


@pytest.fixture
def endless(folder, monkeypatch):
    """A model that no token ends."""
    monkeypatch.setattr(LocalUpstream, "ends", [10_000])
    return LocalUpstream(str(folder), 4, 20.0)


@pytest.fixture
def served(tmp_path):
    return core(tmp_path / "s.db")


def plain(model, many):
    """The likeliest tokens after the conversation, by a whole pass for each, and whether they ended."""
    import torch

    ids, start = model.read(ASK["messages"]), len(model.read(ASK["messages"]))
    while len(ids) - start < many and (len(ids) == start or ids[-1] not in model.ends):
        with torch.inference_mode():
            ids.append(int(model._network(torch.tensor([ids])).logits[0, -1].argmax()))
    return start, ids[start:]


def test_the_best_for_the_person_is_returned_and_all_are_logged(folder, served):
    with running(served, upstream=LocalUpstream(str(folder), 4, 20.0)) as at:
        found = client(at).chat.completions.create(**ASK, user="ann", max_tokens=12, seed=3)
        (offer,) = offers(served, "ann")
        assert len(offer.texts) == 4 == found.candidates["given"] and len(set(offer.texts)) > 1
        assert found.choices[0].message.content == best(offer.texts, "ann", SAID)[0]
        assert found.usage.prompt_tokens == 6 and 4 <= found.usage.completion_tokens <= 48
        assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
        again = client(at).chat.completions.create(**ASK, user="ben", max_tokens=12, seed=3)
        assert offers(served, "ben")[0].texts == offer.texts and again.choices[0].message.content in offer.texts
        client(at).chat.completions.create(**ASK, user="cem", max_tokens=12)
        assert offers(served, "cem")[0].texts != offer.texts  # without a seed, other texts
        stream = list(client(at).chat.completions.create(**ASK, user="ben", max_tokens=12, seed=3, stream=True))
        told = "".join(one.choices[0].delta.content or "" for one in stream if one.choices)
        assert told == again.choices[0].message.content and found.model == "tiny-chat"
        assert [one.id for one in client(at).models.list()] == ["polypref", "tiny-chat"]


def test_a_text_is_the_models_own_and_its_tokens_are_counted(folder, served, model):
    start, tokens = plain(model, 9)
    ended = tokens[-1] in model.ends
    with running(served, upstream=LocalUpstream(str(folder), 3, 20.0)) as at:
        found = client(at).chat.completions.create(**ASK, temperature=0, max_tokens=9)
    assert found.choices[0].message.content == model.text(tokens[: len(tokens) - ended])
    assert found.usage.prompt_tokens == start and found.usage.completion_tokens == 3 * len(tokens)
    assert found.candidates["different"] == 1 and found.choices[0].finish_reason == ("stop" if ended else "length")


def test_a_conversation_is_read_in_pieces_with_the_same_answer(folder, model, monkeypatch, served):
    monkeypatch.setattr("polypref.serve.dialects.upstream_local.PIECE", 2)
    _, tokens = plain(model, 5)
    with running(served, upstream=LocalUpstream(str(folder), 2, 20.0)) as at:
        found = client(at).chat.completions.create(**ASK, temperature=0, max_completion_tokens=5)
    assert found.choices[0].message.content == model.text([one for one in tokens if one not in model.ends])


def test_no_answer_passes_the_gate_that_the_bounds_hold_back(folder, tmp_path, monkeypatch):
    seen = set()
    monkeypatch.setattr(serve_cases, "UNSAFE", "cats")
    bounded = core(tmp_path / "b.db", bounded=True)
    with running(bounded, upstream=LocalUpstream(str(folder), 4, 20.0)) as at:
        for seed in range(12):
            found = client(at).chat.completions.create(**ASK, user="ann", max_tokens=6, seed=seed)
            written = offers(bounded, "ann")[-1].texts
            safe = [one for one in written if "cats" not in one]
            message = found.choices[0].message
            seen.add((len(safe) < len(written), bool(safe)))
            assert message.content in safe if safe else (message.content is None and message.refusal)
    assert (True, True) in seen, seen  # some were held back, and another was given


def test_what_is_longer_than_the_context_has_openais_code(tmp_path, served):
    short = save_judge(tmp_path / "short", context=16)
    with running(served, upstream=LocalUpstream(str(short), 2, 20.0)) as at:
        long = [{"role": "user", "content": "cats " * 30}]
        for more in ({"messages": long}, {"messages": ASK["messages"], "max_tokens": 16}):
            with pytest.raises(openai.BadRequestError, match="16 tokens") as error:
                client(at).chat.completions.create(model="polypref", **more)
            assert error.value.code == "context_length_exceeded"
            assert error.value.type == "invalid_request_error" and error.value.param == "messages"
        found = client(at).chat.completions.create(**ASK)  # without max_tokens, as much as there is room for
        assert found.usage.completion_tokens <= 2 * min(LONGEST, 16 - 6)


@pytest.mark.parametrize(
    "more",
    [{"max_tokens": 0}, {"temperature": 3}, {"temperature": float("-1")}, {"top_p": 2}, {"stop": ["cats"]},
     {"frequency_penalty": 1}, {"extra_body": {"seed": 0.5}}, {"extra_body": {"max_tokens": True}}],
)  # fmt: skip
def test_values_that_mean_nothing_or_are_not_followed_are_refused(folder, served, more):
    with running(served, upstream=LocalUpstream(str(folder), 2, 20.0)) as at:
        with pytest.raises(openai.BadRequestError, match=next(iter(more.get("extra_body", more)))):
            client(at).chat.completions.create(**ASK, **more)
        client(at).chat.completions.create(**ASK, max_tokens=2, stop=None, frequency_penalty=0, user="ann")


def test_the_event_loop_is_free_and_a_slow_answer_ends_in_time(endless, served):
    endless.timeout = 1.0
    with running(served, upstream=endless) as at:
        told = []

        def ask():
            begun = time.monotonic()
            with pytest.raises(openai.InternalServerError) as error:
                client(at).chat.completions.create(**ASK, **ENDLESS)
            told.append((error.value.status_code, time.monotonic() - begun))

        asking = threading.Thread(target=ask)
        asking.start()
        while asking.is_alive():
            begun = time.monotonic()
            assert httpx.get(f"{at}/health/live").status_code == 200
            assert time.monotonic() - begun < 0.7
            time.sleep(0.05)
        asking.join()
        assert told[0][0] == 504 and told[0][1] < 5
        endless.timeout = 20.0
        assert client(at).chat.completions.create(**ASK, max_tokens=3).choices  # the thread is free again


def test_a_client_that_leaves_ends_its_answer(endless, served):
    with running(served, upstream=endless) as at:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{at}/v1/chat/completions", json=ASK | {"max_tokens": 100_000, "user": "ann"}, timeout=0.5)
        begun = time.monotonic()
        assert client(at).chat.completions.create(**ASK, max_tokens=3).choices
        assert time.monotonic() - begun < 5 and offers(served, "ann") == []


def test_a_server_that_stops_while_it_writes_is_down_in_seconds(endless, served):
    told = []
    with running(served, upstream=endless) as at:

        def ask():
            try:
                client(at).chat.completions.create(**ASK, **ENDLESS)
            except openai.APIError as error:
                told.append(str(error))

        asking = [threading.Thread(target=ask) for _ in range(3)]  # one is written, two wait
        for one in asking:
            one.start()
        time.sleep(0.7)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    for one in asking:
        one.join()
    assert len(told) == 3 and all("the server stops" in one for one in told), told


# --- at the start


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    import polypref

    world = simulate("two-tastes", users=8, judgements=20, judges=4).comparisons
    into = tmp_path_factory.mktemp("saved") / "scorer"
    save(Pooled().fit(world, encoder=polypref.encoder("static"), seed=0), into)
    return into


def refused(capsys, *arguments):
    assert main(["serve", *map(str, arguments), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("polypref: error: ") and said.count("\n") == 1, said
    return said


def test_what_cannot_write_chats_is_refused_in_one_line(saved, tmp_path, monkeypatch, capsys):
    bare = save_judge(tmp_path / "bare", template=None)
    capsys.readouterr()  # what saving says
    assert "has no chat template" in refused(capsys, saved, "--upstream", bare)
    monkeypatch.setattr("polypref.features.smollm2.find_spec", lambda _: None)  # not installed
    monkeypatch.setattr("polypref.features.smollm2.converted", lambda: tmp_path / "not converted")
    assert "polypref lm install" in refused(capsys, saved, "--upstream", "smollm2")
    assert "no such folder" in refused(capsys, saved, "--upstream", "./nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(capsys, saved, "--upstream", tmp_path / "empty")


def test_the_value_chooses_what_writes(folder):
    assert isinstance(upstream_of("http://h/v1#m", 2, 1.0), HttpUpstream)
    assert isinstance(upstream_of(str(folder), 2, 1.0), LocalUpstream)


def test_the_command_says_what_writes_and_stops(saved, folder, tmp_path):
    run, at = started(saved, "--store", tmp_path / "s.db", "--upstream", folder, "--candidates", 2)
    try:
        assert client(at).chat.completions.create(**ASK, max_tokens=3).candidates["asked"] == 2
    finally:
        run.send_signal(signal.SIGINT)
    assert run.wait(timeout=20) == 0


def test_smollm2_writes_sentences(served):
    embedded()
    with running(served, upstream=upstream_of("smollm2", 2, 60.0)) as at:
        asked = [{"role": "user", "content": "What is the capital of France?"}]
        found = client(at).chat.completions.create(
            model="polypref", messages=asked, max_tokens=16, temperature=0, user="ann"
        )
    assert "Paris" in found.choices[0].message.content and found.model == "smollm2"
