"""The table of learners by metrics at the full training size, and the names of learners and baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from polypref import wording as words
from polypref.evaluation.results_schema import CompareContents
from polypref.evaluation.results_table import ResultRow, ResultTable
from polypref.report.figures import Axis, span


@dataclass(frozen=True)
class Column:
    """One metric of one cohort, with its heading."""

    metric: str
    cohort: str
    title: str
    note: str

    @property
    def is_share(self) -> bool:
        """Whether the metric is printed in percent."""
        return self.metric.startswith("accuracy")


COLUMNS = (
    Column("accuracy_micro", "all", "Accuracy, %", "all judgements (micro)"),
    Column("accuracy_macro", "all", "Accuracy, %", "mean over users (macro)"),
    Column("accuracy_worst_decile", "all", "Accuracy, %", "worst decile"),
    Column("accuracy_macro", "minority", "Accuracy, %", "minority users by some seed's training rows"),
    Column("log_loss", "all", "Log loss", "lower is better"),
    Column("calibration_error", "all", "Calibration", "error, lower is better"),
)
GAIN_METRICS = {"accuracy_micro": "all judgements", "accuracy_macro": "mean over users"}  # figures show the first
BASELINE = "baseline: best on validation rows"
TAKE = "the one to take"
NOT_MEASURABLE = "not measurable"  # of a cohort that has nobody
SMALLEST_AXIS = 0.02  # of gains: two points to either side, so that noise does not fill the figure


def learner_names(contents: CompareContents) -> list[str]:
    """Every learner of the results, in the order of their first row."""
    return list(dict.fromkeys([*contents.rows.learners, *contents.gains.learners, *contents.users]))


def baseline_name(contents: CompareContents) -> str:
    """The name in the results of the baseline that gains are measured against."""
    return contents.floor or next((g.baseline for g in contents.gains if g.baseline), "the population baseline")


def gain_metric(contents: CompareContents) -> str | None:
    """The metric whose gains are shown: the first of GAIN_METRICS that has gains."""
    return next((metric for metric in GAIN_METRICS if metric in contents.gains.metrics), None)


def gain_axis(gains: Iterable[ResultRow]) -> Axis:
    """A common axis for gains around zero; losses beyond half the largest gain run off its left end."""
    known = [end for gain in gains for end in (gain.value, gain.lo, gain.hi) if end is not None]
    high = max([*known, SMALLEST_AXIS])
    return span([max(min([*known, -SMALLEST_AXIS / 2]), -high / 2), high], pad=0.08)


def mark_of(gain: ResultRow | None, axis: Axis) -> dict[str, Any] | None:
    """A dot with a whisker, in thousandths of the axis; its kind says whether the interval excludes zero."""
    if gain is None or (value := gain.value) is None:
        return None
    bounded = gain.lo is not None and gain.hi is not None
    at, start, end = axis.plane([v if v is not None else value for v in (value, gain.lo, gain.hi)], 1000).tolist()
    return {"kind": gain.kind, "at": at, "lo": start, "hi": end, "bounded": bounded, "off": value < axis.lo}


def cell(row: ResultRow | None, column: Column) -> dict[str, Any]:
    """What one table cell shows: a value with its interval, or why there is none (no or too few users), or a dash."""
    write = words.percent if column.is_share else words.number
    if row is None or row.value is None:
        n = None if row is None else row.n_users
        few = n and column.metric == "accuracy_worst_decile"  # a tenth of fewer than twenty is less than two people
        text = f"n = {n}" if few else NOT_MEASURABLE if n == 0 else words.MISSING
        return {"text": text, "interval": "too few users" if few else "", "sort": None, "missing": True}
    return {"text": write(row.value), "interval": words.interval(row.ends, write), "sort": row.value, "missing": False}


def gain_cell(gain: ResultRow | None, axis: Axis, is_baseline: bool) -> dict[str, Any]:
    """A gain with its interval, and where to draw both on the small common axis."""
    mark = mark_of(gain, axis)
    if gain is None or mark is None:
        text = "baseline" if is_baseline else words.MISSING
        return {"text": text, "interval": "", "sort": 0.0 if is_baseline else None, "missing": True, "mark": None}
    shown = {"text": words.points(gain.value), "interval": words.interval(gain.ends, words.points)}
    return {**shown, "sort": gain.value, "missing": False, "mark": mark}


def heading(column: Column, rows: ResultTable) -> dict[str, Any]:
    """A column's heading; a cohort says how many users it has."""
    counted = (
        None if column.cohort == "all" else next(iter(rows.where(metric=column.metric, cohort=column.cohort)), None)
    )
    n = None if counted is None else counted.n_users
    size = "" if n is None else f", n = {words.number(n)}" if n else f", {NOT_MEASURABLE}"
    return {"title": column.title, "note": column.note + size}


def leaderboard_section(contents: CompareContents, learners: Sequence[str]) -> dict[str, Any] | None:
    """The table: one row per learner, with COLUMNS, the gain, and users better and worse off; None without rows."""
    rows = contents.rows.at_full()
    if not rows:
        return None
    baseline, metric = baseline_name(contents), gain_metric(contents)
    take = contents.method["learner"] or contents.verdict["best"]
    gains = contents.gains.by_learner(metric)
    also = {other: contents.gains.by_learner(other) for other in GAIN_METRICS if other in contents.gains.metrics}
    axis = gain_axis(gains.values())
    body = [
        {
            "learner": learner,
            "best": learner == take,
            "role": BASELINE if learner == baseline else TAKE if learner == take else "",
            "cells": [cell(rows.at(learner, column.metric, column.cohort), column) for column in COLUMNS],
            "gains": [gain_cell(of.get(learner), axis, learner == baseline) for of in also.values()],
            "counts": contents.counts(learner),
        }
        for learner in learners
        if learner in rows.learners
    ]
    return {
        "headings": [heading(column, rows) for column in COLUMNS],
        "body": body,
        "zero": int(axis.plane([0.0], 1000)[0]),
        "gain_notes": [GAIN_METRICS[other] for other in also],
        "has_gains": bool(gains),
        "seeds": next((row.seeds for row in rows if row.seeds is not None), None),
    }
