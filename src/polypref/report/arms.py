"""Accuracy against training size, and the placebo arm beside the real gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polypref import wording as words
from polypref.report.figures import Axis, curve, span
from polypref.report.leaderboard import GAIN_METRICS, baseline_name, find, gain_axis, is_all, learner_gains, mark_of

Results = Mapping[str, Any]
Row = Mapping[str, Any]


def sizes_section(results: Results, learners: Sequence[str]) -> dict[str, Any] | None:
    """One small panel per learner, macro accuracy over training size, common axes; None with fewer than two sizes."""
    rows = [
        row
        for row in results.get("rows", ())
        if row.get("metric") == "accuracy_macro" and is_all(row) and words.finite(row.get("value")) is not None
    ]
    rows = [row for row in rows if (words.finite(row.get("size")) or 0) > 0]
    sizes = sorted({row["size"] for row in rows})
    if len(sizes) < 2:
        return None
    ends = [words.finite(row.get(key)) for row in rows for key in ("value", "lo", "hi")]
    axes = (Axis(sizes[0] / 1.2, sizes[-1] * 1.2, log=True), span([e for e in ends if e is not None]))
    by_learner = {name: sorted((r for r in rows if r["learner"] == name), key=lambda r: r["size"]) for name in learners}
    baseline = baseline_name(results)
    floor = by_learner.get(baseline, [])
    return {
        "baseline": baseline,
        "panels": [
            {"learner": name, "figure": curve(points, floor if name != baseline else [], axes, name)}
            for name, points in by_learner.items()
            if points
        ],
    }


def placebo_section(results: Results, learners: Sequence[str]) -> dict[str, Any] | None:
    """Per learner and on one axis: the real gain, the gain with users' ids shuffled, and the one less the other.

    None when no arm was run.
    """
    placebo = [row for row in results.get("placebo", ()) if words.finite(row.get("value")) is not None]
    if not placebo:
        return None
    metric = next((m for m in GAIN_METRICS if find(placebo, metric=m)), placebo[0].get("metric"))
    placebo = [row for row in placebo if row.get("metric") == metric and is_all(row)]
    real = learner_gains(results, metric)
    shown = [name for name in learners if find(placebo, learner=name)]
    knowing = [row for row in results.get("gains_over_shuffled", ()) if row.get("metric") == metric and is_all(row)]
    axis = gain_axis([*placebo, *knowing, *[gain for name, gain in real.items() if name in shown]])
    counts = results.get("users") or {}
    rows = []
    for name in shown:
        rows.append(arm_row(name, "real", "real", real.get(name), counts.get(name) or {}, axis))
        for row in placebo:
            if row["learner"] == name:
                rows.append(arm_row(name, str(row.get("arm", "shuffled")), "placebo", row, row, axis))
        if (less := find(knowing, learner=name)) is not None:
            rows.append(arm_row(name, "real less shuffled", "difference", less, None, axis))
    return {
        "rows": rows,
        "ticks": axis.ticks(signed=True, scale=100),
        "zero": int(axis.plane([0.0], 1000)[0]),
        "metric": GAIN_METRICS.get(str(metric), str(metric)),
    }


def arm_row(learner: str, arm: str, kind: str, row: Row | None, counts: Mapping | None, axis: Axis) -> dict[str, Any]:
    """One line of the placebo table; ``counts`` holds users better and worse off, None where nobody counted them."""
    return {
        "learner": learner,
        "arm": arm,
        "kind": kind,
        "mark": mark_of(row, axis),
        "text": "unknown" if row is None else words.points(row.get("value")),
        "interval": words.interval(row, words.points),
        "counts": {name: words.number(counts.get(name)) for name in ("better", "worse")}
        if counts is not None
        else None,
    }
