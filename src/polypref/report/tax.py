"""The results of `polypref tax`: lines for a terminal, and one self-contained page without script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polypref.answers import wrapped
from polypref.report.page import TEMPLATES, environment
from polypref.stats.cluster_robust import FEW_USERS
from polypref.wording import MISSING, counted, estimate, finite, interval, number, percent, points, signed, visible

Row = Mapping[str, Any]

WIDTH, HEIGHT, LEFT, BELOW, TOP = 430, 300, 52, 42, 12
PARTS = {
    "personalization": "personalization tax",
    "shuffled": "the same on shuffled users",
    "person": "personalization minus shuffled users",
    "generic": "a stranger's",
    "no user": "without a user",
    "forgetting": "forgetting",
    "total": "total",
}
ARMS = ("base", "pooled", "personal", "shuffled", "generic", "no user", "length")
AXES = {"gain": "gain on held-out judgements, points", "distance": "judgements against the majority, %"}


def summary(found: Mapping[str, Any]) -> str:
    """A line per section with the mean tax, its control and the worst user; then notes on what is missing and why."""
    lines = [
        f"{counted(found['suite']['items'], 'items')} ({found['suite']['scheme']}), "
        f"{counted(found['data']['n_users'], 'users')}. Points "
        "lost relative to the pooled scorer (below 0: gained), mean over users (95 % interval):"
    ]
    parts, worst = _by_part(found), {row["section"]: row for row in found["worst"]}
    least = {row["section"]: row for row in found["detectable"]}
    for section in found["sections"]:
        mean, control, one = parts["personalization", section], parts.get(("shuffled", section)), worst[section]
        lines.append(
            f"  {section}: {_text(mean)}, {mean['verdict']}; "
            + (
                f"shuffled users {_text(control)}, the person alone {_text(parts['person', section])}; "
                if control
                else ""
            )
            + f"worst {visible(one['user'])} {_text(one)}; one user's tax is {_detectable(least[section])}"
        )
        lines += [
            f"    {part} {_text(parts[part, section])}" for part in ("forgetting", "total") if (part, section) in parts
        ]
    if found["sycophancy"]:
        by_part = {(row["part"], row["section"]): row for row in found["sycophancy"]["tax"]}
        mean = next(row for (part, _), row in reversed(by_part.items()) if part == "personalization")
        lines.append(f"  sycophancy: {_text(mean)}, {mean['verdict']}")
    notes = (f"note: {note}" for note in found["notes"])
    return "\n".join([*lines, *notes, *wrapped(f"Result: {found['conclusion']['text']}")])


def page(found: Mapping[str, Any]) -> str:
    """The page as HTML: the parts of the tax by section, users, two plots, sycophancy, and how to run it again."""
    section = found["sections"][-1]
    return (
        environment()
        .get_template("tax.html.j2")
        .render(
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            suite=found["suite"],
            users=found["data"]["n_users"],
            few=FEW_USERS,
            conclusion=found["conclusion"]["text"],
            margin=points(found["settings"]["margin"]).lstrip("+"),
            scores=_table(found["scores"], "arm", {arm: arm for arm in ARMS}, percent),
            parts=_table(found["tax"], "part", PARTS, points),
            sections=found["sections"],
            worst=[row | {"text": _text(row)} for row in found["worst"]],
            detectable=[row | {"least": _least(row)} for row in found["detectable"]],
            people=_people(found, section),
            shown=section,
            plots=[_plot(found, section, name) for name in AXES],
            sycophancy=found["sycophancy"] and _table(found["sycophancy"]["tax"], "part", PARTS, points),
            false_sections=list(dict.fromkeys(row["section"] for row in (found["sycophancy"] or {"tax": []})["tax"])),
            notes=found["notes"],
            metadata=_metadata(found),
        )
    )


def _metadata(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What is needed to run it again: the inputs given, settings, versions."""
    given = [(name, value) for name, value in found.get("inputs", {}).items() if value is not None]
    inputs = [(name, " ".join(value) if isinstance(value, list) else value) for name, value in given]
    return [*inputs, *found["settings"].items(), *found["versions"].items()]


def _by_part(found: Mapping[str, Any]) -> dict[tuple[str, str], Row]:
    return {(row["part"], row["section"]): row for row in found["tax"]}


def _text(row: Row) -> str:
    return estimate(row, points)


def _least(row: Row) -> str | None:
    """The smallest detectable tax of one user in points, at the share of items answered differently, if there were any.

    None if it exceeds 100 points, which no tax reaches.
    """
    least = row["at_tenth"] if row["at_seen"] is None else row["at_seen"]
    return None if least is not None and least > 1 else points(least).lstrip("+")


def _detectable(row: Row) -> str:
    return "not detectable with so few items" if (least := _least(row)) is None else f"detectable from {least} points"


def _table(rows: Sequence[Row], key: str, names: Mapping[str, str], write: Any) -> list[dict[str, Any]]:
    """A line for each name that has rows, with a cell per section: value, interval and verdict."""
    lines = []
    for name, title in names.items():
        cells = [
            {"value": write(row["value"]), "ends": interval(row, write), "verdict": row.get("verdict", "")}
            for row in rows
            if row[key] == name
        ]
        if cells:
            lines.append({"title": title, "cells": cells})
    return lines


def _people(found: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """Every user's line: judgements, distance, gain, tax in the section shown, and the sections with a sure tax."""
    about = {row["user"]: row for row in found["people"]}
    lines = []
    for row in found["users"]:
        if row["section"] != section:
            continue
        one = about[row["user"]]
        taxed = [r["section"] for r in found["users"] if r["user"] == row["user"] and r["verdict"] == "tax"]
        gain = {"value": one["gain"], "lo": one["gain_lo"], "hi": one["gain_hi"]}
        lines.append(
            {
                "user": row["user"],
                "judgements": one["judgements"],
                "distance": percent(one["distance"]),
                "gain": _text(gain) if one["gain"] is not None else MISSING,
                "tax": _text({"value": row["value"], "lo": row["lo_all"], "hi": row["hi_all"]}),
                "taxed": ", ".join(taxed) or MISSING,
            }
        )
    return lines


def _plot(found: Mapping[str, Any], section: str, name: str) -> dict[str, Any] | None:
    """Plot of each user's tax (points, on y) against gain or distance; None with fewer than two users to show."""
    tax = {row["user"]: row["value"] for row in found["users"] if row["section"] == section}
    known = [(row["user"], finite(row[name]), tax[row["user"]]) for row in found["people"]]
    dots = [(user, 100 * x, 100 * y) for user, x, y in known if x is not None]
    if len(dots) < 2:
        return None
    (left, right), (low, high) = _range([x for _, x, _ in dots]), _range([y for _, _, y in dots])
    rho = next(row for row in found["against"] if (row["section"], row["with"]) == (section, name))

    def x_of(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 12) * (x - left) / (right - left), 1)

    def y_of(y: float) -> float:
        return round(TOP + (HEIGHT - TOP - BELOW) * (high - y) / (high - low), 1)

    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "bottom": HEIGHT - BELOW,
        "title": AXES[name],
        "dots": [{"x": x_of(x), "y": y_of(y), "user": user} for user, x, y in dots],
        "zero": y_of(0.0),
        "x_ticks": [{"at": x_of(x), "text": number(x, 0)} for x in (left, (left + right) / 2, right)],
        "y_ticks": [{"at": y_of(y), "text": signed(y, 0)} for y in (low, high)],
        "rho": f"rank correlation {signed(rho['value'], 2)}"
        + (f" ({interval(rho, lambda r: signed(r, 2))})" if interval(rho) else "")
        + f", {counted(rho['n'], 'users')}",
    }


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that holds all values and 0: two different whole numbers."""
    low, high = min(0.0, *values), max(0.0, *values)
    return float(int(low) - (low < 0)), float(int(high) + 1)
