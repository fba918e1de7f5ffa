"""``polypref compare``: from preference files to a report on who gains from personalization."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, fields
from pathlib import Path

from polypref.cli.compare_summary import show_answer, show_numbers
from polypref.cli.grids import command_line, linted
from polypref.cli.shared import Reads, ReadsQuestion, WritesFolder, ensure_files
from polypref.evaluation.settings import Settings
from polypref.terminal import out

WRITES = ("cells", "figures", "report.html", "results.json", "results.parquet", "users.parquet")


@dataclass(frozen=True, kw_only=True)
class Compare(WritesFolder, Reads, ReadsQuestion, Settings):
    """Who gains from personalization, with which learner, and how certain that is.

    Writes report.html, results.json, results.parquet and users.parquet. An interrupted run resumes where it stopped.
    """

    out: Path = Path("polypref-report")
    """Folder of the report, the results and the finished cells."""
    learners: tuple[str, ...] = ()
    """Which learners, or "all": docs/learners.md. pooled and pooled-effects always take part."""

    figures: bool = False
    """Also write the report's figures as SVG files, to the folder figures in --out."""

    def writes(self) -> tuple[str, ...]:
        """The report and the tables."""
        return WRITES

    def run(self) -> int:
        """Read, lint, compare, write the report, print the verdict and the table."""
        started = time.perf_counter()
        from polypref.evaluation import compare
        from polypref.evaluation.comparison import named_learners
        from polypref.features.long_texts import long_texts
        from polypref.report import write
        from polypref.report.figure_files import write_figures
        from polypref.wording import counted

        ensure_files(self, self.files, "compare FILE --out DIR")
        named_learners(self.learners)  # reports misspelt names before a long file is read
        encode = self.text_encoder()
        data = linted(self)
        metadata = data.metadata("compare", self)
        metadata["reproduce"] |= {"again": self.next_commands()}
        settings = Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})
        learners = self.learners or None
        results = compare(data.comparisons, learners, encode, out=self.out, metadata=metadata, settings=settings)
        page = write(self.out, results.content, results.users)
        show_answer(results.answer)
        out(f"Report: {page}")
        if self.figures:
            drawn = write_figures(self.out, results.content, results.users)
            out(f"Figures: {counted(len(drawn), 'files')} in {self.out / 'figures'}")
        out()
        show_numbers(results.contents)
        out("", results.verdict["text"])
        data.show(results.contents)
        data.remark()
        if (long := long_texts(encode, data.comparisons)) is not None:
            out(str(long))
        out(f"done in {time.perf_counter() - started:.0f} s")
        return 0

    def next_commands(self) -> dict[str, str]:
        """Commands for the same files, read in the same way: ``fit``, without learner and folder, and ``compare``.

        The comparison goes to another folder, with the default learners and a split that suits the data.
        """
        from polypref.cli.fit import Fit

        own = {f.name for f in fields(Compare)} - {"out", "learners", "force", "split", "figures"}
        fits = {f.name for f in fields(Fit)} & own
        again = f"{command_line('compare', self, own)} --out {shlex.quote(f'{self.out}-again')}"
        return {"fit": command_line("fit", self, fits), "compare": again}
