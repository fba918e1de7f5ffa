"""Computes figures from the stored cells of the new-users grid: every route at every size on the same test rows.

At each size, all routes are measured on the test rows of the new users who have that many comparisons. A gain is over
the population learner chosen on validation rows of seen users; a gap is to ``individual`` with all the new user's
comparisons. Positive is better for every metric.

Suffixes here: ``_A`` numbers of judgements given, ``_V`` new users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.data.thumbs import tested
from polypref.evaluation.results_schema import Contents, Section, section, table
from polypref.evaluation.results_table import GAIN, METRIC, ResultRow, ResultTable
from polypref.evaluation.tables import Arm, choose_baseline, held_out, leaderboard
from polypref.newcomers.cells import FULL, Cell, Job, Outcome, read
from polypref.stats.cluster_robust import Clusters
from polypref.stats.metrics import HeldOut
from polypref.wording import MISSING, code, counted, estimate, percent, points

ASKED = ", asked"
CEILING = f"{FULL}, all data"
MEASURED = ("accuracy_micro", "accuracy_macro", "log_loss")


@dataclass(frozen=True, kw_only=True)
class NewContents(Contents):
    """The content of new_users.json."""

    gaps: ResultTable = table(GAIN)
    adapt_ms: Section = section()
    fit_seconds: Section = section()

    @property
    def measured(self) -> list[int]:
        """The sizes at which some new people could be measured."""
        return [one["size"] for one in self.sizes if one["new_users"]]


@dataclass(frozen=True, eq=False)
class Found:
    """One route over all seeds: its outcomes, seed by seed, and ``margin_AH`` on the rows of all seeds."""

    name: str
    outcomes: Sequence[Outcome]

    @property
    def margin_AH(self) -> NDArray[np.float64]:
        return np.concatenate([outcome.margin_AH for outcome in self.outcomes], axis=1).astype(np.float64)

    @property
    def adapt_ms_A(self) -> list[float | None]:
        """Mean milliseconds to learn a user, at each size; None without users."""
        ms_SA = np.stack([outcome.adapt_ms_A for outcome in self.outcomes])
        known_A = np.isfinite(ms_SA).sum(axis=0)
        total_A = np.nansum(ms_SA, axis=0)
        return [float(t / n) if n else None for t, n in zip(total_A, known_A, strict=True)]

    def arm(self, at: int, in_H: NDArray[np.bool_]) -> Arm:
        """The route at size number ``at``, on the rows ``in_H``."""
        first = self.outcomes[0]
        return Arm(self.name, first.serves, tuple(o.selection for o in self.outcomes), self.margin_AH[at][in_H])


def found(job: Job, cells: Mapping[str, Sequence[Cell]]) -> dict[str, Found]:
    """The stored cells, by displayed name."""
    return {name: Found(name, [read(job, cell) for cell in group]) for name, group in cells.items()}


def figures(job: Job, seeds: int, routes: Mapping[str, Found]) -> dict[str, Any]:
    """The measured keys of ``NewContents``."""
    whole = held_out(job.comparisons, [job.newcomers(seed).test_rows for seed in range(seeds)])
    have_H = np.concatenate([_have(job, seed) for seed in range(seeds)])
    everyone = np.ones(len(whole), bool)
    baseline = choose_baseline({name: route.arm(0, everyone) for name, route in routes.items()})
    against = {"gains": baseline["learner"], "gaps": CEILING}
    tables = {key: ResultTable() for key in ("rows", *against)}
    sizes = []
    new = np.unique(whole.user_H)
    for at, size in enumerate(job.sizes):
        if size is None:
            continue
        in_H = have_H >= size
        users = np.unique(whole.user_H[in_H])
        sizes.append({"size": size, "new_users": len(users), "left_out": len(new) - len(users)})
        if not len(users):
            continue
        margins = {name: arm.margin_H for name, route in routes.items() if _known(arm := route.arm(at, in_H))}
        if None in job.sizes and FULL in routes:
            ceiling = routes[FULL].arm(job.sizes.index(None), in_H & (have_H > 0))
            if len(ceiling.margin_H) == in_H.sum():
                margins[CEILING] = ceiling.margin_H
        measured = leaderboard(Clusters(_restricted(whole, in_H)), margins, against, size, MEASURED)
        tables = {key: rows + measured[key] for key, rows in tables.items()}
    return {
        "baseline": baseline,
        **tables,
        "sizes": sizes,
        "adapt_ms": {
            name: [{"size": s, "ms": ms} for s, ms in zip(job.sizes, route.adapt_ms_A, strict=True) if ms is not None]
            for name, route in routes.items()
        },
        "selection": {name: [outcome.selection for outcome in route.outcomes] for name, route in routes.items()},
        "serves": {name: route.outcomes[0].serves for name, route in routes.items()},
        "fit_seconds": {name: [outcome.seconds for outcome in route.outcomes] for name, route in routes.items()},
    }


def _known(arm: Arm) -> bool:
    return bool(np.isfinite(arm.margin_H).all())


def _have(job: Job, seed: int) -> NDArray[np.int64]:
    """The number of comparisons available for learning the user of each test row."""
    cut = job.newcomers(seed)
    return cut.count_V[np.searchsorted(cut.users_V, tested(job.comparisons, cut.test_rows).user_N)]


def _restricted(rows: HeldOut, in_H: NDArray[np.bool_]) -> HeldOut:
    names = ("seed_H", "user_H", "pair_H", "tie_H", "weight_H", "judgement_H")
    cut = {name: getattr(rows, name)[in_H] for name in names}
    return replace(rows, cohort_H={"all": np.ones(int(in_H.sum()), bool)}, **cut)


def table_lines(contents: NewContents, metric: str = METRIC) -> list[list[str]]:
    """Header and one line per route: accuracy in percent at every size, marked if the gain's interval excludes zero."""
    rows, gains = contents.rows.where(metric=metric), contents.gains.where(metric=metric)
    lines = [["comparisons of the new person", *map(str, contents.measured)]]
    for name in rows.learners:
        found = ((rows.at(name, metric, size=size), gains.at(name, metric, size=size)) for size in contents.measured)
        lines.append([name, *(_cell(row, gain) for row, gain in found)])
    users = {one["size"]: one for one in contents.sizes}
    lines.append(["new people", *(str(users[size]["new_users"]) for size in contents.measured)])
    lines.append(["left out: have fewer", *(str(users[size]["left_out"]) for size in contents.measured)])
    return lines


def gain_lines(contents: NewContents, metric: str = METRIC) -> list[list[str]]:
    """Header and one line per route: gain over the baseline at every size, in points, with its 95 % interval."""
    gains = contents.gains.where(metric=metric)
    lines = [["comparisons of the new person", *map(str, contents.measured)]]
    for name in gains.learners:
        lines.append([name, *(_ends(gains.at(name, metric, size=size)) for size in contents.measured)])
    return lines


def _cell(row: ResultRow | None, gain: ResultRow | None) -> str:
    if row is None or row.value is None:
        return MISSING
    return percent(row.value) + ("" if gain is None else {"better": "+", "worse": "−", "unclear": ""}[gain.kind])


def _ends(gain: ResultRow | None) -> str:
    if gain is None or gain.value is None:
        return MISSING
    return estimate({"value": gain.value, "lo": gain.lo, "hi": gain.hi}, points)


def advice(contents: NewContents, metric: str = METRIC) -> list[str]:
    """A line per size: the route with the highest figure, and whether it significantly beats the population."""
    lines = []
    for size in filter(None, contents.measured):
        at = [g for g in contents.gains.where(metric=metric, size=size) if g.learner != CEILING and g.value is not None]
        if not at:
            continue
        best = max(at, key=lambda gain: gain.value or 0.0)
        if not best.value or best.value < 0:
            lines.append(f"{counted(size, 'comparisons')}: nothing beats {code(best.baseline)}")
        else:
            sure = "" if best.kind == "better" else "not "
            lines.append(
                f"{counted(size, 'comparisons')}: {code(best.learner)}, {_ends(best)} points, {sure}surely "
                f"better than {code(best.baseline)}"
            )
    return lines
