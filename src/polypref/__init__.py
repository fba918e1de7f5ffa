"""polypref: learn, measure and serve the preferences of many different people instead of one average person.

The public names are imported on first use, so that ``import polypref`` is fast:

    read, ReadOptions      files of preferences -> Reading(comparisons, the source of each)
    lint, clean            faults of a reading; its comparisons without faulty rows
    simulate, WORLDS       simulated people with known truth
    encoder                a text encoder by name: minilm, minilm-windows, static, hf:<model>, endpoint:<url>
    LEARNERS               the methods by name; LEARNERS[name].fit(comparisons, encoder=..., seed=0) gives a scorer
    save, load             a fitted scorer to a folder and back
    forget                 the scorer without one person
    profile                the data before any learner: disagreement, consistency, minorities, room
    compare                all learners, person by person, with intervals
    Comparisons, Responses, Users, from_columns    the data types that all functions share
    from_thumbs            likes and dislikes of single responses -> Comparisons
    PolyprefError          base of every error that a user can cause

Everything else is imported from its module, for example ``from polypref.groups import from_attribute``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; a test keeps it equal to PUBLIC
    __version__: str
    from polypref.comparisons import Comparisons, Responses, Users, from_columns
    from polypref.data.linting.lint import clean, lint
    from polypref.data.read import ReadOptions, read
    from polypref.data.thumbs import from_thumbs
    from polypref.errors import PolyprefError
    from polypref.evaluation.comparison import compare
    from polypref.features import encoder
    from polypref.forgetting import forget
    from polypref.learners import LEARNERS
    from polypref.profiling.summary import profile
    from polypref.scorers import load, save
    from polypref.worlds import WORLDS, simulate

PUBLIC: dict[str, str] = {
    "Comparisons": "polypref.comparisons",
    "LEARNERS": "polypref.learners",
    "PolyprefError": "polypref.errors",
    "ReadOptions": "polypref.data.read",
    "Responses": "polypref.comparisons",
    "Users": "polypref.comparisons",
    "WORLDS": "polypref.worlds",
    "clean": "polypref.data.linting.lint",
    "compare": "polypref.evaluation.comparison",
    "encoder": "polypref.features",
    "forget": "polypref.forgetting",
    "from_columns": "polypref.comparisons",
    "from_thumbs": "polypref.data.thumbs",
    "lint": "polypref.data.linting.lint",
    "load": "polypref.scorers",
    "profile": "polypref.profiling.summary",
    "read": "polypref.data.read",
    "save": "polypref.scorers",
    "simulate": "polypref.worlds",
}

__all__ = [
    "LEARNERS",
    "WORLDS",
    "Comparisons",
    "PolyprefError",
    "ReadOptions",
    "Responses",
    "Users",
    "__version__",
    "clean",
    "compare",
    "encoder",
    "forget",
    "from_columns",
    "from_thumbs",
    "lint",
    "load",
    "profile",
    "read",
    "save",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("polypref")
    if name not in PUBLIC:
        raise AttributeError(f"module 'polypref' has no attribute {name!r}; public names: {', '.join(PUBLIC)}")
    value = getattr(import_module(PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
