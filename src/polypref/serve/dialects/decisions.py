"""``/v1/decisions``: OpenAI's decisions, read as questions about what the person who asks prefers.

OpenAI's own model answers what holds of the input. A preference model does not know that, so each question is read as
one about replies: the options are ranked as replies to the input followed by the instructions, and an option's
probability is that this person prefers it to all others (``Answer.probability``).

``choice``     the options are the choices: their descriptions, or their values where they have none
``score``      the options are the levels; the score is the mean level, where the first is 0. So it says where on the
               scale the person wants a reply to be. It does not rate the input.
``predicate``  the options are "true" and "false", as of a choice between these two: which one the person would rather
               read or say. It is no estimate of what is true.

Options that the bounds hold back have the probability 0. A question is answered by a refusal if all of its options are
held back, and a predicate if one is: what remains is then no matter of preference. ``reading`` says in every answer
how to take it; ``request`` of each question names it for ``/v1/feedback``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from polypref.errors import InputError
from polypref.serve.core import MOST_CHARACTERS, MOST_TEXTS, Answer, Prompt
from polypref.serve.dialects.conversation import after, length, prompt_of, text_of
from polypref.serve.dialects.rerank import WORDS_PER_TOKEN, about
from polypref.serve.who.requests import NamesUser, person_of

READING = "Probabilities say which option this person prefers as a reply; they are no estimates of what is true."
Instructions = str | list[dict[str, Any]]
Name = Annotated[str | None, Field(max_length=1000)]


class Body(BaseModel):
    """What the parts of a request have in common: unknown fields are ignored, types are exact."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Option(Body):
    """One of the choices."""

    value: StrictStr | StrictBool
    description: str | None = None


class Level(Body):
    """One of the levels, from the lowest."""

    label: str
    description: str | None = None


class Predicate(Body):
    """A statement about the input."""

    type: Literal["predicate"]
    instructions: Instructions
    name: Name = None

    @property
    def options(self) -> list[str]:
        """The texts that are ranked."""
        return ["true", "false"]


class Choice(Body):
    """A choice among options."""

    type: Literal["choice"]
    choices: list[Option] = Field(min_length=2, max_length=255)
    instructions: Instructions
    name: Name = None

    @property
    def options(self) -> list[str]:
        """The texts that are ranked. Raises InputError for a choice that is given twice."""
        values = [one.value for one in self.choices]
        if len({(type(one), one) for one in values}) < len(values):
            raise InputError("choices: the same value is given twice; expected different ones.")
        return [_text(one.description, one.value) for one in self.choices]


class Score(Body):
    """A place on a scale."""

    type: Literal["score"]
    levels: list[Level] = Field(min_length=2, max_length=10)
    instructions: Instructions
    name: Name = None

    @property
    def options(self) -> list[str]:
        """The texts that are ranked. Raises InputError for a label that is given twice."""
        if len({one.label for one in self.levels}) < len(self.levels):
            raise InputError("levels: the same label is given twice; expected different ones.")
        return [_text(one.description, one.label) for one in self.levels]


Question = Annotated[Predicate | Choice | Score, Field(discriminator="type")]


class Decisions(Body, NamesUser):
    """The body of a request."""

    input: str | list[dict[str, Any]]
    questions: list[Question] = Field(min_length=1, max_length=400)
    model: str | None = None
    category: str = ""

    def asked(self) -> list[tuple[Prompt, list[str]]]:
        """Each question's prompt and options. Raises InputError."""
        prompt = prompt_of(self.input, "input")
        found = [
            (after(prompt, text_of(one.instructions, f"instructions of question {number}")), one.options)
            for number, one in enumerate(self.questions, 1)
        ]
        texts = sum(len(options) for _, options in found)
        if texts > MOST_TEXTS:
            raise InputError(f"the questions have {texts} options; expected at most {MOST_TEXTS} in one request.")
        if sum(length(asked) + sum(map(len, options)) for asked, options in found) > MOST_CHARACTERS:
            raise InputError(
                f"the questions, each with the input, have more than {MOST_CHARACTERS:,} characters; give fewer."
            )
        return found


def _text(description: str | None, value: str | bool) -> str:
    """What an option says as a reply."""
    return description or (value if isinstance(value, str) else str(value).lower())


def confidence(probability: Sequence[float]) -> float:
    """How concentrated the probabilities are: 1 less their entropy, as a share of the largest one; 1 for one option."""
    some = [one for one in probability if one > 0]
    if len(some) < 2:
        return 1.0
    return min(1.0, max(0.0, 1 + sum(one * math.log(one) for one in some) / math.log(len(some))))


def rendered(question: Predicate | Choice | Score, answer: Answer) -> dict[str, Any]:
    """The answer to one question."""
    probability = answer.probability
    head = {"type": question.type, "name": question.name, "request": answer.request, **about(answer)}
    if not answer.order or (isinstance(question, Predicate) and answer.blocked):
        return head | {"type": "refusal"}
    if isinstance(question, Predicate):
        return head | {"probability": probability[0]}
    sure = {"confidence": confidence([probability[at] for at in answer.order])}
    if isinstance(question, Choice):
        listed = [
            {"value": one.value, "probability": share} for one, share in zip(question.choices, probability, strict=True)
        ]
        return head | sure | {"choice": question.choices[answer.order[0]].value, "probabilities": listed}
    levels = [
        {"label": one.label, "value": value, "probability": share}
        for value, (one, share) in enumerate(zip(question.levels, probability, strict=True))
    ]
    return head | sure | {"score": sum(at * share for at, share in enumerate(probability)), "probabilities": levels}


def _usage(asked: Sequence[tuple[Prompt, list[str]]]) -> dict[str, Any]:
    """Tokens that were read, estimated."""
    said = [msgspec.json.encode(prompt).decode() if not isinstance(prompt, str) else prompt for prompt, _ in asked]
    words = sum(len(text.split()) for text in said) + sum(len(text.split()) for _, texts in asked for text in texts)
    tokens = int(words / WORDS_PER_TOKEN)
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }


def routes(app: FastAPI) -> None:
    """Add the route of decisions."""

    @app.post("/v1/decisions")
    async def decisions(request: Request, body: Decisions) -> Any:
        begun, person, asked, core = time.perf_counter(), person_of(request, body), body.asked(), app.state.core
        ranked = (
            core.rank(person, prompt, options, "decisions", body.category, odds=True) for prompt, options in asked
        )
        answers: list[Answer] = await asyncio.gather(*ranked)
        took = time.perf_counter() - begun
        for answer in answers:
            app.state.metrics.answered("decisions", answer, took)
        found = [rendered(question, answer) for question, answer in zip(body.questions, answers, strict=True)]
        model = body.model or "polypref"
        return JSONResponse({"answers": found, "model": model, "usage": _usage(asked), "reading": READING})
