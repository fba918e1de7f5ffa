"""Results of the arms of ``bench-policy``: figures with intervals, gains, rivals and regrets.

Rewards are scaled to 0 for uniform choice and 1 for the best. ``macro``, ``worst`` and ``users`` are areas under the
curve: of the mean over groups, of the group that is worst off at the time, and of the mean over users. ``final_macro``,
``final_worst`` and ``final_users`` are the values at the end. ``completions`` is the share of the run after which the
worst group reaches its final value under GRPO. A gain is the difference to GRPO with eight completions and no weights,
seed by seed. Intervals are 95 % t intervals over seeds.

``levers``   each of the two levers against its control, seed by seed: history against the same number of completions
without it, and a group weight against the same method without one.
``rivals``   for each group weight, P-GRPO's default against every other method at that method's best number of
completions, chosen on the same seeds (which favours the rival).
``regrets``  in each setting, the difference between the best choice and a fixed choice of method, completions and
weight; and for each method with completions and weight chosen per setting.

Suffixes here: ``_T`` steps at which a policy is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from polypref.policy.history import Floats
from polypref.stats.cluster_robust import mean_with_half
from polypref.studies.policy.arms import NO_HISTORY, OURS, REFERENCE, WEIGHTS
from polypref.studies.policy.measure import LAST, Arm

CURVES = ("worst", "macro", "users")
Measured = Mapping[Arm, Mapping[str, Any]]


def named(arm: Arm) -> dict[str, Any]:
    """The columns that identify an arm."""
    names = {"learner": arm.learner, "setting": arm.setting, "method": arm.method, "generations": arm.generations}
    return names | {"group_weight": arm.group_weight, "groups": arm.labels}


def rows(found: Measured) -> Iterator[dict[str, Any]]:
    """Each figure of each arm, and each one's gain over the reference in the same setting."""
    for arm, one in found.items():
        against = found[Arm(arm.setting, *REFERENCE, learner=arm.learner)]
        own, reference = figures(one), figures(against)
        base = {**named(arm), "rate": one["rate"], "seeds": len(own["macro"])}
        for name, value_S in own.items():
            yield {**base, "metric": name, **_interval(value_S)}
            yield {**base, "metric": f"{name}_gain", **_interval(value_S - reference[name])}
        yield {**base, "metric": "completions", "value": _completions(one, against)}


def ends(found: Measured) -> Iterator[dict[str, Any]]:
    """Final value of each group, mean over seeds, in the order of the setting's shares."""
    for arm, one in found.items():
        yield {**named(arm), "ends": np.array(one["end_SG"]).mean(axis=0).tolist()}


def figures(one: Mapping[str, Any]) -> dict[str, Floats]:
    """Figures of an arm for each seed."""
    curves_ST = {name: np.array(one[name]) for name in CURVES}
    areas = {name: curve_ST.mean(axis=1) for name, curve_ST in curves_ST.items()}
    return areas | {f"final_{name}": curve_ST[:, -LAST:].mean(axis=1) for name, curve_ST in curves_ST.items()}


def _completions(one: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
    """Share of the run until the mean of the worst groups reaches the reference's last; None: never."""
    goal = np.array(reference["worst"]).mean(axis=0)[-LAST:].mean()
    mean_T = np.array(one["worst"]).mean(axis=0)
    reached = np.flatnonzero(mean_T >= goal)
    return float((reached[0] + 1) / len(mean_T)) if len(reached) else None


def _interval(value_S: Floats) -> dict[str, float]:
    """Mean over seeds with a 95 % t interval."""
    mean, half = mean_with_half(value_S)
    return {"value": mean, "lo": mean - half, "hi": mean + half}


def levers(found: Measured) -> Iterator[dict[str, Any]]:
    """Gain of history at each group weight, and gain of each group weight with and without history."""
    figures_of = {arm: figures(one) for arm, one in found.items() if arm.labels == "true"}
    pairs = [("history", (*OURS, weight), (*NO_HISTORY, weight)) for weight in WEIGHTS]
    pairs += [
        ("group weight", (*who, weight), (*who, 0.0)) for who in (REFERENCE, OURS) for weight in WEIGHTS if weight
    ]
    for learner, setting in dict.fromkeys((arm.learner, arm.setting) for arm in figures_of):
        for lever, *both in pairs:
            one, control = (Arm(setting, *what, learner=learner) for what in both)  # pyright: ignore[reportArgumentType]
            if one in figures_of and control in figures_of:
                for metric in CURVES:
                    gain = _interval(figures_of[one][metric] - figures_of[control][metric])
                    yield {**named(one), "lever": lever, "control": f"{control.method}, {control.generations}"} | {
                        "metric": metric,
                        **gain,
                    }


def rivals(found: Measured) -> Iterator[dict[str, Any]]:
    """P-GRPO less each other method at its best number of completions and the same group weight."""
    figures_of = {arm: figures(one) for arm, one in found.items() if arm.labels == "true"}
    for weight in WEIGHTS:
        ours = [arm for arm in figures_of if (arm.method, arm.generations, arm.group_weight) == (*OURS, weight)]
        for mine in ours:
            others = [arm for arm in figures_of if replace(mine, method=arm.method, generations=arm.generations) == arm]
            for metric in CURVES:
                best: dict[str, Arm] = {}
                for arm in others:
                    had = best.setdefault(arm.method, arm)
                    if figures_of[arm][metric].mean() > figures_of[had][metric].mean():
                        best[arm.method] = arm
                for method, arm in best.items():
                    if method != mine.method:
                        lead = _interval(figures_of[mine][metric] - figures_of[arm][metric])
                        yield {**named(arm), "metric": metric, **lead}


def regrets(found: Measured) -> Iterator[dict[str, Any]]:
    """For each choice that was run in every setting of the bandits, its regret in each; ``generations`` and
    ``group_weight`` are None where they were chosen per setting."""
    figures_of = {arm: figures(one) for arm, one in found.items() if arm.labels == "true" and arm.learner == "bandit"}
    settings = list(dict.fromkeys(arm.setting for arm in figures_of))
    for metric in CURVES:
        mean = {arm: float(one[metric].mean()) for arm, one in figures_of.items()}
        best = {name: max(value for arm, value in mean.items() if arm.setting == name) for name in settings}
        choices: dict[tuple[Any, ...], dict[str, float]] = {}
        for arm, value in mean.items():
            short = best[arm.setting] - value
            choices.setdefault((arm.method, arm.generations, arm.group_weight), {})[arm.setting] = short
            anew = choices.setdefault((arm.method, None, None), {})
            anew[arm.setting] = min(short, anew.get(arm.setting, short))
        for (method, size, weight), short in choices.items():
            if len(short) == len(settings):
                what = {"method": method, "generations": size, "group_weight": weight, "metric": metric}
                yield {**what, "settings": short, "most": max(short.values())}
