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
    """Compare ways to turn rewards into advantages where the truth is known: on bandits and a tiny language model.

    Writes policy.json (a row for each setting, method and figure), policy.md (gains over GRPO, the best for the
    worst-served group first) and policy.svg, and prints the tables. An interrupted run resumes where it stopped.
    docs/pgrpo.md explains the settings.
    """

    out: Path = Path("polypref-policy")
    """Folder of the results and the finished arms."""
    learners: tuple[Literal["bandit", "language model"], ...] = ("bandit", "language model")
    """What is trained; the language model is trained by TRL."""
    quick: bool = False
    """Few settings and methods, and short runs: to see that it works, not for conclusions."""
    seeds: PairedSeeds = 16
    """Paired seeds, at most 12 for the language model; learning rates are chosen on others."""

    def writes(self) -> tuple[str, ...]:
        """The results, their tables and the chart."""
        return ("arms", "policy.md", "policy.svg", "policy.json")

    def run(self) -> int:
        """Run the arms that are not stored, write and print the tables."""
        from polypref.errors import MissingExtra
        from polypref.report.policy import markdown
        from polypref.report.policy_chart import chart
        from polypref.runs.machine import cores
        from polypref.studies.policy.study import Study, study

        if "language model" in self.learners and find_spec("trl") is None:
            raise MissingExtra("bench-policy's language model (or choose --learners bandit)", "policy")
        what = Study(self.learners, self.quick, self.seeds, self.workers or cores())
        content = study(self.out, what)
        text = markdown(content)
        write(self.out / "policy.md", text)
        write(self.out / "policy.svg", chart(content))
        document(text)
        out(f"tables and chart: {', '.join(str(self.out / f'policy.{kind}') for kind in ('md', 'svg', 'json'))}")
        return 0
