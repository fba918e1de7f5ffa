"""``polypref compare``: from preference files to a report on who gains from personalization."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from pathlib import Path

from polypref.cli.compare_summary import show
from polypref.cli.grids import linted
from polypref.cli.shared import Encodes, Reads, WritesFolder, ensure_files
from polypref.evaluation.settings import Settings
from polypref.terminal import out

WRITES = ("cells", "report.html", "results.json", "results.parquet", "users.parquet")


@dataclass(frozen=True, kw_only=True)
class Compare(WritesFolder, Reads, Encodes, Settings):
    """Who gains from personalization, with which learner, and how certain that is.

    Writes report.html, results.json, results.parquet and users.parquet. An interrupted run resumes where it stopped.
    """

    out: Path = Path("polypref-report")
    """Folder of the report, the results and the finished cells."""
    learners: tuple[str, ...] = ()
    """Which learners, or "all": docs/learners.md. pooled and pooled-effects always take part."""

    def writes(self) -> tuple[str, ...]:
        """The report and the tables."""
        return WRITES

    def run(self) -> int:
        """Read, lint, compare, write the report, print the verdict and the table."""
        started = time.perf_counter()
        from polypref.evaluation import compare
        from polypref.evaluation.comparison import named_learners
        from polypref.features import encoder
        from polypref.report import write

        ensure_files(self, self.files, "compare FILE --out DIR")
        named_learners(self.learners)  # reports misspelt names before a long file is read
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
