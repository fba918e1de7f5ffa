"""What functions of Python accept as judgements: Comparisons, a Reading, or anything that ``read`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polypref.comparisons import Comparisons
from polypref.data.files.tables import EXPECTED, is_table
from polypref.data.linting.bias import one_sided
from polypref.data.linting.lint import Lint, clean, lint
from polypref.data.read import Reading, read
from polypref.errors import InputError
from polypref.terminal import say
from polypref.wording import counted, shown


def comparisons_of(data: Any, name: str = "comparisons") -> Comparisons:
    """``data`` as Comparisons; rows that the linter drops are left out, as in every command, and a line says so.

    ``data``  Comparisons, which are returned as they are; a Reading; a path or paths; or rows, see ``read``.

    Raises InputError for anything else, and for rows that cannot be used.
    """
    if isinstance(data, Comparisons):
        return data
    if not isinstance(data, Reading):
        paths = data if isinstance(data, list | tuple) else [data]
        if not is_table(data) and not (paths and all(isinstance(path, str | Path) for path in paths)):
            raise InputError(
                f"{name} is {shown(data)}; expected Comparisons, which from_columns(...) and clean(reading, "
                f"lint(reading)) return, a Reading, a path, or rows: {EXPECTED}."
            )
        data = read(data)
    return clean(data, linted(data))


def linted(reading: Reading) -> Lint:
    """What the linter finds; how the rows are read and which are left out is said, unless nothing is left."""
    found = lint(reading)
    if not found.dropped_N.all():
        say_how(reading)
        _say_dropped(found)
    return found


def say_how(reading: Reading) -> None:
    """Say on standard error what is odd about the labels as a whole, what they mean, and which rows cannot be read."""
    if (found := one_sided(reading)) is not None:
        say(f"warning: one-sided labels: {found[2]}")
    for rule in reading.rules:
        say(f"read as: {rule}")
    for problem in reading.problems:
        what = "kept without a value" if problem.kept else "dropped"
        say(f"{what}: {counted(problem.count, 'rows')} ({problem.name}); {problem.text}")


def _say_dropped(found: Lint) -> None:
    """Say on standard error which rows the linter leaves out."""
    unreadable = {problem.name for problem in found.reading.problems}
    for finding in found.findings:
        if finding.action == "dropped" and finding.name not in unreadable:
            say(f"dropped: {counted(finding.count, finding.unit)} ({finding.name}); {finding.text}")
