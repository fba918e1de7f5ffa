"""Parquet in slices: lists and objects become JSON text, bytes and categories become text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.files.limits import Limits, over
from polypref.data.files.nested import with_nested
from polypref.data.files.textfiles import Batch
from polypref.data.linting.problems import ProblemLog
from polypref.errors import InputError
from polypref.wording import shown

BATCH_ROWS, NESTED_ROWS = 250_000, 50_000
DAYS = (-719162, 2932897)  # since 1970, of the first of January of the years 1 and 10000
PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 0}  # 64 bits of nanoseconds end in the year 2262 anyway
KEPT = (pl.String, pl.Boolean, pl.Null, pl.Categorical, pl.Enum)  # Polars writes these as JSON unchanged


@dataclass(frozen=True, eq=False)
class Parquet:
    """A Parquet file, whose row groups are streamed; or rows in memory, see ``tables``.

    ``kinds``  the kind of each column's values, where the schema does not tell: lists and objects are JSON then.
    """

    path: str
    frames: pl.LazyFrame
    schema: dict[str, pl.DataType]
    kinds: Mapping[str, str]
    wanted: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str, frames: pl.LazyFrame, kinds: Mapping[str, str] | None = None) -> Parquet:
        """Rows named ``path`` in messages. Raises Polars' errors if their schema cannot be read."""
        schema = dict(frames.collect_schema())
        return cls(path, frames, schema, kinds or {name: _kind(dtype) for name, dtype in schema.items()})

    @classmethod
    def open(cls, path: str, limits: Limits) -> Parquet:
        """Read the schema. Raises InputError if the file is not Parquet."""
        try:
            source = cls.of(path, pl.scan_parquet(path, glob=False))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{path} is not a readable Parquet file ({first_line(error)}).") from error
        if len(source.schema) > limits.columns:
            raise over(f"{path} has {len(source.schema):,} columns", limits.columns, "columns")
        return source

    @property
    def types(self) -> dict[str, str]:
        """The kind of each column's values, in words."""
        return dict(self.kinds)

    def batches(self, names: Sequence[str], problem_log: ProblemLog) -> Iterator[Batch]:
        """The columns ``names`` in slices; lists and structs become JSON text, categories become text."""
        native = [name for name in names if {"list", "object"} & {*self.kinds[name].split(" and ")}]
        return with_nested(self._batches(list(dict.fromkeys(names)), problem_log), native)

    def _batches(self, names: list[str], problem_log: ProblemLog) -> Iterator[Batch]:
        nested = any(isinstance(self.schema[name], pl.List | pl.Array | pl.Struct) for name in names)
        row = 1
        try:
            for frame in self.frames.select(names).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
                for part in frame.iter_slices(NESTED_ROWS if nested else BATCH_ROWS):
                    numbers = np.arange(row, row + part.height)
                    row += part.height
                    yield self._decoded(part, numbers, problem_log)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{self.path} is damaged after row {row - 1} ({first_line(error)}).") from error

    def _decoded(self, frame: pl.DataFrame, line_B: NDArray[np.int64], problem_log: ProblemLog) -> Batch:
        """Columns as text where needed; rows with values that cannot be text go to the problem log."""
        rows, size = frame.height, int(frame.estimated_size())
        for name in frame.columns:
            column = self._in_calendar(frame[name], line_B, problem_log)
            texts, why = _as_texts(column)
            broken = column.is_not_null() & texts.is_null()
            if broken.any():
                text = f'"{name}" is {shown(column.filter(broken)[0])}, {why}. The row is left out.'
                problem_log.add("not UTF-8", self.path, line_B[broken.to_numpy()], text)
            frame, line_B = frame.with_columns(texts).filter(~broken), line_B[~broken.to_numpy()]
        return Batch(frame, line_B, rows, 0, size)

    def _in_calendar(self, column: pl.Series, line_B: NDArray[np.int64], problem_log: ProblemLog) -> pl.Series:
        """Dates and times of the years 1 to 9999; others, which Polars cannot show, are reported and null."""
        dtype = column.dtype
        unit = 86400 * PER_SECOND[dtype.time_unit] if isinstance(dtype, pl.Datetime) else int(dtype == pl.Date)
        if not unit:
            return column
        days = [unit * day for day in DAYS]
        number = column.to_physical()
        outside = ~number.is_between(days[0], days[1], closed="left").fill_null(True)
        if outside.any():
            found = f'"{column.name}" is {number.filter(outside)[0]} (as a number)'
            text = f"{found}, a date beyond the years 1 to 9999. The row is kept without it."
            problem_log.add(f"unreadable {column.name}", self.path, line_B[outside.to_numpy()], text, kept=True)
            column = pl.select(pl.when(~outside).then(number)).to_series().cast(column.dtype).alias(column.name)
        return column


def _as_texts(column: pl.Series) -> tuple[pl.Series, str]:
    """Bytes as UTF-8, lists and objects as JSON, categories by name; null if impossible, and the reason."""
    dtype = column.dtype
    if isinstance(dtype, pl.List | pl.Array | pl.Struct):
        return _as_json(column), "which holds bytes that are not UTF-8"
    if dtype == pl.Binary:
        try:
            return column.cast(pl.String), ""
        except pl.exceptions.PolarsError:  # it does not say which one
            texts = [_as_text(value) for value in column]
            return pl.Series(column.name, texts, dtype=pl.String), "not UTF-8"
    return (column.cast(pl.String) if isinstance(dtype, pl.Categorical | pl.Enum) else column), ""


def _as_text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _as_json(column: pl.Series) -> pl.Series:
    if _is_kept(column.dtype):
        wrapped = column.alias("v").to_frame().select(pl.struct("v").struct.json_encode()).to_series()  # {"v":[...]}
        text = wrapped.str.slice(5).str.head(-1)
        return pl.select(pl.when(column.is_not_null()).then(text)).to_series().alias(column.name)
    return pl.Series(column.name, [_written(column, k) for k in range(len(column))], dtype=pl.String)


def _is_kept(dtype: Any) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _is_kept(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return all(_is_kept(field.dtype) for field in dtype.fields)
    return dtype.is_integer() or isinstance(dtype, KEPT)


def _written(column: pl.Series, row: int) -> str | None:
    """One list or object as JSON; None if it contains bytes that are not text, or a date beyond Python's range."""
    try:
        plain = plain_json(column[row])
        return None if plain is None else msgspec.json.encode(plain).decode()
    except (UnicodeDecodeError, ValueError, OverflowError):
        return None


def plain_json(value: Any) -> Any:
    """A value with JSON's types alone. Raises UnicodeDecodeError for bytes that are not UTF-8."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)  # data frames write an absent number as NaN
    if isinstance(value, pl.Series | np.ndarray | np.generic):
        return plain_json(value.to_list() if isinstance(value, pl.Series) else value.tolist())
    if isinstance(value, list | tuple):
        return [plain_json(one) for one in value]
    if isinstance(value, Mapping):
        return {key: plain_json(one) for key, one in value.items()}
    return value


def _kind(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    for kind, types in (
        ("text", (pl.String, pl.Categorical, pl.Enum, pl.Binary)),
        ("list", (pl.List, pl.Array)),
        ("object", (pl.Struct,)),
        ("boolean", (pl.Boolean,)),
        ("null", (pl.Null,)),
    ):
        if isinstance(dtype, types):
            return kind
    return "time"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
