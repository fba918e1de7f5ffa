"""The embedded store: one SQLite file in write-ahead mode, with one writer per process that commits in groups.

Every commit is synced (``synchronous=FULL``), and deleted content is overwritten (``secure_delete=ON``). Builds of
SQLite differ in both, so the settings are read back at the start, and the store is refused if they did not take effect.

Covered: if a process is killed at any moment, or the power fails, nothing that was acknowledged is lost; several
processes on one machine may share the file. Not covered: network file systems, on which SQLite's locks cannot be
trusted.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from polypref.serve.store import schema
from polypref.serve.store.contract import Person, Receipt, StoreError
from polypref.serve.store.rows import Rows
from polypref.serve.store.writer import Link, Writer

APPLICATION = 0x706F6C79  # "poly": tells SQLite's files apart
WAIT_MS = 10_000  # for another process's transaction
REBUILDING_MS = 600_000  # for another process that brings the tables to this version: 4 s for a million judgements
SHORTLY_MS = 20
LOG_PAGES = 8_000  # 32 MB, after which the log is moved into the file, and commits wait; SQLite's 1,000: twice a second
MOST_REWRITTEN = 256_000_000  # bytes: about a second, in which nobody can write
LEAVE_S = 5.0  # for readers of an older state to end
SETTINGS = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}
OURS = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)  # not the file's


class Sqlite(Rows):
    """A store in the file ``path``; created if it is not there. See ``store.Store``.

    Raises StoreError for a file that is no store, one of a newer version, and settings that SQLite does not take.
    """

    words, waits = schema.SQLITE, False

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._reader, self._reading = _opened(self.path), threading.Lock()
        self.writer = Writer(_Link(self.path), str(self.path))

    def files(self) -> Sequence[Path]:
        """See ``store.Store``."""
        return [self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))]

    def forget(self, person: Person) -> Receipt:
        """See ``store.Store``."""
        return replace(self._removed(person).result(), pending=not self.emptied())

    def emptied(self) -> bool:
        """Move the write-ahead log into the file and cut it off; False while somebody reads an older state."""
        until = time.monotonic() + LEAVE_S
        while True:
            busy = self.writer.submit(_checkpoint, alone=True).result()
            if not busy or time.monotonic() > until:
                return not busy
            time.sleep(0.05)

    def rewritten(self) -> bool:
        """Write the file anew, from what it holds. SQLite overwrites what is deleted, but where it moved rows between
        pages before, a copy may lie in the unused part of one."""
        if self.path.stat().st_size > MOST_REWRITTEN:
            return False
        self.writer.submit(lambda to: to.execute("VACUUM"), alone=True).result()
        return self.emptied()

    def close(self) -> None:
        """See ``store.Store``."""
        self.writer.close()
        with self._reading:
            self._reader.close()

    def _all(self, query: str, *values: Any) -> list[Any]:
        with self._reading, _failures(self.path):
            return self._reader.execute(query, values).fetchall()

    @contextmanager
    def _searching(self) -> Iterator[Callable[[str, Sequence[Any]], Sequence[Any]]]:
        with _failures(self.path), closing(_opened(self.path)) as to:
            yield lambda query, values: to.execute(query, values).fetchone()


class _Link:
    """The writer's connection. See ``writer.Link``."""

    def __init__(self, path: Path) -> None:
        self.path, self._to = path, _opened(path)

    def execute(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._to.execute(query, values)
        except OURS:
            raise
        except sqlite3.Error as error:
            raise _failed(self.path, error) from error

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self.execute("COMMIT")

    def rollback(self) -> None:
        if self._to.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        with _failures(self.path):
            self._to.close()


def _checkpoint(to: Link) -> bool:
    """Whether somebody is in the way; it waits for them only shortly, since nobody can write meanwhile."""
    to.execute(f"PRAGMA busy_timeout = {SHORTLY_MS}")
    try:
        return bool(to.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
    finally:
        to.execute(f"PRAGMA busy_timeout = {WAIT_MS}")


def _failed(path: Path, error: sqlite3.Error) -> StoreError:
    steps = {
        "SQLITE_NOTADB": "; it is another kind of file: name the store's, or one that is not there yet",
        "SQLITE_CANTOPEN": "; its folder has to be there",
    }
    step = steps.get(getattr(error, "sqlite_errorname", ""), "")
    return StoreError(f"the store {path} failed: {error}{step}.")


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """SQLite's errors as one of ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _failed(path, error) from error


def _opened(path: Path) -> sqlite3.Connection:
    """A connection with the settings that durability and erasure need, to a store of this version."""
    with _failures(path):
        to = sqlite3.connect(path, timeout=WAIT_MS / 1000, isolation_level=None, check_same_thread=False)
        try:
            for name, value in SETTINGS.items():
                to.execute(f"PRAGMA {name} = {value}")
                found = to.execute(f"PRAGMA {name}").fetchone()[0]
                if found != value:
                    raise StoreError(
                        f"{path}: SQLite {sqlite3.sqlite_version} keeps {name} at {found}; expected {value}. "
                        "Use a folder on a local disk that can be written to."
                    )
            to.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            _prepare(to, path)
        except BaseException:
            to.close()
            raise
    return to


def _prepare(to: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to this version, in one transaction; refuse a file that is something else or newer.

    Raises StoreError.
    """
    if 0 < to.execute("PRAGMA user_version").fetchone()[0] < schema.newest():
        to.execute(f"PRAGMA busy_timeout = {REBUILDING_MS}")
    to.execute("BEGIN IMMEDIATE")
    to.execute(f"PRAGMA busy_timeout = {WAIT_MS}")
    application, version = (to.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    tables = to.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and application != APPLICATION:
        raise StoreError(f"{path} is an SQLite file of another program. Give another file with --store.")
    if version > (newest := schema.newest()):
        raise StoreError(f"{path} is a store of version {version}; this polypref knows {newest}. Install a newer one.")
    if version < newest:
        schema.migrate(to.execute, version, schema.SQLITE)
        to.execute(f"PRAGMA application_id = {APPLICATION}")
        to.execute(f"PRAGMA user_version = {newest}")
    to.execute("COMMIT")
