"""Attacks on ``polypref serve``, each of which worked once: on what is held back, on other people, on the process."""

from __future__ import annotations

import resource
import time
from hashlib import sha256

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.serve import people
from polypref.serve.dialects.upstream import Candidate, Reply
from polypref.serve.people import MOST_LINKED, judged, rows_of
from polypref.serve.store.contract import Judgement, Person, Stored
from polypref.serve.store.sealed import Sealed
from polypref.serve.store.sqlite import Sqlite
from polypref.serve.who.person import Key, Keys
from serve_cases import PROMPT, UNSAFE, core, running, scorer

KEYS = Keys(
    {
        sha256(key.encode()).hexdigest(): whose
        for key, whose in {"all": Key("acme"), "ann": Key("acme", "ann"), "bob": Key("acme", "bob")}.items()
    }
)
CONFIG = (
    '<View><Text name="prompt" value="$p"/><Text name="a" value="$a"/><Text name="b" value="$b"/>'
    '<Pairwise name="c" toName="a,b"/></View>'
)


def by(key, **more):
    return {"authorization": f"Bearer {key}", **more}


@pytest.fixture
def client(tmp_path):
    with running(core(tmp_path / "s.db", bounded=True), KEYS) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


class Writes:
    """An upstream that writes one text that is held back, and one that is not."""

    model, candidates, metrics = "m", 2, None

    async def ask(self, body, many):
        return Reply((Candidate(f"{UNSAFE} at home", "stop"), Candidate("a harmless text", "stop")), 2, None, "m")

    async def close(self): ...

    def stop(self): ...


def test_a_candidate_that_was_held_back_is_not_returned_as_a_judgement(tmp_path):
    with running(core(tmp_path / "s.db", bounded=True), upstream=Writes()) as url, httpx.Client(base_url=url) as client:
        chat = {"messages": [{"role": "user", "content": PROMPT}], "user": "ann"}
        answer = client.post("/v1/chat/completions", json=chat).json()
        assert answer["bounds"]["blocked"] == [0]
        for judged in ({"chosen": 0, "thumb": "up"}, {"chosen": 1, "rejected": 0}):
            told = client.post("/v1/feedback", json={"user": "ann", "request": answer["id"], **judged})
            assert told.status_code == 400 and UNSAFE not in told.text and "held back" in told.text
        body = {"user": "ann", "request": answer["id"], "chosen": 1, "thumb": "up"}
        assert client.post("/v1/feedback", json=body).status_code == 200
        exported = client.get("/v1/users/ann/export").text
        assert "a harmless text" in exported and UNSAFE not in exported


def _hook(client, key, action, number, who, **more):
    side = [{"type": "pairwise", "value": {"selected": "left"}}]
    body = {
        "action": action,
        "annotation": {"id": number, "completed_by": who, "result": side},
        "task": {"id": 1, "data": {"p": "q", "a": "one text", "b": "other text"}},
        "project": {"label_config": CONFIG},
    }
    body["annotation"] |= more
    told = client.post("/webhook", headers=by(key), json=body)
    return told.json()["result"][0] if told.status_code == 201 else told.status_code


def _ids(client, key):
    kept = client.get("/v1/users/me/export", headers=by(key)).json()["judgements"]
    return [(one["id"], one["chosen"]) for one in kept]


def test_a_persons_key_changes_no_annotation_of_another_and_does_not_learn_of_it(client):
    stored, deleted = "ANNOTATION_CREATED", "ANNOTATION_DELETED"
    assert _hook(client, "all", stored, 5, "bob") == "stored"
    for number in (5, 6):  # Bob's, and one that is not there
        assert _hook(client, "ann", deleted, number, "ann") == "nothing to keep"
        assert _hook(client, "ann", stored, number, "bob") == 403
        assert _hook(client, "ann", stored, number, "ann") == "stored"
        assert _hook(client, "ann", deleted, number, "ann") == "taken back"
    assert _ids(client, "bob") == [("label-studio-5", "one text")] and _ids(client, "ann") == []
    assert _hook(client, "bob", deleted, 5, "bob") == "taken back"
    assert _ids(client, "bob") == []


def test_nobody_can_take_an_annotations_id_before_it_comes(client):
    late = {"updated_at": "9999"}
    assert _hook(client, "ann", "ANNOTATION_CREATED", 5, "ann", **late) == "stored"  # of a user's own, with a late time
    told = {"id": "label-studio-6", "prompt": "q", "chosen": "mine", "rejected": "other"}
    assert client.post("/v1/feedback", headers=by("ann"), json=told).json()["new"]
    for number in (5, 6):
        assert _hook(client, "all", "ANNOTATION_CREATED", number, "bob", updated_at="2026") == "stored"
        assert _hook(client, "all", "ANNOTATION_UPDATED", number, "bea", updated_at="2027") == "stored"
    assert _ids(client, "bob") == []
    kept = client.get("/v1/users/bea/export", headers=by("all")).json()["judgements"]
    assert [one["id"] for one in kept] == ["label-studio-5", "label-studio-6"]
    assert _hook(client, "all", "ANNOTATION_DELETED", 5, None) == "taken back"
    assert _ids(client, "ann") == [("label-studio-5", "one text"), ("label-studio-6", "mine")]


def test_nobody_learns_of_anothers_idempotency_key_or_takes_it(client):
    said = {"prompt": "q", "chosen": "a", "rejected": "b"}
    for key, chosen in (("ann", "a"), ("bob", "another text")):
        body = said | {"chosen": chosen}
        told = client.post("/v1/feedback", headers=by(key, **{"idempotency-key": "order-1"}), json=body)
        assert (told.status_code, told.json()["new"]) == (200, True)
    assert _ids(client, "ann") == [("order-1", "a")] and _ids(client, "bob") == [("order-1", "another text")]
    undone = client.delete("/v1/users/me/judgements/order-1", headers=by("ann"))
    assert undone.json() == {"removed": True}
    assert _ids(client, "ann") == [] and _ids(client, "bob") == [("order-1", "another text")]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/users/me", [("x-user", "ann"), ("x-user", "bob")], 403),
        ("/v1/users/me", [("authorization", "Bearer ann"), ("x-user", "ann")], 401),
        ("/u/zo%C3%AB/v1/users/me", [(b"x-user", "zo\u00eb".encode())], 200),
        ("/v1/users/me", [(b"x-user", b"zo\xeb")], 400),
        ("/u/%FF/v1/users/me", [], 400),
        ("/v1/users/%FF", [], 400),
        ("/%75/v1/users/me", [], 404),  # it was the user 5
        ("/u%2Fann/v1/users/me", [], 404),  # it was the user 2Fann
    ],
)
def test_a_request_names_one_person_whoever_reads_it(client, path, headers, status):
    assert client.get(path, headers=[("authorization", "Bearer all"), *headers]).status_code == status


def test_a_slash_in_an_id_ends_neither_the_id_nor_the_path(client):
    for user, key in (("bob", "x"), ("bob/export", "x/y")):
        body = {"user": user, "id": key + user, "prompt": "q", "chosen": "a", "rejected": "b"}
        assert client.post("/v1/feedback", headers=by("all"), json=body).status_code == 200
    assert client.get("/v1/users/bob%2Fexport", headers=by("all")).json()["user"] == "bob/export"
    assert client.get("/u/bob%2Fexport/v1/users/bob%2Fexport", headers=by("all")).json()["judgements"] == 1
    undone = client.delete("/v1/users/bob%2Fexport/judgements/x%2Fybob%2Fexport", headers=by("all"))
    assert undone.json() == {"removed": True}
    assert client.get("/v1/users/bob", headers=by("all")).json()["judgements"] == 1
    assert client.get("/v1/users/b%6Fb", headers=by("all")).json()["user"] == "bob"
    assert client.get("/v1/users/%6De", headers=by("bob")).json()["user"] == "bob"


def test_a_small_request_takes_no_large_memory(client):
    """A prompt of some hundred thousand characters was copied for each of 1,225 pairs."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    responses = [f"text {at}" for at in range(50)]
    for long in (15_000, 400_000):
        body = {"user": "ann", "questions": [{"prompt": "x" * long, "responses": responses}]}
        told = client.post("/v1/questions", headers=by("all"), json=body)
        assert told.status_code == (200 if long < 20_000 else 400)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 150_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/setup", {"schema": "<a>" * 500_000}),
        ("/predict", {"label_config": CONFIG, "tasks": [{"data": {"p": "q", "a": "a", "b": "b"}}] * 501}),
        ("/predict", {"label_config": CONFIG, "tasks": [{"data": {"p": "x" * 600_000, "a": "a", "b": "b"}}] * 2}),
        ("/v1/feedback", {"prompt": [{"role": "user", "content": "x"}] * 2_001, "chosen": "a", "rejected": "b"}),
    ],
)
def test_what_would_take_seconds_is_refused(client, path, body):
    begun = time.monotonic()
    told = client.post(path, headers=by("ann"), json=body)
    assert told.status_code == 400 and ("at most" in told.text or "more than" in told.text)
    assert time.monotonic() - begun < 5


def test_only_a_text_that_was_judged_gets_a_reward(client):
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": UNSAFE}]
    said.append({"role": "assistant", "content": "nice"})
    given = client.post("/classify", headers=by("ann"), json={"messages": said}).json()
    assert given["data"][0]["probs"] == [0.0] and given["bounds"]["blocked"] == [0]
    given = client.post("/classify", headers=by("ann"), json={"messages": [said[0], said[2]]}).json()
    assert given["data"][0]["probs"] != [0.0] and given["bounds"]["blocked"] == []
    two = {"text": "nice", "content": UNSAFE}
    for path, body in (("/rerank", {"query": "q"}), ("/score", {"queries": "q"})):
        told = client.post(path, headers=by("ann"), json=body | {"documents": [two, "x"]})
        assert told.status_code == 400 and "text and content" in told.text


def test_a_key_that_may_be_left_in_its_file_is_told(tmp_path):
    store = Sealed(Sqlite(tmp_path / "s.db"), Sqlite(tmp_path / "k.db"), b"m" * 32)
    ann, judged = Person("", "ann"), Judgement(id="1", kind="thumb", prompt="q", chosen="a text", value=1.0)
    for held in (False, True):
        assert store.judge(ann, judged).result()
        if held:
            store.keys.rewritten = lambda: False
        assert store.forget(ann).pending is held
    store.close()


@pytest.mark.parametrize("kind", ["pairs", "ratings"])
def test_no_number_of_judgements_of_one_prompt_stalls_the_server(kind):
    """Texts that are connected cost the cube of their number, and ratings give pairs by its square."""
    if kind == "pairs":
        of = [{"kind": "pair", "chosen": f"text {at}", "rejected": "one text"} for at in range(1500)]
    else:
        of = [{"kind": "rating", "chosen": f"text {at}", "value": at % 5} for at in range(20_000)]
    stored = [Stored(at, 0.0, Judgement(id=str(at), prompt=PROMPT, **one)) for at, one in enumerate(of)]
    begun = time.perf_counter()
    few = judged(Person("", "ann"), stored)
    scorer().adapt("ann", few)
    assert time.perf_counter() - begun < 10, "it took minutes"
    texts = {few.responses.texts_R[int(at)] for at in np.unique([few.chosen_N, few.rejected_N])}
    assert len(texts) <= MOST_LINKED and of[-1]["chosen"] in texts, "the newest counts"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=400))
def test_what_is_left_out_is_old_and_no_more_than_has_to_be(triples):
    pairs = [(prompt, one, other) for prompt, one, other in triples if one != other]
    stored = [
        Stored(seq, 0.0, Judgement(id=str(seq), kind="pair", prompt=f"p{p}", chosen=f"{a}", rejected=f"{b}"))
        for seq, (p, a, b) in enumerate(pairs)
    ]
    kept = {row.seq for row in rows_of(stored)}
    assert kept == set(range(len(pairs))), "61 texts of a prompt are fewer than the limit"
    few = {row.seq for row in people.affordable(rows_of(stored), most=10)}
    groups: list[set] = []
    for seq in reversed(range(len(pairs))):  # the same by sets, slowly
        p, *two = pairs[seq]
        touched = [group for group in groups if group & {(p, text) for text in two}]
        together = set().union({(p, text) for text in two}, *touched)
        assert (seq in few) == (len(together) <= 10)
        if seq in few:
            groups = [group for group in groups if group not in touched] + [together]


def test_a_persons_own_key_does_not_choose_the_bounds(client):
    body = {"query": PROMPT, "documents": ["a", "b"], "category": "loose"}
    assert client.post("/rerank", json=body, headers=by("ann")).status_code == 403
    assert client.post("/rerank", json={**body, "user": "ann"}, headers=by("all")).status_code == 200
    assert client.post("/rerank", json={**body, "category": ""}, headers=by("ann")).status_code == 200
