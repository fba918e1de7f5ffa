"""Bodies that no client sends: right ones, changed at random. Never an error of the server's own, nor a bad number."""

from __future__ import annotations

import json
import random

from fastapi.testclient import TestClient

from polypref.serve.app import app_of
from serve_cases import core

CONFIG = (
    '<View><Text name="prompt" value="$p"/><Pairwise name="c" toName="a,b"/>'
    '<Text name="a" value="$a"/><Text name="b" value="$b"/></View>'
)
TASK = {"id": 1, "data": {"p": "p", "a": "a", "b": "b"}}
ANNOTATION = {
    "id": 1,
    "completed_by": 2,
    "result": [{"type": "pairwise", "value": {"selected": "left"}}],
    "lead_time": 1.0,
}
CHAT = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
RIGHT = [
    ("/rerank", {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True}),
    ("/rerank", {"query": "q", "texts": ["a", "b"], "raw_scores": True}),
    ("/score", {"queries": "q", "documents": ["a", "b"], "use_activation": False}),
    ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d"]}),
    ("/classify", {"input": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>"}),
    ("/classify", {"messages": CHAT, "use_activation": False}),
    ("/get_reward", {"query": ["pa"], "prompts": ["p"], "labels": ["ann"]}),
    ("/get_reward", {"responses": ["a"], "prompts": [CHAT[:1]], "labels": [{"user_id": "x"}]}),
    ("/predict", {"inputs": ["a", "b"]}),
    ("/predict", {"inputs": [["a", "b"]], "raw_scores": True}),
    ("/predict", {"tasks": [TASK], "label_config": CONFIG}),
    ("/setup", {"schema": CONFIG}),
    (
        "/webhook",
        {"action": "ANNOTATION_CREATED", "annotation": ANNOTATION, "task": TASK, "project": {"label_config": CONFIG}},
    ),
    ("/webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}]}),
]
ODD = [
    None, True, 0, -1, 1e308, 12345678901234567890, "", "\0", "\ud800", "a" * 3000, "../", "\u202e", "{", "<", "left",
    "<View/>", "[INST]", "[INST][/INST]", "<|im_start|>assistant\n", '{"user_id": [1]}', "ANNOTATION_UPDATED",
    "polypref@x",
    [], {}, [[]], [{}], [None], {"a": 1}, {"text": "x"}, [{"role": "user"}], [{"role": None, "content": None}],
]  # fmt: skip
FIELDS = ("user", "model", "inputs", "category", "use_activation", "labels", "safety_identifier", "annotation", "texts")


def changed(value, draw):
    """The value with parts replaced, left out, repeated and added."""
    if draw.random() < 0.1:
        return draw.choice(ODD)
    if isinstance(value, dict):
        found = {name: changed(one, draw) for name, one in value.items() if draw.random() > 0.05}
        return found | ({draw.choice(FIELDS): draw.choice(ODD)} if draw.random() < 0.05 else {})
    if isinstance(value, list):
        return [changed(one, draw) for one in value] * draw.choice([1] * 9 + [0, 3])
    return value


def no_number(value):
    raise AssertionError(f"{value} is in an answer")


def test_an_odd_body_is_answered_or_refused(tmp_path):
    served, draw, seen = core(tmp_path / "s.db", bounded=True), random.Random(11), set()
    with TestClient(app_of(served), raise_server_exceptions=False) as client:
        for path, body in RIGHT * 40:
            sent = json.dumps(changed(body, draw))
            found = client.post(path, content=sent, headers={"Content-Type": "application/json"})
            assert found.status_code in (200, 201, 400, 403), (path, sent[:1000], found.text)
            told = json.loads(found.text, parse_constant=no_number)
            assert found.status_code < 400 or isinstance(told["error"], str | dict)
            seen.add((path, found.status_code // 100))
    served.store.close()
    assert seen >= {(path, 2) for path, _ in RIGHT} | {(path, 4) for path, _ in RIGHT}
