"""Progress of long work: a bar on a terminal, occasional plain lines elsewhere, nothing for short or quiet work.

One class counts everything: cells, arms, texts, questions, training steps. Items may differ in cost; the estimate of
the time left uses the caller's weights.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from polypref.terminal import fail, say, silenced
from polypref.wording import visible

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

BAR_AFTER_SECONDS = 1.0
LINE_EVERY_SECONDS = 10.0


def duration(seconds: float) -> str:
    """``75`` -> ``1:15``, ``3675`` -> ``1:01:15``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Progress:
    """Counts ``total`` items, named ``unit``, of which ``stored`` are from an earlier run; writes to standard error.

    ``label``    the activity, such as "encoding with minilm"; may be empty.
    ``weights``  the cost of the items: the total, or each by name; None: all equal.
    ``stored``   None for work that may be short and is shown only after a moment; a number, also 0, for work that
                 is announced at once.
    ``quiet``    show only failures.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        weights: float | Mapping[Any, float] | None = None,
        *,
        stored: int | None = None,
        quiet: bool = False,
    ) -> None:
        self._label, self._total, self._unit = visible(label), total, unit
        self._announced, self._stored, self._done = stored is not None, stored or 0, 0
        self._weights = weights if isinstance(weights, Mapping) else None
        to_do = total - self._stored if weights is None else weights
        self._work = float(sum(to_do.values()) if isinstance(to_do, Mapping) else to_do)
        self._work_done = 0.0
        self._quiet = quiet
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        self._start = self._last = time.monotonic()
        if self._announced and not self._silenced and self._stored < self._total:
            if sys.stderr.isatty():
                self._show_bar()
            else:
                kept = f", {self._stored:,} of them from an earlier run" if self._stored else ""
                self._line(f"{self._total:,} {self._unit}{kept}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and self._last > self._start:
            self._line(f"{self._counted()}, done in {duration(time.monotonic() - self._start)}")

    def tell(self, what: object, error: str | None = None) -> None:
        """One more is done, or has failed; failures are always printed."""
        if error:
            fail(f"failed: {what}: {error}")
        self.advance(1, 1.0 if self._weights is None else self._weights[what], what)

    def advance(self, count: int, work: float | None = None, what: object = "") -> None:
        """``count`` more are done, at a cost of ``work``; ``what`` is the last of them."""
        self._done += count
        self._work_done += count if work is None else work
        if self._silenced:
            return
        now = time.monotonic()
        if self._bar is not None:
            self._update(self._bar, what)
        elif now - self._start > BAR_AFTER_SECONDS and sys.stderr.isatty():
            self._show_bar(what)
        elif now - self._last > LINE_EVERY_SECONDS:
            self._last = now
            rate = self._done / max(now - self._start, 1e-9)
            speed = f", {rate:,.0f} {self._unit}/s" if rate >= 1 else ""
            last = f" ({what})" if what != "" else ""
            self._line(f"{self._counted()}{speed}, about {self._left()} left{last}")

    @property
    def _silenced(self) -> bool:
        return self._quiet or silenced()

    def _counted(self) -> str:
        return f"{self._stored + self._done:,} of {self._total:,} {self._unit}"

    def _left(self) -> str:
        """The time left at the current speed; "?" before anything is done."""
        if self._work_done <= 0:
            return "?"
        return duration((time.monotonic() - self._start) * max(self._work / self._work_done - 1, 0.0))

    def _line(self, text: str) -> None:
        say(f"{self._label}: {text}" if self._label else text)

    def _update(self, bar: Bar, what: object) -> None:
        count, left, last = self._counted(), self._left(), visible(str(what))
        bar.update(bar.task_ids[0], completed=self._work_done, count=count, left=left, what=last)

    def _show_bar(self, what: object = "") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        def column(text: str, style: str = "none") -> TextColumn:
            return TextColumn(text, style=style, markup=False)  # names may look like markup

        self._bar = Bar(
            column("{task.description}"),
            BarColumn(),
            column("{task.fields[count]}"),
            TimeElapsedColumn(),
            column("left: {task.fields[left]}"),
            column("{task.fields[what]}", "dim"),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.add_task(self._label, total=self._work, count="", left="", what="")
        self._update(self._bar, what)
        self._bar.start()


@contextmanager
def counting(unit: str, quiet: bool = False) -> Iterator[Callable[[int, int, object], None]]:
    """Progress for work that reports its own state: call with the number done, the total, and the last item."""
    with ExitStack() as stack:
        progress: Progress | None = None
        last = 0

        def tell(done: int, total: int, what: object) -> None:
            nonlocal progress, last
            if progress is None:
                last = done - 1
                progress = stack.enter_context(Progress("", total, unit, stored=last, quiet=quiet))
            progress.advance(done - last, what=what)
            last = done

        yield tell
