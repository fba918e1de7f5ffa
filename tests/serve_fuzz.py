"""Hostile requests to an application, without a socket: ids, bodies and addresses that nobody should send.

Used by ``test_serve_fuzz.py`` and, at length, by ``benchmarks/serve/fuzz.py``.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote, unquote

from serve_cases import PROMPT, TEXTS, UNSAFE

IDS = [
    "ann",
    "",
    "me",
    "nobody",
    "a\0b",
    "\0",
    "\u202eann",
    "../../etc/passwd",
    "..",
    ".",
    "a/b",
    "a b",
    "a\nb",
    "x" * 10_000,
    "\u00e9" * 1024,
    "\U0001f600",
    "\ud800",
    "\ufeff",
    "%2e%2e%2f",
    "%00",
    "' OR 1=1 --",
    "a?b#c",
    "polypref@ann",
    "{user}",
    "-1",
    "\u2028",
    "ann\u200b",
]
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    10**400,
    -(2**63) - 1,
    1.5,
    1e308,
    "",
    "\0",
    "x" * 70_000,
    "\ud800",
    UNSAFE,
    [],
    {},
    [[]],
    [None],
    [""],
    [0] * 2000,
    {"text": None},
    {"": {"": {}}},
    {"role": "user", "content": []},
    ["a"] * 1001,
]
CHAT = {"messages": [{"role": "user", "content": PROMPT}], "model": "polypref"}
PAIR = {"prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1]}
BODIES: dict[str, list[dict[str, Any]]] = {
    "/rerank": [
        {"query": PROMPT, "documents": [*TEXTS, UNSAFE]},
        {"query": PROMPT, "texts": TEXTS},
        {"query": "q", "items": TEXTS},
    ],
    "/v2/rerank": [{"query": PROMPT, "documents": TEXTS, "top_n": 2, "model": "m"}],
    "/v1/score": [{"text_1": PROMPT, "text_2": TEXTS}, {"queries": PROMPT, "documents": TEXTS}],
    "/classify": [{"input": PROMPT + TEXTS[0]}, {"messages": CHAT["messages"]}],
    "/get_reward": [{"query": [PROMPT + TEXTS[0]], "prompts": [PROMPT], "labels": ["ann"]}],
    "/predict": [
        {"inputs": [PROMPT, TEXTS[0]]},
        {"tasks": [{"id": 1, "data": {"a": "x", "b": "y"}}], "label_config": "<View/>"},
    ],
    "/setup": [{"project": "1.2", "schema": "<View/>", "extra_params": {}}],
    "/webhook": [{"action": "ANNOTATION_CREATED", "task": {"data": {}}, "annotation": {}}],
    "/v1/chat/completions": [CHAT],
    "/v1/decisions": [
        {
            "model": "polypref",
            "input": PROMPT,
            "questions": [{"type": "choice", "instructions": "", "choices": [{"value": "a"}, {"value": "b"}]}],
        }
    ],
    "/v1/feedback": [
        PAIR,
        {**PAIR, "tie": True},
        {"prompt": PROMPT, "chosen": "a", "rating": 3.0},
        {"request": "r", "chosen": 0, "rejected": 1},
    ],
    "/v1/questions": [{"questions": [{"prompt": PROMPT, "responses": TEXTS[:3]}]}],
}
PLACES = [
    ("GET", "/v1/users/{}"),
    ("GET", "/v1/users/{}/export"),
    ("POST", "/v1/users/{}/pause"),
    ("POST", "/v1/users/{}/pause?paused={}"),
    ("DELETE", "/v1/users/{}"),
    ("DELETE", "/v1/users/{}/judgements/{}"),
    ("GET", "/v1/models/{}"),
    ("GET", "/v1/next-question?user={}&skip={}"),
    ("GET", "/u/{}/v1/users/me"),
    ("GET", "/u/{}/v1/next-question"),
    ("GET", "/u/{}/u/{}/health"),
    ("GET", "/{}"),
    ("OPTIONS", "/rerank"),
    ("PUT", "/u/{}/rerank"),
    ("HEAD", "/health"),
]
KINDS = [b"application/json"] * 12 + [
    b"text/plain",
    b"application/json; charset=utf-16",
    b"",
    b"multipart/form-data",
    b"\xff",
]


@dataclass
class Request:
    """One request as it arrives."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class Answered:
    """What came back."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


def hostile(rng: Random) -> Request:
    """A request that differs from a good one in something."""
    headers = [(b"content-type", rng.choice(KINDS)), (b"host", b"x")]
    if rng.random() < 0.1:
        named = rng.choice(IDS).encode("utf-8", "surrogatepass")
        headers.append((rng.choice([b"x-user", b"authorization", b"idempotency-key"]), named))
    if rng.random() < 0.35:
        method, target = rng.choice(PLACES)
        body = b"" if rng.random() < 0.8 else rng.randbytes(20)
        return Request(method, target.replace("{}", _quoted(rng)), headers, body)
    route = rng.choice(list(BODIES))
    body = copy.deepcopy(rng.choice(BODIES[route]))
    if rng.random() < 0.5:
        body[rng.choice(["user", "safety_identifier", "model", "id", "request"])] = rng.choice(IDS)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        _changed(rng, body)
    prefix = f"/u/{_quoted(rng)}" if rng.random() < 0.2 else ""
    return Request("POST", prefix + route, headers, _spoiled(rng, json.dumps(body).encode()))


def _quoted(rng: Random) -> str:
    one = rng.choice(IDS)
    if rng.random() < 0.2:  # as no client would write it
        return rng.choice(["%", "%zz", "%ff", "%ed%a0%80", "%c0%af", "..%2f..", "//", "%2F%2F", ";", "%0d%0a"])
    return quote(one.encode("utf-8", "surrogatepass"), safe="")


def _changed(rng: Random, body: Any) -> None:
    """Change something somewhere within."""
    while True:
        places: list[Any] = list(body) if isinstance(body, dict) else list(range(len(body)))
        if not places:
            return
        at = rng.choice(places)
        if isinstance(body[at], dict | list) and rng.random() < 0.6:
            body = body[at]
            continue
        if rng.random() < 0.15:
            del body[at]
        elif isinstance(body, dict) and rng.random() < 0.15:
            body[rng.choice(IDS)] = copy.deepcopy(rng.choice(VALUES))
        else:
            body[at] = copy.deepcopy(rng.choice(VALUES))
        return


def _spoiled(rng: Random, raw: bytes) -> bytes:
    """Mostly as it is."""
    how = rng.random()
    if how < 0.85:
        return raw
    return rng.choice(
        [
            lambda: raw[: rng.randrange(len(raw))],
            lambda: raw[:-1] + b',"user":"ann","user":"ben"}',
            lambda: raw[:-1] + b',"deep":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
            lambda: raw[:-1] + b',"deep":' + b'{"a":' * 20_000,
            lambda: raw[:-1] + b',"number":' + b"9" * 10_000 + b"}",
            lambda: raw[:-1] + b',"number":1e99999}',
            lambda: raw[:-1] + b',"number":NaN}',
            lambda: raw.replace(b"a", b"\xff"),
            lambda: raw.decode().encode("utf-16"),
            lambda: b"\xef\xbb\xbf" + raw,
            lambda: rng.randbytes(200),
            lambda: raw + raw,
            lambda: b"null",
        ]
    )()


async def sent(app: Any, request: Request) -> Answered:
    """The answer of an ASGI application."""
    raw, _, query = request.target.encode("ascii").partition(b"?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        "method": request.method,
        "scheme": "http",
        "path": unquote(raw.decode()),
        "raw_path": raw,
        "query_string": query,
        "headers": [*request.headers, (b"content-length", str(len(request.body)).encode())],
        "server": ("x", 80),
        "client": ("y", 1),
    }
    found, given = Answered(), iter([{"type": "http.request", "body": request.body, "more_body": False}])

    async def receive() -> Any:
        return next(given, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            found.status, found.headers = message["status"], dict(message["headers"])
        else:
            found.body += message.get("body", b"")

    await app(scope, receive, send)
    return found


def wrong_with(found: Answered, declared: set[int]) -> str | None:
    """What an answer must not be: a status that is not declared or 5xx, a broken error, no id."""
    if found.status not in declared or found.status >= 500:
        return f"status {found.status}"
    if len(found.headers.get(b"x-request-id", b"")) != 32:
        return "no id"
    if found.status < 400 or not found.body:
        return None
    told = json.loads(found.body)
    message = told.get("message") or told.get("error")
    if not isinstance(message, str) or "\n" in message or "Traceback" in message:
        return "no line that says what is wrong"
    return f"a message of {len(message)} characters" if len(message) > 2000 else None


async def fuzzed(app: Any, many: int, seed: int) -> tuple[Counter[int], list[tuple[str, Request, Answered]]]:
    """Statuses of ``many`` hostile requests, and those that were answered as they must not be."""
    rng, statuses, wrong = Random(seed), Counter[int](), []
    declared = {
        int(status)
        for operations in app.openapi()["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
    }
    async with app.router.lifespan_context(app):
        for _ in range(many):
            request = hostile(rng)
            found = await sent(app, request)
            statuses[found.status] += 1
            if (why := wrong_with(found, declared)) is not None:
                wrong.append((why, request, found))
    return statuses, wrong
