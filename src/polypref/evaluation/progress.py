"""How far the cells are: a bar with an estimate on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

LINE_EVERY_SECONDS = 10.0
LONGEST_CELL_SECONDS = 3600.0  # the bar forgets how fast it was after so long without a cell


class Progress:
    """Counts cells; writes to standard error. ``quiet`` says nothing but failures.

    ``weights``  how dear each cell that is not stored is, for the estimate of the time left; None: all alike.
    """

    def __init__(
        self, label: str, total: int, stored: int, quiet: bool = False, weights: Mapping[Any, float] | None = None
    ) -> None:
        self._label = label
        self._total, self._stored, self._done = total, stored, 0
        self._quiet = quiet
        self._bar: Any = None
        self._weights = weights
        self._work, self._work_done = total - stored if weights is None else sum(weights.values()), 0.0

    def __enter__(self) -> Self:
        self._start = self._last = time.monotonic()
        if self._quiet or self._stored == self._total:
            return self
        if sys.stderr.isatty():
            self._show_bar()
        else:
            kept = f", {self._stored} of them from an earlier run" if self._stored else ""
            self._say(f"{self._total} {self._label}{kept}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, cell: object, error: str | None, count: int = 1) -> None:
        """One more cell, or ``count`` of whatever is counted, is done, or failed."""
        self._done += count
        work = count if self._weights is None else self._weights[cell]
        self._work_done += work
        if error:
            self._say(f"failed: {cell}: {error}")
        if self._bar is not None:
            self._bar.update(self._task, advance=work, cell=str(cell), count=self._counted())
        elif not self._quiet and time.monotonic() - self._last > LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            left = (self._last - self._start) / self._work_done * (self._work - self._work_done)
            self._say(f"{self._stored + self._done} of {self._total} {self._label}, about {left:.0f} s left ({cell})")

    def _counted(self) -> str:
        return f"{self._stored + self._done}/{self._total}"

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False)
        else:
            print(f"polypref: {line}", file=sys.stderr, flush=True)  # noqa: T201

    def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[cell]}"),
        )
        self._bar = Bar(
            *columns, console=Console(stderr=True), transient=True, speed_estimate_period=LONGEST_CELL_SECONDS
        )
        self._bar.start()
        self._task = self._bar.add_task(self._label, total=self._work, cell="", count=self._counted())


@contextmanager
def counting(label: str) -> Iterator[Callable[[int, int, object], None]]:
    """Progress for work that says itself how far it is: call with what is done, what is to do, and what was last."""
    with ExitStack() as stack:
        progress: Progress | None = None
        last = 0

        def tell(done: int, total: int, what: object) -> None:
            nonlocal progress, last
            if progress is None:
                last = done - 1
                progress = stack.enter_context(Progress(label, total, last))
            progress.tell(what, None, done - last)
            last = done

        yield tell
