"""The embedded store: one SQLite file in write-ahead mode, with one writer per process that commits in groups.

Every commit is synced (``synchronous=FULL``), and deleted content is overwritten (``secure_delete=ON``). Builds of
SQLite differ in both, so the settings are read back at the start, and the store is refused if they did not take effect.

Group commit: the writer takes all waiting work, writes it in one transaction, and notifies everybody after the commit.

Covered: if a process is killed at any moment, or the power fails, nothing that was acknowledged is lost; several
processes on one machine may share the file. Not covered: network file systems, on which SQLite's locks cannot be
trusted.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from polypref.serve.store import Conflict, Judgement, Offer, Person, Receipt, Standing, Stored, StoreError, as_stored

Found = TypeVar("Found")

APPLICATION = 0x706F6C79  # "poly": tells SQLite's files apart
VERSION = 1
WAIT_MS = 10_000  # for another process's transaction
MOST_AT_ONCE = 512  # of one transaction
LEAVE_S = 5.0  # for readers of an older state to end
SETTINGS = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}
SCHEMA = """
CREATE TABLE people (tenant TEXT, user TEXT, version INTEGER NOT NULL DEFAULT 0, judgements INTEGER NOT NULL DEFAULT 0,
    paused INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (tenant, user)) WITHOUT ROWID;
CREATE TABLE judgements (seq INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, user TEXT NOT NULL,
    id TEXT NOT NULL, at REAL NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL, UNIQUE (tenant, id));
CREATE INDEX judgements_of ON judgements (tenant, user, seq);
CREATE TABLE answers (tenant TEXT, request TEXT, user TEXT, at REAL NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (tenant, request)) WITHOUT ROWID;
CREATE INDEX answers_of ON answers (tenant, user);
CREATE TABLE changes (number INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
"""
TABLES = ("judgements", "answers", "people")
Work = Callable[[sqlite3.Connection], Any]
Waiting = tuple[Work, Future, bool]  # whether it is work that SQLite refuses within a transaction


class Sqlite:
    """A store in the file ``path``; created if it is not there. See ``store.Store``.

    Raises StoreError for a file that is no store, one of a newer version, and settings that SQLite does not take.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._reader, self._reading = self._opened(), threading.Lock()
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._accepting, self._closed = threading.Lock(), False
        self._writer = threading.Thread(target=self._write, name="store", daemon=True)
        self._writer.start()

    # --- reading

    def standing(self, person: Person) -> Standing:
        """See ``store.Store``."""
        row = self._one("SELECT version, judgements, paused FROM people WHERE tenant = ? AND user = ?", person)
        return Standing(row[0], row[1], bool(row[2])) if row else Standing()

    def judgements(self, person: Person) -> Sequence[Stored]:
        """See ``store.Store``."""
        rows = self._all("SELECT seq, at, body FROM judgements WHERE tenant = ? AND user = ? ORDER BY seq", person)
        return [Stored(seq, at, msgspec.json.decode(body, type=Judgement)) for seq, at, body in rows]

    def offer(self, tenant: str, request: str) -> tuple[Person, Offer] | None:
        """See ``store.Store``."""
        rows = self._all("SELECT user, body FROM answers WHERE tenant = ? AND request = ?", tenant, request)
        return (Person(tenant, rows[0][0]), msgspec.json.decode(rows[0][1], type=Offer)) if rows else None

    def people(self, tenant: str) -> Sequence[str]:
        """See ``store.Store``."""
        return [user for (user,) in self._all("SELECT user FROM people WHERE tenant = ? ORDER BY user", tenant)]

    def offers(self, person: Person) -> Sequence[Offer]:
        """See ``store.Store``."""
        rows = self._all("SELECT body FROM answers WHERE tenant = ? AND user = ?", person)
        return [msgspec.json.decode(body, type=Offer) for (body,) in rows]

    def holds(self, text: str) -> bool:
        """See ``store.Store``."""
        written = as_stored(text)
        query = " UNION ALL ".join(
            f"SELECT 1 FROM {table} WHERE instr({column}, ?)"
            for table, column in (("judgements", "body"), ("answers", "body"), ("people", "CAST(user AS BLOB)"))
        )
        with self._reading, _failures(self.path):
            return self._reader.execute(f"SELECT EXISTS ({query})", (written,) * 3).fetchone()[0] == 1

    def files(self) -> Sequence[Path]:
        """See ``store.Store``."""
        return [self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))]

    # --- writing

    def judge(self, person: Person, judgement: Judgement) -> Future[bool]:
        """See ``store.Store``."""
        body = msgspec.json.encode(judgement)
        digest = sha256(msgspec.json.encode([person.tenant, person.user, _content(judgement)])).digest()

        def work(to: sqlite3.Connection) -> bool:
            found = to.execute(
                "SELECT digest FROM judgements WHERE tenant = ? AND id = ?", (person.tenant, judgement.id)
            ).fetchone()
            if found and found[0] != digest:
                raise Conflict(f"a judgement with the id {judgement.id!r} and other content is stored already.")
            if found:
                return False
            row = (person.tenant, person.user, judgement.id, time.time(), digest, body)
            to.execute("INSERT INTO judgements (tenant, user, id, at, digest, body) VALUES (?, ?, ?, ?, ?, ?)", row)
            _changed(to, person, judgements=1)
            return True

        return self._submit(work)

    def offered(self, person: Person, offer: Offer) -> Future[None]:
        """See ``store.Store``."""
        row = (person.tenant, offer.request, person.user, time.time(), msgspec.json.encode(offer))
        return self._submit(
            lambda to: to.execute("INSERT INTO answers (tenant, request, user, at, body) VALUES (?, ?, ?, ?, ?)", row)
        )

    def pause(self, person: Person, paused: bool) -> Future[None]:
        """See ``store.Store``."""

        def work(to: sqlite3.Connection) -> None:
            _changed(to, person)
            where = (int(paused), person.tenant, person.user)
            to.execute("UPDATE people SET paused = ? WHERE tenant = ? AND user = ?", where)

        return self._submit(work)

    def undo(self, person: Person, judgement_id: str) -> Future[bool]:
        """See ``store.Store``."""

        def work(to: sqlite3.Connection) -> bool:
            where = (person.tenant, person.user, judgement_id)
            gone = to.execute("DELETE FROM judgements WHERE tenant = ? AND user = ? AND id = ?", where).rowcount
            if gone:
                _changed(to, person, judgements=-1)
            return gone > 0

        return self._submit(work)

    def forget(self, person: Person) -> Receipt:
        """See ``store.Store``."""

        def work(to: sqlite3.Connection) -> dict[str, int]:
            whose = (person.tenant, person.user)
            return {
                table: to.execute(f"DELETE FROM {table} WHERE tenant = ? AND user = ?", whose).rowcount
                for table in TABLES
            }

        return Receipt(self._submit(work).result(), pending=not self.emptied())

    def emptied(self) -> bool:
        """Move the write-ahead log into the file and cut it off; False while somebody reads an older state."""
        until = time.monotonic() + LEAVE_S
        while True:
            busy = self._submit(_checkpoint, alone=True).result()
            if not busy or time.monotonic() > until:
                return not busy
            time.sleep(0.05)

    def close(self) -> None:
        """See ``store.Store``."""
        with self._accepting:
            self._closed = True
            self._waiting.put(None)
        self._writer.join()
        with self._reading:
            self._reader.close()

    # --- how

    def _submit(self, work: Work, alone: bool = False) -> Future:
        """The writer's result of ``work``, once it is committed; ``alone``: outside of any transaction."""
        future: Future = Future()
        with self._accepting:
            if self._closed:
                future.set_exception(StoreError(f"{self.path} is closed."))
            else:
                self._waiting.put((work, future, alone))
        return future

    def _write(self) -> None:
        """The writer's loop: groups of all waiting work, until it is asked to stop."""
        to = self._opened()
        ends = False
        while not ends:
            group, ends = self._group()
            begun = [one for one in group if one[1].set_running_or_notify_cancel()]  # from here nobody can cancel
            if together := [(work, future) for work, future, alone in begun if not alone]:
                _committed(to, together, self.path)
            for work, future, alone in begun:
                if alone:
                    _settle(future, lambda work=work: work(to), self.path)
        to.close()

    def _group(self) -> tuple[list[Waiting], bool]:
        """What waits, in order, and whether nothing will follow."""
        group: list[Waiting] = []
        one = self._waiting.get()
        while one is not None:
            group.append(one)
            if len(group) >= MOST_AT_ONCE:
                return group, False
            try:
                one = self._waiting.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _one(self, query: str, person: Person) -> Any:
        rows = self._all(query, person)
        return rows[0] if rows else None

    def _all(self, query: str, of: Person | str, *more: str) -> list[Any]:
        values = (of.tenant, of.user) if isinstance(of, Person) else (of, *more)
        with self._reading, _failures(self.path):
            return self._reader.execute(query, values).fetchall()

    def _opened(self) -> sqlite3.Connection:
        """A connection with the settings that durability and erasure need, to a store of this version."""
        with _failures(self.path):
            to = sqlite3.connect(self.path, timeout=WAIT_MS / 1000, isolation_level=None, check_same_thread=False)
            for name, value in SETTINGS.items():
                to.execute(f"PRAGMA {name} = {value}")
                found = to.execute(f"PRAGMA {name}").fetchone()[0]
                if found != value:
                    raise StoreError(
                        f"{self.path}: SQLite {sqlite3.sqlite_version} keeps {name} at {found}; expected {value}. "
                        "Use a folder on a local disk that can be written to."
                    )
            _prepare(to, self.path)
        return to


def _content(judgement: Judgement) -> list[Any]:
    """What makes two judgements with one id the same one: all but what the server adds."""
    return [value for name, value in msgspec.structs.asdict(judgement).items() if name != "context"]


def _changed(to: sqlite3.Connection, person: Person, judgements: int = 0) -> None:
    """The person's next version, never used before: it makes every process derive their state again."""
    number = to.execute("UPDATE changes SET number = number + 1 RETURNING number").fetchone()[0]
    to.execute(
        "INSERT INTO people (tenant, user, version, judgements) VALUES (?, ?, ?, ?) ON CONFLICT (tenant, user) "
        "DO UPDATE SET version = excluded.version, judgements = judgements + excluded.judgements",
        (person.tenant, person.user, number, judgements),
    )


def _checkpoint(to: sqlite3.Connection) -> bool:
    return bool(to.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])


def _committed(to: sqlite3.Connection, group: Sequence[tuple[Work, Future]], path: Path) -> None:
    """All of the group in one durable transaction; each caller hears of the commit, or why nothing was stored."""
    settled: list[Callable[[], None]] = []
    try:
        with _failures(path):
            to.execute("BEGIN IMMEDIATE")
            for work, future in group:
                to.execute("SAVEPOINT one")
                try:
                    found = work(to)
                except Conflict as refused:
                    to.execute("ROLLBACK TO one")
                    settled.append(lambda future=future, refused=refused: future.set_exception(refused))
                else:
                    settled.append(lambda future=future, found=found: future.set_result(found))
                to.execute("RELEASE one")
            to.execute("COMMIT")
    except StoreError as failed:
        if to.in_transaction:
            to.execute("ROLLBACK")
        for _, future in group:
            future.set_exception(failed)
        return
    for tell in settled:
        tell()


def _settle(future: Future, found: Callable[[], Any], path: Path) -> None:
    try:
        with _failures(path):
            future.set_result(found())
    except StoreError as failed:
        future.set_exception(failed)


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """SQLite's errors as one of ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"the store {path} failed: {error}.") from error


def _prepare(to: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; refuse a file that is something else or newer. Raises StoreError."""
    to.execute("BEGIN IMMEDIATE")
    application, version = (to.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    tables = to.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    refusal = None
    if tables and application != APPLICATION:
        refusal = f"{path} is an SQLite file of another program. Give another file with --store."
    elif version > VERSION:
        refusal = f"{path} is a store of version {version}; this polypref knows {VERSION}. Install a newer polypref."
    elif not tables:
        for statement in SCHEMA.split(";"):
            to.execute(statement)
        to.execute(f"PRAGMA application_id = {APPLICATION}")
        to.execute(f"PRAGMA user_version = {VERSION}")
    to.execute("ROLLBACK" if refusal else "COMMIT")
    if refusal:
        to.close()
        raise StoreError(refusal)
