"""Scorers are replaced while the server answers: a request in hand ends with its own, the next has the new one."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from polypref.serve.store.contract import Judgement, Person
from serve_cases import PROMPT, TEXTS, UNSAFE, core, scorer

ANN = Person("", "ann")


class Waits:
    """A scorer that answers when it may; ``answers`` tells that it was asked."""

    def __init__(self, own):
        self.own, self.asked, self.may = own, threading.Event(), threading.Event()
        self.kind, self.serves, self.encoder = own.kind, own.serves, own.encoder.encoder  # without a memory

    def score(self, *asked):
        self.asked.set()
        assert self.may.wait(30)
        return self.own.score(*asked)


def turned():
    """The same scorer with everybody's tastes turned around."""
    own = scorer()
    strangers = replace(own.strangers, weights_K=-own.strangers.weights_K) if own.strangers else None
    return replace(own, population_K=-own.population_K, weights_UK=-own.weights_UK, strangers=strangers)


@pytest.mark.parametrize("bounded", [False, True])
def test_a_request_in_hand_ends_with_the_scorer_that_it_has(tmp_path, bounded):
    async def both():
        slow = Waits(scorer())
        served = core(tmp_path / "s.db", bounded)
        served.put_in_force(served.in_force.succeeded(slow, "slow"))
        policy = served.in_force.policy
        texts = [f"{text}, new to the encoder {bounded}" for text in (*TEXTS, UNSAFE)]
        first = asyncio.create_task(served.rank(ANN, PROMPT, texts, "rerank"))
        while not slow.asked.is_set():
            await asyncio.sleep(0.001)
        served.put_in_force(served.in_force.succeeded(turned(), "new"))
        second = asyncio.create_task(served.rank(ANN, PROMPT, texts, "rerank"))
        slow.may.set()
        found = await first, await second
        served.close()
        served.store.close()
        return policy, found

    policy, (first, second) = asyncio.run(both())
    assert (first.scorer, second.scorer) == ("slow", "new")
    assert first.policy == second.policy == policy == ("policy-1" if bounded else None)
    unsafe = len(TEXTS)
    assert (unsafe in first.blocked) == (unsafe in second.blocked) == bounded
    assert np.allclose(first.rewards[:unsafe], [-one for one in second.rewards[:unsafe]])


def test_states_are_derived_again_for_the_new_scorer_and_the_old_ones_are_given_up(tmp_path):
    async def answers():
        served = core(tmp_path / "s.db")
        one = Judgement(id="1", kind="pair", prompt=PROMPT, chosen=TEXTS[1], rejected=TEXTS[4])
        served.store.judge(ANN, one).result()
        before = await served.rank(ANN, PROMPT, TEXTS, "rerank")
        old = served.in_force
        served.put_in_force(old.succeeded(turned(), "new"))
        assert served.people._now[1] == {}
        after = await served.rank(ANN, PROMPT, TEXTS, "rerank")
        state, _ = served.people.kept(ANN, served.in_force)
        assert state is not None and served.people.kept(ANN, old)[0] is None  # no state is taken for another scorer's
        wanted = turned().adapt("ann", _few(served)).score(*_asked()).value_Q
        served.close()
        served.store.close()
        return before, after, wanted

    before, after, wanted = asyncio.run(answers())
    assert before.source == after.source == "personal" and after.judgements == 1
    assert list(after.rewards) == wanted.tolist() != list(before.rewards)


def _few(served):
    from polypref.serve.people import judged

    return judged(ANN, served.store.judgements(ANN))


def _asked():
    from polypref.serve.core import pool_of

    pool, place = pool_of(PROMPT, TEXTS)
    return pool, ["ann"] * len(TEXTS), place
