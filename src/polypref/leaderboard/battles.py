"""Judgements as battles of systems: which system wrote each response, which was shown first, how the texts differ.

The systems stand in two columns of the file: ``chosen_model`` and ``rejected_model``, or ``model_a`` and ``model_b``,
where a is ``response_a``, or what was shown first; each may also be a key of the column attributes. A battle is turned
so that the side shown first, where known, comes first; otherwise the sides are as in the file.

Style is that of the field's arena: length in words, headings, list items and bold words, each as the difference of the
two texts divided by their sum, then by its standard deviation (Li, Angelopoulos & Chiang 2024, "Does style matter?").

Covered: ties, several files, files of ties. Not covered: rankings, ratings and thumbs, which are about no pair.
Suffixes here: ``_E`` covariates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.data.files.limits import Limits
from polypref.data.files.sources import Source, open_source, readable
from polypref.data.given import linted
from polypref.data.linting.problems import ProblemLog
from polypref.data.read import Reading
from polypref.errors import InputError, NotEnoughData, SettingsError
from polypref.terminal import say
from polypref.wording import counted, shown

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BY_OUTCOME = (("chosen_model", "rejected_model"), ("chosen_system", "rejected_system"))
BY_SIDE = (("model_a", "model_b"), ("system_a", "system_b"))
POSITION = "shown first"
STYLE = {  # name -> what counts one
    "words": r"\S+",
    "headings": r"(?m)^#{1,6}\s",
    "list items": r"(?m)^\s*(?:[-*+]|\d+[.)])\s",
    "bold": r"\*\*[^*\n]+\*\*|__[^_\n]+__",
}


@dataclass(frozen=True, eq=False)
class Battles:
    """N judgements of M systems: system ``first_N`` met ``second_N``, ``label_N`` is 1, 0, or one half for a tie.

    ``extra_NE``  covariates, named ``covariates``: the position first, if known for all, then style.
    ``user_N``    who judged, of ``n_users``. ``weight_N``: of each judgement.
    """

    names: tuple[str, ...]
    first_N: Ints
    second_N: Ints
    label_N: Floats
    weight_N: Floats
    user_N: Ints
    n_users: int
    extra_NE: Floats
    covariates: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.first_N)

    def take(self, rows: NDArray) -> Battles:
        """The battles ``rows``, of the same systems and users."""
        cut = {name: getattr(self, name)[rows] for name in vars(self) if name.endswith(("_N", "_NE"))}
        return replace(self, **cut)

    def without_style(self) -> Battles:
        """The same battles with the position as the only covariate."""
        kept = [at for at, name in enumerate(self.covariates) if name == POSITION]
        return replace(self, extra_NE=self.extra_NE[:, kept], covariates=tuple(self.covariates[at] for at in kept))


def battles_of(
    reading: Reading, systems: Sequence[str] = (), limits: Limits | None = None, style: bool = True
) -> tuple[Battles, Comparisons, tuple[str, str]]:
    """The battles of what was read, the comparisons that they are, and the columns of the systems.

    Raises InputError where no two columns name the systems, SettingsError for anything but two names.
    """
    if systems and len(systems) != 2:
        raise SettingsError(
            f"--systems names {counted(len(systems), 'columns')}; expected two, those of the two sides."
        )
    if any(layout.shape not in ("pairs", "labels") for layout in reading.layouts):
        raise InputError("a leaderboard needs judgements of pairs of responses; these are ratings, rankings or thumbs.")
    found = linted(reading)
    kept = np.flatnonzero(~found.dropped_N)
    if not len(kept):
        raise NotEnoughData(f"{', '.join(reading.files)}: no usable judgement is left; polypref check shows why.")
    comparisons = reading.comparisons.take(kept)  # in the files' order, which is that of lines and systems
    names, left, right = _systems(reading, kept, tuple(systems), Limits() if limits is None else limits)
    shown_N = reading.shown_first_N[kept]
    turned_N = shown_N == 0
    first, second = left, right
    if _of_sides(names):  # the chosen response is that of side a if it was shown first
        unknown = int((shown_N < 0).sum())
        if unknown:
            raise InputError(
                f"{names[0]} and {names[1]} name the systems of two sides, and {counted(unknown, 'judgements')} do not "
                "say which side was chosen; expected a label of response_a and response_b, or chosen_pos. If they are "
                "those of the chosen and the rejected response, name them chosen_model and rejected_model."
            )
    else:
        turned = pl.Series(turned_N)
        first, second = left.zip_with(~turned, right), right.zip_with(~turned, left)
    for name, side in zip(names, (left, right), strict=True):
        _ensure_one_each(reading, kept, name, side)
    known, at_2N = _numbered(first, second)
    _say_alike(known)
    first_N, second_N = at_2N[: len(kept)], at_2N[len(kept) :]
    missing_N, same_N = (first_N < 0) | (second_N < 0), (first_N == second_N) & (first_N >= 0)
    for many, why in ((missing_N, "no system is named"), (same_N, "a system met itself")):
        if many.any():
            say(f"left out: {counted(int(many.sum()), 'judgements')} in which {why}.")
    label_N = comparisons.label_N
    result = Battles(
        known,
        first_N,
        second_N,
        np.where(turned_N, 1 - label_N, label_N),
        comparisons.weights_N,
        comparisons.user_N.astype(np.int64),
        len(comparisons.users),
        *_covariates(comparisons, turned_N, bool((shown_N >= 0).all()), style),
    )
    used = ~missing_N & ~same_N & (comparisons.weights_N > 0)
    return result.take(used), comparisons.take(used), names


def _systems(
    reading: Reading, kept: Ints, wanted: tuple[str, ...], limits: Limits
) -> tuple[tuple[str, str], pl.Series, pl.Series]:
    """The names of the columns, and the two systems of each judgement that is kept."""
    chosen: tuple[str, str] | None = None
    frames = []
    for number in np.unique(reading.file_N[kept]).tolist():
        path = reading.files[number]
        with readable(path):
            source = open_source(path, limits)
            names, table = _columns(source, path, wanted)
        if chosen not in (None, names):
            raise InputError(f"{path} names its systems in {names[0]} and {names[1]}; the others in {chosen[0]}.")
        chosen = names
        frames.append(table.with_columns(file=pl.lit(number, pl.Int32)))
    assert chosen is not None
    rows = pl.DataFrame({"file": reading.file_N[kept].astype(np.int32), "line": reading.line_N[kept]})
    found = rows.join(pl.concat(frames), on=["file", "line"], how="left", maintain_order="left")
    return chosen, found["left"], found["right"]


def _ensure_one_each(reading: Reading, kept: Ints, column: str, side: pl.Series) -> None:
    """Raise InputError for the first cell that holds a list or an object of JSON instead of a system's name."""
    structured_N = side.str.contains(r"^\s*[\[{]").fill_null(False).to_numpy()
    for at in np.flatnonzero(structured_N).tolist():
        try:
            json.loads(side[at])
        except ValueError:
            continue  # a name that begins with a bracket
        row = int(kept[at])
        raise InputError(
            f"{reading.files[int(reading.file_N[row])]}, line {int(reading.line_N[row])}: {column} is "
            f"{shown(side[at])}; expected the name of one system. Correct the line, or delete it."
        )


def _say_alike(names: Sequence[str]) -> None:
    """Say which names differ in nothing but case, spaces or the form of their characters: they count apart."""
    table = pl.DataFrame({"name": names}, schema={"name": pl.String})
    plain = table["name"].str.normalize("NFKC").str.to_lowercase().str.strip_chars().str.replace_all(r"\s+", " ")
    alike = table.with_columns(plain=plain).group_by("plain", maintain_order=True).agg("name")
    for group in alike.filter(pl.col.name.list.len() > 1)["name"].head(3).to_list():
        listed = ", ".join(shown(one) for one in group)
        say(f"counted as {len(group)} systems: {listed}; if they are one, write its name alike.")


def _numbered(first: pl.Series, second: pl.Series) -> tuple[tuple[str, ...], Ints]:
    """The systems' names in their order, and the number of each first and then each second one, -1 for none."""
    both = pl.concat([first.alias("name"), second.alias("name")])
    known = both.drop_nulls().unique().sort()
    table = pl.DataFrame({"name": known, "at": np.arange(len(known))})
    code = pl.DataFrame({"name": both}).join(table, on="name", how="left", maintain_order="left")
    return tuple(known.to_list()), code["at"].fill_null(-1).to_numpy().astype(np.int64)


def _of_sides(names: tuple[str, str]) -> bool:
    """Whether two columns are about sides a and b: by their names, which say chosen and rejected otherwise."""
    return not ("chosen" in names[0].lower() and "rejected" in names[1].lower())


def _columns(source: Source, path: str, wanted: tuple[str, ...]) -> tuple[tuple[str, str], pl.DataFrame]:
    """The two columns of a file, or keys of its attributes, and their values by line."""
    options = [(wanted[0], wanted[1])] if wanted else [*BY_OUTCOME, *BY_SIDE]
    for names in options:
        if set(names) <= set(source.types):
            return names, _read(source, list(names), [pl.col(one).cast(pl.String) for one in names])
    if "attributes" in source.types:
        for names in options:
            keys = [pl.col("attributes").str.json_path_match(f"$['{one}']") for one in names]
            table = _read(source, ["attributes"], keys)
            if table["left"].null_count() < len(table):
                return names, table
    expected = " and ".join(options[0]) if wanted else "chosen_model and rejected_model, or model_a and model_b"
    raise InputError(
        f"{path}: no column names the system of each response; expected {expected}, as columns or as keys of "
        f"attributes; found: {shown(', '.join(source.types), 200)}. Use --systems to name the two columns."
    )


def _read(source: Source, columns: list[str], values: list[pl.Expr]) -> pl.DataFrame:
    """``line``, ``left`` and ``right`` of every row; a blank name is none."""
    frames = [
        batch.frame.select(
            line=pl.Series(batch.line_B.astype(np.int64)),
            left=values[0].cast(pl.String),
            right=values[1].cast(pl.String),
        )
        for batch in source.batches(columns, ProblemLog())
    ]
    blank = [pl.when(pl.col(one).str.strip_chars() != "").then(pl.col(one)).alias(one) for one in ("left", "right")]
    return pl.concat(frames).with_columns(blank)


def _covariates(
    comparisons: Comparisons, turned_N: NDArray[np.bool_], positions: bool, style: bool
) -> tuple[Floats, tuple[str, ...]]:
    """The covariates, seen from the first side, and their names. Those that never differ are left out."""
    columns, names = ([np.ones(len(comparisons))], [POSITION]) if positions else ([], [])
    texts_R = comparisons.responses.texts_R
    for name, pattern in STYLE.items() if style else ():
        count_R = texts_R.str.count_matches(pattern).to_numpy().astype(np.float64)
        chosen_N, rejected_N = count_R[comparisons.chosen_N], count_R[comparisons.rejected_N]
        apart_N = (chosen_N - rejected_N) / np.maximum(chosen_N + rejected_N, 1)
        spread = float(np.sqrt((apart_N**2).mean())) if len(apart_N) else 0.0
        if spread > 0:
            columns.append(np.where(turned_N, -apart_N, apart_N) / spread)
            names.append(name)
    stacked = np.column_stack(columns) if columns else np.zeros((len(comparisons), 0))
    return stacked, tuple(names)
