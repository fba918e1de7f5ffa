"""The results of ``polypref groups`` as one self-contained page without script: the groups, and what each likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polypref.answers import Answer
from polypref.report.figures import Axis, span
from polypref.report.page import TEMPLATES, environment
from polypref.wording import number, percent, points, signed

Row = Mapping[str, Any]

SHOWN = 10  # texts of a group


def page(found: Mapping[str, Any]) -> str:
    """The page as HTML, from the content of likes.json."""
    likes, users = found["likes"], max(found["data"]["users"], 1)
    rows = [*likes["traits"], *likes["texts"]]
    axis = span([row[end] for row in rows for end in ("lo", "hi")], include=(0.0,)) if rows else Axis(-1.0, 1.0)
    sizes = found["groups"]["sizes"]
    reward_of = {one["who"]: one["text"] for one in found.get("rewards", [])}
    return (
        environment()
        .get_template("groups.html.j2")
        .render(
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            data=found["data"],
            answer=Answer.of(found["answer"]),
            sizes=[{"name": name, "people": number(n), "share": percent(n / users)} for name, n in sizes.items()],
            tried=[_tried(row) for row in found["groups"]["tried"]],
            why_not=likes["why_not"],
            kept_out=likes["kept_out"],
            judgements=number(likes["judgements"]),
            looked_at=likes["looked_at"],
            panels=[
                _panel(name, likes, axis, sizes[name]) | {"reward": reward_of.get(name)} for name in likes["groups"]
            ]
            if rows
            else [],
            ticks=axis.ticks(signed=True, scale=100),
            zero=int(axis.plane([0.0], 1000)[0]),
            command=found["reproduce"]["command"],
            versions=found["versions"],
        )
    )


def _panel(name: str, likes: Mapping[str, Any], axis: Axis, people: int) -> dict[str, Any]:
    """One group: its traits, and the texts that it prefers most."""
    several = len({row["prompt"] for row in likes["texts"]}) > 1
    traits, texts = ([row for row in likes[kind] if row["group"] == name] for kind in ("traits", "texts"))
    return {
        "name": name,
        "people": number(people),
        "traits": [_line(row, axis) for row in traits],
        "texts": [_line(row, axis, several) for row in texts[:SHOWN]],
        "sure_texts": sum(row["sure"] for row in texts),
        "compared": likes["looked_at"]["texts"],
    }


def _line(row: Row, axis: Axis, prompt: bool = False) -> dict[str, Any]:
    """What a line shows, and where its dot and whisker are drawn; ``prompt``: the question too."""
    at, lo, hi = axis.plane([row["value"], row["lo"], row["hi"]], 1000).tolist()
    kind = "better" if row["sure"] else "unclear"
    return {
        "text": row["text"],
        "prompt": row["prompt"] if prompt else "",
        "sure": row["sure"],
        "own": percent(row["own"], 0),
        "others": percent(row["others"], 0),
        "value": points(row["value"]),
        "ends": f"{points(row['lo'])} to {points(row['hi'])}",
        "people": number(row["people"]),
        "mark": {"kind": kind, "at": at, "lo": lo, "hi": hi, "bounded": True, "off": False},
    }


def _tried(row: Row) -> Sequence[str]:
    """A number of groups, and how well it predicts."""
    return number(row["groups"]), number(row["log_likelihood"], 4), signed(row["gain"], 4), number(row["se"], 4)
