"""Vectors from a server that speaks OpenAI's ``/v1/embeddings``: vLLM, TEI, llama.cpp, Ollama, or a paid service.

``endpoint:<url>`` is the server's base (``http://localhost:8000/v1``) or full address; the model is named behind a
``#``: ``endpoint:http://localhost:8000/v1#BAAI/bge-small-en-v1.5``. An API key is read from an environment variable
when a request is sent; it is never stored, shown or part of the identity.

Covered: busy and failing servers (429, 5xx, dropped connections) are asked again after a growing pause. Not covered: a
server that changes its model behind an unchanged name; its length limit (too long texts are its affair).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np

from polypref.comparisons import IntArray, Responses
from polypref.errors import EncoderError, SettingsError
from polypref.features.cache import Features
from polypref.features.fill import TextMode, batches, encode_cached, pairs

LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible embeddings server.

    ``url``         base or full address, ``#model`` behind it. Never put a password or key into it.
    ``text``        "response": the response alone; "joint": prompt, blank line, response.
    ``batch_size``  texts per request; ``timeout`` seconds per request; ``retries`` further tries after a failure that
                    may pass; ``pause`` seconds before the first of them, doubling.
    ``key_variable`` environment variable that holds the API key; unset means that none is sent.
    """

    url: str
    text: TextMode = "response"
    batch_size: int = 64
    timeout: float = 60.0
    retries: int = 5
    pause: float = 1.0
    key_variable: str = "POLYPREF_API_KEY"
    cache_folder: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("endpoint: expected an http:// or https:// address behind it, as in endpoint:<url>.")
        if parts.username or parts.password or parts.query:
            raise SettingsError(
                f"endpoint at {parts.hostname}: the address carries a user, password or query; "
                f"put the key into the environment variable {self.key_variable} instead."
            )

    @property
    def name(self) -> str:
        return f"endpoint:{self.url}"

    @property
    def identity(self) -> str:
        return f"endpoint:{self.address} model={self.model or '-'} text={self.text}"

    @property
    def address(self) -> str:
        """Where requests go: the full address of ``/embeddings``."""
        base = urldefrag(self.url).url.rstrip("/")
        return base if base.endswith("/embeddings") else f"{base}/embeddings"

    @property
    def model(self) -> str:
        """What stands behind the ``#``, "" when nothing does."""
        return urldefrag(self.url).fragment

    def encode(self, responses: Responses) -> Features:
        """``features_RD`` as the server gives them; cached. Raises EncoderError when it gives none, CacheError."""
        return encode_cached(self, self.text, responses)

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        texts = ["\n\n".join(pair) if pair[0] else pair[1] for pair in pairs(responses, self.text)]
        width = None
        for index_B in batches(responses.lengths_R, self.batch_size):
            # an empty input is an error for most servers; a space is read as nothing
            features_BD = self._parse(self._ask([texts[i] or " " for i in index_B]), len(index_B))
            if width not in (None, features_BD.shape[1]):
                raise self._malformed(f"vectors of {features_BD.shape[1]} numbers after vectors of {width}")
            width = features_BD.shape[1]
            yield index_B, features_BD

    def _ask(self, texts: list[str]) -> bytes:
        body = {"input": texts, "encoding_format": "float"} | ({"model": self.model} if self.model else {})
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
                    print(f"{self.address}: {reason}; trying again in {wait:.3g} s", file=sys.stderr, flush=True)  # noqa: T201
                    time.sleep(wait)
        tries = self.retries + 1
        raise EncoderError(f"{self.address} gives no answer in {tries} tries ({reason}); is the server running?")

    def _send(self, request: Request, key: str) -> bytes:
        try:
            with _OPENER.open(request, timeout=self.timeout) as answer:
                return answer.read()
        except HTTPError as error:
            said = error.read().replace(key.encode(), b"***") if key else error.read()
            reason = f"HTTP {error.code} {error.reason}: {_excerpt(said)}"
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
            return "check the address and the model's name, as in endpoint:http://host:8000/v1#model."
        return "check the model's name behind the # and its length limit."

    def _parse(self, content: bytes, count: int) -> Features:
        try:
            data: list[dict[str, Any]] = json.loads(content)["data"]
            rows = sorted(data, key=lambda row: row["index"]) if all("index" in row for row in data) else data
            features_BD = np.array([row["embedding"] for row in rows], np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise self._malformed(_excerpt(content)) from error
        if len(features_BD) and (features_BD.ndim != 2 or not features_BD.shape[1]):
            raise self._malformed("vectors of no numbers")
        if len(features_BD) != count:
            raise self._malformed(f"{len(features_BD)} vectors for {count} texts")
        return features_BD

    def _malformed(self, found: str) -> EncoderError:
        return EncoderError(
            f"{self.address} does not answer in the form of OpenAI's /v1/embeddings: found {found}; "
            'expected {"data": [{"index": 0, "embedding": [numbers]}, ...]}.'
        )


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


def _excerpt(content: bytes) -> str:
    text = " ".join(content[:400].decode("utf-8", "replace").split())
    return repr(text if len(text) <= 120 else text[:120] + "...")
