"""``polypref compare``: the main job, from preference files to a report on who gains from personalization."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from polypref.cli.grids import linted
from polypref.cli.shared import Encodes, Reads, ensure_files
from polypref.evaluation.settings import Settings
from polypref.terminal import framed, interactive, out, tabbed
from polypref.wording import MISSING, interval, number, signed

if TYPE_CHECKING:
    from polypref.evaluation.results import Results
    from polypref.evaluation.results_schema import CompareContents

COLUMNS = (
    ("micro", "accuracy_micro", "all"),
    ("macro", "accuracy_macro", "all"),
    ("worst decile", "accuracy_worst_decile", "all"),
    ("minority", "accuracy_macro", "minority"),
    ("log loss", "log_loss", "all"),
)


@dataclass(frozen=True, kw_only=True)
class Compare(Reads, Encodes, Settings):
    """Who gains from personalization, with which learner, and how sure that is.

    Writes report.html, results.json, results.parquet and users.parquet. A run that was stopped goes on where it was.
    """

    out: Path = Path("polypref-report")
    """Folder of the report, the results and the finished cells."""
    learners: tuple[str, ...] = ()
    """Which learners, or "all": docs/learners.md. pooled and pooled-effects always take part."""

    def run(self) -> int:
        """Read, lint, compare, write the report, print the verdict and the table."""
        started = time.perf_counter()
        from polypref.evaluation import compare
        from polypref.evaluation.comparison import named_learners
        from polypref.features import encoder
        from polypref.report import write

        ensure_files(self.files, "compare FILE --out DIR")
        named_learners(self.learners)  # misspelt names are told before a long file is read
        encode = encoder(self.encoder)
        data = linted(self)
        metadata = data.metadata("compare", self)
        settings = Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})
        learners = self.learners or None
        results = compare(data.comparisons, learners, encode, out=self.out, metadata=metadata, settings=settings)
        page = write(self.out, results.content, results.users)
        out(results.verdict["text"])
        data.show(results.contents)
        show(results)
        data.remark()
        out(f"report: {page}")
        out(f"done in {time.perf_counter() - started:.0f} s")
        return 0


def show(results: Results) -> None:
    """Print the table: framed on a terminal, tab-separated lines otherwise."""
    titles, *rows = table_lines(results.contents)
    if interactive():
        framed(titles, rows, right=True)
    else:
        for line in (titles, *rows):
            tabbed(line)


def table_lines(contents: CompareContents) -> list[list[str]]:
    """Header and one line per learner at the full size: metrics, gain over the baseline, users better and worse off."""
    rows, gains, baseline = contents.rows.at_full(), contents.gains.by_learner(), contents.floor or "the baseline"
    few = next((row.n_users for row in rows.where(metric=COLUMNS[3][1], cohort=COLUMNS[3][2])), 0)
    titles = [f"{title} (n = {few})" if cohort != "all" else title for title, _, cohort in COLUMNS]
    lines = [["learner", *titles, f"gain over {baseline}", "95 % interval", "better", "worse"]]
    for learner in rows.learners:
        found = [rows.at(learner, metric, cohort) for _, metric, cohort in COLUMNS]
        line = [learner, *(number(row and row.value) for row in found)]
        gain = gains.get(learner)
        if gain is None or gain.value is None:
            line += ["baseline" if learner == baseline else MISSING, ""]
        else:
            line += [signed(gain.value), interval(gain.ends, signed)]
        counted = contents.counts(learner)
        lines.append([*line, *(MISSING if counted[key] is None else str(counted[key]) for key in ("better", "worse"))])
    return lines
