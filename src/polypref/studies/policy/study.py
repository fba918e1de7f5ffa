"""When does P-GRPO beat GRPO? Contextual bandits with exactly known expected rewards, in many settings and with many
methods and controls; and a tiny language model through TRL's own trainer, in fewer settings.

Every arm (``arms``) uses the same number of completions; where the smallest group is 1 %, runs are five times as long,
so that it gets as many as a group of 5 %. Rates are chosen in the same way for every arm, on seeds used for nothing
else (``measure``); ``figures`` evaluates the paired seeds. An arm is a unit of work: it is stored when it is done, and
reused by a later run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polypref.arguments import AtLeastOne, PairedSeeds, check_settings
from polypref.artifact import read_sealed, sealed
from polypref.files import held_for_run, made, write_json
from polypref.progress import Progress
from polypref.runs.cell_store import code_hash
from polypref.runs.execute import run_cells
from polypref.studies.policy import bandit, figures
from polypref.studies.policy import language as policy_language
from polypref.studies.policy import measure as measuring
from polypref.studies.policy.arms import PLANS, QUICK, bandit_arms, language_arms
from polypref.studies.policy.measure import Arm, Curves, Learner, Plan
from polypref.studies.policy.stored import is_whole

SCHEMA = 4


@dataclass(frozen=True)
class Study:
    """Settings of a study: ``learners`` among the keys of PLANS, paired ``seeds`` of each arm, number of processes."""

    learners: tuple[Learner, ...] = ("bandit", "language model")
    quick: bool = False
    seeds: PairedSeeds = 16
    workers: AtLeastOne = 1

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def arms(self) -> list[Arm]:
        """All arms, in the order of the report."""
        language = language_arms(self.quick) if "language model" in self.learners else []
        return [*language, *(bandit_arms(self.quick) if "bandit" in self.learners else [])]

    def plan(self, learner: Learner) -> Plan:
        return (QUICK if self.quick else PLANS)[learner]


@dataclass(frozen=True, eq=False)
class Job:
    """The arms of a study, as ``grid.run_cells`` runs them; each is a JSON file named by a hash of what decides it."""

    what: Study
    folder: Path
    learners: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def code(self) -> dict[str, str]:
        """Hashes of each learner's source, computed once: an edit during a run must not rename its arms."""
        return {one: code_hash(CODE[one].__name__) for one in self.what.learners}

    def path(self, arm: Arm) -> Path:
        """File of the stored arm."""
        plan, code = self.what.plan(arm.learner), self.code[arm.learner]
        text = json.dumps([asdict(arm), asdict(plan), self.what.seeds, code, versions((arm.learner,))])
        return self.folder / f"{blake2b(text.encode(), digest_size=12).hexdigest()}.json"

    def is_stored(self, arm: Arm) -> bool:
        """Whether an arm is stored whole; a damaged one is removed and measured again, with a message."""
        path = self.path(arm)
        return is_whole(path, lambda: read_sealed(path), f"a finished arm is measured again ({arm})")


def run(job: Job, arm: Arm) -> None:
    """Measure one arm and store it."""
    found = measuring.measure(arm, job.what.plan(arm.learner), job.what.seeds, CURVES[arm.learner])
    write_json(job.path(arm), sealed(found))


def _longer(arm: Arm) -> bool:
    return arm.learner == "bandit" and bandit.SETTINGS[arm.setting].length > 1


def _seconds(arm: Arm) -> float:
    """Estimated time of an arm: the longest start first, and the time left is estimated from it."""
    if arm.learner == "language model":
        return 360.0
    dearer = 2.0 if arm.method.startswith("P-GRPO") else 1.0
    return bandit.SETTINGS[arm.setting].length * (1 + dearer + 2 / arm.generations)


def study(out: Path, what: Study, quiet: bool = False) -> dict[str, Any]:
    """Run the arms that are not stored yet, and write ``policy.json``, whose content it returns."""
    chosen = what.arms
    with held_for_run(out):
        made(out / "arms")
        job = Job(what, out / "arms")
        weights = {arm: _seconds(arm) for arm in chosen if not job.is_stored(arm)}
        with Progress("", len(chosen), "arms", weights, stored=len(chosen) - len(weights), quiet=quiet) as progress:
            run_cells(job, sorted(chosen, key=_seconds, reverse=True), what.workers, progress.tell, run)
        found = {arm: read_sealed(job.path(arm)) for arm in chosen}
        content = {
            "schema": SCHEMA,
            "versions": {"polypref": version("polypref"), **versions(what.learners)},
            "settings": {
                "seeds": what.seeds,
                "quick": what.quick,
                "plans": {one: asdict(plan := what.plan(one)) | {"rates": list(plan.rates)} for one in what.learners},
                "longer": {one.setting: bandit.SETTINGS[one.setting].length for one in chosen if _longer(one)},
                "shares": {one.setting: list(bandit.SETTINGS[one.setting].shares) for one in chosen},
                "completions": {"bandit": bandit.Run.completions, "language model": policy_language.COMPLETIONS},
            },
            "rows": list(figures.rows(found)),
            "ends": list(figures.ends(found)),
            "levers": list(figures.levers(found)),
            "rivals": list(figures.rivals(found)),
            "regrets": list(figures.regrets(found)),
        }
        write_json(out / "policy.json", content)
    return content


PACKAGES = {"bandit": ("numpy",), "language model": ("numpy", "torch", "transformers", "trl")}


def versions(learners: tuple[Learner, ...]) -> dict[str, str]:
    """Of everything that decides the curves."""
    return {name: version(name) for name in sorted({name for learner in learners for name in PACKAGES[learner]})}


CURVES: dict[Learner, Curves] = {"bandit": measuring.curves, "language model": policy_language.curves}
CODE = {"bandit": measuring, "language model": policy_language}
