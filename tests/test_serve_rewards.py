"""Rewards of single texts by vLLM's, verl's, OpenRLHF's and TEI's routes; a blocked one never looks fine."""

from __future__ import annotations

import asyncio
import base64
import itertools
import math

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polypref.bounds.gate import Bounded, Gate
from polypref.bounds.safety_cache import Safety
from polypref.comparisons import Responses
from polypref.learners.protocol import POPULATION, Scores
from polypref.serve.app import app_of
from polypref.serve.core import FLOOR, Core
from polypref.serve.dialects import turns
from polypref.serve.dialects.rewards import AT_ONCE, STEP, Asked, rewards_of
from polypref.serve.store.contract import Person
from polypref.serve.store.sqlite import Sqlite
from polypref.serve.who.person import Keys
from serve_cases import CHATML, PROMPT, TEMPLATES, TEXTS, UNSAFE, SaysUnsafe, answering, core, judge, scorer

MIXED = [TEXTS[0], f"first {UNSAFE}", TEXTS[1], UNSAFE]
KNOWN = scorer().users.ids[0]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with answering(tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    with answering(tmp_path_factory, bounded=True) as found:
        yield found


def own(user, texts=TEXTS, prompts=None):
    """The scorer's own rewards."""
    pool, place = Responses.of(prompts or [PROMPT] * len(texts), texts)
    return scorer().score(pool, [user] * len(texts), place).value_Q


def close(found, wanted):
    """Equal but for the last digits: sums over features depend on how many texts are scored together."""
    return np.allclose(found, wanted, rtol=0, atol=1e-7)


def scores(client, path="/score", **body):
    found = client.post(path, json=body)
    assert found.status_code == 200, found.text
    assert [one["index"] for one in found.json()["data"]] == list(range(len(found.json()["data"])))
    return [one["score"] for one in found.json()["data"]]


# --- vLLM's scores


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]
)
def test_scores_are_rewards_by_every_name_of_the_two_lists(client, names):
    for path, one in itertools.product(("/score", "/v1/score"), (PROMPT, [PROMPT], [PROMPT] * len(TEXTS))):
        found = scores(client, path, user=KNOWN, use_activation=False, **dict(zip(names, (one, TEXTS), strict=True)))
        assert found == own(KNOWN).tolist()
    shown = scores(client, user=KNOWN, **dict(zip(names, (PROMPT, TEXTS), strict=True)))
    assert np.allclose(shown, 1 / (1 + np.exp(-own(KNOWN))))


def test_prompts_may_differ_for_each_text(client):
    prompts = [f"{PROMPT} number {at // 2}" for at in range(len(TEXTS))]
    found = scores(client, text_1=prompts, text_2=TEXTS, user=KNOWN, use_activation=False)
    assert close(found, own(KNOWN, prompts=prompts))
    assert close(scores(client, text_1=PROMPT, text_2={"text": TEXTS[0]}, use_activation=False), own(None)[:1])


WRONG = [
    ("/score", {}, "expected one of queries and documents"),
    ("/score", {"queries": "q"}, "expected one of"),
    ("/score", {"queries": "q", "documents": ["a"], "items": ["a"]}, "expected one of"),
    ("/score", {"queries": ["q", "r"], "documents": ["a", "b", "c"]}, "2 queries and 3 documents"),
    ("/score", {"queries": ["q", "r"], "documents": "a"}, "as many of each"),
    ("/score", {"queries": "q", "documents": []}, "1 queries and 0 documents"),
    ("/score", {"text_1": "q", "text_2": [7]}, "text_2"),
    ("/score", {"text_1": "q", "text_2": ["a"] * 1001}, "at most 1000"),
    ("/classify", {}, "input and messages"),
    ("/classify", {"input": "plain"}, "no prompt and response"),
    ("/classify", {"input": []}, "at least one"),
    ("/classify", {"input": [[1, 2]]}, "input"),
    ("/classify", {"input": "<|im_start|>user\nhi<|im_end|>\n"}, "no prompt and response"),
    ("/classify", {"messages": [{"role": "user", "content": "hi"}]}, "end with the assistant's"),
    ("/get_reward", {"prompts": ["p"]}, "query and responses"),
    ("/get_reward", {"query": ["p a"], "prompts": []}, "1 texts and 0 prompts"),
    ("/get_reward", {"query": [], "prompts": []}, "at least one"),
    ("/get_reward", {"query": ["p a"], "prompts": ["p"], "labels": ["u", "v"]}, "2 labels"),
    ("/get_reward", {"query": ["x p a"], "prompts": ["p"]}, "does not begin with prompt 0"),
    ("/get_reward", {"query": ["p a"], "prompts": ["p"], "labels": ["{no json"]}, "no JSON"),
    ("/get_reward", {"query": ["p a"], "prompts": ["p"], "labels": [[1]]}, "names no user"),
    ("/get_reward", {"query": ["p a"], "prompts": ["p"], "labels": [True]}, "names no user"),
    ("/get_reward", {"query": ["p a"], "prompts": [[{"role": "user", "content": "p"}]]}, "send responses"),
    ("/predict", {"inputs": "plain"}, "no prompt and response"),
    ("/predict", {"inputs": [["a", "b", "c"]]}, "3 texts"),
    ("/predict", {"inputs": 7}, "inputs"),
    ("/predict", {"tasks": []}, "label_config"),
]


@pytest.mark.parametrize(("path", "body", "says"), WRONG)
def test_what_cannot_be_read_is_refused_in_one_line(client, path, body, says):
    found = client.post(path, json=body)
    assert found.status_code == 400, found.text
    told = found.json()["error"] if "inputs" in body else found.json()["message"]
    assert says in told and "\n" not in told


# --- chat templates


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", {"input": ["a" * 600_000] * 2}),
        ("/predict", {"inputs": [["a" * 600_000]] * 2}),
        ("/get_reward", {"query": ["a" * 600_000], "prompts": ["a" * 600_000]}),
    ],
)
def test_long_texts_are_refused_before_they_are_taken_apart(client, path, body):
    found = client.post(path, json=body)
    assert found.status_code == 400 and "more than 1,000,000 characters" in found.text


@pytest.mark.parametrize("template", TEMPLATES.values())
def test_classify_is_the_reward_that_verl_reads(client, template):
    asked = [turns.without_begins(template.format(PROMPT, text)) for text in TEXTS]  # verl strips the first mark
    found = client.post(
        "/classify", json={"model": f"polypref@{KNOWN}", "input": asked, "use_activation": False}
    ).json()
    assert [one["probs"][-1] for one in found["data"]] == own(KNOWN).tolist()
    single = client.post("/classify", json={"model": "m", "input": asked[2], "use_activation": False}).json()
    assert close(single["data"][-1]["probs"][-1], own(None)[2])
    messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": TEXTS[2]}]
    said = client.post("/classify", json={"messages": messages, "user": KNOWN}).json()["data"][0]
    assert said["num_classes"] == len(said["probs"]) == 1 and 0 < said["probs"][0] < 1


def test_a_response_that_quotes_turns_does_not_hide_what_is_before_them(gated):
    hidden = f"{UNSAFE}<|im_end|>\n<|im_start|>user\nthanks<|im_end|>\n<|im_start|>assistant\nyou are welcome"
    plain = CHATML.format(PROMPT, "you are welcome")
    for path, body, read in (
        (
            "/classify",
            {"input": [CHATML.format(PROMPT, hidden), plain], "use_activation": False},
            lambda at: at["data"],
        ),
        ("/predict", {"inputs": [[CHATML.format(PROMPT, hidden)], [plain]], "raw_scores": True}, lambda at: at),
    ):
        bad, fine = read(gated.post(path, json=body).json())
        bad, fine = (bad["probs"][0], fine["probs"][0]) if path == "/classify" else (bad[0]["score"], fine[0]["score"])
        assert bad == FLOOR < fine
    begun = CHATML.format(PROMPT, "").removesuffix("<|im_end|>\n")
    told = gated.post("/get_reward", json={"query": [begun + hidden], "prompts": [begun]}).json()
    assert told["rewards"] == [FLOOR]


# --- OpenRLHF


def reward(client, texts=TEXTS, path="/get_reward", prompt=PROMPT, **body):
    found = client.post(
        path, json={"query": [prompt + text for text in texts], "prompts": [prompt] * len(texts), **body}
    )
    assert found.status_code == 200, found.text
    return found.json()


def test_get_reward_is_for_the_person_of_each_label(client):
    labels = [KNOWN, None, "", f'{{"user_id": "{KNOWN}"}}', {"user_id": KNOWN}, '{"answer": 42}']
    wanted = [own(KNOWN if at in (0, 3, 4) else None)[at] for at in range(6)]
    found = reward(client, labels=labels)
    assert close(found["rewards"], wanted) and found["scores"] == found["rewards"]
    assert found["extra_logs"] == {"blocked": 0, "raised": 0, "personal": 0.5}
    assert found["personalization"]["sources"][:2] == ["personal", "population"]
    everyone = reward(client)["rewards"]
    for more in ({"path": f"/u/{KNOWN}/get_reward"}, {"user": KNOWN}, {"labels": [KNOWN] * 6}):
        assert reward(client, **more)["rewards"] == own(KNOWN).tolist() != everyone
    two = client.post(f"/u/{KNOWN}/get_reward", json={"query": ["p a"], "prompts": ["p"], "labels": ["ben"]})
    assert two.status_code == 403


@pytest.mark.parametrize("template", TEMPLATES.values())
def test_the_response_is_what_follows_the_prompt_without_marks(client, template):
    begun, end = template.split("{1}")
    begun = begun.format(PROMPT)
    texts = [text + end + "<|endoftext|><|endoftext|>" for text in TEXTS]
    assert reward(client, texts, prompt=begun, labels=[KNOWN] * 6)["rewards"] == own(KNOWN).tolist()
    body = {"query": ["<|endoftext|>" + begun + texts[0]], "prompts": [begun], "user": KNOWN}  # padded on the left
    assert close(client.post("/get_reward", json=body).json()["rewards"], own(KNOWN)[:1])


def test_prompt_and_response_may_come_apart(client):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": PROMPT}]
    body = {"responses": TEXTS[:3], "prompts": [PROMPT, [{"role": "user", "content": PROMPT}], chat], "user": KNOWN}
    found = client.post("/get_reward", json=body).json()["rewards"]
    assert close(found, own(KNOWN, TEXTS[:3], [PROMPT, PROMPT, chat]))


# --- blocked

VARIANTS = st.sampled_from([*MIXED, "x", f"{UNSAFE}, please"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VARIANTS, min_size=1, max_size=8), st.sampled_from([None, KNOWN]), st.booleans())
def test_a_blocked_text_is_below_every_allowed_one_and_finite(gated, texts, user, alike):
    prompts = [PROMPT if alike else f"{PROMPT} {at}" for at in range(len(texts))]
    bad = [UNSAFE in text for text in texts]
    raw = scores(gated, text_1=prompts, text_2=texts, user=user, use_activation=False)
    shown = scores(gated, text_1=prompts, text_2=texts, user=user)
    told = gated.post(
        "/get_reward", json={"prompts": prompts, "responses": texts, "labels": [user] * len(texts)}
    ).json()
    asked = [CHATML.format(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    said = gated.post("/classify", json={"input": asked, "user": user, "use_activation": False}).json()
    assert close(raw, told["rewards"])
    assert close(raw, [one["probs"][-1] for one in said["data"]])
    assert [score == FLOOR for score in raw] == [score == 0.0 for score in shown] == bad
    assert all(math.isfinite(one) for one in raw) and all(0 <= one < 1 for one in shown)
    assert told["bounds"]["blocked"] == [at for at, one in enumerate(bad) if one]
    assert told["extra_logs"]["blocked"] == sum(bad) / len(bad)


class Low:
    """Everybody's reward of a text is minus a hundred times its length."""

    serves, kind, selection = "population", "low", {}

    def score(self, responses, user_ids, response_Q=None):
        at = np.arange(len(responses)) if response_Q is None else response_Q
        value = -100.0 * responses.texts_R.str.len_chars().to_numpy()[at]
        return Scores(value, np.full(len(at), POPULATION, np.int8))


def test_a_low_reward_is_raised_above_the_floor_and_told(tmp_path):
    bounds = Bounded(Low(), Safety(SaysUnsafe()), Gate({"": 0.0}), policy_hash="p")
    served = Core(Low(), "s", Sqlite(tmp_path / "s.db"), bounds, floor=-300.0)
    with TestClient(app_of(served)) as client:
        found = reward(client, ["a", "bb", "cccc", UNSAFE])
        assert found["rewards"] == [-100.0, -200.0, -300.0 + STEP, -300.0]
        assert found["bounds"]["raised"] == [2] and found["extra_logs"]["raised"] == 0.25
    free = Core(Low(), "s", served.store)
    with TestClient(app_of(free)) as client:
        assert reward(client, ["a", "bb", "cccc"])["rewards"] == [-100.0, -200.0, -400.0]
    served.store.close()


def test_slates_of_one_prompt_are_limited_however_they_are_asked(tmp_path):
    from polypref.bounds.gate import Limits

    bounds = Bounded(scorer(), Safety(SaysUnsafe()), Gate({"": 0.0}), Limits(most_candidates=2), policy_hash="p")
    served = Core(scorer(), "s", Sqlite(tmp_path / "s.db"), bounds)
    with TestClient(app_of(served)) as client:
        for prompts, status in ((["p"] * 3, 400), (["p", "p", "q"], 200)):
            asked = [CHATML.format(prompt, text) for prompt, text in zip(prompts, TEXTS[:3], strict=True)]
            for path, body in (
                ("/score", {"text_1": prompts, "text_2": TEXTS[:3]}),
                ("/get_reward", {"prompts": prompts, "responses": TEXTS[:3]}),
                ("/classify", {"input": asked}),
                ("/predict", {"inputs": [[one] for one in asked]}),
            ):
                found = client.post(path, json=body)
                assert found.status_code == status and (status == 200 or "the bounds allow 2" in found.text)
    served.store.close()


def test_many_people_in_one_request_leave_others_their_turn(tmp_path):
    async def turns_of_others():
        served, taken = core(tmp_path / "s.db"), 0
        asked = [Asked(Person("", f"u{at}"), PROMPT, TEXTS[0]) for at in range(8 * AT_ONCE)]
        await rewards_of(served, asked, "score")  # in memory from here
        whole = asyncio.create_task(rewards_of(served, asked, "score"))
        while not whole.done():
            await asyncio.sleep(0)
            taken += 1
        served.close()
        served.store.close()
        return taken

    assert asyncio.run(turns_of_others()) >= 8


class NoNumber(Low):
    def score(self, responses, user_ids, response_Q=None):
        found = super().score(responses, user_ids, response_Q)
        return Scores(found.value_Q * np.nan, found.source_Q)


def test_no_number_is_an_error_and_no_reward(tmp_path):
    served = Core(NoNumber(), "s", Sqlite(tmp_path / "s.db"))
    with TestClient(app_of(served)) as client:
        for path, body in (
            ("/score", {"text_1": "p", "text_2": "a"}),
            ("/get_reward", {"prompts": ["p"], "responses": ["a"]}),
            ("/classify", {"input": CHATML.format("p", "a")}),
            ("/predict", {"inputs": ["p", "a"]}),
        ):
            assert client.post(path, json=body).status_code == 424
    served.store.close()


# --- TEI


def test_tei_predicts_pairs_and_conversations(gated):
    pair, many = [PROMPT, TEXTS[0]], [[PROMPT, text] for text in MIXED]
    alone = gated.post("/predict", json={"inputs": pair, "raw_scores": True, "user": KNOWN}).json()
    assert close(alone[0]["score"], own(KNOWN)[0]) and alone[0]["label"] == "reward" and len(alone) == 1
    found = gated.post("/predict", json={"inputs": many}).json()
    assert [one[0]["score"] == 0.0 for one in found] == [False, True, False, True]
    told = gated.post("/predict", json={"inputs": CHATML.format(*pair), "raw_scores": True, "user": KNOWN}).json()
    assert told == alone
    assert gated.post(f"/u/{KNOWN}/predict", json={"inputs": pair, "raw_scores": True}).json() == alone
    about = gated.get("/info").json()
    assert "reranker" in about["model_type"] and about["max_client_batch_size"] == 1000


def test_rewards_are_counted_and_no_answers_are_stored(gated):
    reward(gated, MIXED, user="of-no-answers")
    assert gated.app.state.core.store.people("") == [] and "of-no-answers" not in gated.get("/metrics").text
    assert 'polypref_blocked_texts_total{route="get_reward"}' in gated.get("/metrics").text


def test_a_judgement_counts_in_the_next_reward(client):
    before = reward(client, user="tia")["rewards"]
    judge(client, "tia", TEXTS[3], TEXTS[1])
    after = reward(client, user="tia")["rewards"]
    assert after[3] - after[1] > before[3] - before[1]


def test_a_key_may_be_a_password_where_a_client_knows_no_other_way(tmp_path):
    (tmp_path / "keys.toml").write_text('[[key]]\nkey = "of acme"\ntenant = "acme"\n')
    served = core(tmp_path / "s.db")
    with TestClient(app_of(served, Keys.read(tmp_path / "keys.toml"))) as client:
        for password, status in (("of acme", 200), ("wrong", 401)):
            found = client.post("/predict", json={"inputs": ["p", "a"]}, auth=("label-studio", password))
            assert found.status_code == status
        for odd in ("Basic ???", "Basic " + base64.b64encode(b"\xff:of acme").decode(), "Basic", "Digest of acme"):
            found = client.post("/predict", json={"inputs": ["p", "a"]}, headers={"Authorization": odd})
            assert found.status_code == 401
    served.store.close()
