"""What every store does in the same way: rows of judgements, answers and people, in SQL that all databases know."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any

import msgspec

from polypref.serve.store import schema
from polypref.serve.store.contract import Conflict, Judgement, Offer, Person, Receipt, Standing, Stored, as_stored
from polypref.serve.store.scorer_rows import ScorerRows
from polypref.serve.store.writer import Link
from polypref.serve.who.person import scorer_id

OF = ' WHERE tenant = ? AND "user" = ?'


class Rows(ScorerRows):
    """The part of a store that reads and writes rows; see ``store.Store`` for what its methods promise."""

    words: schema.Words

    @abstractmethod
    def _searching(self) -> AbstractContextManager[Callable[[str, Sequence[Any]], Sequence[Any]]]:
        """Asks for the one row of queries that may take long, while others read."""

    # --- reading

    def standing(self, person: Person) -> Standing:
        """See ``store.Store``."""
        rows = self._all(f"SELECT version, judgements, paused FROM people{OF}", person.tenant, person.user)
        return Standing(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else Standing()

    def judgements(self, person: Person) -> Sequence[Stored]:
        """See ``store.Store``."""
        rows = self._all(f"SELECT seq, at, body FROM judgements{OF} ORDER BY seq", person.tenant, person.user)
        return [Stored(seq, at, msgspec.json.decode(body, type=Judgement)) for seq, at, body in rows]

    def offer(self, tenant: str, request: str) -> tuple[Person, Offer] | None:
        """See ``store.Store``."""
        rows = self._all('SELECT "user", body FROM answers WHERE tenant = ? AND request = ?', tenant, request)
        return (Person(tenant, rows[0][0]), msgspec.json.decode(rows[0][1], type=Offer)) if rows else None

    def made(self, tenant: str, judgement_id: str) -> Sequence[tuple[Person, Stored]]:
        """See ``store.Store``."""
        query = 'SELECT "user", seq, at, body FROM judgements WHERE tenant = ? AND id = ? ORDER BY seq'
        return [
            (Person(tenant, user), Stored(seq, at, msgspec.json.decode(body, type=Judgement)))
            for user, seq, at, body in self._all(query, tenant, judgement_id)
        ]

    def people(self, tenant: str) -> Sequence[str]:
        """See ``store.Store``."""
        return [user for (user,) in self._all('SELECT "user" FROM people WHERE tenant = ? ORDER BY "user"', tenant)]

    def offers(self, person: Person) -> Sequence[Offer]:
        """See ``store.Store``."""
        rows = self._all(f"SELECT body FROM answers{OF} ORDER BY at, request", person.tenant, person.user)
        return [msgspec.json.decode(body, type=Offer) for (body,) in rows]

    def held(self, texts: Sequence[str]) -> set[str]:
        """See ``store.Store``."""
        if not texts:
            return set()
        found = set[str]()
        with self._searching() as ask:
            for query, is_text in schema.searches(len(texts), self.words):
                row = ask(query, [one.encode() if is_text else as_stored(one) for one in texts])
                found.update(one for one, is_held in zip(texts, row, strict=True) if is_held)
        return found

    # --- writing

    def judge(self, person: Person, judgement: Judgement) -> Future[bool]:
        """See ``store.Store``."""
        return self.writer.submit(lambda to: _judged(to, person, judgement))

    def replace(self, person: Person, judgement: Judgement) -> Future[bool]:
        """See ``store.Store``."""

        def work(to: Link) -> bool:
            try:
                return _judged(to, person, judgement)
            except Conflict:
                _undone(to, person, judgement.id)
                return _judged(to, person, judgement)

        return self.writer.submit(work)

    def offered(self, person: Person, offer: Offer) -> Future[None]:
        """See ``store.Store``."""
        row = (person.tenant, offer.request, person.user, time.time(), msgspec.json.encode(offer))

        def work(to: Link) -> None:
            to.execute('INSERT INTO answers (tenant, request, "user", at, body) VALUES (?, ?, ?, ?, ?)', row)

        return self.writer.submit(work)

    def pause(self, person: Person, paused: bool) -> Future[None]:
        """See ``store.Store``."""

        def work(to: Link) -> None:
            _changed(to, person)
            to.execute(f"UPDATE people SET paused = ?{OF}", (int(paused), person.tenant, person.user))

        return self.writer.submit(work)

    def undo(self, person: Person, judgement_id: str) -> Future[bool]:
        """See ``store.Store``."""
        return self.writer.submit(lambda to: _undone(to, person, judgement_id))

    def _removed(self, person: Person) -> Future[Receipt]:
        """Delete every row of a person in one transaction."""
        whose, name = (person.tenant, person.user), scorer_id(person)

        def work(to: Link) -> Receipt:
            rows = {table: to.execute(f"DELETE FROM {table}{OF}", whose).rowcount for table in schema.OF_A_PERSON}
            fits = to.execute("DELETE FROM fits WHERE name = ? RETURNING scorer", (name,)).fetchall()
            return Receipt(rows, scorers=tuple(sorted(one for (one,) in fits)))

        return self.writer.submit(work)


def _judged(to: Link, person: Person, judgement: Judgement) -> bool:
    """Insert a judgement unless it is there; whether it is new. Raises Conflict."""
    digest = sha256(msgspec.json.encode([person.tenant, person.user, _content(judgement)])).digest()
    key = (person.tenant, person.user, judgement.id)
    found = to.execute(f"SELECT digest FROM judgements{OF} AND id = ?", key).fetchone()
    if found and found[0] != digest:
        raise Conflict(f"a judgement with the id {judgement.id!r} and other content is stored already.")
    if found:
        return False
    row = (*key, time.time(), digest, msgspec.json.encode(judgement))
    to.execute('INSERT INTO judgements (tenant, "user", id, at, digest, body) VALUES (?, ?, ?, ?, ?, ?)', row)
    _changed(to, person, judgements=1)
    return True


def _undone(to: Link, person: Person, judgement_id: str) -> bool:
    """Delete a judgement; whether it was there."""
    key = (person.tenant, person.user, judgement_id)
    gone = to.execute(f"DELETE FROM judgements{OF} AND id = ?", key).rowcount
    if gone:
        _changed(to, person, judgements=-1)
    return gone > 0


def _content(judgement: Judgement) -> list[Any]:
    """What makes two judgements with one id the same one: all but what the server adds."""
    return [value for name, value in msgspec.structs.asdict(judgement).items() if name != "context"]


def _changed(to: Link, person: Person, judgements: int = 0) -> None:
    """The person's next version, never used before: it makes every process derive their state again."""
    number = to.execute("UPDATE changes SET number = number + 1 RETURNING number").fetchone()[0]
    to.execute(
        'INSERT INTO people (tenant, "user", version, judgements) VALUES (?, ?, ?, ?) ON CONFLICT (tenant, "user") '
        "DO UPDATE SET version = excluded.version, judgements = people.judgements + excluded.judgements",
        (person.tenant, person.user, number, judgements),
    )
