"""Collects result folders of ``polypref compare``: figures by learner and size, room and gain, and users.

A folder holds ``results.json`` (schema 1, docs/protocol.md), ``users.parquet`` beside it, and ``new_users.json`` if new
people were measured too. Nothing is fitted here.

Suffixes here: ``_L`` data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import strict_json
from polypref.data.files.parquet import first_line
from polypref.errors import InputError, SettingsError, reason
from polypref.evaluation.named_learner import named_learner
from polypref.evaluation.results_schema import CompareContents, Contents
from polypref.evaluation.results_table import COHORT, METRIC, ResultTable
from polypref.regular_files import content_of, memory

DRAWS, LEAST_SETS = 10_000, 4
Floats = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Collected:
    """One folder: the ``contents`` of results.json (no rows if missing), of users.parquet and of new_users.json.

    ``taxes``  the contents of tax/LEARNER/tax.json by learner.
    """

    name: str
    folder: Path
    contents: CompareContents
    users: pl.DataFrame | None
    new_users: ResultTable
    taxes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> ResultTable:
        """The rows of results.json."""
        return self.contents.rows

    def per_user(self, size: int) -> int | None:
        """Training comparisons per user if ``size`` is per user; None if it is a total."""
        return next((cut.get("per_user") for cut in self.contents.sizes if cut.get("size") == size), None)


def collect(paths: Sequence[str]) -> list[Collected]:
    """The folders, named after themselves or as ``NAME=FOLDER``.

    Raises SettingsError for no folder or a repeated name, InputError for a folder without results or with another
    schema.
    """
    if not paths:
        raise SettingsError("no folder given; expected at least one that polypref compare wrote.")
    found = [_read(path) for path in paths]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"two folders are named {twice!r}; name them with NAME=FOLDER.")
    return found


def _read(path: str) -> Collected:
    name, equals, place = path.partition("=")
    if not equals or Path(path).exists():
        name, place = "", path
    folder = Path(place)
    results, grid, users = (folder / file for file in ("results.json", "new_users.json", "users.parquet"))
    if not results.exists() and not grid.exists():
        raise InputError(f"{folder} holds no results.json; expected a folder that polypref compare --out wrote.")
    return Collected(
        name or folder.resolve().name,
        folder,
        CompareContents.read(results) if results.exists() else CompareContents(),
        _users(users) if users.exists() else None,
        (Contents.read(grid) if grid.exists() else Contents()).rows.where(metric=METRIC, cohort=COHORT),
        {path.parent.name: _tax(path) for path in sorted(folder.glob("tax/*/tax.json"))},
    )


def _tax(path: Path) -> Any:
    try:
        content = strict_json.loads(content_of(path, memory()))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({reason(error)}). Run polypref tax again.") from error
    if not isinstance(content, dict) or not {"scores", "suite"} <= content.keys():
        raise InputError(f"{path} holds no scores; expected what polypref tax wrote. Run it again.")
    return content


def _users(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(BytesIO(content_of(path, memory())))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}). Run polypref compare again.") from error


@dataclass(frozen=True)
class Gained:
    """One data set: room above the population learner, and the gain of a personal learner over it.

    ``room``      ceiling minus the baseline's accuracy on validation rows, not below 0; ``measured`` says whether
                  the ceiling is people's measured consistency; otherwise it is 1 and the room an upper limit.
    ``gain``      on test rows, of ``learner``, the one that ``compare`` names, with its interval.

    Room and gain use different rows, because noise in the baseline's accuracy on shared rows would correlate them. That
    ``compare`` names the best of several on test rows makes gains a little too large.
    """

    name: str
    baseline: str
    learner: str
    room: float
    measured: bool
    gain: float
    lo: float | None
    hi: float | None


def gained(one: Collected) -> Gained | None:
    """Room and gain of one data set at full size; None unless it has a personal and a population learner."""
    contents = one.contents
    best, floor = named_learner(contents), contents.baseline["valid_accuracy"]
    gain = contents.gains.by_learner().get(best or "")
    if best is None or gain is None or gain.value is None or floor is None:
        return None
    room = (contents.profile or {}).get("room") or {"measured": False}
    measured = bool(room["measured"])
    ceiling = (room["ceiling_lo"] + room["ceiling_hi"]) / 2 if measured else 1.0
    above = max(ceiling - floor, 0.0)
    return Gained(one.name, contents.baseline["learner"], best, above, measured, gain.value, gain.lo, gain.hi)


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation over ``n`` data sets, with a 95 % bootstrap interval; None if it cannot be estimated."""

    n: int
    value: float | None
    lo: float | None
    hi: float | None


def correlation(first_L: Floats, second_L: Floats, seed: int = 0) -> Correlation:
    """The correlation of two figures over data sets, with a bootstrap over data sets.

    Draws with fewer than three different sets are repeated, since two points always lie on a line. With fewer than four
    sets, or if one of the figures never varies, the correlation is unknown.
    """
    pairs_L2 = np.column_stack([np.asarray(first_L, float), np.asarray(second_L, float)])
    n = len(pairs_L2)
    if n < LEAST_SETS or (np.ptp(pairs_L2, axis=0) == 0).any():
        return Correlation(n, None, None, None)
    rng = np.random.default_rng(seed)
    drawn_BL = rng.integers(0, n, size=(4 * DRAWS, n))
    different_B = 1 + (np.diff(np.sort(drawn_BL, axis=1), axis=1) > 0).sum(axis=1)
    value_B = _pearson(pairs_L2[drawn_BL[different_B >= 3][:DRAWS]])
    value_B = value_B[np.isfinite(value_B)]
    lo, hi = np.quantile(value_B, [0.025, 0.975])
    return Correlation(n, float(_pearson(pairs_L2[None])[0]), float(lo), float(hi))


def _pearson(pairs_BL2: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = pairs_BL2 - pairs_BL2.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        spread_B = np.sqrt((centred**2).sum(axis=1).prod(axis=1))
        return np.where(spread_B > 1e-12, centred.prod(axis=2).sum(axis=1) / spread_B, np.nan)


def user_spread(users: pl.DataFrame) -> pl.DataFrame:
    """By learner: accuracy of the worst user, 10 %, 50 % and 90 % quantiles, the best; users better and worse off."""
    accuracy = pl.col("accuracy").drop_nulls()
    return users.group_by("learner", maintain_order=True).agg(
        worst=accuracy.min(),
        tenth=accuracy.quantile(0.1, "linear"),
        median=accuracy.median(),
        ninetieth=accuracy.quantile(0.9, "linear"),
        best=accuracy.max(),
        better=(pl.col("verdict") == "better").sum(),
        worse=(pl.col("verdict") == "worse").sum(),
    )
