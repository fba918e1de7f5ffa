"""The status and the body of an error: every family of clients expects a different body."""

from __future__ import annotations

from typing import Any

from polypref.bounds.safety import SafetyFailed
from polypref.errors import InputError, PolyprefError, SettingsError
from polypref.serve.core import EncoderFailed
from polypref.serve.dialects.upstream import NoUpstream, TooLong, UpstreamFailed, UpstreamRefused, UpstreamSlow
from polypref.serve.in_force import NoReward
from polypref.serve.routes.operators import NoModel
from polypref.serve.running.limits import TooMany
from polypref.serve.store.contract import Conflict, StoreError
from polypref.serve.who.person import NotYours, TwoPeople, Unauthorized
from polypref.serve.who.requests import ClientLeft
from polypref.wording import shortened, visible

LONGEST = 1000  # characters of a message

STATUS: tuple[tuple[type[PolyprefError], int, str], ...] = (  # the first that fits; the type that TEI's clients know
    (Unauthorized, 401, "validation"),
    (TwoPeople, 403, "validation"),
    (NotYours, 403, "validation"),
    (NoUpstream, 404, "validation"),
    (NoModel, 404, "validation"),
    (Conflict, 409, "validation"),
    (ClientLeft, 499, "validation"),
    (UpstreamFailed, 502, "backend"),
    (UpstreamSlow, 504, "backend"),
    (TooMany, 429, "overloaded"),
    (StoreError, 503, "unhealthy"),
    (SafetyFailed, 503, "unhealthy"),
    (EncoderFailed, 503, "unhealthy"),
    (NoReward, 424, "backend"),
    (TooLong, 400, "invalid_request_error"),
    (InputError, 400, "validation"),
    (SettingsError, 400, "validation"),
)


def status_of(error: PolyprefError) -> tuple[int, str]:
    """The HTTP status of an error, and its type in TEI's words."""
    if isinstance(error, UpstreamRefused):
        return error.status, "validation"
    return next(((status, kind) for cls, status, kind in STATUS if isinstance(error, cls)), (500, "backend"))


def headers_of(error: PolyprefError, status: int) -> dict[str, str]:
    """Headers that tell a client what to do about an error."""
    if isinstance(error, UpstreamRefused) and error.retry_after is not None:
        return {"Retry-After": error.retry_after}
    if isinstance(error, TooMany):
        return {"Retry-After": str(error.after)}
    return {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(status, {})


def body(message: str, status: int, kind: str, tei: bool = False) -> dict[str, Any]:
    """The body of an error: one that Cohere's, OpenAI's and plain clients read, or TEI's, where ``error`` is a text."""
    message = visible(shortened(message, LONGEST))  # it may quote what a client sent
    if tei:
        return {"error": message, "error_type": kind}
    return {
        "message": message,
        "detail": message,
        "error": {"message": message, "type": kind, "param": None, "code": status},
    }


def body_of(error: PolyprefError, tei: bool = False) -> dict[str, Any]:
    """The body of one of our errors; OpenAI's clients know a conversation that is too long by its code."""
    status, kind = status_of(error)
    found = body(str(error), status, kind, tei)
    if isinstance(error, TooLong):
        found["error"] |= {"param": "messages", "code": "context_length_exceeded"}
    return found
