"""How far the encoding is: a bar on a terminal, a plain line now and then elsewhere, nothing for short work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

BAR_AFTER_SECONDS = 1.0
LINE_EVERY_SECONDS = 10.0

_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent(quiet: bool = True) -> Iterator[None]:
    """No progress of encoding within, if ``quiet``: for callers who cannot pass that through an encoder."""
    token = _SILENT.set(quiet or _SILENT.get())
    try:
        yield
    finally:
        _SILENT.reset(token)


def duration(seconds: float) -> str:
    """``75`` -> ``1:15``, ``3675`` -> ``1:01:15``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Progress:
    """Counts texts for the reader and work (about characters) for the estimate; writes to standard error.

    Texts are encoded longest first, so an estimate that counted texts would start far too high.
    """

    def __init__(self, label: str, texts: int, work: float, unit: str = "texts") -> None:
        self._label, self._texts, self._work, self._unit = label, texts, work, unit
        self._done_texts, self._done_work = 0, 0.0
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._start = self._last = time.monotonic()
        self._bar: Bar | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()
        if kind is None and self._bar is None and self._last > self._start:
            self._line(f"done in {duration(time.monotonic() - self._start)}")

    def advance(self, texts: int, work: float) -> None:
        """``texts`` more are done, which were ``work`` of the whole work."""
        self._done_texts += texts
        self._done_work += work
        if _SILENT.get():
            return
        elapsed = time.monotonic() - self._start
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done_work, texts=self._done_texts)
        elif elapsed > BAR_AFTER_SECONDS and sys.stderr.isatty():
            self._show_bar()
        elif time.monotonic() - self._last > LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            left = elapsed * (self._work / self._done_work - 1)
            self._line(f"{self._done_texts / elapsed:,.0f} {self._unit}/s, {duration(left)} left")

    def _line(self, tail: str) -> None:
        counted = f"{self._done_texts:,} of {self._texts:,} {self._unit}"
        print(f"{self._label}: {counted}, {tail}", file=sys.stderr, flush=True)  # noqa: T201

    def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[texts]:,} of {task.fields[of]:,} " + self._unit),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
        )
        self._bar = self._exit.enter_context(Bar(*columns, console=Console(stderr=True), transient=True))
        done = int(self._done_work)
        self._bar.add_task(self._label, total=self._work, completed=done, texts=self._done_texts, of=self._texts)
