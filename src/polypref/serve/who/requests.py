"""Who makes a request, found out in the same way by every route."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar
from urllib.parse import unquote

from fastapi import Request
from pydantic import BaseModel, ConfigDict

from polypref.errors import InputError, PolyprefError
from polypref.serve.running.log import note
from polypref.serve.store.contract import Person
from polypref.serve.who.person import Key, NotYours, Unauthorized, asking

ME = "me"  # in a path: whoever asks
Found = TypeVar("Found")


class ClientLeft(PolyprefError):
    """The client closed its connection before it had an answer."""


class NamesUser(BaseModel):
    """The fields of a body that name the person who asks."""

    model_config = ConfigDict(extra="ignore", strict=True)

    safety_identifier: str | None = None
    user: str | None = None
    user_id: str | None = None


def person_of(request: Request, body: Any = None, also: Iterable[str | None] = ()) -> Person:
    """Who asks: key, path, the body's fields, header, model's name, and the users ``also`` named must agree.

    Raises Unauthorized, TwoPeople, NotYours, InputError, TooMany.
    """
    key = key_of(request)
    if key.user is not None and getattr(body, "category", ""):
        raise NotYours("category chooses which bounds hold, so a key of one person cannot give it; leave it out.")
    named = [*(getattr(body, name, None) for name in NamesUser.model_fields), *also]
    path = request.scope.get("polypref.user")
    return _counted(request, asking(key, path, named, _header(request), getattr(body, "model", None)))


def key_of(request: Request) -> Key:
    """What the request's only key stands for. Raises Unauthorized."""
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        raise Unauthorized("the request has two Authorization headers; give one.")
    return request.app.state.keys.key_of(given[0] if given else None)


def _header(request: Request) -> list[str]:
    """The users whom headers name. Raises InputError."""
    try:
        return [one.encode("latin-1").decode("utf-8") for one in request.headers.getlist("x-user")]
    except UnicodeDecodeError:
        raise InputError("the header X-User is no UTF-8 text; name the user in the body or the path.") from None


def id_in(path: str) -> str:
    """An id in a path, which is as it was in the address."""
    return unquote(path)


def named(person: Person) -> Person:
    """The person. Raises InputError where nobody is named."""
    if person.user is None:
        raise InputError("nobody is named; give user in the body, the header X-User or the path /u/USER.")
    return person


def person_in_path(request: Request, user: str) -> Person:
    """The person of a path ``/v1/users/{user}``, if the key may see them. Raises Unauthorized, TwoPeople."""
    return named(person_of(request, also=[] if id_in(user) == ME else [id_in(user)]))


def _counted(request: Request, person: Person) -> Person:
    """The person, in the log's line and in the rates, once for each request. Raises TooMany."""
    note(person=person)
    if not getattr(request.state, "counted", False):
        request.state.counted = True
        request.app.state.rates.take(person)
    return person


async def unless_left(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """What ``work`` gives; it is cancelled when the client leaves. Raises ClientLeft, and what ``work`` raises."""
    task, left = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft("the client left.")
        return task.result()
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
