"""The application: middleware, the routes of every dialect, and errors in the shape that the client expects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from polypref.errors import PolyprefError
from polypref.serve import errors
from polypref.serve.core import Core
from polypref.serve.dialects import chat, decisions, label_studio, rerank, reward, score, tei
from polypref.serve.dialects.strict_body import StrictRoute
from polypref.serve.dialects.upstream import Upstream
from polypref.serve.placing import Placing
from polypref.serve.questions import Questions
from polypref.serve.routes import asking, operators, users
from polypref.serve.routes.openapi import described
from polypref.serve.running.guard import Guard
from polypref.serve.running.limits import Limits, Rates, TooMany
from polypref.serve.running.log import Log
from polypref.serve.running.metrics import Metrics
from polypref.serve.who.person import Keys

ROUTES = (rerank, score, reward, tei, label_studio, chat, decisions, users, asking, operators)


def app_of(
    core: Core,
    keys: Keys | None = None,
    *,
    questions: Questions | None = None,
    upstream: Upstream | None = None,
    limits: Limits | None = None,
    log: Log | None = None,
    placing: Placing | None = None,
) -> FastAPI:
    """The application, within ``limits``; ``log`` None: no line is written."""
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = None if core.follower is None else asyncio.create_task(core.follower.run())
        yield
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
        if upstream is not None:
            await upstream.close()
        core.close()

    app = FastAPI(title="polypref", version=version("polypref"), lifespan=lifespan)
    app.state.core, app.state.keys, app.state.metrics = core, keys or Keys({}), Metrics()
    core.count_not_stored = app.state.metrics.not_stored
    app.state.questions = questions or Questions(())
    app.state.upstream, app.state.placing = upstream, placing
    if upstream is not None:
        upstream.metrics = app.state.metrics
    app.state.rates, app.router.route_class = Rates(limits), StrictRoute
    app.state.metrics.bounded(limits)
    app.add_middleware(Guard, limits=limits, metrics=app.state.metrics, log=log)  # type: ignore[arg-type]
    _errors(app)
    for part in ROUTES:
        part.routes(app)
    described(app)
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(PolyprefError)
    async def ours(request: Request, error: PolyprefError) -> JSONResponse:
        status, _ = errors.status_of(error)
        told = errors.body_of(error, getattr(request.state, "tei", False))
        if isinstance(error, TooMany):
            app.state.metrics.refused("rate")
        return JSONResponse(told, status, errors.headers_of(error, status))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        if "json" not in request.headers.get("content-type", ""):
            told = "the body is not declared as JSON; send the header Content-Type: application/json."
            return JSONResponse(errors.body(told, 400, "validation"), 400)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        tei = isinstance(error.body, dict) and "texts" in error.body
        return JSONResponse(errors.body(f"{where or 'the body'}: {first['msg']}", 400, "validation", tei), 400)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        plain = {
            "Not Found": "there is no such route; GET /openapi.json lists them.",
            "Method Not Allowed": f"this route has no {request.method}; GET /openapi.json says what it has.",
        }
        told = errors.body(plain.get(error.detail, str(error.detail)), error.status_code, "validation")
        return JSONResponse(told, error.status_code, error.headers)
