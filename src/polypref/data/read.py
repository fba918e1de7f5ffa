"""Files of preferences to Comparisons, streamed in batches: memory holds codes and each distinct text once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray
from polypref.data import values
from polypref.data.attributes import Attributes
from polypref.data.formats import canonical
from polypref.data.layouts import Layout, find_layout
from polypref.data.pool import SPILL_BYTES, KeyTable, Pool
from polypref.data.problems import RowProblem, Tally
from polypref.data.sources import Source, expand, open_source
from polypref.errors import InputError

Int8Array = NDArray[np.int8]


@dataclass(frozen=True)
class ReadOptions:
    """How files are read.

    ``columns``      role -> name of the column that plays it, for columns that are not found by their names.
    ``ties``         companion files whose rows are ties; never read unasked.
    ``rating_gap``   ratings of two responses that differ by less are a tie (equal ratings always are).
    ``spill_bytes``  distinct texts beyond this many bytes are kept on disk, memory-mapped.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    ties: tuple[str, ...] = ()
    rating_gap: float = 0.0
    spill_bytes: int = SPILL_BYTES


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read: N judgements, and where each came from.

    ``line_N``         1-based line (JSONL, CSV) or row (Parquet) in file ``files[file_N]``.
    ``shown_first_N``  1 where the chosen response was shown first, 0 where the rejected one was, -1 unknown.
    ``seconds_N``      time the answer took, NaN where unknown.
    ``rows_read``      rows in the files, usable or not. ``problems``: those that were not, by kind.
    ``rules``          what the columns were taken to mean where that is not obvious, one sentence each.
    """

    comparisons: Comparisons
    line_N: NDArray[np.int64]
    file_N: IntArray
    files: tuple[str, ...]
    shown_first_N: Int8Array
    seconds_N: NDArray[np.float64]
    rows_read: int
    problems: tuple[RowProblem, ...] = ()
    rules: tuple[str, ...] = ()


def read(paths: Sequence[str | Path], options: ReadOptions | None = None) -> Reading:
    """Read preference files: JSONL, CSV (both also .gz, .zst) and Parquet; paths, globs and ``hf://`` paths.

    Raises InputError when a file cannot be used: no such file, missing column, wrong type, no rows, more than half of
    its rows unusable. Single unusable rows are left out and counted in ``Reading.problems``.
    """
    options = options or ReadOptions()
    if isinstance(paths, str | Path):
        paths = [paths]
    files = expand([str(path) for path in paths])
    ties = expand(options.ties)
    work = _Work(options)
    for number, file in enumerate([*files, *ties]):
        source = open_source(file)
        layout = find_layout(file, source.types, options.columns, ties=number >= len(files))
        work.add_file(number, source, layout)
    return work.finish((*files, *ties))


class _Work:
    """What a read has gathered so far."""

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.tally = Tally()
        self.pool = Pool(options.spill_bytes)
        self.pairs = KeyTable()
        self.attributes = Attributes()
        self.judgements: list[pl.DataFrame] = []
        self.rows_read = 0
        self.rules: dict[str, None] = {}

    def add_file(self, number: int, source: Source, layout: Layout) -> None:
        """Read one file to its end. Raises InputError when it has no rows or most cannot be used."""
        before, tally = self.rows_read, Tally()
        if layout.shape == "labels" and not layout.all_ties:
            self.rules[values.LABEL_RULE] = None
        for batch in source.batches(list(layout.names.values()), self.tally):
            self.rows_read += batch.frame.height
            frame = canonical(batch, layout, source.path, self.tally)
            self.judgements.append(self._code(frame, number))
        del before, tally

    def _code(self, frame: pl.DataFrame, file: int) -> pl.DataFrame:
        """A canonical frame with texts and ids replaced by codes: some 40 bytes a row."""
        prompt = self.pool.prompts(frame["prompt"], frame["chat"].to_numpy())
        user, _ = self.pool.users.codes(frame["user_id"])
        if "attributes" in frame.columns:
            self.attributes.add(user, frame["attributes"])
        n = frame.height
        sides = pl.concat([frame["chosen"], frame["rejected"].alias("chosen")])
        response = self.pool.responses(sides, np.concatenate([prompt, prompt]))
        coded = {
            "user": user, "chosen": response[:n], "rejected": response[n:], "tie": frame["tie"], "line": frame["line"],
            "file": np.full(n, file, np.int32),
        }  # fmt: skip
        for name in ("time", "seconds", "weight", "shown_first"):
            if name in frame.columns:
                coded[name] = frame[name]
        if "pair_id" in frame.columns:
            known = frame["pair_id"].is_not_null().to_numpy()
            pair = np.full(n, -1, np.int32)
            pair[known], _ = self.pairs.codes(frame["pair_id"].hash(1).to_numpy()[known])
            coded["pair"] = pair
        return pl.DataFrame(coded)

    def finish(self, files: tuple[str, ...]) -> Reading:
        """Everything as one Reading."""
        if not self.rows_read:
            raise InputError(f"{', '.join(files)}: no rows; expected at least one judgement.")
        self.tally.refuse_if_most(self.rows_read)
        rows = pl.concat(self.judgements, how="diagonal")
        n = rows.height

        def column(name: str, default: float, dtype: type) -> NDArray:
            if name not in rows.columns:
                return np.full(n, default, dtype)
            return rows[name].fill_null(default).to_numpy().astype(dtype, copy=False)

        def optional(name: str, default: float, dtype: type) -> NDArray | None:
            return column(name, default, dtype) if name in rows.columns and rows[name].is_not_null().any() else None

        responses, users = self.pool.finish(self.attributes.table(len(self.pool.users)))
        tie_N = column("tie", False, np.bool_)
        comparisons = Comparisons(
            responses=responses,
            users=users,
            user_N=column("user", 0, np.int32),
            chosen_N=column("chosen", 0, np.int32),
            rejected_N=column("rejected", 0, np.int32),
            tie_N=tie_N if tie_N.any() else None,
            weight_N=optional("weight", 1.0, np.float64),
            time_N=optional("time", np.nan, np.float64),
            pair_N=optional("pair", -1, np.int32),
        )
        return Reading(
            comparisons=comparisons,
            line_N=column("line", 0, np.int64),
            file_N=column("file", 0, np.int32),
            files=files,
            shown_first_N=column("shown_first", -1, np.int8),
            seconds_N=column("seconds", np.nan, np.float64),
            rows_read=self.rows_read,
            problems=self.tally.problems,
            rules=tuple(self.rules),
        )
