"""``/v1/chat/completions`` for OpenAI's clients: the upstream writes candidates, the one that the person likes best is
returned.

The answer's ``id`` names it for ``/v1/feedback``, with all candidates; ``candidate`` of each choice is its number among
them. Nothing is sent before all candidates were judged: with ``stream`` the best one is sent in pieces afterwards. If
the bounds hold back everything, the answer is a refusal with ``finish_reason: "content_filter"``. Fields that would
return what no bounds have judged are refused; other fields go to the upstream as they are.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from polypref.errors import InputError
from polypref.serve.core import Answer
from polypref.serve.dialects.conversation import prompt_of
from polypref.serve.dialects.rerank import about
from polypref.serve.dialects.upstream import MOST_CANDIDATES, Candidate, NoUpstream, Reply
from polypref.serve.who.requests import NamesUser, person_of, unless_left

PIECE = 48  # characters of a streamed piece
REFUSAL = "No candidate answer is within the bounds in force."
SPARE = ("polypref", "polypref@")  # models that stand for the upstream's own
OWN = ("n", "stream", "stream_options", "category", "model", *NamesUser.model_fields)  # not sent to the upstream
REFUSED = {
    "tools": "a call of a tool has no text that could be judged",
    "functions": "a call of a function has no text that could be judged",
    "logprobs": "they hold words that no bounds have judged",
    "top_logprobs": "they hold words that no bounds have judged",
    "audio": "no bounds can judge a sound",
}


class StreamOptions(BaseModel):
    """``include_usage``: end a stream with the tokens used."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = None


class Chat(NamesUser):
    """The body of a request; fields that are not named here go to the upstream as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    messages: list[dict[str, Any]] = Field(min_length=1)
    model: str | None = None
    n: int | None = Field(None, ge=1, le=MOST_CANDIDATES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    category: str = ""

    def sent(self, model: str) -> dict[str, Any]:
        """The upstream's request, for its ``model`` if one is given. Raises InputError for what cannot be judged."""
        more = self.model_extra or {}
        for name, why in REFUSED.items():
            if more.get(name):
                raise InputError(f"{name}: {why}. Leave it out, or ask the upstream itself.")
        if "audio" in (more.get("modalities") or []):
            raise InputError(f"modalities: {REFUSED['audio']}. Ask for text alone, or ask the upstream itself.")
        asked = model or self.model or ""
        if not asked or asked == SPARE[0] or asked.startswith(SPARE[1]):
            raise InputError(
                "model names none of the upstream's; name one, or start the server with --upstream URL#model."
            )
        kept = {name: value for name, value in more.items() if name not in REFUSED}
        return {**kept, "messages": self.messages, "model": asked, "stream": False}  # some stream if it is not said


def choices_of(answer: Answer, reply: Reply, most: int) -> list[tuple[int | None, Candidate]]:
    """The best candidates and their numbers; a refusal without a number if the bounds hold back all."""
    best: list[tuple[int | None, Candidate]] = [(at, reply.candidates[at]) for at in answer.order[:most]]
    return best or [(None, Candidate(REFUSAL, "content_filter", declines=True))]


def _message(one: Candidate) -> dict[str, Any]:
    """Content and refusal of a message, in OpenAI's form."""
    return {"content": None if one.declines else one.text, "refusal": one.text if one.declines else None}


def rendered(head: dict[str, Any], choices: list[tuple[int | None, Candidate]], reply: Reply) -> dict[str, Any]:
    """The answer as one object."""
    listed = [
        {
            "index": index,
            "message": {"role": "assistant", **_message(one)},
            "finish_reason": one.finish,
            "logprobs": None,
            "candidate": number,
        }
        for index, (number, one) in enumerate(choices)
    ]
    return {**head, "object": "chat.completion", "choices": listed, "usage": reply.usage}


def pieces(
    head: dict[str, Any], choices: list[tuple[int | None, Candidate]], reply: Reply, usage: bool
) -> Iterator[dict[str, Any]]:
    """The answer as the objects of a stream, one choice after the other."""
    head = {**head, "object": "chat.completion.chunk"}
    for index, (number, one) in enumerate(choices):

        def piece(delta: dict[str, Any], finish: str | None = None, *, at: int = index, of: int | None = number) -> Any:
            choice = {"index": at, "delta": delta, "finish_reason": finish, "logprobs": None, "candidate": of}
            return {**head, "choices": [choice]}

        field = "refusal" if one.declines else "content"
        yield piece({"role": "assistant", field: ""})
        for at in range(0, len(one.text), PIECE):
            yield piece({field: one.text[at : at + PIECE]})
        yield piece({}, one.finish)
    if usage:
        yield {**head, "choices": [], "usage": reply.usage}


async def events(objects: Iterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Objects as server-sent events, ended as OpenAI ends them."""
    for one in objects:
        yield f"data: {json.dumps(one)}\n\n"
    yield "data: [DONE]\n\n"


def routes(app: FastAPI) -> None:
    """Add the route of chat clients."""

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: Chat) -> Any:
        begun, person, core, upstream = (
            time.perf_counter(),
            person_of(request, body),
            app.state.core,
            app.state.upstream,
        )
        if upstream is None:
            raise NoUpstream("this server writes no answers; start it with --upstream URL, or send texts to /rerank.")
        prompt, sent, wanted = prompt_of(body.messages), body.sent(upstream.model), body.n or 1
        allowed = core.most_candidates(person)
        if wanted > allowed:
            raise InputError(f"n is {wanted}, and the bounds allow {allowed} candidates.")
        many = min(max(upstream.candidates, wanted), allowed)
        reply = await unless_left(request, upstream.ask(sent, many))
        texts = [one.text for one in reply.candidates]
        answer = await core.rank(person, prompt, texts, "chat", body.category)
        app.state.metrics.answered("chat", answer, time.perf_counter() - begun)
        choices = choices_of(answer, reply, wanted)
        model = reply.model or sent["model"]
        counts = {"asked": many, "given": len(texts), "different": reply.different}
        head = {
            "id": answer.request,
            "created": int(time.time()),
            "model": model,
            "candidates": counts,
            **about(answer),
        }
        named = {"X-Request-Id": answer.request}
        if not body.stream:
            return JSONResponse(rendered(head, choices, reply), headers=named)
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        named |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(pieces(head, choices, reply, usage)), 200, named, "text/event-stream")
