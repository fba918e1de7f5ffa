"""What a store keeps, and the contract that every store fulfils.

Judgements are append-only and the source of truth; a person's adapted scorer is computed from them. A judgement is
acknowledged after a durable commit, exactly once for each id of a person. An answer keeps the candidates that were
offered, so that later judgements can refer to them. Ids, of any kind, hold no NUL character; texts may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from polypref.content import Message
from polypref.errors import PolyprefError

Kind = Literal["pair", "tie", "rating", "thumb"]
Why = Literal["served", "refit", "rollback"]
Found = TypeVar("Found")


class StoreError(PolyprefError):
    """The store cannot be opened, read or written; nothing of the request was kept."""


class Conflict(PolyprefError):
    """A judgement of the same person with this id, and other content, is stored already."""


@dataclass(frozen=True)
class Person:
    """The person who makes a request: a user of a tenant; ``user`` None: nobody was named."""

    tenant: str
    user: str | None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One act of judging. ``chosen`` is preferred to ``rejected``, or equal to it for a tie; a rating or thumb is of
    ``chosen`` alone, with its ``value``.

    ``request`` is the answer whose candidates were judged; ``context`` holds what else was known (position, seconds,
    arm, propensity, scorer and policy in force).
    """

    id: str
    kind: Kind
    prompt: str | tuple[Message, ...]
    chosen: str
    rejected: str | None = None
    value: float | None = None
    tags: tuple[str, ...] = ()
    comment: str | None = None
    request: str | None = None
    context: dict[str, Any] = {}


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer as it was given: the candidates in the order asked, and what became of them.

    ``rewards`` are those of the texts; None for blocked ones, whose -inf JSON cannot hold.
    """

    request: str
    prompt: str | tuple[Message, ...]
    texts: tuple[str, ...]
    order: tuple[int, ...]
    blocked: tuple[int, ...]
    rewards: tuple[float | None, ...]
    source: str
    scorer: str
    policy: str | None
    route: str
    arm: str | None = None
    propensities: tuple[float, ...] | None = None


class InForceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a scorer was put in force, in the place of ``before`` (None: it was the first).

    ``hash`` names the scorer's folder. ``data`` says what it was fitted on, as far as that is known, and under ``was``
    which hashes it had before it forgot people; ``report`` how it compared with the one before. ``at``: seconds since
    1970, set by the store.
    """

    hash: str
    why: Why
    before: str | None
    data: dict[str, Any] = {}
    report: dict[str, Any] | None = None
    at: float = 0.0


@dataclass(frozen=True)
class Stored:
    """A judgement with its number in the store and when it was stored (seconds since 1970)."""

    seq: int
    at: float
    judgement: Judgement


@dataclass(frozen=True)
class Standing:
    """What is known about a person without reading their judgements: ``version`` changes with every change."""

    version: int = 0
    judgements: int = 0
    paused: bool = False


@dataclass(frozen=True)
class Receipt:
    """What was removed with a person, by table. ``pending``: bytes may be left while somebody reads an older state.

    ``scorers`` are the hashes of those that were fitted with the person; ``stays`` says what the database keeps.
    """

    rows: dict[str, int] = field(default_factory=dict)
    pending: bool = False
    scorers: tuple[str, ...] = ()
    stays: str = ""


def as_stored(text: str) -> bytes:
    """A text as it stands in a row's JSON, without its quotation marks."""
    return msgspec.json.encode(text)[1:-1]


async def reading(store: Store, ask: Callable[..., Found], *arguments: Any) -> Found:
    """What a read of the store finds; made beside the event loop where it may wait for another machine."""
    return await asyncio.to_thread(ask, *arguments) if store.waits else ask(*arguments)


class Store(Protocol):
    """Durable judgements and answers of people; every method raises StoreError where the store fails.

    ``waits``: a read may wait for another machine, so it must not be made on the event loop.
    """

    waits: bool

    def standing(self, person: Person) -> Standing: ...

    def judgements(self, person: Person) -> Sequence[Stored]:
        """All of a person's, in the order in which they were stored."""
        ...

    def offer(self, tenant: str, request: str) -> tuple[Person, Offer] | None: ...

    def judge(self, person: Person, judgement: Judgement) -> Future[bool]:
        """Store it; the future is done after a durable commit: True if it is new, False if the same one was there.

        Its exception is Conflict for the person's same id with other content, StoreError if nothing was kept. Ids of
        other people do not matter.
        """
        ...

    def made(self, tenant: str, judgement_id: str) -> Sequence[tuple[Person, Stored]]:
        """The judgements with this id, at most one of each person, in the order in which they were stored."""
        ...

    def replace(self, person: Person, judgement: Judgement) -> Future[bool]:
        """Store it as ``judge`` does, in place of the person's other one with its id, in one commit.

        False: it was there.
        """
        ...

    def offered(self, person: Person, offer: Offer) -> Future[None]:
        """Keep an answer; nobody has to wait for it."""
        ...

    def pause(self, person: Person, paused: bool) -> Future[None]:
        """Whether the person's judgements are used for their answers; they are kept in any case."""
        ...

    def undo(self, person: Person, judgement_id: str) -> Future[bool]:
        """Take one judgement back; False if there is none with this id."""
        ...

    def forget(self, person: Person) -> Receipt:
        """Remove every row of a person, durably, and overwrite its content."""
        ...

    def people(self, tenant: str) -> Sequence[str]: ...

    def offers(self, person: Person) -> Sequence[Offer]:
        """All answers that were given to a person."""
        ...

    def held(self, texts: Sequence[str]) -> set[str]:
        """Which of these texts, at most some hundreds, any row holds; it reads all rows once."""
        ...

    def files(self) -> Sequence[Path]:
        """The files that rows are in, on this machine."""
        ...

    # --- scorers

    def in_force(self) -> str | None:
        """The hash of the scorer that was put in force last; None: none ever was."""
        ...

    def scorers(self) -> Sequence[InForceRow]:
        """Every time that a scorer was put in force, oldest first."""
        ...

    def put_in_force(self, row: InForceRow, fitted: Iterable[str] = (), people: Iterable[Person] = ()) -> Future[None]:
        """Put a scorer in force, durably. ``fitted``: the people in its fit, as scorers know them.

        The future's exception is Conflict where another one than ``row.before`` is in force, or one of ``people`` left.
        """
        ...

    def fitted_with(self, name: str) -> Sequence[str]:
        """Hashes of the scorers whose fit had this person, named as scorers know them."""
        ...

    def newest(self, most: int) -> tuple[int, int]:
        """The numbers between which the newest ``most`` judgements of everybody lie: after the first, up to the
        second."""
        ...

    def everybodys(self, after: int, upto: int, most: int) -> Sequence[tuple[Person, Stored]]:
        """Judgements of all who have not paused, at most ``most``, in the order in which they were stored."""
        ...

    def forgotten(self, hash_of: dict[str, str], names: Sequence[str]) -> Future[None]:
        """Scorers without ``names`` have taken the places of others: new hashes by old ones."""
        ...

    def rewritten(self) -> bool:
        """Write the files anew, so that they hold nothing but the rows; False where that would take too long."""
        ...

    def close(self) -> None:
        """Finish what was accepted, then stop."""
        ...
