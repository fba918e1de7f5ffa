"""Measures all slow risks of a learner that adapts, in simulated communities, as rows with intervals over seeds.

    slow_risks(SlowRisks(seeds=5))["rows"]    {risk, measure, arm, value, lo, hi, n}

Figures of personal scorers come with those of the population's scorer and of random choice, on the same people, texts
and random draws. Their difference ("personal - population") is paired by seed. ``n`` is the number of seeds with a
finite figure; ``value`` is their mean, or None if some seeds have no finite figure (a half-life of "never" has no
mean). ``lo`` and ``hi`` are the ends of Student's 95 % interval over seeds, None for one seed.

Covered: the risks of ``RISKS``. Not covered: real people; see the docstring of each measure's file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from polypref.errors import SettingsError, unknown_name
from polypref.stats.cluster_robust import mean_with_half
from polypref.studies.risks.closed_loop_figures import bubbles, lock_in, manipulation, sycophancy
from polypref.studies.risks.privacy_figures import deletion, members, profiles
from polypref.studies.risks.settings import Found, SlowRisks

RISKS: Mapping[str, Callable[[SlowRisks, int], Found]] = {
    "bubbles": bubbles,
    "lock-in": lock_in,
    "sycophancy": sycophancy,
    "manipulation": manipulation,
    "membership": members,
    "profiles": profiles,
    "deletion": deletion,
}


def slow_risks(config: SlowRisks | None = None, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure the risks named in ``only``, keys of ``RISKS`` (None: all). Raises SettingsError for wrong settings."""
    config = config or SlowRisks()
    if config.seeds < 1:
        raise SettingsError(f"{config.seeds} seeds; expected at least 1, and 2 for an interval.")
    chosen = list(RISKS) if only is None else list(only)
    for name in chosen:
        if name not in RISKS:
            raise unknown_name("risk", name, RISKS)
    table = [row for name in chosen for row in rows([RISKS[name](config, seed) for seed in range(config.seeds)])]
    return {"schema": 1, "rows": table, "settings": asdict(config)}


def rows(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The figures of several seeds as rows; see the module's docstring."""
    table = []
    for risk, measure, arm in found[0]:
        value_S = np.array([one[risk, measure, arm] for one in found], np.float64)
        finite = int(np.isfinite(value_S).sum())
        value = lo = hi = None
        if finite == len(value_S):
            value = float(value_S.mean())
        if value is not None and finite > 1:
            half = mean_with_half(value_S)[1]
            lo, hi = value - half, value + half
        row = {"risk": risk, "measure": measure, "arm": arm, "value": value, "lo": lo, "hi": hi, "n": finite}
        table.append(row)
    return table
