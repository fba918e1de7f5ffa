"""The results of `polypref audit`: lines for a terminal, and one self-contained page without script."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import ceil, floor
from typing import Any

from polypref.answers import wrapped
from polypref.bounds.audit_setup import AuditSettings
from polypref.report.page import TEMPLATES, environment
from polypref.wording import interval, percent, share, visible

SUMMARISED = (
    "scripts",
    "recalibrations",
    "rewritten texts",
    "certificate",
    "benign judgements",
    "aggregated or personalized",
)
COLUMNS = {"off": "off", "on": "on", "again": "calibrated for this size"}


def summary(found: Mapping[str, Any]) -> str:
    """The control, then what an oracle and the worst trained user get, without and with bounds."""
    lines = [verdict(found), in_force(found)]
    for row in found["rows"]:
        if row["part"] in SUMMARISED:
            size = "" if row["size"] is None else f", best of {row['size']}"
            bounds = "" if row["bounds"] is None else f", bounds {row['bounds']}"
            lines.append(f"  {row['part']}: {visible(row['arm'])}{size}{bounds}: {row['metric']} {_text(row)}")
    return "\n".join([*lines, *wrapped(found["conclusion"]["text"])])


def verdict(found: Mapping[str, Any]) -> str:
    """Whether the audit could have failed: the control's result."""
    control = found["control"]
    if not control["holds"]:
        return (
            f"This audit proves nothing: without bounds, the worst adversary gets an unsafe response in "
            f"{share(control['reached'], 2)} of slates, less than the {share(control['needed'], 2)} that the "
            "control needs."
        )
    return (
        f"Without bounds, the worst adversary gets an unsafe response in {share(control['reached'], 2)} of slates "
        f"(the control needs {share(control['needed'], 2)} for this audit to prove anything)."
    )


def in_force(found: Mapping[str, Any]) -> str:
    """Whether the gate keeps its promised alpha on the slates of the file."""
    leaks = found["leaks"]
    reached = f"{_text({'metric': 'leaks', **leaks})} of {leaks['n']:,} slates"
    if not leaks["holds"]:
        held = "the gate FAILS: that is significantly more than"
    elif leaks["hi"] <= leaks["alpha"]:
        held = "that is significantly less than"
    else:
        held = "there are too few slates to be sure, but that does not contradict"
    return f"With bounds, an unsafe response passes in {reached}; {held} the promised {share(leaks['alpha'], 2)}."


def _text(row: Mapping[str, Any]) -> str:
    """A row's value in percent with its interval; caps and score changes as plain numbers."""
    if row["value"] is None:
        return "none"
    if row["metric"] == "cap" or row["metric"].startswith("largest"):
        return f"{row['value']:.4g}"
    ends = interval(row, partial(percent, digits=2))
    return share(row["value"], 2) + (f" ({ends})" if ends else "")


def page(found: Mapping[str, Any]) -> str:
    """The page as HTML: the guarantees, the attacks, their cost, and how to run the audit again."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        parts.setdefault(row["part"], []).append({**row, "text": _text(row)})
    metadata = {**found["inputs"], **found["data"], **found["settings"], **found["versions"]}
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            verdict=f"{verdict(found)} {in_force(found)}",
            holds=found["control"]["holds"],
            conclusion=found["conclusion"]["text"],
            policy_hash=found["policy_hash"],
            attacks=_attacks(found["rows"]),
            figure=_figure(found["rows"], found["settings"]["alpha"]),
            curve=[_at_cap(row) for row in found["curve"]],
            trade=_trade(found["curve"]),
            advice=_advice(found["curve"]),
            parts={name: rows for name, rows in parts.items() if name not in ("best of N", "taught")},
            taught=parts.get("taught", []),
            metadata=metadata,
            seconds=found["seconds"],
        )
    )


def _attacks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line per adversary and size: unsafe responses without and with bounds, and abstentions."""
    table: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if row["part"] == "best of N":
            line = table.setdefault((row["arm"], row["size"]), {"arm": row["arm"], "size": row["size"]})
            line[f"{row['metric']} {row['bounds']}"] = _text(row)
    return [
        {**line, **{key: line.get(f"unsafe returned {bounds}", "refused") for key, bounds in COLUMNS.items()}}
        for line in table.values()
    ]


WIDTH, HEIGHT, LEFT, BELOW, TOP = 900, 260, 60, 34, 12
LOWEST = 1e-4


def _figure(rows: list[dict[str, Any]], alpha: float) -> dict[str, Any]:
    """The oracle's share of unsafe answers against N, without bounds and with them, on a logarithmic axis."""
    from math import log10

    def up(share: float) -> float:
        at = (log10(max(share, LOWEST)) - log10(LOWEST)) / -log10(LOWEST)
        return TOP + (1 - at) * (HEIGHT - TOP - BELOW)

    drawn = [row for row in rows if row["part"] == "recalibrations" and row["metric"] == "unsafe returned"]
    sizes = sorted({row["size"] for row in drawn})
    across = {size: LEFT + (at + 0.5) * (WIDTH - LEFT) / max(len(sizes), 1) for at, size in enumerate(sizes)}
    points = [
        {
            "x": across[row["size"]],
            "y": up(row["value"]),
            "kind": row["bounds"],
            "text": f"{row['arm']}: {_text(row)}",
        }
        for row in drawn
    ]
    ticks = [{"y": up(level), "text": share(level, 2)} for level in (1, 0.1, 0.01, 0.001, 0.0001)]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "points": points,
        "ticks": ticks,
        "sizes": [{"x": x, "text": f"best of {size}"} for size, x in across.items()],
        "alpha": {"y": up(alpha), "text": share(alpha, 2)},
    }


def _at_cap(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table of caps."""
    line = {"arm": row["arm"], "cap": "none" if row["cap"] is None else f"{row['cap']:.3g}", "here": row["in_force"]}
    line["what"] = ", ".join(filter(None, [row["what"], "in force" if row["in_force"] else ""]))
    line |= {"certified": share(row["certified"], 1), "shared": share(row["shared"], 1)}
    for name in ("accuracy", "lost"):
        line[name] = _text({"metric": name, **row[name]}) if name in row else ""
    return line


def _advice(curve: list[dict[str, Any]]) -> str:
    """Advice on a cap: the cheapest that certifies enough of what the shared reward gets right."""
    rows = [row for row in curve if row["arm"] == curve[-1]["arm"] and "lost" in row and row["cap"] is not None]
    enough = [row for row in rows if row["certified"] >= AuditSettings.keep * row["shared"] > 0]
    if not enough:
        return ""
    best = min(enough, key=lambda row: (round(row["lost"]["value"], 6), row["cap"]))
    line = _at_cap(best)
    poor = " That is low: give the shared reward a safety term (safety_weight)." if best["shared"] < 0.7 else ""
    return (
        f"The cap {line['cap']} loses least ({line['lost']}) among the caps that certify "
        f"{share(AuditSettings.keep)} of what the shared reward gets right. It certifies "
        f"{line['certified']}.{poor}"
    )


def _trade(curve: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Plot of certified safety accuracy (y) against benign accuracy (x): a line per shared reward, a dot per cap."""
    if not curve or "accuracy" not in curve[0]:
        return None
    seen = [row["accuracy"]["value"] for row in curve]
    least, most = floor(20 * min(seen)) / 20, ceil(20 * max(seen)) / 20  # steps of five points
    least = min(least, most - 0.05)

    def across(share: float) -> float:
        return LEFT + (share - least) / (most - least) * (WIDTH - LEFT - 20)

    def up(share: float) -> float:
        return TOP + (1 - share) * (HEIGHT - TOP - BELOW)

    lines = []
    for arm in dict.fromkeys(row["arm"] for row in curve):
        dots = [
            {
                "x": across(row["accuracy"]["value"]),
                "y": up(row["certified"]),
                "here": row["in_force"],
                "text": f"{arm}, cap {one['cap']}: certified {one['certified']}, benign accuracy {one['accuracy']}",
            }
            for row in curve
            if row["arm"] == arm and (one := _at_cap(row))
        ]
        path = " ".join(f"{dot['x']:.1f},{dot['y']:.1f}" for dot in dots)
        lines.append({"arm": arm, "kind": "off" if arm == curve[0]["arm"] else "on", "dots": dots, "path": path})
    steps = range(round(20 * least), round(20 * most) + 1)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "lines": lines,
        "up": [{"y": up(level), "text": share(level)} for level in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "across": [{"x": across(step / 20), "text": share(step / 20)} for step in steps],
    }
