"""One writer per process that commits in groups: all waiting work in one durable transaction, then everybody is told.

Work is a function of the connection. It may be run again, in another transaction, if other work of its group failed,
so it does nothing but read and write the store. It raises Conflict before it has written anything.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from polypref.errors import reason
from polypref.serve.store.contract import Conflict, StoreError

MOST_AT_ONCE = 512  # of one transaction
MOST_WAITING = 20_000  # when the database is slower than what arrives


class Link(Protocol):
    """A connection that can write. Its methods raise StoreError if the database fails, and other errors if what they
    were asked to do cannot be done."""

    def execute(self, query: str, values: Sequence[Any] = ()) -> Any:
        """Run a statement with ``?`` for each value; the result has ``fetchone``, ``fetchall`` and ``rowcount``."""
        ...

    def begin(self) -> None:
        """Start a transaction that sees all earlier ones, and is the only one that writes."""
        ...

    def commit(self) -> None: ...

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        ...

    def close(self) -> None: ...


Work = Callable[[Link], Any]
Waiting = tuple[Work, Future, bool]  # whether it runs outside of a transaction


class Writer:
    """A thread that writes through ``link`` to the store ``name``; ``groups`` counts its transactions."""

    def __init__(self, link: Link, name: str) -> None:
        self.link, self.name, self.groups = link, name, 0
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._accepting, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def submit(self, work: Work, alone: bool = False) -> Future:
        """The result of ``work``, once it is committed; ``alone``: outside of any transaction.

        Its exception is Conflict, or StoreError if nothing was kept.
        """
        future: Future = Future()
        with self._accepting:
            if self._closed:
                future.set_exception(StoreError(f"{self.name} is closed."))
            elif self._waiting.qsize() >= MOST_WAITING:
                future.set_exception(StoreError(f"{self.name} is too slow: {MOST_WAITING:,} changes wait for it."))
            else:
                self._waiting.put((work, future, alone))
        return future

    def close(self) -> None:
        """Finish what was accepted, then stop and close the link."""
        with self._accepting:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        ends = False
        while not ends:
            group, ends = self._group()
            begun = [one for one in group if one[1].set_running_or_notify_cancel()]  # from here nobody can cancel
            together = [(work, future) for work, future, alone in begun if not alone]
            if together:
                self._committed(together)
            for work, future, alone in begun:
                if alone:
                    _settle(future, lambda work=work: work(self.link), self.name)
        self.link.close()

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

    def _committed(self, group: Sequence[tuple[Work, Future]]) -> None:
        """All of the group in one durable transaction; each caller hears of the commit, or why nothing was stored."""
        settled: list[Callable[[], None]] = []
        try:
            self.link.begin()
            for work, future in group:
                try:
                    found = work(self.link)
                except Conflict as refused:
                    settled.append(lambda future=future, refused=refused: future.set_exception(refused))
                else:
                    settled.append(lambda future=future, found=found: future.set_result(found))
            self.link.commit()
            self.groups += 1
        except Exception as error:  # the writer outlives whatever work does
            failed = self._undone(error)
            if len(group) > 1 and not isinstance(error, StoreError):  # one of them cannot be done: find out which
                for one in group:
                    self._committed([one])
                return
            settled = [lambda future=future: future.set_exception(failed) for _, future in group]
        for tell in settled:
            tell()

    def _undone(self, error: Exception) -> StoreError:
        try:
            self.link.rollback()
        except StoreError as second:
            return second
        return _ours(error, self.name)


def _ours(error: Exception, name: str) -> StoreError:
    if isinstance(error, StoreError):
        return error
    failed = StoreError(f"the store {name} cannot keep this: {reason(error)}.")
    failed.__cause__ = error
    return failed


def _settle(future: Future, found: Callable[[], Any], name: str) -> None:
    try:
        future.set_result(found())
    except Exception as error:  # as above
        future.set_exception(_ours(error, name))
