"""The store of several servers on several hosts: one PostgreSQL database, in which everything is in the schema
``polypref``.

Every process has one connection that writes and a few that read. Transactions that write take turns, on all hosts,
by a lock on the row of ``changes``: each sees all earlier ones, so a judgement is stored once, and no two can wait for
each other. They commit in groups, so that taking turns costs little.

Covered: what was acknowledged is in PostgreSQL's synced log (``synchronous_commit`` and ``fsync`` are read at every
connection, and a server that has either off is refused); a host that dies within a transaction loses its turn after
``TURN_S``; PostgreSQL restarted: requests fail meanwhile, and connections are opened anew. Not covered: connections
through a pooler that gives each transaction another session; a failover to a replica that had not received everything,
unless ``synchronous_standby_names`` is set.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from polypref.serve.store import schema
from polypref.serve.store.contract import Person, Receipt, StoreError
from polypref.serve.store.rows import Rows
from polypref.serve.store.writer import Writer

OLDEST = 15  # of PostgreSQL
APPLICATION = 0x706F6C79  # the lock under which tables are made
READERS = 4  # connections of one process, beside the one that writes
TURN_S = 10  # of one statement, of waiting for a turn, and of a turn in which nothing is said
CONNECT_S = 3
LEAVE_S = 5.0  # for readers of an older state to end
TIMES = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
REFUSED = {"synchronous_commit": "off", "fsync": "off", "transaction_read_only": "on"}
NETWORK = {"connect_timeout": CONNECT_S, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
KEPT = (
    " PostgreSQL no longer shows the rows to any query, but the bytes stay where it overwrites them later or never: in "
    "the free space of its pages until that is used again (VACUUM FULL writes the tables anew), in its write-ahead log "
    "until that is recycled, and in replicas, archives and backups. Its files are not this server's, and were not "
    "searched."
)


class Postgres(Rows):
    """A store in the database at ``address`` (``postgresql://USER@HOST/DATABASE``). See ``store.Store``.

    Raises StoreError for a database that cannot be reached, is read-only, may lose what it acknowledged, or has a store
    of a newer version.
    """

    words, waits = schema.POSTGRES, True

    def __init__(self, address: str) -> None:
        self.database = Database(address)
        with self.database.failures(), self.database.connected(slow=True) as to:
            _prepare(to, self.database.name)
        self._readers = _Readers(self.database)
        self._closed = False
        self.writer = Writer(_Link(self.database), self.database.name)

    def files(self) -> Sequence[Path]:
        """None: they are PostgreSQL's."""
        return []

    def rewritten(self) -> bool:
        """No: the files are PostgreSQL's."""
        return False

    def forget(self, person: Person) -> Receipt:
        """See ``store.Store``."""
        return replace(self._removed(person).result(), pending=not self._vacuumed(), stays=KEPT)

    def _vacuumed(self) -> bool:
        """Take deleted rows out of tables and indexes; False while somebody reads an older state or holds a table."""
        until = time.monotonic() + LEAVE_S
        while True:
            with self.database.failures(), self.database.connected(slow=True) as to:
                left = not self._emptied(to)
            if not left or time.monotonic() > until:
                return not left
            time.sleep(0.2)

    @staticmethod
    def _emptied(to: psycopg.Connection) -> bool:
        try:
            for table in (*schema.OF_A_PERSON, "fits"):
                to.execute(_sql(f"VACUUM (INDEX_CLEANUP ON) {table}"))
        except psycopg.errors.LockNotAvailable:  # somebody else's VACUUM, say
            return False
        row = to.execute(
            "SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE schemaname = 'polypref' AND relname = ANY(%s)",
            (["judgements", "answers"],),  # rows of people are also replaced, all the time
        ).fetchone()
        return row is not None and not row[0]

    def close(self) -> None:
        """See ``store.Store``."""
        self._closed = True
        self.writer.close()
        self._readers.close()

    def _all(self, query: str, *values: Any) -> list[Any]:
        if self._closed:
            raise StoreError(f"{self.database.name} is closed.")
        return self._readers.rows(_sql(query), values)

    @contextmanager
    def _searching(self) -> Iterator[Callable[[str, Sequence[Any]], Sequence[Any]]]:
        with self.database.failures(), self.database.connected(slow=True) as to:
            yield lambda query, values: to.execute(_sql(query), values).fetchall()[0]


class Database:
    """Where the database is, and how connections to it are opened. ``name`` is its address without the password."""

    def __init__(self, address: str) -> None:
        try:
            given = conninfo_to_dict(address)
        except psycopg.Error:  # its text repeats the address, and so the password
            raise StoreError("--store is no address of PostgreSQL; expected postgresql://USER@HOST/DATABASE.") from None
        self._address = make_conninfo("", **{"application_name": "polypref", **NETWORK, **given})
        self._secret = str(given.get("password") or "")
        where = ",".join(str(given[name]) for name in ("host", "hostaddr") if given.get(name))
        user = f"{given['user']}@" if given.get("user") else ""
        port = f":{given['port']}" if given.get("port") else ""
        self.name = f"postgresql://{user}{where}{port}/{given.get('dbname', '')}"
        self._opening, self._failed, self._until = threading.Lock(), "", 0.0

    @contextmanager
    def connected(self, slow: bool = False) -> Iterator[psycopg.Connection]:
        """A connection for a while; ``slow``: for statements that may take long."""
        to = self.connect(slow)
        try:
            yield to
        finally:
            to.close()

    def connect(self, slow: bool = False) -> psycopg.Connection:
        """A new connection with its times set and what durability needs read back.

        Raises StoreError. After a failure, as long again, it fails at once: nobody else waits for a host that is gone.
        """
        with self._opening:
            begun = time.monotonic()
            if begun < self._until:
                raise StoreError(self._failed)
            try:
                return self._connect(slow)
            except (psycopg.Error, StoreError) as error:
                self._failed = str(self.failed(error))
                self._until = 2 * time.monotonic() - begun
                raise StoreError(self._failed) from error

    def _connect(self, slow: bool) -> psycopg.Connection:
        to = psycopg.connect(self._address, autocommit=True)
        try:
            if to.info.server_version < OLDEST * 10_000:
                version = to.info.server_version // 10_000
                raise StoreError(f"{self.name} is PostgreSQL {version}; expected {OLDEST} or newer.")
            to.execute("SET search_path TO polypref")
            for name in TIMES:
                to.execute(_sql(f"SET {name} TO {0 if slow and name == TIMES[0] else 1000 * TURN_S}"))
            for name, refused in REFUSED.items():
                row = to.execute(_sql(f"SHOW {name}")).fetchone()
                if row is None or row[0] == refused:
                    raise StoreError(
                        f"{self.name} has {name} {refused}: what it acknowledges could be lost, or not stored."
                    )
        except BaseException:
            to.close()
            raise
        return to

    def failed(self, error: Exception) -> StoreError:
        """An error of PostgreSQL as one of ours, in one line, without the password."""
        if isinstance(error, StoreError):
            return error
        said = " ".join(str(error).split()).rstrip(".")
        said = said.replace(self._secret, "***") if self._secret else said
        return StoreError(f"the store {self.name} failed: {said}.")

    @contextmanager
    def failures(self) -> Iterator[None]:
        """PostgreSQL's errors as ours."""
        try:
            yield
        except psycopg.Error as error:
            raise self.failed(error) from error


class _Readers:
    """A fixed number of connections that read, each used by one thread at a time, and opened when it is needed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._free: queue.LifoQueue[psycopg.Connection | None] = queue.LifoQueue()
        for _ in range(READERS):
            self._free.put(None)

    def rows(self, query: bytes, values: Sequence[Any]) -> list[Any]:
        """What a query finds, asked once more on a new connection if the old one was broken. Raises StoreError."""
        try:
            to = self._free.get(timeout=TURN_S)
        except queue.Empty:
            raise StoreError(f"all {READERS} connections to {self.database.name} are busy.") from None
        try:
            with self.database.failures():
                if to is not None:
                    try:
                        return to.execute(query, values).fetchall()
                    except psycopg.OperationalError:
                        if not to.broken:
                            raise
                to = None
                to = self.database.connect()
                return to.execute(query, values).fetchall()
        finally:
            self._free.put(None if to is None or to.closed else to)

    def close(self) -> None:
        for _ in range(READERS):
            if (to := self._free.get(timeout=TURN_S)) is not None:
                to.close()


class _Link:
    """The writer's connection. See ``writer.Link``."""

    def __init__(self, database: Database) -> None:
        self.database, self._to = database, database.connect()

    def execute(self, query: str, values: Sequence[Any] = ()) -> psycopg.Cursor:
        return self._tried(lambda: self._to.execute(_sql(query), values))

    def begin(self) -> None:
        """Wait for the turn; a connection that was lost since the last one is opened anew."""
        try:
            self._begin()
        except StoreError:
            if not self._to.closed:
                raise
            self._to = self.database.connect()
            self._begin()

    def _begin(self) -> None:
        self.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        self.execute("SELECT number FROM changes FOR UPDATE")

    def commit(self) -> None:
        try:
            self.execute("COMMIT")
        except StoreError as error:
            raise StoreError(
                f"{error} It was about to be acknowledged and may have been kept: send it again with the same "
                "Idempotency-Key."
            ) from error

    def rollback(self) -> None:
        if not self._to.closed:
            self.execute("ROLLBACK")

    def close(self) -> None:
        self._to.close()

    def _tried(self, ask: Callable[[], psycopg.Cursor]) -> psycopg.Cursor:
        try:
            return ask()
        except (psycopg.DataError, psycopg.IntegrityError):
            raise
        except psycopg.Error as error:
            if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:  # values that cannot be sent
                raise
            raise self.database.failed(error) from error


def _sql(query: str) -> bytes:
    """A query in psycopg's words."""
    return query.replace("?", "%s").encode()


def _prepare(to: psycopg.Connection, name: str) -> None:
    """Bring the tables to this version, in one transaction; refuse a schema of another program or a newer version.

    Raises StoreError.
    """
    with to.transaction():
        to.execute("SELECT pg_advisory_xact_lock(%s)", (APPLICATION,))
        row = to.execute(
            "SELECT current_setting('server_encoding'), to_regclass('polypref.store') IS NOT NULL, "
            "(SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('polypref')), "
            "to_regnamespace('polypref') IS NOT NULL"
        ).fetchone()
        assert row is not None
        encoding, is_store, tables, has_schema = row
        if encoding != "UTF8":
            raise StoreError(f"{name} has the encoding {encoding}; expected a database with UTF8.")
        if tables and not is_store:
            raise StoreError(f"{name} has a schema polypref of another program. Give another database with --store.")
        if not has_schema:
            to.execute("CREATE SCHEMA polypref")
        if not is_store:
            to.execute("CREATE TABLE store (version BIGINT NOT NULL)")
            to.execute("INSERT INTO store VALUES (0)")
        row = to.execute("SELECT version FROM store").fetchone()
        version, newest = 0 if row is None else row[0], schema.newest()
        if version > newest:
            raise StoreError(
                f"{name} is a store of version {version}; this polypref knows {newest}. Install a newer one."
            )
        schema.migrate(lambda statement: to.execute(_sql(statement)), version, schema.POSTGRES)
        to.execute("UPDATE store SET version = %s", (newest,))
