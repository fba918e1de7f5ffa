"""What is in memory is answered at once, what is not never holds up others, and both give the same answers."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import time
from dataclasses import replace

import httpx
import numpy as np
import polars as pl
import pytest

from polypref.bounds.gate import Bounded, Gate, Limits
from polypref.bounds.safety_cache import Safety
from polypref.cli.serve import Serve
from polypref.comparisons import Responses
from polypref.features import question
from polypref.learners.protocol import POPULATION, Scores
from polypref.serve.core import Core
from polypref.serve.remembered import Remembered
from polypref.serve.running.garbage import MORE, SetApart
from polypref.serve.store.contract import Person
from polypref.serve.store.sqlite import Sqlite
from recovery_worlds import Normal
from serve_cases import PROMPT, TEXTS, SaysUnsafe, core, running, scorer

ANN = Person("", "ann")


def pool(texts):
    return Responses.slate(PROMPT, texts)[0]


class Counting(Normal):
    """An encoder that counts the texts that it is asked about."""

    asked = 0

    def encode(self, responses):
        type(self).asked += len(responses)
        return super().encode(responses)


def on_the_loop(served, texts=TEXTS, person=ANN):
    """The answer, and whether anything was done on the encoder's thread."""
    used = []

    async def ask():
        plain = served._encoder.submit
        served._encoder.submit = lambda *given: used.append(given) or plain(*given)
        found = await served.rank(person, PROMPT, texts, "test")
        served._encoder.submit = plain
        return found

    return asyncio.run(ask()), not used


@pytest.mark.parametrize("bounded", [False, True])
def test_new_texts_are_prepared_on_the_encoders_thread_and_known_ones_answered_at_once(tmp_path, bounded):
    served = core(tmp_path / "s.db", bounded)
    texts = [f"{text} {bounded}" for text in TEXTS]
    first, at_once = on_the_loop(served, texts)
    assert not at_once
    again, at_once = on_the_loop(served, texts)
    assert at_once
    assert replace(again, request="") == replace(first, request="")
    one_new, at_once = on_the_loop(served, [*texts, f"a text that nobody asked about {bounded}"])
    assert not at_once and one_new.rewards[: len(texts)] == first.rewards
    served.store.close()


@pytest.mark.parametrize("bounded", [False, True])
def test_known_texts_start_no_query_of_polars(tmp_path, bounded, monkeypatch):
    """A query costs some 50 microseconds whatever its size, and an answer started thirty of them."""
    served, started, plain = core(tmp_path / "s.db", bounded), [], pl.LazyFrame._collect_eager

    def counted(*given, **more):
        started.append(given)
        return plain(*given, **more)

    monkeypatch.setattr(pl.LazyFrame, "_collect_eager", counted)
    pl.Series(["planted"]).str.len_chars()
    assert started, "queries are counted"
    for user in ("ann", scorer().users.ids[0], None):
        on_the_loop(served, person=Person("", user))
        started.clear()
        on_the_loop(served, person=Person("", user))
        assert not started
    served.store.close()


class NoScore(SaysUnsafe):
    """A safety scorer that is slow and gives some texts no score, so that it is asked again each time."""

    threads: tuple[int, ...] = ()

    def score(self, responses, user_ids, response_Q=None):
        self.threads += (threading.get_ident(),)
        found = super().score(responses, user_ids, response_Q)
        return Scores(np.full(len(found.value_Q), np.nan), found.source_Q)


def test_a_text_without_a_safety_score_is_asked_about_again_but_never_on_the_loop(tmp_path):
    slow = NoScore()
    bounds = Bounded(scorer(), Safety(slow), Gate({"": 0.0}), policy_hash="policy-1")
    served = Core(scorer(), "scorer-1", Sqlite(tmp_path / "s.db"), bounds)
    for _ in range(2):
        found, at_once = on_the_loop(served)
        assert not found.order and not at_once
    assert len(slow.threads) > 2 and threading.get_ident() not in slow.threads
    served.store.close()


class Slow:
    """A scorer without features in memory, each of whose answers takes two seconds."""

    serves, kind = "population", "slow"

    def score(self, responses, user_ids, response_Q=None):
        time.sleep(2.0)
        many = len(responses) if response_Q is None else len(response_Q)
        return Scores(np.zeros(many), np.full(many, POPULATION, np.int8))


class FarAway(Sqlite):
    """A store on another machine that does not answer for two seconds."""

    waits = True

    def standing(self, person):
        time.sleep(2.0)
        return super().standing(person)


@pytest.mark.parametrize("slow", ["scorer", "store"])
def test_what_is_slow_does_not_hold_up_the_server(tmp_path, slow):
    served = (
        core(tmp_path / "s.db", own=Slow()) if slow == "scorer" else Core(scorer(), "1", FarAway(tmp_path / "s.db"))
    )
    with running(served) as url, httpx.Client(base_url=url, timeout=30) as client:
        body = {"query": "q", "texts": ["a"], "user": "ann"}
        asking = threading.Thread(target=client.post, args=("/rerank",), kwargs={"json": body})
        asking.start()
        longest, asked = 0.0, 0
        while asking.is_alive():
            begun = time.perf_counter()
            assert httpx.get(f"{url}/health").status_code == 200
            longest, asked = max(longest, time.perf_counter() - begun), asked + 1
        assert asked > 1 and longest < 1.5


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_answers_on_an_open_connection_are_sent_at_once(tmp_path, host):
    """Without TCP_NODELAY, the second packet of an answer waits 40 ms for the client to acknowledge the first."""
    found = []

    async def accepted(reader, writer):
        found.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect():
        listening = Serve(scorer=tmp_path, host=host, port=0)._listening()
        async with await asyncio.start_server(accepted, sock=listening):
            reader, writer = await asyncio.open_connection(host, listening.getsockname()[1])
            await reader.read()
            writer.close()

    asyncio.run(connect())
    assert found == [1]


def test_what_was_loaded_is_set_apart_from_the_search_for_garbage(monkeypatch):
    apart = SetApart()
    gc.unfreeze()
    try:
        assert not apart.look(), "something may still be loading"
        assert apart.look() and gc.get_freeze_count() > 10_000
        before = gc.get_freeze_count()
        assert not apart.look()
        more = {f"loaded.{at}": None for at in range(MORE)}
        monkeypatch.setattr(sys, "modules", {**sys.modules, **more})
        kept = [[] for _ in range(5_000)]
        assert not apart.look(), "loading has just begun"
        assert apart.look() and gc.get_freeze_count() >= before + len(kept)
        assert not apart.look()
    finally:
        gc.unfreeze()


def test_the_search_for_garbage_ends_before_requests_come(monkeypatch):
    apart, searched = SetApart(), []
    monkeypatch.setattr(gc, "collect", lambda: searched.append(1))
    try:
        apart.begin()
        assert searched == [1] and gc.get_freeze_count() > 10_000 and not apart.look()
        monkeypatch.setattr(sys, "modules", {**sys.modules, **{f"loaded.{at}": None for at in range(MORE)}})
        assert [apart.look(), apart.look()] == [False, True] and searched == [1]
    finally:
        gc.unfreeze()


def test_features_are_remembered_whole_or_not_at_all():
    Counting.asked = 0
    kept = Remembered(Counting(), most=4)
    wanted = Normal().encode(pool(TEXTS[:3]))
    assert not kept.knows(pool(TEXTS[:3]))
    for _ in range(2):
        assert np.array_equal(kept.encode(pool(TEXTS[:3])), wanted)
    assert kept.knows(pool(TEXTS[:3])) and Counting.asked == 3
    kept.encode(pool(TEXTS[3:5]))  # the oldest leaves
    assert kept.knows(pool(TEXTS[1:5])) and not kept.knows(pool(TEXTS[:1]))
    assert np.array_equal(kept.encode(pool(TEXTS)), Normal().encode(pool(TEXTS)))  # more than are kept


def test_columns_count_once_they_have_been_asked_for(monkeypatch):
    monkeypatch.setattr(question, "columns", lambda encoder, responses, features: np.ones((len(responses), 2)))
    kept = Remembered(Normal())
    kept.encode(pool(TEXTS))
    assert kept.knows(pool(TEXTS))
    kept.columns(pool(TEXTS[:1]))
    assert kept.knows(pool(TEXTS[:1])) and not kept.knows(pool(TEXTS))


def test_threads_share_a_small_memory():
    kept, wrong = Remembered(Normal(), most=3), []
    wanted = {text: Normal().encode(pool([text])) for text in TEXTS}

    def ask(seed):
        draw = np.random.default_rng(seed)
        for _ in range(200):
            some = list(draw.choice(TEXTS, 3, replace=False))
            found = kept.encode(pool(some))
            wrong.extend(text for at, text in enumerate(some) if not np.array_equal(found[at], wanted[text][0]))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong and len(kept._features) <= 3


def test_the_same_bounds_around_another_scorer():
    limits = {"ann": Limits(cap=0.1), "bob": Limits(floor=2.0)}
    bounds = Bounded(SaysUnsafe(), Safety(SaysUnsafe()), Gate({"": 0.0}), Limits(cap=1.0), limits, "policy-1")
    texts, places = Responses.slate(PROMPT, TEXTS)
    for user in (None, "ann", "bob", scorer().users.ids[0]):
        ids = None if user is None else [user] * len(TEXTS)
        found = bounds.around(scorer()).answers(texts, ids, places)
        wanted = replace(bounds, scorer=scorer()).answers(texts, ids, places)
        assert np.array_equal(found.value_Q, wanted.value_Q) and np.array_equal(found.source_Q, wanted.source_Q)
    assert bounds.around(scorer()).policy_hash == "policy-1" and isinstance(bounds.scorer, SaysUnsafe)
    assert np.isinf(bounds.around(scorer()).score(texts, ["bob"] * len(TEXTS), places)).all()
