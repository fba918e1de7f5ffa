"""``/rerank`` for clients of Cohere (v1, v2), Jina, vLLM, LiteLLM, TEI and llama-stack, distinguished by the body.

``documents``  one object that Cohere, Jina, vLLM and LiteLLM read; blocked documents are left out, like those beyond
               ``top_n``
``texts``      TEI: a bare list, never shorter than asked, since its clients count; blocked texts last, at exactly 0.0
               (rewards of the others are then moved to 1 and above: only their differences have a meaning)
``items``      llama-stack: a bare list

Scores are between 0 and 1 (``Answer.relevance``); ``raw_scores``, or ``use_activation: false``, gives rewards.
"""

from __future__ import annotations

import math
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from polypref.errors import InputError
from polypref.serve.core import Answer
from polypref.serve.who.requests import NamesUser, person_of

WORDS_PER_TOKEN = 0.75  # an estimate: no tokenizer is asked


class Rerank(NamesUser):
    """The body of a request, of any of these clients; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]] | None = None
    texts: list[str] | None = None
    items: list[str | dict[str, Any]] | None = None
    model: str | None = None
    category: str = ""
    top_n: int | None = Field(None, ge=0)
    max_num_results: int | None = Field(None, ge=0)
    return_documents: bool | None = None
    return_text: bool = False
    raw_scores: bool = False
    use_activation: bool | None = None

    @property
    def tei(self) -> bool:
        """Whether a client of TEI asks."""
        return self.texts is not None

    @property
    def asked(self) -> list[str]:
        """The texts to rank. Raises InputError for none of the three lists, or several."""
        given = [one for one in (self.documents, self.texts, self.items) if one is not None]
        if len(given) != 1:
            raise InputError("expected one of documents, texts and items.")
        return [text_of(one, "document") for one in given[0]]

    @property
    def raw(self) -> bool:
        """Whether rewards are asked for instead of scores between 0 and 1."""
        return self.raw_scores or self.use_activation is False

    @property
    def most(self) -> int | None:
        """How many results are asked for; None: all."""
        return self.top_n or self.max_num_results or None


def text_of(value: str | dict[str, Any], what: str) -> str:
    """A text, or that of an object with ``text`` or ``content``. Raises InputError for none, and for two."""
    if isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("text", "content")):
        raise InputError(f"a {what} has text and content, of which only one could be judged; give one.")
    text = value if isinstance(value, str) else value.get("text", value.get("content"))
    if not isinstance(text, str):
        raise InputError(f"a {what} has no text; expected a text or an object with text.")
    return text


def rendered(body: Rerank, texts: list[str], answer: Answer) -> Any:
    """The answer in the format of the client that asked."""
    scores = answer.rewards if body.raw else answer.relevance
    if body.tei:
        if body.raw and answer.blocked and answer.order:  # its clients sort by score, and blocked texts have 0.0
            least = min(scores[at] for at in answer.order)
            scores = [score - least + 1.0 for score in scores]
        return [
            {"index": at, "score": scores[at] if math.isfinite(scores[at]) else 0.0}
            | ({"text": texts[at]} if body.return_text else {})
            for at in (*answer.order, *answer.blocked)
        ]
    results = [{"index": at, "relevance_score": scores[at]} for at in answer.order[: body.most]]
    if body.items is not None:
        return results
    if body.return_documents:
        results = [one | {"document": {"text": texts[one["index"]]}} for one in results]
    tokens = int(sum(len(text.split()) for text in texts) / WORDS_PER_TOKEN)
    return {
        "id": answer.request,
        "object": "rerank",
        "model": body.model or "polypref",
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1, "total_tokens": tokens},
            "tokens": {"input_tokens": tokens},
        },
        **about(answer),
    }


def about(answer: Answer) -> dict[str, Any]:
    """Who answered, and what the bounds did; in every answer that is an object."""
    bounds: dict[str, Any] = {"in_force": answer.policy is not None}
    if answer.policy is not None:
        bounds |= {"policy_hash": answer.policy, "blocked": list(answer.blocked), "abstained": not answer.order}
    return {
        "personalization": {"source": answer.source, "judgements": answer.judgements, "scorer": answer.scorer},
        "bounds": bounds,
    }


def routes(app: FastAPI) -> None:
    """Add the routes of rerank clients."""

    @app.post("/rerank")
    @app.post("/v1/rerank")
    @app.post("/v2/rerank")
    @app.post("/v1alpha/inference/rerank")
    async def rerank(request: Request, body: Rerank) -> Any:
        request.state.tei = body.tei
        begun, person, texts = time.perf_counter(), person_of(request, body), body.asked
        query = body.query if isinstance(body.query, str) else str(body.query.get("text", ""))
        answer = await app.state.core.rank(person, query, texts, "rerank", body.category)
        app.state.metrics.answered("rerank", answer, time.perf_counter() - begun)
        return JSONResponse(rendered(body, texts, answer))
