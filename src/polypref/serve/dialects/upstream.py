"""The upstream: what writes the candidates for ``/v1/chat/completions``, a server or a model in this process.

``upstream_http`` is the server, ``upstream_local`` the model; ``upstreams`` chooses by the value of ``--upstream``.
Both only have to write; time, metrics and what is too much are the same for both.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from polypref.errors import PolyprefError, SettingsError
from polypref.http import LONGEST_TIMEOUT
from polypref.serve.core import MOST_CHARACTERS

if TYPE_CHECKING:
    from polypref.serve.running.metrics import Metrics

MOST_CANDIDATES = 64
FINISHES = ("stop", "length", "content_filter")


class NoUpstream(PolyprefError):
    """Chat completions are asked for, and the server was started without an upstream."""


class UpstreamFailed(PolyprefError):
    """The upstream gave no usable answer."""


class UpstreamSlow(PolyprefError):
    """The upstream gave no answer in time."""


class UpstreamRefused(PolyprefError):
    """The upstream refused the request with a status that is the client's business: 4xx."""

    def __init__(self, message: str, status: int, retry_after: str | None = None) -> None:
        super().__init__(message, status, retry_after)
        self.message, self.status, self.retry_after = message, status, retry_after

    def __str__(self) -> str:
        return self.message


class TooLong(PolyprefError):
    """The conversation and the tokens asked for are more than the model's context."""


@dataclass(frozen=True)
class Candidate:
    """A text that the upstream wrote, and why it ended there; ``declines``: it is the model's own refusal."""

    text: str
    finish: str
    declines: bool = False


@dataclass(frozen=True)
class Reply:
    """What was written for one prompt. ``usage`` is summed over all requests, None where the upstream gave none.

    ``given`` counts all answers, also those without a usable text, which are not among the candidates.
    """

    candidates: tuple[Candidate, ...]
    given: int
    usage: dict[str, int] | None
    model: str | None

    @property
    def different(self) -> int:
        """How many texts there are; a model at temperature 0 writes one."""
        return len({one.text for one in self.candidates})


class Upstream(ABC):
    """Writes ``candidates`` texts for an answer, in at most ``timeout`` seconds.

    ``model`` is the name that clients see, "" where they choose it; ``shown`` says to people what writes.
    Raises SettingsError for impossible settings.
    """

    model: str
    shown: str

    def __init__(self, candidates: int, timeout: float) -> None:
        if not 1 <= candidates <= MOST_CANDIDATES:
            raise SettingsError(f"--candidates is {candidates}; expected 1 to {MOST_CANDIDATES}.")
        if not 0 < timeout <= LONGEST_TIMEOUT:
            raise SettingsError(f"--upstream-timeout is {timeout:g}; expected seconds up to {LONGEST_TIMEOUT:g}.")
        self.candidates, self.timeout = candidates, timeout
        self.metrics: Metrics | None = None

    @abstractmethod
    async def write(self, body: Mapping[str, Any], many: int) -> Reply:
        """``many`` candidates for OpenAI's ``body``, or fewer if it gives no more; ends when it is cancelled."""

    @abstractmethod
    async def close(self) -> None:
        """Give back what is held."""

    @abstractmethod
    def stop(self) -> None:
        """The server stops: end what keeps it from doing so."""

    async def ask(self, body: Mapping[str, Any], many: int) -> Reply:
        """At most ``many`` candidates. Raises UpstreamFailed, -Slow, -Refused, TooLong, InputError."""
        begun, outcome, found = time.perf_counter(), "failed", Reply((), 0, None, None)
        try:
            async with asyncio.timeout(self.timeout):
                reply = await self.write(body, many)
            _refuse_useless(reply)
            outcome, found = "answered", replace(reply, candidates=reply.candidates[:many])
        except TimeoutError:
            outcome = "slow"
            raise UpstreamSlow(f"the upstream did not answer within {self.timeout:g} s.") from None
        except UpstreamSlow:
            outcome = "slow"
            raise
        except (UpstreamRefused, TooLong):
            outcome = "refused"
            raise
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        finally:
            if self.metrics is not None:
                counts = {"asked": many, "given": len(found.candidates), "different": found.different}
                self.metrics.upstream(outcome, counts, time.perf_counter() - begun)
        return found


def usable(text: object) -> bool:
    """Whether a text can be ranked and stored."""
    if not isinstance(text, str) or not text.strip():
        return False
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _refuse_useless(reply: Reply) -> None:
    """Raise UpstreamFailed for a reply with no text, or with more than can be ranked."""
    if not reply.candidates:
        raise UpstreamFailed("the upstream answered without any text.")
    if sum(len(one.text) for one in reply.candidates) > MOST_CHARACTERS:
        raise UpstreamFailed(f"the upstream wrote more than {MOST_CHARACTERS:,} characters.")
