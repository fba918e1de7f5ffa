"""``/get_reward``: the remote reward of OpenRLHF (``--reward.remote_url``), one reward per sample.

``query``    prompt and response as one text, or ``responses`` where the client knows them
``prompts``  a text, as it stands at the start of the query, or messages; in a chat template it is read as messages
``labels``   who judges: a user's id, or an object (also as JSON) with ``user_id``

A blocked response gets the floor, lower than every reward of an allowed one (``serve.rewards``); ``extra_logs`` has the
shares of samples that were blocked, raised, and answered by what is known of the person.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict

from polypref import content, strict_json
from polypref.errors import InputError
from polypref.serve.core import Prompt
from polypref.serve.dialects import turns
from polypref.serve.dialects.rewards import Asked, Given, rewards_of
from polypref.serve.dialects.score import about_each
from polypref.serve.who.requests import NamesUser, person_of

USER = ("user_id", "user", "safety_identifier")  # where an object in labels names a user


class Reward(NamesUser):
    """The body of a request; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    query: list[str] | None = None
    responses: list[str] | None = None
    prompts: list[str | list[dict[str, Any]]]
    labels: list[Any] | None = None
    model: str | None = None
    category: str = ""

    @property
    def samples(self) -> list[tuple[Prompt, str]]:
        """Prompt and response of each sample. Raises InputError."""
        if (self.query is None) == (self.responses is None):
            raise InputError("expected one of query and responses.")
        texts = self.query if self.responses is None else self.responses
        assert texts is not None
        for name, many in (("prompts", len(self.prompts)), ("labels", len(self.labels or texts))):
            if many != len(texts):
                raise InputError(f"{len(texts)} texts and {many} {name}; expected one for each.")
        if not texts:
            raise InputError("there are no texts; give at least one.")
        turns.refuse_long([*texts, *(one for one in self.prompts if isinstance(one, str))])
        if self.query is not None:
            texts = [
                _behind(prompt, text, at) for at, (prompt, text) in enumerate(zip(self.prompts, texts, strict=True))
            ]
        read = [turns.prompt_of(one) if isinstance(one, str) else turns.plain(one) for one in self.prompts]
        return list(zip(read, texts, strict=True))

    @property
    def users(self) -> list[str | None]:
        """Whom each label names. Raises InputError."""
        count = len(self.query or self.responses or [])
        return [_user(label) for label in self.labels] if self.labels else [None] * count


def _behind(prompt: Prompt, query: str, at: int) -> str:
    """The response: what follows the prompt in the query. Raises InputError where the query does not begin with it."""
    if not isinstance(prompt, str):
        raise InputError(f"prompt {at} is a list of messages, which cannot be found in the query; send responses.")
    for begun, start in ((query, prompt), (turns.without_begins(query), turns.without_begins(prompt))):
        if begun.startswith(start):
            return turns.without_ends(begun[len(start) :])
    raise InputError(
        f"query {at} does not begin with prompt {at}; send prompts as they are in the query, or responses."
    )


def _user(label: Any) -> str | None:
    """The user whom a label names; None where it names nobody. Raises InputError."""
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = strict_json.loads(label.encode())
        except ValueError:
            raise InputError(f"the label {content.excerpt(label)} is no JSON; expected a user's id.") from None
    if isinstance(label, dict):
        label = next((label[name] for name in USER if label.get(name) is not None), None)
    if label is None or label == "":
        return None
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise InputError(
            f"the label {content.excerpt(label)} names no user; expected an id, or an object with user_id."
        )
    return str(label)


def rendered(given: list[Given]) -> dict[str, Any]:
    """The answer as OpenRLHF reads it: ``extra_logs`` are numbers."""
    rewards = [one.reward for one in given]
    return {
        "rewards": rewards,
        "scores": rewards,
        "extra_logs": {
            "blocked": sum(one.blocked for one in given) / len(given),
            "raised": sum(one.raised for one in given) / len(given),
            "personal": sum(one.answer.source == "personal" for one in given) / len(given),
        },
        **about_each(given),
    }


def routes(app: FastAPI) -> None:
    """Add the route of reward clients."""

    @app.post("/get_reward")
    async def get_reward(request: Request, body: Reward) -> Any:
        begun, samples = time.perf_counter(), body.samples
        asked = [
            Asked(person_of(request, body, [user]), prompt, text)
            for user, (prompt, text) in zip(body.users, samples, strict=True)
        ]
        given = await rewards_of(app.state.core, asked, "get_reward", body.category)
        app.state.metrics.rewarded("get_reward", given, time.perf_counter() - begun)
        return JSONResponse(rendered(given))
