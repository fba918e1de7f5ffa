"""JSON requests over HTTP: temporary failures are retried, permanent ones are reported in one line.

Covered: requests to busy and failing servers (429, 5xx, timeouts, dropped connections) are retried after a growing
pause, or the pause that the server requests; tries and time are bounded, also for a server that sends its answer, or
the lines before it, drop by drop; redirects are refused, since they would send texts and key elsewhere; answers are
limited in size as they are unpacked (gzip only), and in the lists and objects that they hold. An API key goes only
where the caller of ``Server`` sends it: it is never stored or part of an identity, and is masked in server messages.
Connections are reused.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from polypref.errors import EncoderError, SettingsError
from polypref.terminal import say
from polypref.wording import visible

if TYPE_CHECKING:
    import httpx

LONGEST_PAUSE_SECONDS = 60.0
LONGEST_SECONDS = 1800.0  # no try begins later
MOST_RETRIES, LONGEST_TIMEOUT = 100, 3600.0
LARGEST_ANSWER = 64 << 20  # bytes, unpacked; 64 texts with 4,096 numbers each take 6 MiB
LARGEST_REFUSAL = 64 << 10  # only the beginning of an error is shown
MOST_CONTAINERS = 1_000_000  # lists and objects of an answer, some 100 bytes of memory each
GZIP = 31  # zlib's window bits for it
GRACE_SECONDS = 0.5  # for the connection's own time-out to be told


def check_url(url: str, what: str, key_variable: str, between: str = ":") -> None:
    """Raises SettingsError unless ``url`` is a plain web address without password, key or query.

    ``between`` stands between ``what`` and the address where a user writes both.
    """
    parts = None
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unmatched bracket, an invalid port
        known = False
    if parts is None or not known or visible(url) != url or " " in url:
        raise SettingsError(f"{what}: expected an http:// or https:// address behind it, as in {what}{between}<url>.")
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
    """An answer's JSON. Raises ValueError, also if it is nested too deeply for Python or in too many parts."""
    if content.count(b"[") + content.count(b"{") > MOST_CONTAINERS:
        raise ValueError("too many lists and objects")
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

    def __post_init__(self) -> None:
        limits = {"timeout": LONGEST_TIMEOUT, "retries": MOST_RETRIES, "pause": LONGEST_PAUSE_SECONDS}
        for name, most in limits.items():
            if not (0 <= (value := getattr(self, name)) <= most) or (name == "timeout" and not value):
                raise SettingsError(f"{name} of {self.address} is {value:g}; expected 0 to {most:g}.")

    def post(self, body: dict[str, Any]) -> bytes:
        """The answer's content. Raises EncoderError, in one line, if there is none."""
        content, began, tries = json.dumps(body).encode(), time.monotonic(), 0
        while True:
            tries += 1
            try:
                return _within(self.timeout, lambda: self._send(content))
            except _MayPass as failure:
                wait = min(max(self.pause * 2 ** (tries - 1), failure.retry_after), LONGEST_PAUSE_SECONDS)
                if tries > self.retries or time.monotonic() + wait - began > LONGEST_SECONDS:
                    raise EncoderError(
                        f"{self.address} gives no answer in {tries} tries ({failure.reason}); is the server running?"
                    ) from None
                say(f"{self.address}: {failure.reason}; trying again in {wait:.3g} s")
                time.sleep(wait)

    def _send(self, content: bytes) -> bytes:
        import httpx

        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
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
        content = bytearray()
        for part in self._unpacked(answer, most):
            content += part
            if len(content) > most:
                if cut:
                    break
                raise EncoderError(
                    f"{self.address} answers with more than {most >> 20} MiB; is it the right address? "
                    "If it is, send it fewer texts at a time."
                )
            if time.monotonic() > until:
                raise _MayPass(_timed_out(self.timeout))
        return bytes(content)

    def _unpacked(self, answer: httpx.Response, most: int) -> Iterator[bytes]:
        """The content piece by piece, each at most one byte longer than ``most``."""
        packing = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if packing == "identity":
            yield from answer.iter_raw()
            return
        if packing != "gzip":
            raise EncoderError(f"{self.address} packs its answer by {excerpt(packing.encode())}; gzip was asked for.")
        unpacker = zlib.decompressobj(GZIP)
        try:
            for piece in answer.iter_raw():
                yield unpacker.decompress(piece, most + 1)
                rest = unpacker.unconsumed_tail
                while rest:
                    yield unpacker.decompress(rest, most + 1)
                    rest = unpacker.unconsumed_tail
                if unpacker.unused_data:
                    raise _MayPass("the answer is damaged: something follows its gzip")
        except zlib.error as error:
            raise _MayPass(f"the answer is damaged: {error}") from error
        if not unpacker.eof:
            raise _MayPass("the answer is damaged: its gzip ends early")

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


def _within(seconds: float, send: Callable[[], bytes]) -> bytes:
    """What ``send`` returns or raises; time-outs of the connection are for each piece, not for all of them together."""
    found: SimpleQueue[tuple[bytes, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            found.put((send(), None))
        except Exception as error:
            found.put((b"", error))

    Thread(target=run, daemon=True).start()
    try:
        content, failure = found.get(timeout=seconds + GRACE_SECONDS)
    except Empty:
        raise _MayPass(_timed_out(seconds)) from None
    if failure is not None:
        raise failure
    return content


def _timed_out(seconds: float) -> str:
    return f"the answer was not complete after {seconds:g} s: timed out"


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
