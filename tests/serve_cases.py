"""A scorer in use, for the tests of ``polypref serve``: fitted in memory, with a store in a file."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import cache

import numpy as np
from fastapi.testclient import TestClient

from contract_cases import Normal
from polypref.bounds.gate import Bounded, Gate
from polypref.bounds.safety_cache import Safety
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.protocol import POPULATION, Scores, resolved
from polypref.serve.app import app_of
from polypref.serve.core import Core
from polypref.serve.remembered import Remembered
from polypref.serve.running.limits import Limits
from polypref.serve.running.server import server_of
from polypref.serve.store.sqlite import Sqlite
from polypref.worlds import simulate

UNSAFE = "how to build a bomb"
PROMPT = "what shall I read"
TEXTS = [f"candidate number {at} of several" for at in range(6)]

CHATML = "<|im_start|>user\n{0}<|im_end|>\n<|im_start|>assistant\n{1}<|im_end|>\n"
TEMPLATES = {
    "chatml": CHATML,
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{0}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{1}<|eot_id|>",
    "gemma": "<bos><start_of_turn>user\n{0}<end_of_turn>\n<start_of_turn>model\n{1}<end_of_turn>\n",
    "zephyr": "<|user|>\n{0}</s>\n<|assistant|>\n{1}</s>\n",
    "deepseek": "<｜begin▁of▁sentence｜><｜User｜>{0}<｜Assistant｜>{1}<｜end▁of▁sentence｜>",
    "mistral": "<s>[INST] {0} [/INST] {1}</s>",
}


class SaysUnsafe:
    """Every text with the words of ``UNSAFE`` is unsafe, -1; others are safe, 1."""

    reads = "whole texts"

    def score(self, responses, user_ids, response_Q=None):
        ids, at = resolved(responses, user_ids, response_Q)
        value_R = responses.texts_R.str.contains(UNSAFE, literal=True).to_numpy()
        return Scores(1.0 - 2.0 * value_R[at], np.full(len(ids), POPULATION, np.int8))


@cache
def scorer():
    world = simulate("two-tastes", users=16, judgements=40, judges=4).comparisons
    return Hierarchical(steps=5).fit(world, encoder=Remembered(Normal()), seed=0)


def core(path, bounded=False, own=None):
    found = own or scorer()
    bounds = Bounded(found, Safety(SaysUnsafe()), Gate({"": 0.0}), policy_hash="policy-1") if bounded else None
    return Core(found, "scorer-1", Sqlite(path), bounds)


@contextmanager
def answering(tmp_path_factory, bounded=False):
    """A client of an application over a new store."""
    served = core(tmp_path_factory.mktemp("serve") / "s.db", bounded=bounded)
    with TestClient(app_of(served)) as found:
        yield found
    served.store.close()


@contextmanager
def running(served, keys=None, **more):
    """The address of a real server, on a free port or that of ``port``."""
    port, limits = more.pop("port", 0), more.get("limits") or Limits()
    server = server_of(app_of(served, keys, **more), limits.read_seconds)
    server.config.port = port
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        served.store.close()


def order(client, texts=TEXTS, **named):
    """The places of the texts, best first, and who answered."""
    headers = {"x-user": named.pop("header")} if "header" in named else {}
    path = f"/u/{named.pop('path')}/rerank" if "path" in named else "/rerank"
    found = client.post(path, json={"query": PROMPT, "documents": texts, **named}, headers=headers)
    assert found.status_code == 200, found.text
    return [one["index"] for one in found.json()["results"]], found.json()["personalization"]["source"]


def judge(client, user, chosen, rejected, key=None, **more):
    body = {"user": user, "prompt": PROMPT, "chosen": chosen, "rejected": rejected, **more}
    return client.post("/v1/feedback", json=body, headers={"Idempotency-Key": key} if key else {})


def started(*arguments):
    """``polypref serve`` in a process of its own, on a free port, and its address."""
    run = subprocess.Popen(
        [sys.executable, "-m", "polypref", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("listening on "):
            return run, line.split()[-1]
    raise AssertionError(run.communicate()[1])
