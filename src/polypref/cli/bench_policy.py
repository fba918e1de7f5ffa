"""``polypref bench-policy``: when P-GRPO beats GRPO, measured where the truth is known, with controls."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from polypref.arguments import PairedSeeds
from polypref.cli.shared import WritesFolder
from polypref.files import write
from polypref.runs.settings import Workers
from polypref.terminal import document, out


@dataclass(frozen=True, kw_only=True)
class BenchPolicy(WritesFolder, Workers):
    """Compare ways to turn rewards into advantages where the truth is known: on bandits and on language models.

    Writes policy.json (a row for each setting, method and figure), policy.md (gains over GRPO, the best for the
    worst-served group first) and policy.svg, and prints the tables. smollm2 writes smollm2.json, smollm2.md and
    smollm2.html instead, where one question's answers are read group by group, before and after. An interrupted run
    resumes where it stopped. docs/pgrpo.md explains the settings.
    """

    out: Path = Path("polypref-policy")
    """Folder of the results and the finished arms."""
    learners: tuple[Literal["bandit", "language model", "smollm2"], ...] = ("bandit", "language model")
    """What is trained: bandits, a tiny language model by TRL, or SmolLM2-135M-Instruct (polypref lm install)."""
    quick: bool = False
    """Few settings and methods, and short runs: to see that it works, not for conclusions. For smollm2, one run beside
    the study that comes with the package."""
    seeds: PairedSeeds = 16
    """Paired seeds, at most 12 for the language model and 6 for smollm2; learning rates are chosen on others."""

    def writes(self) -> tuple[str, ...]:
        """The results, their tables and the chart or page."""
        readable = ("runs", "smollm2.md", "smollm2.html", "smollm2.json") if "smollm2" in self.learners else ()
        others = ("arms", "policy.md", "policy.svg", "policy.json") if self._others else ()
        return (*readable, *others)

    @property
    def _others(self) -> tuple[Literal["bandit", "language model"], ...]:
        return tuple(one for one in self.learners if one != "smollm2")

    def run(self) -> int:
        """Run the arms that are not stored, write and print the tables."""
        from polypref.errors import MissingExtra

        if "language model" in self.learners and find_spec("trl") is None:
            raise MissingExtra("bench-policy's language model (or choose --learners bandit)", "policy")
        if "smollm2" in self.learners:
            self._readable()
        if self._others:
            self._advantages()
        return 0

    def _readable(self) -> None:
        from polypref.report.readable import markdown, page, read
        from polypref.runs.machine import cores
        from polypref.studies.policy.readable_study import stored, study

        known = stored() if self.quick else None
        if known is not None:
            document(markdown(known))
        content = study(self.out, "smollm2", self.seeds, self.quick, self.workers or cores(), self.quiet)
        text = markdown(content)
        write(self.out / "smollm2.md", text)
        write(self.out / "smollm2.html", page(known or content, content if known else None))
        document("\n".join(read(content)) if known else text)
        out(f"answers and tables: {', '.join(str(self.out / f'smollm2.{kind}') for kind in ('html', 'md', 'json'))}")

    def _advantages(self) -> None:
        from polypref.report.policy import markdown
        from polypref.report.policy_chart import chart
        from polypref.runs.machine import cores
        from polypref.studies.policy.study import Study, study

        what = Study(self._others, self.quick, self.seeds, self.workers or cores())
        content = study(self.out, what)
        text = markdown(content)
        write(self.out / "policy.md", text)
        write(self.out / "policy.svg", chart(content))
        document(text)
        out(f"tables and chart: {', '.join(str(self.out / f'policy.{kind}') for kind in ('md', 'svg', 'json'))}")
