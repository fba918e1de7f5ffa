"""A judge on a server with OpenAI's protocol: vLLM, llama.cpp, ``transformers serve``, or a paid service.

For ``http://localhost:8000/v1#model`` requests go to ``/v1/chat/completions``; a full address that ends in
``/completions`` gets plain text. Temporary failures are retried (``http``); answers before a permanent failure are
kept. Not covered: a server that changes its model under an unchanged name; its length limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urldefrag

import numpy as np

from polypref.comparisons import IntArray
from polypref.errors import EncoderError
from polypref.http import Server, check_url, excerpt, key_from, parsed
from polypref.judges.protocol import TOP, Question, Reply
from polypref.network_access import Permission, present

TOGETHER = 32  # questions between two writes to the disk
T = TypeVar("T")
TOP_PLAIN = 5  # maximum log-probabilities from /completions


@dataclass(frozen=True)
class Chat:
    """An OpenAI-compatible server; ``parallel`` requests at a time, the other settings as in ``http.Server``."""

    url: str
    timeout: float = 60.0
    retries: int = 5
    pause: float = 1.0
    key_variable: str = "POLYPREF_API_KEY"
    parallel: int = 4
    permission: Permission = field(default_factory=present, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_url(self.url, "judge", self.key_variable)
        self.permission.ensure(self.address)

    @property
    def name(self) -> str:
        return self.url

    @property
    def identity(self) -> str:
        return f"judge:{self.address} model={self.model or '-'}"

    @property
    def address(self) -> str:
        """The address for questions."""
        base = urldefrag(self.url).url.rstrip("/")
        return base if base.endswith("/completions") else f"{base}/chat/completions"

    @property
    def model(self) -> str:
        """The part after the ``#``, "" if there is none."""
        return urldefrag(self.url).fragment

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[IntArray, list[Reply]]]:
        """See ``judge.LanguageModel``. Raises EncoderError only after yielding all answers received."""
        with ThreadPoolExecutor(self.parallel) as threads:
            for start in range(0, len(questions), TOGETHER):
                together = range(start, min(start + TOGETHER, len(questions)))
                waiting = {at: threads.submit(self._reply, questions[at].text()) for at in together}
                answered: dict[int, Reply] = {}
                failure: EncoderError | None = None
                for at, future in waiting.items():
                    try:
                        if not future.cancelled():
                            answered[at] = future.result()
                    except EncoderError as error:
                        failure = failure or error
                        for other in waiting.values():
                            other.cancel()
                if answered:
                    yield np.array(list(answered), np.int32), list(answered.values())
                if failure is not None:
                    raise failure

    def _reply(self, text: str) -> Reply:
        body: dict[str, Any] = {"max_tokens": 1, "temperature": 0}
        if self.address.endswith("/chat/completions"):
            body |= {"messages": [{"role": "user", "content": text}], "logprobs": True, "top_logprobs": TOP}
        else:
            body |= {"prompt": text, "logprobs": TOP_PLAIN}
        return self.asked(body, _parse)

    def asked(self, body: dict[str, Any], parse: Callable[[dict[str, Any]], T]) -> T:
        """The first choice that the server gives for a request, read by ``parse``. Raises EncoderError."""
        if self.model:
            body = body | {"model": self.model}
        variable = self.permission.key(self.key_variable, self.address)
        key = key_from(variable) if variable else ""
        server = Server(self.address, self.timeout, self.retries, self.pause, key, self.key_variable)
        content = server.post(body)
        try:
            return parse(parsed(content)["choices"][0])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise EncoderError(
                f"{self.address} does not answer in the form of OpenAI's completions: found {excerpt(content)}; "
                'expected {"choices": [{"message": {"content": text}, "logprobs": {...}}]}.'
            ) from error


def _parse(choice: dict[str, Any]) -> Reply:
    """The first token's alternatives in either protocol's form, or the text if there are none."""
    given = choice.get("logprobs") or {}
    if tokens := given.get("content"):
        listed = tokens[0].get("top_logprobs") or [tokens[0]]
        return [(token["token"], token["logprob"]) for token in listed]
    if tokens := given.get("top_logprobs"):
        return list(tokens[0].items())
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return str(text or "")
