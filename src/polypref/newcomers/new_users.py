"""Compares the methods for new people with a few answers: every route, on the same new people, paired.

hold users out -> encode (once) -> cells (route, seed) -> figures -> results
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import polars as pl

from polypref.comparisons import Comparisons
from polypref.data.given import comparisons_of
from polypref.data.thumbs import AREA, by_ranking
from polypref.errors import SettingsError, unknown_name
from polypref.evaluation.grid_setup import POPULATION, prepare, run_grid
from polypref.evaluation.results import frame, write
from polypref.features.protocol import Encoder
from polypref.files import held_for_run
from polypref.learners.new_user_baselines import ROUTES
from polypref.learners.protocol import Learner
from polypref.newcomers.active import Asks
from polypref.newcomers.cells import FULL, Cell, Job, run
from polypref.newcomers.hold_out import hold_out
from polypref.newcomers.settings import NewSettings, with_overrides
from polypref.newcomers.tables import ASKED, NewContents, figures, found


@dataclass(frozen=True, eq=False)
class NewUsers:
    """``contents`` is the content of new_users.json: rows, gains over the population, gaps to the reference, ..."""

    contents: NewContents

    @cached_property
    def content(self) -> dict[str, Any]:
        """The content of new_users.json, as JSON types."""
        return self.contents.as_dict()

    @property
    def rows(self) -> pl.DataFrame:
        """One row per route, size and metric: the content of new_users.parquet."""
        return frame(self.contents.rows)

    def write(self, out: Path) -> None:
        """Write both files to ``out``, each atomically. Raises CacheError if they cannot be written."""
        write(out, "new_users.json", self.contents, {"new_users.parquet": self.rows})


def new_users(
    comparisons: Comparisons,
    learners: Sequence[str] | Mapping[str, Learner] | None = None,
    encoder: str | Encoder = "minilm",
    *,
    out: Path | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    settings: NewSettings | None = None,
    **overrides: Any,
) -> NewUsers:
    """Compare the ways to serve new people on ``comparisons``; ``out`` receives results and finished cells.

    ``learners``   names as in ``named_routes``, or learners by name.
    ``metadata``   additions to the results (files, findings, reproduce).
    ``overrides``  single settings by name: ``new_users(comparisons, sizes=(3, 30))``.

    Raises SettingsError, NotEnoughData, CacheError, the encoder's errors, and PolyprefError if cells failed.
    """
    comparisons = comparisons_of(comparisons)
    settings = with_overrides(settings or NewSettings(), overrides)
    routes = dict(learners) if isinstance(learners, Mapping) else named_routes(learners)
    prepared = prepare(
        comparisons, encoder, settings, lambda rows, rule, seed: hold_out(rows, rule, seed, settings.share)
    )
    hold_out(prepared.comparisons, prepared.rule, 0, settings.share)  # too few users: said before anything is encoded
    with held_for_run(out):
        with prepared.encoded(out) as (encoded, folder):
            timing = {"encode_seconds": time.perf_counter() - prepared.started}
            sizes = (*settings.sizes, *([None] if FULL in routes else []))
            job = Job(prepared.comparisons, encoded, routes, prepared.rule, folder, settings.share, sizes)
            cuts = [job.newcomers(seed) for seed in range(settings.seeds)]  # reports impossible splits before any work
            cells, began = _cells(job, settings), time.perf_counter()
            ran = run_grid(job, "cells", list(cells.values()), settings, run)
            timing |= {"cells_seconds": time.perf_counter() - began, "cells_run": ran}
            measured = figures(job, settings.seeds, found(job, cells))
        rows = {side: [len(getattr(cut, f"{side}_rows")) for cut in cuts] for side in ("train", "valid", "test")}
        contents = NewContents(**measured, **prepared.metadata(routes, rows, timing))
        measure = AREA if by_ranking(prepared.comparisons) else "accuracy"
        own = {"new_users_per_seed": [cut.held_out for cut in cuts], "measure": measure}
        contents = contents.with_metadata({"data": own})
        contents = contents.with_metadata(metadata or {})
        result = NewUsers(contents)
        if out is not None:
            result.write(Path(out))
    return result


def named_routes(names: Sequence[str] | None) -> dict[str, Learner]:
    """Routes by name: those of ROUTES, and learners that answer everyone alike or adapt to new users.

    The learners of POPULATION and ``individual`` always take part: gains are measured against the former, gaps to the
    latter. None, or "all" among the names: every route and every registered learner that adapts. Raises SettingsError
    for an unknown name, or a learner that knows seen users only.
    """
    from polypref.learners import LEARNERS
    from polypref.scorers import learner

    wanted = ["all"] if not names else [names] if isinstance(names, str) else list(names)
    if "all" in wanted:
        adapting = [name for name, one in LEARNERS.items() if name not in ROUTES and _serves(one) == "any_user"]
        wanted = [*ROUTES, *adapting, *(name for name in wanted if name != "all")]
    routes: dict[str, Learner] = {}
    for name in dict.fromkeys((*POPULATION, FULL, *wanted)):
        if name not in ROUTES and name not in LEARNERS and ":" not in name:
            raise unknown_name("learner", name, {**ROUTES, **LEARNERS})
        routes[name] = ROUTES[name] if name in ROUTES else learner(name)
        if _serves(routes[name]) == "seen_users":
            raise SettingsError(f"learner {name!r} knows only users seen in training; it cannot learn new ones.")
    return routes


def _scorer_class(learner: Learner) -> type:
    """The return annotation of ``fit``."""
    return get_type_hints(type(learner).fit)["return"]


def _serves(learner: Learner) -> str:
    return _scorer_class(learner).serves


def _cells(job: Job, settings: NewSettings) -> dict[str, list[Cell]]:
    """The cells of every route by displayed name; routes with a posterior also run with their order of questions."""
    seeds = range(settings.seeds)
    cells = {}
    for name, learner in job.learners.items():
        cells[name] = [Cell(name, seed) for seed in seeds]
        if settings.asked and issubclass(_scorer_class(learner), Asks):
            cells[name + ASKED] = [Cell(name, seed, True) for seed in seeds]
    return cells
