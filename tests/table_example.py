"""Results as `polypref compare` writes them, and the tables made of them, for the tests of `polypref table`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from polypref.evaluation.collect_results import collect
from polypref.report.paper import tables
from polypref.report.table import Cell, Table

PROFILE_ROW = "| data | #samples |\n|---|---:|\n| data | 400 | 8 | 50 % | unknown | 0.33–0.93 | 0.91 |"


def row(
    learner: str, size: int, value: float | None, cohort: str = "all", metric: str = "accuracy_micro"
) -> dict[str, Any]:
    ends = {"lo": None, "hi": None} if value is None else {"lo": value - 0.02, "hi": value + 0.02}
    counts = {"n_users": 8 if cohort == "all" else 1, "n_comparisons": 80, "seeds": 2}
    return (
        {"learner": learner, "size": size, "cohort": cohort, "metric": metric, "value": value, "se": 0.01}
        | ends
        | counts
    )


def content(figures: dict[str, dict[int, float]], size: int, **changes: Any) -> dict[str, Any]:
    """A results.json, as docs/protocol.md describes it, of learners' accuracies by size."""
    rows = [row(name, n, value) for name, by_size in figures.items() for n, value in by_size.items()]
    for name, by_size in figures.items():
        rows += [row(name, size, by_size[size], cohort, "accuracy_macro") for cohort in ("all", "minority")]
    base = figures["pooled"][size]
    gains = [
        row(name, size, by_size[size] - base) | {"baseline": "pooled", "p": 0.01} for name, by_size in figures.items()
    ]
    return {
        "schema": 1,
        "size": size,
        "sizes": [{"size": n, "per_user": None} for n in figures["pooled"]],
        "baseline": {"learner": "pooled", "valid_accuracy": base, "candidates": {}},
        "rows": rows,
        "gains": [gain for gain in gains if gain["learner"] != "pooled"],
        "serves": {name: "population" if name == "pooled" else "seen_users" for name in figures},
        "selection": {name: [{"valid_accuracy": by_size[size]}] * 2 for name, by_size in figures.items()},
        "profile": {
            "table2": PROFILE_ROW,
            "room": {
                "measured": True,
                "ceiling_lo": 0.9,
                "ceiling_hi": 0.96,
                "population_lo": 0.5,
                "population_hi": 0.6,
            },
        },
    } | changes


def folder(path: Path, what: dict[str, Any], users: int = 0) -> str:
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps(what))
    if users:
        names = list(what["serves"])
        pl.DataFrame(
            {
                "user_id": [f"u{u}" for u in range(users)] * len(names),
                "learner": [name for name in names for _ in range(users)],
                "accuracy": [0.4 + 0.05 * u for u in range(users)] * len(names),
                "verdict": ["better", *["unclear"] * (users - 1)] * len(names),
                "minority": [u == 0 for u in range(users)] * len(names),
            }
        ).write_parquet(path / "users.parquet")
    return str(path)


FIGURES = {
    "pooled": {1000: 0.51, 50_000: 0.49},
    "individual": {1000: 0.75, 50_000: 0.81},
    "finetune:personalized": {1000: 0.56, 50_000: 0.87},
    "hierarchical": {1000: 0.77, 50_000: 0.88},
}


def built(*folders: str, beside: bool = True) -> dict[str, Table]:
    return {table.key: table for table in tables(collect(folders), beside)}


def cell(table: Table, label: str, title: str, group: str | None = None) -> Cell:
    line = next(row for row in table.rows if row.label == label)
    at = [i for i, c in enumerate(table.columns) if c.title == title and group in (None, c.group)]
    assert len(at) == 1, (title, [c.title for c in table.columns])
    return line.cells[at[0]]
