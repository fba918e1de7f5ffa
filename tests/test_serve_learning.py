"""Learning in use: a judgement counts at once and once, for one person alone, and who leaves is a stranger again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polypref.comparisons import Responses
from polypref.data.preferred import worth
from polypref.serve.people import judged
from polypref.serve.store.contract import Judgement, Person, Stored
from serve_cases import PROMPT, TEXTS, answering, judge, order, scorer


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with answering(tmp_path_factory) as found:
        yield found


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
    monkeypatch.setattr("polypref.serve.routes.feedback.WAIT_S", 0.1)
    found = client.post("/rerank", json={"query": PROMPT, "documents": TEXTS, "user": "pia"}).json()
    for user, request, chosen in (("ben", found["id"], 0), ("pia", "made-up", 0), ("pia", found["id"], 99)):
        refused = client.post("/v1/feedback", json={"user": user, "request": request, "chosen": chosen, "rejected": 1})
        assert refused.status_code == 400


def test_a_retry_is_one_judgement_and_another_content_is_a_conflict(client):
    assert judge(client, "tom", "a", "b", key="k1").json()["new"]
    assert not judge(client, "tom", "a", "b", key="k1").json()["new"]
    assert judge(client, "tom", "b", "a", key="k1").status_code == 409
    assert judge(client, "tim", "b", "a", key="k1").json()["new"]  # somebody else's id
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
    {"chosen": "a", "rejected": "b", "id": "k\0"},
    {"chosen": 0, "rejected": 1, "request": "r\0"},
]


@pytest.mark.parametrize("body", WRONG)
def test_what_is_no_judgement_is_refused_and_not_kept(client, body):
    whole = json.dumps({"user": "wim", "prompt": "p", **body})
    found = client.post("/v1/feedback", content=whole, headers={"Content-Type": "application/json"})
    assert found.status_code == 400 and "dictionary" not in found.text, found.text
    assert client.get("/v1/users/wim").json()["judgements"] == 0


def test_a_name_of_a_judgement_that_is_too_long_is_refused(client):
    assert "more than 255 characters" in judge(client, "wim", "a", "b", key="k" * 256).json()["message"]
    assert judge(client, "wim2", "a", "b", key="k" * 255).json()["new"]


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
    assert rows.weights_N.tolist() == [2 / 3, 2 / 3, 1.0]  # the pairs of a list share its values
    assert judged(Person("", "u"), stored(valued("thumb", "a", 1.0))) is None


@pytest.mark.parametrize("values", [range(5), range(10), [0, 0, 1, 1, 1, 1], [0, 1], [0, 0, 1, 2, 2, 5]])
def test_the_pairs_of_a_list_count_as_what_they_know(values):
    """Their score in random order varies as that of ``worth`` times as many independent pairs."""
    rng, n = np.random.default_rng(0), len(values)
    x_R = rng.normal(size=n)
    pairs = [(one, other) for one in range(n) for other in range(n) if values[other] < values[one]]
    score_S, expected_S = [], []
    for _ in range(20_000):
        x_S = rng.permutation(x_R)
        apart_P = np.array([x_S[one] - x_S[other] for one, other in pairs])
        score_S.append(apart_P.sum() / 2)
        expected_S.append((apart_P**2).sum() / 4)
    found = worth({str(at): value for at, value in enumerate(values)})
    assert found == pytest.approx(np.mean(expected_S) / np.var(score_S), rel=0.04)
    assert worth({"a": 1.0, "b": 1.0}) == worth({}) == 1.0


def test_the_state_is_what_adapt_makes_of_the_stored_judgements(client):
    for at in range(4):
        judge(client, "eva", TEXTS[at], TEXTS[at + 1], tie=at == 2)
    served = client.app.state.core
    few = judged(Person("", "eva"), served.store.judgements(Person("", "eva")))
    pool, place = Responses.of([PROMPT] * len(TEXTS), TEXTS)
    assert few is not None
    wanted = scorer().adapt("eva", few).score(pool, ["eva"] * len(TEXTS), place).value_Q
    found = client.post("/rerank", json={"query": PROMPT, "texts": TEXTS, "user": "eva", "raw_scores": True}).json()
    assert [one["score"] for one in sorted(found, key=lambda one: one["index"])] == wanted.tolist()


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
