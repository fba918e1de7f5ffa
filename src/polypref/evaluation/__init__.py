"""Comparing learners person by person: cells, metrics, intervals, verdict."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Worker processes also import this package and need none of these.
PUBLIC = {
    "Results": "polypref.evaluation.results",
    "Settings": "polypref.evaluation.settings",
    "compare": "polypref.evaluation.comparison",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(PUBLIC)}")
    return getattr(import_module(PUBLIC[name]), name)
