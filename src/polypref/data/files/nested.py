"""Which columns of a file hold lists and objects, decided once per file.

JSON and Parquet say so by their types. A CSV file cannot, and in some JSON files lists are texts: a column of texts
holds lists if every text among the first rows is a JSON list of texts (as in published battles of the arena) or one
message. A single answer that happens to be a list is an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import polars as pl

from polypref.data.files.textfiles import Batch

FIRST = 1000  # rows that decide

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
        yield replace(batch, nested=batch.nested | nested) if nested else batch


def _is_json(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return False
    texts = column.head(FIRST).drop_nulls()
    return bool(len(texts) and texts.str.contains(r"^\s*[\[{]").all() and all(map(_is_nested, texts)))


def _is_nested(text: str) -> bool:
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(found, list) or "role" in found or ("from" in found and "value" in found)
