"""JSONL and CSV as batches of rows with their line numbers: plain, .gz or .zst, in blocks, so in bounded memory.

Every value arrives as text (JSON numbers as written, 1.0 as 1; lists and objects as JSON). A row that cannot be parsed
goes to the tally with its line; a file that ends in the middle of its compression is refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.linting.problems import Tally, short
from polypref.errors import InputError
from polypref.wording import shown

BLOCK = 16 << 20
HEAD_LINES, HEAD_BYTES = 1000, 16 << 20
RARE = ("tie", "is_tie", "weight")  # keys that change what a row means and may stand on few rows only
KINDS = {str: "text", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a file: B rows of columns, and the 1-based line (Parquet: row) each came from."""

    frame: pl.DataFrame
    line_B: NDArray[np.int64]


def chunks(path: str) -> Iterator[bytes]:
    """The file's bytes, decompressed, without a byte order mark.

    Raises InputError when the file cannot be opened, is empty, is UTF-16 or its compressed data are cut or damaged.
    """
    first = True
    try:
        for chunk in _raw_chunks(path):
            if first and chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise InputError(f"{path} is UTF-16; expected UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.")
            if first:
                chunk = chunk.removeprefix(b"\xef\xbb\xbf")
            first = first and not chunk
            yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: the compressed data are cut short or damaged ({error}). Copy the file again; gzip -t tests it."
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    if first:
        raise InputError(f"{path} is empty; expected rows of preferences.")


def _raw_chunks(path: str) -> Iterator[bytes]:
    with Path(path).open("rb") as handle:
        if path.endswith(".gz"):
            handle = gzip.GzipFile(fileobj=handle)
        if path.endswith(".zst"):
            yield from _zstd_chunks(handle)
            return
        while chunk := handle.read(BLOCK):
            yield chunk


def _zstd_chunks(handle: io.BufferedIOBase) -> Iterator[bytes]:
    import zstandard

    frame, begun = zstandard.ZstdDecompressor().decompressobj(), False
    try:
        while compressed := handle.read(1 << 20):
            while compressed:
                yield frame.decompress(compressed)
                begun, compressed = not frame.eof, frame.unused_data
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
    if begun:
        raise EOFError("the last frame is not complete")


def first_lines(path: str) -> list[bytes]:
    """The non-empty lines among the first thousand or the first block, whichever ends earlier."""
    head = b""
    for chunk in chunks(path):
        head += chunk
        if head.count(b"\n") >= HEAD_LINES or (len(head) >= HEAD_BYTES and b"\n" in head):
            head = head[: head.rfind(b"\n")]
            break
    return [line for line in head.split(b"\n", HEAD_LINES)[:HEAD_LINES] if line.strip()]


def _first_full_line(path: str) -> int:
    """1-based number of the first line that is not empty."""
    head = b""
    for chunk in chunks(path):
        head += chunk
        if head.strip():
            break
    return head[: len(head) - len(head.lstrip())].count(b"\n") + 1


@dataclass(frozen=True, eq=False)
class JsonLines:
    """A JSONL file; ``types`` says of each column what its first thousand values are: text, number, number and text."""

    path: str
    types: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str) -> JsonLines:
        """Look at the first lines, and through the whole file for ``RARE`` keys.

        Raises InputError when none of the first lines is a JSON object.
        """
        kinds: dict[str, set[str]] = {}
        lines, reason = first_lines(path), ""
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = reason or f" ({error})"
                continue
            if isinstance(row, dict):
                for key, value in row.items():
                    kinds.setdefault(key, set()).update({KINDS[type(value)]} if value is not None else ())
        is_list = bool(lines) and lines[0].lstrip()[:1] == b"["
        if not kinds or is_list:
            found = f"line {_first_full_line(path)} is {shown(lines[0])}{reason}" if lines else "only empty lines"
            hint = ' A JSON list becomes lines with: jq -c ".[]".' if is_list else ""
            raise InputError(f"{path}: {found}; expected one JSON object on each line.{hint}")
        types = {key: " and ".join(sorted(kind)) or "null" for key, kind in kinds.items()}
        return cls(path, types | dict.fromkeys(_later_keys(path, (key for key in RARE if key not in types)), "null"))

    def batches(self, names: Sequence[str], tally: Tally) -> Iterator[Batch]:
        """The columns ``names`` (absent keys are null)."""
        schema = dict.fromkeys(names, pl.String)
        line, carry = 1, b""
        for chunk in chunks(self.path):
            carry += chunk
            cut = carry.rfind(b"\n") + 1
            if cut:
                yield self._parse(carry[:cut], line, schema, tally)
                line, carry = line + carry.count(b"\n", 0, cut), carry[cut:]
        if carry.strip():
            yield self._parse(carry, line, schema, tally)

    def _parse(self, block: bytes, line: int, schema: dict[str, type[pl.String]], tally: Tally) -> Batch:
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        try:
            frame = pl.read_ndjson(block, schema=schema)
            if frame.height == lines:
                return Batch(frame, np.arange(line, line + lines))
        except pl.exceptions.PolarsError:
            pass  # some line is broken: look at each
        rows = [(n, text) for n, text in enumerate(block.split(b"\n"), line) if text.strip()]
        kept = [(n, text) for n, text in rows if self._is_object(n, text, tally)]
        numbers = _parseable([n for n, _ in kept], [text for _, text in kept], schema)
        unread = sorted({n for n, _ in kept} - set(numbers))
        tally.add("broken JSON", self.path, unread, "not JSON as RFC 8259 has it; the row is left out.")
        good = set(numbers)
        frame = pl.read_ndjson(b"\n".join(text for n, text in kept if n in good), schema=schema)
        return Batch(frame, np.array(numbers, np.int64))

    def _is_object(self, line: int, text: bytes, tally: Tally) -> bool:
        try:
            row = json.loads(text, parse_constant=_no_constant)
        except UnicodeDecodeError as error:
            near = text[max(0, error.start - 20) : error.end + 20]
            advice = "expected UTF-8; convert the file with iconv. The row is left out."
            tally.add("not UTF-8", self.path, [line], f"byte {error.start + 1} is not UTF-8 in {shown(near)}; {advice}")
            return False
        except (ValueError, RecursionError) as error:
            why = "a NUL byte" if b"\0" in text else str(error)
            advice = "expected one JSON object on the line; the row is left out."
            tally.add("broken JSON", self.path, [line], f"{why} in {shown(text)}; {advice}")
            return False
        if not isinstance(row, dict):
            found = f"found a {KINDS.get(type(row), 'null')}: {shown(text)}"
            tally.add("broken JSON", self.path, [line], f"{found}; expected a JSON object. The row is left out.")
        return isinstance(row, dict)


def _later_keys(path: str, wanted: Iterable[str]) -> set[str]:
    """Which keys stand anywhere in the file; inside a text their quotes would be escaped."""
    marks = {f'"{key}"{space}:'.encode(): key for key in wanted for space in ("", " ")}
    found: set[str] = set()
    tail = b""
    for chunk in chunks(path):
        found |= {key for mark, key in marks.items() if mark in chunk or mark in tail + chunk[:32]}
        tail = chunk[-32:]
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parseable(numbers: list[int], lines: list[bytes], schema: dict[str, type[pl.String]]) -> list[int]:
    """The line numbers that Polars can parse too, by bisection: its idea of JSON is narrower than Python's."""
    try:
        if pl.read_ndjson(b"\n".join(lines), schema=schema).height == len(lines):
            return numbers
    except pl.exceptions.PolarsError:
        pass
    if len(lines) <= 1:
        return []
    half = len(lines) // 2
    return _parseable(numbers[:half], lines[:half], schema) + _parseable(numbers[half:], lines[half:], schema)


@dataclass(frozen=True, eq=False)
class Csv:
    """A CSV (comma, semicolon or tab) file with a header line; every column is text."""

    path: str
    separator: str
    columns: tuple[str, ...]

    @classmethod
    def open(cls, path: str) -> Csv:
        """Read the header. Raises InputError when there is none or it is not UTF-8."""
        lines = first_lines(path)
        if not lines:
            raise InputError(f"{path} holds only empty lines; expected a header line and rows.")
        try:
            header = lines[0].decode().rstrip("\r")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: the header line is not UTF-8: {shown(lines[0])}. Convert it with iconv."
            ) from error
        separator = max(",\t;", key=header.count)
        return cls(path, separator, tuple(next(csv.reader([header], delimiter=separator))))

    @property
    def types(self) -> dict[str, str]:
        """Every column of a CSV file is text."""
        return dict.fromkeys(self.columns, "text")

    def batches(self, names: Sequence[str], tally: Tally) -> Iterator[Batch]:
        """The columns ``names``; a record may span lines inside quotes and is known by its first line."""
        line, carry, header = 1, b"", True
        stream = chunks(self.path)
        for chunk in stream:
            carry += chunk
            starts, lines, cut = _records(carry)
            if not cut and len(carry) <= 4 * BLOCK:
                continue
            batch = self._parse(carry[:cut], starts, line + lines, header) if cut else None
            if batch is None:  # quotes that do not pair up: the slow parser takes it from here
                yield from self._slow(_all(carry, stream), line, header, names, tally)
                return
            yield Batch(batch.frame.select(names), batch.line_B)
            line, carry, header = line + carry.count(b"\n", 0, cut), carry[cut:], False
        if carry.strip():
            yield from self._slow([carry], line, header, names, tally)

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
        sizes = np.diff(np.append(starts, len(block)))
        keep = sizes > 2  # not an empty line
        if header:
            keep[np.argmax(keep)] = False
        return Batch(frame.filter(pl.Series(keep)), line_B[keep])

    def _slow(
        self, parts: Sequence[bytes] | Iterator[bytes], line: int, header: bool, names: Sequence[str], tally: Tally
    ) -> Iterator[Batch]:
        """Python's own parser, which forgives stray quotes, for what Polars refuses."""
        reader = csv.reader(_text_lines(parts), delimiter=self.separator)
        rows: list[list[str]] = []
        numbers: list[int] = []
        begin = line
        while True:
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise InputError(
                    f"line {begin} of {short(self.path)}: {error}; a quote may never be closed."
                ) from error
            number, begin = begin, line + reader.line_num
            if not row or header:
                header = header and not row
                continue
            if self._is_whole(row, number, tally):
                rows.append(row)
                numbers.append(number)
            if len(rows) >= 100_000:
                yield self._gather(rows, numbers, names)
                rows, numbers = [], []
        if rows:
            yield self._gather(rows, numbers, names)

    def _is_whole(self, row: list[str], line: int, tally: Tally) -> bool:
        if len(row) != len(self.columns):
            found = f"{len(row)} fields; expected {len(self.columns)} ({', '.join(self.columns)})"
            tally.add("wrong number of fields", self.path, [line], f"{found}. The row is left out.")
            return False
        broken = next((value for value in row if any("\udc80" <= c <= "\udcff" for c in value)), None)
        if broken is not None:
            near = shown(broken.encode(errors="surrogateescape"))
            advice = "convert the file with iconv. The row is left out."
            tally.add("not UTF-8", self.path, [line], f"{near} is not UTF-8; {advice}")
        return broken is None

    def _gather(self, rows: list[list[str]], numbers: list[int], names: Sequence[str]) -> Batch:
        frame = pl.DataFrame(rows, schema=dict.fromkeys(_distinct(self.columns), pl.String), orient="row")
        return Batch(frame.select(names), np.array(numbers, np.int64))


def _records(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where each whole CSV record starts, how many lines lie before it, and where the last whole one ends."""
    byte = np.frombuffer(data, np.uint8)
    newline = np.flatnonzero(byte == ord("\n"))
    quoted = np.cumsum(byte == ord('"'), dtype=np.uint8) & 1  # parity survives the wrap-around
    ends = newline[quoted[newline] == 0] + 1
    if not len(ends):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    starts = np.concatenate([[0], ends[:-1]])
    return starts, np.searchsorted(newline, starts), int(ends[-1])


def _distinct(columns: Sequence[str]) -> Iterator[str]:
    """Column names with repeated ones numbered, so that the first keeps its name."""
    seen: dict[str, int] = {}
    for name in columns:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"


def _all(carry: bytes, stream: Iterator[bytes]) -> Iterator[bytes]:
    yield carry
    yield from stream


def _text_lines(parts: Sequence[bytes] | Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode(errors="surrogateescape") + "\n"
    if rest:
        yield rest.decode(errors="surrogateescape")
