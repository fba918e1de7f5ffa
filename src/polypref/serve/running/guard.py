"""What surrounds every request: its id, the limits, the person in its path, and its line in the log.

A path ``/u/{user}/...`` is the rest of the path, for this user. A request is read whole before a route sees it. What is
too large, too slow or too much is refused before that. The answer has the request's id in ``X-Request-Id``; the id is
always the server's own, so a client cannot write into the log.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from fastapi.responses import JSONResponse

from polypref.serve import errors
from polypref.serve.running.limits import Limits
from polypref.serve.running.log import METHODS, Log, noting, place_of
from polypref.serve.running.metrics import Metrics

PREFIX, PEOPLE = "/u/", "/v1/users/"
FREE = ("/health", "/health/live", "/metrics")  # answered however much is in hand
ID = b"x-request-id"
READING = ("GET", "HEAD", "OPTIONS")
OWN_SITE = (b"same-origin", b"none")  # what browsers say of requests by this server's page, and by people themselves
GONE = 499  # in the log: the client did not wait

Scope = dict[str, Any]


class Refused(Exception):
    """A request that no route sees. ``limit``: which one it is beyond, a name in ``Limits``."""

    def __init__(self, message: str, status: int, limit: str, kind: str = "validation") -> None:
        super().__init__(message, status, limit, kind)
        self.message, self.status, self.limit, self.kind = message, status, limit, kind


class Disconnected(Exception):
    """The client went before the request was there."""


class Guard:
    """Middleware: see the module."""

    def __init__(self, app: Callable, limits: Limits, metrics: Metrics, log: Log | None) -> None:
        self.app, self.limits, self.metrics, self.log = app, limits, metrics, log
        self.in_hand = 0

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, request = time.perf_counter(), uuid.uuid4().hex
        scope = _inner({**scope, "state": {**scope.get("state", {}), "request": request}})
        sending = _Sending(send, request)
        free = scope["path"] in FREE
        self.in_hand += not free
        self.metrics.in_hand(self.in_hand)
        with noting() as notes:
            try:
                await self._answered(scope, receive, sending, free)
            except Disconnected:
                sending.status = GONE
            except Exception as error:
                notes["failed"] = place_of(error)
                await _failed(scope, receive, sending)
            finally:
                self.in_hand -= not free
                self.metrics.in_hand(self.in_hand)
                self._told(scope, sending, notes, time.perf_counter() - begun)

    async def _answered(self, scope: Scope, receive: Callable, send: _Sending, free: bool) -> None:
        try:
            self._refuse(scope, free)
            body = await self._body(scope, receive)
        except Refused as refused:
            self.metrics.refused(refused.limit)
            told = errors.body(refused.message, refused.status, refused.kind)
            headers = {"Connection": "close"} | ({"Retry-After": "1"} if refused.status == 429 else {})
            await JSONResponse(told, refused.status, headers)(scope, receive, send)
            return
        whole = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def read() -> Any:
            return next(whole, None) or await receive()

        await self.app(scope, read, send)

    def _refuse(self, scope: Scope, free: bool) -> None:
        """Raise Refused for what can be told from the first lines."""
        limits = self.limits
        if self.in_hand > limits.concurrent and not free:
            raise Refused("the server has too many requests in hand; ask again.", 429, "concurrent", "overloaded")
        if _is_no_text(scope["polypref.raw"]):
            raise Refused("the address is no UTF-8 text.", 400, "url")
        if len(scope["polypref.raw"]) + len(scope.get("query_string", b"")) > limits.url:
            raise Refused(f"the address has more than {limits.url:,} bytes.", 414, "url")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > limits.headers:
            raise Refused(f"the headers have more than {limits.headers:,} bytes.", 431, "headers")
        named = dict(scope["headers"])
        from_page = named.get(b"sec-fetch-site", b"none")
        if from_page not in OWN_SITE and scope["method"] not in READING and b"authorization" not in named:
            raise Refused("a page of another site needs an API key to change anything here.", 403, "other_site")
        declared = named.get(b"content-length", b"0")
        if declared.isdigit() and (len(declared) > 15 or int(declared) > limits.body):
            raise Refused(f"the body has more than {limits.body:,} bytes.", 413, "body")

    async def _body(self, scope: Scope, receive: Callable) -> bytes:
        """The body, whole. Raises Refused, Disconnected."""
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self.limits.read_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    body += message.get("body", b"")
                    if len(body) > self.limits.body:
                        raise Refused(f"the body has more than {self.limits.body:,} bytes.", 413, "body")
                    more = message.get("more_body", False)
        except TimeoutError:
            seconds = self.limits.read_seconds
            raise Refused(f"the request did not arrive within {seconds} seconds.", 408, "read_seconds") from None
        return bytes(body)

    def _told(self, scope: Scope, sending: _Sending, notes: dict[str, Any], seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)
        route = "none" if route is None else ("/u/{user}" if "polypref.user" in scope else "") + route
        self.metrics.requested(route, sending.status)
        if self.log is not None:
            if (person := notes.pop("person", None)) is not None:
                notes["person"] = self.log.person(person)
            self.log.line(
                request=sending.request,
                method=scope["method"] if scope["method"] in METHODS else "other",
                route=route,
                status=sending.status,
                seconds=round(seconds, 6),
                **notes,
            )
            self.metrics.lost_lines(self.log.lost)


class _Sending:
    """Sends the answer with the request's id, and knows its status; 0: nothing was sent."""

    def __init__(self, send: Callable, request: str) -> None:
        self.send, self.request, self.status = send, request, 0

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            own = [value for name, value in headers if name == ID]  # a dialect's: the answer's id
            self.request = own[0].decode() if own else self.request
            message = {**message, "headers": headers if own else [*headers, (ID, self.request.encode())]}
        await self.send(message)


def _inner(scope: Scope) -> Scope:
    """The scope without ``/u/{user}``, which is kept beside it.

    Paths with ids stay as they are in the address, so that a slash within an id does not end it (``requests.id_in``).
    """
    raw = scope.get("raw_path") or scope["path"].encode()
    scope["polypref.raw"] = raw
    address = raw.decode("ascii", "replace").split("?")[0]
    if address.startswith(PREFIX):
        user, _, rest = address[len(PREFIX) :].partition("/")
        address = f"/{rest}"
        scope |= {"path": unquote(address), "raw_path": address.encode(), "polypref.user": unquote(user)}
    if scope["path"].startswith(PEOPLE):
        scope["path"] = address
    return scope


def _is_no_text(raw: bytes) -> bool:
    """Whether an address stands for no text; read leniently, several of them would name one person."""
    try:
        unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


async def _failed(scope: Scope, receive: Callable, sending: _Sending) -> None:
    """Say so, where nothing was sent; an answer that has begun breaks off, and the client sees it."""
    if sending.status:
        sending.status = 500
        return
    told = errors.body("the server failed; its log has the place under this X-Request-Id.", 500, "backend")
    await JSONResponse(told, 500)(scope, receive, sending)
