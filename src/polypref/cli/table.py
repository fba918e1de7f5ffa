"""``polypref table``: the evaluation paper's tables from result folders, with its published figures beside ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from polypref.cli.shared import WritesFolder
from polypref.files import write
from polypref.terminal import document, out

Folders = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    arg(
        metavar="FOLDER ...",
        help="Folders that polypref compare wrote, each FOLDER or NAME=FOLDER; the name is the data set's.",
        help_behavior_hint="(one or more)",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Table(WritesFolder):
    """Combine result folders in the evaluation paper's tables, with its figures in grey beside ours.

    Writes tables.md, tables.tex and tables.html, and prints the first. A folder named psoups, tldr or personalllm, or
    after the world that imitates one (psoups-like), is matched to that published set. docs/tables.md explains what is
    compared.
    """

    folders: Folders
    out: Path = Path("tables")
    """Folder of the three files."""
    published: bool = True
    """Show the published figures."""
    intervals: bool = False
    """Print the 95 % intervals of our figures; the HTML page always has them as tooltips."""

    def writes(self) -> tuple[str, ...]:
        """The tables."""
        return ("tables.md", "tables.tex", "tables.html")

    def run(self) -> int:
        """Read the folders, build the tables, write and print them."""
        from polypref.evaluation.collect_results import collect
        from polypref.report.paper import legend, tables
        from polypref.report.table import html, latex, markdown

        built, head = tables(collect(self.folders), self.published), legend(self.published)
        texts = {
            "tables.md": markdown(built, head, self.intervals),
            "tables.tex": latex(built, head, self.intervals),
            "tables.html": html(built, head, self.intervals),
        }
        for name, text in texts.items():
            write(self.out / name, text)
        document(texts["tables.md"])
        out(f"tables: {', '.join(str(self.out / name) for name in texts)}")
        return 0
