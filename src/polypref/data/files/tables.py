"""Rows that are in memory already, read as a file would be: lists of dicts, pandas, Polars, Arrow, Hugging Face.

Typed tables (Polars, Arrow, ``datasets.Dataset``, anything with ``__arrow_c_stream__``) are read like Parquet. Lists
of dicts and pandas tables have a type for each value, so they are read like JSON Lines: lists and objects become JSON,
a column of one kind keeps it, and the values of any other column become texts.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import polars as pl

from polypref.data.files.jsonlines import text_of
from polypref.data.files.limits import Limits, over
from polypref.data.files.parquet import Parquet, first_line, plain_json
from polypref.errors import InputError
from polypref.wording import shown

NAME = "rows in memory"
EXPECTED = "a list of dicts, or a table of pandas, Polars, Arrow or Hugging Face's datasets"
EXACT = 2**53  # larger whole numbers are not exact as floats

_encode = msgspec.json.Encoder(decimal_format="number").encode


def is_table(data: object) -> bool:
    """Whether ``data`` holds rows itself; else it names files."""
    rows = isinstance(data, Sequence) and not isinstance(data, str) and len(data) > 0 and isinstance(data[0], Mapping)
    return rows or hasattr(data, "__arrow_c_stream__") or _library(data) in ("pandas", "datasets")


def table(data: Any, limits: Limits) -> Parquet:
    """``data`` as a source of rows. Raises InputError for values that no file could hold, and beyond the limits."""
    if _library(data) == "datasets":
        if not hasattr(data, "with_format") or not hasattr(data, "num_rows"):
            raise InputError(f"the data are a {type(data).__name__}; expected one split of it, such as data['train'].")
        data = data.with_format("arrow")[:]
    if isinstance(data, Sequence):
        source = _of_values(_by_column(data))
    elif _library(data) == "pandas":
        if not data.columns.is_unique:
            raise InputError("two columns of the table have one name; rename one of them.")
        source = _of_values({name: data[name].tolist() for name in data.columns})
    else:
        try:
            source = Parquet.of(NAME, pl.DataFrame(data).lazy())
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            raise InputError(f"the table cannot be read ({first_line(error)}); expected {EXPECTED}.") from None
    if len(source.schema) > limits.columns:
        raise over(f"the table has {len(source.schema):,} columns", limits.columns, "columns")
    return source


def _library(data: object) -> str:
    return type(data).__module__.partition(".")[0]


def _by_column(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """The values of each key, None where a row lacks it; keys in the order of their first occurrence."""
    for at, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"row {at} of {len(rows)} is {shown(row)}; expected a dict, as row 1 is.")
    names = dict.fromkeys(key for row in rows for key in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _of_values(columns: Mapping[Any, list[Any]]) -> Parquet:
    kinds: dict[str, str] = {}
    series = []
    for name, values in columns.items():
        if not isinstance(name, str):
            raise InputError(f"a column is named {shown(name)}; expected names that are texts.")
        kind_N = [_kind(value, name) for value in values]
        found = sorted({kind for kind in kind_N if kind})
        kinds[name] = " and ".join(found) or "null"
        series.append(_column(name, [v if kind else None for v, kind in zip(values, kind_N, strict=True)], found))
    return Parquet.of(NAME, pl.DataFrame(series).lazy(), kinds)


def _kind(value: Any, name: str) -> str:
    """The kind of a value, in the words of files; "" if there is none."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, float | np.floating) and math.isnan(value):
        return ""
    for kind, types in (
        ("text", str),
        ("boolean", (bool, np.bool_)),
        ("number", (int, float, Decimal, np.integer, np.floating)),
        ("object", Mapping),
        ("list", (list, tuple, np.ndarray)),
        ("time", (datetime.date, np.datetime64)),
    ):
        if isinstance(value, types):
            return kind
    raise InputError(f'column "{name}" holds {shown(value)}, a {type(value).__name__}; expected {EXPECTED}.')


def _column(name: str, values: list[Any], kinds: list[str]) -> pl.Series:
    """A column of one kind as it is, any other as texts; lists and objects as JSON."""
    if kinds == ["boolean"]:
        return pl.Series(name, [None if v is None else bool(v) for v in values], dtype=pl.Boolean)
    if kinds == ["number"] and all(map(_is_exact, filter(lambda v: v is not None, values))):
        whole = all(isinstance(v, int | np.integer) for v in values if v is not None)
        plain = [None if v is None else int(v) if whole else float(v) for v in values]
        return pl.Series(name, plain, dtype=pl.Int64 if whole else pl.Float64)
    return pl.Series(name, [None if v is None else _text(v, name) for v in values], dtype=pl.String)


def _is_exact(value: Any) -> bool:
    return isinstance(value, float | np.floating) or (isinstance(value, int | np.integer) and abs(int(value)) <= EXACT)


def _text(value: Any, name: str) -> str | None:
    """A value as JSON Lines and Parquet have it as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime.date | np.datetime64):
        return value.isoformat() if isinstance(value, datetime.date) else str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Decimal) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    if isinstance(value, bool | int | float):
        return text_of(value)
    try:
        return _encode(plain_json(value)).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f'column "{name}" holds {shown(value)}, which is not JSON ({first_line(error)}).') from None
