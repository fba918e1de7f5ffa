"""No route returns a text that the bounds hold back: every route of the application has a case here, or says why not.

A new route without either fails ``test_every_route_has_a_case``. A case asks its route about texts, some of them
unsafe, and says which the answer offers: those with a place among the results, or with a score that no blocked one has.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polypref.serve.app import app_of
from polypref.serve.core import FLOOR
from polypref.serve.dialects.upstream_http import HttpUpstream
from polypref.serve.questions import Question, Questions
from serve_cases import PROMPT, UNSAFE, core, judge, scorer
from serve_upstream import upstream

KNOWN = scorer().users.ids[0]
ALL, SOME = "all", "some"  # of the texts that may be returned
MOST = 6


@dataclass(frozen=True)
class Asks:
    """Asks routes about these texts, for the user of the path ``under``."""

    client: TestClient
    script: object
    under: str
    texts: list[str]

    def post(self, path, body):
        return self.got(self.client.post(self.under + path, json=body))

    def get(self, path):
        return self.got(self.client.get(self.under + path))

    def got(self, found):
        assert found.status_code == 200, found.text
        assert UNSAFE not in found.text
        return found


def texts_of(places, asks):
    return [asks.texts[at] for at in places]


def documents(path):
    def case(asks):
        found = asks.post(path, {"query": PROMPT, "documents": asks.texts, "return_documents": True}).json()
        assert all(one["document"]["text"] == asks.texts[one["index"]] for one in found["results"])
        return texts_of((one["index"] for one in found["results"]), asks)

    return case


def tei(path):
    def case(asks):
        offered = []
        for raw in (False, True):
            found = asks.post(path, {"query": PROMPT, "texts": asks.texts, "raw_scores": raw}).json()
            bad = [UNSAFE in asks.texts[one["index"]] for one in found]
            assert len(found) == len(asks.texts) and bad == sorted(bad)  # its clients count; held back: last, with 0.0
            allowed = [one for one in found if one["score"] != 0.0 or (raw and not any(bad))]
            offered += texts_of((one["index"] for one in allowed), asks)
        return offered

    return case


def items(path):
    def case(asks):
        found = asks.post(path, {"query": PROMPT, "items": asks.texts}).json()
        return texts_of((one["index"] for one in found), asks)

    return case


def scored(path, first, second):
    def case(asks):
        body = {first: PROMPT, second: asks.texts}
        found = asks.post(path, body).json()["data"]
        raw = asks.post(path, body | {"use_activation": False}).json()["data"]
        assert [one["score"] > 0 for one in found] == [one["score"] > FLOOR for one in raw]
        return texts_of((one["index"] for one in found if one["score"] > 0), asks)

    return case


def conversation(text):
    return f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>\n"


def classified(asks):
    body = {"input": [conversation(text) for text in asks.texts]}
    found = asks.post("/classify", body).json()["data"]
    raw = asks.post("/classify", body | {"use_activation": False}).json()["data"]
    assert [one["probs"][-1] > 0 for one in found] == [one["probs"][-1] > FLOOR for one in raw]
    return texts_of((one["index"] for one in found if one["probs"][-1] > 0), asks)


def rewarded(asks):
    body = {"query": [PROMPT + text for text in asks.texts], "prompts": [PROMPT] * len(asks.texts)}
    rewards = asks.post("/get_reward", body).json()["rewards"]
    return texts_of((at for at, reward in enumerate(rewards) if reward > FLOOR), asks)


def predicted(asks):
    found = asks.post("/predict", {"inputs": [[PROMPT, text] for text in asks.texts]}).json()
    return texts_of(
        (at for at, ((one,), _) in enumerate(zip(found, asks.texts, strict=True)) if one["score"] > 0), asks
    )


def annotated(asks):
    config = '<View><Text name="prompt" value="$p"/><Pairwise name="c" toName="a,b"/>'
    config += '<Text name="a" value="$a"/><Text name="b" value="$b"/></View>'
    pairs = list(zip(asks.texts, asks.texts[1:], strict=False))
    body = {"label_config": config, "tasks": [{"data": {"p": PROMPT, "a": a, "b": b}} for a, b in pairs]}
    found = asks.post("/predict", body).json()["results"]
    sides = [[one["value"]["selected"] for one in each["result"]] for each in found]
    offered = [pair[("left", "right").index(side)] for pair, given in zip(pairs, sides, strict=True) for side in given]
    assert len(offered) == sum(any(UNSAFE not in text for text in pair) for pair in pairs)
    return offered


def chosen(asks):
    asks.script.texts, asks.script.next = asks.texts, 0
    body = {"model": "polypref", "messages": [{"role": "user", "content": PROMPT}], "n": 1}
    found = [one["message"] for one in asks.post("/v1/chat/completions", body).json()["choices"]]
    asks.script.next = 0
    stream = asks.post("/v1/chat/completions", body | {"stream": True}).text
    offered = [one["content"] for one in found if one["content"]]
    assert all(text in stream for text in offered)
    return offered


def decided(asks):
    choices = [{"value": f"v{at}", "description": text} for at, text in enumerate(asks.texts)]
    levels = [{"label": one["value"], "description": one["description"]} for one in choices]
    about = {"instructions": "", "name": "n"}
    body = {
        "model": "polypref",
        "input": PROMPT,
        "questions": [{"type": "choice", "choices": choices, **about}, {"type": "score", "levels": levels, **about}],
    }
    offered = []
    for answer in asks.post("/v1/decisions", body).json()["answers"]:
        given = answer.get("probabilities", [])
        offered += texts_of((at for at, one in enumerate(given) if one["probability"] > 0), asks)
        if answer["type"] == "choice":
            assert answer["choice"] in [f"v{asks.texts.index(text)}" for text in offered]
    return offered


def questioned(asks):
    found = asks.post("/v1/questions", {"questions": [{"prompt": PROMPT, "responses": asks.texts}], "user": user(asks)})
    return found.json().get("responses", [])


def next_question(asks):
    asks.client.app.state.questions = Questions([Question(PROMPT, tuple(asks.texts))])
    return replace(asks, under=f"/u/{user(asks)}").get("/v1/next-question").json().get("responses", [])


def slate(asks):
    asks.client.app.state.questions = Questions([Question(PROMPT, tuple(asks.texts), slate=True)])
    return [one["text"] for one in asks.get("/v1/slate").json()["results"]]


def user(asks):
    return asks.under.removeprefix("/u/") or "somebody"


RERANKS = ("/rerank", "/v1/rerank", "/v2/rerank", "/v1alpha/inference/rerank")
PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
CASES = [  # (route, how much of what is allowed it offers, case)
    *(("POST", path, ALL, kind(path)) for path in RERANKS for kind in (documents, tei, items)),
    *(("POST", path, ALL, scored(path, *pair)) for path in ("/score", "/v1/score") for pair in PAIRS),
    ("POST", "/classify", ALL, classified),
    ("POST", "/get_reward", ALL, rewarded),
    ("POST", "/predict", ALL, predicted),
    ("POST", "/predict", SOME, annotated),
    ("POST", "/v1/chat/completions", SOME, chosen),
    ("POST", "/v1/decisions", ALL, decided),
    ("POST", "/v1/questions", SOME, questioned),
    ("GET", "/v1/next-question", SOME, next_question),
    ("GET", "/v1/slate", ALL, slate),
]
NOTHING = {  # routes without a case, and why they can offer nobody a text
    ("GET", "/"): "an operator's",
    ("GET", "/health"): "an operator's",
    ("GET", "/health/live"): "an operator's",
    ("GET", "/metrics"): "an operator's",
    ("GET", "/info"): "an operator's",
    ("GET", "/v1/models"): "an operator's",
    ("GET", "/v1/models/{name}"): "an operator's",
    ("POST", "/setup"): "takes a configuration",
    ("POST", "/webhook"): "takes annotations",
    ("POST", "/v1/feedback"): "takes judgements",
    ("GET", "/v1/users/{user}"): "counts of judgements",
    ("GET", "/v1/users/{user}/export"): "what the person gave",
    ("DELETE", "/v1/users/{user}"): "a receipt",
    ("DELETE", "/v1/users/{user}/judgements/{judgement}"): "yes or no",
    ("POST", "/v1/users/{user}/pause"): "yes or no",
}


def routes_of(app):
    """What the application answers, but for the pages that describe it."""
    return {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}


@contextmanager
def serving(folder, bounded):
    own = core(folder / "s.db", bounded=bounded)
    with (
        upstream(["-"]) as (script, url),
        TestClient(app_of(own, upstream=HttpUpstream(f"{url}#m", MOST, 20.0))) as client,
    ):
        judge(client, "eva", "a text of hers", "another")
        yield client, script
    own.store.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("every"), bounded=True) as found:
        yield found


def test_every_route_has_a_case(served):
    client, _ = served
    routes = routes_of(client.app)
    cased = {(method, path) for method, path, *_ in CASES}
    assert not cased & set(NOTHING) and len(routes) > 20
    assert routes - cased - set(NOTHING) == set(), (
        "give these a case in CASES, or say in NOTHING why they offer no text"
    )
    assert (cased | set(NOTHING)) - routes == set(), "no route any more"
    hidden = {one.path for one in client.app.routes} - {path for _, path in routes}
    assert hidden <= {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc", "/v1/models/{name:path}"}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), min_size=2, max_size=MOST), st.sampled_from(["", f"/u/{KNOWN}", "/u/eva", "/u/new"]))
def test_no_route_offers_a_text_that_is_held_back(served, bad, under):
    texts = [f"{UNSAFE} {at}" if one else f"text {at}" for at, one in enumerate(bad)]
    allowed = {text for text in texts if UNSAFE not in text}
    for method, path, much, case in CASES:
        offered = case(Asks(*served, under, texts))
        where = f"{method} {path} ({case.__qualname__})"
        assert set(offered) <= allowed, where
        least = 2 if "question" in path else 1
        assert set(offered) == allowed if much == ALL else bool(offered) == (len(allowed) >= least), where


def test_every_case_would_see_a_route_without_bounds(tmp_path):
    texts = [f"{UNSAFE} {at}" for at in range(3)]
    with serving(tmp_path, bounded=False) as open_to_all:
        for method, path, _, case in CASES:
            try:
                offered = case(Asks(*open_to_all, "/u/eva", texts))
            except AssertionError:  # an unsafe text in the body
                continue
            assert offered, f"{method} {path} ({case.__qualname__}) sees nothing"


def test_a_new_route_without_a_case_would_be_seen(served):
    client, _ = served
    before = routes_of(client.app)
    client.app.add_api_route("/leaks", lambda: {"texts": ["anything"]}, methods=["POST"])
    client.app.openapi_schema = None
    try:
        assert routes_of(client.app) - before == {("POST", "/leaks")}
    finally:
        client.app.router.routes.pop()
        client.app.openapi_schema = None
