"""Who gains and who loses: one panel per learner with its figures, and the compact data that the pointer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from polypref import wording
from polypref.evaluation.named_learner import named_learner
from polypref.evaluation.results_schema import CompareContents
from polypref.report.figures import VERDICTS, Axis, amount_axis, amounts, gains, span
from polypref.report.leaderboard import baseline_name

SCHEMA = {
    "user_id": pl.String,
    "learner": pl.String,
    "n_train": pl.Float64,
    "n_test": pl.Float64,
    "accuracy": pl.Float64,
    "baseline_accuracy": pl.Float64,
    "gain": pl.Float64,
    "gain_lo": pl.Float64,
    "gain_hi": pl.Float64,
    "verdict": pl.String,
    "minority": pl.Boolean,
}
NAMED = 12  # users listed by name among those better and worse off


def tidy(users: pl.DataFrame) -> pl.DataFrame:
    """The table with the documented columns and types; absent columns and NaN are unknown (null)."""
    columns = [
        (pl.col(name) if name in users.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in SCHEMA.items()
    ]
    table = users.select(columns).with_columns(pl.col(pl.Float64).fill_nan(None))
    verdict = pl.when(pl.col("verdict").is_in(VERDICTS)).then("verdict").otherwise(pl.lit("untested")).alias("verdict")
    return table.with_columns(verdict, pl.col("minority").fill_null(False))


def thousandths(column: pl.Series) -> list[int | None]:
    """Shares as whole thousandths, which take half the bytes of decimals."""
    return (column * 1000).round().cast(pl.Int32).to_list()


def pointer_data(people: pl.DataFrame, number_of: pl.DataFrame) -> dict[str, list]:
    """What the pointer reads, in the order of the gain figure: user numbers, counts, and shares in thousandths."""
    return {
        "user": people.join(number_of, on="user_id", how="left", maintain_order="left")["number"].to_list(),
        "train": people["n_train"].cast(pl.Int64).to_list(),
        "test": people["n_test"].cast(pl.Int64).to_list(),
        **{name: thousandths(people[name]) for name in ("accuracy", "gain", "gain_lo", "gain_hi")},
        "minority": people["minority"].cast(pl.Int8).to_list(),
        "verdict": people["verdict"].replace_strict({v: i for i, v in enumerate(VERDICTS)}).to_list(),
    }


def visible(people: pl.DataFrame) -> Axis:
    """An axis that shows every gain, and all intervals except the longest of the unclear users."""
    sure = people.filter(pl.col("verdict").is_in(["better", "worse"]))
    ends = [
        people["gain"].min(),
        people["gain"].max(),
        people["gain_lo"].quantile(0.1),
        people["gain_hi"].quantile(0.9),
        sure["gain_lo"].min(),
        sure["gain_hi"].max(),
    ]
    return span([end for end in ends if isinstance(end, float)], include=(0.0,))


def accuracies(people: pl.DataFrame) -> Axis:
    """An axis that shows every user's accuracy."""
    return span(people.select("accuracy", "baseline_accuracy").drop_nulls().to_numpy(), include=(0.5,))


def panel(learner: str, table: pl.DataFrame, amount: Axis, baseline: str) -> dict[str, Any]:
    """One learner: its counts, its two figures, and the names of users significantly better or worse off."""
    own = table.filter(pl.col("learner") == learner)
    people = own.filter(pl.col("gain").is_not_null()).sort("gain", "user_id")
    counts = {verdict: int((own["verdict"] == verdict).sum()) for verdict in VERDICTS}
    known = people.filter(pl.col("n_train").is_not_null() & pl.col("accuracy").is_not_null())
    named = {
        verdict: own.filter(pl.col("verdict") == verdict).sort("gain", descending=verdict == "better")["user_id"]
        for verdict in ("worse", "better")
    }
    return {
        "learner": learner,
        "people": people,
        "counts": counts,
        "without_gain": len(own) - len(people),
        "minority": int(own["minority"].sum()),
        "gains": gains(people, visible(people), learner, baseline) if len(people) else None,
        "amounts": amounts(known, amount, accuracies(known), learner, baseline) if len(known) else None,
        "named": {v: {"ids": ids[:NAMED].to_list(), "more": max(0, len(ids) - NAMED)} for v, ids in named.items()},
    }


def people_section(contents: CompareContents, users: pl.DataFrame, learners: Sequence[str]) -> dict[str, Any] | None:
    """A panel for each learner with per-user gains, and the pointer's data; None if no user has a gain."""
    table = tidy(users)
    measured = table.filter(pl.col("gain").is_not_null())
    if measured.is_empty() or not (contents.floor or contents.gains):
        return None
    baseline, named = baseline_name(contents), named_learner(contents)
    present = measured["learner"].unique(maintain_order=True).to_list()
    # A learner that never differs from the baseline, such as the baseline itself, gets no panel.
    moved = set(measured.filter(pl.col("gain") != 0)["learner"].unique().to_list())
    order = [name for name in learners if name in present] + [name for name in present if name not in learners]
    shown = [name for name in order if name in moved and name != baseline] or order[:1]
    amount = measured["n_train"].drop_nulls()
    axis = amount_axis(amount.to_numpy() if len(amount) else np.ones(1))
    panels = [panel(name, table, axis, baseline) for name in shown]
    ids = table.select("user_id").unique(maintain_order=True).with_row_index("number")
    data = {
        "ids": [wording.visible(user) for user in ids["user_id"]],
        "verdicts": list(VERDICTS),
        "learners": [pointer_data(p.pop("people"), ids) for p in panels],
    }
    return {
        "panels": panels,
        "unmoved": [name for name in order if name not in shown and name != baseline],
        "open": named if named in shown else shown[0],
        "data": data,
        "baseline": baseline,
    }
