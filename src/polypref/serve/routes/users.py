"""``/v1/feedback`` and ``/v1/users``: a person's judgements, what is known of them, and their leaving."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Header, Request

from polypref.learners.protocol import Forgets
from polypref.serve.core import Core
from polypref.serve.leaving import leave
from polypref.serve.liked import in_traits
from polypref.serve.questions import consistency
from polypref.serve.routes.feedback import Feedback, judgement_of
from polypref.serve.store.contract import Stored
from polypref.serve.who.person import scorer_id
from polypref.serve.who.requests import id_in, named, person_in_path, person_of

Text = Annotated[str | None, Header()]


def routes(app: FastAPI) -> None:
    """Add the routes of feedback and of people."""

    @app.post("/v1/feedback")
    async def feedback(request: Request, body: Feedback, idempotency_key: Text = None) -> Any:
        core: Core = app.state.core
        person = named(person_of(request, body))
        judgement = await judgement_of(body, person, idempotency_key, core.store)
        new = await asyncio.wrap_future(core.store.judge(person, judgement))
        app.state.metrics.judged(judgement.kind, new)
        used = core.people.learns
        return {"id": judgement.id, "new": new, "used": used}

    @app.get("/v1/users/{user}")
    async def known(request: Request, user: str) -> Any:
        core, person = app.state.core, person_in_path(request, user)
        now, placing = await asyncio.to_thread(core.store.standing, person), app.state.placing
        fitted = core.people.scorer
        liked = None if now.paused else await core.computed(in_traits, core.people, person)
        in_fit = isinstance(fitted, Forgets) and scorer_id(person) in fitted.known_users().ids
        return {
            "user": person.user,
            "judgements": now.judgements,
            "paused": now.paused,
            "known_from_the_fit": in_fit,
            "text": _in_words(now.judgements, now.paused, in_fit, core.people.learns),
            "traits": liked,
            "consistency": consistency(await asyncio.to_thread(core.store.judgements, person)),
            "group": None if placing is None else (await core.computed(placing.place, person)).told(),
        }

    @app.get("/v1/users/{user}/export")
    async def export(request: Request, user: str) -> Any:
        person = person_in_path(request, user)
        stored = await asyncio.to_thread(app.state.core.store.judgements, person)
        return {"user": person.user, "judgements": [exported(one) for one in stored]}

    @app.delete("/v1/users/{user}")
    async def leaves(request: Request, user: str) -> Any:
        core, person = app.state.core, person_in_path(request, user)
        left = await asyncio.get_running_loop().run_in_executor(None, leave, person, core.store)
        return asdict(left)

    @app.delete("/v1/users/{user}/judgements/{judgement}")
    async def undo(request: Request, user: str, judgement: str) -> Any:
        gone = await asyncio.wrap_future(app.state.core.store.undo(person_in_path(request, user), id_in(judgement)))
        return {"removed": gone}

    @app.post("/v1/users/{user}/pause")
    async def pause(request: Request, user: str, paused: bool = True) -> Any:
        await asyncio.wrap_future(app.state.core.store.pause(person_in_path(request, user), paused))
        return {"paused": paused}


def exported(stored: Stored) -> dict[str, Any]:
    """A judgement as the person may have it."""
    return {"at": stored.at, **msgspec.structs.asdict(stored.judgement)}


def _in_words(judgements: int, paused: bool, in_fit: bool, learns: bool) -> str:
    if paused:
        return "Paused: your judgements are kept and not used; you get the answers for everybody."
    if not learns:
        return "This scorer does not learn from use; it answers as it was fitted."
    if judgements:
        own = "judgement" if judgements == 1 else f"{judgements:,} judgements"
        return f"Answers follow your {own}" + (" and those of the fit." if in_fit else ".")
    return "Answers follow your judgements in the fit." if in_fit else "Nothing is known of you yet."
