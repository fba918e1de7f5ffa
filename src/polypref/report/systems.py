"""The results of ``polypref leaderboard`` as one self-contained page without script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polypref.report.figures import Axis
from polypref.report.page import TEMPLATES, environment
from polypref.wording import counted, number, percent, share, signed

Row = Mapping[str, Any]
SHOWN = 50  # persons


def page(found: Row) -> str:
    """The page as HTML, from the content of leaderboard.json."""
    style_rank = {row["system"]: row for row in found["rows_style"] or ()}
    parts = [("Everybody", f"{counted(found['judgements'], 'judgements')}", found["rows"], style_rank)]
    parts += [
        (f"A part of its own: {number}", "never compared with the systems above", part["rows"], {})
        for number, part in enumerate(found["other_parts"], start=2)
    ]
    groups = [
        (name, f"{counted(one['people'], 'people')}, {counted(one['judgements'], 'judgements')}", one["rows"], {})
        for name, one in found["groups"].items()
    ]
    persons = sorted(found["persons"].get("rows", ()), key=lambda row: -row["other"])
    return (
        environment()
        .get_template("leaderboard.html.j2")
        .render(
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            data=found["data"],
            sentences=list(sentences(found)),
            tables=[_table(*one) for one in (*parts, *groups)],
            coefficients=[
                {
                    "name": row["name"],
                    "value": signed(row["value"]),
                    "ends": f"{signed(row['lo'])} to {signed(row['hi'])}",
                    "p": number(row["p"], 2),
                }
                for row in found["coefficients"]
            ],
            persons=[
                (row["user"], number(row["judgements"]), row["best"], share(row["chance"]), share(row["other"]))
                for row in persons[:SHOWN]
            ],
            more=max(len(persons) - SHOWN, 0),
            command=found["reproduce"]["command"],
            hash=found["data"]["hash"],
            seed=found["settings"]["seed"],
            versions=found["versions"],
        )
    )


def _table(name: str, what: str, rows: Sequence[Row], style_rank: Mapping[str, Row]) -> dict[str, Any]:
    """One table; a row's line is its ranks, from best to worst."""
    axis = Axis(0.5, len(rows) + 0.5)
    lines = []
    for row in rows:
        at, lo, hi = axis.plane([row["rank"], row["best_rank"], row["worst_rank"]], 1000).tolist()
        styled = style_rank.get(row["system"])
        lines.append(
            {
                "system": row["system"],
                "rank": row["rank"],
                "value": signed(row["strength"], 2),
                "ends": f"{signed(row['lo'], 2)} to {signed(row['hi'], 2)}",
                "ranks": f"{row['best_rank']}–{row['worst_rank']}",
                "styled": "" if styled is None else f"{styled['rank']}",
                "styled_ends": "" if styled is None else f"{styled['best_rank']}–{styled['worst_rank']}",
                "judgements": number(row["judgements"]),
                "mark": {"kind": "unclear", "at": at, "lo": lo, "hi": hi, "bounded": True, "off": False},
            }
        )
    return {"name": name, "what": what, "lines": lines, "styled": bool(style_rank), "last": len(rows)}


def sentences(found: Row) -> Iterator[str]:
    """What was found, in words, with what it rests on."""
    rows = found["rows"]
    first = rows[0]
    tied = sum(row["best_rank"] == 1 for row in rows)
    people = counted(found["people"], "people")
    yield (
        f"{counted(found['judgements'], 'judgements')} ({found['ties']:,} ties) of "
        f"{counted(found['systems'], 'systems')} by {people}."
    )
    if tied > 1:
        yield f"Which system is best for everybody is not settled: {tied} may be, {first['system']} is ahead."
    else:
        yield f"{first['system']} is best for everybody, surely."
    if found["clusters"] == "judgements":
        yield f"{people} judged: intervals treat judgements as independent, and speak of these people only."
    if found["other_parts"]:
        yield (
            "Some systems were never compared with the others, not even through a third: "
            f"{len(found['other_parts']) + 1} separate tables. All else is about the first."
        )
    for name, many in found["too_few"].items():
        yield f"No table for group {name}: {counted(many, 'judgements')}."
    told = found["persons"]
    if told["why_not"]:
        yield f"Persons are not ranked: {told['why_not']}."
        return
    value = told["share"]
    ends = f"{percent(value['lo'], 0)} to {percent(value['hi'], 0)} %"
    whom = f"Of {counted(told['people'], 'people')}, another system than the population's winner is best for"
    if not told["differ"]["shown"]:
        yield f"{whom} {ends} (95 % interval). It is not shown that people differ, so it may be none of them."
    else:
        point = percent(value["value"], 0)
        yield f"{whom} {point} % (95 % interval {ends}); for which of them, only chances are known."
    placebo, raw = told["shuffled"], told["raw"]
    yield (
        f"With people shuffled over the judgements, so that nobody has a taste, the same figure is "
        f"{percent(placebo['lo'], 0)} to {percent(placebo['hi'], 0)} %."
    )
    yield (
        f"By raw wins alone, {percent(raw['observed'], 0)} % have another best; noise alone would give "
        f"{percent(raw['noise_alone'], 0)} %."
    )
