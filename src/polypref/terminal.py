"""The only module that prints. Control characters are always escaped, wherever the text comes from.

    out, block, document, tabbed, columns, framed, out_json    results, on standard output
    say                                                        progress and notes, on standard error, after "polypref: "
    fail                                                       failures, there too, even if quiet

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

WIDTH = 80  # of what is printed in columns
NARROW = 12  # least width of a column of words, where it has as much
GAP = "  "
CELL = re.compile(r"(?<!\\)\|")  # a bar that divides cells, not one within a cell

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


def columns(titles: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1, width: int = WIDTH) -> None:
    """Print a table of at most ``width`` characters, see ``table_lines``."""
    for line in table_lines(titles, rows, texts, width):
        _print(line, sys.stdout)


def table_lines(titles: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1, width: int = WIDTH) -> list[str]:
    """A table in lines of at most ``width``: the first ``texts`` columns are words and break, numbers never do.

    Where it would be wider, titles break between words, then columns of words share the room that numbers leave, and
    at last the columns of numbers are divided among several tables, one under the other.
    """
    lines = [[visible(cell) for cell in line] for line in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sum(widths) + len(GAP) * (len(widths) - 1) <= width:
        return _drawn(lines, widths, texts)
    words = [min(wide, NARROW) for wide in widths[:texts]]
    room = width - sum(words) - len(GAP) * texts
    for at, column in enumerate(zip(*lines, strict=True)):
        if at >= texts:
            title = max(map(len, column[0].split()), default=0)
            widths[at] = min(max(title, *map(len, column[1:])), room) if rows else min(title, room)
    parts: list[list[int]] = [[]]
    for at in range(texts, len(widths)):
        if parts[-1] and sum(widths[one] + len(GAP) for one in (*parts[-1], at)) > room + len(GAP):
            parts.append([])
        parts[-1].append(at)
    found = []
    for part in parts:
        left = width - sum(widths[at] + len(GAP) for at in part) - len(GAP) * (texts - 1)
        own = _shared(widths[:texts], left)
        cut = [[line[at] for at in (*range(texts), *part)] for line in lines]
        found += [*_drawn(cut, [*own, *(widths[at] for at in part)], texts), ""]
    return found[:-1]


def _shared(widths: Sequence[int], room: int) -> list[int]:
    """Widths of columns of words that share ``room``: the widest gives first."""
    found = list(widths)
    while sum(found) > max(room, len(found)):
        found[found.index(max(found))] -= 1
    return found


def _drawn(lines: Sequence[Sequence[str]], widths: Sequence[int], texts: int) -> list[str]:
    """Cells in columns: words from the left, numbers to the right; what is too wide breaks, numbers only at spaces."""
    found = []
    for number, line in enumerate(lines):
        cells = []
        for column, (cell, w) in enumerate(zip(line, widths, strict=True)):
            words, indent = column < texts, cell[: min(len(cell) - len(cell.lstrip()), w // 2)]
            anywhere = words or number == 0
            cells.append(
                textwrap.wrap(
                    cell, max(w, 1), subsequent_indent=indent, break_long_words=anywhere, break_on_hyphens=words
                )
                or [""]
            )
        for at in range(max(map(len, cells))):
            shown = [cell[at] if at < len(cell) else "" for cell in cells]
            placed = [
                text.ljust(w) if column < texts else text.rjust(w)
                for column, (text, w) in enumerate(zip(shown, widths, strict=True))
            ]
            found.append(GAP.join(placed).rstrip())
    return found


def document(markdown: str, width: int = WIDTH) -> None:
    """Print a page of Markdown for reading: its tables as ``columns``, its sentences in lines of at most ``width``."""
    rows: list[list[str]] = []
    for line in [*markdown.split("\n"), ""]:
        if line.startswith("|"):
            rows.append([_bare(cell) for cell in CELL.split(line)[1:-1]])
            continue
        if rows:
            columns(rows[0], [row for row in rows[1:] if set("".join(row)) - set("-:")], width=width)
            rows = []
        text = _bare(line)
        for part in textwrap.wrap(visible(text), width, break_long_words=False, break_on_hyphens=False) or [""]:
            _print(part, sys.stdout)


def _bare(text: str) -> str:
    """A line or cell of Markdown without its marks: emphasis, footnotes' tags and escapes."""
    text = re.sub(r"<sup>(.*?)</sup>", r" (\1)", text.strip())
    text = re.sub(r"(?<!\\)\*+", "", text)
    return re.sub(r"\\([\\`*\[\]|~_&])", r"\1", text).replace("&lt;", "<")


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
