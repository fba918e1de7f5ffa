"""Decisions with OpenAI's own client: probabilities from the person's rewards, refusals for what bounds hold back."""

from __future__ import annotations

import asyncio
import json
import math

import httpx
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Decision

from polypref.bounds.gate import Bounded, Gate
from polypref.bounds.safety_cache import Safety
from polypref.comparisons import Responses, from_columns
from polypref.learners.protocol import Scores, log_odds, resolved
from polypref.serve.core import Answer, Core
from polypref.serve.dialects.decisions import confidence
from polypref.serve.store.contract import Person
from polypref.serve.store.sqlite import Sqlite
from polypref.serve.who.person import Keys
from serve_cases import PROMPT, TEXTS, UNSAFE, SaysUnsafe, core, order, running, scorer

CHOICE = {
    "type": "choice",
    "name": "which",
    "instructions": "",
    "choices": [{"value": f"v{at}", "description": text} for at, text in enumerate(TEXTS)],
}


def rewards(texts, user, prompt=PROMPT):
    pool, place = Responses.of([prompt] * len(texts), texts)
    return scorer().score(pool, [user] * len(texts), place).value_Q


def pairs(best, others, user, prompt=PROMPT):
    n = len(others)
    return from_columns([user] * n, [prompt] * n, [best] * n, others)


def sure_rewards(texts, user, prompt=PROMPT):
    """Rewards, as near to each other as their standard errors ask."""
    value = rewards(texts, user, prompt)
    best = texts[int(np.argmax(value))]
    sd = scorer().margin_sd(pairs(best, [text for text in texts if text != best], user, prompt))
    return value / math.sqrt(1 + math.pi / 8 * np.mean(sd**2))


def client(at, path="", **more):
    return OpenAI(base_url=f"{at}{path}/v1", max_retries=0, **({"api_key": "k"} | more))


def asked(by, *questions, **more):
    found = by.decisions.create(**{"model": "polypref", "input": PROMPT, "questions": questions} | more)
    Decision.model_validate(found.model_dump())  # the client itself does not check
    return found.answers


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    with running(core(tmp_path_factory.mktemp("free") / "s.db")) as found:
        yield found


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    with running(core(tmp_path_factory.mktemp("gated") / "s.db", bounded=True)) as found:
        yield found


def test_a_choice_is_luces_share_of_the_persons_rewards(at):
    for user in (scorer().users.ids[0], scorer().users.ids[1], None):
        (found,) = asked(client(at), CHOICE, **({} if user is None else {"safety_identifier": user}))
        value = rewards(TEXTS, None) if user is None else sure_rewards(TEXTS, user)
        wanted = [1 / sum(math.exp(other - own) for other in value) for own in value]
        assert [one.probability for one in found.probabilities] == pytest.approx(wanted, abs=1e-12)
        assert [one.value for one in found.probabilities] == [f"v{one}" for one in range(len(TEXTS))]
        assert found.choice == f"v{int(np.argmax(value))}" and found.name == "which" and found.type == "choice"
        assert found.personalization["source"] == ("population" if user is None else "personal")
        assert found.confidence == pytest.approx(confidence(wanted), abs=1e-12) and found.confidence < 1


def test_two_options_are_bradley_and_terrys_and_a_predicate_is_a_choice_of_two(at):
    user = scorer().users.ids[0]
    statement = "Ann likes novels."
    both = {"type": "choice", "choices": [{"value": True}, {"value": False}], "instructions": statement}
    predicate, choice = asked(
        client(at), {"type": "predicate", "instructions": statement}, both, safety_identifier=user
    )
    yes, no = rewards(["true", "false"], user, f"{PROMPT}\n\n{statement}")
    said = log_odds(scorer(), pairs("true", ["false"], user, f"{PROMPT}\n\n{statement}")).value_Q[0]
    assert predicate.probability == pytest.approx(1 / (1 + math.exp(-said)), abs=1e-6)
    assert abs(said) < abs(yes - no)  # less sure than the rewards alone are
    assert [one.value for one in choice.probabilities] == [True, False] and choice.choice is bool(yes >= no)
    assert choice.probabilities[0].probability == predicate.probability and predicate.name is None


def test_a_score_is_the_mean_level_from_0(at):
    levels = [
        {"label": "short", "description": TEXTS[0]},
        {"label": "medium"},
        {"label": "long", "description": TEXTS[2]},
    ]
    question = {"type": "score", "levels": levels, "instructions": "How long?", "name": "length"}
    (found,) = asked(client(at), question, extra_body={"user": scorer().users.ids[2]})
    weight = np.exp(sure_rewards([TEXTS[0], "medium", TEXTS[2]], scorer().users.ids[2], f"{PROMPT}\n\nHow long?"))
    share = weight / weight.sum()
    assert found.score == pytest.approx(share @ [0, 1, 2], abs=1e-12)
    told = [(one.label, one.value) for one in found.probabilities]
    assert told == [("short", 0), ("medium", 1), ("long", 2)]
    assert [one.probability for one in found.probabilities] == pytest.approx(share.tolist(), abs=1e-12)


def test_confidence_is_how_concentrated_it_is():
    assert confidence([0.25] * 4) == pytest.approx(0.0) and confidence([0.5, 0.5, 0.0]) == pytest.approx(0.0)
    assert confidence([1.0]) == confidence([1.0, 0.0]) == 1.0
    assert confidence([0.9, 0.1]) == pytest.approx(1 - (-0.9 * math.log2(0.9) - 0.1 * math.log2(0.1)))


def test_only_what_is_blocked_has_the_probability_0():
    answer = Answer("r", (0, 1), (2,), (900.0, -900.0, -math.inf), "population", 0, "s", None)
    assert answer.probability[0] == 1.0 > answer.probability[1] > 0.0 == answer.probability[2]


def test_with_empty_instructions_it_is_the_order_for_rerank_clients(at):
    with httpx.Client(base_url=at) as plain:
        found = asked(client(at), CHOICE, safety_identifier=scorer().users.ids[0])[0]
        share = [one.probability for one in found.probabilities]
        assert sorted(range(len(share)), key=lambda one: -share[one]) == order(plain, user=scorer().users.ids[0])[0]


def test_messages_and_parts_are_read(at):
    input_ = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_json", "data": {"a": [1]}}]},
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": "What?"}, {"type": "refusal", "refusal": "No."}],
        },
    ]
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": 'Hi\n{"a": [1]}'},
        {"role": "assistant", "content": "What?\nNo."},
    ]
    (found,) = asked(client(at), CHOICE | {"instructions": [{"type": "input_text", "text": "Which?"}]}, input=input_)
    value = rewards(TEXTS, None, [*prompt, {"role": "user", "content": "Which?"}])
    assert found.choice == f"v{int(np.argmax(value))}"


def test_every_way_of_naming_a_person(at, tmp_path):
    known = scorer().users.ids[0]
    wanted = asked(client(at), CHOICE, safety_identifier=known)[0].probabilities
    assert wanted != asked(client(at), CHOICE)[0].probabilities
    for by, more in (
        (client(at, f"/u/{known}"), {}),
        (client(at), {"extra_body": {"user": known}}),
        (client(at, default_headers={"X-User": known}), {}),
        (client(at), {"model": f"polypref@{known}"}),
    ):
        assert asked(by, CHOICE, **more)[0].probabilities == wanted
    with pytest.raises(openai.PermissionDeniedError):
        asked(client(at, "/u/ann"), CHOICE, safety_identifier="ben")
    (tmp_path / "keys.toml").write_text('[[key]]\nkey = "own"\ntenant = "t"\nuser = "ann"\n')
    served = core(tmp_path / "s.db")
    with running(served, Keys.read(tmp_path / "keys.toml")) as keyed:
        request = asked(client(keyed, api_key="own"), CHOICE)[0].request
        told = {"request": request, "chosen": 1, "rejected": 0}
        judged = httpx.post(f"{keyed}/v1/feedback", json=told, headers={"Authorization": "Bearer own"})
        assert judged.json()["new"]
        assert served.store.judgements(Person("t", "ann"))[0].judgement.chosen == TEXTS[1]
        with pytest.raises(openai.AuthenticationError):
            asked(client(keyed, api_key="other"), CHOICE)


def test_judgements_of_a_predicate_teach_it(at):
    question = {"type": "predicate", "instructions": "Max wants long answers."}
    shares = []
    for turn in range(5):
        (found,) = asked(client(at), question, safety_identifier="max")
        shares.append(found.probability)
        told = {"user": "max", "request": found.request, "chosen": 0, "rejected": 1, "id": f"max{turn}"}
        assert httpx.post(f"{at}/v1/feedback", json=told).json()["new"]
    assert shares == sorted(shares) and shares[-1] > shares[0]


def test_async_and_many_questions(at):
    questions = [CHOICE | {"name": f"q{one}", "instructions": f"In mood {one}."} for one in range(40)]

    async def both():
        async with AsyncOpenAI(api_key="k", base_url=f"{at}/v1", max_retries=0) as by:
            users = scorer().users.ids[:2]
            asks = [
                by.decisions.create(model="m", input=PROMPT, questions=questions, safety_identifier=u) for u in users
            ]
            return await asyncio.gather(*asks)

    for found, user in zip(asyncio.run(both()), scorer().users.ids[:2], strict=True):
        assert [one.name for one in found.answers] == [f"q{one}" for one in range(40)]
        value = rewards(TEXTS, user, f"{PROMPT}\n\nIn mood 39.")
        assert found.answers[39].choice == f"v{int(np.argmax(value))}"
        assert found.model == "m" and found.usage.input_tokens == found.usage.total_tokens > 500
        assert "no estimates of what is true" in found.reading


def test_what_the_bounds_hold_back_is_never_chosen(gated):
    some = CHOICE | {"choices": [{"value": UNSAFE}, {"value": "good", "description": TEXTS[0]}, {"value": "fine"}]}
    none = CHOICE | {"name": "none", "choices": [{"value": "a", "description": UNSAFE}, {"value": UNSAFE}]}
    level = {"type": "score", "levels": [{"label": "l", "description": UNSAFE}, {"label": "m"}], "instructions": ""}
    found = asked(client(gated), some, none, level, {"type": "predicate", "instructions": ""}, safety_identifier="ann")
    assert found[0].choice in ("good", "fine") and found[0].probabilities[0].probability == 0.0
    assert sum(one.probability for one in found[0].probabilities) == pytest.approx(1)
    assert found[0].bounds["blocked"] == [0] and found[0].confidence < 1
    assert (found[1].type, found[1].name) == ("refusal", "none") and not hasattr(found[1], "choice")
    assert found[2].score == 1.0 and [one.probability for one in found[2].probabilities] == [0.0, 1.0]
    assert found[3].type == "predicate"


class NeverTrue(SaysUnsafe):
    """Of two answers it holds back one."""

    def score(self, responses, user_ids, response_Q=None):
        found = super().score(responses, user_ids, response_Q)
        _, at = resolved(responses, user_ids, response_Q)
        return Scores(np.where((responses.texts_R == "true").to_numpy()[at], -1.0, 1.0), found.source_Q)


def test_a_predicate_of_which_one_answer_is_held_back_is_refused(tmp_path):
    bounds = Bounded(scorer(), Safety(NeverTrue()), Gate({"": 0.0}), policy_hash="policy-2")
    both = {"type": "choice", "choices": [{"value": True}, {"value": False}], "instructions": "x"}
    with running(Core(scorer(), "scorer-1", Sqlite(tmp_path / "s.db"), bounds)) as at:
        predicate, choice = asked(client(at), {"type": "predicate", "instructions": "x"}, both)
        assert predicate.type == "refusal" and not hasattr(predicate, "probability")
        assert choice.choice is False and choice.confidence == 1.0  # the one that is left may be chosen


LEVELS = [{"label": "a"}, {"label": "b"}]
WRONG = [
    ({"questions": []}, "questions"),
    ({"questions": [CHOICE] * 401}, "questions"),
    ({"questions": [CHOICE | {"choices": [{"value": "a"}]}]}, "choices"),
    ({"questions": [CHOICE | {"choices": [{"value": 1}, {"value": 2}]}]}, "value"),
    ({"questions": [CHOICE | {"choices": [{"value": "a"}, {"value": "a"}]}]}, "twice"),
    ({"questions": [CHOICE | {"choices": [{"value": f"{at}"} for at in range(256)]}]}, "choices"),
    ({"questions": [CHOICE | {"choices": [{"value": f"{at}"} for at in range(255)]}] * 4}, "1020 options"),
    ({"questions": [CHOICE] * 20, "input": "x" * 60_000}, "1,000,000 characters"),
    ({"questions": [{"type": "score", "levels": LEVELS * 6, "instructions": ""}]}, "levels"),
    ({"questions": [{"type": "score", "levels": [LEVELS[0]] * 2, "instructions": ""}]}, "twice"),
    ({"questions": [{"type": "guess", "instructions": ""}]}, "predicate"),
    ({"questions": [{"type": "predicate"}]}, "instructions"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "", "call_id": "1"}]}, "function_call"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}, "input_image"),
    ({"input": []}, "no text"),
    ({"input": 7}, "input"),
    ({"input": "a\0"}, "NUL"),
    ({"questions": [CHOICE | {"choices": [{"value": "a\0"}, {"value": "b"}]}]}, "NUL"),
    ({"questions": [CHOICE | {"choices": [{"value": ""}, {"value": "\ud800"}]}]}, "UTF-8"),
]


@pytest.mark.parametrize(("body", "says"), WRONG)
def test_impossible_questions_are_refused_in_one_line(at, body, says):
    whole = json.dumps({"input": PROMPT, "questions": [CHOICE], "model": "m"} | body)
    found = httpx.post(f"{at}/v1/decisions", content=whole, headers={"Content-Type": "application/json"})
    assert found.status_code == 400 and says in found.json()["error"]["message"], found.text
    assert "\n" not in found.json()["message"]


def test_a_true_and_a_false_with_one_text_are_two_choices(at):
    both = CHOICE | {"choices": [{"value": True}, {"value": "true"}]}
    (found,) = asked(client(at), both)
    assert [one.value for one in found.probabilities] == [True, "true"]
    assert [one.probability for one in found.probabilities] == [0.5, 0.5]
