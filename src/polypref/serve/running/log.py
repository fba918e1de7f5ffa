"""The log: one JSON line per request, with no text, no key and no id.

What a line says comes from closed lists (methods, routes as they are declared, dialects, sources) or is a number, so
nobody can write a line of their own. A person is a keyed hash: the key is drawn at the start and never stored, so that
one can follow a person within a run, and nobody can find out who it is, or was, afterwards.

Lines are written by a thread: a log that cannot be written to stops no request. Lines that are lost are counted.
"""

from __future__ import annotations

import hmac
import json
import os
import queue
import secrets
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from polypref.errors import SettingsError
from polypref.serve.store.contract import Person

METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")
MOST_WAITING = 10_000  # lines
CLOSE_S = 2.0  # for the last lines
STDERR = 2
FRAMES = 8  # of a failure

_notes: ContextVar[dict[str, Any] | None] = ContextVar("notes", default=None)


@contextmanager
def noting() -> Iterator[dict[str, Any]]:
    """What is noted within the block, for the line of one request."""
    found: dict[str, Any] = {}
    token = _notes.set(found)
    try:
        yield found
    finally:
        _notes.reset(token)


def note(**what: Any) -> None:
    """Add to the line of the request in hand, if there is one. Never a text, a key or an id."""
    found = _notes.get()
    if found is not None:
        found.update(what)


def place_of(error: BaseException) -> str:
    """The kind of a failure and where it happened, without its message, which may quote a text."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return " ".join([type(error).__name__, *(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(frames))])


class Log:
    """Lines to a file, or to standard error; ``key`` hashes people, and is the same for all workers of one server."""

    def __init__(self, path: Path | None = None, key: bytes | None = None) -> None:
        self.key, self.lost = key or secrets.token_bytes(32), 0
        self._file = STDERR if path is None else _opened(path)
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def person(self, person: Person) -> str | None:
        """The person in a line; None for somebody who is not named."""
        if person.user is None:
            return None
        whole = json.dumps([person.tenant, person.user]).encode()
        return hmac.digest(self.key, whole, "sha256").hex()[:16]

    def line(self, **what: Any) -> None:
        """Write a line; without waiting for it."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        kept = {name: value for name, value in what.items() if value is not None}
        try:
            self._lines.put_nowait(json.dumps({"at": at, **kept}).encode() + b"\n")
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Write what waits, for a moment at most."""
        try:
            self._lines.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._writer.join(CLOSE_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                while line:
                    line = line[os.write(self._file, line) :]
            except OSError:
                self.lost += 1


def _opened(path: Path) -> int:
    """The file, to append to. Raises SettingsError."""
    try:
        found = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SettingsError(f"--log {path} cannot be written: {why}. Give another file.") from None
    return found
