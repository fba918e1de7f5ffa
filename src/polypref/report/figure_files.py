"""The figures of a comparison's report as SVG files, each a picture by itself: colours, ticks and titles are in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from polypref import files
from polypref.evaluation.results_schema import CompareContents
from polypref.report.figures import HEIGHT, Figure
from polypref.report.leaderboard import learner_names
from polypref.report.learning_curves import sizes_section
from polypref.report.people import people_section
from polypref.wording import html_text

FOLDER = "figures"
OURS = re.compile(r"(?:gains|amounts|sizes)-[0-9]+-[A-Za-z0-9-]+\.svg")
WIDE, HIGH, LEFT, TOP, BELOW = 760, 420, 70, 62, 54
STYLE = """
text { font: 12px sans-serif; fill: #5c636d; } .title { font-size: 14px; fill: #1b1e23; }
path { fill: none; stroke-width: 1px; vector-effect: non-scaling-stroke; }
.grid { stroke: #e1e3e6; } .zero { stroke: #1b1e23; }
.dot { stroke-linecap: round; stroke-width: 6px; } .whisker { stroke-width: 1.5px; opacity: .45; }
.better { stroke: #0a5fae; } .worse { stroke: #b84a00; } .unclear, .untested, .user { stroke: #878e98; }
.user { opacity: .6; } .few { stroke: #b84a00; opacity: .9; }
.ring { stroke: #1b1e23; stroke-linecap: round; stroke-width: 12px; }
.ring-gap { stroke: #fff; stroke-linecap: round; stroke-width: 9px; }
.line { stroke: #0a5fae; stroke-width: 2.5px; } .floor { stroke: #1b1e23; stroke-width: 2px; stroke-dasharray: 5 4; }
.dense .dot { stroke-width: 3px; } .dense .whisker { stroke-width: .75px; opacity: .2; }
"""


def write_figures(out: Path, results: Mapping[str, Any], users: pl.DataFrame) -> list[Path]:
    """Write every figure of the report to ``out/figures`` and return their paths; arguments as in ``report.write``.

    Figures of an earlier report that this one does not have are removed: they would show learners that it does not.
    Raises CacheError if they cannot be written.
    """
    paths = []
    for name, title, figure in named_figures(results, users):
        files.write(path := out / FOLDER / f"{name}.svg", standalone(figure, title))
        paths.append(path)
    with files.writable(out / FOLDER):
        for old in (out / FOLDER).glob("*.svg"):
            if OURS.fullmatch(old.name) and old not in paths:
                old.unlink()
    return paths


def named_figures(results: Mapping[str, Any], users: pl.DataFrame) -> Iterator[tuple[str, str, Figure]]:
    """File name without ending, title and figure: gains and amounts of each learner, and accuracy over sizes."""
    contents = CompareContents.of(results)
    learners = learner_names(contents)
    people, sizes = people_section(contents, users, learners), sizes_section(contents, learners)
    titles = {"gains": "Gain of each user", "amounts": "Accuracy against the user's amount of data"}
    panels = people["panels"] if people else []
    number = {name: f"{at}-{_plain(name)}" for at, name in enumerate(learners, start=1)}
    for panel in panels:
        for kind, title in titles.items():
            if panel[kind] is not None:
                learner = panel["learner"]
                yield f"{kind}-{number.get(learner, _plain(learner))}", f"{title}: {learner}", panel[kind]
    for panel in sizes["panels"] if sizes else []:
        learner = panel["learner"]
        yield f"sizes-{number[learner]}", f"Accuracy against training judgements, %: {learner}", panel["figure"]


def _plain(learner: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", learner).strip("-")[:60] or "learner"


def standalone(figure: Figure, title: str) -> str:
    """A figure as an SVG document."""
    across, down = WIDE - LEFT - 20, HIGH - TOP - BELOW
    grid = "".join(f"M0 {HEIGHT - 10 * tick.at:g}H{figure.width}" for tick in figure.y_ticks)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" '
        f'role="img"><title>{html_text(figure.alt)}</title><style>{STYLE}</style>',
        f'<rect width="{WIDE}" height="{HIGH}" fill="#fff"/>',
        f'<text class="title" x="14" y="24">{html_text(title)}</text>',
        f'<text x="14" y="{TOP - 14}">{html_text(figure.y_title)}</text>',
        f'<svg x="{LEFT}" y="{TOP}" width="{across}" height="{down}" viewBox="0 0 {figure.width} {HEIGHT}" '
        f'preserveAspectRatio="none" overflow="visible" class="{"dense" if figure.dense else "plane"}">',
        f'<path class="grid" d="{grid}"/>' if grid else "",
    ]
    if figure.zero is not None:
        parts.append(f'<path class="zero" d="M0 {HEIGHT - 10 * figure.zero:g}H{figure.width}"/>')
    parts += [f'<path class="{layer.kind}" d="{layer.path}"/>' for layer in figure.layers]
    parts.append("</svg>")
    for tick in figure.y_ticks:
        y = TOP + down * (1 - tick.at / 100) + 4
        parts.append(f'<text x="{LEFT - 8}" y="{y:.1f}" text-anchor="end">{html_text(tick.text)}</text>')
    for tick in figure.x_ticks:
        x = LEFT + across * tick.at / 100
        parts.append(f'<text x="{x:.1f}" y="{HIGH - BELOW + 18}" text-anchor="middle">{html_text(tick.text)}</text>')
    middle = LEFT + across / 2
    parts.append(f'<text x="{middle:g}" y="{HIGH - 12}" text-anchor="middle">{html_text(figure.x_title)}</text>')
    return "\n".join([*filter(None, parts), "</svg>", ""])
