"""What ``/openapi.json`` says of answers that are no success: their statuses, and the two shapes of errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

SAID = {
    400: "The body, an id, a text or a number of candidates is impossible.",
    401: "No valid key or token.",
    403: "The request names two people, or one whom the key may not name.",
    404: "There is no such model, or nothing of this name.",
    405: "The address is known, with another method.",
    408: "The request arrived too slowly.",
    409: "A judgement with this id and other content is stored.",
    413: "The body is too large.",
    414: "The address is too long.",
    424: "The scorer gave no number.",
    429: "Too many requests at once, or a second; Retry-After says when to ask again.",
    431: "The headers are too large.",
    499: "The client left.",
    502: "The upstream failed.",
    503: "The store, the encoder or the safety scorer failed; nothing was kept or let through.",
    504: "The upstream was too slow.",
}
GENERAL = {
    "type": "object",
    "required": ["message", "detail", "error"],
    "properties": {
        "message": {"type": "string"},
        "detail": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": "null"},
                "code": {"type": "integer"},
            },
        },
    },
}
TEI = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
}
HEALTH = {  # /health, when it is down
    "type": "object",
    "required": ["status", "failing"],
    "properties": {"status": {"const": "DOWN"}, "failing": {"type": "array", "items": {"type": "string"}}},
}


def described(app: FastAPI) -> None:
    """Let the application say what its errors are; FastAPI's own 422 is never given."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    parts = found.setdefault("components", {}).setdefault("schemas", {})
    for own in ("HTTPValidationError", "ValidationError"):
        parts.pop(own, None)
    parts["Error"] = {
        "oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("GeneralError", "TeiError", "Down")]
    }
    parts |= {"GeneralError": GENERAL, "TeiError": TEI, "Down": HEALTH}
    shape = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for operations in found["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status, said in SAID.items():
                operation["responses"].setdefault(str(status), {"description": said, "content": shape})
    return found
