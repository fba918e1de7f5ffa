"""A client of ``polypref serve``, and a reward function of TRL's trainers that asks a server.

    from polypref.serve.client import Client, Reward
    with Client("http://localhost:8080", key="...") as client:
        ranking = client.rank("What shall I read?", ["A novel.", "A history."], user="ann")
        client.feedback(ranking.prompt, chosen=ranking.texts[0], rejected=ranking.texts[1], user="ann")

    GRPOTrainer("my/model", reward_funcs=Reward("http://localhost:8080", user_column="user_id"), ...)

``AsyncClient`` has the same methods to await. Busy servers (429, 503) and dropped connections are asked again; every
judgement has an id, so it is stored once however often it is sent. Any other refusal, and a server that stays silent,
is an error: a reward function that failed must stop the training, not let it go on without rewards.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from polypref.align.rewards import Text, text_of
from polypref.errors import InputError, PolyprefError

BUSY = (429, 503)
LONGEST_PAUSE_S = 10.0
MOST_TEXTS, MOST_CHARACTERS = 256, 500_000  # of one request for rewards


class Refused(PolyprefError):
    """The server refused a request, or gave no answer; ``status`` is None where there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Ranking:
    """An answer: ``texts`` that may be shown, best first, with their ``scores``; ``order`` are their places as given.

    ``blocked`` are the places of what the bounds held back, ``source`` says who answered (personal, group or
    population), and ``request`` names the answer for ``feedback``.
    """

    request: str
    prompt: str
    texts: tuple[str, ...]
    scores: tuple[float, ...]
    order: tuple[int, ...]
    blocked: tuple[int, ...]
    source: str
    judgements: int


@dataclass(frozen=True)
class _Call:
    """One request; ``user`` is named in the path where there is no body."""

    method: str
    path: str
    body: dict[str, Any] | None = None

    @property
    def url(self) -> str:
        return self.path.lstrip("/")


def _rank(prompt: str, texts: Sequence[str], user: str | None, category: str, top_n: int | None) -> _Call:
    body = {"query": prompt, "documents": list(texts), "user": user, "category": category, "top_n": top_n}
    return _Call("POST", "/rerank", body)


def _ranking(prompt: str, texts: Sequence[str], found: Mapping[str, Any]) -> Ranking:
    order: tuple[int, ...] = tuple(one["index"] for one in found["results"])
    return Ranking(
        found["id"],
        prompt,
        tuple(texts[at] for at in order),
        tuple(one["relevance_score"] for one in found["results"]),
        order,
        tuple(found["bounds"].get("blocked", ())),
        found["personalization"]["source"],
        found["personalization"]["judgements"],
    )


def _feedback(prompt: str | None, chosen: str | int, user: str, more: Mapping[str, Any]) -> _Call:
    body = {"prompt": prompt, "chosen": chosen, "user": user, **more}
    body.setdefault("id", uuid.uuid4().hex)
    return _Call("POST", "/v1/feedback", {name: value for name, value in body.items() if value is not None})


def _rewards(prompts: Sequence[Any], texts: Sequence[str], users: Sequence[str | None]) -> list[_Call]:
    """Requests for rewards, none of them too large. Raises InputError for lists of several lengths."""
    if not len(prompts) == len(texts) == len(users):
        raise InputError(f"{len(prompts)} prompts, {len(texts)} texts, {len(users)} users; expected one of each.")
    calls: list[_Call] = []
    begun = characters = 0
    for at, text in enumerate([*texts, ""]):
        if at > begun and (at == len(texts) or at - begun == MOST_TEXTS or characters + len(text) > MOST_CHARACTERS):
            part = slice(begun, at)
            body = {"prompts": list(prompts[part]), "responses": list(texts[part]), "labels": _labels(users[part])}
            calls.append(_Call("POST", "/get_reward", body))
            begun, characters = at, 0
        characters += len(text)
    return calls


def _labels(users: Sequence[str | None]) -> list[Any]:
    return [None if user is None else {"user_id": user} for user in users]


def _of(user: str, rest: str = "", method: str = "GET") -> _Call:
    return _Call(method, f"/u/{quote(user, safe='')}/v1/users/me{rest}")


def _read(call: _Call, answer: httpx.Response) -> Any:
    """The answer's JSON. Raises Refused."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.is_success and found is not None:
        return found
    told = found.get("message", found.get("error")) if isinstance(found, dict) else None
    what = told if isinstance(told, str) else f"HTTP {answer.status_code} and no JSON; is it polypref serve?"
    raise Refused(f"{answer.url.host} refuses {call.path.split('?')[0]}: {what}", answer.status_code)


def _pauses(retries: int) -> Iterator[float]:
    """Seconds before each further try."""
    return (min(0.2 * 2**at, LONGEST_PAUSE_S) for at in range(retries))


def _asked_to_wait(answer: httpx.Response, pause: float) -> float:
    told = answer.headers.get("retry-after", "")
    return min(max(pause, float(told)), LONGEST_PAUSE_S) if told.isdigit() else pause


def _silent(url: str, error: Exception) -> Refused:
    return Refused(f"{url} gives no answer ({str(error) or type(error).__name__}); is the server running?")


def _settings(url: str, key: str, timeout: float) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise InputError(f"the address {url!r} is none of a server; expected http://host:8080.")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": f"{url.rstrip('/')}/", "headers": headers, "timeout": timeout}


class Client:
    """A connection to one server; ``key`` is an API key. Raises InputError for an address that is none."""

    def __init__(self, url: str, *, key: str = "", timeout: float = 60.0, retries: int = 4) -> None:
        self.url, self.retries = url, retries
        self._http = httpx.Client(**_settings(url, key, timeout))

    def rank(
        self,
        prompt: str,
        texts: Sequence[str],
        user: str | None = None,
        *,
        category: str = "",
        top_n: int | None = None,
    ) -> Ranking:
        """The texts in this person's order; without a user, in everybody's. Raises Refused, as all methods do."""
        return _ranking(prompt, texts, self._send(_rank(prompt, texts, user, category, top_n)))

    def feedback(self, prompt: str | None, chosen: str | int, *, user: str, **more: Any) -> dict[str, Any]:
        """Store a judgement: with ``rejected`` (and ``tie``), ``rating`` or ``thumb``; see docs/serve.md.

        ``request`` of a ranking instead of the prompt allows numbers of its texts as given.
        """
        return self._send(_feedback(prompt, chosen, user, more))

    def rewards(self, prompts: Sequence[Any], texts: Sequence[str], users: Sequence[str | None]) -> list[float]:
        """The reward of each text for its user, as trainers need it: a blocked one gets the server's floor."""
        return [one for call in _rewards(prompts, texts, users) for one in self._send(call)["rewards"]]

    def known(self, user: str) -> dict[str, Any]:
        """What is known of a person, in numbers and words."""
        return self._send(_of(user))

    def export(self, user: str) -> dict[str, Any]:
        """All of a person's judgements."""
        return self._send(_of(user, "/export"))

    def pause(self, user: str, paused: bool = True) -> dict[str, Any]:
        """Keep a person's judgements without using them."""
        return self._send(_of(user, f"/pause?paused={str(paused).lower()}", "POST"))

    def leave(self, user: str) -> dict[str, Any]:
        """Remove a person; the receipt."""
        return self._send(_of(user, method="DELETE"))

    def _send(self, call: _Call) -> Any:
        for pause in [*_pauses(self.retries), None]:
            try:
                answer = self._http.request(call.method, call.url, json=call.body)
            except httpx.HTTPError as error:
                if pause is None or not isinstance(error, httpx.TransportError):
                    raise _silent(self.url, error) from error
            else:
                if pause is None or answer.status_code not in BUSY:
                    return _read(call, answer)
                pause = _asked_to_wait(answer, pause)
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """``Client`` with methods to await."""

    def __init__(self, url: str, *, key: str = "", timeout: float = 60.0, retries: int = 4) -> None:
        self.url, self.retries = url, retries
        self._http = httpx.AsyncClient(**_settings(url, key, timeout))

    async def rank(
        self,
        prompt: str,
        texts: Sequence[str],
        user: str | None = None,
        *,
        category: str = "",
        top_n: int | None = None,
    ) -> Ranking:
        """See ``Client``."""
        return _ranking(prompt, texts, await self._send(_rank(prompt, texts, user, category, top_n)))

    async def feedback(self, prompt: str | None, chosen: str | int, *, user: str, **more: Any) -> dict[str, Any]:
        """See ``Client``."""
        return await self._send(_feedback(prompt, chosen, user, more))

    async def rewards(self, prompts: Sequence[Any], texts: Sequence[str], users: Sequence[str | None]) -> list[float]:
        """See ``Client``."""
        found = await asyncio.gather(*map(self._send, _rewards(prompts, texts, users)))
        return [one for part in found for one in part["rewards"]]

    async def known(self, user: str) -> dict[str, Any]:
        """See ``Client``."""
        return await self._send(_of(user))

    async def export(self, user: str) -> dict[str, Any]:
        """See ``Client``."""
        return await self._send(_of(user, "/export"))

    async def pause(self, user: str, paused: bool = True) -> dict[str, Any]:
        """See ``Client``."""
        return await self._send(_of(user, f"/pause?paused={str(paused).lower()}", "POST"))

    async def leave(self, user: str) -> dict[str, Any]:
        """See ``Client``."""
        return await self._send(_of(user, method="DELETE"))

    async def _send(self, call: _Call) -> Any:
        for pause in [*_pauses(self.retries), None]:
            try:
                answer = await self._http.request(call.method, call.url, json=call.body)
            except httpx.HTTPError as error:
                if pause is None or not isinstance(error, httpx.TransportError):
                    raise _silent(self.url, error) from error
            else:
                if pause is None or answer.status_code not in BUSY:
                    return _read(call, answer)
                pause = _asked_to_wait(answer, pause)
            await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


@dataclass(frozen=True)
class Reward:
    """A reward function of TRL's trainers that asks a server; ``user_column`` None: for the population's rewards.

    ``prompt_column`` has the prompts as people judged them, if the model reads them in a template. What the bounds hold
    back gets the server's floor, lower than every other reward.
    """

    url: str
    user_column: str | None = "user_id"
    prompt_column: str | None = None
    key: str = field(default="", repr=False)
    timeout: float = 60.0

    @property
    def __name__(self) -> str:
        """The reward's name in TRL's logs."""
        return "polypref-server"

    def __call__(self, *, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        """One reward per completion. Raises InputError for a missing column or user, Refused."""
        users: list[str | None] = [None] * len(completions)
        if self.user_column is not None:
            users = [self._user(value, at) for at, value in enumerate(_column(columns, self.user_column))]
        if self.prompt_column is not None:
            prompts = _column(columns, self.prompt_column)
        asked = [one if isinstance(one, str) else [dict(message) for message in one] for one in prompts]
        with Client(self.url, key=self.key, timeout=self.timeout) as client:
            return client.rewards(asked, [text_of(completion) for completion in completions], users)

    def _user(self, value: Any, at: int) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int):
            found = f"{self.user_column} of row {at} of a batch is {value!r}"
            raise InputError(f"{found}; expected a user id, text or a whole number.")
        return str(value)


def _column(columns: Mapping[str, Any], name: str) -> Sequence[Any]:
    if name not in columns:
        known = ", ".join(name for name, value in columns.items() if isinstance(value, list))
        raise InputError(
            f"the dataset has no column {name!r}; found: {known or 'none'}. Set user_column or prompt_column."
        )
    return columns[name]
