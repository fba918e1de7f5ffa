"""``policy.json`` as one picture: what history and group weights gain the worst-served group, each with its control."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor
from typing import Any

from polypref.report.policy import Arm, by_setting, title
from polypref.wording import html_text, signed

SHOWN: tuple[tuple[Arm, str], ...] = (
    (("Dr. GRPO", 2, 0.0), "#a0a0a0"),
    (("P-GRPO shrunken", 2, 0.0), "#6aa6dc"),
    (("GRPO", 8, 1.0), "#c2571a"),
    (("P-GRPO shrunken", 2, 0.5), "#0b5fa5"),
    (("P-GRPO shrunken", 2, 1.0), "#063a66"),
)
WIDTH, LEFT, LINE, GAP, TOP, EACH = 820, 250, 13, 14, 76, 3  # EACH: names of arms a line


def chart(content: Mapping[str, Any]) -> str:
    """An SVG: the worst-served group's gain over GRPO with G = 8, at equal completions, with 95 % intervals."""
    found = by_setting([row for row in content["rows"] if row["metric"] == "worst_gain"])
    settings = sorted(found, key=lambda name: ": " in name)  # the bandits' first
    height = TOP + len(settings) * (LINE * len(SHOWN) + GAP) + 10
    rows = [found[name][arm]["worst_gain"] for name in settings for arm, _ in SHOWN if arm in found[name]]
    span = _span([100 * row[end] for row in rows for end in ("lo", "hi")])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="10" y="18" font-size="14">Worst-served group: points gained over GRPO with 8 a prompt, '
        "equal completions</text>",
    ]
    for at, (arm, colour) in enumerate(SHOWN):
        x, y = 14 + (at % EACH) * 250, 36 + at // EACH * 17
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 9}" y="{y}">{html_text(title(arm))}</text>')
    for tick in range(span[0], span[1] + 1, 10):
        colour, x = "#444" if tick == 0 else "#ddd", _x(tick, span)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP - 4}" y2="{height - 8}" stroke="{colour}"/>')
        parts.append(f'<text x="{x}" y="{TOP - 7}" text-anchor="middle" fill="#666">{signed(tick, 0)}</text>')
    for at, setting in enumerate(settings):
        top = TOP + at * (LINE * len(SHOWN) + GAP) + LINE
        parts.append(f'<text x="10" y="{top + 2 * LINE}">{html_text(setting)}</text>')
        for line, (arm, colour) in enumerate(SHOWN):
            if arm in found[setting]:
                parts += _mark(found[setting][arm]["worst_gain"], top + line * LINE, colour, span)
    return "\n".join([*parts, "</svg>", ""])


def _span(points: list[float]) -> tuple[int, int]:
    """Whole tens around all of them, and around -20 and 20."""
    return int(floor(min(-20.0, *points) / 10) * 10), int(ceil(max(20.0, *points) / 10) * 10)


def _x(points: float, span: tuple[int, int]) -> float:
    return round(LEFT + (points - span[0]) / (span[1] - span[0]) * (WIDTH - LEFT - 20), 1)


def _mark(row: Mapping[str, Any], y: float, colour: str, span: tuple[int, int]) -> list[str]:
    low, value, high = (_x(100 * row[name], span) for name in ("lo", "value", "hi"))
    return [
        f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{value}" cy="{y}" r="4" fill="{colour}"/>',
    ]
