"""The only place that prints. Whatever is printed, from wherever it came, holds no character that a terminal obeys.

    out, block, tabbed, aligned, framed, out_json    what was asked for, on standard output
    say                                              what happens meanwhile, on standard error, after "polypref: "
    fail                                             what failed, there too, however quiet

Callers escape names with ``wording.visible`` or ``wording.shown`` where a line break in one would be taken for theirs;
here everything is escaped once more, so that nobody can forget it. Nothing is read as rich's markup.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from polypref.wording import json_text, shortened, visible

_quiet = 0  # how many of those that wait for their work want silence


def out(*lines: str) -> None:
    """Lines on standard output; a line break within one is escaped. Without any, an empty line."""
    for line in lines or ("",):
        _print(visible(line), sys.stdout)


def block(text: str, stream: TextIO | None = None) -> None:
    """A text of several lines, such as a page of Markdown, on standard output or another ``stream``."""
    _print(visible(text, keep="\n"), stream or sys.stdout)


def out_json(value: Any, indent: int | None = None) -> None:
    """A value as JSON on standard output, nothing of it changed, every character visible."""
    _print(json_text(value, indent), sys.stdout)


@contextmanager
def silent(quiet: bool = True) -> Iterator[None]:
    """Within, if ``quiet``, nothing is said but failures, whoever would say it and in whatever thread."""
    global _quiet
    _quiet += quiet
    try:
        yield
    finally:
        _quiet -= quiet


def silenced() -> bool:
    """Whether nothing is to be said but failures."""
    return _quiet > 0


def say(text: str, most: int = 2000) -> None:
    """One line on standard error, unless silenced. Line breaks become spaces; beyond ``most`` it loses its middle."""
    if not silenced():
        fail(text, most)


def fail(text: str, most: int = 2000) -> None:
    """The same, said however quiet."""
    _print(f"polypref: {_line(text, most)}", sys.stderr)


def _line(text: str, most: int = 2000) -> str:
    return shortened(visible(re.sub(r"[ \t\r\n]+", " ", text.strip())), most)


def interactive() -> bool:
    """Whether somebody watches standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def tabbed(cells: Sequence[str]) -> None:
    """A tab-separated line on standard output; tabs within a cell are escaped."""
    _print("\t".join(map(visible, cells)), sys.stdout)


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Titles and rows on standard output, in columns of equal width."""
    lines = [[visible(cell) for cell in line] for line in (titles, *rows)]
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        out("  ".join(cell.ljust(w) for cell, w in zip(line, width, strict=True)).rstrip())


def framed(titles: Sequence[str], rows: Sequence[Sequence[str]], right: bool = False) -> None:
    """Titles and rows as a table for a terminal; ``right``: all columns but the first are flush right.

    A cell may have several lines.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(text: str) -> Text:
        return Text(visible(text, keep="\n"))  # Text, not markup: what users wrote may look like markup

    table = Table(box=box.SIMPLE_HEAD)
    for at, title in enumerate(titles):
        table.add_column(cell(title), justify="right" if right and at else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    console = Console(highlight=False)
    with console.capture() as drawn:
        console.print(table)
    _print(drawn.get().removesuffix("\n"), sys.stdout)


@contextmanager
def visible_warnings() -> Iterator[None]:
    """Within, Python's warnings are said like everything else: one line, escaped, without the line of our source."""
    before = warnings.formatwarning
    warnings.formatwarning = _formatted  # only how it is written: who records or raises warnings still does
    try:
        yield
    finally:
        warnings.formatwarning = before


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return "" if silenced() else f"polypref: warning: {_line(str(message))} ({category.__name__})\n"


def _print(text: str, stream: TextIO | None) -> None:
    """Print, also where the stream's encoding lacks a character: that one is escaped, the others are not."""
    if stream is None:  # closed by whoever started us
        return
    try:
        print(text, file=stream, flush=stream is sys.stderr)
    except UnicodeEncodeError:
        known = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
        print(known, file=stream, flush=stream is sys.stderr)
