"""The results of `polypref align`: lines for a terminal, and one self-contained page without script."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from polypref.report.page import TEMPLATES, environment
from polypref.wording import MISSING, estimate, number, signed, visible

POINTS = 60  # of a curve; more points would only show noise
COLOURS = ("#0b5fa5", "#c2571a", "#3f8f3f", "#8a4fa8", "#8a8a8a", "#b0802a", "#2a9a9a", "#a83a5a")
TICKS = 8  # at most, on an axis
SIZES = [lead * 10.0**power for power in range(-4, 12) for lead in (1, 2, 5)]
WIDTH, HEIGHT, LEFT, BELOW, TOP = 900, 320, 46, 30, 10


def summary(found: Mapping[str, Any]) -> str:
    """A line per group: its gain by the scorer that training used, and by the judge that training never saw."""
    lines = notes(found)
    lines.append("gain per group, in spreads of the group's rewards before training (95 % interval over users):")
    for group, about in found["groups"].items():
        judge = f"; judge {_gain(about['judge'])}" if "judge" in about else ""
        lines.append(f"  {visible(group)} ({about['users']} users): {_gain(about['reward'])}{judge}")
    return "\n".join([*lines, *over_optimised(found)])


def notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader has to know before the gains: a collapse, plain text, a smaller batch."""
    lines = []
    if (step := found.get("collapsed")) is not None:
        lines.append(
            f"The policy collapsed at step {step}: completions repeat words or are all equal. Training was stopped; "
            "lower the learning rate, or raise beta, and do not use this model."
        )
    if found.get("chat") is False:
        lines.append("The model read plain text: it has no chat template, or was not to use it.")
    if many := found.get("halvings"):
        lines.append(
            f"Memory did not suffice: batches were cut into {2**many} parts, which leaves the update the same."
        )
    return lines


def over_optimised(found: Mapping[str, Any]) -> list[str]:
    """For each group, whether the judge confirms the climbed gain; intervals that do not meet say that it does not.

    A judge with errors of its own sees less of a true gain, too, so what it does not see bounds what was exploited.
    """
    lines = []
    for group, about in found["groups"].items():
        climbed, judge = about["reward"], about.get("judge")
        if judge is None or climbed["lo"] is None or judge["lo"] is None:
            continue
        who = f"{visible(group)}:"
        seen = f"the judge saw {signed(judge['gain'], 2)} of {signed(climbed['gain'], 2)} spreads"
        if climbed["lo"] <= 0:
            lines.append(f"{who} the climbed reward has no sure gain, so nothing can be said about over-optimisation.")
        elif judge["hi"] < climbed["lo"]:
            rest = "the rest is the scorer's errors, exploited, or the judge's own"
            lines.append(f"{who} over-optimised: {seen}; {rest}.")
        elif judge["lo"] <= 0:
            lines.append(f"{who} {seen}, a gain that is not sure: the climbed gain is not confirmed.")
        else:
            lines.append(f"{who} the judge's gain is sure, and not surely less than the climbed one.")
    return lines


def _gain(one: Mapping[str, Any]) -> str:
    if one["gain"] is None:
        return "unknown: all rewards before training were equal"
    return estimate(one, partial(signed, digits=2), "gain")


def page(found: Mapping[str, Any]) -> str:
    """The page as HTML: curves, gains, answers before and after training, and what is needed to run it again."""
    groups = [
        {
            "name": name,
            "colour": COLOURS[at % len(COLOURS)],
            "users": about["users"],
            "samples": about["samples"],
            "weight": MISSING if about["weight"] is None else number(about["weight"], 2),
            "reward": _gain(about["reward"]),
            "judge": _gain(about["judge"]) if "judge" in about else "",
        }
        for at, (name, about) in enumerate(found["groups"].items())
    ]
    return (
        environment()
        .get_template("align.html.j2")
        .render(
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            groups=groups,
            judged=any(one["judge"] for one in groups),
            notes=notes(found),
            over_optimised=over_optimised(found),
            figures=_figures(found, groups),
            questions=_questions(found["examples"], {one["name"]: one["colour"] for one in groups}),
            settings=found["settings"],
            again=_again(found),
            answer_tokens=found.get("answer_tokens"),
            held_out=len(found["held_out"]),
            steps=found["curve"][-1]["step"] if found["curve"] else 0,
        )
    )


def _again(found: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that makes the run, by name; what is empty is left out."""
    hashes = {f"hash of {name}": value for name, value in found["data"].items()}
    parts = {**found["settings"], **found["inputs"], **hashes, **found["versions"]}
    flat: dict[str, Any] = {}
    for name, value in parts.items():
        flat |= {f"{name}.{one}": each for one, each in value.items()} if isinstance(value, Mapping) else {name: value}
    return {name: value for name, value in flat.items() if value not in ("", [], None)}


def curves(found: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """For each group: step, and mean reward in spreads above the start, averaged over at most ``POINTS`` stretches."""
    steps = np.array([one["step"] for one in found["curve"]], float)
    parts = np.array_split(np.arange(len(steps)), min(POINTS, max(len(steps), 1)))
    drawn = {}
    for name, about in found["groups"].items():
        rewards = np.array(
            [one["reward"].get(name) for one in found["curve"]], float
        )  # None: no completion in that step
        rewards = (rewards - about["reward"]["mean"]) / (about["reward"]["spread"] or np.nan)
        points = [
            (float(steps[p].mean()), float(np.nanmean(rewards[p]))) for p in parts if np.isfinite(rewards[p]).any()
        ]
        drawn[name] = points
    return drawn


def _questions(examples: list[dict[str, str]], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each question with its answers for every group."""
    asked = dict.fromkeys(one["asked"] for one in examples)
    return [
        {
            "asked": text,
            "answers": [one | {"colour": colours[one["group"]]} for one in examples if one["asked"] == text],
        }
        for text in asked
    ]


def _figures(found: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """The plots: rewards of the groups, distinct words, and KL to the start where it was computed."""
    drawn = curves(found)
    lines = {"reward": [(one["colour"], drawn[one["name"]]) for one in groups]}
    for name in ("distinct_words", "kl"):
        points = [(float(one["step"]), one[name]) for one in found["curve"] if one.get(name) is not None]
        lines[name] = [("var(--ink)", points)] if points else []
    top = {"reward": 0.5, "distinct_words": 1.0, "kl": 0.01}
    return {name: _figure(these, top[name]) for name, these in lines.items()}


def _figure(curves: list[tuple[str, list[tuple[float, float]]]], least_top: float) -> dict[str, Any] | None:
    """Lines of a plot in its own coordinates, from 0 or below to ``least_top`` or above; None without a point."""
    values = [y for _, points in curves for _, y in points]
    if not values:
        return None
    low, high = min(0.0, *values), max(least_top, *values)
    last = max(x for _, points in curves for x, _ in points)

    def x_of(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 10) * step / last, 1)

    def y_of(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BELOW) * (high - value) / (high - low), 1)

    size = next(one for one in SIZES if (high - low) / one <= TICKS)
    ticks = np.arange(np.ceil(low / size), np.floor(high / size) + 1) * size
    lines = [
        {"colour": colour, "points": " ".join(f"{x_of(x)},{y_of(y)}" for x, y in points)} for colour, points in curves
    ]
    digits = max(0, -int(np.floor(np.log10(size))))
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "bottom": HEIGHT - BELOW,
        "lines": lines,
        "y_ticks": [
            {"at": y_of(float(tick)), "text": signed(tick, digits) if least_top == 0.5 else number(tick, digits)}
            for tick in ticks
        ],
        "x_ticks": [{"at": x_of(last * share), "text": f"{last * share:.0f}"} for share in (0, 0.25, 0.5, 0.75, 1)],
    }
