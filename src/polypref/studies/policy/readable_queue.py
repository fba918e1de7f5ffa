"""The queue of runs of ``readable``: first the rates, then whole stages of paired seeds, the most telling first.

A finished run is a JSON file named by a hash of its settings, of the model and of the versions of torch and numpy; it
appears whole or not at all, so a killed study loses the run in hand and no other. Stopped at any time, the study has
finished the stages of the queue's beginning.

Rates: each arm of ``TUNED`` is run with each of ``RATES`` on a seed that is used for nothing else, and takes the one
with the higher sum of mean and worst gain of the groups, from the first to the last fourth of its *training* batches; a
collapsed run is never chosen. The other arms take the rate of the tuned arm that they differ least from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from polypref.artifact import read_sealed, sealed
from polypref.errors import ArtifactError
from polypref.files import write_json
from polypref.policy.history import Floats
from polypref.runs.machine import versions
from polypref.studies.policy.readable import (
    HELD_OUT_EACH,
    Labels,
    Model,
    Run,
    answers,
    identity,
    rewards,
    spreads,
    train,
)
from polypref.studies.policy.stored import is_whole
from polypref.studies.policy.styles import TASKS

RATES = (2e-3, 4e-3)
STEPS = 24
TUNING_SEED = 100


@dataclass(frozen=True, order=True)
class Arm:
    """A method with so many completions of so many prompts a step; ``as_rate``: the tuned arm whose rate it takes."""

    method: str
    generations: int
    prompts: int
    group_weight: float = 0.0
    labels: Labels = "true"
    as_rate: str = ""

    def run(self, task: str, rate: float, seed: int, steps: int = STEPS) -> Run:
        return Run(task, self.method, self.generations, self.prompts, self.group_weight, self.labels, rate, steps, seed)


GRPO = Arm("GRPO", 8, 4)
SHRUNKEN = Arm("P-GRPO shrunken", 2, 10, 1.0)
TUNED = {"P-GRPO shrunken": SHRUNKEN, "GRPO": GRPO}
GRPO_WEIGHED = replace(GRPO, group_weight=1.0, as_rate="GRPO")
DR_GRPO = Arm("Dr. GRPO", 8, 4, as_rate="GRPO")
MAXMIN = Arm("MaxMin", 8, 4, as_rate="GRPO")
UNWEIGHED = replace(SHRUNKEN, group_weight=0.0, as_rate="P-GRPO shrunken")
PAPER = Arm("P-GRPO paper", 2, 10, as_rate="P-GRPO shrunken")
GENTLE = replace(SHRUNKEN, as_rate="GRPO")  # at one rate with GRPO
SHUFFLED = replace(SHRUNKEN, labels="shuffled", as_rate="P-GRPO shrunken")

CORE = (GRPO, SHRUNKEN)
CONTROLS = (UNWEIGHED, PAPER, DR_GRPO, SHUFFLED)
OTHERS = ("lines, names", "poems", "support", "lines, identical groups")
FEW = 3


def stages(seeds: int) -> Iterator[tuple[str, tuple[Arm, ...], range]]:
    """Tasks, arms and paired seeds, in the order in which they are run."""
    few = min(FEW, seeds)
    yield "lines", CORE, range(seeds)
    yield "lines", (GENTLE, GRPO_WEIGHED), range(seeds)
    yield "lines", CONTROLS, range(few)
    for task in OTHERS:
        yield task, CORE, range(1)
    yield "lines", CONTROLS, range(few, seeds)
    yield "lines", (MAXMIN,), range(seeds)
    for task in OTHERS:
        yield task, CORE, range(1, few)


@dataclass(frozen=True, eq=False)
class Job:
    """Runs of a language model, which is loaded when the first of them starts."""

    folder: Path
    model_folder: str
    model_identity: str

    @property
    def learners(self) -> dict[str, Any]:
        return {}

    @cached_property
    def model(self) -> Model:
        return Model.load(self.model_folder)

    @cached_property
    def _decides(self) -> dict[str, Any]:
        found = versions()
        return identity(self.model_identity) | {name: found[name] for name in ("numpy", "torch")}

    def path(self, run: Run) -> Path:
        """File of a stored run."""
        text = json.dumps([asdict(run), self._decides, asdict(TASKS[run.task])], sort_keys=True)
        return self.folder / f"{blake2b(text.encode(), digest_size=12).hexdigest()}.json"

    def is_stored(self, run: Run) -> bool:
        """Whether a run is stored whole; a damaged one is removed and run again, with a message."""
        return is_whole(self.path(run), lambda: self.load(run), f"a finished run is done again ({run})")

    def load(self, run: Run) -> dict[str, Any]:
        """A stored run. Raises ArtifactError."""
        path = self.path(run)
        content = read_sealed(path)
        wanted = json.loads(json.dumps({"run": asdict(run), "settings": self._decides}))
        if any(content.get(name) != value for name, value in wanted.items()):
            raise ArtifactError(f"{path} holds another run.")
        return content


@lru_cache(maxsize=1)
def _spreads(job: Job, task: str) -> Floats:
    return spreads(job.model, TASKS[task])


@lru_cache(maxsize=1)
def _before(job: Job, task: str, seed: int) -> Any:
    return answers(job.model, TASKS[task], TASKS[task].held_out, HELD_OUT_EACH, seed, None)


def run(job: Job, one: Run) -> None:
    """Train, answer the held-out prompts before and after, and store all of it."""
    task, start = TASKS[one.task], process_time()
    spread_G = _spreads(job, one.task)
    before, topic_Q, group_Q = _before(job, one.task, one.seed)
    found, lora = train(job.model, one, spread_G)
    after, _, _ = answers(job.model, task, task.held_out, HELD_OUT_EACH, one.seed, lora)
    content = {
        "run": asdict(one),
        "settings": job._decides,
        "spread": spread_G.tolist(),
        "topic": topic_Q.tolist(),
        "group": group_Q.tolist(),
        "before": before,
        "after": after,
        "reward_before": (rewards(task, before, group_Q) / spread_G[group_Q]).tolist(),
        "reward_after": (rewards(task, after, group_Q) / spread_G[group_Q]).tolist(),
        **found,
        "cpu_seconds": process_time() - start,
    }
    write_json(job.path(one), sealed(content))


def tuning() -> Iterator[Run]:
    """The runs on which rates are chosen."""
    for arm in TUNED.values():
        for rate in RATES:
            yield arm.run("lines", rate, TUNING_SEED)


def chosen_rates(job: Job) -> dict[str, float]:
    """By tuned arm, of its stored runs."""
    chosen = {}
    for name, arm in TUNED.items():
        chosen[name] = max(RATES, key=lambda rate: _climbed(job.load(arm.run("lines", rate, TUNING_SEED))))
    return chosen


def _climbed(found: dict[str, Any]) -> float:
    """Mean and worst gain of the groups from the first to the last fourth of the training batches."""
    if found["collapsed"]:
        return -np.inf
    reward_TG = np.array([step["reward"] for step in found["steps"]], float)
    fourth = len(reward_TG) // 4
    gain_G = np.nanmean(reward_TG[-fourth:], 0) - np.nanmean(reward_TG[:fourth], 0)
    return float(gain_G.mean() + gain_G.min())


def queue(rates: dict[str, float], seeds: int) -> Iterator[Run]:
    """All runs to report, in order; the arms of a stage alternate, seed by seed."""
    for task, arms, numbers in stages(seeds):
        for seed in numbers:
            for arm in arms:
                yield arm.run(task, rates[arm.as_rate or arm.method], seed)
