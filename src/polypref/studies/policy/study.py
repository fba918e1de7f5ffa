"""When does P-GRPO beat GRPO? Contextual bandits with exact expected rewards, many settings, methods and controls; and
a tiny language model through TRL's own trainer, in fewer.

Every arm (a method at a number of completions per prompt) spends equal completions; where the smallest group is 1 %,
runs are five times as long, so that it gets what one of 5 % does. An arm's learning rate is the best of its plan's on
seeds that are used for nothing else, by the sum of macro and worst-group area under the curve; then it runs on the
paired seeds. A gain is the difference to GRPO with eight completions, seed by seed, with a 95 % t interval.

Figures, of rewards that are 0 for uniform choice and 1 for the best: ``macro`` and ``worst``, area under the curve of
the mean over groups and of the group that is worst off at the time; ``final_macro`` and ``final_worst``, at the end;
``completions``, the share of the run until the worst group has what GRPO gives it in the end.

Controls: identical groups, and groups that differ in taste alone (what remains there is no matter of scales); groups
shuffled among prompts; groups drawn by lot for users. An arm is a unit of work: stored when it is done, found again by
a later run.

Suffixes here: ``_T`` steps at which a policy is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from polypref.artifact import is_sealed, sealed
from polypref.errors import ArtifactError, SettingsError
from polypref.files import content_of, made, write_json
from polypref.policy import advantages, drift, history
from polypref.policy.history import Floats, Ints
from polypref.progress import Progress
from polypref.runs.cell_store import code_hash
from polypref.runs.execute import run_cells
from polypref.schema import parse
from polypref.stats.cluster_robust import mean_with_half
from polypref.studies.policy import bandit, methods
from polypref.studies.policy import language as policy_language
from polypref.terminal import say

SCHEMA = 3
REFERENCE = ("GRPO", 8, "true")
Learner = Literal["bandit", "language model"]


@dataclass(frozen=True)
class Plan:
    """Learning rates that are tried, on how many seeds of their own, for how many steps, and the most paired seeds."""

    rates: tuple[float, ...]
    tuned_on: int
    steps: int
    most: int | None = None


PLANS: dict[Learner, Plan] = {
    "bandit": Plan((0.005, 0.01, 0.02, 0.04, 0.08, 0.15), 8, 300),
    "language model": Plan((0.0015, 0.003, 0.006), 4, 200, most=12),
}
QUICK: dict[Learner, Plan] = {
    "bandit": Plan((0.04, 0.08), 8, 60),
    "language model": Plan((0.0015,), 1, 20, most=2),
}
FIRST_TUNED = 10_000


@dataclass(frozen=True, order=True)
class Arm:
    """A method in a setting, with so many completions per prompt, told of groups as ``labels`` says."""

    setting: str
    method: str
    generations: int
    labels: bandit.Labels = "true"
    learner: Learner = "bandit"

    def __str__(self) -> str:
        return f"{self.learner}, {self.setting}: {self.method}, G={self.generations}, {self.labels} groups"


WITH_MANY = ("GRPO", "Dr. GRPO", "batch", "REINFORCE++", "MaxMin")
OURS = ("P-GRPO paper", "P-GRPO prompt", "P-GRPO shrunken", "P-GRPO half-life", "P-GRPO shrunken half-life")
WHERE_LONG = (
    *((method, 8) for method in ("GRPO", "MaxMin", "P-GRPO paper", "P-GRPO shrunken")),
    *((method, 2) for method in ("GRPO", "P-GRPO paper", "P-GRPO shrunken")),
    ("P-GRPO paper", 1),
)
"""Runs that take five times as long: the arms of the table in docs/pgrpo.md."""
CONTROLLED = ("5 groups", "minority scale 0.1")


def language_arms(quick: bool) -> list[Arm]:
    """What is compared on the language model."""
    chosen = [("GRPO", 8), ("GRPO", 2), ("P-GRPO paper", 2), ("P-GRPO shrunken", 2)]
    settings = ("minority scale 0.1",) if quick else ("minority scale 0.1", "identical groups")
    found = [Arm(setting, *one, learner="language model") for setting in settings for one in chosen]
    shuffled = Arm("minority scale 0.1", "P-GRPO shrunken", 2, "shuffled", "language model")
    return [found[0], found[3]] if quick else [*found, shuffled]


def arms(quick: bool) -> list[Arm]:
    """What is compared on bandits; ``quick``: two settings and a few methods, to see that it works."""
    if quick:
        chosen = [("GRPO", 8), ("P-GRPO paper", 2), ("P-GRPO shrunken", 2)]
        return [Arm(setting, *one) for setting in ("minority scale 0.1", "identical groups") for one in chosen]
    found = []
    for setting, what in bandit.SETTINGS.items():
        if what.length > 1:
            found += [Arm(setting, *one) for one in WHERE_LONG]
            continue
        found += [Arm(setting, method, 8) for method in (*WITH_MANY, *OURS)]
        found += [Arm(setting, method, size) for size in (4, 2) for method in ("GRPO", "P-GRPO shrunken")]
        found += [Arm(setting, method, 2) for method in OURS if method != "P-GRPO shrunken"]
        found += [Arm(setting, method, 1) for method in ("REINFORCE++", "P-GRPO paper", "P-GRPO half-life")]
    for setting in CONTROLLED:
        for labels in ("shuffled", "random"):
            found += [Arm(setting, method, 2, labels) for method in ("P-GRPO paper", "P-GRPO shrunken")]
    return found


def curves(arm: Arm, rate: float, seeds: Ints, steps: int) -> Floats:
    """Normalised reward of each group over time, (S, T, G)."""
    setting = bandit.SETTINGS[arm.setting]
    if arm.learner == "language model":
        told = (setting, arm.method, arm.generations, arm.labels)
        return np.stack([policy_language.curve(*told, rate=rate, seed=seed, steps=steps) for seed in seeds.tolist()])
    world = bandit.World.draw(setting, seeds)
    longer = setting.length
    run = bandit.Run(rate, arm.generations, steps=steps * longer, every=10 * longer, labels=arm.labels)
    return bandit.train(world, seeds, methods.METHODS[arm.method](), run)


def measure(arm: Arm, plan: Plan, seeds: int) -> dict[str, Any]:
    """Choose the rate, then run the paired seeds: the curves of the groups' mean and of the worst, (S, T)."""

    def goodness(rate: float) -> float:
        curve = curves(arm, rate, FIRST_TUNED + np.arange(plan.tuned_on), plan.steps)
        return float(curve.mean() + curve.min(axis=2).mean())

    tried = {rate: goodness(rate) if len(plan.rates) > 1 else 0.0 for rate in plan.rates}
    rate = max(tried, key=tried.__getitem__)
    curve = curves(arm, rate, np.arange(min(seeds, plan.most or seeds)), plan.steps)
    return {
        "rate": rate,
        "tried": list(tried.values()),
        "macro": curve.mean(2).tolist(),
        "worst": curve.min(2).tolist(),
    }


@dataclass(frozen=True)
class Study:
    """What is run: ``learners`` among PLANS' keys, paired ``seeds`` of each arm, in so many processes."""

    learners: tuple[Learner, ...] = ("bandit", "language model")
    quick: bool = False
    seeds: int = 16
    workers: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise SettingsError(f"--seeds {self.seeds} leaves no interval; expected 2 or more.")
        if self.workers < 1:
            raise SettingsError(f"--workers {self.workers} cannot be; expected 1 or more.")

    @property
    def arms(self) -> list[Arm]:
        """All arms, in the order in which they are told."""
        language = language_arms(self.quick) if "language model" in self.learners else []
        return [*language, *(arms(self.quick) if "bandit" in self.learners else [])]

    def plan(self, learner: Learner) -> Plan:
        return (QUICK if self.quick else PLANS)[learner]


@dataclass(frozen=True, eq=False)
class Job:
    """The arms of a study, as ``grid.run_cells`` runs them; each is a JSON file named by a hash of what decides it."""

    what: Study
    folder: Path
    learners: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def code(self) -> dict[str, list[str]]:
        """Hashes of the source behind each learner, taken once: an edit during a run must not rename its arms."""
        parts = (advantages, history, drift)
        return {
            learner: [code_hash(name) for name in (__name__, *(part.__name__ for part in (*parts, *CODE[learner])))]
            for learner in self.what.learners
        }

    def path(self, arm: Arm) -> Path:
        """File of the stored arm."""
        plan, code = self.what.plan(arm.learner), self.code[arm.learner]
        text = json.dumps([asdict(arm), asdict(plan), self.what.seeds, code, versions((arm.learner,))])
        return self.folder / f"{blake2b(text.encode(), digest_size=12).hexdigest()}.json"

    def is_stored(self, arm: Arm) -> bool:
        """Whether an arm is stored whole; a damaged one is removed, to be made again, and that is said."""
        path = self.path(arm)
        if not path.exists():
            return False
        try:
            _stored(path)
        except ArtifactError as error:
            say(f"a finished arm is made again ({arm}): {error}")
            path.unlink()
            return False
        return True


def run(job: Job, arm: Arm) -> None:
    """Measure one arm and store it."""
    write_json(job.path(arm), sealed(measure(arm, job.what.plan(arm.learner), job.what.seeds)))


def _longer(arm: Arm) -> bool:
    return arm.learner == "bandit" and bandit.SETTINGS[arm.setting].length > 1


def _seconds(arm: Arm) -> float:
    """About how long an arm takes: the longest start first, and the estimate of the time left goes by it."""
    if arm.learner == "language model":
        return 360.0
    return 60.0 if _longer(arm) else 13.0


def study(out: Path, what: Study, quiet: bool = False) -> dict[str, Any]:
    """Run the arms that are not stored yet, and write ``policy.json``, whose content it returns."""
    chosen = what.arms
    made(out / "arms")
    job = Job(what, out / "arms")
    weights = {arm: _seconds(arm) for arm in chosen if not job.is_stored(arm)}
    with Progress("", len(chosen), "arms", weights, stored=len(chosen) - len(weights), quiet=quiet) as progress:
        run_cells(job, sorted(chosen, key=_seconds, reverse=True), what.workers, progress.tell, run)
    found = {arm: _stored(job.path(arm)) for arm in chosen}
    content = {
        "schema": SCHEMA,
        "versions": {"polypref": version("polypref"), **versions(what.learners)},
        "settings": {
            "seeds": what.seeds,
            "quick": what.quick,
            "plans": {one: asdict(plan := what.plan(one)) | {"rates": list(plan.rates)} for one in what.learners},
            "longer": {one.setting: bandit.SETTINGS[one.setting].length for one in chosen if _longer(one)},
            "completions": {"bandit": bandit.Run.completions, "language model": policy_language.COMPLETIONS},
        },
        "rows": [row for arm in chosen for row in _rows(arm, found)],
    }
    write_json(out / "policy.json", content)
    return content


def _stored(path: Path) -> dict[str, Any]:
    try:
        content = parse(content_of(path), str(path))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error}).") from error
    if not isinstance(content, dict) or not is_sealed(content):
        raise ArtifactError(f"{path} was changed after it was written: its hash does not fit.")
    return {name: value for name, value in content.items() if name != "sha256"}


PACKAGES = {"bandit": ("numpy",), "language model": ("numpy", "torch", "transformers", "trl")}


def versions(learners: tuple[Learner, ...]) -> dict[str, str]:
    """Of everything that decides the curves."""
    return {name: version(name) for name in sorted({name for learner in learners for name in PACKAGES[learner]})}


CODE = {"bandit": (bandit, methods), "language model": (bandit, policy_language)}


def _rows(arm: Arm, found: dict[Arm, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each figure of an arm, and each one's gain over the reference in the same setting."""
    against = found[Arm(arm.setting, *REFERENCE, learner=arm.learner)]
    own, reference = _figures(found[arm]), _figures(against)
    base = {"learner": arm.learner, "setting": arm.setting, "method": arm.method, "generations": arm.generations}
    base |= {"groups": arm.labels, "rate": found[arm]["rate"], "seeds": len(own["macro"])}
    for name, value_S in own.items():
        yield {**base, "metric": name, **_interval(value_S)}
        yield {**base, "metric": f"{name}_gain", **_interval(value_S - reference[name])}
    yield {**base, "metric": "completions", "value": _completions(found[arm], against)}


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
    mean, half = mean_with_half(value_S)
    return {"value": mean, "lo": mean - half, "hi": mean + half}
