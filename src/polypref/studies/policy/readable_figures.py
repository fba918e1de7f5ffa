"""Figures of the runs of ``readable``: what each arm gained for each group, by the reward and by the judge.

A gain is the mean over a group's answers to the held-out prompts, after less before training with the same random
numbers, in spreads of the group's answers before training. ``worst`` is the smaller of the two groups' gains,
``users`` their mean by the groups' shares. ``judge`` is the same by a judge that no policy was trained on
(``style_judge``). Intervals are 95 % t intervals over seeds; differences are seed by seed.

Suffixes here: ``_T`` quarters of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from polypref.policy.history import Floats
from polypref.stats.cluster_robust import mean_with_half
from polypref.studies.policy.readable import repeated
from polypref.studies.policy.style_judge import StyleJudge
from polypref.studies.policy.styles import SHARES, TASKS

SCHEMA = 1
QUARTERS = 4
EXAMPLES = 10  # held-out questions whose first answers are kept
ARM = ("task", "method", "generations", "prompts", "group_weight", "labels", "rate", "steps")


def measured(found: Mapping[str, Any], judged: Mapping[str, float]) -> dict[str, Any]:
    """One run in numbers: its gains, and quarter by quarter of the run what its own samples got.

    ``judged``  the judge's value of each answer, positive for the first group's style.
    """
    group_Q = np.array(found["group"])
    before_Q, after_Q = np.array(found["reward_before"]), np.array(found["reward_after"])
    liked_G = np.array([1.0, 1.0 if len(set(TASKS[found["run"]["task"]].styles)) == 1 else -1.0])
    judge_before_Q, judge_after_Q = (
        np.array([judged[text] for text in found[when]]) * liked_G[group_Q] for when in ("before", "after")
    )
    steps = found["steps"]
    parts = [part for part in np.array_split(np.arange(len(steps)), QUARTERS) if len(part)]
    reward_TG = [[_mean([steps[at]["reward"][g] for at in part]) for g in (0, 1)] for part in parts]
    start_G, spread_G = _by(before_Q, group_Q), _spread(before_Q, group_Q)
    judge_G = _by(judge_after_Q, group_Q) - _by(judge_before_Q, group_Q)
    return {
        "seed": found["run"]["seed"],
        "gain": ((_by(after_Q, group_Q) - start_G) / spread_G).tolist(),
        "judge": (judge_G / _spread(judge_before_Q, group_Q)).tolist(),
        "curve": ((np.array(reward_TG) - start_G) / spread_G).tolist(),
        "kl": float(np.mean([step["kl"] for step in steps[parts[-1][0] :]])),
        "different": [repeated(found["before"])[0], repeated(found["after"])[0]],
        "collapsed": found["collapsed"],
        "steps": len(steps),
    }


def _mean(values: Iterable[float | None]) -> float:
    told = [value for value in values if value is not None]
    return float(np.mean(told)) if told else float("nan")


def _by(value_B: Floats, group_B: Any) -> Floats:
    return np.array([value_B[group_B == g].mean() if (group_B == g).any() else np.nan for g in (0, 1)])


def _spread(value_B: Floats, group_B: Any) -> Floats:
    return np.array([value_B[group_B == g].std(ddof=1) for g in (0, 1)])


def arms(runs: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Every arm with its runs in numbers, and how often each task's judge is right on its own contrast texts."""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        by_task.setdefault(run["run"]["task"], []).append(run)
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    right = {}
    for task, ran in by_task.items():
        styles = TASKS[task].styles
        judge = StyleJudge.of(styles if styles[0] != styles[1] else TASKS["lines"].styles)
        texts = sorted({text for run in ran for when in ("before", "after") for text in run[when]})
        judged = dict(zip(texts, judge.values(texts).tolist(), strict=True))
        right[task] = judge.accuracy
        for run in ran:
            found.setdefault(tuple(run["run"][name] for name in ARM), []).append(measured(run, judged))
    return [dict(zip(ARM, arm, strict=True)) | {"runs": ran} for arm, ran in found.items()], right


def examples(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first answer to every held-out question, before and after."""
    task, seen, kept = TASKS[run["run"]["task"]], set(), []
    for topic, group, before, after in zip(run["topic"], run["group"], run["before"], run["after"], strict=True):
        if (topic, group) not in seen and len(seen) < 2 * EXAMPLES:
            seen.add((topic, group))
            asked = task.question(task.held_out[topic], group)
            kept.append(
                {"group": group, "topic": task.held_out[topic], "asked": asked, "before": before, "after": after}
            )
    return kept


def values(arm: Mapping[str, Any], what: str) -> dict[int, float]:
    """A figure of an arm by seed."""
    took = {
        "worst": lambda run: min(run["gain"]),
        "users": lambda run: float(np.dot(SHARES, run["gain"])),
        "majority": lambda run: run["gain"][0],
        "minority": lambda run: run["gain"][1],
        "worst, judge": lambda run: min(run["judge"]),
        "majority, judge": lambda run: run["judge"][0],
        "minority, judge": lambda run: run["judge"][1],
        "kl": lambda run: run["kl"],
        "different": lambda run: run["different"][1],
    }[what]
    return {run["seed"]: took(run) for run in arm["runs"]}


def interval(value_S: Iterable[float]) -> dict[str, float]:
    """Mean with a 95 % t interval over seeds; of one seed, the value alone."""
    list_S = list(value_S)
    if len(list_S) < 2:
        return {"value": list_S[0], "lo": float("nan"), "hi": float("nan")} if list_S else {}
    mean, half = mean_with_half(np.array(list_S))
    return {"value": mean, "lo": mean - half, "hi": mean + half}


def difference(one: Mapping[str, Any], other: Mapping[str, Any], what: str) -> dict[str, float]:
    """Of two arms, over the seeds that both have."""
    mine, theirs = values(one, what), values(other, what)
    return interval(mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys()))


def completions(arm: Mapping[str, Any]) -> int:
    """That an arm samples in a run."""
    return arm["generations"] * arm["prompts"] * arm["steps"]


FIGURES = ("worst", "users", "majority", "minority", "kl", "different")
JUDGED = ("worst, judge", "majority, judge", "minority, judge")
REFERENCE = ("GRPO", 0.0, "true")


def rows(measured_arms: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task and arm: its figures, what it gains over GRPO, and the share of GRPO's completions it has."""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for arm in measured_arms:
        by_task.setdefault(arm["task"], []).append(arm)
    found = []
    for group in by_task.values():
        against = next((arm for arm in group if _named(arm) == REFERENCE), None)
        for arm in group:
            row: dict[str, Any] = {name: arm[name] for name in ARM}
            row |= {what: interval(values(arm, what).values()) for what in (*FIGURES, *JUDGED)}
            if against is not None and against is not arm:
                for what in ("worst", "users", "majority", "minority", "worst, judge"):
                    row[f"{what}, over GRPO"] = difference(arm, against, what)
            row["seeds"] = sorted(values(arm, "worst"))
            row["collapsed"] = [run["seed"] for run in arm["runs"] if run["collapsed"]]
            row["completions"] = None if against is None else completions(arm) / completions(against)
            row["curve"] = _mean_curve(arm)
            found.append(row)
    return found


def _named(arm: Mapping[str, Any]) -> tuple[Any, ...]:
    return arm["method"], arm["group_weight"], arm["labels"]


def _mean_curve(arm: Mapping[str, Any]) -> list[list[float]]:
    """Quarter by quarter and for each group, the mean over the runs that got so far."""
    whole = [np.array(run["curve"], float) for run in arm["runs"] if len(run["curve"]) == QUARTERS]
    return np.nanmean(whole, axis=0).tolist() if whole else []
