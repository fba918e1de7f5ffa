"""Reads files of preferences into Comparisons, in batches: memory contains codes and each distinct text once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.arguments import AtLeastZero, NotNegative, check_settings, expect_instance
from polypref.comparisons import Comparisons, IntArray
from polypref.data.derived import MadeFrom
from polypref.data.files.late_columns import look_on, read_again
from polypref.data.files.limits import Limits
from polypref.data.files.sources import Source, expand, open_source, readable
from polypref.data.files.tables import EXPECTED, NAME, is_table, table
from polypref.data.giving_up import ReadSoFar
from polypref.data.linting.problems import ProblemLog, RowProblem
from polypref.data.pool import SPILL_BYTES, KeyTable, Pool
from polypref.data.rows import chat, convert, thumbs
from polypref.data.rows.attributes import Attributes
from polypref.data.rows.convert import pair_ratings
from polypref.data.rows.formats import canonical
from polypref.data.rows.hints import with_hint
from polypref.data.rows.layouts import Layout, MissingColumn, find_layout, unnamed
from polypref.data.rows.survey import Meanings, Survey
from polypref.data.rows.vocabulary import told
from polypref.errors import InputError, NotEnoughData, PolyprefError, SettingsError
from polypref.notebook import Shown
from polypref.wording import shown

Int8Array = NDArray[np.int8]
SINGLE = ("ratings", "thumbs")  # shapes whose rows are about one response


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading files.

    ``columns``      role -> name of its column, for columns that are not found by their names.
    ``labels``       what labels or ratings mean, as ``--labels`` says it: "1=A,2=B,0=tie", "index", "scale", ...
    ``ties``         companion files whose rows are ties; only read if given.
    ``made_from``    "ratings" or "pairs", if the user knows what judgements were made from; "auto": see ``origin``.
    ``rating_gap``   ratings of two responses that differ by less are a tie (equal ratings always are).
    ``spill_bytes``  distinct texts beyond this many bytes are kept on disk, memory-mapped.
    ``limits``       limits of what a file may use of this machine; a file beyond them is refused.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    ties: tuple[str | Path, ...] = ()
    made_from: MadeFrom = "auto"
    rating_gap: NotNegative = 0.0
    spill_bytes: AtLeastZero = SPILL_BYTES
    limits: Limits = field(default_factory=Limits)
    labels: str = ""

    def __post_init__(self) -> None:
        check_settings(self)
        told(self.labels)
        expect_instance("limits", self.limits, Limits, "Limits(...)")


@dataclass(frozen=True, eq=False, repr=False)
class Reading(Shown):
    """The result of reading: N judgements, and the source of each.

    ``line_N``         1-based line (JSONL, CSV) or row (Parquet) in file ``files[file_N]``.
    ``shown_first_N``  1 if the chosen response was shown first, 0 if the rejected one was, -1 unknown.
    ``seconds_N``      duration of the answer, NaN if unknown.
    ``rows_read``      rows in the files, usable or not. ``problems``: unusable rows, by kind.
    ``rules``          how columns were interpreted if that is not obvious, one sentence each.
    ``layouts``        the columns of each role, and unused columns: one entry if all files are alike.
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
    layouts: tuple[Layout, ...] = ()

    def facts(self) -> dict[str, object]:
        """See ``notebook.Shown``."""
        unusable = sum(problem.count for problem in self.problems if not problem.kept)
        counts = {"rows": self.rows_read, "unusable rows": unusable or None}
        return {**counts, **self.comparisons.facts(), "files": ", ".join(Path(file).name for file in self.files)}


def read(data: Any, options: ReadOptions | None = None) -> Reading:
    """Read preferences from files or from memory.

    ``data``  a path or a list of paths to JSONL, CSV (both also .gz, .zst) or Parquet files, also globs and ``hf://``;
              or rows: a list of dicts, or a table of pandas, Polars, Arrow or Hugging Face's ``datasets``, with the
              columns that a file would have.

    Raises InputError if a file cannot be used: no such file, missing column, wrong type, no rows, more than half of
    its rows unusable. Single unusable rows are left out and counted in ``Reading.problems``.
    """
    options = ReadOptions() if options is None else options
    expect_instance("options", options, ReadOptions, "ReadOptions(...)")
    given = table(data, options.limits) if is_table(data) else None
    files = [NAME] if given is not None else expand(_paths(data))
    ties = expand([str(path) for path in options.ties])
    work = _Work(options, (*files, *ties), len(files), given)
    for number, file in enumerate([*files, *ties]):
        with readable(file):
            work = read_again(partial(work.with_file, number))
    return work.finish()


def _paths(data: Any) -> list[str]:
    """``data`` as a list of paths. Raises SettingsError for anything else."""
    paths = [data] if isinstance(data, str | Path) else data
    expect_instance("the data", paths, (list, tuple), f"a path, a list of paths, {EXPECTED}")
    for path in paths:
        expect_instance("one of the paths", path, (str, Path), "a path")
    if not paths:
        raise SettingsError("no file given; expected at least one JSONL, CSV or Parquet file of preferences.")
    return [str(path) for path in paths]


class _Work:
    """The state of a read."""

    def __init__(self, options: ReadOptions, files: tuple[str, ...], n_main: int, given: Source | None) -> None:
        self.options, self.files, self.n_main, self.given = options, files, n_main, given
        self.problem_log = ProblemLog()
        self.pool = Pool(options.spill_bytes)
        self.pairs = KeyTable()
        self.attributes = Attributes(options.limits)
        self.judged: list[pl.DataFrame] = []
        self.rated: list[pl.DataFrame] = []
        self.thumbs: list[pl.DataFrame] = []
        self.rows_read = 0
        self.rules: dict[str, None] = {}
        self.layouts: list[Layout] = []
        self.told = told(options.labels)
        self.told_used = False

    def copy(self) -> _Work:
        """A copy of the state that continues independently."""
        new = copy(self)
        new.pool, new.pairs, new.attributes = self.pool.copy(), self.pairs.copy(), self.attributes.copy()
        new.judged, new.rated, new.thumbs = list(self.judged), list(self.rated), list(self.thumbs)
        return new

    def with_file(self, number: int, late: Sequence[str]) -> _Work:
        """This state after reading the file ``number``; ``late`` are columns that first occur late in it.

        Raises InputError if it has no rows or most of them are unusable, LateColumns if more such columns appear.
        """
        columns, limits, file = self.options.columns, self.options.limits, self.files[number]
        source = self.given if number < self.n_main else None
        source = source or open_source(file, limits, late, partial(unnamed, mapping=columns))
        try:
            layout = find_layout(file, source.types, columns, ties=number >= self.n_main)
            layout, meanings = Survey(source, layout, self.told, columns, limits).decide()
        except PolyprefError as error:
            look_on(source.path, source.wanted, limits)
            if isinstance(error, MissingColumn):
                raise with_hint(error, source, columns, self.told, limits) from None
            raise
        new = self.copy()
        new._add(number, source, layout, meanings)
        return new

    def _add(self, number: int, source: Source, layout: Layout, meanings: Meanings) -> None:
        so_far = ReadSoFar(source.path, self.options.limits)
        single = layout.shape in SINGLE
        into: list[pl.DataFrame] = []
        blank = False
        for batch in source.batches(list(layout.names.values()), so_far.unusable):
            frame = canonical(batch, layout, source.path, so_far.unusable, self.options.limits, meanings)
            blank |= bool((frame["prompt"] == "").any())
            coded = self._code(frame, number, so_far.unusable)
            into.append(coded)
            useful = batch.rows if single else int((coded["chosen"] != coded["rejected"]).sum())
            so_far.add(batch, useful)
        if not so_far.rows and number < self.n_main:  # a file of ties may be empty
            raise InputError(f"{source.path} has no rows; expected at least one judgement.")
        so_far.refuse_if_most()
        kept = {"thumbs": self.thumbs, "ratings": self.rated}.get(layout.shape, self.judged)
        kept.extend(into)
        used, readable = sum(frame.height for frame in into), so_far.rows - so_far.unusable.rows
        if layout.shape == "thumbs" and used < readable:
            self.rules |= {thumbs.unused(source.path, readable - used, readable): None}
        self.rows_read += so_far.rows
        self.problem_log.merge(so_far.unusable, self.files[number])
        self.rules |= dict.fromkeys(source.rules)
        self.told_used |= meanings.used
        self._state_rules(layout, meanings, blank)
        if layout not in self.layouts:
            self.layouts.append(layout)

    def _state_rules(self, layout: Layout, meanings: Meanings, one_prompt: bool) -> None:
        rules = {
            **dict.fromkeys(filter(None, meanings.rules), True),
            chat.IMPLICIT_RULE: layout.shape not in SINGLE and "prompt" not in layout.names,
            convert.ONE_PROMPT_RULE: layout.shape in SINGLE and one_prompt and "prompt" not in layout.names,
        }
        self.rules |= dict.fromkeys(rule for rule, holds in rules.items() if holds)

    def _code(self, frame: pl.DataFrame, number: int, problem_log: ProblemLog) -> pl.DataFrame:
        """A canonical frame with texts and ids replaced by codes, about 40 bytes per row."""
        n = frame.height
        prompt = self.pool.prompts(frame["prompt"], frame["chat"].to_numpy())
        user, _ = self.pool.users.codes(frame["user_id"])
        if "attributes" in frame.columns:
            told = frame["attributes"]
            if "weight" in frame.columns:  # a row of weight 0 says nothing
                told = frame.select(pl.when(pl.col.weight > 0).then("attributes")).to_series()
            bad = self.attributes.add(user, told)
            if bad.any():
                text = f"{shown(frame['attributes'].filter(pl.Series(bad))[0])} is not a JSON object. The row is kept."
                problem_log.add(
                    "unreadable attributes", self.files[number], frame["line"].to_numpy()[bad], text, kept=True
                )
        sides = [name for name in ("chosen", "rejected", "response") if name in frame.columns]
        texts = pl.concat([frame[name].alias("text") for name in sides])
        codes = np.split(self.pool.responses(texts, np.tile(prompt, len(sides))), len(sides))
        coded = pl.DataFrame(
            {"user": user, "file": np.full(n, number, np.int32)} | dict(zip(sides, codes, strict=True))
        )
        if "response" in sides:
            coded = coded.with_columns(prompt=prompt)
        carried = ("line", "tie", "rating", "up", "time", "seconds", "weight", "shown_first")
        coded = coded.with_columns(frame[name] for name in carried if name in frame.columns)
        if "pair_id" in frame.columns:
            known = frame["pair_id"].is_not_null().to_numpy()
            pair = np.full(n, -1, np.int32)
            pair[known], _ = self.pairs.codes(frame["pair_id"].hash(self.pool.users.seed).to_numpy()[known])
            coded = coded.with_columns(pair=pair)
        return coded

    def _judgements(self) -> pl.DataFrame:
        """Everything that was read, as coded judgements. Raises NotEnoughData if that is nothing."""
        frames, single = list(self.judged), list(self.thumbs)
        rated = pl.concat(self.rated, how="diagonal") if self.rated else pl.DataFrame()
        if rated.height and thumbs.as_pairs(rated):
            self.rules |= {convert.rating_rule(self.options.rating_gap): None}
            frames.append(pair_ratings(rated, self.options.rating_gap))
            self._single_ratings(rated)
        elif rated.height:
            self.rules |= {thumbs.RATING_RULE: None}
            single.append(rated)
        against = [thumbs.against_bars(one, self.pool) for one in single if one.height]
        self.n_thumbs = sum(one.height for one in against)
        rows = pl.concat([*frames, *against], how="diagonal") if frames or against else pl.DataFrame()
        if rows.is_empty() or (not frames and "tie" in rows.columns and rows["tie"].all()):
            raise NotEnoughData(
                f"{', '.join(self.files)}: no user rated two responses to one prompt, or two responses differently, "
                "so there is nothing to compare."
            )
        return rows

    def _single_ratings(self, rated: pl.DataFrame) -> None:
        """Count ratings of which no pair can be made."""
        alone = rated.filter(pl.col.response.n_unique().over("user", "prompt") == 1)
        for file, part in alone.group_by("file", maintain_order=True):
            text = "its user rated no other response to its prompt, so it makes no pair. The row is left out."
            self.problem_log.add("single rating", self.files[file[0]], part["line"].to_numpy(), text)  # type: ignore[index]

    def finish(self) -> Reading:
        """Everything as one Reading.

        Raises NotEnoughData if no two ratings can be compared, SettingsError if ``labels`` is about no file.
        """
        if self.told.kind and not self.told_used:
            raise SettingsError(
                f"--labels {shown(self.told.text)[1:-1]} says nothing about {', '.join(self.files)}: no column of "
                "labels or ratings holds such values. Leave it out."
            )
        rows = self._judgements()
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
            lists=self._lists(n),
        )
        return Reading(
            comparisons=comparisons,
            line_N=column("line", 0, np.int64),
            file_N=column("file", 0, np.int32),
            files=self.files,
            shown_first_N=column("shown_first", -1, np.int8),
            seconds_N=column("seconds", np.nan, np.float64),
            rows_read=self.rows_read,
            problems=self.problem_log.problems,
            rules=tuple(self.rules),
            layouts=tuple(self.layouts),
        )

    def _lists(self, judgements: int) -> str:
        """What judgements were made from: by the options, else by the files' layouts; "" if unknown."""
        if self.n_thumbs:
            return "thumbs" if self.n_thumbs == judgements else ""
        if self.options.made_from != "auto":
            return self.options.made_from
        shapes = {layout.shape for layout in self.layouts}
        return next((shape for shape in ("ratings", "rankings") if shape in shapes), "")
