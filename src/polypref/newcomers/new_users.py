"""Which method to use when a new person has given a few answers: every route, on the same new people, paired.

hold users out -> encode (once) -> cells (route, seed) -> figures -> results
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import polars as pl

from polypref.comparisons import Comparisons
from polypref.data.linting.lint import ensure_learnable
from polypref.data.split import RULES, choose_rule
from polypref.errors import SettingsError, unknown_name
from polypref.evaluation import results as written
from polypref.evaluation.cohorts import keep_users
from polypref.features import encoder as encoder_by_name
from polypref.features.encoded import encode_once
from polypref.features.protocol import Encoder
from polypref.files import made, temporary, write_json, write_table
from polypref.learners.few_shot import ROUTES
from polypref.learners.protocol import Learner
from polypref.newcomers.active import Asks
from polypref.newcomers.cells import FULL, Cell, Job, run
from polypref.newcomers.hold_out import hold_out
from polypref.newcomers.settings import NewSettings, with_overrides
from polypref.newcomers.tables import ASKED, figures, found
from polypref.progress import Progress
from polypref.runs.execute import run_cells

SCHEMA = 1
POPULATION = ("pooled", "pooled-effects")  # gains are measured against the better of them


@dataclass(frozen=True, eq=False)
class NewUsers:
    """``content`` is what new_users.json holds."""

    content: dict[str, Any]

    @property
    def rows(self) -> pl.DataFrame:
        """One row per route, size and metric: the content of new_users.parquet."""
        return pl.DataFrame(self.content["rows"], schema=written.ROW_SCHEMA)

    def row(self, table: str, learner: str, size: int, metric: str = "accuracy_micro") -> dict[str, Any]:
        """One row of ``table``: rows, gains (over the population) or gaps (to the upper bound)."""
        for row in self.content[table]:
            if (row["learner"], row["size"], row["metric"]) == (learner, size, metric):
                return row
        raise KeyError(f"no row in {table} for {learner}, {size}, {metric}")

    def write(self, out: Path) -> None:
        """Write both files to ``out``, each whole or not at all. Raises CacheError when they cannot be written."""
        write_table(out / "new_users.parquet", self.rows)
        write_json(out / "new_users.json", self.content)


def new_users(
    comparisons: Comparisons,
    learners: Sequence[str] | Mapping[str, Learner] | None = None,
    encoder: str | Encoder = "minilm",
    *,
    out: Path | str | None = None,
    facts: Mapping[str, Any] | None = None,
    settings: NewSettings | None = None,
    **overrides: Any,
) -> NewUsers:
    """Compare the ways to serve new people on ``comparisons``; with ``out``, results and finished cells are kept there.

    ``learners``   names as in ``named_routes``, or learners by name.
    ``facts``      more to put into the results.
    ``overrides``  single settings by name: ``new_users(comparisons, sizes=(3, 30))``.

    Raises SettingsError, NotEnoughData, CacheError, what an encoder raises, and PolyprefError when cells failed.
    """
    settings = with_overrides(settings or NewSettings(), overrides)
    routes = dict(learners) if isinstance(learners, Mapping) else named_routes(learners)
    started = time.perf_counter()
    kept = keep_users(comparisons, settings.min_judgements)
    ensure_learnable(kept.comparisons)
    rule, why = _rule(kept.comparisons, settings)
    hold_out(kept.comparisons, rule, 0, settings.share)  # too few users are said before anything is encoded
    text_encoder = encoder_by_name(encoder) if isinstance(encoder, str) else encoder
    with temporary() as own:
        folder = made((own if out is None else Path(out)) / "cells")
        encoded = encode_once(text_encoder, kept.comparisons.responses, own)
        sizes = (*settings.sizes, *([None] if FULL in routes else []))
        job = Job(kept.comparisons, encoded, routes, rule, folder, settings.share, sizes)
        cells = _cells(job, settings)
        ran = _run(job, [cell for group in reversed(list(cells.values())) for cell in group], settings)
        measured = figures(job, settings.seeds, found(job, cells))
        held_out = [job.newcomers(seed).held_out for seed in range(settings.seeds)]
    content = {
        "schema": SCHEMA,
        "data": {
            "hash": kept.comparisons.content_hash,
            "n_users": int(pl.Series(kept.comparisons.user_N).n_unique()),
            "n_comparisons": len(kept.comparisons),
            "users_left_out": kept.users_dropped,
            "new_users_per_seed": held_out,
        },
        "encoder": {"name": text_encoder.name, "identity": text_encoder.identity},
        "split": {"rule": rule, "why": why},
        **measured,
        "settings": asdict(settings) | {"learners": list(routes)},
        "versions": written.versions(),
        "machine": written.machine(),
        "timing": {"cells_run": ran, "total_seconds": time.perf_counter() - started},
        **(facts or {}),
    }
    result = NewUsers(written.plain(content))
    if out is not None:
        result.write(Path(out))
    return result


def named_routes(names: Sequence[str] | None) -> dict[str, Learner]:
    """Routes by name: those of ROUTES, and learners that answer everyone alike or adapt to new users.

    The learners of POPULATION and ``individual`` take part always: gains are measured against the one, gaps to the
    other. None, or "all" among the names: every route and every learner of the table that adapts. Raises SettingsError
    for an unknown name, or a learner that knows seen users only.
    """
    from polypref.learners import LEARNERS, learner

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
            raise SettingsError(f"learner {name!r} knows only users seen in training; it cannot take in new ones.")
    return routes


def _scorer_class(learner: Learner) -> type:
    """What ``fit`` returns, by its annotation."""
    return get_type_hints(type(learner).fit)["return"]


def _serves(learner: Learner) -> str:
    return _scorer_class(learner).serves


def _cells(job: Job, settings: NewSettings) -> dict[str, list[Cell]]:
    """The cells of every route, by the name a reader sees; what has a posterior is also asked for its own order."""
    seeds = range(settings.seeds)
    cells = {}
    for name, learner in job.learners.items():
        cells[name] = [Cell(name, seed) for seed in seeds]
        if settings.asked and issubclass(_scorer_class(learner), Asks):
            cells[name + ASKED] = [Cell(name, seed, True) for seed in seeds]
    return cells


def _run(job: Job, cells: list[Cell], settings: NewSettings) -> int:
    for seed in range(settings.seeds):  # what cannot be cut is said before any work is done
        job.newcomers(seed)
    stored = sum(map(job.is_stored, cells))
    with Progress("", len(cells), "cells", stored=stored, quiet=settings.quiet) as progress:
        return run_cells(job, cells, settings.workers or written.cores(), progress.tell, run)


def _rule(comparisons: Comparisons, settings: NewSettings) -> tuple[Any, str]:
    if settings.split == "auto":
        return choose_rule(comparisons)
    if settings.split not in RULES:
        raise unknown_name("split", settings.split, ("auto", *RULES))
    return settings.split, "chosen by the caller."
