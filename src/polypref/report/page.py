"""Renders the page: collects the sections from the results and fills the template, style and script inlined."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from polypref import wording as words
from polypref.answers import Answer
from polypref.evaluation.results_schema import CompareContents
from polypref.report import leaderboard, learning_curves, metadata, people, profile

TEMPLATES = resources.files("polypref.report") / "templates"


@cache
def environment() -> jinja2.Environment:
    """The templates' environment: everything not marked safe is escaped, and an undefined name is an error."""
    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (TEMPLATES / name).read_text(encoding="utf-8")),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # ``tojson`` writes <, >, & and ' as \u escapes, so data cannot end the script element that holds it.
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    found.filters["number"] = words.number
    found.filters["unbroken"] = words.unbroken
    found.filters["coded"] = coded
    return found


def _visible(value: Any) -> Any:
    """Texts as they are shown; text marked safe is our own and stays."""
    return words.visible(value, keep="\n\t") if isinstance(value, str) and not hasattr(value, "__html__") else value


def coded(text: str) -> Markup:
    """A sentence as HTML: escaped, percent signs kept with their numbers, and what stands in backquotes as code."""
    parts = [words.html_text(words.unbroken(part)) for part in text.split("`")]
    if len(parts) % 2 == 0:  # a backquote of its own
        return Markup("`".join(parts))
    return Markup("".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts)))


def render(results: Mapping[str, Any], users: pl.DataFrame) -> str:
    """The whole page as HTML. A section that ``results`` lack is None, and the page says so in its place."""
    contents = CompareContents.of(results)
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    learners = leaderboard.learner_names(contents)
    # The content security policy names the one script by its hash: nothing else runs, whatever the data contain.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            style=style,
            script=script,
            script_hash=f"sha256-{digest}",
            head=metadata.head(contents),
            verdict=contents.verdict,
            answer=Answer.of(contents.answer),
            baseline=leaderboard.baseline_name(contents),
            leaderboard=leaderboard.leaderboard_section(contents, learners),
            people=people.people_section(contents, users, learners),
            sizes=learning_curves.sizes_section(contents, learners),
            placebo=learning_curves.placebo_section(contents, learners),
            profile=profile.profile_section(contents),
            findings=metadata.findings_section(contents),
            reproduce=metadata.reproduce_section(contents),
        )
    )
    return page.lstrip()
