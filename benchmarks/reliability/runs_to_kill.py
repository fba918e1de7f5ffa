"""The commands that are killed: the smallest runs of each that still have several units of work."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import stage

STATIC = ("--encoder", "static")
GRID = (*STATIC, "--seeds", "2", "--workers", "2", "--quiet", "--out", "out")
AUDIT = ("audit", "scorer", "--bounds", "bounds.toml", "--slates", "slates.jsonl", "--part", "3/3")
ALIGN = """\
[align]
files = "pairs.jsonl"
model = "model"
scorer = "scorer"
groups = "group"
min_judgements = 2
samples = 2
out = "out"
[align.trainer]
per_device_train_batch_size = 8
max_completion_length = 4
max_steps = 4
save_steps = 2
learning_rate = 1e-3
"""


@dataclass(frozen=True)
class Run:
    """``words`` in a folder that ``prepare(world, folder)`` filled; results lie under ``out``, finished units match
    ``units``. ``usable(folder)`` says what is wrong with the artifact that was there before, "" where nothing is."""

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Path, Path], None]
    modules: tuple[str, ...]
    units: str = ""
    out: str = "out"
    usable: Callable[[Path], str] | None = None


def _files(*names: str) -> Callable[[Path, Path], None]:
    def prepare(world: Path, folder: Path) -> None:
        for name in names:
            source, _, target = name.partition("=")
            if (world / source).is_dir():
                shutil.copytree(world / source, folder / (target or source))
            else:
                shutil.copy(world / source, folder / (target or source))

    return prepare


def _model(world: Path, folder: Path) -> None:
    """What align needs: judgements, a scorer, and a tiny random language model, made once."""
    if not (world / "model").exists():
        sys.path.insert(0, str(stage.ROOT / "tests"))
        try:
            from judge_cases import save_judge
        finally:
            sys.path.pop(0)
        save_judge(world / "model-partial", template=None, pad="<pad>", side="left").rename(world / "model")
    _files("pairs.jsonl", "scorer-individual=scorer", "model")(world, folder)
    (folder / "align.toml").write_text(ALIGN)


def _scorer(folder: Path) -> str:
    from polypref.errors import PolyprefError
    from polypref.scorers import load

    try:
        load(folder / "out", "static")
    except PolyprefError as error:
        return str(error)
    return ""


def _grouping(folder: Path) -> str:
    from polypref.errors import PolyprefError
    from polypref.groups import Grouping

    try:
        Grouping.load(folder / "out")
    except PolyprefError as error:
        return str(error)
    return ""


COMPARE = ("polypref.cli.compare", "polypref.evaluation", "polypref.report", "scipy.stats", "polypref.features.static")
FIT = ("polypref.cli.fit", "polypref.learners", "polypref.scorers", "scipy.optimize", "scipy.stats")
RUNS = {
    run.name: run
    for run in (
        Run(
            *("fit", ("fit", "pairs.jsonl", "--learner", "pooled", *STATIC, "--out", "out", "--force")),
            *(_files("pairs.jsonl", "scorer-individual=out"), FIT),
            usable=_scorer,
        ),
        Run(
            *("groups", ("groups", "crowd.jsonl", "--groups", "2", *STATIC, "--out", "out", "--force")),
            *(_files("crowd.jsonl", "grouping=out"), ("polypref.cli.groups", "polypref.groups", "scipy.stats")),
            usable=_grouping,
        ),
        Run(
            "audit",
            (*AUDIT, "--tested", "100", "--recalibrations", "100", "--vectors", "100", "--tries", "0", "--out", "out"),
            _files("scorer-pooled=scorer", "bounds.toml", "bounds.calibration.json", "safety", "slates.jsonl"),
            ("polypref.cli.audit", "polypref.bounds.audit", "polypref.report.audit", "scipy.stats"),
        ),
        Run(
            *("compare", ("compare", "pairs.jsonl", "--learners", "individual", "--no-placebo", *GRID)),
            *(_files("pairs.jsonl"), COMPARE, "out/cells/*"),
        ),
        Run(
            "adapt",
            ("adapt", "pairs.jsonl", "--learners", "pooled", "individual", "--sizes", "0", "3", "--no-asked", *GRID),
            *(_files("pairs.jsonl"), ("polypref.cli.adapt", "polypref.newcomers.new_users", *COMPARE), "out/cells/*"),
        ),
        Run(
            "bench-policy",
            ("bench-policy", "--learners", "bandit", "--quick", "--seeds", "2", "--workers", "2", "--out", "out"),
            lambda world, folder: None,
            ("polypref.cli.bench_policy", "polypref.studies.policy.study", "polypref.report.policy", "scipy.stats"),
            "out/arms/*",
        ),
        Run(
            *("align", ("align", "--config", "align.toml"), _model),
            (
                "polypref.cli.align",
                "polypref.align",
                "polypref.policy.trl",
                "transformers",
                "polypref.report.alignment",
            ),
            "out/checkpoints/*/trainer_state.json",
        ),
    )
}
