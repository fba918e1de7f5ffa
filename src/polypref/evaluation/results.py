"""The results of a comparison and their files: ``results.json`` (schema 1), ``results.parquet``, ``users.parquet``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from polypref.answers import Answer
from polypref.evaluation.results_schema import CompareContents, Contents
from polypref.evaluation.results_table import COHORT, METRIC, ROW, ResultTable
from polypref.files import OTHER_OUT, write_json, write_table
from polypref.notebook import table
from polypref.wording import code, counted, interval, percent, points

TEXTS, COUNTS = ("learner", "cohort", "metric"), ("size", "n_users", "n_comparisons", "seeds")
KINDS = {name: pl.String if name in TEXTS else pl.Int64 if name in COUNTS else pl.Float64 for name in ROW}


@dataclass(frozen=True, eq=False)
class Results:
    """``contents`` is the content of results.json; ``users`` has a row per (user, learner), as in users.parquet."""

    contents: CompareContents
    users: pl.DataFrame

    def __repr__(self) -> str:
        """The verdict and the sizes; everything else is in ``content``, ``rows`` and ``users``."""
        data, learners = self.contents.data, ", ".join(map(code, self.contents.rows.learners))
        sizes = f"{counted(data['n_comparisons'], 'judgements')}, {counted(data['n_users'], 'users')}"
        return f"<Results: {sizes}, learners {learners}. {self.contents.verdict['text']}>"

    @cached_property
    def content(self) -> dict[str, Any]:
        """The content of results.json, as JSON types."""
        return self.contents.as_dict()

    @property
    def verdict(self) -> Mapping[str, Any]:
        """``{"room": "yes" | "no" | "unclear", "best": learner, "text": two sentences}``, ...: docs/protocol.md."""
        return self.contents.verdict

    @property
    def answer(self) -> Answer:
        """The five lines: personalise or not, which method, from how many judgements, who gains, what to do next."""
        return Answer.of(self.contents.answer)

    @property
    def rows(self) -> pl.DataFrame:
        """The table as a frame: one row per learner, size, cohort and metric; the content of results.parquet."""
        return frame(self.contents.rows)

    def to_polars(self) -> pl.DataFrame:
        """``rows``, under the name that other libraries use."""
        return self.rows

    def _repr_html_(self) -> str:
        """The verdict, and each learner's accuracy and gain with its interval."""
        gains = self.contents.gains.by_learner()
        lines = []
        for learner in self.contents.rows.learners:
            row, gain = self.contents.rows.at(learner, METRIC, COHORT), gains.get(learner)
            known = "" if gain is None else f"{points(gain.value)} ({interval(gain.ends, points)})"
            lines.append((learner, percent(row and row.value), known))
        floor = self.contents.floor or "the baseline"
        titles = ("learner", "accuracy, %", f"gain over {floor} in points (95 % interval)")
        return table(lines, titles, self.contents.verdict["text"])

    def value(self, learner: str, metric: str = METRIC, cohort: str = COHORT) -> float | None:
        """One figure at the full training size."""
        row = self.contents.rows.at(learner, metric, cohort)
        if row is None:
            raise KeyError(f"no row for {learner}, {metric}, {cohort}")
        return row.value

    def write(self, out: Path) -> None:
        """Write the three files to ``out``, each atomically. Raises CacheError if they cannot be written."""
        write(out, "results.json", self.contents, {"results.parquet": self.rows, "users.parquet": self.users})


def frame(rows: ResultTable) -> pl.DataFrame:
    """The table as a frame."""
    return pl.DataFrame(rows.as_dicts(ROW), schema=KINDS)


def write(out: Path, name: str, contents: Contents, tables: Mapping[str, pl.DataFrame]) -> None:
    """Write tables, and then the JSON file ``name``, to the folder ``out``, each atomically.

    Raises CacheError if they cannot be written.
    """
    for file, one in tables.items():
        write_table(out / file, one, OTHER_OUT)
    write_json(out / name, contents.as_dict(), OTHER_OUT)
