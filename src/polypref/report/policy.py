"""``policy.json`` as tables: what history and group weights do for each group, and what every arm gains, by setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from polypref.wording import MISSING, estimate, markdown_line, markdown_text, number, points

Row = Mapping[str, Any]
Arm = tuple[Any, ...]  # method, completions per prompt, group weight

COLUMNS = ("worst_gain", "macro_gain", "users_gain", "final_worst_gain")
HEAD = ("method", "G", "weight", "groups", "rate", "worst group", "groups' mean", "users' mean", "worst, at the end")
LEVERS: tuple[Arm, ...] = (
    ("GRPO", 8, 0.0),
    ("GRPO", 8, 0.5),
    ("GRPO", 8, 1.0),
    ("Dr. GRPO", 2, 0.0),
    ("P-GRPO shrunken", 2, 0.0),
    ("P-GRPO shrunken", 2, 0.5),
    ("P-GRPO shrunken", 2, 1.0),
)
MANY = 6  # groups; of more, the lowest, the median and the highest are shown
METRICS = {"worst": "worst group", "macro": "groups' mean", "users": "users' mean"}


def markdown(content: Mapping[str, Any]) -> str:
    """Both levers, each group's end, regrets, rivals, and a table per setting, the best for the worst group first."""
    settings = content["settings"]
    longer = "".join(f" ({name}: {times} times as many)" for name, times in settings["longer"].items())
    runs = [
        f"{learner}: {min(settings['seeds'], plan['most'] or settings['seeds'])} paired seeds, {plan['steps']} steps"
        f"{longer if learner == 'bandit' else ''} of {settings['completions'][learner]} completions"
        for learner, plan in settings["plans"].items()
    ]
    parts = [
        "# Advantages where the truth is known",
        "",
        f"{'; '.join(runs)}. Figures are points of normalised reward (0 uniform choice, 100 the best), area under the "
        "curve unless stated otherwise. Every setting has its own seeds; learning rates are each arm's best on other "
        "seeds.",
        *_levers(content),
        *_ends(content),
        *_rivals(content),
        *_regrets(content),
        *_settings(content),
    ]
    return "\n".join(parts) + "\n"


def named(row: Row) -> str:
    """A setting's name: the bandits' alone, the language model's with it."""
    return row["setting"] if row["learner"] == "bandit" else f"{row['learner']}: {row['setting']}"


def arm_of(row: Row) -> Arm:
    """Method, completions per prompt and group weight of a row."""
    return row["method"], row["generations"], row["group_weight"]


def title(arm: Arm) -> str:
    """An arm in a line."""
    method, generations, weight = arm
    return f"{method}, {generations}" + (f", weight {weight:g}" if weight else "")


def by_setting(rows: Iterable[Row], groups: str = "true") -> dict[str, dict[Arm, dict[str, Row]]]:
    """Rows by setting, arm and metric, of arms with these group labels."""
    found: dict[str, dict[Arm, dict[str, Row]]] = {}
    for row in rows:
        if row["groups"] == groups:
            found.setdefault(named(row), {}).setdefault(arm_of(row), {})[row["metric"]] = row
    return found


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    columns = list(head)
    return ["", markdown_line(columns), "|" + "---|" * len(columns), *map(markdown_line, lines), ""]


def _shown(arms: Iterable[Arm]) -> list[Arm]:
    """The levers that were run in any setting."""
    run = set(arms)
    return [arm for arm in LEVERS if arm in run]


def _levers(content: Mapping[str, Any]) -> list[str]:
    """History and weights, apart and together."""
    found = by_setting(content["rows"])
    arms = _shown(arm for of in found.values() for arm in of)
    lines = []
    for setting, of in found.items():
        cells = (
            "/".join(number(100 * of[arm][name]["value"], 0) for name in METRICS) if arm in of else MISSING
            for arm in arms
        )
        lines.append([markdown_text(setting), *cells])
    return [
        "",
        "## Two levers",
        "",
        "The control for history is Dr. GRPO, which has none, with as many completions; the control for group weights "
        "is the same method without them. Worst group / mean over groups / mean over users.",
        *_table(["setting", *map(title, arms)], lines),
        "The gain of each lever for the worst group, seed by seed: history against Dr. GRPO with as many completions "
        "and the same weight; a weight against the same method without.",
        *_lever_gains(content),
        "With group labels that carry no information, the worst group's gain over the same method with weight 0 and "
        "true groups:",
        *_controls(content, found),
    ]


def _lever_gains(content: Mapping[str, Any]) -> list[str]:
    """Each lever against its control."""
    found: dict[str, dict[str, Row]] = {}
    for row in content["levers"]:
        if row["metric"] == "worst":
            weight = f"weight {row['group_weight']:g}"
            column = f"history, {weight}" if row["lever"] == "history" else f"{weight}: {row['control']}"
            found.setdefault(named(row), {})[column] = row
    columns = list(dict.fromkeys(column for of in found.values() for column in of))
    lines = [
        [markdown_text(setting), *(_sure(of[one]) if one in of else MISSING for one in columns)]
        for setting, of in found.items()
    ]
    return _table(["setting", *columns], lines)


def _controls(content: Mapping[str, Any], true: Mapping[str, Mapping[Arm, Mapping[str, Row]]]) -> list[str]:
    lines = []
    for labels in ("shuffled", "random"):
        for setting, of in by_setting(content["rows"], labels).items():
            for arm, row in of.items():
                least = true[setting].get((*arm[:2], 0.0))
                if least is not None:
                    gain = row["worst"]["value"] - least["worst"]["value"]
                    lines.append([markdown_text(setting), title(arm), labels, points(gain)])
    return _table(["setting", "arm", "groups", "worst group"], lines) if lines else ["", "None was run.", ""]


def _ends(content: Mapping[str, Any]) -> list[str]:
    """Final value of every group: the cost of the minorities' gains for the majority."""
    ends = {(named(row), arm_of(row)): row["ends"] for row in content["ends"] if row["groups"] == "true"}
    arms = _shown(arm for _, arm in ends)
    lines = []
    for setting in dict.fromkeys(name for name, _ in ends):
        shares = content["settings"]["shares"][setting.rpartition(": ")[2]]
        sizes = "/".join(f"{100 * one:g}" for one in shares) if len(shares) <= MANY else f"{len(shares)} groups"
        cells = [_end(ends[setting, arm]) if (setting, arm) in ends else MISSING for arm in arms]
        lines.append([markdown_text(setting), sizes, *cells])
    return [
        "## Final value of each group",
        "",
        "In the order of the groups' shares (percent); of many groups the lowest, the median and the highest.",
        *_table(["setting", "shares", *map(title, arms)], lines),
    ]


def _end(value_G: list[float]) -> str:
    shown = value_G if len(value_G) <= MANY else [min(value_G), float(np.median(value_G)), max(value_G)]
    return "/".join(number(100 * one, 0) for one in shown)


def _rivals(content: Mapping[str, Any]) -> list[str]:
    """Against every other method at its best number of completions and the same weight: the nearest one."""
    nearest: dict[tuple[str, str, float], Row] = {}
    for row in content["rivals"]:
        key = named(row), row["metric"], row["group_weight"]
        if key not in nearest or row["value"] < nearest[key]["value"]:
            nearest[key] = row
    weights = sorted({weight for *_, weight in nearest})
    parts = [
        "## Against every other method with the same weight",
        "",
        "What `shrunken` with two completions gains over the best other method at that method's best number of "
        "completions. That number is chosen on the same seeds, which favours the other method.",
    ]
    for metric, name in METRICS.items():
        lines = []
        for setting in dict.fromkeys(name for name, *_ in nearest):
            rows = [nearest.get((setting, metric, weight)) for weight in weights]
            cells = [MISSING if row is None else f"{_sure(row)} {row['method']}, {row['generations']}" for row in rows]
            lines.append([markdown_text(setting), *cells])
        parts += [
            "",
            f"**{name[0].upper() + name[1:]}**",
            *_table(["setting", *(f"weight {w:g}" for w in weights)], lines),
        ]
    return parts


def _regrets(content: Mapping[str, Any]) -> list[str]:
    """For each method and weight, the number of completions with the least largest regret; then chosen per setting."""
    rows = [row for row in content["regrets"] if row["metric"] == "worst"]
    others = {(arm_of(row), row["metric"]): row["most"] for row in content["regrets"]}
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = row["method"], row["group_weight"]
        if key not in best or row["most"] < best[key]["most"]:
            best[key] = row
    settings = list(rows[0]["settings"]) if rows else []
    lines = []
    for row in sorted(best.values(), key=lambda row: row["most"]):
        fixed = row["generations"] is not None
        arm = title(arm_of(row)) if fixed else f"{row['method']}, chosen for each setting"
        cells = [number(100 * row["settings"][setting], 1) for setting in settings]
        most = [
            f"**{number(100 * row['most'], 1)}**",
            *(number(100 * others[arm_of(row), m], 1) for m in METRICS if m != "worst"),
        ]
        lines.append([arm, *cells, *most])
    return [
        "## Regret",
        "",
        "How far the worst group is below its value under the best arm of that setting. For each method and "
        "weight, the number of completions with the least largest regret; and for each method, with completions and "
        "weight chosen for each setting. Last, the largest regret: of the worst group, groups' mean and users' mean.",
        *_table(["arm", *map(markdown_text, settings), "most", "groups' mean", "users' mean"], lines),
    ]


def _settings(content: Mapping[str, Any]) -> list[str]:
    parts = [
        "## Every arm",
        "",
        "Gains over GRPO with G = 8 and weight 0, with 95 % intervals over seeds; bold: the interval excludes zero. "
        "completions: share of the run after which the worst group reaches its final value under GRPO.",
    ]
    rows_of: dict[str, list[Row]] = {}
    for row in content["rows"]:
        rows_of.setdefault(named(row), []).append(row)
    for setting, rows in rows_of.items():
        parts += ["", f"### {markdown_text(setting)}", *_table([*HEAD, "completions"], _lines(rows))]
    return parts


def _lines(rows: list[Row]) -> list[list[str]]:
    arms: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        arms.setdefault((*arm_of(row), row["groups"], row["rate"]), {})[row["metric"]] = row
    ordered = sorted(arms.items(), key=lambda item: -item[1]["worst"]["value"])
    return [[*(markdown_text(_cell(one)) for one in arm), *_cells(figures)] for arm, figures in ordered]


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cells(figures: Mapping[str, Row]) -> list[str]:
    share = figures["completions"]["value"]
    return [*(_sure(figures[name]) for name in COLUMNS), "never" if share is None else number(share, 2)]


def _sure(row: Row) -> str:
    """A difference with its interval, in bold where that excludes zero."""
    if row["lo"] == row["hi"] == 0:
        return MISSING
    text = estimate(row, points)
    return f"**{text}**" if row["lo"] > 0 or row["hi"] < 0 else text
