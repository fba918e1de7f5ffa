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

from polypref.comparisons import Responses
from polypref.errors import SettingsError
from polypref.learners.protocol import POPULATION, Scores
from polypref.serve.app import app_of
from polypref.serve.people import judged
from polypref.serve.person import Keys
from polypref.serve.store import Judgement, Person, Stored
from serve_cases import UNSAFE, core, running, scorer

PROMPT = "what shall I read"
TEXTS = [f"candidate number {at} of several" for at in range(6)]
MIXED = [TEXTS[0], f"first {UNSAFE}", TEXTS[1], UNSAFE]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    served = core(tmp_path_factory.mktemp("free") / "s.db")
    with TestClient(app_of(served)) as found:
        yield found
    served.store.close()


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    served = core(tmp_path_factory.mktemp("gated") / "s.db", bounded=True)
    with TestClient(app_of(served)) as found:
        yield found
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
    for way in ({"safety_identifier": known}, {"header": known}, {"path": known}, {"model": f"polypref@{known}"}):
        assert order(client, **way) == wanted
        assert order(client, user=known, **way) == wanted
    two = client.post("/u/ann/rerank", json={"query": "q", "documents": ["a"], "user": "ben"})
    assert two.status_code == 403 and "2 different users" in two.json()["message"]


@pytest.mark.parametrize("user", ["", "a\0b", "x" * 2000, "\ud800"])
def test_impossible_ids_are_one_line(client, user):
    found = client.post("/rerank", content=json.dumps({"query": "q", "documents": ["a"], "user": user}))
    assert found.status_code == 400 and "\n" not in found.json()["message"]


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


# --- learning


def test_a_judgement_counts_in_the_next_answer_and_only_for_that_person(client):
    before, other = order(client, user="lea"), order(client, user="max")
    worst, best = before[0][-1], before[0][0]
    for at in range(5):
        found = judge(client, "lea", TEXTS[worst], TEXTS[best], key=f"lea{at}")
        assert found.json() == {"id": f"lea{at}", "new": True, "used": True}
        assert order(client, user="lea")[1] == "personal"
    assert order(client, user="lea")[0].index(worst) < order(client, user="lea")[0].index(best)
    assert order(client, user="max") == other


def test_candidates_of_an_answer_are_judged_by_number_by_the_one_who_got_it(client):
    found = client.post("/rerank", json={"query": PROMPT, "documents": TEXTS, "user": "noa"}).json()
    body = {"request": found["id"], "chosen": 2, "rejected": 0}
    assert client.post("/v1/feedback", json={**body, "user": "noa"}).json()["new"]
    kept = client.get("/v1/users/noa/export").json()["judgements"]
    assert [(one["chosen"], one["rejected"], one["prompt"]) for one in kept] == [(TEXTS[2], TEXTS[0], PROMPT)]
    assert kept[0]["context"]["scorer"] == "scorer-1"


def test_an_answer_that_nobody_got_is_refused(client, monkeypatch):
    monkeypatch.setattr("polypref.serve.feedback.WAIT_S", 0.1)
    found = client.post("/rerank", json={"query": PROMPT, "documents": TEXTS, "user": "pia"}).json()
    for user, request, chosen in (("ben", found["id"], 0), ("pia", "made-up", 0), ("pia", found["id"], 99)):
        refused = client.post("/v1/feedback", json={"user": user, "request": request, "chosen": chosen, "rejected": 1})
        assert refused.status_code == 400


def test_a_retry_is_one_judgement_and_another_content_is_a_conflict(client):
    assert judge(client, "tom", "a", "b", key="k1").json()["new"]
    assert not judge(client, "tom", "a", "b", key="k1").json()["new"]
    for refused in (judge(client, "tom", "b", "a", key="k1"), judge(client, "tim", "a", "b", key="k1")):
        assert refused.status_code == 409
    assert client.get("/v1/users/tom").json()["judgements"] == 1


WRONG = [
    {"chosen": "a"},
    {"chosen": "a", "rejected": "a"},
    {"chosen": "a", "rejected": "b", "rating": 3.0},
    {"chosen": "a", "rating": float("inf")},
    {"chosen": "a", "thumb": "sideways"},
    {"chosen": "a", "tie": True},
    {"chosen": 0, "rejected": 1},
    {"chosen": "a\0", "rejected": "b"},
    {"chosen": "a", "rejected": "b", "liked": True},
    {"chosen": "x" * 200_000, "rejected": "b"},
]


@pytest.mark.parametrize("body", WRONG)
def test_what_is_no_judgement_is_refused_and_not_kept(client, body):
    found = client.post("/v1/feedback", content=json.dumps({"user": "wim", "prompt": "p", **body}))
    assert found.status_code == 400, found.text
    assert client.get("/v1/users/wim").json()["judgements"] == 0


def test_a_judgement_of_nobody_is_refused(client):
    assert "nobody is named" in client.post("/v1/feedback", json={"prompt": "p", "chosen": "a", "rejected": "b"}).text


def stored(*judgements):
    return [Stored(at, 0.0, one) for at, one in enumerate(judgements)]


def valued(kind, text, value, prompt="p"):
    return Judgement(id=f"{kind}{text}{value}{prompt}", kind=kind, prompt=prompt, chosen=text, value=value)


def test_thumbs_and_ratings_are_compared_within_one_prompt():
    rows = judged(
        Person("", "u"),
        stored(
            valued("thumb", "a", 1.0),
            valued("thumb", "b", 0.0),
            valued("thumb", "c", 0.0),
            valued("thumb", "d", 0.0, prompt="other"),  # alone in its prompt
            valued("rating", "a", 2.0),  # another scale
            valued("rating", "b", 5.0),
            valued("rating", "b", 1.0),  # the last one counts
        ),
    )
    assert rows is not None
    texts = rows.responses.texts_R
    pairs = {(texts[a], texts[b]) for a, b in zip(rows.chosen_N.tolist(), rows.rejected_N.tolist(), strict=True)}
    assert pairs == {("a", "b"), ("a", "c")} and len(rows) == 3
    assert judged(Person("", "u"), stored(valued("thumb", "a", 1.0))) is None


def test_the_state_is_what_adapt_makes_of_the_stored_judgements(client):
    for at in range(4):
        judge(client, "eva", TEXTS[at], TEXTS[at + 1], tie=at == 2)
    served = client.app.state.core
    few = judged(Person("", "eva"), served.store.judgements(Person("", "eva")))
    pool, place = Responses.of([PROMPT] * len(TEXTS), TEXTS)
    wanted = scorer().adapt("eva", few).score(pool, ["eva"] * len(TEXTS), place).value_Q
    found = client.post("/rerank", json={"query": PROMPT, "texts": TEXTS, "user": "eva", "raw_scores": True}).json()
    assert [dict((one["index"], one["score"]) for one in found)[at] for at in range(len(TEXTS))] == wanted.tolist()


# --- leaving


def test_who_leaves_is_a_stranger_to_the_bit(client):
    stranger = client.post("/rerank", json={"query": PROMPT, "texts": TEXTS, "user": "uma"}).json()
    judge(client, "uma", TEXTS[3], TEXTS[1])
    assert client.post("/rerank", json={"query": PROMPT, "texts": TEXTS, "user": "uma"}).json() != stranger
    left = client.delete("/v1/users/uma").json()
    assert left["rows"]["judgements"] == 1 and left["residue"] == [] and not left["pending"]
    assert client.post("/rerank", json={"query": PROMPT, "texts": TEXTS, "user": "uma"}).json() == stranger
    assert client.get("/v1/users/uma/export").json() == {"user": "uma", "judgements": []}


def test_a_pause_and_taking_back(client):
    judge(client, "ida", TEXTS[3], TEXTS[1], key="ida1")
    own, nobody = order(client, user="ida"), order(client)
    assert own[1] == "personal"
    assert client.post("/v1/users/ida/pause").json() == {"paused": True}
    assert order(client, user="ida") == nobody
    client.post("/v1/users/ida/pause?paused=false")
    assert order(client, user="ida") == own
    assert client.delete("/v1/users/ida/judgements/ida1").json() == {"removed": True}
    assert order(client, user="ida") == nobody


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
            for found in (client.post("/rerank", json=ask, headers=headers), client.get("/v1/users/ann", headers=headers)):
                assert found.status_code == 401 and "of acme" not in found.text
        assert client.post("/v1/feedback", json=say, headers=by("of acme")).status_code == 200
        assert client.get("/v1/users/ann", headers=by("of acme")).json()["judgements"] == 1
        assert client.get("/v1/users/ann", headers=by("of other")).json()["judgements"] == 0
        assert client.post("/rerank", json=ask, headers=by("of other")).json()["personalization"]["source"] == "population"
        assert client.delete("/v1/users/ann", headers=by("of other")).json()["rows"]["judgements"] == 0
        assert client.get("/v1/users/ann", headers=by("of ann")).json()["judgements"] == 1
        for found in (
            client.get("/v1/users/ben", headers=by("of ann")),
            client.post("/rerank", json={**ask, "user": "ben"}, headers=by("of ann")),
        ):
            assert found.status_code == 403
    served.store.close()


@pytest.mark.parametrize(
    "text", ["", "[key]\nkey = 'a'", "[[key]]\nkey = 'a'", "[[key]]\ntenant = 'a'", KEYS + KEYS, "[[key]]\nkey='a'\ntenant='a/b'"]
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
    with running(core(tmp_path / "s.db"), max_body=10_000) as at:
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
    assert client.get("/health").json() == {"status": "UP"}
    assert client.get("/v1/models").json()["data"][0]["id"] == "polypref"
    order(client, user="secret-name")
    metrics = client.get("/metrics").text
    assert 'polypref_answers_total{route="rerank",source="population"}' in metrics and "secret-name" not in metrics
    routes = client.get("/openapi.json").json()["paths"]
    assert "/v2/rerank" in routes and "/v1/feedback" in routes
