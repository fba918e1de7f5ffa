"""``bench-policy --learners smollm2``: P-GRPO that one can read, on a real language model.

The whole study (``readable_queue``) takes hours. ``stored`` is what it came to once, kept with the package: the arms'
figures seed by seed, and answers before and after. The quick form trains one run of it live, and shows both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from polypref.artifact import is_sealed
from polypref.errors import ArtifactError
from polypref.features.model_folder import locate
from polypref.files import held_for_run, made, write_json
from polypref.progress import Progress
from polypref.runs.execute import run_cells
from polypref.runs.machine import machine, versions
from polypref.studies.policy import readable_figures as figures
from polypref.studies.policy.readable import Run, identity
from polypref.studies.policy.readable_queue import (
    CORE,
    GRPO,
    RATES,
    SHRUNKEN,
    TUNING_SEED,
    Job,
    chosen_rates,
    queue,
    run,
    tuning,
)
from polypref.studies.policy.styles import SCALES, SHARES, TASKS

STORED = "smollm2.json"
SHOWN_SEED = 0  # of the answers that are kept, chosen before any was read
DECIMALS = 4
MOST_SEEDS = 6


def stored() -> dict[str, Any]:
    """The study that comes with the package. Raises ArtifactError."""
    content = json.loads((resources.files("polypref.studies.policy") / STORED).read_text(encoding="utf-8"))
    if not is_sealed(content):
        raise ArtifactError(f"{STORED} of the package was changed: its hash does not fit. Install the package again.")
    return content


def study(out: Path, model: str, seeds: int, quick: bool, workers: int = 1, quiet: bool = False) -> dict[str, Any]:
    """Do the runs that are not stored yet, and write ``smollm2.json``, whose content it returns.

    ``quick``  one run of the stored study, again: P-GRPO on the first seed.
    """
    folder, name = locate(model, None)
    with held_for_run(out):
        job = Job(made(out / "runs"), str(folder), name)
        if quick:
            rates = stored()["rates"]
            chosen = [SHRUNKEN.run("lines", rates[SHRUNKEN.method], SHOWN_SEED)]
        else:
            _do(job, list(tuning()), "rates", workers, quiet)
            rates = chosen_rates(job)
            chosen = list(queue(rates, min(seeds, MOST_SEEDS)))
        _do(job, chosen, "runs", workers, quiet)
        content = summed(job, chosen, rates)
        write_json(out / STORED, content)
    return content


def _do(job: Job, runs: list[Run], unit: str, workers: int, quiet: bool) -> None:
    kept = sum(map(job.is_stored, runs))
    with Progress("", len(runs), unit, len(runs) - kept, stored=kept, quiet=quiet) as progress:
        run_cells(job, runs, workers, progress.tell, run)


def summed(job: Job, runs: Iterable[Run], rates: dict[str, float]) -> dict[str, Any]:
    """What the stored runs came to. Runs that are missing are left out."""
    found = [job.load(one) for one in dict.fromkeys(runs) if job.is_stored(one)]
    arms, right = figures.arms(found)
    shown = [arm.run("lines", rates[arm.as_rate or arm.method], SHOWN_SEED) for arm in CORE]
    content = {
        "schema": figures.SCHEMA,
        "settings": identity(job.model_identity),
        "rates": rates,
        "tried": {"rates": RATES, "seed": TUNING_SEED},
        "versions": versions(),
        "machine": machine(),
        "groups": {"shares": SHARES, "scales": SCALES},
        "tasks": {name: _told(name) for name in sorted({one["run"]["task"] for one in found})},
        "judge_accuracy": right,
        "cpu_seconds": sum(one["cpu_seconds"] for one in found),
        "arms": arms,
        "rows": figures.rows(arms),
        "examples": {
            ("GRPO" if one.method == GRPO.method else "P-GRPO"): figures.examples(job.load(one))
            for one in shown
            if job.is_stored(one)
        },
    }
    return json.loads(json.dumps(_rounded(content)))


def _told(name: str) -> dict[str, Any]:
    task = asdict(TASKS[name])
    return {key: task[key] for key in ("template", "cues", "styles", "held_out")} | {"topics": len(task["topics"])}


def _rounded(value: Any) -> Any:
    """Numbers at the precision that is shown; what is not a number is absent."""
    if isinstance(value, float):
        return None if value != value else round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value
