"""What the data are: the line under the title, what was dropped, how to reproduce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from polypref import wording as words

Results = Mapping[str, Any]

ACTIONS = {"dropped": "dropped", "kept": "kept", "counted": "said of all the data"}
COUNTS = (("n_users", "users"), ("n_comparisons", "judgements"), ("n_responses", "responses"), ("n_prompts", "prompts"))


def head(results: Results) -> dict[str, Any]:
    """File names and the few numbers that say what was measured on whom."""
    data, split = results.get("data") or {}, results.get("split") or {}
    return {
        "files": [PurePath(str(name)).name for name in data.get("files") or ()],
        "figures": [
            (words.number(data[key]), words.units(data[key], noun)) for key, noun in COUNTS if data.get(key) is not None
        ],
        "encoder": encoder_name(results.get("encoder")),
        "rule": split.get("rule"),
        "why": split.get("why"),
    }


def encoder_name(encoder: Any) -> str:
    """The encoder in one phrase, whether it was written as a name or with its identity."""
    return str(encoder.get("name") or "") if isinstance(encoder, Mapping) else str(encoder or "")


def findings_section(results: Results) -> dict[str, Any] | None:
    """What the linter found, what was dropped first, and who was left out; None when the data were not linted."""
    findings = results.get("findings")
    if findings is None:
        return None
    order = list(ACTIONS)
    rows = [
        {
            "name": words.plain(str(f.get("name", "?"))),
            "text": f.get("text") or "",
            "count": words.number(f.get("count")),
            "of": f"of {words.number(f['total'])} {words.units(f['total'], f.get('unit', ''))}"
            if f.get("total") is not None
            else "",
            "action": ACTIONS.get(str(f.get("action")), str(f.get("action"))),
            "example": f.get("example") or "",
        }
        for f in sorted(findings, key=lambda f: order.index(f["action"]) if f.get("action") in order else len(order))
        if f.get("count") != 0
    ]
    return {"rows": rows, "left_out": left_out(results.get("data") or {})}


def left_out(data: Mapping[str, Any]) -> str:
    """The users who were not compared because they judged too little, in a sentence; empty when there are none."""
    if not data.get("users_left_out"):
        return ""
    users = words.counted(data["users_left_out"], "users")
    judgements = words.counted(data.get("comparisons_left_out"), "judgements")
    return f"{users} with fewer than {data.get('min_judgements')} judgements were left out, {judgements} with them."


def flat(thing: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as name and text, nested names joined by a dot, lists by commas."""
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


def reproduce_section(results: Results) -> dict[str, Any]:
    """The command, and groups of name and text: data, split, settings, versions, machine, timing."""
    reproduce = results.get("reproduce") or {}
    command = reproduce.get("command") if isinstance(reproduce, Mapping) else str(reproduce)
    settings = dict(results.get("settings") or {})
    sources = {
        "Data": results.get("data"),
        "Encoder": results.get("encoder"),
        "Split": results.get("split"),
        "Settings": settings | {"learners": None},
        "Versions": results.get("versions"),
        "Machine": results.get("machine"),
        "Timing": results.get("timing"),
    }
    groups = [(title, list(flat(source))) for title, source in sources.items() if source]
    learners = settings.get("learners")
    chosen = {name: list(flat(each)) for name, each in learners.items()} if isinstance(learners, Mapping) else {}
    return {"command": command, "groups": [group for group in groups if group[1]], "learners": chosen}
