"""What is served: unmodified clients get answers for the person who asks, feedback counts at once, nobody gets past."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import cohere
import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polypref.bounds import gate
from polypref.comparisons import Responses
from polypref.errors import SettingsError
from polypref.learners.protocol import POPULATION, Scores
from polypref.serve.app import app_of
from polypref.serve.running import limits
from polypref.serve.who.person import Keys
from serve_cases import PROMPT, TEXTS, UNSAFE, answering, core, judge, order, running, scorer

MIXED = [TEXTS[0], f"first {UNSAFE}", TEXTS[1], UNSAFE]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with answering(tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    with answering(tmp_path_factory, bounded=True) as found:
        yield found


# --- answers


def test_a_known_person_gets_the_scorers_own_order(client):
    known = scorer().users.ids[0]
    pool, place = Responses.of([PROMPT] * len(TEXTS), TEXTS)
    for user in (known, None, "nobody-knows-me"):
        value = scorer().score(pool, [user] * len(TEXTS), place).value_Q
        found, source = order(client, user=user)
        assert found == np.argsort(-value, kind="stable").tolist()
        assert source == ("personal" if user == known else "population")


def test_every_way_of_naming_a_person_is_one_and_two_are_refused(client):
    known = scorer().users.ids[0]
    wanted = order(client, user=known)
    assert wanted != order(client)
    for way in (
        {"safety_identifier": known},
        {"user_id": known},
        {"header": known},
        {"path": known},
        {"model": f"polypref@{known}"},
    ):
        assert order(client, **way) == wanted
        assert order(client, user=known, **way) == wanted
    two = client.post("/u/ann/rerank", json={"query": "q", "documents": ["a"], "user": "ben"})
    assert two.status_code == 403 and "2 different users" in two.json()["message"]


@pytest.mark.parametrize("user", ["", "a\0b", "x" * 2000, "\ud800"])
def test_impossible_ids_are_one_line(client, user):
    body = json.dumps({"query": "q", "documents": ["a"], "user": user})
    found = client.post("/rerank", content=body, headers={"Content-Type": "application/json"})
    said = "UTF-8" if user == "\ud800" else "user id"
    assert found.status_code == 400 and "\n" not in found.json()["message"] and said in found.json()["message"]


def test_a_body_that_is_not_declared_as_json_is_told_so(client):
    found = client.post("/rerank", content=json.dumps({"query": "q", "documents": ["a"]}))
    assert found.status_code == 400 and "Content-Type: application/json" in found.json()["message"]


@pytest.mark.parametrize("user", ["../../etc/passwd", "a b", "\u202eann", "50%", "a/b", "a?b#c", "\u00e9" * 200])
def test_odd_ids_are_people_like_others(client, user):
    from urllib.parse import quote

    judge(client, user, TEXTS[1], TEXTS[0])
    assert order(client, path=quote(user, safe="")) == order(client, user=user)
    assert order(client, user=user)[1] == "personal"
    assert client.get(f"/u/{quote(user, safe='')}/v1/users/me").json()["judgements"] == 1


BODIES = [
    ({"query": "q"}, "documents, texts and items"),
    ({"query": "q", "documents": []}, "at least one"),
    ({"query": 7, "documents": ["a"]}, "query"),
    ({"query": "q", "documents": [7]}, "documents"),
    ({"query": "q", "documents": [{"title": "t"}]}, "no text"),
    ({"query": "q", "documents": ["a\0b"]}, "NUL"),
    ({"query": "q", "documents": ["a"] * 1001}, "at most 1000"),
    ({"query": "q", "documents": ["a"], "top_n": -1}, "top_n"),
    ([], "valid dictionary"),
]


@pytest.mark.parametrize(("body", "says"), BODIES)
def test_bad_bodies_are_refused_in_one_line(client, body, says):
    found = client.post("/rerank", json=body)
    assert found.status_code == 400
    assert says in found.json()["message"] and found.json()["error"]["code"] == 400


def test_texts_are_answered_as_tei_does(gated):
    found = gated.post("/rerank", json={"query": PROMPT, "texts": MIXED, "return_text": True}).json()
    assert sorted(one["index"] for one in found) == [0, 1, 2, 3]
    assert [one["score"] for one in found[2:]] == [0.0, 0.0] and {found[2]["index"], found[3]["index"]} == {1, 3}
    assert 1 > found[0]["score"] >= found[1]["score"] > 0
    assert found[0]["text"] == MIXED[found[0]["index"]]
    raw = gated.post("/rerank", json={"query": PROMPT, "texts": MIXED, "raw_scores": True}).json()
    assert sorted(raw, key=lambda one: -one["score"]) == raw and raw[1]["score"] > 0.0 == raw[2]["score"]
    for wrong in ({"query": 1, "texts": ["a"]}, {"query": "q", "texts": ["a"], "documents": ["a"]}):
        assert set(gated.post("/rerank", json=wrong).json()) == {"error", "error_type"}
    refused = gated.post("/rerank", json={"query": 1, "texts": ["a"]})
    assert refused.status_code == 400 and set(refused.json()) == {"error", "error_type"}


def test_blocked_documents_are_left_out_and_told(gated):
    found = gated.post("/v1/rerank", json={"query": PROMPT, "documents": MIXED}).json()
    assert {one["index"] for one in found["results"]} == {0, 2}
    assert found["bounds"] == {"in_force": True, "policy_hash": "policy-1", "blocked": [1, 3], "abstained": False}
    nothing = gated.post("/v1/rerank", json={"query": PROMPT, "documents": [UNSAFE]})
    assert nothing.status_code == 200 and nothing.json()["results"] == [] and nothing.json()["bounds"]["abstained"]


def test_without_bounds_every_answer_says_so(client):
    assert client.post("/rerank", json={"query": "q", "documents": ["a"]}).json()["bounds"] == {"in_force": False}


def test_top_n_and_documents(client):
    body = {"query": PROMPT, "documents": [{"text": text} for text in TEXTS], "return_documents": True}
    two = client.post("/rerank", json={**body, "top_n": 2}).json()["results"]
    assert len(two) == 2 and two[0]["document"]["text"] == TEXTS[two[0]["index"]]
    for all_of_them in (None, 0, 100):
        assert len(client.post("/rerank", json={**body, "top_n": all_of_them}).json()["results"]) == len(TEXTS)
    items = client.post("/v1alpha/inference/rerank", json={"query": PROMPT, "items": TEXTS, "max_num_results": 3})
    assert isinstance(items.json(), list) and len(items.json()) == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([*MIXED, "x", f"{UNSAFE}, please"]), min_size=1, max_size=12),
    st.sampled_from([None, "ann", scorer().users.ids[0]]),
    st.sampled_from(["documents", "texts", "items"]),
    st.booleans(),
)
def test_nobody_gets_a_blocked_text_above_another(gated, texts, user, name, raw):
    found = gated.post("/rerank", json={"query": PROMPT, name: texts, "user": user, "raw_scores": raw}).json()
    results = found["results"] if name == "documents" else found
    blocked = [UNSAFE in texts[one["index"]] for one in results]
    if name == "texts":
        assert sorted(one["index"] for one in results) == list(range(len(texts)))
        assert blocked == sorted(blocked)
        assert all((one["score"] == 0.0) == bad for one, bad in zip(results, blocked, strict=True)) or raw
        assert all(one["score"] == 0.0 for one, bad in zip(results, blocked, strict=True) if bad)
    else:
        assert not any(blocked)
        assert len(results) == sum(UNSAFE not in text for text in texts)


# --- keys

KEYS = """
[[key]]
key = "of acme"
tenant = "acme"
[[key]]
key = "of other"
tenant = "other"
[[key]]
key = "of ann"
tenant = "acme"
user = "ann"
"""


def test_a_tenant_never_sees_anothers_people(tmp_path):
    (tmp_path / "keys.toml").write_text(KEYS)
    served = core(tmp_path / "s.db")
    with TestClient(app_of(served, Keys.read(tmp_path / "keys.toml"))) as client:
        ask = {"query": PROMPT, "documents": TEXTS, "user": "ann"}
        say = {"user": "ann", "prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1]}

        def by(key):
            return {"Authorization": f"Bearer {key}"}

        for headers in ({}, by("wrong"), {"Authorization": "of acme"}):
            for found in (
                client.post("/rerank", json=ask, headers=headers),
                client.get("/v1/users/ann", headers=headers),
            ):
                assert found.status_code == 401 and "of acme" not in found.text
                assert ("is not known here" in found.text) == (headers == by("wrong"))
        assert client.post("/v1/feedback", json=say, headers=by("of acme")).status_code == 200
        assert client.get("/v1/users/ann", headers=by("of acme")).json()["judgements"] == 1
        assert client.get("/v1/users/ann", headers=by("of other")).json()["judgements"] == 0
        assert (
            client.post("/rerank", json=ask, headers=by("of other")).json()["personalization"]["source"] == "population"
        )
        assert client.delete("/v1/users/ann", headers=by("of other")).json()["rows"]["judgements"] == 0
        assert client.get("/v1/users/ann", headers=by("of ann")).json()["judgements"] == 1
        for found in (
            client.get("/v1/users/ben", headers=by("of ann")),
            client.post("/rerank", json={**ask, "user": "ben"}, headers=by("of ann")),
        ):
            assert found.status_code == 403
    served.store.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[key]\nkey = 'a'",
        "[[key]]\nkey = 'a'",
        "[[key]]\ntenant = 'a'",
        KEYS + KEYS,
        "[[key]]\nkey='a'\ntenant='a/b'",
    ],
)
def test_a_wrong_file_of_keys_is_refused(tmp_path, text):
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(SettingsError):
        Keys.read(tmp_path / "keys.toml")


# --- failures


class Fails:
    """A scorer of strangers, whose rewards are no numbers."""

    serves, kind, selection = "population", "fails", {}

    def score(self, responses, user_ids, response_Q=None):
        return Scores(np.full(len(responses), np.nan), np.full(len(responses), POPULATION, np.int8))


def test_no_number_is_an_error_and_no_reward(tmp_path):
    served = core(tmp_path / "s.db", own=Fails())
    with TestClient(app_of(served)) as client:
        found = client.post("/rerank", json={"query": "q", "texts": ["a"]})
        assert found.status_code == 424 and found.json()["error_type"] == "backend"
        told = client.post("/v1/feedback", json={"user": "u", "prompt": "p", "chosen": "a", "rejected": "b"}).json()
        assert told["new"] and not told["used"]  # kept, and said that it changes nothing
    served.store.close()


def test_a_store_that_fails_acknowledges_nothing(tmp_path):
    served = core(tmp_path / "s.db")
    with TestClient(app_of(served)) as client:
        served.store.close()
        found = client.post("/v1/feedback", json={"user": "u", "prompt": "p", "chosen": "a", "rejected": "b"})
        assert found.status_code == 503 and found.headers["retry-after"]


def test_a_large_body_is_refused_before_it_is_read(tmp_path):
    with running(core(tmp_path / "s.db"), limits=limits.Limits(body=10_000)) as at:
        large = json.dumps({"query": "q", "documents": ["x" * 20_000]})
        assert httpx.post(f"{at}/rerank", content=large).status_code == 413
        parts = (large[at : at + 1000].encode() for at in range(0, len(large), 1000))  # without its length
        assert httpx.post(f"{at}/rerank", content=parts).status_code == 413


# --- unmodified clients, a real server


def test_coheres_clients_v1_and_v2_name_people_in_four_ways(tmp_path):
    known = scorer().users.ids[0]
    with running(core(tmp_path / "s.db", bounded=True)) as at:
        asked = {"query": PROMPT, "documents": [*TEXTS, UNSAFE], "model": "polypref"}
        own = {"user": known}
        ways = [
            ({"base_url": f"{at}/u/{known}"}, asked),
            ({"base_url": at}, asked | {"model": f"polypref@{known}"}),
            ({"base_url": at}, asked | {"request_options": {"additional_body_parameters": own}}),
            ({"base_url": at, "httpx_client": httpx.Client(headers={"X-User": known})}, asked),
        ]
        wanted = httpx.post(f"{at}/rerank", json=asked | own).json()["results"]
        nobody = httpx.post(f"{at}/rerank", json=asked).json()["results"]
        assert wanted != nobody
        for client in (cohere.Client, cohere.ClientV2):
            for settings_, body in ways:
                found = client("key", **settings_).rerank(**body)
                assert [(r.index, r.relevance_score) for r in found.results] == [
                    (r["index"], r["relevance_score"]) for r in wanted
                ]
                assert len(found.results) == len(TEXTS)  # what is blocked is left out
            empty = client("key", base_url=at).rerank(query="q", documents=[UNSAFE], model="m", top_n=None)
            assert empty.results == []
        with pytest.raises(cohere.BadRequestError):
            cohere.ClientV2("key", base_url=at).rerank(query="q", documents=[], model="m")


def test_many_at_once_are_encoded_together_and_each_gets_its_own(tmp_path):
    with running(core(tmp_path / "s.db")) as at:

        def ask(number):
            texts = [f"text {number} {at}" for at in range(5)]
            found = httpx.post(f"{at}/rerank", json={"query": PROMPT, "documents": texts}, timeout=60).json()
            pool, place = Responses.of([PROMPT] * 5, texts)
            return [one["index"] for one in found["results"]], scorer().score(pool, None, place).value_Q

        with ThreadPoolExecutor(8) as many:
            for found, value in many.map(ask, range(40)):
                assert found == np.argsort(-value, kind="stable").tolist()


def test_operators_routes(client):
    up = {"status": "UP", "model_class": "polypref", "scorer": "scorer-1"}
    assert client.get("/health").json() == client.get("/").json() == up
    assert client.get("/v1/models").json()["data"][0]["id"] == "polypref"
    order(client, user="secret-name")
    metrics = client.get("/metrics").text
    assert 'polypref_answers_total{route="rerank",source="population"}' in metrics and "secret-name" not in metrics
    routes = client.get("/openapi.json").json()["paths"]
    assert "/v2/rerank" in routes and "/v1/feedback" in routes


def test_a_pause_does_not_loosen_a_persons_own_limits(tmp_path):
    served = core(tmp_path / "s.db", bounded=True)
    object.__setattr__(
        served.bounded, "user_limits", {"ann": gate.Limits(floor=2.0), "ben": gate.Limits(most_candidates=2)}
    )
    ask = {"query": PROMPT, "documents": TEXTS}
    with TestClient(app_of(served)) as client:
        for paused in (False, True):
            for user in ("ann", "ben"):
                client.post(f"/v1/users/{user}/pause?paused={paused}")
            assert client.post("/rerank", json=ask | {"user": "ann"}).json()["results"] == []
            assert client.post("/rerank", json=ask | {"user": "ben"}).status_code == 400
            assert len(client.post("/rerank", json=ask | {"user": "eve"}).json()["results"]) == len(TEXTS)
    served.store.close()


def test_a_mistyped_route_and_a_wrong_method_are_told_where_the_routes_are(tmp_path):
    with running(core(tmp_path / "s.db")) as at, httpx.Client(base_url=at) as client:
        for found, status in ((client.post("/v1/rerankk", json={}), 404), (client.get("/rerank"), 405)):
            assert found.status_code == status and "/openapi.json" in found.json()["message"]
