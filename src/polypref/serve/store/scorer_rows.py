"""The part of a store that says which scorer is in force, which were before it, and who was in their fits.

The history is append-only: a row for each time that a scorer was put in force; the last one is in force. A row names
its scorer by the hash of its folder, never by a path. Who was in a fit is kept apart, by the id under which scorers
know people, and goes when the person leaves.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from polypref.serve.store.contract import Conflict, InForceRow, Judgement, Person, Stored
from polypref.serve.store.writer import Link, Writer

LAST = "SELECT hash FROM scorers ORDER BY number DESC LIMIT 1"


class ScorerRows:
    """See ``store.Store`` for what the methods promise."""

    writer: Writer

    @abstractmethod
    def _all(self, query: str, *values: Any) -> list[Any]:
        """The rows that a query finds."""

    def in_force(self) -> str | None:
        """See ``store.Store``."""
        rows = self._all(LAST)
        return rows[0][0] if rows else None

    def scorers(self) -> Sequence[InForceRow]:
        """See ``store.Store``."""
        rows = self._all("SELECT hash, at, body FROM scorers ORDER BY number")
        return [msgspec.structs.replace(_row(body), hash=digest, at=at) for digest, at, body in rows]

    def fitted_with(self, name: str) -> Sequence[str]:
        """See ``store.Store``."""
        return [one for (one,) in self._all("SELECT scorer FROM fits WHERE name = ? ORDER BY scorer", name)]

    def newest(self, most: int) -> tuple[int, int]:
        """See ``store.Store``."""
        (last,) = self._all("SELECT coalesce(max(seq), 0) FROM judgements")[0]
        rows = self._all("SELECT seq FROM judgements ORDER BY seq DESC LIMIT 1 OFFSET ?", most)
        return (rows[0][0] if rows else 0), last

    def everybodys(self, after: int, upto: int, most: int) -> Sequence[tuple[Person, Stored]]:
        """See ``store.Store``."""
        rows = self._all(
            'SELECT j.tenant, j."user", j.seq, j.at, j.body FROM judgements j JOIN people p '
            'ON p.tenant = j.tenant AND p."user" = j."user" WHERE p.paused = 0 AND j.seq > ? AND j.seq <= ? '
            "ORDER BY j.seq LIMIT ?",
            after,
            upto,
            most,
        )
        return [
            (Person(tenant, user), Stored(seq, at, msgspec.json.decode(body, type=Judgement)))
            for tenant, user, seq, at, body in rows
        ]

    def put_in_force(self, row: InForceRow, fitted: Iterable[str] = (), people: Iterable[Person] = ()) -> Future[None]:
        """See ``store.Store``."""
        names, here, body = list(fitted), list(people), msgspec.json.encode(row)

        def work(to: Link) -> None:
            found = to.execute(LAST).fetchone()
            if (found[0] if found else None) != row.before:
                raise Conflict("another scorer was put in force meanwhile; look at it with polypref refit --history.")
            for person in here:
                query = 'SELECT 1 FROM people WHERE tenant = ? AND "user" = ?'
                if to.execute(query, (person.tenant, person.user)).fetchone() is None:
                    raise Conflict("somebody whose judgements the scorer was fitted on has left; run it again.")
            values = (row.hash, time.time(), body)
            to.execute("INSERT INTO scorers (hash, at, body) VALUES (?, ?, ?)", values)
            for name in names:
                to.execute("INSERT INTO fits (scorer, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (row.hash, name))

        return self.writer.submit(work)

    def forgotten(self, hash_of: dict[str, str], names: Sequence[str]) -> Future[None]:
        """See ``store.Store``."""

        def work(to: Link) -> None:
            for old, new in hash_of.items():
                rows = to.execute("SELECT number, body FROM scorers WHERE hash = ?", (old,)).fetchall()
                for number, body in rows:
                    row = _row(body)
                    data = {**row.data, "was": [*row.data.get("was", []), old]}
                    changed = msgspec.json.encode(msgspec.structs.replace(row, data=data))
                    to.execute("UPDATE scorers SET hash = ?, body = ? WHERE number = ?", (new, changed, number))
                to.execute("UPDATE fits SET scorer = ? WHERE scorer = ?", (new, old))
            for name in names:
                to.execute("DELETE FROM fits WHERE name = ?", (name,))

        return self.writer.submit(work)


def _row(body: bytes) -> InForceRow:
    return msgspec.json.decode(body, type=InForceRow)
