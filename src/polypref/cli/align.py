"""``polypref align``: train a language model with P-GRPO on what a saved scorer says the users of each group like."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from polypref.cli.shared import Loads, MinJudgements, Reads, Seeded, cleaned, ensure_files, reading_of
from polypref.files import write
from polypref.terminal import block, out


@dataclass(frozen=True, kw_only=True)
class Align(Reads, Loads, Seeded):
    """Train a language model for every group at once, on a saved scorer's rewards, and measure what each group gained.

    The prompts and users are those of the preference files. Writes the model, align.html (each group's curve, gains and
    sample answers) and align.json. A run that was stopped goes on from its last checkpoint. Best told in a TOML file:
    examples/align.toml.
    """

    model: str
    """A causal language model: a folder, or a name on the hub."""
    scorer: Path
    """Folder that polypref fit has written: its rewards are climbed."""
    groups: str
    """A folder that polypref groups has written, or the attribute of the users that names their group."""
    judge: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: none)")] = None
    """Folder of a second scorer, which is only asked before and after."""
    out: Path = Path("polypref-aligned")
    """Folder of the model, the checkpoints and the report."""
    template: Annotated[
        str, tyro.conf.arg(metavar="TEXT", help_behavior_hint="(default: '{group}: {prompt}' and a line break)")
    ] = "{group}: {prompt}\n"
    """What the model reads; {user} may stand in it too."""
    group_weight: float = 0.5
    """Whom the policy is for: 0, all users alike, so groups count by their size; 1, all groups alike; or between."""
    min_judgements: MinJudgements = 10
    samples: int = 256
    """Answers per group that are drawn before and after."""
    trainer: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="NAME=VALUE ...", help_behavior_hint="(default: TRL's, with num_generations=2)"),
    ] = ()
    """Settings of PGRPOConfig, which are TRL's GRPOConfig's and those of docs/pgrpo.md."""

    def run(self) -> int:
        """Read, load, train, measure, write and print."""
        from polypref.align import Task, align, groups_from
        from polypref.progress import counting
        from polypref.report.alignment import page, summary
        from polypref.scorers import load

        ensure_files(self.files, "align FILE --model DIR --scorer DIR --groups DIR")
        inputs = {"files": " ".join(self.files), "scorer": str(self.scorer), "judge": str(self.judge or "none")}
        inputs |= {"groups": self.groups, "columns": " ".join(self.columns), "ties": " ".join(self.ties)}
        trainer = settings_from(self.trainer)
        chosen = self.min_judgements, self.samples, self.seed, self.group_weight
        task = Task(self.model, self.template, *chosen, trainer, inputs)
        folders = {"reward": self.scorer} | ({"judge": self.judge} if self.judge else {})
        scorers = {name: load(folder, allow_network=self.allow_network) for name, folder in folders.items()}
        comparisons = cleaned(reading_of(self, self.files))
        group_of = groups_from(comparisons, self.groups, self.allow_network)
        with counting("steps") as count:

            def tell(step: int, total: int, logs: Mapping[str, float]) -> None:
                count(step, total, f"mean reward {logs['reward']:+.2f}")

            found = align(comparisons, group_of, task, scorers, self.out, tell)
        write(self.out / "align.html", page(found))
        block(summary(found))
        out(f"model: {self.out / 'model'}; report: {self.out / 'align.html'}")
        return 0


def settings_from(words: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` words, each value as TOML reads it, or else as text. Raises SettingsError for anything else."""
    from polypref.errors import SettingsError

    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise SettingsError(f"--trainer {word}: expected NAME=VALUE, as in --trainer learning_rate=1e-5.")
        try:
            read = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            read = {"True": True, "False": False, "None": None}.get(value, value)
        found[name] = read if isinstance(read, (bool, int, float, str, list, dict)) or read is None else value
    return found
