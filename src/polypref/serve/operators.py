"""Routes for those who run the server: health, models, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse


def routes(app: FastAPI) -> None:
    """Add the operators' routes."""

    @app.get("/health")
    async def health() -> Any:
        return {"status": "UP"}

    @app.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [{"id": "polypref", "object": "model", "created": 0, "owned_by": "polypref"}]}

    @app.get("/metrics")
    async def metrics() -> Any:
        return PlainTextResponse(app.state.metrics.text(), media_type="text/plain; version=0.0.4")
