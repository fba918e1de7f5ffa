"""From the stored cells of the new-users grid to figures: every route at every size on the same test rows, paired.

At one size all routes are measured on the test rows of the new users who have so many comparisons. A gain is over the
population learner that validation rows of seen users prefer; a gap is to what ``individual`` comes to with all that the
new user has. Positive is better under every metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.evaluation.tables import Arm, choose_baseline
from polypref.newcomers.cells import FULL, Cell, Job, Outcome, read
from polypref.stats.clusters import UNBOUNDED, Clusters, Interval, difference
from polypref.stats.metrics import LOWER_IS_BETTER, METRICS, HeldOut, Measured

ASKED = ", asked"
CEILING = f"{FULL}, all data"
MEASURED = ("accuracy_micro", "accuracy_macro", "log_loss")
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Found:
    """One route over all seeds: its outcomes, seed by seed, and ``margin_ST`` on the rows of all seeds."""

    name: str
    outcomes: Sequence[Outcome]

    @property
    def margin_ST(self) -> NDArray[np.float64]:
        return np.concatenate([outcome.margin_ST for outcome in self.outcomes], axis=1).astype(np.float64)

    @property
    def adapt_ms_S(self) -> list[float | None]:
        """Mean milliseconds to take a user in, at each size; None where nobody was."""
        ms_XS = np.stack([outcome.adapt_ms_S for outcome in self.outcomes])
        known_S = np.isfinite(ms_XS).sum(axis=0)
        total_S = np.nansum(ms_XS, axis=0)
        return [float(t / n) if n else None for t, n in zip(total_S, known_S, strict=True)]

    def arm(self, at: int, in_T: NDArray[np.bool_]) -> Arm:
        """The route at size number ``at``, on the rows ``in_T``."""
        first = self.outcomes[0]
        return Arm(self.name, first.serves, tuple(o.selection for o in self.outcomes), self.margin_ST[at][in_T])


def found(job: Job, cells: Mapping[str, Sequence[Cell]]) -> dict[str, Found]:
    """The stored cells, by the name a reader sees."""
    return {name: Found(name, [read(job, cell) for cell in group]) for name, group in cells.items()}


def figures(job: Job, seeds: int, routes: Mapping[str, Found]) -> Row:
    """The results' figures: ``rows``, ``gains``, ``gaps``, ``sizes``, ``baseline``, ``adapt_ms``, ``selection``."""
    whole = _held_out(job, seeds)
    have_T = np.concatenate([_have(job, seed) for seed in range(seeds)])
    everyone = np.ones(len(whole), bool)
    baseline = choose_baseline({name: route.arm(0, everyone) for name, route in routes.items()})
    tables: dict[str, list[Row]] = {"rows": [], "gains": [], "gaps": [], "sizes": []}
    new = np.unique(whole.user_T)
    for at, size in enumerate(job.sizes):
        if size is None:
            continue
        in_T = have_T >= size
        users = np.unique(whole.user_T[in_T])
        tables["sizes"].append({"size": size, "new_users": len(users), "left_out": len(new) - len(users)})
        if not len(users):
            continue
        arms = {name: arm.margin_T for name, route in routes.items() if _known(arm := route.arm(at, in_T))}
        if None in job.sizes and FULL in routes:
            ceiling = routes[FULL].arm(job.sizes.index(None), in_T & (have_T > 0))
            if len(ceiling.margin_T) == in_T.sum():
                arms[CEILING] = ceiling.margin_T
        measured = _measured(Clusters(_restricted(whole, in_T)), arms, size, baseline)
        tables = {key: table + measured.get(key, []) for key, table in tables.items()}
    return {
        "baseline": baseline,
        **tables,
        "adapt_ms": {
            name: [{"size": s, "ms": ms} for s, ms in zip(job.sizes, route.adapt_ms_S, strict=True) if ms is not None]
            for name, route in routes.items()
        },
        "selection": {name: [outcome.selection for outcome in route.outcomes] for name, route in routes.items()},
        "serves": {name: route.outcomes[0].serves for name, route in routes.items()},
        "fit_seconds": {name: [outcome.seconds for outcome in route.outcomes] for name, route in routes.items()},
    }


def _known(arm: Arm) -> bool:
    return bool(np.isfinite(arm.margin_T).all())


def _measured(
    clusters: Clusters, arms: Mapping[str, NDArray[np.float64]], size: int, baseline: Row | None
) -> dict[str, list[Row]]:
    """``rows``, ``gains`` over the baseline and ``gaps`` to the upper bound at one size."""
    tables: dict[str, list[Row]] = {"rows": [], "gains": [], "gaps": []}
    in_T, seeds = clusters.rows.cohort_T["all"], clusters.rows.n_seeds
    against = {"gains": None if baseline is None else str(baseline["learner"]), "gaps": CEILING}
    for metric in MEASURED:
        values = {name: METRICS[metric](clusters.rows, in_T, margin_T) for name, margin_T in arms.items()}
        common: Row = {"size": size, "cohort": "all", "metric": metric}
        ends = clusters.intervals(list(values.values()), (0.0, inf if metric == "log_loss" else 1.0))
        tables["rows"] += [
            _row({"learner": name} | common, values[name], end, seeds) for name, end in zip(values, ends, strict=True)
        ]
        bounds = UNBOUNDED if metric == "log_loss" else (-1.0, 1.0)
        for key, other in against.items():
            if other not in values:
                continue
            gained = {name: _gain(value, values[other], metric) for name, value in values.items() if name != other}
            ends = clusters.intervals(list(gained.values()), bounds)
            tables[key] += [
                _row({"learner": name, "baseline": other} | common, gained[name], end, seeds) | {"p": end.p}
                for name, end in zip(gained, ends, strict=True)
            ]
    return tables


def _gain(one: Measured, other: Measured, metric: str) -> Measured:
    return difference(other, one) if metric in LOWER_IS_BETTER else difference(one, other)


def _row(name: Row, measured: Measured, interval: Interval, seeds: int) -> Row:
    counts = {"n_users": measured.n_users, "n_comparisons": measured.n_judgements, "seeds": seeds}
    return name | {"value": measured.value, "lo": interval.lo, "hi": interval.hi, "se": interval.se} | counts


def _held_out(job: Job, seeds: int) -> HeldOut:
    """The new users' test rows of all seeds."""
    c = job.comparisons
    rows_S = [job.newcomers(seed).test_rows for seed in range(seeds)]
    judgement_T = np.concatenate(rows_S)
    pairs, first, pair_T = np.unique(c.pair_key_N[judgement_T], return_index=True, return_inverse=True)
    text_P2 = np.stack([side_N[judgement_T[first]] for side_N in (c.chosen_N, c.rejected_N)], axis=1)
    return HeldOut(
        seed_T=np.repeat(np.arange(seeds), [len(rows) for rows in rows_S]),
        user_T=c.user_N[judgement_T].astype(np.int64),
        pair_T=pair_T,
        tie_T=np.zeros(len(judgement_T), bool) if c.tie_N is None else c.tie_N[judgement_T],
        weight_T=c.weights_N[judgement_T],
        judgement_T=judgement_T,
        cohort_T={"all": np.ones(len(judgement_T), bool)},
        n_seeds=seeds,
        n_users=len(c.users),
        n_pairs=len(pairs),
        text_P2=text_P2.astype(np.int64),
    )


def _have(job: Job, seed: int) -> NDArray[np.int64]:
    """How many comparisons the user of each test row can be learned from."""
    cut = job.newcomers(seed)
    return cut.count_V[np.searchsorted(cut.users_V, job.comparisons.user_N[cut.test_rows])]


def _restricted(rows: HeldOut, in_T: NDArray[np.bool_]) -> HeldOut:
    names = ("seed_T", "user_T", "pair_T", "tie_T", "weight_T", "judgement_T")
    cut = {name: getattr(rows, name)[in_T] for name in names}
    return replace(rows, cohort_T={"all": np.ones(int(in_T.sum()), bool)}, **cut)


def table_lines(content: Mapping[str, Any], metric: str = "accuracy_micro") -> list[list[str]]:
    """Header and one line per route: the metric at every size, marked where the gain's interval leaves out zero."""
    sizes = [row["size"] for row in content["sizes"] if row["new_users"]]
    at = {(r["learner"], r["size"]): r["value"] for r in content["rows"] if r["metric"] == metric}
    gains = {(g["learner"], g["size"]): g for g in content["gains"] if g["metric"] == metric}
    lines = [["comparisons of the new person", *map(str, sizes)]]
    for name in dict.fromkeys(learner for learner, _ in at):
        cells = [_cell(at.get((name, size)), gains.get((name, size))) for size in sizes]
        lines.append([name, *cells])
    users = {row["size"]: row for row in content["sizes"]}
    lines.append(["new people", *(str(users[size]["new_users"]) for size in sizes)])
    lines.append(["left out: have fewer", *(str(users[size]["left_out"]) for size in sizes)])
    return lines


def gain_lines(content: Mapping[str, Any], metric: str = "accuracy_micro") -> list[list[str]]:
    """Header and one line per route: gain over the baseline at every size with its 95 % interval."""
    sizes = [row["size"] for row in content["sizes"] if row["new_users"]]
    gains = {(g["learner"], g["size"]): g for g in content["gains"] if g["metric"] == metric}
    baseline = content["baseline"]["learner"] if content["baseline"] else "the baseline"
    lines = [[f"gain over {baseline}", *map(str, sizes)]]
    for name in dict.fromkeys(learner for learner, _ in gains):
        lines.append([name, *(_ends(gains.get((name, size))) for size in sizes)])
    return lines


def _cell(value: float | None, gain: Row | None) -> str:
    if value is None:
        return "-"
    clear = gain is not None and gain["lo"] is not None and (gain["lo"] > 0 or gain["hi"] < 0)
    return f"{value:.3f}" + (("+" if gain["value"] > 0 else "-") if clear and gain is not None else "")


def _ends(gain: Row | None) -> str:
    if gain is None or gain["value"] is None:
        return "-"
    return f"{gain['value']:+.3f}" + ("" if gain["lo"] is None else f" [{gain['lo']:+.3f}, {gain['hi']:+.3f}]")


def advice(content: Mapping[str, Any], metric: str = "accuracy_micro") -> list[str]:
    """A line per size: the route with the highest figure there, and whether it is surely better than the population."""
    lines = []
    for size in [row["size"] for row in content["sizes"] if row["new_users"] and row["size"]]:
        gains = [
            g
            for g in content["gains"]
            if (g["size"], g["metric"]) == (size, metric) and g["learner"] != CEILING and g["value"] is not None
        ]
        if not gains:
            continue
        best = max(gains, key=lambda gain: gain["value"])
        sure = best["lo"] is not None and best["lo"] > 0
        if best["value"] <= 0:
            lines.append(f"{size} comparisons: nothing beats {best['baseline']}")
        else:
            verdict = f"surely better than {best['baseline']}" if sure else f"not surely better than {best['baseline']}"
            lines.append(f"{size} comparisons: {best['learner']}, {_ends(best)}, {verdict}")
    return lines
