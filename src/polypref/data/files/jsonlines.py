"""JSONL as batches of text columns with their line numbers.

Texts are unescaped, whatever the legal form of escapes; numbers stay as written (1.0 as 1), lists and objects stay
JSON. Polars parses blocks of plain texts. Lists and objects, which it would change, are parsed by msgspec, which also
explains what is wrong with a line. Of equal keys in an object (RFC 8259 leaves that open) the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import polars as pl

from polypref.data.files.documents import RULE as DOCUMENT_RULE
from polypref.data.files.documents import is_document, json_blocks
from polypref.data.files.late_columns import watched
from polypref.data.files.limits import Limits, over
from polypref.data.files.nested import with_nested
from polypref.data.files.textfiles import Batch, first_lines, head_lines
from polypref.data.linting.problems import ProblemLog
from polypref.errors import InputError
from polypref.wording import shown

Wanted = Callable[[Sequence[str]], Sequence[str]]  # from a file's columns to other relevant ones
Scalar = str | int | float | bool | None
KINDS = {'"': "text", "t": "boolean", "f": "boolean", "n": "null", "[": "list", "{": "object"}
NESTED = ("list", "object")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # raised for a line that is not a row
FEW = 0.05  # above this share of a block's rows to parse again, all are
EXPLAINED = 1 << 16  # up to this many bytes, Python's parser explains a broken line


def nothing(_: Sequence[str]) -> Sequence[str]:
    """No other column is relevant."""
    return ()


@dataclass(frozen=True, eq=False)
class JsonLines:
    """A JSONL file; ``types`` gives the kinds of each column's first thousand values: text, number, number and text.

    ``wanted``: relevant columns that are not among these.
    """

    path: str
    types: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    wanted: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str, limits: Limits, late: Sequence[str] = (), wanted: Wanted = nothing) -> JsonLines:
        """Read the first lines. ``late``: keys known to occur only after them.

        Raises InputError if none of the first lines is a JSON object.
        """
        kinds: dict[str, set[str]] = {}
        lines, reason = head_lines(json_blocks(path, limits)), ""
        for _, line in lines:
            try:
                row = _keys(line)
            except UNREADABLE as error:
                reason = reason or f" ({what_is_wrong(line, error)})"
                continue
            if len(row) > limits.columns:
                raise over(f"{path} has {len(row):,} keys in one line", limits.columns, "columns")
            for key, value in row.items():
                kind = KINDS.get(chr(bytes(value)[0]), "number")
                kinds.setdefault(key, set()).update({kind} if kind != "null" else ())
            if len(kinds) > limits.columns:
                raise over(f"{path} has {len(kinds):,} different keys in its first lines", limits.columns, "columns")
        if not kinds:
            found = f"line {lines[0][0]} is {shown(lines[0][1])}{reason}" if lines else "only empty lines"
            raise InputError(f"{path}: {found}; expected one JSON object on each line, or one JSON list of objects.")
        types = {key: " and ".join(sorted(kind)) or "null" for key, kind in kinds.items()}
        types |= {key: "null" for key in late if key not in types}
        rules = (DOCUMENT_RULE,) * is_document(first_lines(path, limits))
        return cls(path, types, limits, tuple(key for key in wanted(list(types)) if key not in types), rules)

    def batches(self, names: Sequence[str], problem_log: ProblemLog) -> Iterator[Batch]:
        """The columns ``names`` (absent keys are null). Raises LateColumns if a line has one of the wanted columns."""
        parser = _Parser(self.path, list(dict.fromkeys(names)), self.types, problem_log)
        stream = watched(json_blocks(self.path, self.limits), self.wanted)
        yield from with_nested((parser.parse(block, line) for line, block in stream), ())


class _Parser:
    """Turns blocks of one file into batches; faults of single lines go to the problem log."""

    def __init__(self, path: str, names: list[str], types: dict[str, str], problem_log: ProblemLog) -> None:
        self.path, self.names, self.problem_log = path, names, problem_log
        self.schema = dict.fromkeys(names, pl.String)
        self.nested = {name for name in names if any(kind in types[name].split(" and ") for kind in NESTED)}
        self.plain = not self.nested
        self._row = _decoder(names, self.nested)
        self._raw_row = _decoder(names, set(names))

    def parse(self, block: bytes, line: int) -> Batch:
        """A block's rows; ``nested`` holds the columns in which a list or an object was seen so far."""
        return replace(self._parsed(block, line), nested=frozenset(self.nested))

    def _parsed(self, block: bytes, line: int) -> Batch:
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if block.isspace():
            return Batch(pl.DataFrame(schema=self.schema), np.zeros(0, np.int64), 0, lines, len(block))
        if self.plain:
            try:
                frame = pl.read_ndjson(block, schema=self.schema)
                if frame.height == lines:
                    return Batch(self._mended(frame, block), np.arange(line, line + lines), lines, 0, len(block))
            except (pl.exceptions.PolarsError, *UNREADABLE):
                pass  # some line is broken: check each
        return self._exact(block, line, lines)

    def _mended(self, frame: pl.DataFrame, block: bytes) -> pl.DataFrame:
        """Parse lists, objects and -0, which Polars changes, again. Raises an UNREADABLE if that fails."""
        is_nested = pl.all().str.starts_with("[") | pl.all().str.starts_with("{")
        is_changed = pl.any_horizontal(is_nested | (pl.all() == "-0"))  # the number -0, or the text "-0"
        at = frame.select(is_changed.fill_null(False)).to_series().arg_true().to_numpy()
        if not len(at):
            return frame
        if len(at) > FEW * frame.height:
            raise msgspec.DecodeError
        lines = block.split(b"\n")
        rows = [self._texts(lines[k]) for k in at.tolist()]
        columns = zip(self.names, zip(*rows, strict=True), strict=True)
        mended = {name: frame[name].scatter(at, pl.Series(values, dtype=pl.String)) for name, values in columns}
        return pl.DataFrame(mended)

    def _exact(self, block: bytes, line: int, lines: int) -> Batch:
        numbers, rows = [], []
        unreadable: dict[str, tuple[bytes, Exception, list[int]]] = {}
        utf8 = _is_utf8(block)
        for number, text in enumerate(block.split(b"\n"), line):
            if not text.strip():
                continue
            try:
                rows.append(self._texts(text, utf8))
                numbers.append(number)
            except UNREADABLE as error:
                name = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "broken JSON"
                unreadable.setdefault(name, (text, error, []))[2].append(number)
        count = len(numbers)
        for name, (first, error, wrong) in unreadable.items():
            self.problem_log.add(name, self.path, wrong, _explained(first, error))
            count += len(wrong)
        columns = zip(*rows, strict=True) if rows else [()] * len(self.names)
        frame = pl.DataFrame(
            [pl.Series(n, values, dtype=pl.String) for n, values in zip(self.names, columns, strict=True)]
        )
        return Batch(frame, np.array(numbers, np.int64), count, lines - count, len(block))

    def _texts(self, line: bytes, utf8: bool = True) -> list[str | None]:
        """A line's values as text; NaN is null. Raises an UNREADABLE for a line that is not one JSON object."""
        if not utf8:
            line.decode()
        try:
            row = self._row(line)
        except msgspec.ValidationError:  # a list where the first lines had texts, or not an object
            row = self._raw_row(line)
            self.nested |= {n for n, v in zip(self.names, row, strict=True) if bytes(v)[:1] in (b"[", b"{")}
        return [v if v.__class__ is str or v is None else text_of(v) for v in row]


def _explained(line: bytes, error: Exception) -> str:
    """Explains what is wrong with a line that is not a row. Slow, so only the first line of a kind is explained."""
    if isinstance(error, UnicodeDecodeError):
        near = line[max(0, error.start - 20) : error.end + 20]
        advice = "expected UTF-8; convert the file: iconv -f WINDOWS-1252 -t UTF-8. The row is left out."
        return f"byte {error.start + 1} is not UTF-8 in {shown(near)}; {advice}"
    return _complaint(line, error)


def _decoder(names: Sequence[str], raw: set[str]) -> Callable[[bytes], tuple[Any, ...]]:
    """A line to the values of ``names`` in their order; those of ``raw`` stay JSON."""
    if any(c in '\\"' or c < " " for name in names for c in name):  # field names cannot contain these: look them up
        find = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        return lambda line: tuple(map(find(line).get, names, repeat(msgspec.Raw(b"null"))))
    keys = [f"f{k}" for k in range(len(names))]
    kinds: list[tuple[Any, Any]] = [(msgspec.Raw, msgspec.Raw(b"null")) if n in raw else (Scalar, None) for n in names]
    fields = [(key, kind, absent) for key, (kind, absent) in zip(keys, kinds, strict=True)]
    row = msgspec.defstruct("Row", fields, rename=dict(zip(keys, names, strict=True)), gc=False)
    decode = msgspec.json.Decoder(row).decode
    return lambda line: msgspec.structs.astuple(decode(line))


def _keys(line: bytes) -> dict[str, msgspec.Raw]:
    line.decode()
    try:
        return msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:  # JSON, but not an object
        return {}


def text_of(value: Any) -> str | None:
    """A value that is not text, as text."""
    if isinstance(value, msgspec.Raw):
        written = bytes(value)
        if written[:1] in (b"[", b"{"):
            return written.decode()
        if written[:1] not in (b'"', b"t", b"f", b"n"):
            return _number(written.decode())
        value = msgspec.json.decode(written)
        return value if isinstance(value, str) or value is None else text_of(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _number(repr(value))


def _number(written: str) -> str:
    """1, 1.0 and 1e0 as the same text."""
    number = Decimal(written)
    if not number:
        return "0"
    if number == number.to_integral_value() and abs(number.adjusted()) <= 400:
        return format(number.quantize(Decimal(1)) if number.adjusted() < 28 else number, "f").partition(".")[0]
    return format(Decimal(repr(float(written))), "f")


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def what_is_wrong(line: bytes, error: Exception) -> str:
    """What is wrong with a line, in the standard parser's words if it finds the fault."""
    if b"\0" in line:
        return "a NUL byte"
    if isinstance(error, RecursionError):
        return "nested too deep"
    if len(line) <= EXPLAINED:
        try:
            json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as found:
            return str(found)
    return "half of a surrogate pair" if b"\\ud" in line.lower() else str(error)


def _complaint(line: bytes, error: Exception) -> str:
    if isinstance(error, msgspec.ValidationError):
        kind = KINDS.get(line.lstrip()[:1].decode(), "number")
        if kind != "object":
            return f"found a {kind}: {shown(line)}; expected a JSON object. The row is left out."
    return f"{what_is_wrong(line, error)} in {shown(line)}; expected one JSON object on the line; the row is left out."


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
