"""``polypref reproduce``: the evaluation paper's whole protocol on its three sets, its figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import arg

from polypref.arguments import Above, Seeds
from polypref.cli.shared import Limited, ReadsQuestion, WritesFolder, limits_of
from polypref.files import write_table
from polypref.runs.settings import Workers
from polypref.terminal import out

if TYPE_CHECKING:
    from polypref.studies.paper import Work

RawFiles = Annotated[tuple[str, ...], arg(metavar="FILE ...", help_behavior_hint="(default: from the hub)")]


@dataclass(frozen=True, kw_only=True)
class Reproduce(WritesFolder, Limited, ReadsQuestion, Workers):
    """Run the evaluation paper's protocol on P-SOUPS, TL;DR and PersonalLLM: accuracy, new users, tax, with placebos.

    Converts the sets, says what measuring will cost, then runs compare, adapt, tax and table. Files are the sets' own,
    as docs/published.md describes them. With files, only the sets that have some are measured; without any, all three
    are fetched from the Hugging Face hub. An interrupted run resumes where it stopped. docs/tables.md says what is
    compared.
    """

    what: tyro.conf.Positional[Literal["paper"]]
    """What to reproduce."""
    out: Path = Path("polypref-paper")
    """Folder of the converted sets, the results and the tables."""
    psoups: RawFiles = ()
    """P-SOUPS: P1A.json to P3B.json, or files of the mirror."""
    tldr: RawFiles = ()
    """TL;DR: the files of both splits of the comparisons."""
    personalllm: RawFiles = ()
    """PersonalLLM: the paper's own file with uid, or the scored answers, or both."""
    suite: Annotated[str | None, arg(metavar="SUITE", help_behavior_hint="(default: from the hub, or none)")] = None
    """RewardBench's file, for the tax. Without it, and with files of the sets, the tax is left out."""
    learners: tuple[str, ...] = ()
    """Which learners; none: the paper's methods, on frozen features. finetune:METHOD:MODEL tunes a model, as it did."""
    routes: tuple[str, ...] = ()
    """Which routes for new people; none: those of the paper."""
    seeds: Seeds = 3
    """Number of random splits."""
    scale: Annotated[Above, arg(metavar="FLOAT")] = 1.0
    """Share of the paper's numbers of training comparisons; below 1 for a quick look."""
    estimate: bool = False
    """Convert, say what measuring costs, and stop."""

    def writes(self) -> tuple[str, ...]:
        """The sets, a folder of results for each, and the tables."""
        from polypref.studies.paper import SETS

        return ("data", *SETS, "tables")

    def finishes(self) -> bool:
        """An estimate is no result."""
        return not self.estimate

    def run(self) -> int:
        """Convert, estimate, measure every set, write the tables."""
        from polypref.cli.table import Table
        from polypref.runs.machine import cores
        from polypref.studies.paper import SETS, estimate

        given = {name: files for name in SETS if (files := getattr(self, name))}
        works = [self._work(name, files) for name, files in (given or self._from_hub()).items()]
        suite = self._suite(hub=not given)
        missing = [name for name in SETS if given and name not in given]
        if missing:
            out(f"left out: {', '.join(missing)} (no file is given)")
        if suite is None:
            out("left out: the tax (no --suite)")
        encoder = self.text_encoder()
        for work in works:
            out(estimate(work, encoder).sentence(self.workers or cores()))
        if self.estimate:
            return 0
        for work in works:
            self._measure(work, suite)
        return Table(folders=tuple(str(self.out / work.name) for work in works), out=self.out / "tables").run()

    def _work(self, name: str, files: tuple[str, ...]) -> Work:
        """Convert a set and cut it to what its sizes need."""
        from polypref.evaluation.comparison import named_learners
        from polypref.newcomers.new_users import named_routes
        from polypref.report.paper import published
        from polypref.studies.paper import METHODS, ROUTES, SETS, TAXED, Work, cut

        learners = named_learners(self.learners or METHODS)
        routes = named_routes(self.routes or ROUTES) if name == published()["new_users"]["set"] else {}
        found = SETS[name].adapter.convert(files, limits_of(self))
        sizes = tuple(max(50, round(size * self.scale)) for size in published()["accuracy"]["sizes"][name])
        table, possible = cut(found.table, sizes)
        file = self._file(name)
        write_table(file, table)
        out(f"{found.title}: {table.height:,} of {found.table.height:,} judgements, written to {file}")
        for reason, count in found.left_out.items():
            out(f"left out: {count:,} ({reason})")
        for remark in found.remarks:
            out(f"note: {remark}")
        if lost := [f"{size:,}" for size in sizes if size not in possible]:
            out(f"note: too few judgements to train on {', '.join(lost)}; all of them are used")
        taxed = [learner for learner in learners if learner.rpartition("finetune:")[2].partition(":")[0] in TAXED]
        return Work(name, table, possible, learners, routes, taxed, self.seeds)

    def _file(self, name: str) -> Path:
        return self.out / "data" / f"{name}.parquet"

    def _from_hub(self) -> Mapping[str, tuple[str, ...]]:
        """The sets' files on the hub. Raises InputError, in one line, if it cannot be reached."""
        from polypref.data.files.sources import expand
        from polypref.errors import InputError, PolyprefError
        from polypref.studies.paper import SETS

        found = {}
        for name, one in SETS.items():
            try:
                found[name] = tuple(expand(one.hub))
            except PolyprefError as error:
                raise InputError(
                    f"no file is given, and the hub does not give {', '.join(SETS)} ({error}) Give what you have: "
                    "--psoups FILE ... --tldr FILE ... --personalllm FILE ... --suite FILE (docs/published.md says "
                    "which files)."
                ) from error
        return found

    def _suite(self, hub: bool) -> str | None:
        from polypref.data.benchmarks import read_suite
        from polypref.studies.paper import SUITE
        from polypref.tax.rewardbench import scheme_of

        suite = self.suite or (SUITE if hub else None)
        if suite is not None:  # a faulty one is told before anything is measured
            scheme_of(read_suite(suite, limits=limits_of(self)))
        return suite

    def _measure(self, work: Work, suite: str | None) -> None:
        """Compare the learners on a set, then the routes for new people, then the tax; stored cells are used again."""
        from polypref.cli.adapt import Adapt
        from polypref.cli.compare import Compare
        from polypref.cli.tax import Tax
        from polypref.report.paper import published

        read = {f.name: getattr(self, f.name) for f in fields(ReadsQuestion)}
        grid = {"split": "prompt", "seeds": self.seeds, "workers": self.workers}
        files, folder = (str(self._file(work.name)),), self.out / work.name
        Compare(files=files, out=folder, learners=tuple(work.learners), sizes=work.sizes, **grid, **read).run()
        if work.routes:
            counts = tuple(published()["new_users"]["counts"])
            Adapt(files=files, out=folder, learners=tuple(work.routes), sizes=counts, asked=False, **grid, **read).run()
        for learner in work.taxed if suite is not None else ():
            assert suite is not None
            Tax(suite=suite, prefs=files, out=folder / "tax" / learner.replace(":", "-").replace("/", "-"),
                learner=learner, **read).run()  # fmt: skip
