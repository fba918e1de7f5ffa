"""The linter: what is wrong with a set of judgements, how often, one example, and what happens to such rows.

Actions: *dropped* rows are left out by ``clean``; *kept* rows are used as they are; *counted* is told about the data as a
whole, no single row is to blame. Repeats are kept: agreeing and contradictory ones together are the only measure of a
person's consistency, so dropping one kind would bias it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import polars as pl

from polypref.comparisons import BoolArray, Comparisons, IntArray
from polypref.data import lint_bias, lint_prompts
from polypref.data.problems import short, shown
from polypref.data.read import Reading

Action = Literal["kept", "dropped", "counted"]


@dataclass(frozen=True)
class Finding:
    """``count`` of ``total`` ``unit`` (rows, users, pairs, prompts) are like ``example``, found at ``line`` of ``file``.

    ``line`` is 0 where no single row is to blame. ``values`` holds figures behind ``text``, such as a rate's interval.
    """

    name: str
    count: int
    total: int
    unit: str
    action: Action
    example: str
    file: str
    line: int
    text: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Lint:
    """All findings with a count above zero, and which rows ``clean`` leaves out, ``dropped_N``."""

    findings: tuple[Finding, ...]
    dropped_N: BoolArray

    def as_dict(self) -> dict[str, object]:
        """JSON-able."""
        from dataclasses import asdict

        return {"findings": [asdict(f) for f in self.findings], "rows_left": int((~self.dropped_N).sum())}


def lint(reading: Reading, *, min_judgements: int = 0) -> Lint:
    """Look for everything listed in ``CHECKS``; users with fewer than ``min_judgements`` usable rows are dropped."""
    job = _Job(reading)
    for problem in reading.problems:
        action: Action = "kept" if problem.kept else "dropped"
        job.findings.append(
            Finding(problem.name, problem.count, reading.rows_read, "rows", action, problem.text, problem.file,
                    problem.line, problem.text)
        )  # fmt: skip
    _texts(job)
    _repeats(job)
    _pair_ids(job)
    _users(job, min_judgements)
    for observed in (*lint_bias.observe(reading, ~job.dropped_N), *lint_prompts.observe(reading.comparisons)):
        job.note(**observed)
    return Lint(tuple(job.findings), job.dropped_N)


def clean(reading: Reading, found: Lint) -> Comparisons:
    """The judgements without the dropped ones; users and responses that nothing is left of go too."""
    return compact(reading.comparisons.take(~found.dropped_N))


def compact(comparisons: Comparisons) -> Comparisons:
    """The same judgements over only those users and responses that occur in them."""
    used_R = np.zeros(len(comparisons.responses), bool)
    used_R[comparisons.chosen_N] = used_R[comparisons.rejected_N] = True
    used_U = np.zeros(len(comparisons.users), bool)
    used_U[comparisons.user_N] = True
    new_R, new_U = np.cumsum(used_R, dtype=np.int32) - 1, np.cumsum(used_U, dtype=np.int32) - 1
    users = comparisons.users
    mask_U = pl.Series(used_U)
    return replace(
        comparisons,
        responses=comparisons.responses.take(np.flatnonzero(used_R).astype(np.int32)),
        users=replace(
            users,
            ids=users.ids.filter(mask_U),
            attributes=None if users.attributes is None else users.attributes.filter(mask_U),
        ),
        user_N=new_U[comparisons.user_N],
        chosen_N=new_R[comparisons.chosen_N],
        rejected_N=new_R[comparisons.rejected_N],
    )


class _Job:
    """The findings so far, and the rows dropped so far."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.data = reading.comparisons
        self.findings: list[Finding] = []
        self.dropped_N = np.zeros(len(self.data), bool)

    def rows(self, name: str, bad_N: BoolArray, action: Action, text: str) -> None:
        """Add a finding about single rows."""
        if bad_N.any():
            row = int(np.argmax(bad_N))
            self.note(name, int(bad_N.sum()), len(bad_N), "rows", action, self.row(row), text, row)
            if action == "dropped":
                self.dropped_N |= bad_N

    def note(
        self, name: str, count: int, total: int, unit: str, action: Action, example: str, text: str,
        row: int | None = None, values: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        """Add a finding with row number ``row`` as its example."""
        file = "" if row is None else self.reading.files[self.reading.file_N[row]]
        line = 0 if row is None else int(self.reading.line_N[row])
        self.findings.append(Finding(name, count, total, unit, action, example, file, line, text, values or {}))

    def row(self, row: int) -> str:
        """One judgement in a few words, with where it stands."""
        d, r = self.data, self.reading
        texts = [shown(d.responses.texts_R[int(code[row])], 40) for code in (d.chosen_N, d.rejected_N)]
        tie = d.tie_N is not None and d.tie_N[row]
        verb = "calls a tie:" if tie else "prefers"
        where = f"line {r.line_N[row]} of {short(r.files[r.file_N[row]])}"
        joint = "and" if tie else "over"
        return f"{where}: user {shown(d.users.ids[int(d.user_N[row])], 30)} {verb} {texts[0]} {joint} {texts[1]}"


def _texts(job: _Job) -> None:
    d = job.data
    empty_R = (d.responses.texts_R.str.strip_chars() == "").to_numpy()
    job.rows(
        "empty response", empty_R[d.chosen_N] | empty_R[d.rejected_N], "dropped",
        "one of the two responses is missing or empty",
    )  # fmt: skip
    job.rows("same response twice", (d.chosen_N == d.rejected_N) & ~job.dropped_N, "dropped",
             "chosen and rejected are the same text")  # fmt: skip
    empty_P = (d.responses.prompts.str.strip_chars() == "").to_numpy()
    if len(empty_P):
        job.rows("empty prompt", empty_P[d.responses.prompt_R[d.chosen_N]], "kept", "the prompt is missing or empty")


def _repeats(job: _Job) -> None:
    """Copies (same user, texts, outcome, pair id and time), and the same texts judged again by the same user."""
    d = job.data
    low, high = np.minimum(d.chosen_N, d.rejected_N), np.maximum(d.chosen_N, d.rejected_N)
    outcome = np.where(d.chosen_N == low, 0, 1) if d.tie_N is None else np.where(d.tie_N, 2, d.chosen_N != low)
    told = {"user": d.user_N, "low": low, "high": high, "outcome": outcome.astype(np.int8)}
    table = (
        pl.DataFrame(told).with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64)).filter(~pl.Series(job.dropped_N))
    )
    again = table.group_by("user", "low", "high").agg(
        n=pl.len(), both=(pl.col.outcome == 0).any() & (pl.col.outcome == 1).any(), row=pl.col.row.max()
    )
    again = again.filter(pl.col.n > 1)
    if again.is_empty():
        return
    _copies(job, table)
    against = again.filter("both")
    for name, groups, text in (
        ("repeated judgement", again, "one user judged the same two texts more than once; repeats measure consistency"),
        ("contradictory repeat", against, "one user preferred first one text, then the other"),
    ):
        if groups.height:
            row = int(groups["row"].min())  # type: ignore[arg-type]
            total = table.select("user", "low", "high").n_unique() if groups is again else again.height
            unit = "pairs of a user" if groups is again else "repeated pairs"
            job.note(name, groups.height, total, unit, "kept", job.row(row), text, row)


def _copies(job: _Job, table: pl.DataFrame) -> None:
    d = job.data
    if d.pair_N is None and d.time_N is None:
        return  # nothing tells a copied row from a second answer
    told = {"pair": d.pair_N, "time": d.time_N}
    table = table.with_columns(
        **{name: pl.Series(column).gather(table["row"]) for name, column in told.items() if column is not None}
    )
    keys = ["user", "low", "high", *(name for name in told if told[name] is not None)]
    asked_again = table.group_by(keys).agg(pl.col.outcome.n_unique()).filter(pl.col.outcome > 1).height
    if asked_again:
        return  # answers differ under one pair id and time: these rows are second answers, not copies
    copies = table.filter(~pl.struct(*keys, "outcome").is_first_distinct())
    bad_N = np.zeros(len(d), bool)
    bad_N[copies["row"].to_numpy()] = True
    job.rows("duplicate judgement", bad_N, "dropped", "same user, texts, answer, pair id and time as an earlier row")


def _pair_ids(job: _Job) -> None:
    d = job.data
    if d.pair_N is None:
        return
    low, high = np.minimum(d.chosen_N, d.rejected_N), np.maximum(d.chosen_N, d.rejected_N)
    table = pl.DataFrame({"pair": d.pair_N, "low": low, "high": high, "row": np.arange(len(d))}).filter(
        pl.col.pair >= 0
    )
    pairs = table.unique(["pair", "low", "high"], keep="first", maintain_order=True)
    several = pairs.filter(pl.col.pair.is_duplicated())
    if several.height:
        row = int(several.filter(~pl.col.pair.is_first_distinct())["row"][0])
        job.note("pair_id with other texts", several["pair"].n_unique(), pairs["pair"].n_unique(), "pair ids", "kept",
                 job.row(row), "the same pair_id stands for different texts; pairs are told apart by their texts", row)  # fmt: skip


def _users(job: _Job, min_judgements: int) -> None:
    d = job.data
    kept = ~job.dropped_N
    count_U = np.bincount(d.user_N[kept], minlength=len(d.users))
    few_U = count_U < max(min_judgements, 5)
    few_N = few_U[d.user_N] & kept
    if not few_N.any():
        return
    row = int(np.argmax(few_N))
    user = int(d.user_N[row])
    least = max(min_judgements, 5)
    action: Action = "dropped" if min_judgements >= 5 else "kept"
    example = f"user {shown(d.users.ids[user], 30)} has {count_U[user]}"
    job.note("user with few judgements", int(few_U.sum()), len(d.users), "users", action, example,
             f"fewer than {least} usable judgements", row)  # fmt: skip
    if action == "dropped":
        job.dropped_N |= few_N
