"""TEI's ``/info`` and ``/predict``; its ``/rerank`` is in ``rerank``.

``inputs`` of ``/predict`` is one text, a pair of prompt and text, or a list of such, each a list of one or two. A text
alone is a conversation in a chat template. The answer to each is a list of one ``{"score", "label"}``, with exactly 0.0
for a blocked text; with ``raw_scores`` a reward, and the floor for a blocked text (``serve.rewards``).
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from pydantic import ConfigDict

from polypref.errors import InputError
from polypref.serve.core import MOST_CHARACTERS, MOST_TEXTS, Core
from polypref.serve.dialects import turns
from polypref.serve.dialects.rewards import Asked, Given, rewards_of
from polypref.serve.dialects.score import conversation
from polypref.serve.store.contract import Person
from polypref.serve.who.requests import NamesUser


class Predict(NamesUser):
    """The body of a request; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    inputs: str | list[str] | list[list[str]]
    raw_scores: bool = False
    category: str = ""

    @property
    def many(self) -> bool:
        """Whether a list of answers is expected."""
        return isinstance(self.inputs, list) and any(isinstance(one, list) for one in self.inputs)

    def asked(self, person: Person) -> list[Asked]:
        """Each text with its prompt. Raises InputError."""
        inputs: Any = self.inputs if self.many else [[self.inputs] if isinstance(self.inputs, str) else self.inputs]
        turns.refuse_long([text for one in inputs for text in one])
        return [_one(person, one) for one in inputs]


def _one(person: Person, given: list[str]) -> Asked:
    if len(given) == 1:
        return conversation(person, given[0])
    if len(given) != 2:
        raise InputError(f"an input has {len(given)} texts; expected one, or a prompt and a text.")
    return Asked(person, given[0], given[1])


async def predicted(core: Core, person: Person, body: Predict) -> tuple[Any, list[Given]]:
    """The answer to ``/predict``, and what it was made of."""
    given = await rewards_of(core, body.asked(person), "predict", body.category)
    found = [[{"score": one.reward if body.raw_scores else one.probability, "label": "reward"}] for one in given]
    return (found if body.many else found[0]), given


def routes(app: FastAPI) -> None:
    """Add the routes of TEI's clients."""

    @app.get("/info")
    async def info() -> Any:
        core: Core = app.state.core
        return {
            "model_id": "polypref",
            "model_sha": core.scorer_hash,
            "model_dtype": "float32",
            "model_type": {"reranker": {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}},
            "max_concurrent_requests": 512,
            "max_input_length": MOST_CHARACTERS,
            "max_batch_tokens": MOST_CHARACTERS,
            "max_batch_requests": None,
            "max_client_batch_size": MOST_TEXTS,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": version("polypref"),
            "sha": None,
            "docker_label": None,
        }
