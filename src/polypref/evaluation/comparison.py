"""``compare``: every learner on the same splits of the same judgements, person by person, with intervals.

keep users -> choose the split -> encode (once) -> cells -> figures -> results
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polypref.arguments import expect
from polypref.comparisons import Comparisons
from polypref.data.given import comparisons_of
from polypref.errors import SettingsError
from polypref.evaluation.answer import answer_of
from polypref.evaluation.cells import Job
from polypref.evaluation.grid_setup import POPULATION, prepare
from polypref.evaluation.measure import measure, run_arms
from polypref.evaluation.results import Results
from polypref.evaluation.results_schema import CompareContents
from polypref.evaluation.settings import Settings, replaced
from polypref.features.protocol import Encoder
from polypref.files import held_for_run
from polypref.learners.protocol import Learner


def compare(
    comparisons: Comparisons,
    learners: Sequence[str] | Mapping[str, Learner] | None = None,
    encoder: str | Encoder = "minilm",
    *,
    out: Path | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    **overrides: Any,
) -> Results:
    """Compare learners on ``comparisons``; returns the results and, with ``out``, writes them there.

    ``learners``   names, or your own learners by name; default: STANDARD. With names, the population learners of
                   POPULATION always take part: gains are measured against the better of them.
    ``out``        folder of results.json, results.parquet, users.parquet and the stored cells; another run resumes.
    ``metadata``   additions to the results (files, findings, reproduce).
    ``overrides``  single settings by name: ``compare(comparisons, seeds=3)``.

    Raises SettingsError (also if another run is writing ``out``), NotEnoughData, CacheError, the encoder's errors, and
    PolyprefError if cells failed.
    """
    comparisons = comparisons_of(comparisons)
    settings = replaced(settings or Settings(), overrides)
    chosen = named_learners(learners)
    prepared = prepare(comparisons, encoder, settings)
    with held_for_run(out):
        with prepared.encoded(out) as (encoded, folder):
            timing = {"encode_seconds": time.perf_counter() - prepared.started}
            job = Job(prepared.comparisons, encoded, chosen, prepared.rule, folder)
            arms = run_arms(job, settings)
            figures, users = measure(job, settings, arms)
        contents = CompareContents(
            **figures, **prepared.metadata(chosen, _sides(job, settings.seeds), timing | arms.timing)
        )
        contents = contents.with_metadata(metadata or {})
        results = Results(replace(contents, answer=answer_of(contents).as_dict()), users)
        if out is not None:
            results.write(Path(out))
    return results


def named_learners(learners: Sequence[str] | Mapping[str, Learner] | None) -> dict[str, Learner]:
    """Learners by name: registered ones in their order, then those with a model; "all" means all registered ones.

    Raises SettingsError for an unknown name or an empty mapping.
    """
    if isinstance(learners, Mapping):
        if not learners:
            raise SettingsError("no learner was given; expected at least one.")
        return dict(learners)
    from polypref.learners import LEARNERS, STANDARD
    from polypref.scorers import learner

    names = expect("learners", [learners] if isinstance(learners, str) else learners or STANDARD, tuple[str, ...])
    if "all" in names:
        names = [*LEARNERS, *(name for name in names if name != "all")]
    found = {name: learner(name) for name in [*filter(LEARNERS.__contains__, POPULATION), *names]}
    order = {name: at for at, name in enumerate(LEARNERS)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _sides(job: Job, seeds: int) -> dict[str, list[int]]:
    """Rows per side under each seed; rows that mix held-out and kept texts are dropped."""
    parts = [job.parts(seed) for seed in range(seeds)]
    rows = {side: [len(getattr(part, f"{side}_rows")) for part in parts] for side in ("train", "valid", "test")}
    return rows | {"dropped": [part.dropped for part in parts]}
