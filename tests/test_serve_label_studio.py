"""Label Studio's ML backend: predictions for who is named, annotations as judgements, stored once and taken back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from polypref.serve.dialects.label_studio import Compared
from polypref.serve.store.contract import Person
from serve_cases import PROMPT, TEXTS, UNSAFE, answering, order, scorer

KNOWN = scorer().users.ids[0]
CONFIG = """<View>
  <Header value="Which answer is better?"/>
  <Text name="prompt" value="$prompt"/>
  <!-- both answers -->
  <Pairwise name="comparison" toName="answer1,answer2" selectionStyle="background-color: #eee"/>
  <Text name="answer1" value="$one"/><Text name="answer2" value="$two"/>
</View>"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with answering(tmp_path_factory, bounded=True) as found:
        yield found


def task(one=TEXTS[0], two=TEXTS[1], number=11):
    return {"id": number, "data": {"prompt": PROMPT, "one": one, "two": two}, "project": 3, "meta": {}}


def annotation(number, side="left", who=7, **more):
    """As Label Studio's serializer writes it."""
    value = {"value": {"selected": side}, "id": "x1", "from_name": "comparison", "to_name": "answer1,answer2"}
    return {
        "id": number,
        "completed_by": who,
        "result": [{**value, "type": "pairwise", "origin": "manual"}],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-28T10:00:00.000000Z",
        "updated_at": "2026-11-28T10:00:00.000000Z",
        "lead_time": 4.25,
        "task": 11,
        "project": 3,
        **more,
    }


def hook(client, action, one, of=None, path="/webhook"):
    about = {"task": of or task(), "project": {"id": 3, "label_config": CONFIG, "title": "t"}}
    key = "annotations" if action == "ANNOTATIONS_DELETED" else "annotation"
    body = {"action": action, key: one, **({} if key == "annotations" else about)}
    return client.post(path, json=body)


def exported(client, user):
    return client.get(f"/v1/users/{user}/export").json()["judgements"]


# --- predictions


def predict(client, tasks, path="/predict", config=CONFIG):
    body = {"tasks": tasks, "model_version": None, "project": "3.1764000000", "label_config": config}
    return client.post(path, json={**body, "params": {"login": None, "password": None, "context": None}})


def test_a_prediction_is_the_side_that_the_person_prefers(client):
    pairs = [(TEXTS[a], TEXTS[b]) for a, b in ((0, 1), (1, 0), (2, 3), (3, 2), (4, 5))]
    for path, user in (("/predict", None), (f"/u/{KNOWN}/predict", KNOWN)):
        found = predict(client, [task(*pair) for pair in pairs], path).json()["results"]
        for pair, one in zip(pairs, found, strict=True):
            best = order(client, list(pair), user=user)[0][0]
            assert one["result"][0]["value"] == {"selected": ("left", "right")[best]} and 0.5 <= one["score"] < 1
            assert one["result"][0]["from_name"] == "comparison" and one["result"][0]["to_name"] == "answer1,answer2"
            assert one["result"][0]["type"] == "pairwise" and one["model_version"] == "scorer-1"


def test_a_blocked_side_is_never_predicted(client):
    found = predict(client, [task(UNSAFE, TEXTS[0]), task(TEXTS[0], UNSAFE), task(UNSAFE, f"{UNSAFE}!")]).json()
    sides = [[one["value"]["selected"] for one in each["result"]] for each in found["results"]]
    assert sides == [["right"], ["left"], []]
    assert found["results"][2]["score"] == 0.0


def test_setup_and_health(client):
    found = client.post(
        "/setup", json={"project": "3.1", "schema": CONFIG, "hostname": "http://ls", "access_token": "t"}
    )
    assert found.json() == {"model_version": "scorer-1"}
    assert client.get("/health").json()["model_class"]


CONFIGS = [
    ("<View", "no XML"),
    ("<View/>", "no <Pairwise"),
    ('<View><Pairwise name="c" toName="a,b"/><Text name="a" value="$a"/></View>', "no <Pairwise"),
    ('<View><Pairwise name="c" toName="a"/><Text name="a" value="$a"/></View>', "no <Pairwise"),
    ('<!DOCTYPE x [<!ENTITY e "e">]><View>&e;</View>', "a declaration"),
]


@pytest.mark.parametrize(("config", "says"), CONFIGS)
def test_a_configuration_that_compares_no_two_texts_is_refused(client, config, says):
    for found in (client.post("/setup", json={"schema": config}), predict(client, [task()], config=config)):
        assert found.status_code == 400 and says in found.json()["message"]


def test_the_prompt_is_the_one_called_so_or_the_only_other_text():
    pair = '<Pairwise name="c" toName="a,b"/><Text name="a" value="$x"/><Text name="b" value="$y"/>'
    for more, wanted in (
        ('<Header value="$question"/>', "question"),
        ('<Text name="prompt" value="$q"/><Header value="$title"/>', "q"),
        ('<Text name="t" value="$title"/><Text name="q" value="$prompt"/>', "prompt"),
        ('<Text name="s" value="$title"/><Text name="q" value="$other"/>', None),
        ("", None),
    ):
        found = Compared.of(f"<View>{more}{pair}</View>")
        assert (found.prompt, found.fields, found.control) == (wanted, ("x", "y"), "c")


def test_a_task_without_its_texts_is_refused(client):
    found = predict(client, [{"id": 5, "data": {"prompt": "p", "one": "a"}}])
    assert found.status_code == 400 and "task 5 has no text 'two'" in found.json()["message"]


# --- annotations


def test_an_annotation_is_a_judgement_of_who_made_it_and_stored_once(client):
    for who, told in ((7, "stored"), (7, "stored before"), ({"id": 7, "email": "a@b"}, "stored before")):
        found = hook(client, "ANNOTATION_CREATED", annotation(1, who=who))
        assert (found.status_code, found.json()["result"]) == (201, [told])
    kept = exported(client, 7)
    assert [(one["chosen"], one["rejected"], one["prompt"]) for one in kept] == [(TEXTS[0], TEXTS[1], PROMPT)]
    assert kept[0]["context"]["seconds"] == 4.25 and kept[0]["id"] == "label-studio-1"
    assert order(client, user="7")[1] == "personal"


def test_an_update_replaces_and_a_late_older_one_changes_nothing(client):
    hook(client, "ANNOTATION_CREATED", annotation(2, who=8))
    later = annotation(2, "right", who=8, updated_at="2026-11-28T11:00:00.000000Z")
    assert hook(client, "ANNOTATION_UPDATED", later).json()["result"] == ["stored"]
    assert [one["chosen"] for one in exported(client, 8)] == [TEXTS[1]]
    late = hook(client, "ANNOTATION_CREATED", annotation(2, who=8)).json()["result"]
    assert late == ["older than what is stored"]
    assert [one["chosen"] for one in exported(client, 8)] == [TEXTS[1]]
    assert client.get("/v1/users/8").json()["judgements"] == 1


def test_what_is_cancelled_or_deleted_is_taken_back(client):
    for number in (3, 4, 5):
        hook(client, "ANNOTATION_CREATED", annotation(number, who=9))
    cancelled = annotation(3, who=9, was_cancelled=True, updated_at="2026-11-28T11:00:00.000000Z")
    assert hook(client, "ANNOTATION_UPDATED", cancelled).json()["result"] == ["taken back"]
    assert hook(client, "ANNOTATIONS_DELETED", [{"id": 4}]).json()["result"] == ["taken back"]
    assert [one["id"] for one in exported(client, 9)] == ["label-studio-5"]
    assert hook(client, "ANNOTATIONS_DELETED", [{"id": 4}]).json()["result"] == ["nothing to keep"]
    for nothing in (annotation(6, who=9, was_cancelled=True), annotation(6, who=9, result=[])):
        assert hook(client, "ANNOTATION_CREATED", nothing).json()["result"] == ["nothing to keep"]


def test_many_at_once_and_other_actions(client):
    both, tasks = (
        [annotation(20, who=12), annotation(21, "right", who=13, task=12)],
        [task(), task(TEXTS[4], TEXTS[5], 12)],
    )
    assert hook(client, "ANNOTATIONS_CREATED", both, tasks).json()["result"] == ["stored", "stored"]
    assert [one["chosen"] for one in exported(client, 13)] == [TEXTS[5]]
    for action in ("START_TRAINING", "PROJECT_UPDATED"):
        found = client.post("/webhook", json={"action": action, "project": {"id": 3}})
        assert found.status_code == 200 and found.json()["status"] == "ok"


def test_a_webhook_that_cannot_be_kept_says_why(client):
    about = {"task": task(), "project": {"label_config": CONFIG}}
    for body, says in (
        ({"action": "ANNOTATION_CREATED"}, "expected a project"),
        ({"action": "ANNOTATION_CREATED", **about}, "switch its payload on"),
        ({"action": "ANNOTATION_CREATED", "annotation": annotation(1, who=None), **about}, "no completed_by"),
        ({"action": "ANNOTATION_CREATED", "annotation": annotation(1, lead_time=-1), **about}, "lead_time"),
        ({"action": "ANNOTATION_CREATED", "annotation": annotation(1), **about, "task": task("a", "a")}, "the same"),
        ({"action": "ANNOTATIONS_DELETED"}, "switch its payload on"),
    ):
        found = client.post("/webhook", json=body)
        assert found.status_code == 400 and says in found.json()["message"], found.text
    assert hook(client, "ANNOTATION_CREATED", annotation(1), path="/u/ann/webhook").status_code == 403


# --- the store


def test_a_replaced_judgement_counts_once_for_whoever_made_it(client):
    store = client.app.state.core.store
    hook(client, "ANNOTATION_CREATED", annotation(30, who=31))
    before = store.standing(Person("", "31"))
    found = hook(client, "ANNOTATION_UPDATED", annotation(30, who=32))
    assert found.json()["result"] == ["stored"]
    assert store.standing(Person("", "31")).judgements == 0 != before.judgements
    assert store.standing(Person("", "31")).version != before.version
    assert [whose for whose, _ in store.made("", "label-studio-30")] == [Person("", "32")]


def test_an_annotation_that_comes_twice_at_once_with_other_authors_is_one_judgement(client):
    with ThreadPoolExecutor(8) as at_once:
        for number in range(40, 48):
            told = at_once.map(
                lambda who, number=number: hook(client, "ANNOTATION_CREATED", annotation(number, who=who)).json(),
                range(100, 108),
            )
            assert [one["result"] for one in told] == [["stored"]] * 8
            assert len(client.app.state.core.store.made("", f"label-studio-{number}")) == 1


def test_an_address_of_one_user_keeps_that_users_annotations_apart(client):
    path = "/u/60/webhook"
    for _ in range(2):
        assert hook(client, "ANNOTATION_CREATED", annotation(50, who=60), path=path).status_code == 201
    hook(client, "ANNOTATION_CREATED", annotation(50, who=61))
    store = client.app.state.core.store
    assert [whose.user for whose, _ in store.made("", "label-studio-50")] == ["60", "61"]
    assert hook(client, "ANNOTATIONS_DELETED", [{"id": 50}], path=path).json()["result"] == ["taken back"]
    assert [whose.user for whose, _ in store.made("", "label-studio-50")] == ["61"]
    assert hook(client, "ANNOTATIONS_DELETED", [{"id": 50}], path=path).json()["result"] == ["nothing to keep"]
    assert hook(client, "ANNOTATIONS_DELETED", [{"id": 50}]).json()["result"] == ["taken back"]
