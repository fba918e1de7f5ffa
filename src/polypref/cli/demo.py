"""``polypref demo``: ``compare`` on simulated people with known truth; ``make demo`` runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polypref.arguments import Seeds
from polypref.cli.shared import ReadsQuestion, Seeded, WritesFolder
from polypref.runs.settings import Workers


@dataclass(frozen=True, kw_only=True)
class Demo(WritesFolder, ReadsQuestion, Seeded, Workers):
    """Simulate a world and compare the learners on it, with the same commands as for your own file.

    In two-tastes, three quarters of the people like one style and the others its opposite. One answer for everyone
    serves only the majority; a personal learner should serve both.
    """

    out: Path = Path("polypref-demo")
    """Folder of the simulated file, the report and the results."""
    world: str = "two-tastes"
    """Which world; docs/worlds.md describes them."""
    seeds: Seeds = 3
    """Number of random splits."""

    def writes(self) -> tuple[str, ...]:
        """The simulated file, and what compare writes."""
        from polypref.cli.compare import WRITES

        return (f"{self.world}.jsonl", *WRITES)

    def run(self) -> int:
        """Simulate, then compare."""
        from polypref.cli.compare import Compare
        from polypref.cli.simulate import Simulate

        file = self.out / f"{self.world}.jsonl"
        Simulate(world=self.world, out=file, seed=self.seed, force=True).run()
        compare = Compare(
            files=(str(file),),
            out=self.out,
            encoder=self.encoder,
            features=self.features,
            seeds=self.seeds,
            workers=self.workers,
        )
        return compare.run()
