"""Shared by ``compare`` and ``adapt``: reads and lints, adds metadata to the results, prints what was used."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from polypref.cli.shared import Reads, reading_of
from polypref.terminal import out

if TYPE_CHECKING:
    from polypref.comparisons import Comparisons
    from polypref.data.linting.lint import Lint
    from polypref.data.read import Reading
    from polypref.evaluation.results_schema import Contents


@dataclass(frozen=True)
class Linted:
    """A command's files as read, and the linter's findings."""

    reading: Reading
    lint: Lint

    @property
    def comparisons(self) -> Comparisons:
        """The comparisons without the rows that the linter drops."""
        from polypref.data.linting.lint import clean

        return clean(self.reading, self.lint)

    def metadata(self, name: str, command: Reads) -> dict[str, Any]:
        """For the results: the files, the findings, and how to reproduce them by command ``name``."""
        reading = self.reading
        data = {
            "files": list(reading.files),
            "rows_read": reading.rows_read,
            "read_as": list(reading.rules),
            "columns": [layout.as_dict() for layout in reading.layouts],
        }
        findings = [asdict(finding) for finding in self.lint.findings]
        return {"data": data, "findings": findings, "reproduce": {"command": command_line(name, command)}}

    def show(self, contents: Contents) -> None:
        """Print what was compared, what was dropped, and who was left out."""
        from polypref.wording import code, counted

        data, split = contents.data, contents.split
        out(
            f"{counted(data['n_comparisons'], 'judgements')} by {counted(data['n_users'], 'users')}, features from "
            f"{code(contents.encoder['name'])}, split by {split['rule']}: {split['why']}"
        )
        if data["users_left_out"]:
            out(
                f"left out: {counted(data['users_left_out'], 'users')} with fewer than "
                f"{counted(data['min_judgements'], 'judgements')} "
                f"({counted(data['comparisons_left_out'], 'judgements')})"
            )

    def remark(self) -> None:
        """Print unread companion files and columns."""
        from polypref.cli.check import remarks

        for line in remarks(self.reading):
            out(line)


def linted(command: Reads) -> Linted:
    """Read and lint the command's files."""
    from polypref.data import given

    reading = reading_of(command, command.files)
    return Linted(reading, given.linted(reading))


def command_line(name: str, command: Reads, kept: Collection[str] | None = None) -> str:
    """The command ``name`` with every setting of ``command`` that is not the default, from flags or a file.

    ``kept`` names the settings that this command has, if it is another one.
    """
    words = ["polypref", name, *command.files]
    for f in fields(command):
        value = getattr(command, f.name)
        if f.name in ("files", "force") or value == f.default or (kept is not None and f.name not in kept):
            continue
        flag = f.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)
