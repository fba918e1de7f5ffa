"""A server that is asked in JSON over HTTP: what may pass is tried again, what may not is told in one line.

Covered: busy and failing servers (429, 5xx, timeouts, dropped connections) are asked again after a growing pause, or
the one that the server asks for; redirects are refused, since they would carry texts and key elsewhere. An API key is
read from an environment variable when a request is sent; it is never stored, shown or part of an identity.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from polypref.errors import EncoderError, SettingsError
from polypref.terminal import say

LONGEST_PAUSE_SECONDS = 60.0


def check_url(url: str, what: str, key_variable: str) -> None:
    """Raises SettingsError unless ``url`` is a plain web address without password, key or query."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{what}: expected an http:// or https:// address behind it, as in {what}:<url>.")
    if parts.username or parts.password or parts.query:
        raise SettingsError(
            f"{what} at {parts.hostname}: the address carries a user, password or query; "
            f"put the key into the environment variable {key_variable} instead."
        )


@dataclass(frozen=True)
class Server:
    """One address, and how patiently it is asked.

    ``timeout`` seconds per request; ``retries`` further tries after a failure that may pass; ``pause`` seconds before
    the first of them, doubling; ``key_variable`` holds the API key: unset means that none is sent.
    """

    address: str
    timeout: float = 60.0
    retries: int = 5
    pause: float = 1.0
    key_variable: str = "POLYPREF_API_KEY"

    def post(self, body: dict[str, Any]) -> bytes:
        """The answer's content. Raises EncoderError when there is none, in one line."""
        headers = {"Content-Type": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        request = Request(self.address, json.dumps(body).encode(), headers)
        reason = ""
        for attempt in range(self.retries + 1):
            try:
                return self._send(request, key)
            except _MayPass as failure:
                reason = failure.reason
                if attempt < self.retries:
                    wait = min(max(self.pause * 2**attempt, failure.retry_after), LONGEST_PAUSE_SECONDS)
                    say(f"{self.address}: {reason}; trying again in {wait:.3g} s")
                    time.sleep(wait)
        tries = self.retries + 1
        raise EncoderError(f"{self.address} gives no answer in {tries} tries ({reason}); is the server running?")

    def _send(self, request: Request, key: str) -> bytes:
        try:
            with _OPENER.open(request, timeout=self.timeout) as answer:
                return answer.read()
        except HTTPError as error:
            said = error.read().replace(key.encode(), b"***") if key else error.read()
            reason = f"HTTP {error.code} {error.reason}: {excerpt(said)}"
            if error.code != 429 and error.code < 500:
                raise EncoderError(f"{self.address} refuses the request ({reason}); {self._advice(error)}") from None
            raise _MayPass(reason, _retry_after(error)) from error
        except (URLError, HTTPException, OSError) as error:
            raise _MayPass(str(getattr(error, "reason", error)) or type(error).__name__) from error

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise SettingsError(f"{self.key_variable} holds characters that no API key has; set it again.")
        return key

    def _advice(self, error: HTTPError) -> str:
        if error.code < 400:
            return f"it redirects to {error.headers.get('Location')}: give that address if you trust it with your key."
        if error.code in (401, 403):
            return f"set the environment variable {self.key_variable} to a valid key."
        if error.code == 404:
            return "check the address and the model's name, as in http://host:8000/v1#model."
        return "check the model's name behind the # and its length limit."


class _MayPass(Exception):
    """A failure that another try may get past."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.retry_after = reason, retry_after


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry texts and key to another server."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


_OPENER = build_opener(_NoRedirect)


def _retry_after(error: HTTPError) -> float:
    """Seconds that the server asks for, 0 when it gives none or a date."""
    stated = (error.headers.get("Retry-After") or "").strip()
    return float(stated) if stated.isdigit() else 0.0


def excerpt(content: bytes) -> str:
    """The beginning of an answer, on one line."""
    text = " ".join(content[:400].decode("utf-8", "replace").split())
    return repr(text if len(text) <= 120 else text[:120] + "...")
