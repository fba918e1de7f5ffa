"""Accuracy against training size, and the placebo arm beside the real gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polypref import wording as words
from polypref.evaluation.results_schema import CompareContents
from polypref.evaluation.results_table import ResultRow
from polypref.report.figures import Axis, Point, curve, span
from polypref.report.leaderboard import GAIN_METRICS, baseline_name, gain_axis, mark_of


def sizes_section(contents: CompareContents, learners: Sequence[str]) -> dict[str, Any] | None:
    """A small panel per learner: macro accuracy over training size, on common axes; None with fewer than two sizes."""
    rows = contents.rows.where(metric="accuracy_macro", cohort="all")
    by_learner = {
        name: sorted(Point(r.size, r.value, r.lo, r.hi) for r in own if r.size and r.value is not None)
        for name in learners
        if (own := rows.where(learner=name))
    }
    points = [point for own in by_learner.values() for point in own]
    sizes = sorted({point.size for point in points})
    if len(sizes) < 2:
        return None
    ends = [end for point in points for end in point[1:] if end is not None]
    axes = (Axis(sizes[0] / 1.2, sizes[-1] * 1.2, log=True), span(ends))
    baseline = baseline_name(contents)
    floor = by_learner.get(baseline, [])
    return {
        "baseline": baseline,
        "panels": [
            {"learner": name, "figure": curve(points, floor if name != baseline else [], axes, name)}
            for name, points in by_learner.items()
            if points
        ],
    }


def placebo_section(contents: CompareContents, learners: Sequence[str]) -> dict[str, Any] | None:
    """Per learner, on one axis: the real gain, the gain with user ids shuffled, and their difference.

    None if the placebo was not run.
    """
    measured = [row for row in contents.placebo if row.value is not None]
    if not measured:
        return None
    metrics = {row.metric for row in measured}
    metric = next((metric for metric in GAIN_METRICS if metric in metrics), measured[0].metric)
    real, knowing = contents.gains.by_learner(metric), contents.gains_over_shuffled.by_learner(metric)
    placebo = {row.learner: row for row in measured if (row.metric, row.cohort) == (metric, "all")}
    shown = [name for name in learners if name in placebo]
    axis = gain_axis([*placebo.values(), *knowing.values(), *(gain for name, gain in real.items() if name in shown)])
    rows = []
    for name in shown:
        rows.append(arm_row(name, "real", "real", real.get(name), contents.counts(name), axis))
        shuffled = placebo[name]
        rows.append(arm_row(name, shuffled.arm or "shuffled", "placebo", shuffled, vars(shuffled), axis))
        if name in knowing:
            rows.append(arm_row(name, "real minus shuffled", "difference", knowing[name], None, axis))
    return {
        "rows": rows,
        "ticks": axis.ticks(signed=True, scale=100),
        "zero": int(axis.plane([0.0], 1000)[0]),
        "metric": GAIN_METRICS.get(metric, metric),
    }


def arm_row(
    learner: str, arm: str, kind: str, row: ResultRow | None, counts: Mapping[str, Any] | None, axis: Axis
) -> dict[str, Any]:
    """One line of the placebo table; ``counts`` holds the users better and worse off, None if not counted."""
    return {
        "learner": learner,
        "arm": arm,
        "kind": kind,
        "mark": mark_of(row, axis),
        "text": "unknown" if row is None else words.points(row.value),
        "interval": "" if row is None else words.interval(row.ends, words.points),
        "counts": None if counts is None else {name: words.number(counts[name]) for name in ("better", "worse")},
    }
