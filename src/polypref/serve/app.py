"""The routes. Each finds out who asks, calls ``core`` and renders; errors have the shape that the client expects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse

from polypref.errors import InputError, PolyprefError
from polypref.learners.protocol import Forgets
from polypref.serve import errors
from polypref.serve.core import Core
from polypref.serve.feedback import Feedback, judgement_of
from polypref.serve.leaving import leave
from polypref.serve.metrics import Metrics
from polypref.serve.person import Keys, asking, scorer_id
from polypref.serve.rerank import Rerank, rendered
from polypref.serve.store import Person, Stored

Text = Annotated[str | None, Header()]
PREFIX = "/u/"
ME = "me"  # in a path: whoever asks


def app_of(core: Core, keys: Keys | None = None, max_body: int = 8_000_000) -> FastAPI:
    """The application. A path ``/u/{user}/...`` is the rest of the path, for this user."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        core.close()

    app = FastAPI(title="polypref", version=version("polypref"), lifespan=lifespan)
    app.state.core, app.state.keys, app.state.metrics = core, keys or Keys({}), Metrics()
    app.add_middleware(_Limits, most=max_body)
    _errors(app)
    _rerank(app)
    _people(app)
    _operators(app)
    return app


def person_of(request: Request, body: Any = None) -> Person:
    """Who asks."""
    key = request.app.state.keys.key_of(request.headers.get("authorization"))
    named = [getattr(body, name, None) for name in ("safety_identifier", "user")]
    path = request.scope.get("polypref.user")
    return asking(key, path, named, request.headers.get("x-user"), getattr(body, "model", None))


class _Limits:
    """Refuses bodies that are too large before they are read whole, and takes ``/u/{user}`` off the path."""

    def __init__(self, app: Callable, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].startswith(PREFIX):
            raw = scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace").split("?")[0]
            user, _, rest = raw[len(PREFIX) :].partition("/")
            scope = {
                **scope,
                "path": f"/{unquote(rest)}",
                "raw_path": f"/{rest}".encode(),
                "polypref.user": unquote(user),
            }
        body = bytearray()
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        more = not (declared.isdigit() and int(declared) > self.most)
        large = not more
        while more:
            message = await receive()
            body += message.get("body", b"")
            large = len(body) > self.most
            more = message.get("more_body", False) and not large
        if large:
            told = errors.body(f"the body has more than {self.most:,} bytes.", 413, "validation")
            await JSONResponse(told, 413)(scope, receive, send)
            return
        whole = iter([{"type": "http.request", "body": bytes(body), "more_body": False}])

        async def read() -> Any:
            return next(whole, None) or await receive()

        await self.app(scope, read, send)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(PolyprefError)
    async def ours(request: Request, error: PolyprefError) -> JSONResponse:
        status, kind = errors.status_of(error)
        tei = getattr(request.state, "tei", False)
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {"Retry-After": "1"} if status == 503 else None
        return JSONResponse(errors.body(str(error), status, kind, tei), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        tei = isinstance(error.body, dict) and "texts" in error.body
        return JSONResponse(errors.body(f"{where or 'the body'}: {first['msg']}", 400, "validation", tei), 400)


def _rerank(app: FastAPI) -> None:
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


def _people(app: FastAPI) -> None:
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
        core, person = app.state.core, allowed(request, user)
        now = core.store.standing(person)
        fitted = core.people.scorer
        in_fit = isinstance(fitted, Forgets) and scorer_id(person) in fitted.known_users().ids
        return {
            "judgements": now.judgements,
            "paused": now.paused,
            "known_from_the_fit": in_fit,
            "text": _in_words(now.judgements, now.paused, in_fit, core.people.learns),
        }

    @app.get("/v1/users/{user}/export")
    async def export(request: Request, user: str) -> Any:
        core, person = app.state.core, allowed(request, user)
        return {"user": person.user, "judgements": [exported(one) for one in core.store.judgements(person)]}

    @app.delete("/v1/users/{user}")
    async def leaves(request: Request, user: str) -> Any:
        core, person = app.state.core, allowed(request, user)
        left = await asyncio.get_running_loop().run_in_executor(None, leave, person, core.store)
        return asdict(left)

    @app.delete("/v1/users/{user}/judgements/{judgement}")
    async def undo(request: Request, user: str, judgement: str) -> Any:
        gone = await asyncio.wrap_future(app.state.core.store.undo(allowed(request, user), judgement))
        return {"removed": gone}

    @app.post("/v1/users/{user}/pause")
    async def pause(request: Request, user: str, paused: bool = True) -> Any:
        await asyncio.wrap_future(app.state.core.store.pause(allowed(request, user), paused))
        return {"paused": paused}

    def allowed(request: Request, user: str) -> Person:
        """The person of the path, if the key may see them."""
        if user == ME and (asks := person_of(request)).user is not None:
            return asks
        key = app.state.keys.key_of(request.headers.get("authorization"))
        return named(asking(key, request.scope.get("polypref.user"), [user], request.headers.get("x-user"), None))


def named(person: Person) -> Person:
    """The person. Raises InputError where nobody is named."""
    if person.user is None:
        raise InputError("nobody is named; give user in the body, the header X-User or the path /u/USER.")
    return person


def exported(stored: Stored) -> dict[str, Any]:
    """A judgement as the person may have it."""
    return {"at": stored.at, **msgspec.structs.asdict(stored.judgement)}


def _in_words(judgements: int, paused: bool, in_fit: bool, learns: bool) -> str:
    if paused:
        return "Paused: your judgements are kept and not used; you get the answers for everybody."
    if not learns:
        return "This scorer does not learn from use; it answers as it was fitted."
    if judgements:
        return f"Answers follow your {judgements} judgements" + (" and those of the fit." if in_fit else ".")
    return "Answers follow your judgements in the fit." if in_fit else "Nothing is known of you yet."


def _operators(app: FastAPI) -> None:
    @app.get("/health")
    async def health() -> Any:
        return {"status": "UP"}

    @app.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [{"id": "polypref", "object": "model", "created": 0, "owned_by": "polypref"}]}

    @app.get("/metrics")
    async def metrics() -> Any:
        return PlainTextResponse(app.state.metrics.text(), media_type="text/plain; version=0.0.4")
