"""CSV as batches of text columns with their line numbers.

Files that follow RFC 4180 are parsed by Polars in blocks. A file that deviates (a quote in the middle of a text, as in
5" pipe) goes through Python's parser in strict mode: an ambiguous record is left out and reported.

A file in which quotes within texts are escaped by a backslash is read as if they were doubled.

Additions of spreadsheets are not data: rows of separators only are empty lines, a first line ``sep=;`` names the
separator. Lines may end in CR alone, as old spreadsheets for Macs write them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.files import textfiles
from polypref.data.files.dialects import SEPARATED, is_escaped, is_spaced, refuse_title
from polypref.data.files.limits import Limits, over
from polypref.data.files.nested import with_nested
from polypref.data.files.textfiles import Batch, blocks, chunks, first_lines, too_long
from polypref.data.files.unclosed import ensure_closed, suspicious
from polypref.data.linting.problems import ProblemLog
from polypref.errors import InputError
from polypref.wording import shown

DECLARED = re.compile(rb'"?sep=([!-/:-@[-`{-~ \t])"?\s*', re.IGNORECASE)  # what Excel writes in front of the header
SEPARATORS = b",\t; \r\n"
QUOTE, NEWLINE, RETURN = ord('"'), ord("\n"), ord("\r")
END = re.compile(rb"\r\n|\n|\r")
QUOTED = re.compile(rb'"[^"]*"')
HEAD = 1 << 20  # bytes that decide how lines end
RETURNS_RULE = "lines end in CR; a CR within a text is read as a line break"
ESCAPED_RULE = 'quotes within texts are escaped by a backslash: \\" is read as "'
SPACED_RULE = "a space behind a separator does not belong to the text"
NOWHERE = np.zeros(0, np.int64)
SLOW_ROWS, SLOW_BYTES = 100_000, 64 << 20  # lines and bytes of a batch from Python's parser


@dataclass(frozen=True, eq=False)
class Csv:
    """A CSV file (comma, semicolon, tab or bar) with a header record; every column is text.

    ``declared``  the separator stands in a line of its own in front of the header. ``returns``: lines end in CR.
    ``escaped``   quotes within texts are escaped by a backslash. ``spaced``: quotes open behind a space.
    """

    path: str
    separator: str
    columns: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    declared: bool = False
    returns: bool = False
    escaped: bool = False
    spaced: bool = False
    wanted: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str, limits: Limits) -> Csv:
        """Read the header. Raises InputError if there is none or it is not UTF-8."""
        _allow(limits)
        end = END.search(QUOTED.sub(b"", next(chunks(path))[:HEAD]))
        returns = end is not None and end[0] == b"\r"
        numbered = first_lines(path, limits, returns)
        lines = [line for _, line in numbered]
        declared = DECLARED.fullmatch(lines[0]) if lines else None
        given = declared[1].decode() if declared and declared[1] != b'"' else ""
        lines = list(dropwhile(lambda line: not line.strip(SEPARATORS + given.encode()), lines[bool(given) :]))
        if not lines:
            raise InputError(f"{path} holds only empty lines; expected a header line and rows.")
        try:
            first = lines[0].decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: the header line is not UTF-8: {shown(lines[0])}. Convert it: iconv -f WINDOWS-1252 -t UTF-8."
            ) from error
        if not given:
            refuse_title(path, numbered)
        separator = given or max(SEPARATED, key=lambda one: len(next(csv.reader([first], delimiter=one))))
        if first.count(separator) >= limits.columns:
            raise over(f"{path} has {first.count(separator) + 1:,} columns", limits.columns, "columns")
        texts = [line.decode(errors="replace") + "\n" for line in lines]
        try:
            header = next(csv.reader(texts, delimiter=separator, strict=True))
        except csv.Error as error:
            raise InputError(
                f"{path}: the header line {shown(first)} is not CSV ({error}); correct its quotes."
            ) from error
        twice = [name for at, name in enumerate(header) if name.strip() and name in header[:at]]
        if twice:
            raise InputError(f"{path}: two columns are named {shown(twice[0])}; give each a name of its own.")
        escaped = is_escaped(texts, separator, len(header))
        spaced = not escaped and is_spaced(texts, separator, len(header))
        return cls(path, separator, tuple(header), limits, bool(given), returns, escaped, spaced)

    @property
    def rules(self) -> tuple[str, ...]:
        """How the file is read where that is not obvious."""
        return (RETURNS_RULE,) * self.returns + (ESCAPED_RULE,) * self.escaped + (SPACED_RULE,) * self.spaced

    @property
    def types(self) -> dict[str, str]:
        """Every column of a CSV file is text."""
        return dict.fromkeys(self.columns, "text")

    def batches(self, names: Sequence[str], problem_log: ProblemLog) -> Iterator[Batch]:
        """The columns ``names``; a record may span lines inside quotes and is identified by its first line."""
        for batch in with_nested(self._batches(names, problem_log), ()):
            yield replace(batch, untyped=True)

    def _batches(self, names: Sequence[str], problem_log: ProblemLog) -> Iterator[Batch]:
        line, carry, header = 1, b"", True
        stream = self._blocks()
        most = min(2 * textfiles.BLOCK, self.limits.line_bytes)
        for _, block in stream:
            carry = carry + block if carry else block
            if carry.isspace():
                yield Batch(self._frame([], names), np.zeros(0, np.int64), 0, carry.count(b"\n"), len(carry))
                line, carry = line + carry.count(b"\n"), b""
                continue
            starts, lines, cut = (None, NOWHERE, 0) if self.spaced else _records(carry, ord(self.separator))
            if not cut and len(carry) <= most and starts is not None:
                continue
            batch = self._parse(carry[:cut], starts, line + lines, header) if starts is not None and cut else None
            if batch is not None and starts is not None:
                self._ensure_closed(carry[:cut], starts, line + lines, batch.frame)
            if batch is None:  # quotes that do not pair up: the strict parser takes it from here
                rest = _Lines(_all(carry, (block for _, block in stream)), self.path, line, self.limits)
                yield from self._slow(rest, header, names, problem_log)
                return
            yield replace(batch, frame=batch.frame.select(names))
            line, carry, header = line + carry.count(b"\n", 0, cut), carry[cut:], False
        if carry.strip():
            yield from self._slow(_Lines([carry], self.path, line, self.limits), header, names, problem_log)

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """The file's blocks, a line that only declares the separator blanked."""
        declared = self.declared
        for line, block in blocks(self.path, self.limits, self.returns):
            if self.escaped:
                block = self._with_doubled(block, line)
            if declared and (text := block.lstrip()):
                end = block.find(b"\n", len(block) - len(text))
                block, declared = b"\n" * block.count(b"\n", 0, end + 1) + block[end + 1 :], False
            yield line, block

    def _with_doubled(self, block: bytes, line: int) -> bytes:
        """The block with doubled quotes instead of escaped ones. Raises InputError where that is not clear."""
        at = block.find(b'\\\\"')
        if at >= 0:
            number = line + block.count(b"\n", 0, at)
            raise InputError(
                f'line {number} of {self.path}: \\\\" may end a text or not, in a file whose quotes are escaped by '
                'backslashes; write the file again with doubled quotes ("").'
            )
        return block.replace(b'\\"', b'""')

    def _ensure_closed(self, block: bytes, starts: NDArray, line_B: NDArray, frame: pl.DataFrame) -> None:
        """Raise InputError if a text of the block holds rows."""
        found = suspicious(block, starts, ord(self.separator), len(self.columns))
        if not len(found):
            return
        ends = [*starts[1:].tolist(), len(block)]
        known = [set(column.drop_nulls().unique()) for column in frame]
        for record in found.tolist():
            lines = block[starts[record] : ends[record]].decode().splitlines(keepends=True)
            ensure_closed(self.path, int(line_B[record]), lines, self.separator, known, len(self.columns))

    def _parse(self, block: bytes, starts: NDArray, line_B: NDArray, header: bool) -> Batch | None:
        try:
            block.decode()
            frame = pl.read_csv(
                block, has_header=False, new_columns=list(_distinct(self.columns)), separator=self.separator,
                infer_schema=False,
            )  # fmt: skip
        except (pl.exceptions.PolarsError, UnicodeDecodeError):
            return None
        if frame.height != len(starts) or frame.width != len(self.columns):
            return None
        keep = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy(writable=True)
        empty = len(keep) - int(keep.sum())  # lines, also those of separators only
        if header:
            keep[np.argmax(keep)] = False
        return Batch(frame.filter(pl.Series(keep)), line_B[keep], int(keep.sum()), empty, len(block))

    def _slow(self, lines: _Lines, header: bool, names: Sequence[str], problem_log: ProblemLog) -> Iterator[Batch]:
        """Python's own parser, which reads quotes inside a text as they are, for what Polars refuses."""
        _allow(self.limits)
        reader = csv.reader(lines, delimiter=self.separator, strict=True, skipinitialspace=self.spaced)
        while not lines.ended:
            rows: list[list[str]] = []
            numbers: list[int] = []
            long: list[tuple[int, list[str]]] = []
            empty, broken, until, lines.size = 0, -problem_log.rows, lines.next + SLOW_ROWS, 0
            while lines.next < until and lines.size < SLOW_BYTES:
                begin = lines.next
                lines.begin()
                try:
                    row = next(reader)
                except StopIteration:
                    break
                except csv.Error as error:
                    self._tell_broken(error, begin, lines, problem_log)
                    continue
                if not any(row):
                    empty += 1
                elif header:
                    header = False
                elif self._is_whole(row, begin, lines, problem_log):
                    rows.append(row)
                    numbers.append(begin)
                    if len(lines.record) > 3:
                        long.append((begin, lines.record))
            known = [set(values) for values in zip(*rows, strict=True)] if long else []
            for begin, record in long:
                ensure_closed(self.path, begin, record, self.separator, known, len(self.columns))
            broken += problem_log.rows
            frame, line_B = self._frame(rows, names), np.array(numbers, np.int64)
            yield Batch(frame, line_B, len(rows) + broken, empty, lines.size)

    def _tell_broken(self, error: csv.Error, begin: int, lines: _Lines, problem_log: ProblemLog) -> None:
        """Count the lines of a record whose quotes leave open what it says. Raises InputError where none ends it."""
        count = lines.next - begin
        if (lines.ended and "unexpected end" in str(error)) or "field limit" in str(error):
            raise InputError(
                f"line {begin} of {self.path}: a quote may never be closed; {count:,} lines behind it would be "
                "one text. Close it, or double it if it belongs to the text."
            )
        ensure_closed(self.path, begin, lines.record, self.separator, None, len(self.columns))
        text = (
            f"quotes that are not closed or not doubled ({error}) in {shown(lines.last)}; double quotes inside a text."
        )
        problem_log.add("broken quotes", self.path, list(range(begin, lines.next)), f"{text} The row is left out.")

    def _is_whole(self, row: list[str], line: int, lines: _Lines, problem_log: ProblemLog) -> bool:
        if len(row) > len(self.columns) and not any(row[len(self.columns) :]):
            del row[len(self.columns) :]  # separators at the end of lines
        if len(row) != len(self.columns):
            ensure_closed(self.path, line, lines.record, self.separator, None, len(self.columns))
            found = f"{len(row)} fields; expected {len(self.columns)} ({', '.join(self.columns[:20])})"
            problem_log.add("wrong number of fields", self.path, [line], f"{found}. The row is left out.")
            return False
        broken = next((value for value in row if any("\udc80" <= c <= "\udcff" for c in value)), None)
        if broken is not None:
            near = shown(broken.encode(errors="surrogateescape"))
            advice = "convert the file: iconv -f WINDOWS-1252 -t UTF-8. The row is left out."
            problem_log.add("not UTF-8", self.path, [line], f"{near} is not UTF-8; {advice}")
        return broken is None

    def _frame(self, rows: list[list[str]], names: Sequence[str]) -> pl.DataFrame:
        frame = pl.DataFrame(rows, schema=dict.fromkeys(_distinct(self.columns), pl.String), orient="row")
        return frame.select(names)


class _Lines:
    """Lines as texts for Python's parser.

    ``next``  the number of the next line. ``last``: the line given last. ``record``: the lines of the record so far.
    """

    def __init__(self, parts: Iterable[bytes], path: str, first: int, limits: Limits) -> None:
        self.next, self.last, self.ended = first, "", False
        self.size = self._size = 0
        self.record: list[str] = []
        self._first = first
        self._path, self._limits = path, limits
        self._lines = self._split(parts)

    def begin(self) -> None:
        """The next line is the first of a record."""
        self._first, self._size, self.record = self.next, 0, []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.next += 1
        self.size += len(line)
        self._size += len(line)
        if self._size > self._limits.line_bytes:
            raise too_long(self._path, self._first, self._size, self._limits)
        self.last = line
        self.record.append(line)
        return line

    def _split(self, parts: Iterable[bytes]) -> Iterator[str]:
        rest = b""
        for part in parts:
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line.decode(errors="surrogateescape") + "\n"
        if rest:
            yield rest.decode(errors="surrogateescape")


def _records(data: bytes, separator: int) -> tuple[NDArray[np.int64] | None, NDArray[np.int64], int]:
    """The start of each complete CSV record, the number of lines before it, and the end of the last complete one.

    The starts are None if a quote violates RFC 4180: not at the edge of a field, and not doubled.
    """
    byte = np.frombuffer(data, np.uint8)
    newline = np.flatnonzero(byte == NEWLINE)
    none = np.zeros(0, np.int64)
    quote = np.flatnonzero(byte == QUOTE)
    if len(quote):
        if not _at_edges(byte, quote, separator):
            return None, none, 0
        newline_out = newline[np.searchsorted(quote, newline) % 2 == 0]
    else:
        newline_out = newline
    ends = newline_out + 1
    if not len(ends):
        return none, none, 0
    starts = np.concatenate([[0], ends[:-1]])
    return starts, np.searchsorted(newline, starts), int(ends[-1])


def _at_edges(byte: NDArray[np.uint8], quote: NDArray[np.int64], separator: int) -> bool:
    """Whether opening quotes begin a field (or repeat a quote) and closing ones end it (or are repeated)."""
    opening, closing = quote[::2], quote[1::2]
    before = byte[opening[opening > 0] - 1]
    behind = byte[closing[closing + 1 < len(byte)] + 1]
    begins = (before == separator) | (before == NEWLINE) | (before == QUOTE)
    ends = (behind == separator) | (behind == NEWLINE) | (behind == QUOTE) | (behind == RETURN)
    return bool(begins.all() and ends.all())


def _allow(limits: Limits) -> None:
    """Let Python's parser accept fields as long as a line may be; its own limit, per process, is 128 KiB."""
    csv.field_size_limit(max(csv.field_size_limit(), limits.line_bytes))


def _distinct(columns: Sequence[str]) -> Iterator[str]:
    """Column names with repeated ones numbered, so that the first keeps its name."""
    seen: dict[str, int] = {}
    for name in columns:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"


def _all(carry: bytes, stream: Iterator[bytes]) -> Iterator[bytes]:
    yield carry
    yield from stream
