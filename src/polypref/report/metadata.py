"""The report's metadata: the line under the title, the linter's findings, how to reproduce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from polypref import wording as words
from polypref.evaluation.results_schema import Contents

ACTIONS = {"dropped": "dropped", "kept": "kept", "counted": "counted over all the data"}
FINDING = {"name": "?", "text": "", "count": None, "total": None, "unit": "", "action": "", "example": ""}
COUNTS = (("n_users", "users"), ("n_comparisons", "judgements"), ("n_responses", "responses"), ("n_prompts", "prompts"))


def head(contents: Contents) -> dict[str, Any]:
    """File names, and the few numbers that say what was measured and on how many users."""
    data = contents.data
    return {
        "files": [PurePath(str(name)).name for name in data["files"]],
        "figures": [
            (words.number(data[key]), words.units(data[key], noun)) for key, noun in COUNTS if data[key] is not None
        ],
        "encoder": contents.encoder["name"],
        "rule": contents.split["rule"],
        "why": contents.split["why"],
    }


def findings_section(contents: Contents) -> dict[str, Any] | None:
    """The linter's findings, dropped rows first, and the users left out; None if the data were not linted."""
    if contents.findings is None:
        return None
    findings, order = [{**FINDING, **finding} for finding in contents.findings], list(ACTIONS)
    rows = [
        {
            "name": words.plain(str(f["name"])),
            "text": f["text"],
            "count": words.number(f["count"]),
            "of": f"of {words.number(f['total'])} {words.units(f['total'], f['unit'])}"
            if f["total"] is not None
            else "",
            "action": ACTIONS.get(f["action"], f["action"]),
            "example": f["example"],
        }
        for f in sorted(findings, key=lambda f: order.index(f["action"]) if f["action"] in order else len(order))
        if f["count"] != 0
    ]
    return {"rows": rows, "left_out": left_out(contents.data)}


def left_out(data: Mapping[str, Any]) -> str:
    """A sentence on the users left out because they have too few judgements; empty if there are none."""
    if not data["users_left_out"]:
        return ""
    users = words.counted(data["users_left_out"], "users")
    judgements = words.counted(data["comparisons_left_out"], "judgements")
    return (
        f"{users} with fewer than {words.counted(data['min_judgements'], 'judgements')} were "
        f"left out, and {judgements} with them."
    )


def flat(thing: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as pairs of name and text; nested names are joined by a dot, lists by commas."""
    if isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(thing, Sequence) and not isinstance(thing, str):
        if thing:
            yield prefix, ", ".join(str(item) for item in thing)
    elif isinstance(thing, float):
        yield prefix, f"{thing:,.4g}"
    elif thing is not None:
        yield prefix, str(thing)


def reproduce_section(contents: Contents) -> dict[str, Any]:
    """The command, and groups of name and text: data, split, settings, versions, machine, timing."""
    learners = contents.settings["learners"]
    sources = {
        "Data": contents.data,
        "Encoder": contents.encoder,
        "Split": contents.split,
        "Settings": {**contents.settings, "learners": None},
        "Versions": contents.versions,
        "Machine": contents.machine,
        "Timing": contents.timing,
    }
    groups = [(title, list(flat(source))) for title, source in sources.items()]
    chosen = {name: list(flat(each)) for name, each in learners.items()}
    return {
        "command": contents.reproduce["command"],
        "groups": [group for group in groups if group[1]],
        "learners": chosen,
    }
