"""A store whose rows nobody can read without a key: a store around another one, and around a second one for keys.

    the store         judgements and answers, encrypted; ids of people, tenants and judgements as keyed hashes
    the store of keys one data key for each person, encrypted with the master key
    the master key    in the environment or a file; it is never stored

Who leaves loses the data key: rows in old copies of the store can then be read by nobody, whoever has the master key.
That holds as far as no copy of the store of keys is kept: it needs backups of its own, which replace each other.

Rows are encrypted with AES-SIV (RFC 5297), whose result depends on nothing but key and content, so that a judgement
that is sent twice is still known as the same. A row's id is authenticated with it, so rows cannot be swapped.

Not covered: what the server has in memory, the sizes, times and numbers of rows, their kind, that people of one tenant
used the same id, and texts that two rows of one person share only as a whole. A user ``b`` of the tenant ``a`` and a
user ``a/b`` of no tenant are one, as for scorers.
"""

from __future__ import annotations

import base64
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from polypref.serve.store.contract import (
    Conflict,
    InForceRow,
    Judgement,
    Offer,
    Person,
    Receipt,
    Standing,
    Store,
    Stored,
    StoreError,
)
from polypref.serve.who.person import scorer_id

Found = TypeVar("Found")
How = Callable[[Person, Judgement], Future[bool]]
LEAST_MASTER = 32  # bytes
KEY_BYTES = 64  # of AES-256-SIV
MOST_KEYS = 100_000  # in memory
MARK = Person("/sealed", "sealed")  # no tenant's name has a slash


class _Whose(msgspec.Struct, frozen=True):
    """What the store of keys has of a person, encrypted."""

    tenant: str
    user: str
    key: bytes


@dataclass(frozen=True)
class _Key:
    """A person's data key; ``name``: the key's own, in every row that it opens."""

    person: Person
    name: str
    cipher: AESSIV = field(compare=False, repr=False)

    def sealed(self, what: bytes, *belongs: str) -> str:
        return f"{self.name}.{_text(self.cipher.encrypt(what, _bytes(self.name, *belongs)))}"

    def opened(self, sealed: str, *belongs: str) -> bytes | None:
        """What was sealed; None where another key did it, of somebody who left. Raises StoreError."""
        name, _, rest = sealed.partition(".")
        if name != self.name:
            return None
        try:
            return self.cipher.decrypt(base64.b64decode(rest), _bytes(self.name, *belongs))
        except (InvalidTag, ValueError):
            raise StoreError("a row of the store was changed: it is not what was written.") from None


class Sealed:
    """``store.Store`` around two others; see the module. Raises StoreError for another master key."""

    def __init__(self, store: Store, keys: Store, master: bytes) -> None:
        self.store, self.keys, self.waits = store, keys, store.waits or keys.waits
        derived = HKDF(hashes.SHA256(), 2 * KEY_BYTES, None, b"polypref sealed store 1").derive(master)
        self._master, self._hashing = AESSIV(derived[:KEY_BYTES]), derived[KEY_BYTES:]
        self._kept: OrderedDict[str, tuple[int, _Key]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "sealed")  # waits for new people's keys, in the order in which they come
        self._mark()

    def _mark(self) -> None:
        """Say in the store that it is sealed, and with which master key. Raises StoreError."""
        proof = _text(self._master.encrypt(b"polypref", [b"mark"]))
        mark = Judgement(id="sealed", kind="rating", prompt="", chosen=proof, value=0.0)
        try:
            new = self.store.judge(MARK, mark).result()
        except Conflict:
            raise StoreError("the store is encrypted with another master key.") from None
        if new and self.store.judgements(MARK)[0].seq != 1:
            self.store.undo(MARK, mark.id).result()
            raise StoreError("the store holds rows in plain text; --encrypt needs a new one.")

    # --- keys

    def _name(self, name: str) -> str:
        """A person, named as scorers know them, in the tables."""
        found = hmac.HMAC(self._hashing, hashes.SHA256())
        found.update(name.encode("utf-8", "surrogatepass"))
        return found.finalize().hex()

    def _of(self, person: Person) -> Person:
        return Person("", self._name(scorer_id(person) or ""))

    def _id(self, tenant: str, judgement_id: str) -> str:
        return self._name(f"{tenant}/{judgement_id}/judgement")

    def _key(self, hidden: Person) -> _Key | None:
        """The key of a person in the tables, as it is now; None: they have none. Raises StoreError."""
        now = self.keys.standing(hidden)
        if not now.judgements:
            return None
        name = hidden.user or ""
        kept = self._kept.get(name)
        if kept is None or kept[0] != now.version:
            rows = self.keys.judgements(hidden)
            if not rows:
                return None
            kept = self._kept[name] = (now.version, self._unwrapped(name, rows[0].judgement.chosen))
            while len(self._kept) > MOST_KEYS:
                self._kept.popitem(last=False)
        return kept[1]

    def _unwrapped(self, name: str, wrapped: str) -> _Key:
        try:
            raw = self._master.decrypt(base64.b64decode(wrapped), _bytes("key", name))
        except (InvalidTag, ValueError):
            raise StoreError("the store of keys was changed, or belongs to another master key.") from None
        whose = msgspec.json.decode(raw, type=_Whose)
        return _Key(Person(whose.tenant, whose.user), self._name(_text(whose.key) + "/name")[:16], AESSIV(whose.key))

    def _made(self, person: Person) -> _Key:
        """The person's key, made durably if they have none."""
        hidden = self._of(person)
        while (key := self._key(hidden)) is None:
            whose = _Whose(person.tenant, person.user or "", secrets.token_bytes(KEY_BYTES))
            name = hidden.user or ""
            wrapped = _text(self._master.encrypt(msgspec.json.encode(whose), _bytes("key", name)))
            try:
                self.keys.judge(
                    hidden, Judgement(id=name, kind="rating", prompt="", chosen=wrapped, value=0.0)
                ).result()
            except Conflict:  # another process was first
                continue
        return key

    # --- writing

    def _written(
        self, person: Person, write: Callable[[_Key], Future[Found]], undo: Callable[[], Any]
    ) -> Future[Found]:
        """The result of ``write`` with a key that was still the person's when it was committed."""
        told: Future[Found] = Future()
        told.set_running_or_notify_cancel()

        def begin() -> None:
            try:
                key = self._made(person)
                write(key).add_done_callback(lambda done: end(key, done))
            except BaseException as error:
                told.set_exception(error)

        def end(key: _Key, done: Future[Found]) -> None:
            try:
                found = done.result()
                if self._key(self._of(person)) == key:
                    told.set_result(found)
                else:  # the person left in between; what was written can be read by nobody
                    self._thread.submit(again)
            except BaseException as error:
                told.set_exception(error)

        def again() -> None:
            try:
                undo()
            except BaseException as error:
                told.set_exception(error)
            else:
                begin()

        try:
            known = self._key(self._of(person)) is not None
            begin() if known else self._thread.submit(begin)
        except (StoreError, RuntimeError) as error:  # the thread was stopped
            told.set_exception(error if isinstance(error, StoreError) else StoreError("the store is closed."))
        return told

    def judge(self, person: Person, judgement: Judgement) -> Future[bool]:
        """See ``store.Store``."""
        return self._judged(person, judgement, self.store.judge)

    def replace(self, person: Person, judgement: Judgement) -> Future[bool]:
        """See ``store.Store``."""
        return self._judged(person, judgement, self.store.replace)

    def _judged(self, person: Person, judgement: Judgement, how: How) -> Future[bool]:
        hidden, row = self._of(person), self._id(person.tenant, judgement.id)

        def write(key: _Key) -> Future[bool]:
            body = msgspec.json.encode(msgspec.structs.replace(judgement, context={}))
            context = {"sealed": key.sealed(msgspec.json.encode(judgement.context), "context", row)}
            chosen = key.sealed(body, "judgement", row)
            sealed = Judgement(id=row, kind=judgement.kind, prompt="", chosen=chosen, context=context)
            return _named(how(hidden, sealed), judgement.id)

        return self._written(person, write, lambda: self.store.undo(hidden, row).result())

    def offered(self, person: Person, offer: Offer) -> Future[None]:
        """See ``store.Store``."""
        hidden, request = self._of(person), self._request(person.tenant, offer.request)

        def write(key: _Key) -> Future[None]:
            sealed = key.sealed(msgspec.json.encode(offer), "answer", request)
            empty = {"order": (), "blocked": (), "rewards": (), "source": "", "scorer": "", "policy": None, "route": ""}
            return self.store.offered(hidden, Offer(request=request, prompt="", texts=(sealed,), **empty))

        return self._written(person, write, lambda: None)

    def _request(self, tenant: str, request: str) -> str:
        return self._name(f"{tenant}/{request}/answer")

    def pause(self, person: Person, paused: bool) -> Future[None]:
        """See ``store.Store``."""
        hidden = self._of(person)
        return self._written(person, lambda _: self.store.pause(hidden, paused), lambda: None)

    def undo(self, person: Person, judgement_id: str) -> Future[bool]:
        """See ``store.Store``."""
        return self.store.undo(self._of(person), self._id(person.tenant, judgement_id))

    def forget(self, person: Person) -> Receipt:
        """See ``store.Store``. The key goes first: from then on nobody can read the rows, wherever they are."""
        hidden = self._of(person)
        key = self.keys.forget(hidden)
        overwritten = self.keys.rewritten() or not self.keys.files()  # SQLite may leave a copy where it moved rows
        self._kept.pop(hidden.user or "", None)
        left = self.store.forget(hidden)
        rows = {**left.rows, "keys": key.rows.get("judgements", 0)}
        stays = left.stays if left.stays == key.stays else left.stays + key.stays
        return replace(left, rows=rows, pending=left.pending or key.pending or not overwritten, stays=stays)

    # --- reading

    def standing(self, person: Person) -> Standing:
        """See ``store.Store``."""
        hidden = self._of(person)
        return self.store.standing(hidden) if self._key(hidden) is not None else Standing()

    def judgements(self, person: Person) -> Sequence[Stored]:
        """See ``store.Store``."""
        hidden = self._of(person)
        key = self._key(hidden)
        return [] if key is None else _opened(key, self.store.judgements(hidden))

    def made(self, tenant: str, judgement_id: str) -> Sequence[tuple[Person, Stored]]:
        """See ``store.Store``."""
        return self._readable(self.store.made("", self._id(tenant, judgement_id)))

    def _readable(self, rows: Iterable[tuple[Person, Stored]]) -> list[tuple[Person, Stored]]:
        """Rows as they were given, and whose they are."""
        found: list[tuple[Person, Stored]] = []
        for hidden, stored in rows:
            key = None if hidden == MARK else self._key(hidden)
            found += [] if key is None else [(key.person, one) for one in _opened(key, [stored])]
        return found

    def offer(self, tenant: str, request: str) -> tuple[Person, Offer] | None:
        """See ``store.Store``."""
        found = self.store.offer("", self._request(tenant, request))
        key = None if found is None else self._key(found[0])
        if found is None or key is None or (offer := _answer(key, found[1])) is None:
            return None
        return key.person, offer

    def offers(self, person: Person) -> Sequence[Offer]:
        """See ``store.Store``."""
        hidden = self._of(person)
        key = self._key(hidden)
        found = [] if key is None else [_answer(key, one) for one in self.store.offers(hidden)]
        return [one for one in found if one is not None]

    def people(self, tenant: str) -> Sequence[str]:
        """See ``store.Store``. It opens every key."""
        hidden = [Person("", one) for one in self.store.people("")]
        known = [key.person for one in hidden if (key := self._key(one)) is not None]
        return sorted(one.user or "" for one in known if one.tenant == tenant)

    def everybodys(self, after: int, upto: int, most: int) -> Sequence[tuple[Person, Stored]]:
        """See ``store.Store``."""
        while rows := self.store.everybodys(after, upto, most):
            if found := self._readable(rows):  # nothing means that nothing follows
                return found
            after = rows[-1][1].seq
        return []

    def held(self, texts: Sequence[str]) -> set[str]:
        """See ``store.Store``: none, unless a row is in plain text."""
        return self.store.held(texts) | self.keys.held(texts)

    def files(self) -> Sequence[Path]:
        """See ``store.Store``: the files of keys too."""
        return [*self.store.files(), *self.keys.files()]

    def rewritten(self) -> bool:
        """See ``store.Store``."""
        return self.store.rewritten() and self.keys.rewritten()

    # --- scorers

    def in_force(self) -> str | None:
        """See ``store.Store``."""
        return self.store.in_force()

    def scorers(self) -> Sequence[InForceRow]:
        """See ``store.Store``."""
        return self.store.scorers()

    def put_in_force(self, row: InForceRow, fitted: Iterable[str] = (), people: Iterable[Person] = ()) -> Future[None]:
        """See ``store.Store``."""
        return self.store.put_in_force(row, [self._name(one) for one in fitted], map(self._of, people))

    def fitted_with(self, name: str) -> Sequence[str]:
        """See ``store.Store``."""
        return self.store.fitted_with(self._name(name))

    def newest(self, most: int) -> tuple[int, int]:
        """See ``store.Store``."""
        return self.store.newest(most)

    def forgotten(self, hash_of: dict[str, str], names: Sequence[str]) -> Future[None]:
        """See ``store.Store``."""
        return self.store.forgotten(hash_of, [self._name(one) for one in names])

    def close(self) -> None:
        """See ``store.Store``."""
        self._thread.shutdown(wait=True)
        self.store.close()
        self.keys.close()


def _opened(key: _Key, rows: Iterable[Stored]) -> list[Stored]:
    """Rows as they were given; without those of a key that is gone."""
    found = []
    for row in rows:
        sealed = row.judgement
        body = key.opened(sealed.chosen, "judgement", sealed.id)
        context = key.opened(sealed.context["sealed"], "context", sealed.id)
        if body is not None and context is not None:
            judgement = msgspec.json.decode(body, type=Judgement)
            whole = msgspec.structs.replace(judgement, context=msgspec.json.decode(context))
            found.append(replace(row, judgement=whole))
    return found


def _answer(key: _Key, sealed: Offer) -> Offer | None:
    body = key.opened(sealed.texts[0], "answer", sealed.request)
    return None if body is None else msgspec.json.decode(body, type=Offer)


def _named(inner: Future[bool], judgement_id: str) -> Future[bool]:
    """The same future, whose conflict names the judgement as the client does."""
    told: Future[bool] = Future()
    told.set_running_or_notify_cancel()

    def end(done: Future[bool]) -> None:
        error = done.exception()
        if isinstance(error, Conflict):
            said = f"a judgement with the id {judgement_id!r} and other content is stored already."
            told.set_exception(Conflict(said))
        elif error is not None:
            told.set_exception(error)
        else:
            told.set_result(done.result())

    inner.add_done_callback(end)
    return told


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(*parts: str) -> list[bytes]:
    return [part.encode() for part in parts]
