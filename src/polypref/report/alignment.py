"""The results of `polypref align`: lines for a terminal, and one self-contained page without script."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from polypref.report.page import TEMPLATES, environment
from polypref.wording import MISSING, estimate, number, signed, visible

POINTS = 60  # of a curve; more points would only show noise
COLOURS = ("#0b5fa5", "#c2571a", "#3f8f3f", "#8a4fa8", "#8a8a8a", "#b0802a", "#2a9a9a", "#a83a5a")
WIDTH, HEIGHT, LEFT, BELOW, TOP = 900, 320, 46, 30, 10


def summary(found: Mapping[str, Any]) -> str:
    """A line per group: its gain by the scorer that training used, and by the judge that training never saw."""
    lines = ["gain per group, in spreads of the group's rewards before training (95 % interval over users):"]
    for group, about in found["groups"].items():
        judge = f"; judge {_gain(about['judge'])}" if "judge" in about else ""
        lines.append(f"  {visible(group)} ({about['users']} users): {_gain(about['reward'])}{judge}")
    return "\n".join(lines)


def _gain(one: Mapping[str, Any]) -> str:
    if one["gain"] is None:
        return "unknown: all rewards before training were equal"
    return estimate(one, partial(signed, digits=2), "gain")


def page(found: Mapping[str, Any]) -> str:
    """The page as HTML: curves, gains, answers before and after training, and what is needed to run it again."""
    groups = [
        {
            "name": name,
            "colour": COLOURS[at % len(COLOURS)],
            "users": about["users"],
            "samples": about["samples"],
            "weight": MISSING if about["weight"] is None else number(about["weight"], 2),
            "reward": _gain(about["reward"]),
            "judge": _gain(about["judge"]) if "judge" in about else "",
        }
        for at, (name, about) in enumerate(found["groups"].items())
    ]
    return (
        environment()
        .get_template("align.html.j2")
        .render(
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            groups=groups,
            judged=any(one["judge"] for one in groups),
            figure=_figure(found, groups),
            examples=found["examples"],
            settings=found["settings"],
            data={**found["inputs"], **found["data"]},
            held_out=len(found["held_out"]),
            versions=found["versions"],
            steps=found["curve"][-1]["step"] if found["curve"] else 0,
        )
    )


def curves(found: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """For each group: step, and mean reward in spreads above the start, averaged over at most ``POINTS`` stretches."""
    steps = np.array([one["step"] for one in found["curve"]], float)
    parts = np.array_split(np.arange(len(steps)), min(POINTS, max(len(steps), 1)))
    drawn = {}
    for name, about in found["groups"].items():
        rewards = np.array(
            [one["reward"].get(name) for one in found["curve"]], float
        )  # None: no completion in that step
        rewards = (rewards - about["reward"]["mean"]) / (about["reward"]["spread"] or np.nan)
        points = [
            (float(steps[p].mean()), float(np.nanmean(rewards[p]))) for p in parts if np.isfinite(rewards[p]).any()
        ]
        drawn[name] = points
    return drawn


def _figure(found: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Lines of the plot in its own coordinates; None without a curve."""
    drawn = curves(found)
    values = [y for points in drawn.values() for _, y in points]
    if not values:
        return None
    low, high = min(0.0, *values), max(0.5, *values)
    last = max(x for points in drawn.values() for x, _ in points)

    def x_of(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 10) * step / last, 1)

    def y_of(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BELOW) * (high - value) / (high - low), 1)

    size = 0.5 if high - low <= 4 else float(np.ceil((high - low) / 8))
    ticks = np.arange(np.ceil(low / size), np.floor(high / size) + 1) * size
    lines = [
        {"colour": one["colour"], "points": " ".join(f"{x_of(x)},{y_of(y)}" for x, y in drawn[one["name"]])}
        for one in groups
    ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "bottom": HEIGHT - BELOW,
        "lines": lines,
        "y_ticks": [
            {"at": y_of(float(tick)), "text": signed(tick, 0 if float(tick).is_integer() else 1)} for tick in ticks
        ],
        "x_ticks": [{"at": x_of(last * share), "text": f"{last * share:.0f}"} for share in (0, 0.25, 0.5, 0.75, 1)],
    }
