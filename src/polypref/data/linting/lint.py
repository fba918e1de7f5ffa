"""The linter: what is wrong with a set of judgements, how often, one example, and what happens to such rows.

Actions: *dropped* rows are left out by ``clean``; *kept* rows are used as they are; *counted* is about the data as a
whole. Repeats are kept: agreeing and contradictory repeats together are the only measure of a person's consistency, so
dropping one kind would bias it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
import polars as pl

from polypref.arguments import AtLeastOne, expect, expect_instance
from polypref.comparisons import BoolArray, Comparisons, IntArray
from polypref.data.linting import bias as lint_bias
from polypref.data.linting import prompt_leaks as lint_prompts
from polypref.data.linting import thumbs as lint_thumbs
from polypref.data.linting.findings import Finding, Inspection
from polypref.data.read import Reading
from polypref.data.zero_weight import counted
from polypref.errors import InputError, NotEnoughData
from polypref.wording import shown

A_READING = "what read(...) returns"
FEW = 5  # users with fewer judgements are reported even if not dropped

ROUNDED = r"^\d\.\d+[Ee]\+\d+$"  # 1.23457E+15


@dataclass(frozen=True, eq=False)
class Lint:
    """All findings with a count above zero, and which rows of ``reading`` are left out, ``dropped_N``."""

    findings: tuple[Finding, ...]
    dropped_N: BoolArray
    reading: Reading = field(repr=False)

    def as_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {"findings": [asdict(finding) for finding in self.findings], "kept": int((~self.dropped_N).sum())}


def lint(reading: Reading, *, min_judgements: int = 1) -> Lint:
    """Run all checks; users with fewer than ``min_judgements`` usable rows are dropped."""
    expect_instance("reading", reading, Reading, A_READING)
    expect("min_judgements", min_judgements, AtLeastOne)
    job = Inspection(reading)
    for problem in reading.problems:
        action = "kept" if problem.kept else "dropped"
        text, place = problem.text, (problem.file, problem.line)
        as_said = problem.kept and not problem.name.startswith("unreadable")
        told = "read as the example says" if as_said else "cannot be read"
        job.findings.append(Finding(problem.name, problem.count, reading.rows_read, "rows", action, text, *place, told))
    _texts(job)
    _repeats(job)
    _pair_ids(job)
    _users(job, min_judgements)
    lint_thumbs.look(job)
    _too_little(job)
    lint_bias.look(job)
    lint_prompts.look(job)
    return Lint(tuple(job.findings), job.dropped_N, reading)


def clean(reading: Reading, found: Lint) -> Comparisons:
    """The judgements without the dropped ones, in the order of content; see ``zero_weight.counted``.

    Raises NotEnoughData if nothing is left, InputError if ``found`` is about another reading.
    """
    expect_instance("reading", reading, Reading, A_READING)
    expect_instance("found", found, Lint, "what lint(reading) returns")
    if found.reading is not reading:
        raise InputError(
            f"found is about another reading, of {', '.join(found.reading.files)}; expected lint(reading)."
        )
    if found.dropped_N.all():
        raise NotEnoughData(f"{', '.join(reading.files)}: no usable judgement is left; polypref check shows why.")
    return counted(reading.comparisons.take(~found.dropped_N))


def ensure_learnable(comparisons: Comparisons) -> None:
    """Raise NotEnoughData for data that no learner can personalise: one user, one judgement each, only ties."""
    for _, text in _lacks(comparisons, np.ones(len(comparisons), bool)):
        raise NotEnoughData(f"{text}, so there is nothing to personalise.")


def _texts(job: Inspection) -> None:
    d = job.data
    empty_R = ~d.responses.texts_R.str.contains(r"\S").to_numpy()  # without copying the texts
    empty_N = empty_R[d.chosen_N] | empty_R[d.rejected_N]
    job.rows("empty response", empty_N, "dropped", "one of the two responses is missing or empty")
    same_N = (d.chosen_N == d.rejected_N) & ~job.dropped_N
    job.rows("same response twice", same_N, "dropped", "the two responses are the same text")
    if d.weight_N is not None:
        silent_N = (d.weights_N == 0) & ~job.dropped_N
        job.rows("weight of zero", silent_N, "dropped", "judgements of weight 0 have no effect")
    empty_P = ~d.responses.prompts.str.contains(r"\S").to_numpy()
    job.rows("empty prompt", empty_P[d.responses.prompt_R[d.chosen_N]], "kept", "the prompt is missing or empty")


def _ordered(d: Comparisons) -> tuple[IntArray, IntArray]:
    """The two responses of each judgement in the pool's order."""
    return np.minimum(d.chosen_N, d.rejected_N), np.maximum(d.chosen_N, d.rejected_N)


def _repeats(job: Inspection) -> None:
    """Copied rows, and the same two texts judged again by the same user."""
    d = job.data
    low_N, high_N = _ordered(d)
    outcome_N = (d.chosen_N != low_N).astype(np.int8)
    if d.tie_N is not None:
        outcome_N[d.tie_N] = 2
    columns = {"user": d.user_N, "low": low_N, "high": high_N, "outcome": outcome_N, "row": np.arange(len(d))}
    told = {name: column for name, column in (("pair", d.pair_N), ("time", d.time_N)) if column is not None}
    table = pl.DataFrame(columns | told).filter(~pl.Series(job.dropped_N))
    rows = table.height
    table = table.filter(pl.struct("user", "low", "high").is_duplicated())
    if table.is_empty():
        return
    if not told and table.height == rows and (copies := int(table.group_by(pl.exclude("row")).len()["len"].min())) > 1:  # type: ignore[arg-type]
        text = (
            f"every judgement occurs at least {'twice' if copies == 2 else f'{copies} times'}: is the file a copy of "
            "itself? Such repeats inflate consistency; remove the copies"
        )
        job.note("all judgements repeated", (rows, rows, "judgements"), "counted", text, int(table["row"].max()))  # type: ignore[arg-type]
    if told:
        about = {"weight": d.weights_N, "shown": job.reading.shown_first_N, "seconds": job.reading.seconds_N}
        table = table.with_columns(pl.Series(name, column_N)[table["row"]] for name, column_N in about.items())
        table = _without_copies(job, table, ["user", "low", "high", *told], list(about))
    again = table.group_by("user", "low", "high").agg(
        n=pl.len(),
        both=(pl.col.outcome == 0).any() & (pl.col.outcome == 1).any(),
        row=pl.col.row.sort().slice(1, 1).first(),
    )
    again = again.filter(pl.col.n > 1).sort("row")
    if again.height:
        text = "one user judged the same two texts more than once; repeats measure consistency"
        pairs = len(d) - int(job.dropped_N.sum()) - int((again["n"] - 1).sum())
        job.note("repeated judgement", (again.height, pairs, "pairs"), "kept", text, again["row"][0])
    against = again.filter("both")
    if against.height:
        text = "one user preferred one text of the two, then the other"
        job.note("contradictory repeat", (against.height, again.height, "repeats"), "kept", text, against["row"][0])


def _without_copies(job: Inspection, table: pl.DataFrame, keys: list[str], about: list[str]) -> pl.DataFrame:
    """Drops rows that copy an earlier one: same user, texts, answer, pair id and time (``keys``), and all ``about`` it.

    If the answers under one pair id and time differ, these rows are second answers, and none counts as a copy.
    """
    if (table.group_by(keys).agg(pl.col.outcome.n_unique())["outcome"] > 1).any():
        return table
    copied = ~table.select(pl.struct(*keys, *about).is_first_distinct()).to_series()
    bad_N = np.zeros(len(job.data), bool)
    bad_N[table["row"].filter(copied).to_numpy()] = True
    job.rows(
        "duplicate judgement", bad_N, "dropped", "same user, texts, answer, pair id, time and weight as an earlier row"
    )
    return table.filter(~copied)


def _pair_ids(job: Inspection) -> None:
    d = job.data
    if d.pair_N is None:
        return
    low_N, high_N = _ordered(d)
    table = pl.DataFrame({"pair": d.pair_N, "low": low_N, "high": high_N, "row": np.arange(len(d))})
    pairs = table.filter(pl.col.pair >= 0).unique(["pair", "low", "high"], keep="first", maintain_order=True)
    several = pairs.filter(pl.col.pair.is_duplicated())
    if several.height:
        row = several.filter(~pl.col.pair.is_first_distinct())["row"][0]
        text = "one pair_id has different texts; pairs are identified by their texts"
        seen = (several["pair"].n_unique(), pairs["pair"].n_unique(), "pair ids")
        job.note("pair_id of other texts", seen, "kept", text, row)


def _users(job: Inspection, min_judgements: int) -> None:
    d, kept_N = job.data, ~job.dropped_N
    count_U = np.bincount(d.user_N[kept_N], minlength=len(d.users))
    least = min_judgements if min_judgements > 1 else FEW
    few_U = count_U < least
    few_N = few_U[d.user_N] & kept_N
    if few_N.any():
        row = int(np.argmax(few_N))
        user = int(d.user_N[row])
        example = f"user {shown(d.users.ids[user], 30)} has {count_U[user]}"
        action = "dropped" if min_judgements > 1 else "kept"
        text = f"fewer than {least} usable judgements"
        job.note("few judgements", (int(few_U.sum()), len(d.users), "users"), action, text, row, example)
        if min_judgements > 1:
            job.dropped_N |= few_N
    alike = d.users.ids.str.strip_chars().str.to_lowercase().str.replace(r"\.0+$", "").is_duplicated().to_numpy()
    if alike.any():
        row = int(np.argmax(alike[d.user_N]))
        example = f"user {shown(d.users.ids[int(d.user_N[row])], 30)}"
        text = "ids that differ only in case, spaces or .0; they count as different users"
        job.note("look-alike user ids", (int(alike.sum()), len(d.users), "users"), "kept", text, row, example)
    rounded = d.users.ids.str.contains(ROUNDED).to_numpy()
    if rounded.any():
        row = int(np.argmax(rounded[d.user_N]))
        example = f"user {shown(d.users.ids[int(d.user_N[row])], 30)}"
        text = "ids that a spreadsheet may have rounded; several people may be one. Export the ids as text"
        job.note("rounded user ids", (int(rounded.sum()), len(d.users), "users"), "kept", text, row, example)


def _too_little(job: Inspection) -> None:
    kept_N = ~job.dropped_N
    for name, text in _lacks(job.data, kept_N):
        job.note(name, (int(kept_N.sum()), len(kept_N), "rows"), "counted", f"{text}: nothing to personalise")


def _lacks(d: Comparisons, kept_N: BoolArray) -> list[tuple[str, str]]:
    """What the judgements marked ``kept_N`` lack for personalization: ``(name, text)``."""
    count_U = np.bincount(d.user_N[kept_N], minlength=len(d.users))
    if not kept_N.any():
        return [("nothing left", "no usable judgement is left")]
    lacks = []
    if (count_U > 0).sum() == 1:
        lacks.append(("one user only", f"all judgements are by one user, {shown(d.users.ids[int(count_U.argmax())])}"))
    elif count_U.max() == 1:
        lacks.append(("one judgement per user", "no user has more than one judgement"))
    if d.tie_N is not None and d.tie_N[kept_N].all():
        lacks.append(("all ties", "every judgement is a tie"))
    return lacks
