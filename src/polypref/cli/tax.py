"""``polypref tax``: what general ability a personalized reward loses, split into forgetting and personalization."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from polypref.arguments import AtLeastOne, ProperShare, Resamples
from polypref.cli.shared import (
    Loads,
    MinJudgements,
    ReadsJudgements,
    ReadsQuestion,
    Seeded,
    WritesFolder,
    cleaned,
    ensure_files,
    limits_of,
    reading_of,
)
from polypref.files import write, write_json
from polypref.terminal import out

if TYPE_CHECKING:
    from polypref.comparisons import Comparisons
    from polypref.tax.arms import Arms

Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none)")]


@dataclass(frozen=True, kw_only=True)
class Tax(WritesFolder, ReadsJudgements, ReadsQuestion, Loads, Seeded):
    """Measure the personalization tax on a benchmark: RewardBench, RewardBench 2, Personalized RewardBench, your own.

    Fits a personalized scorer, a pooled one and one on shuffled users on the same judgements (or uses saved scorers),
    scores the benchmark for each user, and gives the loss of each section with intervals. Writes tax.html and tax.json.
    """

    suite: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SUITE")]
    """Rows of prompt, chosen, rejected and subset; chosen and rejected may be lists. A section column names your own
    sections; without it, the subsets must be RewardBench's.
    """
    prefs: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="FILE ...", help_behavior_hint="(one or more; required)")
    ] = ()
    """Preference files: they define the users, and the scorers are fitted on them."""
    out: Path = Path("polypref-tax")
    """Folder for tax.html and tax.json."""
    learner: str = "hierarchical"
    """Which learner; docs/learners.md lists them."""
    scorer: Folder = None
    """A saved personalized scorer, instead of fitting; needs --pooled."""
    pooled: Folder = None
    """A saved scorer that answers everyone alike."""
    base: Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """A reward from before tuning, for forgetting: a saved scorer, or hf:MODEL, a published reward model; with
    hf:MODEL,ask=true a language model that is asked whether a response is good.
    """
    sycophancy: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Rows whose rejected answer is false and agrees with the user, to measure how much more often it is preferred."""
    profile: bool = False
    """Put the suite's column profile before each question."""
    users: AtLeastOne = 20
    """Maximum number of users, those with most judgements."""
    min_judgements: MinJudgements = 10
    margin: ProperShare = 0.02
    """The verdict is "no tax" below this margin; 0.02 is two points."""
    draws: Resamples = 2000
    """Resamples of the benchmark's items."""

    def writes(self) -> tuple[str, ...]:
        """The report and the results."""
        return ("tax.html", "tax.json")

    def run(self) -> int:
        """Read, fit or load, measure, write and print."""
        started = time.perf_counter()
        from polypref.answers import wrapped
        from polypref.data.benchmarks import read_suite
        from polypref.errors import SettingsError
        from polypref.report.tax import page, summary
        from polypref.scorers import metadata
        from polypref.tax.arms import Task
        from polypref.tax.measure import measure
        from polypref.tax.rewardbench import scheme_of

        ensure_files(self, self.prefs, "tax SUITE --prefs FILE --out DIR")
        if (self.scorer is None) != (self.pooled is None):
            raise SettingsError("--scorer and --pooled go together: a user is compared with everyone alike. Give both.")
        task = Task(self.users, self.min_judgements, self.margin, self.draws, self.seed)
        suite = read_suite(self.suite, profile=self.profile, limits=limits_of(self))
        scheme_of(suite)  # a misspelt subset is told before anything is fitted
        false = read_suite(self.sycophancy, limits=limits_of(self)) if self.sycophancy else None
        found = measure(suite, self._arms(cleaned(reading_of(self, self.prefs))), task, false)
        found["inputs"] = {"suite": self.suite, "files": list(self.prefs), "encoder": self.encoder}
        found["inputs"] |= {"features": self.features}
        found["inputs"] |= {"learner": str(self.scorer or self.learner), "pooled": str(self.pooled or "fitted here")}
        found["inputs"] |= {"base": self.base, "sycophancy": self.sycophancy, "profile": self.profile}
        found["inputs"] |= {"ties": list(self.ties), "columns": list(self.columns), "made_from": self.made_from}
        if self.scorer is not None:
            known = metadata(self.scorer)
            found["inputs"]["encoder"] = None if known is None else known.encoder
            found["inputs"]["features"] = None if known is None else known.features
        found["seconds"] = round(time.perf_counter() - started, 1)
        write(self.out / "tax.html", page(found))
        write_json(self.out / "tax.json", found)
        for line in summary(found).split("\n"):
            out(*wrapped(line, indent="    "))
        out(f"report: {self.out / 'tax.html'}")
        return 0

    def _arms(self, comparisons: Comparisons) -> Arms:
        from polypref.tax.arms import base_scorer, fit_arms, load_arms

        base = base_scorer(self.base, self.allow_network) if self.base else None
        if self.scorer is not None and self.pooled is not None:
            return load_arms(comparisons, self.scorer, self.pooled, base, self.allow_network)
        return fit_arms(comparisons, self.learner, self.text_encoder(), self.seed, base)
