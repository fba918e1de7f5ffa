"""When does P-GRPO beat GRPO? Contextual bandits with exact expected rewards, many settings, methods and controls.

Every arm (a method at a number of completions per prompt) spends equal completions. Its learning rate is the best of
``RATES`` on seeds that are used for nothing else, by the sum of macro and worst-group area under the curve; then it
runs on the paired seeds. A gain is the difference to GRPO with eight completions, seed by seed, with a 95 % t interval.

Figures, of rewards that are 0 for uniform choice and 1 for the best: ``macro`` and ``worst``, area under the curve of
the mean over groups and of the group that is worst off at the time; ``final_macro`` and ``final_worst``, at the end;
``completions``, the share of the run until the worst group has what GRPO gives it in the end.

Controls: identical groups, and groups that differ in taste alone (what remains there is no matter of scales); groups
shuffled among prompts; groups drawn by lot for users. An arm is a unit of work: stored when it is done, found again by
a later run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from polypref import __version__
from polypref.artifact import write_json
from polypref.errors import ArtifactError
from polypref.evaluation.cells import code_hash
from polypref.evaluation.encoded import made
from polypref.policy import advantages, bandit, drift, history, methods
from polypref.policy.history import Floats, Ints

SCHEMA = 1
RATES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15)
TUNED_ON = range(10_000, 10_008)
QUICK_RATES = (0.04, 0.08)
REFERENCE = ("GRPO", 8, "true")
STEPS = 300


@dataclass(frozen=True, order=True)
class Arm:
    """A method in a setting, with so many completions per prompt, told of groups as ``labels`` says."""

    setting: str
    method: str
    generations: int
    labels: bandit.Labels = "true"

    def __str__(self) -> str:
        return f"{self.setting}: {self.method}, G={self.generations}, {self.labels} groups"


WITH_MANY = ("GRPO", "Dr. GRPO", "batch", "REINFORCE++", "MaxMin")
OURS = ("P-GRPO paper", "P-GRPO prompt", "P-GRPO shrunken", "P-GRPO half-life", "P-GRPO shrunken half-life")
CONTROLLED = ("5 groups", "minority scale 0.1")


def arms(quick: bool) -> list[Arm]:
    """Everything that is compared; ``quick``: two settings and a few methods, to see that it works."""
    if quick:
        chosen = [("GRPO", 8), ("P-GRPO paper", 2), ("P-GRPO shrunken", 2)]
        return [Arm(setting, *one) for setting in ("minority scale 0.1", "identical groups") for one in chosen]
    found = []
    for setting in bandit.SETTINGS:
        found += [Arm(setting, method, 8) for method in (*WITH_MANY, *OURS)]
        found += [Arm(setting, method, size) for size in (4, 2) for method in ("GRPO", "P-GRPO shrunken")]
        found += [Arm(setting, method, 2) for method in OURS if method != "P-GRPO shrunken"]
        found += [Arm(setting, method, 1) for method in ("REINFORCE++", "P-GRPO paper", "P-GRPO half-life")]
    for setting in CONTROLLED:
        for labels in ("shuffled", "random"):
            found += [Arm(setting, method, 2, labels) for method in ("P-GRPO paper", "P-GRPO shrunken")]
    return found


def curves(arm: Arm, rate: float, seeds: Ints, steps: int) -> Floats:
    """Normalised reward of each group over time, (S, T, P)."""
    world = bandit.World.draw(bandit.SETTINGS[arm.setting], seeds)
    run = bandit.Run(rate, arm.generations, steps=steps, labels=arm.labels)
    return bandit.train(world, seeds, methods.METHODS[arm.method](), run)


def measure(arm: Arm, rates: Sequence[float], seeds: int, steps: int) -> dict[str, Any]:
    """Choose the rate, then run the paired seeds: the curves of the groups' mean and of the worst, (S, T)."""

    def goodness(rate: float) -> float:
        curve = curves(arm, rate, np.array(TUNED_ON), steps)
        return float(curve.mean() + curve.min(axis=2).mean())

    tried = {rate: goodness(rate) for rate in rates}
    rate = max(tried, key=tried.__getitem__)
    curve = curves(arm, rate, np.arange(seeds), steps)
    return {
        "rate": rate,
        "tried": list(tried.values()),
        "macro": curve.mean(2).tolist(),
        "worst": curve.min(2).tolist(),
    }


def study(out: Path, *, quick: bool, seeds: int, workers: int, tell: Callable[[int, int, Arm], None]) -> dict[str, Any]:
    """Run what is not stored yet, and write ``policy.json``, whose content it returns; ``tell`` hears of each arm."""
    steps, rates, chosen = (60, QUICK_RATES, arms(True)) if quick else (STEPS, RATES, arms(False))
    code = " ".join(
        map(code_hash, (__name__, *(part.__name__ for part in (advantages, bandit, drift, history, methods))))
    )
    paths = {arm: out / "arms" / f"{_name(arm, rates, seeds, steps, code)}.json" for arm in chosen}
    made(out / "arms")
    missing = [arm for arm in chosen if not paths[arm].exists()]
    done = len(chosen) - len(missing)
    if missing:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            running = {pool.submit(measure, arm, rates, seeds, steps): arm for arm in missing}
            for future in as_completed(running):
                write_json(paths[running[future]], future.result())
                done += 1
                tell(done, len(chosen), running[future])
    found = {arm: _stored(paths[arm]) for arm in chosen}
    content = {
        "schema": SCHEMA,
        "versions": {"polypref": __version__, "numpy": np.__version__},
        "settings": {"seeds": seeds, "steps": steps, "completions": 256, "rates": list(rates), "quick": quick},
        "rows": [row for arm in chosen for row in _rows(arm, found)],
    }
    write_json(out / "policy.json", content)
    return content


def _stored(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); remove it and run again: only it is redone.") from error


def _name(arm: Arm, rates: Sequence[float], seeds: int, steps: int, code: str) -> str:
    text = json.dumps([asdict(arm), seeds, steps, code, list(rates)])
    return blake2b(text.encode(), digest_size=12).hexdigest()


def _rows(arm: Arm, found: dict[Arm, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each figure of an arm, and each one's gain over the reference in the same setting."""
    own, reference = (_figures(found[one]) for one in (arm, Arm(arm.setting, *REFERENCE)))
    base = {"setting": arm.setting, "method": arm.method, "generations": arm.generations, "groups": arm.labels}
    base |= {"rate": found[arm]["rate"], "seeds": len(own["macro"])}
    for name, value_S in own.items():
        yield {**base, "metric": name, **_interval(value_S)}
        yield {**base, "metric": f"{name}_gain", **_interval(value_S - reference[name])}
    yield {**base, "metric": "completions", "value": _completions(found[arm], found[Arm(arm.setting, *REFERENCE)])}


def _figures(one: dict[str, Any]) -> dict[str, Floats]:
    curves_ST = {name: np.array(one[name]) for name in ("macro", "worst")}
    areas = {name: curve_ST.mean(axis=1) for name, curve_ST in curves_ST.items()}
    return areas | {f"final_{name}": curve_ST[:, -3:].mean(axis=1) for name, curve_ST in curves_ST.items()}


def _completions(one: dict[str, Any], reference: dict[str, Any]) -> float | None:
    """Share of the run until the mean of the worst groups reaches the reference's last; None: never."""
    goal = np.array(reference["worst"]).mean(axis=0)[-3:].mean()
    mean_T = np.array(one["worst"]).mean(axis=0)
    reached = np.flatnonzero(mean_T >= goal)
    return float((reached[0] + 1) / len(mean_T)) if len(reached) else None


def _interval(value_S: Floats) -> dict[str, float]:
    """Mean over seeds with a 95 % t interval."""
    mean, half = float(value_S.mean()), 0.0
    if len(value_S) > 1:
        half = float(stdtrit(len(value_S) - 1, 0.975) * value_S.std(ddof=1) / len(value_S) ** 0.5)
    return {"value": mean, "lo": mean - half, "hi": mean + half}
