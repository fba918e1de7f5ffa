"""``policy.json`` as tables and one chart: what each way to turn rewards into advantages gains over GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor
from typing import Any

from polypref.wording import MISSING, estimate, html_text, markdown_line, markdown_text, number, points, signed

COLUMNS = ("worst_gain", "macro_gain", "final_worst_gain", "completions")
HEAD = "| method | G | groups | rate | worst group | macro | worst group, at the end | completions |"


def markdown(content: Mapping[str, Any]) -> str:
    """One table per setting, the best for the worst-served group first; gains in points, with 95 % intervals."""
    config = content["settings"]
    longer = "".join(f" ({name}: {times} times as many)" for name, times in config["longer"].items())
    runs = [
        f"{learner}: {config['seeds'] if plan['most'] is None else min(config['seeds'], plan['most'])} paired seeds, "
        f"{plan['steps']} steps{longer if learner == 'bandit' else ''} of {config['completions'][learner]} completions"
        for learner, plan in config["plans"].items()
    ]
    parts = [
        "# Advantages where the truth is known",
        "",
        f"{'; '.join(runs)}. Gains over GRPO "
        "with G = 8 in points of normalised reward (0 uniform choice, 100 the best), area under the curve unless noted,"
        " with 95 % intervals over seeds; bold: significant. completions: share of the run until the worst "
        "group reaches what GRPO gives it at the end. Each arm uses its best learning rate, chosen on other seeds.",
    ]
    by_setting: dict[str, list[dict[str, Any]]] = {}
    for row in content["rows"]:
        by_setting.setdefault(named(row), []).append(row)
    for setting, rows in by_setting.items():
        parts += ["", f"## {markdown_text(setting)}", "", HEAD, "|---|---|---|---|---|---|---|---|", *_lines(rows)]
    return "\n".join(parts) + "\n"


def named(row: Mapping[str, Any]) -> str:
    """A setting's name, with the learner's name unless it is the bandit."""
    return row["setting"] if row["learner"] == "bandit" else f"{row['learner']}: {row['setting']}"


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    arms: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        arms.setdefault((row["method"], row["generations"], row["groups"], row["rate"]), {})[row["metric"]] = row
    ordered = sorted(arms.items(), key=lambda item: -item[1]["worst"]["value"])
    return [markdown_line([*(markdown_text(str(one)) for one in arm), *_cells(figures)]) for arm, figures in ordered]


def _cells(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    gains = [_gain(figures[name]) for name in COLUMNS[:-1]]
    share = figures["completions"]["value"]
    return [*gains, "never" if share is None else number(share, 2)]


def _gain(row: Mapping[str, Any]) -> str:
    low, high = row["lo"], row["hi"]
    if low == high == 0:
        return MISSING
    text = estimate(row, points)
    return f"**{text}**" if low > 0 or high < 0 else text


SHOWN = (("GRPO", 2, "#8a8a8a"), ("P-GRPO paper", 2, "#c2571a"), ("P-GRPO shrunken", 2, "#0b5fa5"))
WIDTH, LEFT, LINE, GAP, TOP = 820, 250, 15, 14, 58


def chart(content: Mapping[str, Any]) -> str:
    """An SVG: gain of the worst-served group over GRPO with G = 8 at equal completions, with 95 % intervals."""
    rows = [row for row in content["rows"] if row["metric"] == "worst_gain" and row["groups"] == "true"]
    settings = list(dict.fromkeys(named(row) for row in sorted(rows, key=lambda row: row["learner"])))
    found = {(named(row), row["method"], row["generations"]): row for row in rows}
    height = TOP + len(settings) * (LINE * len(SHOWN) + GAP) + 10
    shown = [row for one, row in found.items() if one[1:] in {tick[:2] for tick in SHOWN}]
    span = _span([100 * row[end] for row in shown for end in ("lo", "hi")])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="10" y="18" font-size="14">Worst-served group: points gained over GRPO with 8 a prompt</text>',
    ]
    for at, (method, generations, colour) in enumerate(SHOWN):
        x = LEFT + (0, 150, 340)[at]
        parts.append(f'<circle cx="{x}" cy="34" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 9}" y="38">{html_text(method)}, {generations} a prompt</text>')
    for tick in range(span[0], span[1] + 1, 10):
        colour = "#444" if tick == 0 else "#ddd"
        parts.append(
            f'<line x1="{_x(tick, span)}" x2="{_x(tick, span)}" y1="{TOP - 4}" y2="{height - 8}" stroke="{colour}"/>'
        )
        parts.append(
            f'<text x="{_x(tick, span)}" y="{TOP - 7}" text-anchor="middle" fill="#666">{signed(tick, 0)}</text>'
        )
    for at, setting in enumerate(settings):
        top = TOP + at * (LINE * len(SHOWN) + GAP) + LINE
        parts.append(f'<text x="10" y="{top + LINE}">{html_text(setting)}</text>')
        for line, (method, generations, colour) in enumerate(SHOWN):
            if row := found.get((setting, method, generations)):
                parts += _mark(row, top + line * LINE, colour, span)
    return "\n".join([*parts, "</svg>", ""])


def _span(points: list[float]) -> tuple[int, int]:
    """The tens that enclose all ``points``, and at least -20 and 20."""
    return int(floor(min(-20.0, *points) / 10) * 10), int(ceil(max(20.0, *points) / 10) * 10)


def _x(points: float, span: tuple[int, int]) -> float:
    return round(LEFT + (points - span[0]) / (span[1] - span[0]) * (WIDTH - LEFT - 20), 1)


def _mark(row: Mapping[str, Any], y: float, colour: str, span: tuple[int, int]) -> list[str]:
    low, value, high = (_x(100 * row[name], span) for name in ("lo", "value", "hi"))
    return [
        f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{value}" cy="{y}" r="4" fill="{colour}"/>',
    ]
