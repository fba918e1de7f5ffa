"""Part 4: P-GRPO and GRPO on SmolLM2 at 16 paired seeds in bfloat16, by the study's own runs, queue and figures.

Rates are those that the stored study chose, on a seed of its own; nothing is tuned here. Each run is stored when it is
done, so a killed part goes on with the next. In miniature a random model of two layers takes a few steps on two seeds:
its gains say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from part import Found, Line, Part, Place
from shapes import backbone

from polypref.features.model_folder import locate
from polypref.files import made
from polypref.progress import Progress
from polypref.runs.execute import run_cells
from polypref.studies.policy import readable_queue as queued
from polypref.studies.policy.readable import UPPER, Model, Run
from polypref.studies.policy.readable_study import stored, summed

MODEL = "smollm2"
TASK = "lines"
MOST = 0.7  # of GRPO's completions


def settings(place: Place) -> dict[str, Any]:
    """What decides the figures, besides what a run is stored with."""
    size = {"seeds": 2, "steps": 4, "upper": 1} if place.miniature else {"seeds": 16, "steps": queued.STEPS}
    return {"upper": UPPER, **size, "dtype": "bfloat16", "rates": stored()["rates"]}


def minutes(place: Place) -> float:
    """Expected of the whole part: on a card a minute for each run."""
    return 0.5 if place.miniature else 2.0 * settings(place)["seeds"]


@dataclass(frozen=True, eq=False)
class Job(queued.Job):
    """``upper``: layers with a LoRA."""

    upper: int

    @cached_property
    def model(self) -> Model:
        return Model.load(self.model_folder, self.upper)


def runs(place: Place) -> list[Run]:
    """Pairs of GRPO and shrunken P-GRPO, seed by seed."""
    told = settings(place)
    arms = [(arm, told["rates"][arm.as_rate or arm.method]) for arm in queued.CORE]
    return [arm.run(TASK, rate, seed, told["steps"]) for seed in range(told["seeds"]) for arm, rate in arms]


def run(place: Place) -> Found:
    """The runs that are not stored yet, and what all of them came to."""
    import torch

    told, wanted = settings(place), runs(place)
    folder, name = locate(backbone(place.out, place.shape, place.seed) if place.miniature else MODEL, None)
    job = Job(made(place.out / "4-policy"), str(folder), name, told["upper"])
    kept = sum(map(job.is_stored, wanted))
    with torch.device(place.device), Progress("", len(wanted), "runs", len(wanted) - kept, stored=kept) as progress:
        run_cells(job, wanted, 1, progress.tell, queued.run)
    content = summed(job, wanted, told["rates"])
    return Found(content, lines(content["rows"]))


def lines(rows: list[dict[str, Any]]) -> list[Line]:
    """Of the table."""
    found = [Line(f"{row['method']}, worst group's gain", _gain(row["worst"])) for row in rows]
    for row in rows:
        if (over := row.get("worst, over GRPO")) is None:
            continue
        share = row["completions"]
        reached = f"{_gain(over)}, {len(row['seeds'])} seeds, {share:.2f} of the completions"
        found.append(
            Line(
                f"{row['method']}, worst group's gain over GRPO",
                reached,
                f"above 0, with at most {MOST}",
                _met(over, share),
            )
        )
    collapsed = sum(len(row["collapsed"]) for row in rows)
    return [*found, Line("runs that collapsed into one word", str(collapsed))]


def _met(over: dict[str, Any], share: float) -> str:
    if share > MOST or (over["hi"] is not None and over["hi"] <= 0):
        return "no"
    return "yes" if over["lo"] is not None and over["lo"] > 0 else "open"


def _gain(figure: dict[str, Any]) -> str:
    value, low, high = (np.nan if figure[name] is None else figure[name] for name in ("value", "lo", "hi"))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


PART = Part("4-policy", "P-GRPO on SmolLM2, many seeds", settings, minutes, run)
