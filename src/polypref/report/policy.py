"""The tables of ``policy.json``: what each way to turn rewards into advantages gains over GRPO, setting by setting."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

COLUMNS = ("worst_gain", "macro_gain", "final_worst_gain", "completions")
HEAD = "| method | G | groups | rate | worst group | macro | worst group, at the end | completions |"


def markdown(content: Mapping[str, Any]) -> str:
    """One table per setting, the best for the worst-served group first; gains in points, with 95 % intervals."""
    said = content["settings"]
    parts = [
        "# Advantages on bandits",
        "",
        f"{said['seeds']} paired seeds, {said['steps']} steps of {said['completions']} completions. Gains over GRPO "
        "with G = 8 in points of normalised reward (0 uniform choice, 100 the best), area under the curve unless said, "
        "with 95 % intervals over seeds; in bold those clear of zero. completions: share of the run until the worst "
        "group has what GRPO gives it in the end. Learning rates are each arm's best on other seeds.",
    ]
    for setting, rows in groupby(content["rows"], key=lambda row: row["setting"]):
        parts += ["", f"## {setting}", "", HEAD, "|---|---|---|---|---|---|---|---|", *_lines(list(rows))]
    return "\n".join(parts) + "\n"


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    arms: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        arms.setdefault((row["method"], row["generations"], row["groups"], row["rate"]), {})[row["metric"]] = row
    ordered = sorted(arms.items(), key=lambda item: -item[1]["worst"]["value"])
    return [f"| {' | '.join(map(str, arm))} | {' | '.join(_cells(figures))} |" for arm, figures in ordered]


def _cells(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    gains = [_gain(figures[name]) for name in COLUMNS[:-1]]
    share = figures["completions"]["value"]
    return [*gains, "never" if share is None else f"{share:.2f}"]


def _gain(row: Mapping[str, Any]) -> str:
    low, value, high = (100 * row[name] for name in ("lo", "value", "hi"))
    if low == high == 0:
        return "-"
    text = f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
    return f"**{text}**" if low > 0 or high < 0 else text
