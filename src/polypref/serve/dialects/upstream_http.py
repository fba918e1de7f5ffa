"""An OpenAI-compatible server as the upstream.

``--upstream http://host:8000/v1#model``. All candidates are asked for in one request (``n``). A server that ignores
``n``, or refuses it, is asked for one at a time, at the same time.

Covered: all requests for one answer together are bounded in time, their content in size; redirects are refused; a
client that leaves ends them; the key stands in an environment variable, is sent to this address only, and is masked in
what the upstream says. Only the text of a candidate is kept: calls of tools, reasoning, sounds and log-probabilities
are dropped, since no bounds judge them. Not covered: retries, which would pay for candidates twice; clients retry.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urldefrag

import httpx

from polypref.arguments import quoted
from polypref.errors import PolyprefError
from polypref.http import check_url, key_from, parsed
from polypref.serve.dialects.upstream import (
    FINISHES,
    Candidate,
    Reply,
    Upstream,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamSlow,
    usable,
)

KEY = "POLYPREF_UPSTREAM_KEY"
LARGEST = 16 << 20  # bytes of an answer
LARGEST_REFUSAL = 64 << 10
MOST_CONNECTIONS = 256
IDLE_S = 2.0  # that a connection is kept; servers close theirs after 5
KNOWS_NO_N = (400, 422)  # what servers answer that refuse ``n``


class HttpUpstream(Upstream):
    """The server at ``url`` (base or full address, perhaps with ``#model``), asked for ``candidates`` texts.

    ``timeout`` seconds for all that one answer needs. Raises SettingsError for impossible settings.
    """

    def __init__(self, url: str, candidates: int = 4, timeout: float = 60.0) -> None:
        check_url(url, "--upstream", KEY, " ")
        super().__init__(candidates, timeout)
        base = urldefrag(url).url.rstrip("/")
        self.address = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        self.model = urldefrag(url).fragment
        self.shown = f"{self.model} at {self.address}" if self.model else self.address
        self._key = key_from(KEY)
        self._together = True  # whether it gives several candidates in one answer
        self._client: httpx.AsyncClient | None = None

    async def write(self, body: Mapping[str, Any], many: int) -> Reply:
        return _joined(await self._enough(body, many))

    def stop(self) -> None:
        pass  # what is in hand is answered; nothing here holds up the process

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _enough(self, body: Mapping[str, Any], many: int) -> list[Reply]:
        """Replies with ``many`` answers together, if the upstream gives as many."""
        if many == 1:
            return [await self._one(body)]
        replies: list[Reply] = []
        if self._together:
            try:
                replies = [await self._one({**body, "n": many})]
            except UpstreamRefused as refused:
                if refused.status not in KNOWS_NO_N:
                    raise
                replies = [await self._one(body)]  # raises if it is not n that it refuses
            self._together = replies[0].given > 1
        given = sum(one.given for one in replies)
        more = await asyncio.gather(
            *(self._one(_seeded(body, at)) for at in range(given, many)), return_exceptions=True
        )
        replies += [one for one in more if isinstance(one, Reply)]
        for failure in more:
            if isinstance(failure, BaseException) and (not replies or not isinstance(failure, PolyprefError)):
                raise failure
        return replies

    async def _one(self, body: Mapping[str, Any]) -> Reply:
        """One request's reply."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            content = json.dumps(body).encode()
            async with self._connected().stream("POST", self.address, content=content, headers=headers) as answer:
                if answer.is_success:
                    return _reply(await _read(answer, LARGEST))
                raise self._refused(answer, await _read(answer, LARGEST_REFUSAL, cut=True))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise UpstreamFailed(f"the upstream gives no answer ({self._told(error)}); is it running?") from error

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            limits = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=IDLE_S)
            self._client = httpx.AsyncClient(follow_redirects=False, limits=limits, timeout=None)
        return self._client

    def _refused(self, answer: httpx.Response, content: bytes) -> PolyprefError:
        status = answer.status_code
        if status in (408, 504):
            return UpstreamSlow(f"the upstream reports a time-out (HTTP {status}).")
        if status in (401, 403, 407):
            return UpstreamFailed(
                f"the upstream refuses this server (HTTP {status}); its operator has to set {KEY} to a valid key."
            )
        if not 400 <= status < 500:
            return UpstreamFailed(f"the upstream failed (HTTP {status}).")
        retry = answer.headers.get("retry-after", "")
        return UpstreamRefused(
            f"the upstream refuses the request (HTTP {status}): {self._told(_message(content))}",
            status,
            retry if retry.isascii() and retry.isdecimal() else None,
        )

    def _told(self, said: object) -> str:
        """At most 300 characters of what the upstream said, on one line, without the key."""
        text = " ".join(str(said).split()) or type(said).__name__
        return (text.replace(self._key, "***") if self._key else text)[:300]


def _message(content: bytes) -> str:
    """The message in an error's body, or the body as it is."""
    try:
        told = parsed(content)
        told = told.get("error", told)
        return told if isinstance(told, str) else str(told["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return content.decode("utf-8", "replace")


async def _read(answer: httpx.Response, most: int, cut: bool = False) -> bytes:
    """The content, or its beginning if it may be ``cut``. Raises UpstreamFailed if there is more."""
    packing = answer.headers.get("content-encoding", "identity").strip().lower()
    if packing != "identity":
        raise UpstreamFailed(f"the upstream packs its answer ({quoted(packing)}), which was not asked for.")
    content = bytearray()
    async for part in answer.aiter_raw():
        content += part
        if len(content) > most:
            if cut:
                break
            raise UpstreamFailed(f"the upstream answers with more than {most >> 20} MiB.")
    return bytes(content[:most])


def _seeded(body: Mapping[str, Any], at: int) -> Mapping[str, Any]:
    """The body for candidate number ``at``: with one seed for all of them, they would be one text."""
    seed = body.get("seed")
    return {**body, "seed": seed + at} if isinstance(seed, int) and at else body


def _reply(content: bytes) -> Reply:
    """A chat completion's texts. Raises UpstreamFailed for anything else."""
    try:
        data = parsed(content)
        choices = [_candidate(one) for one in data["choices"]]
        usage = data.get("usage")
        model = data.get("model")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UpstreamFailed("the upstream does not answer in the form of OpenAI's chat completions.") from error
    kept = tuple(one for one in choices if one is not None)
    return Reply(kept, len(choices), _usage(usage), model if isinstance(model, str) else None)


def _candidate(choice: Mapping[str, Any]) -> Candidate | None:
    """A choice's text; None if it has none that could be ranked and stored."""
    message, finish = choice["message"], choice.get("finish_reason")
    text, declined = message.get("content"), message.get("refusal")
    declines = not text and isinstance(declined, str)
    said = declined if declines else text
    if not isinstance(said, str) or not usable(said) or message.get("tool_calls") or message.get("function_call"):
        return None
    return Candidate(said, finish if finish in FINISHES else "stop", declines)


def _usage(given: object) -> dict[str, int] | None:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    if not isinstance(given, dict) or not all(type(given.get(name)) is int for name in names):
        return None
    return {name: given[name] for name in names}


def _joined(replies: Sequence[Reply]) -> Reply:
    """All replies as one."""
    used = [one.usage for one in replies if one.usage is not None]
    usage = {name: sum(one[name] for one in used) for name in used[0]} if used and len(used) == len(replies) else None
    candidates = tuple(one for reply in replies for one in reply.candidates)
    return Reply(candidates, sum(one.given for one in replies), usage, replies[0].model)
