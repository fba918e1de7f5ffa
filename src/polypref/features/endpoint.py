"""Embeddings from a server with OpenAI's ``/v1/embeddings`` interface: vLLM, TEI, llama.cpp, Ollama, or a paid service.

``endpoint:<url>`` is the server's base (``http://localhost:8000/v1``) or full address; the model's name follows a
``#``: ``endpoint:http://localhost:8000/v1#BAAI/bge-small-en-v1.5``. An API key is read from an environment variable
when a request is sent; it is never stored, shown or part of the identity.

Covered: requests to busy and failing servers (429, 5xx, dropped connections) are retried after a growing pause. Not
covered: a server that changes its model under an unchanged name; its length limit (the server handles texts that are
too long).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urldefrag

import numpy as np

from polypref.comparisons import IntArray, Responses
from polypref.errors import EncoderError
from polypref.features.cache import Features
from polypref.features.encode_missing import Cache, TextMode, batches, cache_in_force, encode_cached, pairs
from polypref.features.protocol import Read
from polypref.http import Server, check_url, excerpt, key_from, parsed
from polypref.network_access import Permission, present


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible embeddings server.

    ``url``         base or full address, followed by ``#model``. Never put a password or key into it.
    ``text``        "response": the response alone; "joint": prompt, blank line, response.
    ``batch_size``  texts per request; ``timeout`` seconds per request; ``retries`` after a temporary failure;
                    ``pause`` seconds before the first retry, doubling.
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
    cache: Cache = field(default_factory=cache_in_force, compare=False)
    features: Read = "pair"
    permission: Permission = field(default_factory=present, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_url(self.url, "endpoint", self.key_variable)
        self.permission.ensure(self.address)

    @property
    def name(self) -> str:
        return f"endpoint:{self.url}"

    @property
    def identity(self) -> str:
        return f"endpoint:{self.address} model={self.model or '-'} text={self.text}"

    @property
    def address(self) -> str:
        """The full address of ``/embeddings``."""
        base = urldefrag(self.url).url.rstrip("/")
        return base if base.endswith("/embeddings") else f"{base}/embeddings"

    @property
    def model(self) -> str:
        """The part after the ``#``, "" if there is none."""
        return urldefrag(self.url).fragment

    def encode(self, responses: Responses) -> Features:
        """``features_RD`` as the server gives them; cached. Raises EncoderError if it gives none, CacheError."""
        return encode_cached(self, self.text, responses)

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        texts = ["\n\n".join(pair) if pair[0] else pair[1] for pair in pairs(responses, self.text)]
        width = None
        for index_B in batches(responses.lengths_R, self.batch_size):
            # most servers refuse an empty input; a space is read as empty
            features_BD = self._parse(self._ask([texts[i] or " " for i in index_B]), len(index_B))
            if width not in (None, features_BD.shape[1]):
                raise self._malformed(f"vectors of {features_BD.shape[1]} numbers after vectors of {width}")
            width = features_BD.shape[1]
            yield index_B, features_BD

    def _ask(self, texts: list[str]) -> bytes:
        variable = self.permission.key(self.key_variable, self.address)
        key = key_from(variable) if variable else ""
        server = Server(self.address, self.timeout, self.retries, self.pause, key, self.key_variable)
        return server.post({"input": texts, "encoding_format": "float"} | ({"model": self.model} if self.model else {}))

    def _parse(self, content: bytes, count: int) -> Features:
        try:
            data: list[dict[str, Any]] = parsed(content)["data"]
            rows = sorted(data, key=lambda row: row["index"]) if all("index" in row for row in data) else data
            features_BD = np.array([row["embedding"] for row in rows], np.float32)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise self._malformed(excerpt(content)) from error
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
