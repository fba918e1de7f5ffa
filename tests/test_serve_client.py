"""The Python client and TRL's reward function, against a running server; and a trainer's step with it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from polypref.comparisons import Responses
from polypref.errors import InputError
from polypref.serve import client as module
from polypref.serve.client import AsyncClient, Client, Refused, Reward
from polypref.serve.core import FLOOR
from polypref.serve.who.person import Keys
from serve_cases import PROMPT, TEXTS, UNSAFE, core, running, scorer

KNOWN = scorer().users.ids[0]
ODD = "a/b ?#é"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(core(tmp_path_factory.mktemp("client") / "s.db", bounded=True)) as at:
        yield at


def own(user, texts=TEXTS, prompt=PROMPT):
    pool, place = Responses.of([prompt] * len(texts), texts)
    return scorer().score(pool, [user] * len(texts), place).value_Q


def test_it_imports_without_the_server():
    code = "import sys, polypref.serve.client\nassert not {'fastapi', 'uvicorn', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_person_is_ranked_for_judges_and_leaves(server):
    with Client(server + "/") as client:
        found = client.rank(PROMPT, [*TEXTS, UNSAFE], KNOWN)
        assert found.order == tuple(np.argsort(-own(KNOWN), kind="stable").tolist()) and found.blocked == (6,)
        assert found.texts == tuple(TEXTS[at] for at in found.order) and found.source == "personal"
        assert len(found.scores) == 6 and list(found.scores) == sorted(found.scores, reverse=True)
        assert client.rank(PROMPT, TEXTS).source == "population"
        assert len(client.rank(PROMPT, TEXTS, top_n=2).texts) == 2
        asked = client.rank(PROMPT, TEXTS, ODD)
        assert client.feedback(None, 3, user=ODD, rejected=1, request=asked.request)["new"]
        assert client.feedback(PROMPT, TEXTS[2], user=ODD, rejected=TEXTS[0], id="k")["new"]
        assert not client.feedback(PROMPT, TEXTS[2], user=ODD, rejected=TEXTS[0], id="k")["new"]
        assert client.feedback(PROMPT, TEXTS[2], user=ODD, thumb="up", seconds=2.5)["new"]
        assert client.known(ODD)["judgements"] == 3
        kept = client.export(ODD)
        assert kept["user"] == ODD and [one["chosen"] for one in kept["judgements"]] == [TEXTS[3], TEXTS[2], TEXTS[2]]
        assert client.pause(ODD) == {"paused": True} and client.rank(PROMPT, TEXTS, ODD).source == "population"
        assert client.pause(ODD, False) == {"paused": False}
        assert client.leave(ODD)["rows"]["judgements"] == 3 and client.known(ODD)["judgements"] == 0


def test_the_same_to_await(server):
    async def all_of_it():
        async with AsyncClient(server) as client:
            await client.feedback(PROMPT, TEXTS[2], user="zoe", rejected=TEXTS[0])
            found = await asyncio.gather(*(client.rank(PROMPT, TEXTS, user) for user in (KNOWN, "zoe", None)))
            told = await client.known("zoe"), await client.export("zoe"), await client.pause("zoe", False)
            rewards = await client.rewards([PROMPT] * 6, TEXTS, [KNOWN] * 6)
            return found, told, rewards, await client.leave("zoe")

    found, told, rewards, left = asyncio.run(all_of_it())
    with Client(server) as client:
        assert found[0].order == client.rank(PROMPT, TEXTS, KNOWN).order
    assert [one.source for one in found] == ["personal", "personal", "population"]
    assert told[0]["judgements"] == len(told[1]["judgements"]) == 1 and told[2] == {"paused": False}
    assert np.allclose(rewards, own(KNOWN)) and left["rows"]["judgements"] == 1


def test_refusals_are_one_line_with_their_status(server, tmp_path):
    with Client(server) as client:
        for refused in (
            lambda: client.rank(PROMPT, []),
            lambda: client.rank(PROMPT, ["a"], "x" * 2000),
            lambda: client.feedback(PROMPT, "a", user="u", rejected="a"),
            lambda: client.feedback(PROMPT, "a", user="u", unknown=1),
        ):
            with pytest.raises(Refused) as told:
                refused()
            assert told.value.status == 400 and "\n" not in str(told.value) and "127.0.0.1 refuses /" in str(told.value)
    with pytest.raises(InputError, match="expected http"):
        Client("localhost:8080")
    with Client("http://127.0.0.1:9", retries=0) as client, pytest.raises(Refused, match="is the server running"):
        client.known("u")
    (tmp_path / "keys.toml").write_text('[[key]]\nkey = "of acme"\ntenant = "acme"\n')
    with running(core(tmp_path / "s.db"), Keys.read(tmp_path / "keys.toml")) as at:
        with Client(at, key="of acme") as client:
            assert client.known("u")["judgements"] == 0
        with Client(at, key="wrong") as client, pytest.raises(Refused) as told:
            client.known("u")
        assert told.value.status == 401 and "wrong" not in str(told.value)


class Busy(BaseHTTPRequestHandler):
    """Refuses twice as busy, drops one connection, then answers; and counts."""

    seen: list[bytes] = []  # noqa: RUF012

    def do_POST(self):
        self.seen.append(self.rfile.read(int(self.headers["Content-Length"])))
        if len(self.seen) == 3:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(200 if len(self.seen) > 3 else 503 if len(self.seen) > 1 else 429)
        self.send_header("Retry-After", "0")
        body = b'{"new": true}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_busy_server_is_asked_again_with_the_same_judgement(monkeypatch):
    monkeypatch.setattr(module, "_pauses", lambda retries: (0.0 for _ in range(retries)))
    with ExitStack() as stack:
        busy = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Busy))
        stack.enter_context(ThreadPoolExecutor(1)).submit(busy.serve_forever, 0.01)
        stack.callback(busy.shutdown)
        url = f"http://127.0.0.1:{busy.server_address[1]}"
        with Client(url) as client:
            assert client.feedback("p", "a", user="u", rejected="b") == {"new": True}
        assert len(Busy.seen) == 4 and len(set(Busy.seen)) == 1
        Busy.seen.clear()

        async def again():
            async with AsyncClient(url) as client:
                return await client.feedback("p", "a", user="u", rejected="b")

        assert asyncio.run(again()) == {"new": True} and len(Busy.seen) == 4
        Busy.seen.clear()
        with Client(url, retries=1) as client, pytest.raises(Refused) as told:
            client.feedback("p", "a", user="u", rejected="b")
        assert told.value.status == 503 and len(Busy.seen) == 2


# --- rewards


def test_rewards_are_those_of_each_row_and_asked_for_in_parts(server, monkeypatch):
    reward = Reward(server)
    texts = [*TEXTS, UNSAFE]
    users = [KNOWN, "nobody-knows-me"] * 3 + [KNOWN]
    wanted = [own(user, [text])[0] for user, text in zip(users[:6], TEXTS, strict=True)] + [FLOOR]
    asked = {"prompts": [PROMPT] * 7, "completions": texts, "user_id": users, "completion_ids": [[1]] * 7}
    for most, characters in ((256, 10**6), (2, 10**6), (256, 40)):
        monkeypatch.setattr(module, "MOST_TEXTS", most)
        monkeypatch.setattr(module, "MOST_CHARACTERS", characters)
        assert np.allclose(reward(**asked), wanted, atol=1e-7)
    chat = [[{"role": "user", "content": PROMPT}]] * 7
    said = [[{"role": "assistant", "content": text}] for text in texts]
    assert np.allclose(reward(**{**asked, "prompts": chat, "completions": said}), wanted, atol=1e-7)
    population = Reward(server, user_column=None, prompt_column="asked")
    found = population(prompts=["<template>"] * 6, completions=TEXTS, asked=[PROMPT] * 6)
    assert np.allclose(found, own(None), atol=1e-7)
    assert reward(prompts=[], completions=[], user_id=[]) == []


def test_rows_without_a_user_are_refused(server):
    for columns, says in (({}, "no column 'user_id'"), ({"user_id": [None]}, "row 0"), ({"user_id": [1.5]}, "1.5")):
        with pytest.raises(InputError, match=says):
            Reward(server)(prompts=["p"], completions=["a"], **columns)
    with Client(server) as client, pytest.raises(InputError, match="2 prompts, 1 texts"):
        client.rewards(["p", "q"], ["a"], ["u"])


def test_a_trainers_steps_ask_the_server_for_each_rows_person(server, tmp_path):
    pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from judge_cases import WORDS, save_judge

    model = save_judge(tmp_path / "m", template=None, pad="<pad>", side="left")
    data = Dataset.from_dict({"prompt": [f"why {WORDS[11 + at]}" for at in range(4)], "user_id": [KNOWN, "new"] * 2})
    settings = GRPOConfig(
        output_dir=str(tmp_path / "out"), per_device_train_batch_size=4, num_generations=2, max_completion_length=4,
        max_steps=2, save_strategy="no", logging_steps=1, report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, disable_tqdm=True, seed=3,
    )  # fmt: skip
    seen = []

    class Noted(Reward):
        def __call__(self, **asked):
            found = super().__call__(**asked)
            seen.append((asked["prompts"], asked["completions"], asked["user_id"], found))
            return found

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=Noted(server),
        args=settings,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )
    trainer.train()
    assert len(seen) >= 1 and {user for *_, users, _ in seen for user in users} <= {KNOWN, "new"}
    for prompts, completions, users, found in seen:
        wanted = [own(user, [text], prompt)[0] for prompt, text, user in zip(prompts, completions, users, strict=True)]
        assert np.allclose(found, wanted, atol=1e-6)
    logged = [one for one in trainer.state.log_history if "rewards/polypref-server/mean" in one]
    assert len(logged) == 2
