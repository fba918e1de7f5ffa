"""``polypref leaderboard``: which system is best for the population, each group and each person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from polypref.cli.grids import command_line
from polypref.cli.shared import MinJudgements, Reads, Seeded, WritesFolder, ensure_files, limits_of, reading_of
from polypref.files import write, write_json
from polypref.terminal import columns, out, say

if TYPE_CHECKING:
    from polypref.comparisons import Comparisons

SHOWN = 15


@dataclass(frozen=True, kw_only=True)
class Leaderboard(WritesFolder, Reads, Seeded):
    """Rank language models, or any systems, for the population, groups and persons: docs/leaderboard.md.

    Reads judgements of pairs whose rows name the system of each response. Writes leaderboard.html and leaderboard.json.
    """

    out: Path = Path("polypref-leaderboard")
    """Folder for leaderboard.html and leaderboard.json."""
    systems: Annotated[
        tuple[str, ...],
        arg(
            metavar="NAME NAME",
            help_behavior_hint="(default: chosen_model and rejected_model, or model_a and model_b)",
        ),
    ] = ()
    """The two columns, or keys of attributes, that name the systems: of chosen and rejected, or of sides a and b."""
    groups: Annotated[str | None, arg(metavar="NAME|DIR", help_behavior_hint="(default: none)")] = None
    """A table for each group: a key of the users' attributes, or a folder written by polypref groups."""
    style: bool = True
    """Also rank with the style of the responses held equal."""
    min_judgements: MinJudgements = 10

    def writes(self) -> tuple[str, ...]:
        """The page and the results."""
        return ("leaderboard.html", "leaderboard.json")

    def run(self) -> int:
        """Read, rank, write, print."""
        from importlib.metadata import version

        from polypref.leaderboard import Settings, battles_of, leaderboard
        from polypref.report.systems import page

        ensure_files(self, self.files, "leaderboard FILE --out DIR")
        reading = reading_of(self, self.files)
        battles, comparisons, names = battles_of(reading, self.systems, limits_of(self), self.style)
        if not self.systems:
            say(f"systems: from {names[0]} and {names[1]}; --systems names other columns.")
        found = leaderboard(battles, comparisons, self._groups(comparisons), Settings(self.min_judgements, self.seed))
        found = {
            "schema": 1,
            "data": {"files": list(self.files), "hash": comparisons.content_hash, "columns": list(names)},
            "settings": {"min_judgements": self.min_judgements, "seed": self.seed, "groups": self.groups},
            **found,
            "reproduce": {"command": command_line("leaderboard", self)},
            "versions": {"polypref": version("polypref")},
        }
        write(self.out / "leaderboard.html", page(found))
        write_json(self.out / "leaderboard.json", found)
        _show(found)
        out(f"report: {self.out / 'leaderboard.html'}")
        return 0

    def _groups(self, comparisons: Comparisons) -> list[str] | None:
        """The group of each user."""
        from polypref.groups import Grouping, from_attribute

        if self.groups is None:
            return None
        if Path(self.groups).is_dir():
            grouping = Grouping.load(self.groups)
        else:
            grouping = from_attribute(comparisons.users, self.groups)
        return grouping.of(comparisons.users.ids)


def _show(found: dict[str, Any]) -> None:
    """Print the answer, the population's table, and what style and position are worth."""
    from polypref.answers import wrapped
    from polypref.report.systems import sentences
    from polypref.wording import are, counted, interval, signed

    for sentence in sentences(found):
        out(*wrapped(sentence))
    out()
    rows = found["rows"][:SHOWN]
    lines = [
        (row["system"], signed(row["strength"], 2), interval(row, signed), f"{row['best_rank']}-{row['worst_rank']}")
        for row in rows
    ]
    columns(("system", "strength", "interval", "ranks"), lines)
    if more := len(found["rows"]) - len(rows):
        out(f"{counted(more, 'other systems')} {are(more)} on the page.")
    if found["coefficients"]:
        out("", "Log-odds of what is not the system:")
        told = [(row["name"], signed(row["value"]), interval(row, signed)) for row in found["coefficients"]]
        columns(("covariate", "value", "interval"), told)
    out()
