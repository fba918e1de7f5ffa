"""HelpSteer3-Preference (Wang et al. 2025): 40,000 comparisons of two answers on a scale from -3 to 3.

nvidia/HelpSteer3, folder preference (CC BY 4.0), JSON lines: domain (general, stem, code, multilingual), language,
context (a list of {role, content}), response1, response2, overall_preference, and individual_preference, a list of up
to three {score, reasoning}. Below 0 the first answer is preferred, above 0 the second, 0 is a tie; 1, 2 and 3 say how
much, and are written as strength (--columns weight=strength counts strong preferences more). Judgements are

    overall  the published overall preference, one of each pair
    each     every annotator's own score, with their reason

Traps. *No annotator is named*: the first score of one row and the first of the next are of different people, so all
judgements are those of one user, "annotators". They can train and test a reward for everyone; nobody can be
personalised for, and the converter says so. A file with a column annotator_id or annotator, which the published one
lacks, gives the people. The individual scores of a pair were chosen for agreeing with each other (the outlying ones
were left out by the authors), so that their agreement is above that of people in general.

Columns: verified by the set's card, of which a public project holds a copy with sample rows, and by loaders of several
projects. How the outlying scores were chosen is from memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import (
    Converted,
    File,
    Selection,
    chats,
    one_of,
    published_or,
    read_files,
    stack,
    typed,
)
from polypref.errors import InputError
from polypref.wording import are, counted, shown

TEXTS = ("domain", "language", "response1", "response2")
OVERALL, EACH = "overall_preference", "individual_preference"
PERSON = ("annotator_id", "annotator")
NOBODY = "annotators"
SCALE = 3


@dataclass(frozen=True)
class HelpSteer3:
    """``pairs`` overall or each."""

    pairs: str = "overall"

    def __post_init__(self) -> None:
        one_of("kind of pairs of helpsteer3", self.pairs, ("overall", "each"))

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form, and for a score outside the scale."""
        files = read_files(paths, limits)
        whole = stack([self._rows(file) for file in files])
        selection = Selection(whole)
        selection.drop("no annotator", pl.col.user_id.is_null())
        selection.drop("no preference", pl.col.score.is_null())
        first = pl.col.score <= 0
        selection.frame = selection.frame.with_columns(
            chosen=pl.when(first).then("response1").otherwise("response2"),
            rejected=pl.when(first).then("response2").otherwise("response1"),
            tie=pl.col.score == 0,
            strength=pl.max_horizontal(pl.col.score.abs(), pl.lit(1)).cast(pl.Int64),
        )
        ties = int(selection.frame["tie"].sum())
        named = any(file.has(name) for file in files for name in PERSON)
        remarks = [f"{counted(ties, 'ties')} {are(ties)} kept"]
        if not named:
            remarks.append(
                "the set does not say who judged: all judgements are of one user, annotators, so that there is nobody "
                "to personalise for; they can train or test a reward for everyone"
            )
        columns = ("tie", "strength", "domain", "language", *(["reason"] if self.pairs == "each" else []))
        return selection.finish(f"HelpSteer3, {self.pairs} preference", whole.height, remarks, columns)

    def _rows(self, file: File) -> pl.DataFrame:
        """The columns user_id, prompt, response1, response2, score, domain and language; of ``each`` also reason."""
        column = OVERALL if self.pairs == "overall" else EACH
        file.need("HelpSteer3", "context", *TEXTS, column)
        rows = chats(file, "context")
        person = next((name for name in PERSON if file.has(name)), None)
        if person is not None and self.pairs == "each":
            raise InputError(
                f'{file.path}: column "{person}" names one annotator, and "{EACH}" holds the scores of several; use '
                "--pairs overall."
            )
        user = pl.lit(NOBODY) if person is None else pl.col(person)
        rows = typed(file, rows, dict.fromkeys((*TEXTS, *([person] if person else [])), "text"))
        rows = rows.with_columns(user_id=user, prompt="context", row=pl.int_range(1, pl.len() + 1))
        if self.pairs == "each":
            _ensure_scores(file, rows.schema[EACH])
            each = pl.col(EACH).struct
            reason = each.field("reasoning") if _has_reasons(rows.schema[EACH]) else pl.lit(None, pl.String)
            rows = rows.explode(EACH).with_columns(reason=reason.cast(pl.String))
            rows = rows.with_columns(each.field("score").alias(EACH))
        rows = typed(file, rows, {column: "number"})
        _ensure_scale(file, column, rows)
        kept = ("user_id", "prompt", *TEXTS, *(["reason"] if self.pairs == "each" else []))
        return rows.select(*kept, pl.col(column).alias("score"))


def _has_reasons(kind: pl.DataType) -> bool:
    assert isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)
    return any(one.name == "reasoning" and one.dtype in (pl.String, pl.Null) for one in kind.inner.fields)


def _ensure_scores(file: File, kind: pl.DataType) -> None:
    inner = kind.inner if isinstance(kind, pl.List) else None
    if not isinstance(inner, pl.Struct) or not any(one.name == "score" for one in inner.fields):
        raise InputError(
            f'{file.path}: column "{EACH}" holds {shown(repr(kind), 200)[1:-1]}; expected lists of objects with a '
            f"score. {published_or(kind)}"
        )


def _ensure_scale(file: File, column: str, rows: pl.DataFrame) -> None:
    score = rows[column]
    bad = ((score.abs() > SCALE) | (score != score.round())).fill_null(False)
    if bad.any():
        at = int(bad.arg_max() or 0)
        raise InputError(
            f'row {rows["row"][at]} of {file.path}: "{column}" is {score[at]:g}; expected a whole number from '
            f"-{SCALE} to {SCALE}."
        )
