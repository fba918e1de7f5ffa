"""Shared setup of every grid of cells: kept users, split rule, texts encoded once, metadata of the results.

``compare`` measures people the learners have seen, ``newcomers`` new ones; both use this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from polypref.comparisons import Comparisons
from polypref.data.derived import origin
from polypref.data.linting.lint import ensure_learnable
from polypref.data.split import TEST_SHARE, VALID_SHARE, EmptySide, Rows, Rule, choose_rule, split
from polypref.data.thumbs import tested
from polypref.data.zero_weight import counted
from polypref.evaluation.cohorts import Kept, keep_users
from polypref.evaluation.settings import GridSettings
from polypref.features import encoder as encoder_by_name
from polypref.features.encode_once import Encoded, encode_once
from polypref.features.protocol import Encoder, ensure_encoder, read_by
from polypref.files import OTHER_OUT, made, temporary
from polypref.learners.protocol import Learner
from polypref.progress import Progress
from polypref.runs.execute import run_cells
from polypref.runs.machine import cores, machine, versions
from polypref.terminal import silent


class _HasTestRows(Protocol):
    @property
    def test_rows(self) -> Rows: ...


Cut = Callable[[Comparisons, Rule, int], _HasTestRows]

# Gains need a population learner; where texts come back in test pairs, the one that remembers them is the fair one.
POPULATION = ("pooled", "pooled-effects")


@dataclass(frozen=True)
class Prepared:
    """The judgements to compare, the split's ``rule`` and its reason ``why``, the encoder; ``started`` in seconds."""

    kept: Kept
    rule: Rule
    why: str
    encoder: Encoder
    settings: GridSettings
    started: float = field(default_factory=time.perf_counter)

    @property
    def comparisons(self) -> Comparisons:
        """The judgements of the users who take part."""
        return self.kept.comparisons

    @contextmanager
    def encoded(self, out: Path | str | None) -> Iterator[tuple[Encoded, Path]]:
        """The encoder with the pool's features loaded, and the folder of the cells: within ``out``, or temporary."""
        with temporary() as own, silent(self.settings.quiet):
            folder = made((own if out is None else Path(out)) / "cells", OTHER_OUT)
            yield encode_once(self.encoder, self.comparisons.responses, own), folder

    def metadata(
        self, learners: Mapping[str, Learner], rows: Mapping[str, Sequence[int]], timing: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The keys of the results that are not measured; ``rows`` are the counts per side under each seed."""
        sides = {side: round(float(np.mean(counted))) for side, counted in rows.items()}
        shares = {"test_share": TEST_SHARE[self.rule], "valid_share": VALID_SHARE[self.rule]}
        described = {name: {"class": type(one).__qualname__} | asdict(one) for name, one in learners.items()}  # type: ignore[call-overload]
        return {
            "data": _data(self.kept),
            "encoder": {
                "name": self.encoder.name,
                "identity": self.encoder.identity,
                "features": read_by(self.encoder),
            },
            "split": {"rule": self.rule, "why": self.why} | shares | sides,
            "settings": asdict(self.settings) | {"learners": described},
            "versions": versions(),
            "machine": machine(),
            "timing": {**timing, "total_seconds": time.perf_counter() - self.started},
        }


def prepare(comparisons: Comparisons, encoder: str | Encoder, settings: GridSettings, cut: Cut = split) -> Prepared:
    """Keep the users with enough judgements and choose the rule of the split, one by which all seeds can be ``cut``.

    Raises NotEnoughData if nothing can be learned or no rule fills the sides, SettingsError for an unknown rule or
    encoder.
    """
    started = time.perf_counter()
    text_encoder = encoder_by_name(encoder) if isinstance(encoder, str) else encoder
    ensure_encoder(text_encoder)
    kept = keep_users(counted(comparisons), settings.min_judgements)
    ensure_learnable(kept.comparisons)
    c = kept.comparisons

    def cuts(rule: Rule) -> None:
        for seed in range(settings.seeds):
            tested(c, cut(c, rule, seed).test_rows)

    if settings.split == "auto":
        rule, why = choose_rule(c, cuts)
    else:
        rule, why = settings.split, "chosen by the caller."
        _ensure_cuts(c, rule, cuts)
        if rule == "pair" and (made := origin(c)).dependent:
            why = f"chosen by the caller, although {made.why}."
    return Prepared(kept, rule, why, text_encoder, settings, started)


def _ensure_cuts(comparisons: Comparisons, rule: Rule, cuts: Callable[[Rule], object]) -> None:
    """Raise EmptySide if the rule that was asked for leaves a side empty; it names the rule that does not, if any."""
    try:
        cuts(rule)
    except EmptySide as error:
        try:
            other, _ = choose_rule(comparisons, cuts)
        except EmptySide:
            raise error from None
        raise EmptySide(f"{error} --split auto splits these by {other}.", error.lack) from error


def run_grid(job: Any, label: str, groups: Sequence[Sequence[Any]], settings: GridSettings, run: Callable) -> int:
    """Run the cells that are not stored; returns how many.

    The last learners of the registry cost most and start first, so that no worker idles.
    """
    cells = [cell for group in reversed(groups) for cell in group]
    stored = sum(map(job.is_stored, cells))
    with Progress("", len(cells), label, stored=stored, quiet=settings.quiet) as progress:
        return run_cells(job, cells, settings.workers or cores(), progress.tell, run)


def _data(kept: Kept) -> dict[str, Any]:
    """Counts of the compared data, without users who have too few judgements."""
    c = kept.comparisons
    used = np.unique(np.concatenate([c.chosen_N, c.rejected_N]))
    return {
        "hash": c.content_hash,
        "n_users": len(np.unique(c.user_N)),
        "n_comparisons": len(c),
        "n_ties": 0 if c.tie_N is None else int(c.tie_N.sum()),
        "n_pairs": len(np.unique(c.pair_key_N)),
        "n_responses": int((~c.responses.bar_R[used]).sum()),
        "n_prompts": len(np.unique(c.responses.prompt_R[used])),
        "min_judgements": kept.min_judgements,
        "users_left_out": kept.users_dropped,
        "comparisons_left_out": kept.rows_dropped,
    }
