"""What a comparison leaves behind: ``results.json`` (schema 1), ``results.parquet`` and ``users.parquet``.

``results.json`` is an interface for other programs: keys are added, never renamed or removed, within a schema number.
docs/protocol.md describes every key. It holds no NaN: what is not known is null.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

from polypref.files import write_json, write_table

SCHEMA = 1
PACKAGES = ("polypref", "numpy", "scipy", "polars", "torch", "transformers", "sentence-transformers")
ROW_SCHEMA: dict[str, Any] = {
    "learner": pl.String,
    "size": pl.Int64,
    "cohort": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "lo": pl.Float64,
    "hi": pl.Float64,
    "se": pl.Float64,
    "n_users": pl.Int64,
    "n_comparisons": pl.Int64,
    "seeds": pl.Int64,
}


@dataclass(frozen=True, eq=False)
class Results:
    """``content`` is what results.json holds; ``users`` one row per (user, learner), the content of users.parquet."""

    content: dict[str, Any]
    users: pl.DataFrame

    def __repr__(self) -> str:
        """The verdict and the sizes; everything else is in ``content``, ``rows`` and ``users``."""
        data = self.content.get("data", {})
        learners = dict.fromkeys(row["learner"] for row in self.content["rows"])
        sizes = f"{data.get('n_comparisons', '?')} judgements, {data.get('n_users', '?')} users"
        return f"<Results: {sizes}, learners {', '.join(learners)}. {self.content['verdict']['text']}>"

    @property
    def verdict(self) -> dict[str, str]:
        """``{"room": "yes" | "no" | "unclear", "best": learner, "text": two sentences}``."""
        return self.content["verdict"]

    @property
    def rows(self) -> pl.DataFrame:
        """The table as a frame: one row per learner, size, cohort and metric; the content of results.parquet."""
        return pl.DataFrame(self.content["rows"], schema=ROW_SCHEMA)

    def value(self, learner: str, metric: str = "accuracy_micro", cohort: str = "all") -> float | None:
        """One figure at the full training size."""
        for row in self.content["rows"]:
            if (row["learner"], row["metric"], row["cohort"]) == (learner, metric, cohort) and (
                row["size"] == self.content["size"]
            ):
                return row["value"]
        raise KeyError(f"no row for {learner}, {metric}, {cohort}")

    def write(self, out: Path) -> None:
        """Write the three files to ``out``, each whole or not at all. Raises CacheError when they cannot be written."""
        write_table(out / "results.parquet", self.rows)
        write_table(out / "users.parquet", self.users)
        write_json(out / "results.json", self.content)


def plain(content: Any) -> Any:
    """The same as JSON types; a number that is not finite becomes None."""
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if hasattr(content, "item") and not isinstance(content, str):  # a numpy scalar
        content = content.item()
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Path):
        return str(content)
    return content


def versions() -> dict[str, str]:
    """Versions of what decides the figures."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Cores and memory of this machine, and its kind."""
    import platform

    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        memory = None
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": cores(),
        "memory_gib": None if memory is None else round(memory, 1),
    }


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
