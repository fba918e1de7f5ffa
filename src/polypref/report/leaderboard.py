"""The table of learners by metrics, at the full training size, and the words that name learners and baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polypref import wording as words
from polypref.report.figures import Axis, span

Results = Mapping[str, Any]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One metric of one cohort, with its heading."""

    metric: str
    cohort: str
    title: str
    note: str

    @property
    def is_share(self) -> bool:
        """Whether it is printed in percent."""
        return self.metric.startswith("accuracy")


COLUMNS = (
    Column("accuracy_micro", "all", "Accuracy, %", "all judgements (micro)"),
    Column("accuracy_macro", "all", "Accuracy, %", "mean over users (macro)"),
    Column("accuracy_worst_decile", "all", "Accuracy, %", "worst decile of users"),
    Column("accuracy_macro", "minority", "Accuracy, %", "minority users by some seed's training rows"),
    Column("log_loss", "all", "Log loss", "lower is better"),
    Column("calibration_error", "all", "Calibration", "error, lower is better"),
)
GAIN_METRICS = {"accuracy_micro": "micro", "accuracy_macro": "macro"}  # the first that was measured heads the table
BASELINE = "baseline: best on validation rows"
SMALLEST_AXIS = 0.02  # of gains: two points to either side, so that noise does not fill the picture


def learner_names(results: Results) -> list[str]:
    """Every learner of the results, in the order of their first row."""
    rows = [*results.get("rows", ()), *results.get("gains", ())]
    return list(dict.fromkeys([row["learner"] for row in rows] + list(results.get("users") or {})))


def size_rank(size: Any) -> float:
    """Sizes in order; no number means all the data."""
    known = words.finite(size)
    return float("inf") if known is None else known


def at_full_size(rows: Sequence[Row]) -> list[Row]:
    """The rows measured at the largest training size."""
    largest = max((size_rank(row.get("size")) for row in rows), default=None)
    return [row for row in rows if size_rank(row.get("size")) == largest]


def baseline_name(results: Results) -> str:
    """What gains are measured against, as the results name it."""
    baseline = results.get("baseline")
    if isinstance(baseline, Mapping):
        baseline = baseline.get("learner")
    if not baseline:
        baseline = next((gain.get("baseline") for gain in results.get("gains", ()) if gain.get("baseline")), None)
    return str(baseline or "the population baseline")


def find(rows: Sequence[Row], **wanted: Any) -> Row | None:
    """The first row whose fields equal ``wanted``."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), None)


def is_all(row: Row) -> bool:
    """Whether a row speaks of all users."""
    return row.get("cohort", "all") == "all"


def gain_metric(results: Results) -> str | None:
    """The metric whose gains are shown: the first of GAIN_METRICS that has any."""
    measured = {gain.get("metric") for gain in results.get("gains", ())}
    return next((metric for metric in GAIN_METRICS if metric in measured), None)


def learner_gains(results: Results, metric: str | None) -> dict[str, Row]:
    """Gain over the baseline by learner, over all users, at the full size."""
    gains = at_full_size([g for g in results.get("gains", ()) if g.get("metric") == metric and is_all(g)])
    return {gain["learner"]: gain for gain in gains}


def largest_gain(results: Results, among: Sequence[str]) -> str | None:
    """The learner with the largest gain of those ``among``, the personal ones first; None without any gain."""
    gains = learner_gains(results, gain_metric(results))
    known = {name: gains[name]["value"] for name in among if name in gains}
    known = {name: value for name, value in known.items() if words.finite(value) is not None}
    serves = results.get("serves") or {}
    personal = [name for name in known if serves.get(name, "") != "population"]
    return max(personal or known, key=lambda name: known[name], default=None)


def gain_axis(gains: Sequence[Row]) -> Axis:
    """A common axis for gains around zero; whoever loses more than half the largest gain runs off its left end."""
    ends = [words.finite(gain.get(key)) for gain in gains for key in ("value", "lo", "hi")]
    known = [end for end in ends if end is not None]
    high = max([*known, SMALLEST_AXIS])
    return span([max(min([*known, -SMALLEST_AXIS / 2]), -high / 2), high], pad=0.08)


def mark_of(gain: Row | None, axis: Axis) -> dict[str, Any] | None:
    """A dot with a whisker, in thousandths of the axis; its kind says whether the interval excludes zero."""
    if gain is None or (value := words.finite(gain.get("value"))) is None:
        return None
    lo, hi = words.finite(gain.get("lo")), words.finite(gain.get("hi"))
    bounded = lo is not None and hi is not None
    kind = "unclear" if lo is None or hi is None else "better" if lo > 0 else "worse" if hi < 0 else "unclear"
    at, start, end = axis.plane([v if v is not None else value for v in (value, lo, hi)], 1000).tolist()
    return {"kind": kind, "at": at, "lo": start, "hi": end, "bounded": bounded, "off": value < axis.lo}


def cell(row: Row | None, column: Column) -> dict[str, Any]:
    """What one table cell shows: a value with its interval, or why there is none: nobody, or too few; else a dash."""
    write = words.percent if column.is_share else words.number
    value = None if row is None else words.finite(row.get("value"))
    if value is None:
        n = None if row is None else row.get("n_users")
        few = n and column.metric == "accuracy_worst_decile"  # a tenth of less than twenty is no two people
        text = f"n = {n}" if few or n == 0 else words.MISSING
        return {"text": text, "interval": "too few users" if few else "", "sort": None, "missing": True}
    return {"text": write(value), "interval": words.interval(row, write), "sort": value, "missing": False}


def gain_cell(gain: Row | None, axis: Axis, is_baseline: bool) -> dict[str, Any]:
    """A gain with its interval and where to draw both on the small common axis."""
    mark = mark_of(gain, axis)
    if gain is None or mark is None:
        text = "baseline" if is_baseline else words.MISSING
        return {"text": text, "interval": "", "sort": 0.0 if is_baseline else None, "missing": True, "mark": None}
    shown = {"text": words.points(gain["value"]), "interval": words.interval(gain, words.points)}
    return {**shown, "sort": gain["value"], "missing": False, "mark": mark}


def heading(column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    """A column's heading; a cohort says how many users it has."""
    counted = find(rows, metric=column.metric, cohort=column.cohort)
    n = None if counted is None or column.cohort == "all" else counted.get("n_users")
    return {"title": column.title, "note": column.note if n is None else f"{column.note}, n = {words.number(n)}"}


def standing_section(results: Results, learners: Sequence[str]) -> dict[str, Any] | None:
    """The table: one row per learner, with COLUMNS, the gain, and users better and worse off; None without rows."""
    rows = at_full_size(results.get("rows", ()))
    if not rows:
        return None
    baseline, best = baseline_name(results), (results.get("verdict") or {}).get("best")
    metric = gain_metric(results)
    gains = learner_gains(results, metric)
    axis = gain_axis(list(gains.values()))
    users = results.get("users") or {}
    body = [
        {
            "learner": learner,
            "best": learner == best,
            "role": BASELINE if learner == baseline else "best" if learner == best else "",
            "cells": [cell(find(rows, learner=learner, metric=c.metric, cohort=c.cohort), c) for c in COLUMNS],
            "gain": gain_cell(gains.get(learner), axis, learner == baseline),
            "counts": {key: (users.get(learner) or {}).get(key) for key in ("better", "worse", "tested")},
        }
        for learner in learners
        if find(rows, learner=learner) is not None
    ]
    seeds = next((row["seeds"] for row in rows if row.get("seeds") is not None), None)
    return {
        "headings": [heading(column, rows) for column in COLUMNS],
        "body": body,
        "zero": int(axis.plane([0.0], 1000)[0]),
        "gain_note": GAIN_METRICS.get(metric or "", ""),
        "has_gains": bool(gains),
        "seeds": len(seeds) if isinstance(seeds, list | tuple) else seeds,
    }
