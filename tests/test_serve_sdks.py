"""Rerank clients as they come from the package index, against a running server: for the person named, within bounds.

Cohere's is among the development packages; the others (``sdks.txt``) are in ``.venv/sdks``, which ``make sdk-tests``
makes: without it their tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from polypref.serve.core import FLOOR
from polypref.serve.dialects.rewards import STEP
from polypref.serve.who.person import Keys
from serve_cases import PROMPT, TEXTS, UNSAFE, core, running

SDKS = Path(os.environ.get("POLYPREF_SDKS", Path(sys.prefix, "sdks"))) / "bin" / "python"
PROGRAM = Path(__file__).with_name("sdk_clients.py")
needs_sdks = pytest.mark.skipif(not SDKS.exists(), reason=f"there are no rerank clients in {SDKS}; run: make sdk-tests")
MIXED = [TEXTS[0], f"first {UNSAFE}", *TEXTS[1:], UNSAFE]
BAD = {at for at, text in enumerate(MIXED) if UNSAFE in text}
WAYS = {  # of naming a person, by client; all of them can do so by a key
    "cohere_v1": ("path", "model", "header", "body"),
    "cohere_v2": ("path", "model", "header", "body"),
    "langchain": ("path", "model", "header"),
    "llama_cohere": ("path", "model"),
    "llama_tei": ("path",),
    "haystack": ("path", "model"),
    "litellm_vllm": ("path", "model"),
    "litellm_cohere": ("path", "model"),
}
KEYS = """
[[key]]
key = "of acme"
tenant = "acme"
[[key]]
key = "of ann"
tenant = "acme"
user = "ann"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its address; Ann has judged, so that her order is not everybody's."""
    folder = tmp_path_factory.mktemp("sdks")
    (folder / "keys.toml").write_text(KEYS)
    with running(core(folder / "s.db", bounded=True), Keys.read(folder / "keys.toml")) as at:
        key = {"Authorization": "Bearer of acme"}
        before = ranked(at, None)
        for chosen, rejected in ((before[-1], before[0]), (before[-2], before[1])):
            judged = {"user": "ann", "prompt": PROMPT, "chosen": MIXED[chosen[0]], "rejected": MIXED[rejected[0]]}
            assert httpx.post(f"{at}/v1/feedback", json=judged, headers=key).json()["used"]
        assert [one for one, _ in ranked(at, "ann")] != [one for one, _ in before]
        yield at


def ranked(at, user):
    """What a plain request gets."""
    body = {"query": PROMPT, "documents": MIXED, "user": user}
    found = httpx.post(f"{at}/rerank", json=body, headers={"Authorization": "Bearer of acme"}).json()
    return [[one["index"], one["relevance_score"]] for one in found["results"]]


def asked(name, ways, query=PROMPT, texts=MIXED):
    """What the client makes of each way."""
    python = sys.executable if name.startswith("cohere") else str(SDKS)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [python, "-W", "ignore", str(PROGRAM), name],
        input=json.dumps({"query": query, "texts": texts, "ways": ways}),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment | offline,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "name", [one if one.startswith("cohere") else pytest.param(one, marks=needs_sdks) for one in WAYS]
)
def test_a_client_gets_the_order_of_the_person_it_names_and_nothing_blocked(server, name):
    plain = {"url": server, "key": "of acme", "model": "polypref"}
    by = {
        "path": {"url": f"{server}/u/ann"},
        "model": {"model": "polypref@ann"},
        "header": {"header": "ann"},
        "body": {"body": "ann"},
    }
    everything_bad = [f"{UNSAFE} {at}" for at in range(3)]
    ways = [plain, plain | {"key": "of ann"}, *(plain | by[way] for way in WAYS[name])]
    refused = [
        plain | {"key": "wrong"},
        plain | {"key": "of ann", "url": f"{server}/u/ben"},
    ]
    none = [plain | {"texts": everything_bad}, plain | {"key": "of ann", "texts": everything_bad}]
    found = asked(name, [*ways, *none, *refused])
    nobody, own, empty, errors = found[0], found[1 : len(ways)], found[len(ways) : -2], found[-2:]
    if name == "llama_tei":  # its client counts: blocked texts come last, with 0.0
        kept = len(MIXED) - len(BAD)
        for one in (nobody, *own):
            assert {at for at, _ in one[kept:]} == BAD and {score for _, score in one[kept:]} == {0.0}
        nobody, own = nobody[:kept], [one[:kept] for one in own]
        assert empty == [[[at, 0.0] for at in range(3)]] * 2
    else:
        assert empty == [[], []], empty
    assert nobody == ranked(server, None)
    assert own == [ranked(server, "ann")] * (1 + len(WAYS[name])), dict(zip(("key", *WAYS[name]), own, strict=True))
    assert all(isinstance(one, dict) for one in errors), errors
    assert not any("Internal" in one["error"] or " 500" in one["error"] for one in errors), errors


def openrlhf(texts, labels):
    """A request as OpenRLHF's remote reward model sends it, one sample at a time, for a Qwen model."""
    begun = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    return [
        {"query": [f"{begun}{text}<|im_end|>"], "prompts": [begun], "labels": [label]}
        for text, label in zip(texts, labels, strict=True)
    ]


def verl(text, model):
    """A request as verl's reward loop sends it to vLLM, for a Llama 3 model; it takes the first mark off."""
    begun = f"<|start_header_id|>user<|end_header_id|>\n\n{PROMPT}<|eot_id|>"
    asked = f"{begun}<|start_header_id|>assistant<|end_header_id|>\n\n{text}<|eot_id|>"
    return {"model": model, "input": asked, "use_activation": False}


def test_trainers_get_rewards_in_the_persons_order_and_the_floor_for_what_is_blocked(server):
    at = server.replace("http://", "http://anybody:of%20acme@")  # the only way in which OpenRLHF can carry a key
    own = server.replace("http://", "http://anybody:of%20ann@")
    said, labelled = "{}", ("ann", '{"user_id": "ann", "answer": 42}', {"user_id": "ann"})
    asked = [(f"{at}/get_reward", openrlhf(MIXED, [label] * len(MIXED))) for label in labelled]
    asked += [(f"{url}/get_reward", openrlhf(MIXED, [said] * len(MIXED))) for url in (f"{at}/u/ann", own)]
    asked += [(f"{at}/classify", [verl(text, "polypref@ann") for text in MIXED])]
    asked += [(f"{url}/classify", [verl(text, "my/reward-model") for text in MIXED]) for url in (f"{at}/u/ann", own)]
    wanted = [one for one, _ in ranked(server, "ann")]
    for url, bodies in asked:
        found = [httpx.post(url, json=body) for body in bodies]
        assert [one.status_code for one in found] == [200] * len(MIXED), found[0].text
        given = [one.json() for one in found]
        rewards = [one["data"][-1]["probs"][-1] if "data" in one else one["rewards"][0] for one in given]
        assert {place for place, one in enumerate(rewards) if one == FLOOR} == BAD
        allowed = sorted(set(range(len(MIXED))) - BAD, key=lambda place: -rewards[place])
        assert allowed == wanted and min(rewards[place] for place in allowed) >= FLOOR + STEP
        for one, reward in zip(given, rewards, strict=True):
            assert "extra_logs" not in one or one["extra_logs"]["blocked"] == (reward == FLOOR)
    two = httpx.post(f"{own}/get_reward", json=openrlhf(["a"], ["ben"])[0])
    assert two.status_code == 403


def test_the_list_of_clients_is_that_of_the_program():
    program = PROGRAM.read_text()
    assert all(f"def {name}(way, query, texts)" in program for name in WAYS)
    listed = [line.partition("==") for line in (PROGRAM.with_name("sdks.txt")).read_text().splitlines() if "==" in line]
    assert len(listed) == 5 and all(version for *_, version in listed)
