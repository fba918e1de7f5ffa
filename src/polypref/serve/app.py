"""The application: middleware, the routes of every dialect, and errors in the shape that the client expects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from polypref.errors import PolyprefError
from polypref.serve import asking, errors, operators, users
from polypref.serve.core import Core
from polypref.serve.dialects import chat, decisions, label_studio, rerank, reward, score, tei
from polypref.serve.metrics import Metrics
from polypref.serve.person import Keys
from polypref.serve.questions import Questions
from polypref.serve.upstream import Upstream

PREFIX = "/u/"
ROUTES = (rerank, score, reward, tei, label_studio, chat, decisions, users, asking, operators)


def app_of(
    core: Core,
    keys: Keys | None = None,
    max_body: int = 8_000_000,
    questions: Questions | None = None,
    upstream: Upstream | None = None,
) -> FastAPI:
    """The application. A path ``/u/{user}/...`` is the rest of the path, for this user."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if upstream is not None:
            await upstream.close()
        core.close()

    app = FastAPI(title="polypref", version=version("polypref"), lifespan=lifespan)
    app.state.core, app.state.keys, app.state.metrics = core, keys or Keys({}), Metrics()
    core.count_not_stored = app.state.metrics.not_stored
    app.state.questions = questions or Questions(())
    app.state.upstream = upstream
    if upstream is not None:
        upstream.metrics = app.state.metrics
    app.add_middleware(_Limits, most=max_body)
    _errors(app)
    for part in ROUTES:
        part.routes(app)
    return app


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
        return JSONResponse(errors.body(str(error), status, kind, tei), status, errors.headers_of(error, status))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        if "json" not in request.headers.get("content-type", ""):
            told = "the body is not declared as JSON; send the header Content-Type: application/json."
            return JSONResponse(errors.body(told, 400, "validation"), 400)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        tei = isinstance(error.body, dict) and "texts" in error.body
        return JSONResponse(errors.body(f"{where or 'the body'}: {first['msg']}", 400, "validation", tei), 400)
