"""``polypref check``: lint preference files before any learning; says which columns were read and what is unused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polypref.arguments import NotNegative
from polypref.cli.shared import MinJudgements, Reads, ensure_files, reading_of
from polypref.errors import NotEnoughData
from polypref.terminal import framed, interactive, out, out_json, tabbed

if TYPE_CHECKING:
    from polypref.data.linting.lint import Lint
    from polypref.data.read import Reading


@dataclass(frozen=True, kw_only=True)
class Check(Reads):
    """Check preference files: what is wrong, how often, one example, and what happens to such rows.

    Exit code 0 if the files can be used, 2 if not.
    """

    rating_gap: NotNegative = 0.0
    """Ratings that differ by less than this are a tie."""
    min_judgements: MinJudgements = 1
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Read, lint, print."""
        from polypref.data.linting.lint import lint
        from polypref.features.long_texts import of_default

        ensure_files(self, self.files, "check FILE")
        reading = reading_of(self, self.files, self.rating_gap)
        found = lint(reading, min_judgements=self.min_judgements)
        summary = summarise(reading, found)
        long = of_default(reading.comparisons.take(~found.dropped_N))
        summary["long_texts"] = None if long is None else long.as_dict()
        if self.json:
            out_json(summary, indent=1)
        else:
            show(summary, reading)
        if found.dropped_N.all():
            raise NotEnoughData(f"{', '.join(reading.files)}: no usable judgement is left, see the findings above.")
        return 0


def unread_ties(files: tuple[str, ...]) -> list[str]:
    """Companion files with ties that are next to the files but were not read."""
    beside = [Path(file).with_name(f"{Path(file).stem}.ties.parquet") for file in files if "://" not in file]
    return [str(path) for path in beside if path.exists() and str(path) not in files]


def remarks(reading: Reading) -> list[str]:
    """Unread companion files and columns, one line each with the flag that reads them."""
    lines = [f"not read: {path} holds ties; add --ties {path}" for path in unread_ties(reading.files)]
    for layout in reading.layouts:
        if "prompt" not in layout.names and layout.unused:
            lines.append(f"no prompt column; if one of the others holds prompts, add --columns prompt=NAME ({layout})")
    return lines


def summarise(reading: Reading, found: Lint) -> dict[str, Any]:
    """The result of the check, JSON-able; ``schema`` changes when a key changes its meaning."""
    from polypref.data.derived import origin

    data = reading.comparisons
    unreadable = sum(problem.count for problem in reading.problems if not problem.kept)
    return {
        "schema": 1,
        "files": list(reading.files),
        "rows_read": reading.rows_read,
        "rows_unreadable": unreadable,
        "judgements": len(data),
        "users": len(data.users),
        "prompts": len(data.responses.prompts),
        "responses": int((~data.responses.bar_R).sum()),
        "ties": 0 if data.tie_N is None else int(data.tie_N.sum()),
        "lists": next((layout.shape for layout in reading.layouts if layout.shape in ("ratings", "rankings")), ""),
        "origin": origin(data.take(~found.dropped_N)).as_dict(),
        "columns": [layout.as_dict() for layout in reading.layouts],
        "rules": list(reading.rules),
        "unread_ties": unread_ties(reading.files),
        **found.as_dict(),
    }


def show(summary: dict[str, Any], reading: Reading) -> None:
    """Print the summary: a table on a terminal, tab-separated lines otherwise."""
    from polypref.wording import are, counted

    for finding in summary["findings"][:1]:
        if finding["name"] == "one-sided labels":
            out(f"warning: one-sided labels: {finding['text']}")
    sizes = ", ".join(counted(summary[name], name) for name in ("judgements", "users", "prompts", "responses", "ties"))
    out(f"{', '.join(summary['files'])}: {counted(summary['rows_read'], 'rows')}; {sizes}")
    for layout in reading.layouts:
        out(f"columns: {layout}")
    for rule in summary["rules"]:
        out(f"read as: {rule}")
    for line in remarks(reading):
        out(line)
    if summary["long_texts"]:
        out(summary["long_texts"]["text"])
    cells = [_cells(finding) for finding in summary["findings"]]
    if interactive():
        titles = ("finding", "how many", "rows are", "description and one example")
        framed(titles, [(name, share, action, f"{text}\n{one}".rstrip()) for name, share, action, text, one in cells])
    else:
        for line in cells:
            tabbed(line)
    rows, unreadable = summary["rows_read"], summary["rows_unreadable"]
    out(f"origin: {summary['origin']['why']}")
    if summary["lists"] or summary["judgements"] > rows:
        made = f"made from {rows - unreadable:,} of {counted(rows, 'rows')}"
        out(
            f"{summary['kept']:,} of {counted(summary['judgements'], 'judgements')}, {made}, "
            f"{are(summary['kept'])} used."
        )
    else:
        out(f"{summary['kept']:,} of {counted(rows, 'rows')} {are(summary['kept'])} used.")


def _cells(finding: dict[str, Any]) -> tuple[str, str, str, str, str]:
    from polypref.wording import counted

    share = f"{finding['count']:,} of {counted(finding['total'], finding['unit'])}"
    return finding["name"], share, finding["action"], finding["text"], finding["example"]
