"""``polypref serve --demo``: a process that is ready soon, needs no files and no network, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest

from polypref.serve.demo import PROMPTS, RESPONSES, UNSAFE, WORLD, demo
from polypref.serve.questions import Questions
from polypref.serve.store.contract import Judgement, Person
from polypref.worlds import candidates, simulate
from serve_cases import started
from test_serve_cli import refused

READY_S = 20  # of computing, until the address is printed


def test_it_starts_asks_learns_and_leaves_nothing(tmp_path, monkeypatch):
    """Without weights, cache or network: ``HOME`` is empty, and its temporary folder is empty again at the end."""
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    run, at = started("--demo")
    try:
        used = psutil.Process(run.pid).cpu_times()
        assert used.user + used.system < READY_S
        kept = [path.name for path in (tmp_path / "TMPDIR").rglob("*.db")]
        assert kept == ["demo.db"]
        with httpx.Client(base_url=f"{at}/u/visitor", timeout=60) as client:
            assert "<title>" in client.get("/", headers={"Accept": "text/html"}).text
            before = client.get("/v1/slate").json()
            assert before["personalization"]["source"] == "population"
            assert len(before["held_back"]) == 1 and len(before["results"]) == 5
            for _ in range(3):
                asked = client.get("/v1/next-question").json()
                assert asked["method"] == "expected information"
                assert not any(unsafe in text for unsafe in UNSAFE for text in asked["responses"])
                longer = len(asked["responses"][1]) > len(asked["responses"][0])
                told = {"request": asked["id"], "chosen": int(not longer), "rejected": int(longer)}
                assert client.post("/v1/feedback", json=told).status_code == 200
            after = client.get("/v1/slate").json()
            assert after["personalization"]["source"] == "personal" and after["results"] != before["results"]
    finally:
        run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=60) == 0
    assert "stopped" in (run.stdout.read() if run.stdout else "")
    assert list((tmp_path / "TMPDIR").iterdir()) == [] and not (tmp_path / "polypref.db").exists()


def test_a_store_that_is_named_is_kept(tmp_path):
    run, at = started("--demo", "--store", tmp_path / "kept.db")
    body = {"user": "ann", "prompt": "p", "chosen": "a", "rejected": "b"}
    assert httpx.post(f"{at}/v1/feedback", json=body, timeout=60).status_code == 200
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=60) == 0 and (tmp_path / "kept.db").stat().st_size


@pytest.mark.parametrize("more", [("scorer",), ("--bounds", "b.toml"), ("--encoder", "minilm"), ("--questions", "q")])
def test_what_the_demo_brings_cannot_be_given(more, capsys):
    assert "--demo brings its own" in refused(capsys, "--demo", *more)


def test_neither_a_scorer_nor_the_demo(capsys):
    assert "serve needs a scorer" in refused(capsys)


def test_a_few_answers_find_the_visitor_s_taste(tmp_path):
    """Visitors of the minority's taste get the majority's order, its opposite, and after six answers their own."""
    served, given = demo(str(tmp_path / "d.db"))
    world = simulate("two-tastes", seed=0, **WORLD)
    pool = candidates(world, PROMPTS, RESPONSES, seed=1)
    assert world.people.group_U[3] == "minority"
    reward_of = dict(zip(pool.responses.texts_R, pool.reward_UR[3].tolist(), strict=True))
    person, questions = Person("", "visitor"), Questions(given, random.Random(0))
    slate = questions.slate
    assert slate is not None and all(len(one.responses) == RESPONSES for one in given)

    async def agreement():
        found = await served.rank(person, slate.prompt, slate.responses, "slate", stored="never")
        true = [reward_of[slate.responses[at]] for at in found.order]
        assert len(true) == RESPONSES - 1
        return np.corrcoef(true, -np.arange(len(true)))[0, 1]

    async def visit():
        before = await agreement()
        for turn in range(6):
            asked = await questions.ask(served, person)
            one, other = (reward_of[text] for text in asked.responses)
            chosen = asked.responses[int(other > one)]
            rejected = asked.responses[int(other <= one)]
            told = Judgement(id=str(turn), kind="pair", prompt=asked.prompt, chosen=chosen, rejected=rejected)
            served.store.judge(person, told).result()
        return before, await agreement()

    with ThreadPoolExecutor(1) as thread:  # the browser's tests have a loop in this one
        before, after = thread.submit(lambda: asyncio.run(visit())).result()
    served.close()
    served.store.close()
    assert before < 0 and after > 0.4, (before, after)
