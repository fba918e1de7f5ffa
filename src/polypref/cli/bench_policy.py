"""``polypref bench-policy``: when does P-GRPO beat GRPO? Bandits whose truth is known, with controls."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from polypref.cli.files import write


@dataclass(frozen=True)
class BenchPolicy:
    """Compare ways to turn rewards into advantages on bandits whose expected rewards are known exactly.

    Writes policy.json (a row for each setting, method and figure), policy.md (gains over GRPO, the best for the
    worst-served group first) and policy.svg, and prints the tables. A run that was stopped goes on where it was.
    docs/pgrpo.md tells the settings apart.
    """

    out: Path = Path("polypref-policy")
    """Folder of the results and the finished arms."""
    quick: bool = False
    """Two settings, three methods and short runs: to see that it works, not to conclude from."""
    seeds: int = 16
    """Paired seeds; learning rates are chosen on others."""
    workers: int = 0
    """Worker processes; 0: one per core."""

    def run(self) -> int:
        """Run the arms that are not stored, write and print the tables."""
        from polypref.errors import SettingsError
        from polypref.evaluation.policy_study import study
        from polypref.evaluation.results import cores
        from polypref.report.policy import chart, markdown

        if self.seeds < 2:
            raise SettingsError(f"--seeds {self.seeds} leaves no interval; expected 2 or more.")
        if self.workers < 0:
            raise SettingsError(f"--workers {self.workers} cannot be; expected 0 (one per core) or more.")

        def tell(done: int, total: int, arm: object) -> None:
            print(f"polypref: {done} of {total} arms ({arm})", file=sys.stderr, flush=True)

        content = study(self.out, quick=self.quick, seeds=self.seeds, workers=self.workers or cores(), tell=tell)
        text = markdown(content)
        write(self.out / "policy.md", text.encode())
        write(self.out / "policy.svg", chart(content).encode())
        print(text)
        print(f"tables and picture: {', '.join(str(self.out / f'policy.{kind}') for kind in ('md', 'svg', 'json'))}")
        return 0
