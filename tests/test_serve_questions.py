"""What a person is asked next: the most telling pair that the bounds let through, sides drawn and stored, repeats."""

from __future__ import annotations

import json
import random
from collections import Counter

import httpx
import pytest

from polypref.bounds.gate import Limits
from polypref.errors import SettingsError
from polypref.learners.pooled import Pooled
from polypref.newcomers.active import next_question
from polypref.serve.questions import GAP, REPEATS, Question, Questions, consistency, read
from polypref.serve.store.contract import Judgement, Person, Stored
from polypref.worlds import simulate
from serve_cases import UNSAFE, core, running

PROMPTS = [f"prompt number {at}" for at in range(6)]
QUESTIONS = [Question(prompt, tuple(f"{prompt}, answer {at}" for at in range(4))) for prompt in PROMPTS]
PAIRS = 36


@pytest.fixture
def server(tmp_path):
    def make(questions=QUESTIONS, seed=0, **more):
        served = core(tmp_path / "s.db", **more)
        return served, running(served, questions=Questions(questions, random.Random(seed)))

    return make


def ask(client, user="ann", **more):
    found = client.get(f"/u/{user}/v1/next-question", params=more)
    assert found.status_code == 200, found.text
    return found.json()


def answer(client, asked, chosen=0, user="ann", **more):
    body = {"request": asked["id"], "chosen": chosen, "rejected": 1 - chosen, **more}
    return client.post(f"/u/{user}/v1/feedback", json=body)


def pair(asked):
    return asked["prompt"], frozenset(asked["responses"])


def test_the_house_s_own_choice_is_asked_and_no_pair_twice(server):
    served, up = server(seed=3)
    questions = Questions(QUESTIONS)
    with up as at, httpx.Client(base_url=at) as client:
        seen = []
        for _ in range(PAIRS):
            asked = ask(client)
            if asked["method"] == "repeat":
                assert pair(asked) in seen[:-GAP]
            else:
                state = served.people.derived(Person("", "ann"), served.in_force)
                left = [n for n in range(PAIRS) if _texts(questions, n) not in seen]
                best = left[next_question(state.scorer, "ann", questions._pairs.take(left))]
                assert pair(asked) == _texts(questions, best)
                assert asked["left"] == len(left) and asked["method"] == "expected information"
                seen.append(pair(asked))
            assert answer(client, asked, len(seen) % 2).status_code == 200


def _texts(questions, number):
    prompt, texts = questions._texts(number)
    return prompt, frozenset(texts)


def test_the_side_is_drawn_and_stored(server):
    _, up = server()
    with up as at, httpx.Client(base_url=at) as client:
        first = ask(client)
        sides = Counter(tuple(ask(client)["responses"]) == tuple(first["responses"]) for _ in range(40))
        assert 8 <= sides[True] <= 32
        told = answer(client, first, 1)
        assert told.status_code == 200
        wrong = answer(client, first, 1, position="left")
        assert wrong.status_code == 400 and "shown on the right side" in wrong.json()["message"]
        assert answer(client, first, 0, tie=True, position="left", seconds=1.5).status_code == 200
        stored = client.get("/v1/users/ann/export").json()["judgements"]
        assert [one["context"]["position"] for one in stored] == ["right", "left"]


def test_what_the_bounds_hold_back_is_never_asked(server):
    unsafe = [Question(one.prompt, (*one.responses[:3], f"{UNSAFE} {at}")) for at, one in enumerate(QUESTIONS)]
    _, up = server(unsafe, bounded=True)
    with up as at, httpx.Client(base_url=at) as client:
        asked = [ask(client)]
        while asked[-1]["id"]:
            assert UNSAFE not in "".join(asked[-1]["responses"])
            answer(client, asked[-1])
            asked.append(ask(client))
        assert len({pair(one) for one in asked[:-1]}) == 18  # 3 of each prompt's 6 pairs
        assert asked[-1] == {"id": None, "left": 18, "why": "the bounds hold back a text of every pair that is left."}
        given = {"user": "ann", "questions": [{"prompt": "p", "responses": ["a", UNSAFE]}]}
        assert client.post("/v1/questions", json=given).json()["id"] is None


def test_without_bounds_the_same_texts_are_asked(server):
    _, up = server([Question("p", ("a", UNSAFE))])
    with up as at, httpx.Client(base_url=at) as client:
        assert UNSAFE in ask(client)["responses"]


def test_candidates_of_the_caller(server):
    _, up = server([])
    with up as at, httpx.Client(base_url=at) as client:
        assert "no questions" in ask(client)["why"]
        given = {"user": "ann", "questions": [{"prompt": "p", "responses": ["a", "b"]}]}
        first = client.post("/v1/questions", json=given).json()
        assert sorted(first["responses"]) == ["a", "b"] and first["left"] == 1
        assert answer(client, first).json()["new"]
        assert client.post("/v1/questions", json=given).json()["why"] == "every pair was judged."
        for wrong in ([], [{"prompt": "p"}], [{"prompt": "p", "responses": ["a", "a"]}], [{"responses": ["a", "b"]}]):
            assert client.post("/v1/questions", json={"user": "ann", "questions": wrong}).status_code == 400
        many = [{"prompt": "p", "responses": [f"{n} {m}" for m in range(50)]} for n in range(21)]
        assert "at most 1000" in client.post("/v1/questions", json={"user": "a", "questions": many}).json()["message"]
        assert client.get("/v1/next-question").status_code == 400  # nobody is named


def test_skipped_questions_come_last(server):
    _, up = server([Question("p", ("a", "b", "c"))])
    with up as at, httpx.Client(base_url=at) as client:
        skipped = []
        for _ in range(3):
            skipped.append(ask(client, skip=[one["id"] for one in skipped]))
        assert len({pair(one) for one in skipped}) == 3
        assert ask(client, skip=[one["id"] for one in skipped])["id"]
        assert ask(client, skip=["nonsense", "a\0"])["id"]
        other = ask(client, "bob")
        assert ask(client, "ann", skip=[other["id"]])["id"]


def test_a_scorer_without_a_posterior_says_that_it_draws(tmp_path):
    from contract_cases import Normal
    from polypref.serve.remembered import Remembered

    world = simulate("two-tastes", users=8, judgements=20, judges=4).comparisons
    served = core(tmp_path / "s.db", own=Pooled().fit(world, encoder=Remembered(Normal()), seed=0))
    with running(served, questions=Questions(QUESTIONS)) as at, httpx.Client(base_url=at) as client:
        asked = [ask(client) for _ in range(8)]
        assert {one["method"] for one in asked} == {"random"} and "population" in asked[0]["why"]
        assert len({pair(one) for one in asked}) > 2


def test_paused_people_are_asked_at_random(server):
    _, up = server()
    with up as at, httpx.Client(base_url=at) as client:
        answer(client, ask(client))
        client.post("/v1/users/ann/pause")
        assert "paused" in ask(client)["why"]


def test_repeats_are_swapped_stated_and_counted(tmp_path):
    served = core(tmp_path / "s.db")
    many = [Question(f"p{n}", tuple(f"p{n} answer {m}" for m in range(8))) for n in range(6)]
    with running(served, questions=Questions(many, random.Random(1))) as at, httpx.Client(base_url=at) as client:
        shown, repeats, same = {}, 0, 0
        for turn in range(70):
            asked = ask(client)
            chosen = turn % 2
            answer(client, asked, chosen)
            if asked["method"] == "repeat":
                first, before = shown[pair(asked)]
                assert asked["responses"] == first[::-1]
                repeats += 1
                same += asked["responses"][chosen] == before
            else:
                shown[pair(asked)] = asked["responses"], asked["responses"][chosen]
        assert client.get("/v1/users/ann").json()["consistency"] == {"repeats": repeats, "same": same}
        assert 2 <= repeats <= 15, f"expected about {REPEATS * 70:.0f}"
        assert 0 < same < repeats


def test_consistency_by_hand():
    def stored(seq, chosen, rejected, kind="pair", again=False):
        context = {"repeat": True} if again else {}
        return Stored(
            seq, 0.0, Judgement(id=str(seq), kind=kind, prompt="p", chosen=chosen, rejected=rejected, context=context)
        )

    rows = [
        stored(1, "a", "b"),
        stored(2, "c", "d", "tie"),
        stored(3, "e", "f"),
        stored(4, "a", "b", again=True),  # the same
        stored(5, "d", "c", "tie", again=True),  # a tie has no sides
        stored(6, "f", "e", again=True),  # the opposite
        stored(7, "x", "y", again=True),  # the first one was taken back
        stored(8, "a", "c"),
    ]
    assert consistency(rows) == {"repeats": 3, "same": 2}
    assert consistency([]) == {"repeats": 0, "same": 0}


def test_the_slate_in_a_person_s_order_and_what_is_held_back(tmp_path):
    slate = Question("s", ("one", f"{UNSAFE} two", "three"), slate=True)
    served = core(tmp_path / "s.db", bounded=True)
    with running(served, questions=Questions([*QUESTIONS, slate])) as at, httpx.Client(base_url=at) as client:
        found = client.get("/u/ann/v1/slate")
        assert UNSAFE not in found.text
        body = found.json()
        assert body["held_back"] == [{"index": 1, "why": "its safety score is -1.00; 0.00 is needed, whoever asks."}]
        assert {one["text"] for one in body["results"]} == {"one", "three"}
        ranked = client.post("/u/ann/rerank", json={"query": "s", "documents": list(slate.responses)}).json()
        assert [one["index"] for one in ranked["results"]] == [one["index"] for one in body["results"]]
        while (asked := ask(client))["id"]:  # the slate is only looked at
            assert asked["prompt"] != "s"
            answer(client, asked)
    empty = core(tmp_path / "e.db")
    with running(empty) as at:
        assert httpx.get(f"{at}/v1/slate").json()["results"] == []


def test_no_more_is_shown_at_once_than_the_bounds_allow(tmp_path):
    served = core(tmp_path / "s.db", bounded=True)
    object.__setattr__(served.bounded, "limits", Limits(most_candidates=3))
    with running(served, questions=Questions(QUESTIONS)) as at, httpx.Client(base_url=at) as client:
        assert len(client.get("/u/ann/v1/slate").json()["results"]) == 3 < len(QUESTIONS[0].responses)
        assert ask(client)["id"]
        object.__setattr__(served.bounded, "limits", Limits(most_candidates=1))
        refused = client.get("/u/ann/v1/next-question")
        assert refused.status_code == 400 and "the bounds allow 1" in refused.json()["message"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no questions"),
        ("nonsense", "cannot be read as questions"),
        ('{"prompt": "p", "responses": ["a", "b"]}\n{"prompt": "p",}', "line 2 of .* cannot be read"),
        ('{"responses": ["a", "b"]}', "line 1"),
        ('\n{"prompt": "p", "responses": ["a"]}', "line 2"),
        ('{"prompt": "p", "responses": "ab"}', "no list of texts"),
        ('{"prompt": "p", "responses": ["a", "b"], "slates": true}', "'slates'"),
        ('{"prompt": "p", "responses": ["a", "b"], "slate": 1}', "true or false"),
        ('{"prompt": "p\\u0000", "responses": ["a", "b"]}', "line 1"),
        (json.dumps({"prompt": "p", "responses": [str(n) for n in range(51)]}), "2 to 50"),
        ("\n".join([json.dumps({"prompt": "p", "responses": [str(n) for n in range(50)]})] * 82), "100,450 pairs"),
    ],
)
def test_files_that_hold_no_questions(tmp_path, text, told):
    (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises(SettingsError, match=told):
        read(tmp_path / "q.jsonl")
    with pytest.raises(SettingsError, match="cannot be read"):
        read(tmp_path / "absent.jsonl")


def test_a_file_of_questions(tmp_path):
    lines = [{"prompt": "p", "responses": ["a", "b", "a"]}, {"prompt": "q", "responses": ["c", "d"], "slate": True}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read(tmp_path / "q.jsonl") == (Question("p", ("a", "b")), Question("q", ("c", "d"), True))
