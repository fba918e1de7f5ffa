"""``/score`` and ``/classify`` in vLLM's shapes; verl's discriminative reward model reads ``data[-1].probs[-1]``.

``/score``     ``queries`` and ``documents`` (or ``items``), ``data_1`` and ``data_2``, ``text_1`` and ``text_2``: one
               question to many texts, or as many of each
``/classify``  ``input``, whole conversations in a chat template, or ``messages``

Scores are the sigmoid of a reward, with exactly 0.0 for a blocked text; ``use_activation: false`` gives rewards, and a
blocked text the floor (``serve.rewards``). The scores of two prompts, or of two people, have no common scale.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict

from polypref.content import Message
from polypref.errors import InputError
from polypref.serve.dialects import turns
from polypref.serve.dialects.rerank import WORDS_PER_TOKEN, text_of
from polypref.serve.dialects.rewards import Asked, Given, rewards_of
from polypref.serve.store.contract import Person
from polypref.serve.who.requests import NamesUser, person_of

Texts = str | dict[str, Any] | list[str | dict[str, Any]]
PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class _Body(NamesUser):
    """What both routes read; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str | None = None
    category: str = ""
    use_activation: bool | None = None

    @property
    def raw(self) -> bool:
        """Whether rewards are asked for instead of scores between 0 and 1."""
        return self.use_activation is False


class Score(_Body):
    """The body of ``/score``: one of the four pairs of lists."""

    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Prompt and text of each score. Raises InputError for none of the pairs of lists, several, or odd lengths."""
        names = {name for pair in PAIRS for name in pair}
        given = {name for name in names if getattr(self, name) is not None}
        pair = next((pair for pair in PAIRS if given == set(pair)), None)
        if pair is None:
            raise InputError(f"expected one of {', '.join(' and '.join(pair) for pair in PAIRS)}.")
        asked, texts = (_listed(getattr(self, name), name) for name in pair)
        if not texts or len(asked) not in (1, len(texts)):
            raise InputError(f"{len(asked)} {pair[0]} and {len(texts)} {pair[1]}; expected one, or as many of each.")
        return list(zip(asked * len(texts) if len(asked) == 1 else asked, texts, strict=True))


class Classify(_Body):
    """The body of ``/classify``: ``input`` or ``messages``."""

    input: str | list[str] | None = None
    messages: list[dict[str, Any]] | None = None

    def asked(self, person: Person) -> list[Asked]:
        """Each text with its prompt. Raises InputError."""
        if (self.input is None) == (self.messages is None):
            raise InputError("expected one of input and messages.")
        if self.messages is not None:
            return [_last(person, self.messages)]
        assert self.input is not None
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not texts:
            raise InputError("there are no texts; give at least one.")
        turns.refuse_long(texts)
        return [conversation(person, text) for text in texts]


def conversation(person: Person, text: str) -> Asked:
    """The reward of the last response of a conversation in a chat template. Raises InputError."""
    found = turns.cut(turns.without_begins(text))
    return Asked(person, found.prompt, found.text, found.within)


def _last(person: Person, messages: Sequence[Message]) -> Asked:
    """The reward of the last message; the gate reads all messages of the assistant at the end.

    Raises InputError where the last message is not the assistant's.
    """
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or not isinstance(last.get("content"), str) or len(messages) < 2:
        raise InputError("expected messages that end with the assistant's, whose content is a text.")
    own = takewhile(lambda one: one.get("role") == "assistant", reversed(messages))
    within = "\n".join(str(one.get("content") or "") for one in reversed([*own]))
    return Asked(person, turns.plain(messages[:-1]), str(last["content"]), within)


def _listed(given: Texts, what: str) -> list[str]:
    return [text_of(one, what) for one in (given if isinstance(given, list) else [given])]


def rendered(body: _Body, data: list[dict[str, Any]], texts: Sequence[str], given: Sequence[Given]) -> dict[str, Any]:
    """The object that both routes answer with."""
    tokens = int(sum(len(text.split()) for text in texts) / WORDS_PER_TOKEN)
    return {
        "id": uuid.uuid4().hex,
        "object": "list",
        "created": int(time.time()),
        "model": body.model or "polypref",
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        **about_each(given),
    }


def about_each(given: Sequence[Given]) -> dict[str, Any]:
    """Who answered for each text, and what the bounds did."""
    answer = given[0].answer
    bounds: dict[str, Any] = {"in_force": answer.policy is not None}
    if answer.policy is not None:
        bounds |= {
            "policy_hash": answer.policy,
            "blocked": [at for at, one in enumerate(given) if one.blocked],
            "raised": [at for at, one in enumerate(given) if one.raised],
        }
    return {
        "personalization": {"sources": [one.answer.source for one in given], "scorer": answer.scorer},
        "bounds": bounds,
    }


def routes(app: FastAPI) -> None:
    """Add the routes of vLLM's clients."""

    @app.post("/score")
    @app.post("/v1/score")
    async def score(request: Request, body: Score) -> Any:
        begun, person, pairs = time.perf_counter(), person_of(request, body), body.pairs
        asked = [Asked(person, prompt, text) for prompt, text in pairs]
        given = await rewards_of(app.state.core, asked, "score", body.category)
        app.state.metrics.rewarded("score", given, time.perf_counter() - begun)
        data = [
            {"index": at, "object": "score", "score": one.reward if body.raw else one.probability}
            for at, one in enumerate(given)
        ]
        return JSONResponse(rendered(body, data, [text for _, text in pairs], given))

    @app.post("/classify")
    async def classify(request: Request, body: Classify) -> Any:
        begun = time.perf_counter()
        asked = body.asked(person_of(request, body))
        given = await rewards_of(app.state.core, asked, "classify", body.category)
        app.state.metrics.rewarded("classify", given, time.perf_counter() - begun)
        data = [
            {
                "index": at,
                "label": "blocked" if one.blocked else "reward",
                "probs": [one.reward if body.raw else one.probability],
                "num_classes": 1,
            }
            for at, one in enumerate(given)
        ]
        return JSONResponse(rendered(body, data, [one.text for one in asked], given))
