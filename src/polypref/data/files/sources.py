"""From a user's paths, globs and ``hf://`` paths to sources of row batches."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import polars as pl

from polypref.data.files.csvfiles import Csv
from polypref.data.files.hub import fetch, hub_files
from polypref.data.files.jsonlines import JsonLines, Wanted, nothing
from polypref.data.files.limits import Limits
from polypref.data.files.parquet import Parquet, first_line
from polypref.data.files.textfiles import Batch, chunks
from polypref.data.linting.problems import ProblemLog
from polypref.errors import InputError

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
}


class Source(Protocol):
    """A file of rows: the kind of each column's values, and the rows in batches.

    ``wanted``  relevant columns that may first occur late; ``batches`` raises LateColumns for them.
    ``rules``   how the file is read where that is not obvious.
    """

    @property
    def path(self) -> str: ...

    @property
    def types(self) -> dict[str, str]: ...

    @property
    def wanted(self) -> tuple[str, ...]: ...

    @property
    def rules(self) -> tuple[str, ...]: ...

    def batches(self, names: Sequence[str], problem_log: ProblemLog) -> Iterator[Batch]: ...


def expand(paths: Sequence[str]) -> list[str]:
    """The files that match paths, globs, folders' globs and ``hf://`` paths, each once, in order.

    Raises InputError if a path matches no file.
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


def open_source(path: str, limits: Limits, late: Sequence[str] = (), wanted: Wanted = nothing) -> Source:
    """A source for one file by its suffix.

    ``late`` are columns known to occur late, ``wanted`` gives relevant columns besides those found. Raises InputError
    for an unknown suffix or an unreadable file.
    """
    if path.startswith("hf://"):
        path = fetch(path)
    ensure_regular(path)
    name = path.removesuffix(".gz").removesuffix(".zst")
    kind = SUFFIXES.get(Path(name).suffix.lower())
    with readable(path):
        if kind == "parquet" and name == path:
            return Parquet.open(path, limits)
        if kind == "jsonl":
            return JsonLines.open(path, limits, late, wanted)
        if kind == "csv":
            return Csv.open(path, limits)
    with readable(path):
        for _ in chunks(path):  # a kind that is known by its first bytes
            break
    known = ", ".join(SUFFIXES)
    raise InputError(f"{path}: unknown kind of file; expected one of {known} (text files also with .gz or .zst).")


def ensure_regular(path: str) -> None:
    """Raise InputError for a pipe, a socket or a device: files are read more than once, and some of these never end."""
    place = Path(path)
    if place.exists() and not place.is_file() and not place.is_dir():
        raise InputError(f"{path} is not a regular file; expected one. Write its content to a file first.")


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turns errors while reading a file from elsewhere into one InputError that names the file.

    Polars reports some errors by a panic, which is not an Exception; missing memory and nesting beyond Python's stack
    also count as faults of the file.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, MemoryError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}). Is it damaged? Write it again.") from error
