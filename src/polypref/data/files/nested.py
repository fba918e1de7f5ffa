"""Which columns of a file hold lists and objects, decided once per file.

JSON and Parquet say so by their types. A CSV file cannot, and in some JSON files lists are texts: a column of texts
holds lists if every text among the first rows is a JSON list of texts (as in published battles of the arena) or one
message. A single answer that happens to be a list is an answer. Such values as Python prints them become JSON.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import polars as pl

from polypref.data.files.textfiles import Batch

FIRST = 1000  # rows that decide
PRINTED = r"^\s*(?:\[\s*'|\{\s*')"  # a list of texts, or an object, as Python prints it
LITERAL = 1 << 20  # characters of a list as Python prints it
# Texts, and what numpy puts between two texts or two objects of an array: no comma.
GAPS = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(\s+(?=['"]))?|(\})\s+(?=\{)""")

_decode = msgspec.json.Decoder(list[str | None] | dict[str, Any]).decode


def with_nested(batches: Iterable[Batch], native: Collection[str]) -> Iterator[Batch]:
    """The batches, ``nested`` also in the ``native`` columns and in those whose first texts all are lists or messages.

    A column may hold its first object late in a file: the batches say so themselves.
    """
    nested: frozenset[str] | None = None
    for batch in batches:
        if nested is None and batch.frame.height:
            texts = [name for name in batch.frame.columns if name not in native and _is_json(batch.frame[name])]
            nested = frozenset([*native, *texts])
        if nested:
            texts = [name for name in batch.frame.columns if name in nested and name not in native]
            frame = batch.frame.with_columns(_as_json(batch.frame[name]) for name in texts)
            batch = replace(batch, frame=frame, nested=batch.nested | nested)
        yield batch


def _is_json(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return False
    texts = column.head(FIRST).drop_nulls()
    return bool(len(texts) and texts.str.contains(r"^\s*[\[{]").all() and all(map(_is_nested, texts)))


def _as_json(column: pl.Series) -> pl.Series:
    """The column with what Python printed as JSON."""
    printed = column.str.contains(PRINTED).fill_null(False)
    if not printed.any():
        return column
    at = printed.arg_true()
    return column.scatter(at, pl.Series([from_python(text) or text for text in column.gather(at)], dtype=pl.String))


def from_python(text: str) -> str | None:
    """A list or an object as Python or numpy prints it, as JSON; None if it is none."""
    text = GAPS.sub(lambda found: (found[1] or found[3]) + ", " * bool(found[2] or found[3]), text.strip())
    try:
        return json.dumps(ast.literal_eval(text)) if len(text) <= LITERAL else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _is_nested(text: str) -> bool:
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        told = from_python(text) if re.match(PRINTED, text) else None
        return told is not None and _is_nested(told)
    return isinstance(found, list) or "role" in found or ("from" in found and "value" in found)
