"""``GET /`` for browsers: the page on which people judge, one static file that uses only the documented routes.

Its policy allows its own script and style, by their hashes, and requests to this server; nothing else is loaded or
run, and no text becomes markup.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

from fastapi import Request
from fastapi.responses import HTMLResponse

FILE = "page.html"


@cache
def html() -> str:
    """The page."""
    return files("polypref.serve.routes").joinpath(FILE).read_text(encoding="utf-8")


@cache
def headers() -> dict[str, str]:
    """Its policy; names of people stand in its address, so that is passed to nobody."""
    script, style = (_hashes(tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
        "Vary": "Accept",
    }


def _hashes(tag: str) -> str:
    """The hashes of all elements of this kind, as a policy names them."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html(), re.DOTALL)
    assert found
    return " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in found)


def wanted(request: Request) -> bool:
    """Whether a browser asks for the page, and not a client for the server's health, as Label Studio does at ``/``."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def response() -> HTMLResponse:
    """The page with its policy."""
    return HTMLResponse(html(), headers=headers())
