"""The records of a product's export, one after another: JSON, JSON lines, pages of an API in a row, CSV, Parquet.

A page is an object whose records stand under ``data`` or the like. JSON lines, CSV and Parquet are read as a stream. A
document (a list, a page, objects over several lines) is read whole, within ``Limits.whole_bytes``, and its records are
parsed one by one. Products put texts, users and judgements into different files, so an export is read more than once;
only what a judgement needs is kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from polypref.data.files.documents import BETWEEN, without_nan
from polypref.data.files.hub import fetch
from polypref.data.files.limits import Limits
from polypref.data.files.sources import SUFFIXES, ensure_regular, expand, open_source, readable
from polypref.data.files.textfiles import blocks, chunks, too_long, whole
from polypref.data.linting.problems import ProblemLog
from polypref.errors import InputError, SettingsError
from polypref.wording import shown

PAGES = (
    *("data", "results", "items", "records", "scores", "traces", "observations", "feedback", "feedbacks", "runs"),
    *("spans", "annotations", "requests", "logs", "tasks"),
)
OWN = ("id", "_id", "span_id", "run_id", "request_id", "context", "trace_id", "fields")  # keys of a record, not a page
HEAD = 1 << 20  # bytes in which the first line of JSON lines ends
Record = dict[str, Any]
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Export:
    """The files of one export. Iterating gives their records; None stands for what is no JSON object."""

    def __init__(self, paths: Sequence[str], limits: Limits | None = None) -> None:
        if not paths:
            raise SettingsError("no file given; expected the files that the product exported.")
        self.limits = limits or Limits()
        self.files = expand(paths)

    def __iter__(self) -> Iterator[Record | None]:
        for path in self.files:
            yield from self.of(path)

    def of(self, path: str) -> Iterator[Record | None]:
        """The records of one of the files. Raises InputError if it cannot be read or holds none."""
        local = fetch(path) if path.startswith("hf://") else path
        ensure_regular(local)
        kind = SUFFIXES.get(Path(local.removesuffix(".gz").removesuffix(".zst")).suffix.lower())
        with readable(path):
            yield from _table(local, self.limits) if kind in ("csv", "parquet") else _json(local, self.limits)


def _table(path: str, limits: Limits) -> Iterator[Record]:
    source = open_source(path, limits)
    names = list(source.types)
    for batch in source.batches(names, ProblemLog()):
        for cells in batch.frame.select(names).iter_rows():
            yield {name: _cell(cell) for name, cell in zip(names, cells, strict=True) if cell not in (None, "")}


def _cell(cell: Any) -> Any:
    """A list or an object that is written as JSON in a cell; else the cell."""
    if isinstance(cell, str) and cell[:1] in ("{", "["):
        try:
            return msgspec.json.decode(without_nan(cell.encode()))
        except UNREADABLE:
            return cell
    return cell


def _json(path: str, limits: Limits) -> Iterator[Record | None]:
    head = b""
    for chunk in chunks(path):
        head += chunk[: HEAD - len(head)]
        if len(head) >= HEAD:
            break
    line, broken, _ = head.lstrip().partition(b"\n")
    first = _parsed(line) if broken else None
    if isinstance(first, dict):
        for _, block in blocks(path, limits):
            for text in without_nan(block).split(b"\n"):
                if text.strip():
                    yield from _records(_parsed(text))
        return
    for row, text in enumerate(_of_document(path, without_nan(whole(path, limits))), 1):
        if len(text) > limits.line_bytes:
            raise too_long(path, row, len(text), limits)
        yield from _records(_parsed(text))


def _parsed(text: bytes) -> Any:
    """A JSON value; None where it is none that can be read."""
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        return None


def _of_document(path: str, content: bytes) -> Iterator[bytes]:
    """The records and pages in a document: the elements of a list, or values one after another."""
    if content.lstrip()[:1] not in (b"[", b"{"):
        raise InputError(f"{path} begins with {shown(content[:60])}; expected JSON, JSON lines, CSV or Parquet.")
    try:
        if content.lstrip()[:1] == b"[":
            yield from map(bytes, msgspec.json.decode(content, type=list[msgspec.Raw]))
        else:
            found = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
            lists = [name for name in PAGES if bytes(found.get(name, b""))[:1] == b"["]
            for name in [] if any(name in found for name in OWN) else lists:
                yield from map(bytes, msgspec.json.decode(found[name], type=list[msgspec.Raw]))
            if not lists or any(name in found for name in OWN):
                yield content
        return
    except UNREADABLE:
        pass  # several values, or one that is cut short
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1} is not UTF-8; export it again.") from error
    yield from _in_sequence(path, text)


def _in_sequence(path: str, text: str) -> Iterator[bytes]:
    """Values one after another, within lists or not. A comma before the end of a list, as Helicone's tool writes, is
    none too many. Raises InputError for what is no JSON, and for a list without an end."""
    decoder = json.JSONDecoder()
    within, at = False, _next(text, 0)
    while at < len(text):
        if text[at] == "]" if within else text[at] == "[":
            within, at = not within, _next(text, at + 1)
            continue
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, at) + 1
            why = "nested too deep" if isinstance(error, RecursionError) else str(error)
            raise InputError(
                f"line {line} of {path}: {shown(text[at : at + 200])} is not JSON ({why}). Is the file cut short? "
                "Export it again."
            ) from error
        yield text[at:end].encode(errors="replace")
        at = _next(text, end)
    if within:
        raise InputError(f"{path} is cut short: its list is not closed by ]. Export it again.")


def _next(text: str, at: int) -> int:
    """Where the next value or bracket begins."""
    return BETWEEN.match(text, at).end()  # type: ignore[union-attr]


def _records(value: Any) -> Iterator[Record | None]:
    """The records in a value: itself, or those of a page or of a list of pages."""
    if isinstance(value, list):
        for one in value:
            yield from _records(one) if isinstance(one, list | dict) else (None,)
    elif not isinstance(value, dict):
        yield None
    elif lists := _lists(value):
        for name in lists:
            yield from _records(value[name])
    else:
        yield value


def _lists(value: Record) -> list[str]:
    """The keys of a page's records: it has no id of its own, and beside them only counts, cursors and the like."""
    if any(name in value for name in OWN):
        return []
    return [
        name
        for name in PAGES
        if isinstance(found := value.get(name), list) and all(isinstance(one, dict) for one in found)
    ]


def get(record: Mapping[str, Any], *names: str) -> Any:
    """The first value that is there under one of the names; dots lead into objects, or are part of a name."""
    for name in names:
        found = _at(record, name)
        if found is not None and found != "":
            return found
    return None


def _at(record: Any, name: str) -> Any:
    if not isinstance(record, Mapping):
        return None
    if name in record:
        return record[name]
    head, dot, rest = name.partition(".")
    return _at(record.get(head), rest) if dot else None


def id_of(value: Any) -> str | None:
    """An id as text: 7, 7.0 and "7" are the same; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else value
    return str(value).strip() or None


def objects(value: Any) -> list[Record]:
    """The objects in a list; none where the value is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
