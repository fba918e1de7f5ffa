"""The section that profiles the data: first its sentences, then its figures under plain names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polypref import wording as words
from polypref.evaluation.results_schema import CompareContents

DIMENSIONS = {  # part of the profile -> question, key of its sentence, figures shown first
    "disagreement": (
        "Do people disagree?",
        "disagreement",
        ("contested", "highly contested", "at panel: 3: contested"),
    ),
    "consistency": ("Do people agree with themselves?", "consistency", ("retest", "judge reliability", "ceiling")),
    "minorities": ("Is anyone in the minority?", "minorities", ("n minority", "n testable", "mv acc")),
    "room": ("What could be gained at most?", "room", ("population", "ceiling", "range")),
    "social_choice": ("What does aggregation hide?", "aggregation", ("cyclic prompts", "borda pairs")),
    "groups": ("Are there groups?", "groups", ("groups", "worst decile regret")),
}
LABELS = {  # for keys that are unclear by themselves
    "contested": "contested (3 judges or more)",
    "highly contested": "highly contested (3 judges or more)",
    "divergence": "divergence (2 judges or more)",
    "high divergence": "high divergence (2 judges or more)",
    "at panel: 2: contested": "contested if 2 judged each pair",
    "at panel: 3: contested": "contested if 3 judged each pair",
    "at panel: 5: contested": "contested if 5 judged each pair",
    "at panel: 5: highly contested": "highly contested if 5 judged each",
    "mean panel": "judges per pair",
    "retest": "test-retest, a tie as an answer",
    "retest no ties": "test-retest, without ties",
    "retest alpha": "alpha of a judgement and its repeat",
    "judge reliability": "reliability of one judge",
    "panel alpha": "alpha of a panel",
    "n users": "users counted",
    "n testable": "users with enough shared pairs",
    "n minority": "minority users by all the data, 95 % sure",
    "at most by chance": "at most, by chance alone",
    "n below half": "users below one half, sure or not",
    "mv acc": "majority-vote accuracy of users",
    "agrees with others": "agrees with the others' majority",
    "mean over users": "the same, mean over users",
    "population": "best population accuracy",
    "ceiling": "consistency ceiling",
    "measured": "ceiling measured, not assumed",
    "range": "room",
    "at ceiling: 0.7": "room if the ceiling is 0.7",
    "at ceiling: 0.9": "room if the ceiling is 0.9",
    "at ceiling: 1.0": "room if the ceiling is 1",
    "cyclic prompts": "prompts with a Condorcet cycle",
    "borda pairs": "Borda against the majority",
    "borda winners": "Borda not the Condorcet winner",
    "spread": "spread of the fitted rewards",
    "axes": "axes along which users differ",
    "strongest axis": "share of the strongest axis",
    "groups": "groups beyond chance",
    "worst user regret": "regret of the worst user",
    "worst decile regret": "regret of the worst decile",
}
# With two or three judges one dissenter is already 30 %, so "highly contested" adds nothing to "contested" there.
TWO_OR_THREE = {"at panel: 2: highly contested", "at panel: 3: highly contested"}
HIDDEN = TWO_OR_THREE | {"panel size", "unit", "source", "derived", "why"}


def profile_section(contents: CompareContents) -> dict[str, Any] | None:
    """The profile's dimensions, each with a sentence and figures, and its line of Table 2; None without a profile."""
    profile = contents.profile
    if not profile:
        return None
    sentences = profile.get("sentences") or {}
    known = {key: value for key, value in DIMENSIONS.items() if isinstance(profile.get(key), Mapping)}
    others = [key for key, part in profile.items() if isinstance(part, Mapping) and key not in DIMENSIONS]
    questions = known | {
        key: (words.plain(key).capitalize(), key, ()) for key in others if key not in ("sizes", "sentences")
    }
    parts = []
    for key, (title, sentence, leading) in questions.items():
        lines = {name: measure(LABELS.get(name, name), value) for name, value in leaves(profile[key])}
        first = [lines.pop(name) for name in leading if name in lines]
        more = list(lines.values())
        parts.append(
            {
                "title": title,
                "sentence": sentences.get(sentence, ""),
                "first": first or more,
                "more": more if first else [],
            }
        )
    table = profile.get("table2")
    return {"parts": parts, "table": table if isinstance(table, str) else None}


def leaves(thing: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Named measures, ranges and plain values in ``thing``; nested names are joined by a colon, lists are left out."""
    for key, value in thing.items():
        name = f"{prefix}: {words.plain(str(key))}" if prefix else words.plain(str(key))
        if name in HIDDEN or (key.endswith("hi") and f"{key[:-2]}lo" in thing):
            continue
        if key.endswith("lo") and f"{key[:-2]}hi" in thing:
            name = words.plain(key[:-2]).strip() or "range"
            yield name, {"range": (value, thing[f"{key[:-2]}hi"])}
        elif isinstance(value, Mapping) and "value" not in value and {"lo", "hi"} <= set(value):
            yield name, {"range": (value["lo"], value["hi"]), "n": value.get("n", value.get("n_users"))}
        elif isinstance(value, Mapping) and "value" not in value:
            yield from leaves(value, name)
        elif isinstance(value, list | tuple):
            if len(value) == 2 and all(words.finite(end) is not None for end in value):
                yield name, {"range": tuple(value)}
        elif value is not None or not name.startswith("at ceiling"):  # None: the data already exceed this ceiling
            yield name, value


def measure(name: str, value: Any) -> dict[str, str]:
    """One line of the profile: name, value, interval, sample size; "unknown" if it could not be measured."""
    line = {"name": name, "value": "unknown", "interval": "", "chance": "", "note": ""}
    if isinstance(value, bool):
        return line | {"value": "yes" if value else "no"}
    if isinstance(value, str):
        return line | {"value": value}
    if not isinstance(value, Mapping):
        return line if words.finite(value) is None else line | {"value": words.number(value)}
    if "range" in value:
        lo, hi = value["range"]
        line["value"] = words.interval({"lo": lo, "hi": hi}) or "unknown"
    elif words.finite(value["value"]) is not None:
        line["value"] = words.number(float(value["value"]))
        line["interval"] = words.interval(value)
    if words.finite(value.get("null")) is not None:
        chance = words.interval({"lo": value.get("null_lo"), "hi": value.get("null_hi")})
        line["chance"] = f"by chance {chance or words.number(float(value['null']))}"
        line["note"] = f"p = {words.number(value.get('p'), 2)}"
    elif words.finite(value.get("n")):  # of nothing at all, "unknown" says it
        line["note"] = f"n = {words.number(value['n'])}"
    return line
