"""Chat completions with OpenAI's own client: the best of the candidates for the person, never an ungated one."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from polypref.bounds.gate import Limits
from polypref.serve.dialects.conversation import prompt_of
from polypref.serve.dialects.upstream_http import HttpUpstream
from polypref.serve.questions import Question, Questions
from polypref.serve.who.person import Keys
from serve_cases import PROMPT, TEXTS, UNSAFE, core, running, scorer
from serve_upstream import ASK, USAGE, best, client, message, offers, serving, upstream

MIXED = [f"first {UNSAFE}", TEXTS[2], UNSAFE, TEXTS[4]]


# --- who asks


def test_every_way_of_naming_a_person_gives_their_best_candidate(tmp_path):
    known = scorer().users.ids[0]
    others = [user for user in scorer().users.ids if best(TEXTS, user)[0] != best(TEXTS, known)[0]]
    (tmp_path / "keys.toml").write_text(
        f'[[key]]\nkey = "k"\ntenant = "t"\n[[key]]\nkey = "own"\ntenant = "t"\nuser = "{known}"\n'
    )
    with serving(tmp_path) as (asked, at, _):
        ways = [
            (client(at, f"/u/{known}"), {}),
            (client(at), {"user": known}),
            (client(at), {"safety_identifier": known}),
            (client(at, default_headers={"X-User": known}), {}),
            (client(at), {"model": f"polypref@{known}"}),
        ]
        for by, more in ways:
            found = by.chat.completions.create(**ASK | more)
            assert found.choices[0].message.content == best(TEXTS, known)[0]
            assert found.personalization["source"] == "personal"
        assert others
        found = client(at).chat.completions.create(**ASK, user=others[0])
        assert found.choices[0].message.content == best(TEXTS, others[0])[0] != best(TEXTS, known)[0]
        stranger = client(at).chat.completions.create(**ASK, user="nobody-knows-me")
        assert stranger.choices[0].message.content == best(TEXTS, None)[0]
        assert stranger.personalization["source"] == "population"
        with pytest.raises(openai.PermissionDeniedError):
            client(at, "/u/ann").chat.completions.create(**ASK, user="ben")
        for body in asked.asked:  # the upstream is not told who asks
            assert body == {"messages": ASK["messages"], "model": "up-model", "n": len(TEXTS), "stream": False}
    (tmp_path / "keyed").mkdir()
    with serving(tmp_path / "keyed", keys=Keys.read(tmp_path / "keys.toml")) as (asked, at, served):
        client(at, api_key="own").chat.completions.create(**ASK)
        assert [one.route for one in offers(served, known, "t")] == ["chat"]
        with pytest.raises(openai.PermissionDeniedError):
            client(at, api_key="own").chat.completions.create(**ASK, user="ben")
        with pytest.raises(openai.AuthenticationError):
            client(at, api_key="wrong").chat.completions.create(**ASK)
        assert len(asked.asked) == 1 and "Authorization" not in asked.headers[0]  # the client's key is not passed on


# --- what comes back


def test_the_answer_has_openais_shape_and_names_its_candidates(tmp_path):
    with serving(tmp_path) as (_, at, _):
        found = client(at).chat.completions.create(**ASK, user="ann", n=3)
        assert [one.message.content for one in found.choices] == best(TEXTS, None)[:3]
        assert [one.index for one in found.choices] == [0, 1, 2]
        assert [TEXTS[one.candidate] for one in found.choices] == best(TEXTS, None)[:3]
        assert {one.finish_reason for one in found.choices} == {"stop"}
        assert found.object == "chat.completion" and found.model == "up-model" and found._request_id == found.id
        assert found.usage.model_dump(exclude_none=True) == USAGE
        assert found.bounds == {"in_force": False}


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_is_the_same_answer_in_pieces(tmp_path, usage):
    texts = [f"{text} " * 20 + "\n\u00e9\U0001f600" for text in TEXTS[:3]]
    with serving(tmp_path, texts) as (asked, at, _):
        options = {"stream_options": {"include_usage": True}} if usage else {}
        chunks = list(client(at).chat.completions.create(**ASK, user="ann", n=2, stream=True, **options))
        told = [
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices and c.choices[0].index == of)
            for of in (0, 1)
        ]
        assert told == best(texts, None)[:2] and len(chunks) > 10
        assert len({one.id for one in chunks}) == 1 and {one.object for one in chunks} == {"chat.completion.chunk"}
        assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"] * 2
        assert (chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 12) == usage
        assert asked.asked[0]["stream"] is False and "stream_options" not in asked.asked[0]
        raw = httpx.post(f"{at}/v1/chat/completions", json=ASK | {"stream": True}, timeout=20)
        assert raw.headers["content-type"].startswith("text/event-stream") and raw.text.endswith("data: [DONE]\n\n")


def test_async_clients_at_once_get_their_own(tmp_path):
    users = scorer().users.ids[:6]

    async def all_of_them(at):
        async with AsyncOpenAI(api_key="k", base_url=f"{at}/v1", max_retries=0) as many:
            whole = [many.chat.completions.create(**ASK, user=user) for user in users]
            streams = [many.chat.completions.create(**ASK, user=user, stream=True) for user in users]
            told = [one.choices[0].message.content for one in await asyncio.gather(*whole)]
            for stream in await asyncio.gather(*streams):
                told.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
            return told

    with serving(tmp_path) as (_, at, _):
        assert asyncio.run(all_of_them(at)) == [best(TEXTS, user)[0] for user in users] * 2


def test_a_conversation_is_ranked_and_judged_as_one(tmp_path):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "now?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "1", "content": "nothing found"},
    ]
    prompt = prompt_of(messages)
    assert [one["content"] for one in prompt] == ["Be brief.", "What\nnow?", "nothing found"]
    with serving(tmp_path, bounded=True) as (asked, at, served):
        found = client(at).chat.completions.create(model="m", messages=messages, user="ann")
        assert found.choices[0].message.content == best(TEXTS, None, prompt)[0]
        assert asked.asked[0]["messages"] == messages
        (kept,) = offers(served, "ann")
        assert kept.prompt == prompt and kept.texts == tuple(TEXTS) and kept.request == found.id
        worst = TEXTS.index(best(TEXTS, None, prompt)[-1])
        top = found.choices[0].candidate
        for at_ in range(6):
            told = {"user": "ann", "request": found.id, "chosen": worst, "rejected": top, "id": str(at_)}
            assert httpx.post(f"{at}/v1/feedback", json=told).json()["new"]
        again = client(at).chat.completions.create(model="m", messages=messages, user="ann")
        order = offers(served, "ann")
        places = next(one.order for one in order if one.request == again.id)
        assert again.personalization == found.personalization | {"source": "personal", "judgements": 6}
        assert places.index(worst) < places.index(top)
        own = {"user": "ann", "prompt": messages, "chosen": "a text", "thumb": "up", "id": "own"}
        assert httpx.post(f"{at}/v1/feedback", json=own).json()["new"]
        thumb = {"user": "ann", "request": found.id, "chosen": found.choices[0].message.content, "thumb": "down"}
        assert httpx.post(f"{at}/v1/feedback", json=thumb).json()["new"]
        exported = httpx.get(f"{at}/v1/users/ann/export").json()["judgements"]
        assert [one["prompt"] for one in exported] == [list(prompt)] * 8
        assert served.store.held(["nothing found"]) == {"nothing found"}
        left = httpx.delete(f"{at}/v1/users/ann").json()
        assert left["residue"] == [] and left["rows"]["answers"] == 2
        assert served.store.held(["nothing found"]) == set()


def test_a_question_is_the_same_one_in_a_chat_and_for_a_rerank_client(tmp_path):
    with serving(tmp_path) as (_, at, served):
        found = client(at).chat.completions.create(**ASK, user="ann")
        ranked = httpx.post(f"{at}/rerank", json={"query": PROMPT, "documents": TEXTS, "user": "ann"}).json()
        assert ranked["results"][0]["index"] == found.choices[0].candidate
        assert {one.prompt for one in offers(served, "ann")} == {PROMPT}


# --- within the bounds


def test_a_gate_that_blocks_some_and_one_that_blocks_all(tmp_path):
    with serving(tmp_path, MIXED, bounded=True) as (asked, at, served):
        found = client(at).chat.completions.create(**ASK, user="ann", n=4)
        assert [one.message.content for one in found.choices] == best([MIXED[1], MIXED[3]], None)
        assert found.bounds["blocked"] == [0, 2] and UNSAFE not in found.model_dump_json()
        asked.texts, asked.next = MIXED[::2], 0
        for stream in (False, True):
            nothing = client(at).chat.completions.create(**ASK, user="ann", stream=stream)
            if stream:
                chunks = list(nothing)
                refusal = "".join(one.choices[0].delta.refusal or "" for one in chunks)
                assert chunks[-1].choices[0].finish_reason == "content_filter"
                assert all(one.choices[0].delta.content is None for one in chunks)
            else:
                refusal = nothing.choices[0].message.refusal
                assert nothing.choices[0].finish_reason == "content_filter"
                assert nothing.choices[0].message.content is None and nothing.bounds["abstained"]
            assert "within the bounds" in refusal and UNSAFE not in refusal
        kept = offers(served, "ann")  # what was blocked can be looked up by operators
        assert sorted(len(one.blocked) for one in kept) == [2, 4, 4]
        assert all((reward is None) == (at in one.blocked) for one in kept for at, reward in enumerate(one.rewards))
        told = {"user": "ann", "request": found.id, "chosen": 1, "rejected": 0}
        assert "held back" in httpx.post(f"{at}/v1/feedback", json=told).json()["message"]  # else it could be exported
        assert httpx.post(f"{at}/v1/feedback", json=told | {"rejected": 3}).json()["new"]
        assert httpx.delete(f"{at}/v1/users/ann").json()["rows"]["answers"] == 3
        metrics = httpx.get(f"{at}/metrics").text
        assert 'polypref_abstentions_total{route="chat"} 2.0' in metrics


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gated"), bounded=True) as (asked, at, _):
        yield asked, httpx.Client(base_url=at)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*MIXED, f"{UNSAFE}, please", "x"]), min_size=1, max_size=6),
    st.sampled_from([None, "ann", scorer().users.ids[0]]),
    st.integers(1, 6),
    st.booleans(),
)
def test_nobody_gets_a_blocked_text(gated, texts, user, n, stream):
    asked, by = gated
    asked.texts, asked.next = texts, 0
    body = ASK | {"user": user, "n": n, "stream": stream}
    chat = by.post("/v1/chat/completions", json=body)
    assert chat.status_code == 200 and UNSAFE not in chat.text
    assert ("content_filter" in chat.text) == all(UNSAFE in text for text in texts)
    options = [{"value": f"{at}", "description": text} for at, text in enumerate([*texts, UNSAFE])]
    question = {"type": "choice", "instructions": "", "choices": options}
    found = by.post("/v1/decisions", json={"input": PROMPT, "questions": [question], "user": user}).json()["answers"][0]
    if all(UNSAFE in text for text in texts):
        assert found["type"] == "refusal" and "probabilities" not in found
    else:
        assert UNSAFE not in options[int(found["choice"])]["description"]
        for one, option in zip(found["probabilities"], options, strict=True):
            assert (one["probability"] == 0.0) == (UNSAFE in option["description"])


def test_what_no_bounds_judge_is_refused_or_left_out(tmp_path):
    call = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": UNSAFE, "arguments": "{}"}}]}
    thinks = message(TEXTS[1], reasoning_content=UNSAFE, annotations=[UNSAFE]) | {"logprobs": {"content": [UNSAFE]}}
    choices = [
        message(None, **call),
        message("", **call),
        message(TEXTS[0], **call),
        thinks,
        message(None, refusal="I cannot."),
    ]
    with serving(tmp_path, bounded=True, choices=choices) as (asked, at, _):
        found = client(at).chat.completions.create(**ASK, user="ann", n=6)
        assert UNSAFE not in found.model_dump_json()
        assert {(one.message.content, one.message.refusal) for one in found.choices} == {
            (TEXTS[1], None),
            (None, "I cannot."),
        }
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        image = {"type": "image_url", "image_url": {"url": "data:,"}}
        wrong = [
            ({"tools": [tool]}, "tools: a call of a tool has no text"),
            ({"functions": [{"name": "f"}]}, "functions"),
            ({"logprobs": True}, "logprobs"),
            ({"top_logprobs": 2}, "top_logprobs"),
            ({"modalities": ["text", "audio"]}, "modalities"),
            ({"messages": [{"role": "user", "content": [image]}]}, "only texts can be ranked"),
            ({"messages": [{"role": "user", "content": 7}]}, "expected a text or a list"),
            ({"messages": [{"role": "user", "content": "a\0"}]}, "NUL"),
            ({"messages": [{"content": "a"}]}, "no role"),
            ({"messages": [{"role": "user", "content": ""}]}, "no text"),
            ({"messages": [{"role": "user", "content": "x" * 1_000_001}]}, "shorter"),
            ({"messages": []}, "messages"),
            ({"n": 65}, "n:"),
            ({"n": 0}, "n:"),
        ]
        before = len(asked.asked)
        for body, says in wrong:
            found = httpx.post(f"{at}/v1/chat/completions", json=ASK | body)
            assert found.status_code == 400 and says in found.json()["error"]["message"], found.text
            assert "\n" not in found.json()["message"]
        assert len(asked.asked) == before  # nobody pays for what is refused
        harmless = {"tools": [], "logprobs": False, "temperature": 0.5, "top_k": 3, "response_format": {"type": "text"}}
        assert httpx.post(f"{at}/v1/chat/completions", json=ASK | harmless).status_code == 200
        assert asked.asked[-1].items() >= {"temperature": 0.5, "top_k": 3, "response_format": {"type": "text"}}.items()


def test_no_more_candidates_are_asked_for_than_the_bounds_allow(tmp_path):
    with serving(tmp_path, bounded=True, candidates=5) as (asked, at, served):
        bounds = served.bounded
        object.__setattr__(bounds, "limits", Limits(most_candidates=3))
        object.__setattr__(bounds, "user_limits", {"ann": Limits(most_candidates=2)})
        for user, many in (("ben", 3), ("ann", 2)):
            client(at).chat.completions.create(**ASK, user=user)
            assert asked.asked[-1]["n"] == many
            with pytest.raises(openai.BadRequestError, match="bounds allow"):
                client(at).chat.completions.create(**ASK, user=user, n=many + 1)


def test_a_judged_conversation_is_no_question_of_the_page(tmp_path):
    """Questions are recognised by their prompts, which are texts; judgements and answers may be of conversations."""
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Now?"}]
    with upstream(TEXTS[:2]) as (_, url):
        questions = Questions([Question("p", ("a", "b"))])
        with running(core(tmp_path / "s.db"), questions=questions, upstream=HttpUpstream(f"{url}#m", 2)) as at:
            found = client(at).chat.completions.create(model="m", messages=chat, user="ann")
            told = {"user": "ann", "request": found.id, "chosen": 0, "rejected": 1}
            assert httpx.post(f"{at}/v1/feedback", json=told).json()["new"]
            asked = httpx.get(f"{at}/u/ann/v1/next-question", params={"skip": [found.id]})
            assert asked.status_code == 200 and sorted(asked.json()["responses"]) == ["a", "b"]
            assert httpx.get(f"{at}/u/ann/v1/users/me").json()["judgements"] == 1
