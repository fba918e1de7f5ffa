"""``smollm2.json``: tables in Markdown, and a page on which one question's answers are read before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from polypref.report.page import TEMPLATES, environment
from polypref.wording import MISSING, counted, estimate, listed, markdown_line, markdown_text, number, share, signed

Row = Mapping[str, Any]
COLUMNS = {
    "worst": "worst group",
    "worst, over GRPO": "worst group, over GRPO",
    "majority": "first group (80 %)",
    "minority": "second group (20 %)",
    "users, over GRPO": "users' mean, over GRPO",
    "worst, judge": "worst group, by the judge",
    "majority, judge": "first, by the judge",
    "minority, judge": "second, by the judge",
}
HEAD = ("arm", "completions", "seeds", *COLUMNS.values(), "KL a token", "different words")
UNITS = (
    "Gains on held-out topics, after less before training with the same random numbers, in spreads of each group's "
    "answers before training; 95 % t intervals over seeds, differences seed by seed."
)


def title(row: Row) -> str:
    """An arm in a line."""
    rest = f", weight {row['group_weight']:g}" if row["group_weight"] else ""
    shuffled = "" if row["labels"] == "true" else ", shuffled groups"
    return f"{row['method']}, {row['generations']}{rest}{shuffled}, rate {row['rate']:g}"


def cells(row: Row) -> list[str]:
    """An arm's row of the table."""
    figures = [_gain(row.get(what)) for what in COLUMNS]
    share_of = MISSING if row["completions"] is None else share(row["completions"])
    ends = (number(row["kl"]["value"], 2), share(row["different"]["value"]))
    return [title(row), share_of, number(len(row["seeds"]), 0), *figures, *ends]


def _gain(figure: Row | None) -> str:
    return estimate(figure, partial(signed, digits=2)) if figure else MISSING


def tables(content: Row) -> list[dict[str, Any]]:
    """For each task: its name, what was asked and rewarded, and its arms, the worst group's best first."""
    found = []
    for name, task in content["tasks"].items():
        rows = [row for row in content["rows"] if row["task"] == name]
        rows.sort(key=lambda row: -row["worst"]["value"])
        asked = " / ".join(task["template"].format(topic="TOPIC", cue=cue) for cue in task["cues"])
        right = share(content["judge_accuracy"][name])
        found.append({"name": name, "asked": asked, "styles": listed(task["styles"]), "right": right, "rows": rows})
    return found


def collapses(content: Row) -> str:
    """Which runs stopped on one repeated word."""
    stopped = [
        f"{title(row)} on {row['task']} (seeds {listed(list(map(str, row['collapsed'])))})"
        for row in content["rows"]
        if row["collapsed"]
    ]
    return (
        f"Collapsed into one repeated word and stopped: {listed(stopped)}."
        if stopped
        else "No run collapsed into one repeated word."
    )


def markdown(content: Row) -> str:
    """All tables."""
    parts = ["# Groups that read differently: SmolLM2-135M-Instruct", "", UNITS, "", collapses(content)]
    for table in tables(content):
        parts += [
            "",
            f"## {table['name']}",
            "",
            f"Asked: {markdown_text(table['asked'])} Rewarded: {table['styles']}.",
            "",
        ]
        parts += _table(HEAD, map(cells, table["rows"]))
    return "\n".join(parts) + "\n"


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    columns = list(head)
    return [
        markdown_line(columns),
        markdown_line(["---"] * len(columns)),
        *(markdown_line(map(markdown_text, line)) for line in lines),
    ]


def read(content: Row, arm: str = "P-GRPO") -> list[str]:
    """The kept answers of an arm, question by question, for a terminal."""
    lines = []
    for one in content["examples"].get(arm, ()):
        lines += [one["asked"], f"  before: {_line(one['before'])}", f"  after:  {_line(one['after'])}"]
    return lines


def _line(text: str) -> str:
    return " ".join(text.split())


def answers(content: Row) -> list[dict[str, Any]]:
    """For each held-out question: the answer before training, and after it by each arm that is kept."""
    by_arm = content["examples"]
    first, *others = by_arm.values() if by_arm else [[]]
    rest = [{(one["asked"]): one["after"] for one in kept} for kept in others]
    return [
        {
            "asked": one["asked"],
            "before": one["before"],
            "after": [one["after"], *(kept.get(one["asked"], "") for kept in rest)],
        }
        for one in first
    ]


def page(shown: Row, live: Row | None) -> str:
    """The page as HTML: the study's tables and answers, and what was trained just now."""
    return (
        environment()
        .get_template("readable.html.j2")
        .render(
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            units=UNITS,
            collapses=collapses(shown),
            head=HEAD,
            tables=[table | {"cells": [cells(row) for row in table["rows"]]} for table in tables(shown)],
            arms=list(shown["examples"]),
            answers=answers(shown),
            live=None if live is None else {"answers": answers(live), "cells": [cells(row) for row in live["rows"]]},
            settings=shown["settings"] | shown["rates"] | shown["versions"],
            hours=number(shown["cpu_seconds"] / 3600, 1),
            runs=counted(sum(len(row["seeds"]) for row in shown["rows"]), "runs"),
        )
    )
