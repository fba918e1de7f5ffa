"""Shared by the adapters: rows of published files, a filter that counts what it leaves out, and the result.

Published sets are read whole into memory (the largest, TL;DR, has 180,000 rows): JSON lists, JSON lines, CSV and
Parquet, compressed or not, from disk or ``hf://`` paths.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from polypref.data.files.hub import fetch
from polypref.data.files.limits import Limits
from polypref.data.files.sources import ensure_regular, expand, readable
from polypref.data.files.textfiles import whole
from polypref.data.rows.messages import NotMessages, message_text, messages_of
from polypref.data.rows.values import as_flag, as_number, as_text
from polypref.errors import InputError, NotEnoughData, SettingsError, unknown_name
from polypref.wording import counted, share, shown


@dataclass(frozen=True, eq=False)
class Converted:
    """A published set as preference rows.

    ``title``     the set and its protocol; labels not given by people are marked here and in ``attributes``.
    ``table``     user_id, prompt, chosen, rejected and, if present, tie, pair_id, timestamp and attributes.
    ``rows``      rows read. ``left_out`` counts the judgements that are not in the table, by reason.
    ``remarks``   sentences on counts and traps, to read before using the set.
    ``used``      of feedback: judgements that are in the table; with those left out, all that were read.
    """

    title: str
    table: pl.DataFrame
    rows: int
    left_out: dict[str, int]
    remarks: tuple[str, ...] = ()
    used: int | None = None


@dataclass(eq=False)
class Selection:
    """Rows, and how many were left out, by reason."""

    frame: pl.DataFrame
    left_out: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, bad: pl.Expr) -> None:
        """Leave out the rows for which ``bad`` is true or null."""
        kept = self.frame.filter(~bad.fill_null(True))
        self.count(reason, self.frame.height - kept.height)
        self.frame = kept

    def count(self, reason: str, rows: int) -> None:
        """Count ``rows`` as left out."""
        if rows:
            self.left_out[reason] = self.left_out.get(reason, 0) + rows

    def finish(self, title: str, rows: int, remarks: Iterable[str], columns: Sequence[str] = ()) -> Converted:
        """Leave out pairs of one text, and name the result. Raises NotEnoughData if nothing is left.

        Equal rows stay: a repeated equal judgement is as informative about consistency as a contradictory one.
        """
        self.drop("no text", pl.any_horizontal(pl.col("prompt", "chosen", "rejected").is_null()))
        self.drop("chosen and rejected are the same text", pl.col.chosen == pl.col.rejected)
        table = self.frame.select("user_id", "prompt", "chosen", "rejected", *columns)
        if table.is_empty():
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            raise NotEnoughData(
                f"{title}: nothing is left of {counted(rows, 'rows')} ({reasons or 'there were none'})."
            )
        return Converted(title, table, rows, self.left_out, tuple(remarks))


@dataclass(frozen=True, eq=False)
class File:
    """One file's rows and its path."""

    path: str
    frame: pl.DataFrame

    @property
    def stem(self) -> str:
        """The file's name without its endings: ``P1A`` for ``data/P1A.json.gz``."""
        return Path(self.path).name.partition(".")[0]

    def has(self, *columns: str) -> bool:
        return set(columns) <= set(self.frame.columns)

    def need(self, what: str, *columns: str) -> pl.DataFrame:
        """The columns. Raises InputError naming the first that is missing."""
        missing = next((name for name in columns if name not in self.frame.columns), None)
        if missing is not None:
            found = ", ".join(self.frame.columns[:20])
            raise InputError(f'{self.path}: column "{missing}" of {what} is missing; found: {found}.')
        return self.frame.select(columns)


def chats(file: File, *columns: str) -> pl.DataFrame:
    """The file's rows, those columns as JSON texts of messages with just ``role`` and ``content``.

    Conversations may be lists, JSON or texts as Python prints them. Raises InputError for anything else.
    """
    frame = file.frame
    for name in columns:
        cells = frame[name].to_list()
        texts = [cell if cell is None or isinstance(cell, str) else json.dumps(cell) for cell in cells]
        read = [None if text is None else _chat(file.path, name, row, text) for row, text in enumerate(texts, 1)]
        frame = frame.with_columns(pl.Series(name, read, dtype=pl.String))
    return frame


def _chat(path: str, name: str, row: int, text: str) -> str:
    try:
        found = messages_of(text, Limits().depth)
    except NotMessages as error:
        raise InputError(
            f'row {row} of {path}: "{name}" is {shown(text)}; expected a list of messages with a role and a content '
            f"({error})."
        ) from error
    plain = [{"role": one["role"], "content": message_text(one)} for one in found]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def typed(file: File, frame: pl.DataFrame, kinds: Mapping[str, str]) -> pl.DataFrame:
    """``frame`` with columns as "text", "number" or "flag" (true, false, 1, 0).

    Raises InputError naming the first value that is none.
    """
    for name, kind in kinds.items():
        column = frame[name]
        if isinstance(column.dtype, pl.List | pl.Array | pl.Struct):
            raise InputError(f'{file.path}: column "{name}" holds {column.dtype}; expected {kind} values.')
        if kind == "text":
            column, bad = as_text(column), column.is_null() & False
        else:
            column, bad = (as_number if kind == "number" else as_flag)(column)
        if bad.any():
            at = int(bad.arg_max() or 0)
            raise InputError(f'row {at + 1} of {file.path}: "{name}" is {shown(frame[name][at])}; expected a {kind}.')
        frame = frame.with_columns(column.alias(name))
    return frame


def structured(file: File, frame: pl.DataFrame, name: str, fields: Sequence[str], listed: bool = False) -> None:
    """Raise InputError unless a column holds objects (lists of objects) with these fields, each of one text."""
    kind = frame.schema[name]
    inner = kind.inner if listed and isinstance(kind, pl.List) else None if listed else kind
    found = {one.name: one.dtype for one in inner.fields} if isinstance(inner, pl.Struct) else {}
    odd = [one for one in fields if found.get(one) not in (pl.String, pl.Null)]
    if odd or not isinstance(inner, pl.Struct):
        expected = (
            f"{'lists of objects' if listed else 'objects'}{' with the texts ' * bool(fields)}{' and '.join(fields)}"
        )
        raise InputError(
            f'{file.path}: column "{name}" holds {shown(repr(kind), 200)[1:-1]}; expected {expected}. '
            + published_or(kind)
        )


def published_or(kind: pl.DataType) -> str:
    """What to do about a column of this type that should hold lists or objects."""
    if kind == pl.String:
        return "Lists written as text, as in a CSV, are not read: give the set's JSON lines or Parquet file."
    return "Is it the published file?"


def read_files(paths: Sequence[str], limits: Limits | None = None) -> list[File]:
    """The files' rows. Raises InputError for a file that is missing, cannot be read or has no rows."""
    if not paths:
        raise SettingsError("no file given; expected the files of the published set, or hf:// paths.")
    return [File(path, _rows(path, limits or Limits())) for path in expand(paths)]


def _rows(path: str, limits: Limits) -> pl.DataFrame:
    local = fetch(path) if path.startswith("hf://") else path
    ensure_regular(local)
    with readable(path):
        frame = _frame(path, local, limits)
    if frame.is_empty():
        raise InputError(f"{path} has no rows.")
    for name, kind in frame.schema.items():
        if "Binary" in repr(kind):  # Polars panics if such values are written as JSON
            raise InputError(f'{path}: column "{name}" holds bytes; expected text. Is it the published file?')
    return frame


def _frame(path: str, local: str, limits: Limits) -> pl.DataFrame:
    suffix = Path(local.removesuffix(".gz").removesuffix(".zst")).suffix.lower()
    content = b""
    try:
        if suffix == ".parquet":
            frame = pl.read_parquet(local)
        elif suffix in (".json", ".jsonl", ".ndjson"):
            content = whole(local, limits)
            read = pl.read_json if content.lstrip()[:1] == b"[" else pl.read_ndjson
            frame = read(io.BytesIO(content), infer_schema_length=None)
        elif suffix == ".csv":
            frame = pl.read_csv(io.BytesIO(whole(local, limits)), infer_schema_length=None)
        else:
            raise InputError(f"{path}: unknown kind of file; expected .json, .jsonl, .csv or .parquet.")
    except (pl.exceptions.PolarsError, OSError) as error:
        if odd := _odd_value(content):
            raise InputError(f"{path}: {odd}") from error
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if suffix in (".jsonl", ".ndjson") and (broken := _broken_line(content)):
            raise InputError(f"{path}: {broken}") from error
        raise InputError(f"{path} cannot be read ({first}). Download it again.") from error
    return frame


def _broken_line(content: bytes) -> str:
    """The first line that is no JSON, for a file that was cut short or edited; "" if there is none."""
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            json.loads(line or b"0")
        except (ValueError, RecursionError):
            text = line.decode(errors="replace").strip()
            if text:
                return f"line {number} is {shown(text)}; expected JSON. Correct or delete this line."
    return ""


def _odd_value(content: bytes) -> str:
    """The first value of another kind than its column's values before it; "" if there is none."""
    try:
        is_list = content.lstrip()[:1] == b"["
        texts = content.split(b"\n")
        rows = json.loads(content) if is_list else [json.loads(line) for line in texts if line.strip()]
    except (ValueError, RecursionError):
        return ""
    kinds: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            return f"row {number} is {shown(row)}; expected an object. Is it the published file?"
        for name, value in row.items():
            kind, before = _kind_of(value), kinds.get(name, "")
            if not kind.startswith(before) and not before.startswith(kind):
                return f'row {number}: "{name}" is {shown(value)}; expected a {before}, as in the rows before.'
            kinds[name] = max(kind, before, key=len)  # "list of texts" says more than "list", and nothing says nothing
    return ""


def _kind_of(value: object) -> str:
    """What a value is in JSON, with the shape of objects in a list; "" for nothing."""
    if isinstance(value, list):
        inner = sorted({_kind_of(one) for one in value} - {""})
        return f"list of {inner[0]}s" if inner else "list"
    known = {bool: "boolean", int: "number", float: "number", str: "text", dict: "object", type(None): ""}
    return known[type(value)]


def stack(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The concatenated rows of several files; a column has the widest of its types."""
    return pl.concat(frames, how="vertical_relaxed")


def messages(column: str) -> pl.Expr:
    """A list of ``{role, content}`` as the JSON text of a chat, keys in that order and no other keys."""
    each = pl.struct(pl.element().struct.field("role"), pl.element().struct.field("content")).struct.json_encode()
    return pl.format("[{}]", pl.col(column).list.eval(each).list.join(","))


def message(role: str, text: pl.Expr) -> pl.Expr:
    """One message of a chat as JSON."""
    return pl.struct(pl.lit(role).alias("role"), text.alias("content")).struct.json_encode()


def one_of(kind: str, value: str, known: Sequence[str]) -> None:
    """Raises SettingsError unless ``value`` is known."""
    if value not in known:
        raise unknown_name(kind, value, known)


def per_cent(part: float, whole: float) -> str:
    """A share in words."""
    return share(part / whole, 1)
