"""JSON requests over HTTP: temporary failures are retried, permanent ones are reported in one line.

Covered: requests to busy and failing servers (429, 5xx, timeouts, dropped connections) are retried after a growing
pause, or the pause that the server requests; redirects are refused, since they would send texts and key elsewhere;
answers are limited in size and time. An API key goes only where the caller of ``Server`` sends it: it is never stored
or part of an identity, and is masked in server messages. Connections are reused.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from polypref.errors import EncoderError, SettingsError
from polypref.terminal import say
from polypref.wording import visible

if TYPE_CHECKING:
    import httpx

LONGEST_PAUSE_SECONDS = 60.0
LARGEST_ANSWER = 256 << 20  # bytes, uncompressed; 64 texts with 4,096 numbers each take 6 MiB
LARGEST_REFUSAL = 64 << 10  # only the beginning of an error is shown


def check_url(url: str, what: str, key_variable: str) -> None:
    """Raises SettingsError unless ``url`` is a plain web address without password, key or query."""
    parts = None
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unmatched bracket, an invalid port
        known = False
    if parts is None or not known or visible(url) != url or " " in url:
        raise SettingsError(f"{what}: expected an http:// or https:// address behind it, as in {what}:<url>.")
    if parts.username or parts.password or parts.query:
        raise SettingsError(
            f"{what} at {parts.hostname}: the address carries a user, password or query; "
            f"put the key into the environment variable {key_variable} instead."
        )


def key_from(variable: str) -> str:
    """The API key in an environment variable, "" for none. Only for addresses given by the user."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(f"{variable} contains characters that no API key has; set it again.")
    return key


def parsed(content: bytes) -> Any:
    """An answer's JSON. Raises ValueError, also if it is nested too deeply for Python."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@dataclass(frozen=True)
class Server:
    """One address, with its time-outs and retries.

    ``timeout``  seconds per request, from connecting to the answer's last byte; ``retries`` after a
                 temporary failure; ``pause`` seconds before the first retry, doubling.
    ``key``      the API key to send; "" for none. ``key_variable`` is the variable that errors suggest.
    """

    address: str
    timeout: float = 60.0
    retries: int = 5
    pause: float = 1.0
    key: str = field(default="", repr=False)
    key_variable: str = "POLYPREF_API_KEY"

    def post(self, body: dict[str, Any]) -> bytes:
        """The answer's content. Raises EncoderError, in one line, if there is none."""
        content, reason = json.dumps(body).encode(), ""
        for attempt in range(self.retries + 1):
            try:
                return self._send(content)
            except _MayPass as failure:
                reason = failure.reason
                if attempt < self.retries:
                    wait = min(max(self.pause * 2**attempt, failure.retry_after), LONGEST_PAUSE_SECONDS)
                    say(f"{self.address}: {reason}; trying again in {wait:.3g} s")
                    time.sleep(wait)
        tries = self.retries + 1
        raise EncoderError(f"{self.address} gives no answer in {tries} tries ({reason}); is the server running?")

    def _send(self, content: bytes) -> bytes:
        import httpx

        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        until = time.monotonic() + self.timeout
        try:
            with _client(os.getpid()).stream(
                "POST", self.address, content=content, headers=headers, timeout=self.timeout
            ) as answer:
                if answer.is_success:
                    return self._read(answer, until, LARGEST_ANSWER)
                raise self._refused(answer, self._read(answer, until, LARGEST_REFUSAL, cut=True))
        except httpx.InvalidURL as error:
            raise EncoderError(f"{self.address} is not a usable address: {error}.") from error
        except (httpx.HTTPError, OSError) as error:
            raise _MayPass(self._masked(str(error)) or type(error).__name__) from error

    def _read(self, answer: httpx.Response, until: float, most: int, cut: bool = False) -> bytes:
        """The content, or its beginning if it may be ``cut``."""
        parts, size = [], 0
        for part in answer.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > most:
                if cut:
                    break
                raise EncoderError(
                    f"{self.address} answers with more than {most >> 20} MiB; is it the right address? "
                    "If it is, send it fewer texts at a time."
                )
            if time.monotonic() > until:
                raise _MayPass(f"the answer was not complete after {self.timeout:g} s: timed out")
        return b"".join(parts)

    def _refused(self, answer: httpx.Response, body: bytes) -> Exception:
        code = answer.status_code
        body = body.replace(self.key.encode(), b"***") if self.key else body  # before it is shortened
        reason = self._masked(f"HTTP {code} {answer.reason_phrase}: {excerpt(body)}")
        if code == 429 or code >= 500:
            return _MayPass(reason, _retry_after(answer.headers.get("Retry-After", "")))
        return EncoderError(f"{self.address} refuses the request ({reason}); {self._advice(answer)}")

    def _masked(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text

    def _advice(self, answer: httpx.Response) -> str:
        code = answer.status_code
        if code < 400:
            target = self._masked(str(answer.headers.get("Location")))
            return f"it redirects to {target}: give that address if you trust it with your key."
        if code in (401, 403):
            return f"set the environment variable {self.key_variable} to a valid key."
        if code == 404:
            return "check the address and the model's name, as in http://host:8000/v1#model."
        return "check the model's name behind the # and its length limit."


class _MayPass(Exception):
    """A temporary failure, worth a retry."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.retry_after = reason, retry_after


@cache
def _client(process: int) -> httpx.Client:
    """The connections of this process, shared by its threads; a forked process must not share its parent's."""
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    import httpx

    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # no cookies, which others would get
    return httpx.Client(follow_redirects=False, cookies=no_cookies)


def _retry_after(stated: str) -> float:
    """The pause that the server requests, as seconds or a date; 0 if it gives neither."""
    stated = stated.strip()
    if stated.isascii() and stated.isdecimal():
        return min(float(stated), LONGEST_PAUSE_SECONDS)
    try:
        at = parsedate_to_datetime(stated)
    except ValueError:
        return 0.0
    return max((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)


def excerpt(content: bytes) -> str:
    """The beginning of an answer, on one line."""
    text = " ".join(content[:400].decode("utf-8", "replace").split())
    return repr(text if len(text) <= 120 else text[:120] + "...")
