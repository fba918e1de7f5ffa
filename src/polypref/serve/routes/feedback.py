"""``/v1/feedback``: what a person thinks of texts, or of the candidates of an earlier answer.

One request is one judgement. ``Idempotency-Key``, or ``id`` in the body, names it among the person's. If it is sent
again with the same content, it is answered as before; with other content it is refused.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any, Literal

from pydantic import ConfigDict, Field

from polypref import content
from polypref.errors import InputError
from polypref.serve.dialects.conversation import prompt_of
from polypref.serve.questions import QUESTION, REPEAT, side_of
from polypref.serve.store.contract import Judgement, Offer, Person, Store, reading
from polypref.serve.who.requests import NamesUser

WAIT_S, EVERY_S = 2.0, 0.05  # for an answer that another process is still writing
LONGEST = 100_000  # characters of a text
LONGEST_ID = 255  # characters of a judgement's id


class Feedback(NamesUser):
    """``chosen`` and ``rejected``, with ``tie`` if they are level; or ``chosen`` with ``rating`` or ``thumb``.

    A text, or with ``request`` the number of a candidate of that answer, from 0.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    request: str | None = None
    prompt: str | list[dict[str, Any]] | None = None
    chosen: str | int
    rejected: str | int | None = None
    tie: bool = False
    rating: float | None = Field(None, allow_inf_nan=False)
    thumb: Literal["up", "down"] | None = None
    tags: list[str] = Field(default_factory=list, max_length=50)
    comment: str | None = Field(None, max_length=10_000)
    id: str | None = Field(None, min_length=1, max_length=LONGEST_ID)
    position: Literal["left", "right"] | None = None
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False)


async def judgement_of(body: Feedback, person: Person, key: str | None, store: Store) -> Judgement:
    """The judgement that a request states. Raises InputError."""
    if key is not None and body.id is not None and key != body.id:
        raise InputError("Idempotency-Key and id differ; give one.")
    if key is not None and len(key) > LONGEST_ID:
        raise InputError(f"the Idempotency-Key has more than {LONGEST_ID} characters; give a shorter one.")
    if any("\0" in one for one in (key, body.id, body.request) if one is not None):
        raise InputError("an id holds a NUL character; remove it.")
    said = [body.rejected is not None, body.rating is not None, body.thumb is not None]
    if sum(said) != 1:
        raise InputError("expected one of rejected, rating and thumb beside chosen.")
    if body.tie and body.rejected is None:
        raise InputError("tie needs rejected: the text that is level with chosen.")
    offer = None if body.request is None else await _offer(body.request, person, store)
    chosen, rejected = (_text(one, offer) for one in (body.chosen, body.rejected))
    asked = None if body.prompt is None else prompt_of(body.prompt)
    prompt = asked if offer is None else offer.prompt
    if prompt is None or (offer is not None and asked not in (None, offer.prompt)):
        raise InputError("expected a prompt, or the request of an earlier answer to it.")
    assert chosen is not None
    if chosen == rejected:
        raise InputError("chosen and rejected are the same text.")
    content.texts([one for one in (chosen, rejected, body.comment, *body.tags) if one is not None], "text")
    value = body.rating if body.thumb is None else float(body.thumb == "up")
    kind = "rating" if body.rating is not None else "thumb" if body.thumb else "tie" if body.tie else "pair"
    context: dict[str, Any] = {"position": body.position, "seconds": body.seconds}
    if offer is not None and offer.route in (QUESTION, REPEAT):
        context |= {"position": side_of(offer.texts, chosen, body.position), REPEAT: offer.route == REPEAT or None}
    if offer is not None:
        context |= {"scorer": offer.scorer, "policy": offer.policy, "source": offer.source, "arm": offer.arm}
    return Judgement(
        id=key or body.id or uuid.uuid4().hex,
        kind=kind,
        prompt=prompt if isinstance(prompt, str) else tuple(prompt),
        chosen=chosen,
        rejected=rejected,
        value=value,
        tags=tuple(body.tags),
        comment=body.comment,
        request=body.request,
        context={name: one for name, one in context.items() if one is not None},
    )


async def _offer(request: str, person: Person, store: Store) -> Offer:
    """The answer to this person with that id. Raises InputError where there is none."""
    until = time.monotonic() + WAIT_S
    while (found := await reading(store, store.offer, person.tenant, request)) is None and time.monotonic() < until:
        await asyncio.sleep(EVERY_S)
    if found is None or found[0] != person:
        raise InputError(f"there is no answer {content.excerpt(request)} to this user.")
    return found[1]


def _text(given: str | int | None, offer: Offer | None) -> str | None:
    """A text that is given, or a candidate's. Raises InputError."""
    if isinstance(given, int):
        if offer is None:
            raise InputError("a number stands for a candidate of an earlier answer; give its request.")
        if not 0 <= given < len(offer.texts):
            raise InputError(f"there is no candidate {given}; the answer had {len(offer.texts)}, from 0.")
        if given in offer.blocked:
            raise InputError(f"candidate {given} was held back, so it cannot be judged by its number.")
        return offer.texts[given]
    if given is not None and len(given) > LONGEST:
        raise InputError(f"a text has more than {LONGEST:,} characters; give a shorter one.")
    return given
