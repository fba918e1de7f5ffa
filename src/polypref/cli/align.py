"""``polypref align``: train a language model with P-GRPO on a saved scorer's rewards for the users of each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from polypref import strict_toml
from polypref.arguments import AtLeastZero, Dtype, Samples, Share
from polypref.cli.shared import Loads, MinJudgements, Reads, Seeded, WritesFolder, cleaned, ensure_files, reading_of
from polypref.files import write
from polypref.terminal import block, out

COLLAPSED = 1  # exit code: training stopped, since the policy had collapsed


@dataclass(frozen=True, kw_only=True)
class Align(WritesFolder, Reads, Loads, Seeded):
    """Train a language model for all groups at once on a saved scorer's rewards, and measure each group's gain.

    The prompts and users are those of the preference files. Writes the model, align.html (each group's curve, gains and
    sample answers) and align.json. An interrupted run resumes from its last checkpoint. If the policy collapses into
    repeated words or one answer, training stops and the exit code is 1. Several processes: torchrun --nproc-per-node 2
    -m polypref align. Settings are best kept in a TOML file: examples/align.toml.
    """

    model: Annotated[str, tyro.conf.arg(metavar="DIR|NAME")]
    """A causal language model: a folder, or a name on the hub."""
    scorer: Path
    """Folder written by polypref fit: training maximises its rewards."""
    groups: Annotated[str, tyro.conf.arg(metavar="DIR|NAME")]
    """A folder written by polypref groups, or the users' attribute that names their group."""
    judge: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: none)")] = None
    """Folder of a second scorer, used only before and after training."""
    out: Path = Path("polypref-aligned")
    """Folder of the model, the checkpoints and the report."""
    template: Annotated[
        str, tyro.conf.arg(metavar="TEXT", help_behavior_hint="(default: '{group}: {prompt}' and a line break)")
    ] = "{group}: {prompt}\n"
    """What the model reads; it may also contain {user}."""
    chat: bool = True
    """Ask through the model's chat template, if it has one: the filled template is a user's message."""
    dtype: Dtype = "stored"
    """Type of the model's weights; with LoRA, what is trained is float32 in any case."""
    lora: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="NAME=VALUE ...", help_behavior_hint="(default: none, all weights are trained)"),
    ] = ()
    """Train an adapter: rank=16, alpha=32, targets=q_proj,v_proj, upper=20 (blocks), start=DIR (an adapter)."""
    collapse_floor: Share = 0.2
    """Mean share of distinct words in a completion below which a logged step is bad; so is one of equal completions."""
    collapse_steps: AtLeastZero = 3
    """Bad logged steps in a row after which training stops; 0: never."""
    group_weight: Share = 0.5
    """Whom the policy serves: 0, all users equally, so groups count by size; 1, all groups equally; or between."""
    min_judgements: MinJudgements = 10
    samples: Samples = 256
    """Answers generated per group before and after training."""
    trainer: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="NAME=VALUE ...", help_behavior_hint="(default: TRL's, with num_generations=2)"),
    ] = ()
    """Settings of PGRPOConfig: those of TRL's GRPOConfig and of docs/pgrpo.md."""

    def writes(self) -> tuple[str, ...]:
        """The report, the results, and the state of the run."""
        return ("model", "adapter", "checkpoints", "align.html", "align.json", "run.json", "before.json")

    def run(self) -> int:
        """Read, load, train, measure, write and print."""
        from polypref.align import Lora, Task, align, groups_from
        from polypref.align.processes import is_main
        from polypref.progress import counting
        from polypref.report.alignment import page, summary
        from polypref.scorers import load

        ensure_files(self, self.files, "align FILE --model DIR --scorer DIR --groups DIR")
        inputs = {"files": " ".join(self.files), "scorer": str(self.scorer), "judge": str(self.judge or "none")}
        inputs |= {"groups": self.groups, "columns": " ".join(self.columns), "ties": " ".join(self.ties)}
        inputs |= {"made_from": self.made_from}
        task = Task(
            self.model,
            self.template,
            *(self.min_judgements, self.samples, self.seed, self.group_weight, self.chat, self.dtype),
            Lora(**lora_from(self.lora)) if self.lora else None,
            *(self.collapse_floor, self.collapse_steps, settings_from(self.trainer), inputs),
        )
        folders = {"reward": self.scorer} | ({"judge": self.judge} if self.judge else {})
        scorers = {name: load(folder, allow_network=self.allow_network) for name, folder in folders.items()}
        comparisons = cleaned(reading_of(self, self.files))
        group_of = groups_from(comparisons, self.groups, self.allow_network)
        with counting("steps") as count:

            def tell(step: int, total: int, logs: Mapping[str, float]) -> None:
                count(step, total, f"mean reward {logs['reward']:+.2f}")

            found = align(comparisons, group_of, task, scorers, self.out, tell, self.force)
        if is_main():
            write(self.out / "align.html", page(found))
            block(summary(found))
            adapter = f"adapter: {self.out / 'adapter'}; with it merged, " if self.lora else ""
            out(f"{adapter}model: {self.out / 'model'}; report: {self.out / 'align.html'}")
        return 0 if found.get("collapsed") is None else COLLAPSED


def lora_from(words: tuple[str, ...]) -> dict[str, Any]:
    """Settings of ``align.lora.Lora``; targets divided by commas, or given several times."""
    from dataclasses import fields

    from polypref.align import Lora
    from polypref.errors import unknown_name

    known = {one.name for one in fields(Lora)}
    found = settings_from(tuple(word for word in words if not word.startswith("targets=")), "--lora", "rank=16")
    targets = [one for word in words if word.startswith("targets=") for one in word[8:].split(",")]
    for name in found:
        if name not in known:
            raise unknown_name("setting of lora", name, known)
    return found | ({"targets": tuple(targets)} if targets else {})


def settings_from(
    words: tuple[str, ...], flag: str = "--trainer", example: str = "learning_rate=1e-5"
) -> dict[str, Any]:
    """``NAME=VALUE`` words, each value read as TOML or else as text. Raises SettingsError for anything else."""
    from polypref.errors import SettingsError

    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise SettingsError(f"{flag} {word}: expected NAME=VALUE, as in {flag} {example}.")
        try:
            read = strict_toml.loads(f"value = {value}")["value"]
        except ValueError:
            read = {"True": True, "False": False, "None": None}.get(value, value)
        found[name] = read if isinstance(read, (bool, int, float, str, list, dict)) or read is None else value
    return found
