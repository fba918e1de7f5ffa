"""The main job: every learner on the same cuts of the same judgements, person by person, with intervals.

keep users -> choose the split -> encode (once) -> cells -> figures -> results
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from polypref.comparisons import Comparisons
from polypref.data.linting.lint import ensure_learnable
from polypref.data.split import RULES, TEST_SHARE, VALID_SHARE, Rule, choose_rule
from polypref.errors import SettingsError, unknown_name
from polypref.evaluation import results as written
from polypref.evaluation.cells import Job
from polypref.evaluation.cohorts import Kept, keep_users
from polypref.evaluation.measure import measure, run_arms
from polypref.evaluation.results import Results
from polypref.evaluation.settings import Settings, with_overrides
from polypref.features import encoder as encoder_by_name
from polypref.features.encoded import encode_once
from polypref.features.protocol import Encoder
from polypref.files import made, temporary
from polypref.learners.protocol import Learner
from polypref.progress import silent

# Gains need a population learner; where texts come back in test pairs, the one that remembers them is the fair one.
POPULATION = ("pooled", "pooled-effects")


def compare(
    comparisons: Comparisons,
    learners: Sequence[str] | Mapping[str, Learner] | None = None,
    encoder: str | Encoder = "minilm",
    *,
    out: Path | str | None = None,
    facts: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    **overrides: Any,
) -> Results:
    """Compare learners on ``comparisons``; returns the results and, with ``out``, writes them there.

    ``learners``   names, or your own learners by name; default: STANDARD. When names are given, the population learners
                   of POPULATION take part anyway: gains are measured against the better of them.
    ``out``        folder of results.json, results.parquet, users.parquet and the stored cells; a second run goes on.
    ``facts``      more to put into the results (files, findings, reproduce).
    ``overrides``  single settings by name: ``compare(comparisons, seeds=3)``.

    Raises SettingsError, NotEnoughData, CacheError, what an encoder raises, and PolyprefError when cells failed.
    """
    settings = with_overrides(settings or Settings(), overrides)
    chosen = named_learners(learners)
    started = time.perf_counter()
    kept = keep_users(comparisons, settings.min_judgements)
    ensure_learnable(kept.comparisons)
    rule, why = _rule(kept.comparisons, settings)
    text_encoder = encoder_by_name(encoder) if isinstance(encoder, str) else encoder
    with temporary() as own:
        folder = made((own if out is None else Path(out)) / "cells")
        with silent(settings.quiet):
            encoded = encode_once(text_encoder, kept.comparisons.responses, own)
        timing = {"encode_seconds": time.perf_counter() - started}
        job = Job(kept.comparisons, encoded, chosen, rule, folder)
        arms = run_arms(job, settings)
        figures, users = measure(job, settings, arms)
    content = {
        "schema": written.SCHEMA,
        "data": _data(kept),
        "encoder": {"name": text_encoder.name, "identity": text_encoder.identity},
        "split": {"rule": rule, "why": why} | _sides(job, settings),
        **figures,
        "settings": asdict(settings) | {"learners": {name: _described(learner) for name, learner in chosen.items()}},
        "versions": written.versions(),
        "machine": written.machine(),
        "timing": timing | arms.timing | {"total_seconds": time.perf_counter() - started},
    }
    for key, value in (facts or {}).items():
        content[key] = content[key] | value if isinstance(content.get(key), dict) else value
    results = Results(written.plain(content), users)
    if out is not None:
        results.write(Path(out))
    return results


def named_learners(learners: Sequence[str] | Mapping[str, Learner] | None) -> dict[str, Learner]:
    """Learners by name: those of the table in its order, then those with a model; "all" names the whole table.

    Raises SettingsError for an unknown name or an empty mapping.
    """
    if isinstance(learners, Mapping):
        if not learners:
            raise SettingsError("no learner was given; expected at least one.")
        return dict(learners)
    from polypref.learners import LEARNERS, STANDARD
    from polypref.scorers import learner

    names = [learners] if isinstance(learners, str) else list(learners or STANDARD)
    if "all" in names:
        names = [*LEARNERS, *(name for name in names if name != "all")]
    found = {name: learner(name) for name in [*filter(LEARNERS.__contains__, POPULATION), *names]}
    order = {name: at for at, name in enumerate(LEARNERS)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _rule(comparisons: Comparisons, settings: Settings) -> tuple[Rule, str]:
    if settings.split == "auto":
        return choose_rule(comparisons)
    if settings.split not in RULES:
        raise unknown_name("split", settings.split, ("auto", *RULES))
    return settings.split, "chosen by the caller."


def _described(learner: Learner) -> dict[str, Any]:
    return {"class": type(learner).__qualname__} | asdict(learner)  # type: ignore[call-overload]


def _sides(job: Job, settings: Settings) -> dict[str, float]:
    """Shares held out, and rows per side on average over the seeds; rows that mix held-out and kept texts drop."""
    parts = [job.parts(seed) for seed in range(settings.seeds)]
    rows = {
        "train": [len(p.train_rows) for p in parts],
        "valid": [len(p.valid_rows) for p in parts],
        "test": [len(p.test_rows) for p in parts],
        "dropped": [p.dropped for p in parts],
    }
    shares = {"test_share": TEST_SHARE[job.rule], "valid_share": VALID_SHARE[job.rule]}
    return shares | {side: round(float(np.mean(counted))) for side, counted in rows.items()}


def _data(kept: Kept) -> dict[str, Any]:
    """What was compared: counts after users with too few judgements were left out."""
    c = kept.comparisons
    used = np.unique(np.concatenate([c.chosen_N, c.rejected_N]))
    return {
        "hash": c.content_hash,
        "n_users": len(np.unique(c.user_N)),
        "n_comparisons": len(c),
        "n_ties": 0 if c.tie_N is None else int(c.tie_N.sum()),
        "n_pairs": len(np.unique(c.pair_key_N)),
        "n_responses": len(used),
        "n_prompts": len(np.unique(c.responses.prompt_R[used])),
        "min_judgements": kept.min_judgements,
        "users_left_out": kept.users_dropped,
        "comparisons_left_out": kept.rows_dropped,
    }
