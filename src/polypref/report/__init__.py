"""The report: one self-contained HTML file that opens offline. It formats what others measured and computes nothing.

    report.write(Path("out"), results, users)   # -> out/report.html

Covered: the page makes no request (its content security policy forbids any), its figures need no JavaScript, and every
text that comes from data is escaped, also inside JSON. Not covered: whether ``results`` are true. A note replaces a
section whose part of ``results`` is absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import polars as pl

__all__ = ["write"]


def write(out: Path, results: Mapping[str, Any], users: pl.DataFrame) -> Path:
    """Write ``out/report.html`` atomically and return its path.

    ``results`` is the content of results.json; ``users`` has one row per (user, learner): user_id, learner, n_train,
    n_test, accuracy, baseline_accuracy, gain, gain_lo, gain_hi, verdict (better | worse | unclear | untested),
    minority (bool); accuracies as shares of 1. Raises CacheError when the folder cannot be written.
    """
    from polypref import files
    from polypref.report.page import render

    files.write(path := out / "report.html", render(results, users))
    return path
