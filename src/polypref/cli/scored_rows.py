"""The rows of ``polypref score`` as they stand in the caller's file, and the tables made of them and the answers.

A JSONL row stays the line that it was, so no value and no key of it changes; columns of CSV are texts; columns of
Parquet keep their types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import msgspec
import numpy as np
import polars as pl

from polypref.comparisons import IntArray
from polypref.data.files.documents import json_blocks
from polypref.data.files.jsonlines import JsonLines
from polypref.data.files.limits import Limits
from polypref.data.files.parquet import Parquet
from polypref.data.files.sources import Source
from polypref.data.linting.problems import ProblemLog
from polypref.errors import InputError
from polypref.files import encoded
from polypref.wording import counted, json_text, printable_json, shown

LINE = "line"  # the one column of the rows of a JSONL file
KEYS = ("user_id", "prompt", "chat")  # what makes a question of a user


def own_rows(source: Source, limits: Limits) -> Iterator[pl.DataFrame]:
    """The rows of a file that can be scored whole, in batches with all their columns; JSONL: a column of lines."""
    if isinstance(source, JsonLines):
        for _, block in json_blocks(source.path, limits):
            yield pl.DataFrame({LINE: [line.decode() for line in block.split(b"\n") if line.strip()]})
    elif isinstance(source, Parquet):
        yield from source.frames.collect_batches(maintain_order=True)
    else:
        for batch in source.batches(list(source.types), ProblemLog()):
            yield batch.frame


class OwnRows:
    """The rows of a file as they stand in it, a few at a time."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._batches, self._held = own_rows(source, limits), pl.DataFrame()

    def take(self, height: int) -> pl.DataFrame:
        """The next ``height`` rows."""
        while self._held.height < height:
            batch = next(self._batches)
            self._held = pl.concat([self._held, batch]) if self._held.height else batch
        taken, self._held = self._held.head(height), self._held.slice(height)
        return taken


def refuse_names(source: Source, names: Sequence[str]) -> None:
    """Raise InputError if the file has a column of one of ``names``, which an answer would hide."""
    for name in names:
        if name in source.types:
            raise _taken(name, source.path)


def _taken(name: str, place: str) -> InputError:
    return InputError(
        f'{place} already has a column "{name}", which an answer would hide. Give the answers other names: --prefix my_'
    )


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows and their answers, side by side: what ``keys`` asks, ``rows`` as the caller wrote them, and ``answers``."""

    keys: pl.DataFrame
    rows: pl.DataFrame
    answers: pl.DataFrame

    def take(self, rows: IntArray) -> Scored:
        """The rows numbered ``rows``."""
        return Scored(*(frame[rows] for frame in (self.keys, self.rows, self.answers)))

    def best(self) -> Scored:
        """The row with the highest score of each user and question, the first of equal ones, in the rows' order.

        A question without any score keeps its first row.
        """
        score = self.answers.to_series(0).alias("score")
        table = self.keys.with_columns(score).with_row_index("at")
        first = table.sort("score", "at", descending=[True, False], nulls_last=True).unique(KEYS, keep="first")
        return self.take(first["at"].sort().to_numpy().astype(np.int32))

    def answered(self) -> Scored:
        """The rows with a score."""
        score = self.answers.to_series(0)
        return self.take(score.is_not_null().arg_true().to_numpy().astype(np.int32))

    def text(self) -> str:
        """A line for each row, a JSON object: the row's own columns, then the answers."""
        raw = self.rows.columns == [LINE]
        own = self.rows[LINE] if raw else encoded(self.rows, ".jsonl").decode().split("\n")[: self.rows.height]
        score, found = self.answers.columns[0], []
        for line, row in zip(own, self.answers.to_dicts(), strict=True):
            answer = {name: value for name, value in row.items() if value is not None or name == score}
            _refuse_keys(line, self.answers.columns)
            found.append(f"{printable_json(line).rstrip()[:-1].rstrip()}, {json_text(answer)[1:]}\n")
        return "".join(found)

    def table(self) -> pl.DataFrame:
        """The rows' own columns, then the answers."""
        if self.rows.columns != [LINE]:
            return self.rows.hstack(self.answers.get_columns())
        for line in self.rows[LINE]:
            _refuse_keys(line, self.answers.columns)
        own = pl.read_ndjson(BytesIO("\n".join(self.rows[LINE]).encode()), infer_schema_length=None)
        return own.hstack(self.answers.get_columns())


def _refuse_keys(line: str, names: Sequence[str]) -> None:
    """Raise InputError if a row that is not among the file's first ones has a key of one of ``names``."""
    for name in names:
        if f'"{name}"' in line and name in msgspec.json.decode(line, type=dict[str, msgspec.Raw]):
            raise _taken(name, f"the row {shown(line)}")


def joined(parts: Sequence[Scored]) -> Scored:
    """All of them as one."""
    return Scored(*(pl.concat([getattr(one, name) for one in parts]) for name in ("keys", "rows", "answers")))


def as_table(parts: Sequence[Scored], suffix: str, path: str) -> bytes:
    """All rows as a table in the format of a file's ending. Raises InputError for values that it does not know."""
    try:
        table = pl.concat([one.table() for one in parts], how="diagonal_relaxed")
        return encoded(_flat(table) if suffix == ".csv" else table, suffix)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} does not fit into {suffix} ({reason}). Write another format: --out x.jsonl."
        ) from error


def _flat(table: pl.DataFrame) -> pl.DataFrame:
    """Lists and objects as JSON, since CSV has none."""
    nested = [name for name, kind in table.schema.items() if kind.is_nested()]
    return table.with_columns(
        pl.Series(name, [None if one is None else json_text(one) for one in table[name].to_list()], pl.String)
        for name in nested
    )


def unanswered(scored: Scored) -> str:
    """A line on the questions without a score; "" if there are none."""
    count, whole = scored.answers.to_series(0).null_count(), counted(len(scored.keys), "questions")
    return f"{count:,} of {whole} have no response within the bounds, so nothing is written for them" if count else ""
