"""The only module that prints. Control characters are always escaped, wherever the text comes from.

    out, block, tabbed, columns, framed, out_json    results, on standard output
    say                                              progress and notes, on standard error, after "polypref: "
    fail                                             failures, there too, even if quiet

Callers escape names with ``wording.visible`` or ``wording.shown`` where a line break in a name could be mistaken for
their own; everything is escaped again here, so nothing can be forgotten. Nothing is read as rich's markup.
"""

from __future__ import annotations

import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from polypref.wording import json_text, shortened, visible

_quiet = 0  # number of active callers that want silence


def out(*lines: str) -> None:
    """Print lines to standard output; line breaks within them are escaped. Without arguments, an empty line."""
    for line in lines or ("",):
        _print(visible(line), sys.stdout)


def block(text: str, stream: TextIO | None = None) -> None:
    """Print a text of several lines, such as a page of Markdown, to standard output or another ``stream``."""
    _print(visible(text, keep="\n"), stream or sys.stdout)


def out_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON to standard output: unchanged, with every character visible."""
    _print(json_text(value, indent), sys.stdout)


@contextmanager
def silent(quiet: bool = True) -> Iterator[None]:
    """Within the block, if ``quiet``, only failures are printed, by any code in any thread."""
    global _quiet
    _quiet += quiet
    try:
        yield
    finally:
        _quiet -= quiet


def silenced() -> bool:
    """Whether only failures are printed."""
    return _quiet > 0


def say(text: str, most: int = 2000) -> None:
    """Print a line to standard error, unless silenced. Line breaks become spaces; ``most`` limits its length."""
    if not silenced():
        fail(text, most)


def fail(text: str, most: int = 2000) -> None:
    """The same, even if quiet."""
    _print(f"polypref: {_line(text, most)}", sys.stderr)


def _line(text: str, most: int = 2000) -> str:
    return shortened(visible(re.sub(r"[ \t\r\n]+", " ", text.strip())), most)


def interactive() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def tabbed(cells: Sequence[str]) -> None:
    """Print a tab-separated line to standard output; tabs within a cell are escaped."""
    _print("\t".join(map(visible, cells)), sys.stdout)


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print titles and rows to standard output, in columns of equal width."""
    lines = [[visible(cell) for cell in line] for line in (titles, *rows)]
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        out("  ".join(cell.ljust(w) for cell, w in zip(line, width, strict=True)).rstrip())


def columns(titles: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1, width: int = 80) -> None:
    """Print a table of at most ``width`` characters: the first ``texts`` columns are words and break, numbers never do.

    Titles break between words where the table would be too wide. Columns of words share the room that numbers leave.
    """
    lines = [[visible(cell) for cell in line] for line in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sum(widths) + 2 * (len(titles) - 1) > width:
        words = [max(map(len, title.split()), default=0) for title in lines[0]]
        widths = [
            max(word, *map(len, column)) for word, column in zip(words, zip(*lines[1:], strict=True), strict=True)
        ]
    room = max(width - sum(widths[texts:]) - 2 * (len(titles) - 1), 12 * texts)
    while sum(widths[:texts]) > room:
        widths[widths.index(max(widths[:texts]))] -= 1
    for line in lines:
        cells = [textwrap.wrap(cell, w) or [""] for cell, w in zip(line, widths, strict=True)]
        for at in range(max(map(len, cells))):
            shown = [cell[at] if at < len(cell) else "" for cell in cells]
            aligned_cells = [
                text.ljust(w) if column < texts else text.rjust(w)
                for column, (text, w) in enumerate(zip(shown, widths, strict=True))
            ]
            _print("  ".join(aligned_cells).rstrip(), sys.stdout)


def framed(titles: Sequence[str], rows: Sequence[Sequence[str]], right: bool = False) -> None:
    """Print titles and rows as a table for a terminal; ``right``: all columns but the first are right-aligned.

    A cell may have several lines.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(text: str) -> Text:
        return Text(visible(text, keep="\n"))  # Text, not markup, since users' texts may look like markup

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
    """Within the block, Python's warnings are printed like other messages: one escaped line without source code."""
    before = warnings.formatwarning
    warnings.formatwarning = _formatted  # changes only the format: warnings can still be recorded or raised
    try:
        yield
    finally:
        warnings.formatwarning = before


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return "" if silenced() else f"polypref: warning: {_line(str(message))} ({category.__name__})\n"


def _print(text: str, stream: TextIO | None) -> None:
    """Print; characters that the stream's encoding lacks are escaped."""
    if stream is None:  # closed by the parent process
        return
    try:
        print(text, file=stream, flush=stream is sys.stderr)
    except UnicodeEncodeError:
        known = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
        print(known, file=stream, flush=stream is sys.stderr)
