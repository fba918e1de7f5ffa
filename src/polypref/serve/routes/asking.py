"""``/v1/next-question``, ``/v1/questions`` and ``/v1/slate``: what to ask a person, and a slate in their order."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import ConfigDict, Field

from polypref.errors import InputError
from polypref.serve.core import MOST_CHARACTERS, MOST_TEXTS, Answer, Core, pool_of
from polypref.serve.dialects.rerank import about
from polypref.serve.questions import MOST_SKIPPED, QUESTION, Asked, Question, Questions, question_of
from polypref.serve.store.contract import Person
from polypref.serve.who.person import scorer_id
from polypref.serve.who.requests import NamesUser, named, person_of

SLATE = "slate"
Ids = Annotated[list[str], Query(alias="skip", max_length=MOST_SKIPPED)]


class Candidates(NamesUser):
    """Prompts with two or more ``responses`` each, to choose a pair from; ``skip``: questions not to ask again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    questions: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_TEXTS)
    skip: list[str] = Field(default_factory=list, max_length=MOST_SKIPPED)


def asked(found: Asked) -> dict[str, Any]:
    """A question as JSON; without an answer it has no id, and ``why`` says why there is none."""
    if found.answer is None:
        return {"id": None, "why": found.why, "left": found.left}
    return {
        "id": found.answer.request,
        "prompt": found.prompt,
        "responses": list(found.responses),
        "method": found.method,
        "why": found.why,
        "left": found.left,
        **about(found.answer),
    }


def shown(question: Question, answer: Answer, reasons: list[str]) -> dict[str, Any]:
    """A slate as JSON: the texts that may be returned, best first, and why others were held back."""
    return {
        "prompt": question.prompt,
        "results": [
            {"index": at, "text": question.responses[at], "relevance_score": answer.relevance[at]}
            for at in answer.order
        ],
        "held_back": [{"index": at, "why": why} for at, why in zip(answer.blocked, reasons, strict=True)],
        **about(answer),
    }


def routes(app: FastAPI) -> None:
    """Add the routes of questions."""

    async def next_of(questions: Questions, person: Person, skip: list[str]) -> Any:
        begun = time.perf_counter()
        found = await questions.ask(app.state.core, person, skip)
        if found.answer is not None:
            app.state.metrics.answered(QUESTION, found.answer, time.perf_counter() - begun)
        return asked(found)

    @app.get("/v1/next-question")
    async def next_question(request: Request, skip: Ids = []) -> Any:  # noqa: B006 read only
        return await next_of(app.state.questions, named(person_of(request)), skip)

    @app.post("/v1/questions")
    async def of_candidates(request: Request, body: Candidates) -> Any:
        given = [question_of(one, f"question {number}") for number, one in enumerate(body.questions, 1)]
        if (count := sum(len(one.responses) for one in given)) > MOST_TEXTS:
            raise InputError(f"{count} responses; expected at most {MOST_TEXTS}.")
        if sum(len(one.prompt) * len(one.responses) + sum(map(len, one.responses)) for one in given) > MOST_CHARACTERS:
            raise InputError(
                f"the responses, each with its prompt, have more than {MOST_CHARACTERS:,} characters; give fewer."
            )
        return await next_of(Questions(given), named(person_of(request, body)), body.skip)

    @app.get("/v1/slate")
    async def slate(request: Request) -> Any:
        core: Core = app.state.core
        question, person = app.state.questions.slate, person_of(request)
        if question is None:
            return {"prompt": None, "results": [], "held_back": []}
        texts = question.responses[: core.most_candidates(person)]
        answer = await core.rank(person, question.prompt, texts, SLATE, stored="never")
        pool, place = pool_of(question.prompt, texts)
        reasons = core.in_force.reasons(scorer_id(person), pool, place[list(answer.blocked)])
        return shown(question, answer, reasons)
