"""From what a user types (paths, globs, ``hf://`` paths) to sources of row batches; Parquet is read here."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from polypref.data.files.hub import fetch, hub_files
from polypref.data.files.textfiles import Batch, Csv, JsonLines
from polypref.data.linting.problems import Tally
from polypref.errors import InputError
from polypref.wording import shown

BATCH_ROWS = 250_000
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


class Source(Protocol):
    """A file of rows: what kind of value each column holds, and the rows in batches."""

    @property
    def path(self) -> str: ...

    @property
    def types(self) -> dict[str, str]: ...

    def batches(self, names: Sequence[str], tally: Tally) -> Iterator[Batch]: ...


def expand(paths: Sequence[str]) -> list[str]:
    """The files that paths, globs, folders' globs and ``hf://`` paths stand for, each once, in order.

    Raises InputError when a path stands for no file.
    """
    files: list[str] = []
    for path in map(str, paths):
        found = [path]
        if path.startswith("hf://"):
            found = hub_files(path)
        elif not Path(path).exists():
            found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path.glob refuses absolute patterns
        elif Path(path).is_dir():
            raise InputError(f"{path} is a folder; expected files. Use a pattern: '{path.rstrip('/')}/*.parquet'.")
        if not found:
            raise InputError(f"no file is named {path}; expected .jsonl, .csv or .parquet files, also .gz and .zst.")
        files += found
    return list(dict.fromkeys(files))


def open_source(path: str) -> Source:
    """A source for one file by its suffix. Raises InputError for an unknown suffix or an unreadable file."""
    if path.startswith("hf://"):
        path = fetch(path)
    name = path.removesuffix(".gz").removesuffix(".zst")
    kind = SUFFIXES.get(Path(name).suffix.lower())
    if kind == "parquet" and name == path:
        return Parquet.open(path)
    if kind == "jsonl":
        return JsonLines.open(path)
    if kind == "csv":
        return Csv.open(path)
    known = ", ".join(SUFFIXES)
    raise InputError(f"{path}: unknown kind of file; expected one of {known} (text files also with .gz or .zst).")


@dataclass(frozen=True, eq=False)
class Parquet:
    """A Parquet file; its row groups are streamed."""

    path: str
    schema: dict[str, pl.DataType]

    @classmethod
    def open(cls, path: str) -> Parquet:
        """Read the schema. Raises InputError when the file is not Parquet."""
        try:
            return cls(path, dict(pl.scan_parquet(path, glob=False).collect_schema()))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{path} is not a readable Parquet file ({_first_line(error)}).") from error

    @property
    def types(self) -> dict[str, str]:
        """What each column holds, in words."""
        return {name: _kind(dtype) for name, dtype in self.schema.items()}

    def batches(self, names: Sequence[str], tally: Tally) -> Iterator[Batch]:
        """The columns ``names`` in slices; lists and structs become JSON text, categories become text."""
        columns = [self._column(name) for name in names]
        row = 1
        try:
            frames = pl.scan_parquet(self.path, glob=False).select(names)
            for frame in frames.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
                numbers = np.arange(row, row + frame.height)
                row += frame.height
                yield self._decoded(Batch(frame, numbers), columns, tally)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{self.path} is damaged after row {row - 1} ({_first_line(error)}).") from error

    def _decoded(self, raw: Batch, columns: list[pl.Expr], tally: Tally) -> Batch:
        """Columns as text where they have to be; rows whose bytes are not UTF-8 go to the tally."""
        frame, line_B = raw.frame, raw.line_B
        for name in (name for name in frame.columns if self.schema[name] == pl.Binary):
            texts = _as_texts(frame[name])
            broken = frame[name].is_not_null() & texts.is_null()
            if broken.any():
                text = f'"{name}" is {shown(frame[name].filter(broken)[0])}, not UTF-8. The row is left out.'
                tally.add("not UTF-8", self.path, line_B[broken.to_numpy()], text)
            frame, line_B = frame.with_columns(texts).filter(~broken), line_B[~broken.to_numpy()]
        return Batch(frame.select(columns), line_B)

    def _column(self, name: str) -> pl.Expr:
        dtype, column = self.schema[name], pl.col(name)
        if isinstance(dtype, pl.List | pl.Array | pl.Struct):
            wrapped = pl.struct(column).struct.json_encode()  # {"name":[...]}: the encoder takes structs only
            head, tail = len(f'{{"{name}":'), 1
            return pl.when(column.is_not_null()).then(wrapped.str.slice(head).str.head(-tail)).alias(name)
        if isinstance(dtype, pl.Categorical | pl.Enum):
            return column.cast(pl.String)
        return column


def _as_texts(column: pl.Series) -> pl.Series:
    """Bytes as UTF-8 texts; null where they are none."""
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:  # it does not say which one
        return pl.Series(column.name, [_as_text(value) for value in column], dtype=pl.String)


def _as_text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
