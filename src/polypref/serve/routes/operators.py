"""Routes for those who run the server: health, models, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from polypref.content import excerpt
from polypref.errors import PolyprefError
from polypref.serve.routes import page
from polypref.serve.who.person import ALIAS


class NoModel(PolyprefError):
    """A model is asked for that is not served."""


def _known(app: FastAPI) -> list[str]:
    """The models that a client may name: our own and the upstream's."""
    upstream = app.state.upstream
    return ["polypref", *([upstream.model] if upstream is not None and upstream.model else [])]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "polypref"}


def routes(app: FastAPI) -> None:
    """Add the operators' routes."""

    @app.get("/")
    async def root(request: Request) -> Any:
        """The page for browsers; for others what /health says."""
        return page.response() if page.wanted(request) else await health()

    @app.get("/health")
    async def health() -> Any:
        """Whether requests can be answered: the store can be written to and the encoder works."""
        core = app.state.core
        down = await core.failing()
        if down:
            return JSONResponse({"status": "DOWN", "failing": down}, 503)
        refused = None if core.follower is None else core.follower.refused
        about = {"scorer": core.in_force.hash} | ({"refused": refused} if refused else {})
        return {"status": "UP", "model_class": "polypref"} | about  # Label Studio reads model_class

    @app.get("/health/live")
    async def live() -> Any:
        """Whether the process answers at all."""
        return {"status": "UP"}

    @app.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [_model(name) for name in _known(app)]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Any:
        if name not in _known(app) and not name.startswith(ALIAS):
            raise NoModel(f"there is no model {excerpt(name)}; found: {', '.join(_known(app))}.")
        return _model(name)

    @app.get("/metrics")
    async def metrics() -> Any:
        return PlainTextResponse(app.state.metrics.text(), media_type="text/plain; version=0.0.4")
