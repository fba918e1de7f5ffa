"""Turns a job into figures: runs the cells, measures every arm, and judges.

cells (learner, size, seed, arm) -> rows, gains, placebo, users -> verdict
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.split import Rule, Split
from polypref.data.thumbs import AREA, READING, by_ranking
from polypref.errors import EncoderError
from polypref.evaluation.cells import Cell, Job, run
from polypref.evaluation.grid_setup import run_grid
from polypref.evaluation.nested_prompts import caveat
from polypref.evaluation.recommend import recommend
from polypref.evaluation.results_table import ResultTable
from polypref.evaluation.settings import Settings
from polypref.evaluation.tables import (
    REFERENCE,
    Arm,
    choose_baseline,
    held_out,
    leaderboard,
    load_arm,
    minority_by_seed,
    of_these_users,
    over_shuffled,
    placebo_rows,
    unmeasured,
)
from polypref.evaluation.verdict import verdict
from polypref.evaluation.verdict_evidence import Compared, Evidence
from polypref.profiling import profile
from polypref.stats.cluster_robust import Clusters
from polypref.stats.estimate import wilson
from polypref.stats.per_user import PerUser, counts, per_user, sure, users_table
from polypref.terminal import say


@dataclass(frozen=True, eq=False)
class Arms:
    """Every arm of the run: ``by_size`` of training (all the data under ``full_size``), and with shuffled users.

    ``full_size`` is the number of training comparisons, including validation rows, without a cut. ``per_user`` is, by
    size, the number of comparisons kept per user, if sizes are per user.
    """

    by_size: dict[int, dict[str, Arm]]
    full_size: int
    shuffled: dict[str, Arm]
    timing: dict[str, float]
    per_user: dict[int, int] = field(default_factory=dict)

    @property
    def full(self) -> dict[str, Arm]:
        return self.by_size[self.full_size]

    @property
    def personal(self) -> list[str]:
        return [name for name, arm in self.full.items() if arm.personal]

    def answering(self) -> Arms:
        """Without the learners whose judge answered nothing, which are told. Raises EncoderError if none is left."""
        for size, arms in self.by_size.items():
            for name in (name for name, arm in arms.items() if arm.silent):
                say(f"{name}, size {size:,}: not measured; its judge answered none of the test questions as asked.")
        kept = {size: {n: arm for n, arm in arms.items() if not arm.silent} for size, arms in self.by_size.items()}
        if not kept[self.full_size]:
            raise EncoderError("no judge answered a single test question as asked; try another model.")
        return replace(self, by_size=kept)


def run_arms(job: Job, settings: Settings) -> Arms:
    """Run the cells not stored yet: every learner, size and seed, and the personal learners on shuffled users."""
    started = time.perf_counter()
    cuts = (*sorted(set(settings.sizes)), None)
    seeds = range(settings.seeds)
    size_of = {cut: _mean_size(job, cut, settings) for cut in cuts}  # reports impossible sizes before any work is done
    grid = {
        (name, cut): [Cell(name, cut, seed, budget="total" if cut is None else settings.budget) for seed in seeds]
        for cut in cuts
        for name in job.learners
    }
    ran = run_grid(job, "cells", list(grid.values()), settings, run)
    full_size = size_of[None]
    by_size = {size_of[cut]: {name: load_arm(job, grid[name, cut]) for name in job.learners} for cut in cuts}
    personal = [name for name, arm in by_size[full_size].items() if arm.personal and not arm.silent]
    placebo = {name: [Cell(name, None, seed, "shuffled") for seed in seeds] for name in personal if settings.placebo}
    ran += run_grid(job, "placebo cells", list(placebo.values()), settings, run)
    shuffled = {name: load_arm(job, cells) for name, cells in placebo.items()}
    timing = {"cells_seconds": time.perf_counter() - started, "cells_run": ran}
    each = settings.budget == "per-user"
    per_user = {size_of[cut]: cut for cut in cuts if cut is not None and each}
    return Arms(by_size, full_size, shuffled, timing, per_user)


def _mean_size(job: Job, cut: int | None, settings: Settings) -> int:
    """Training comparisons under a cut, including validation rows, on average over the seeds."""
    sides = [job.training_rows(cut, seed, settings.budget) for seed in range(settings.seeds)]
    return round(float(np.mean([len(train) + len(valid) for train, valid in sides])))


def measure(job: Job, settings: Settings, arms: Arms) -> tuple[dict[str, Any], pl.DataFrame]:
    """The measured keys of ``CompareContents``, and the users' table, from the arms."""
    every, arms = arms, arms.answering()
    minority_SU = minority_by_seed(job, settings.seeds)
    rows = held_out(job.comparisons, [job.parts(seed).test_rows for seed in range(settings.seeds)], minority_SU)
    clusters = Clusters(rows)
    tables: dict[str, ResultTable] = {}
    for size, learners in arms.by_size.items():
        against = {"gains": choose_baseline(learners)["learner"], "gains_over_pooled": REFERENCE}
        found = leaderboard(clusters, {name: arm.margin_H for name, arm in learners.items()}, against, size)
        found["rows"] += unmeasured(clusters, [name for name in every.by_size[size] if name not in learners], size)
        tables = {key: tables.get(key, ResultTable()) + one for key, one in found.items()}
    baseline = choose_baseline(arms.full)
    floor = baseline["learner"]
    over = {other: _people(clusters, arms.full, other) for other in {floor, REFERENCE} if other in arms.full}
    placebo = ResultTable() if floor is None else _placebo(clusters, arms, floor)
    own = over_shuffled(clusters, arms.full, arms.shuffled, arms.full_size)
    these = (
        ResultTable() if floor is None else of_these_users(clusters, arms.full, arms.shuffled, floor, arms.full_size)
    )
    described = profile(job.comparisons).as_dict()
    n_train_U = _training_counts(job, settings.seeds)
    counted = {name: counts(found) for name, found in over.get(floor, {}).items()}
    beyond = {} if floor is None else _sure(clusters, arms, over[floor])
    served = {name: counted[name] | {"sure": number} for name, number in beyond.items()}
    compared = Compared(tables["gains"].where(size=arms.full_size), placebo, own, these)
    answer = verdict(compared, arms.personal, floor, evidence(described, n_train_U, job.rule), served)
    if answer["room"] == "yes" and (reservation := caveat(job.comparisons)):
        answer["text"] += f" {reservation}"
    ranked = by_ranking(job.comparisons)
    answer |= {"measure": AREA if ranked else "accuracy", "text": answer["text"] + f" {READING}" * ranked}
    measured = _per_user_gains(tables["gains"], arms.per_user)
    figures = {
        "verdict": answer,
        **recommend(clusters, arms.full, answer, floor, n_train_U, measured, arms.full_size),
        "baseline": baseline,
        "size": arms.full_size,
        "sizes": [{"size": size, "per_user": arms.per_user.get(size)} for size in arms.by_size],
        **tables,
        "users": counted,
        "users_sure": beyond,
        "users_over_pooled": {name: counts(found) for name, found in over.get(REFERENCE, {}).items()},
        "placebo": placebo,
        "gains_over_shuffled": own,
        "gains_of_these_users": these,
        "selection": {name: arm.selection for name, arm in every.full.items()},
        "serves": {name: arm.serves for name, arm in every.full.items()},
        "profile": described,
    }
    people = over[floor] if floor in over else {name: _people(clusters, arms.full, name)[name] for name in arms.full}
    return figures, users_table(job.comparisons.users.ids, n_train_U, minority_SU.mean(axis=0) >= 0.5, people)


def _per_user_gains(gains: ResultTable, per_user: Mapping[int, int]) -> ResultTable:
    """The gains at sizes per user, with the number of each user's judgements as the size."""
    sized = [replace(row, size=per_user.get(row.size)) for row in gains if row.size is not None]
    return ResultTable(tuple(row for row in sized if row.size is not None))


def evidence(described: Mapping[str, Any], n_train_U: NDArray[np.int64], rule: Rule) -> Evidence:
    """What a profile, the users' training judgements and the split say of how sure a verdict is.

    The upper limit of disagreement is Wilson's if that is higher: when all agree, resampling changes nothing.
    """
    found = described["disagreement"]["at_panel"]["2"]["contested"]
    own_U = n_train_U[n_train_U > 0]
    own = float(np.median(own_U)) if len(own_U) else 0.0
    value, shared = found["value"], found["n"]
    limit = None if value is None else max(wilson(value, shared)[1], found["hi"] or 0.0)
    origin = described["origin"]
    leak = origin["why"] if rule == "pair" and origin["dependent"] else ""
    return Evidence(described["sizes"]["users"], own, shared, value, limit, leak)


def _placebo(clusters: Clusters, arms: Arms, baseline: str) -> ResultTable:
    """The placebo rows, each with the numbers of users who would be called better and worse off."""
    margin_H = arms.full[baseline].margin_H
    people = {name: counts(per_user(clusters, arm.margin_H, margin_H)) for name, arm in arms.shuffled.items()}
    return placebo_rows(clusters, arms.full, arms.shuffled, people, {"baseline": baseline, "size": arms.full_size})


def _sure(clusters: Clusters, arms: Arms, people: Mapping[str, PerUser]) -> dict[str, int]:
    """Users of each personal learner who benefit from being known, corrected for testing all users and learners."""
    found = {}
    for name in arms.personal:
        arm, shuffled = arms.full[name], arms.shuffled.get(name)
        knowing = None if shuffled is None else per_user(clusters, arm.margin_H, shuffled.margin_H)
        found[name] = sure(people[name], knowing, len(arms.personal))
    return found


def _people(clusters: Clusters, arms: Mapping[str, Arm], baseline: str) -> dict[str, PerUser]:
    return {name: per_user(clusters, arm.margin_H, arms[baseline].margin_H) for name, arm in arms.items()}


def _training(parts: Split) -> NDArray[np.int64]:
    return np.concatenate([parts.train_rows, parts.valid_rows])


def _training_counts(job: Job, seeds: int) -> NDArray[np.int64]:
    """Training judgements of each user, on average over the seeds."""
    user_N, n_users = job.comparisons.user_N, len(job.comparisons.users)
    count_SU = [np.bincount(user_N[_training(job.parts(seed))], minlength=n_users) for seed in range(seeds)]
    return np.mean(count_SU, axis=0).round().astype(np.int64)
