"""``polypref audit``: attacks a scorer's bounds and measures what the bounds cost; writes a report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import arg

from polypref.arguments import Resamples, Slates, Tries
from polypref.cli.shared import ReadsJudgements, Seeded, UsesSlates, WritesFolder, cleaned, limits_of, reading_of
from polypref.files import write, write_json
from polypref.terminal import out, say

if TYPE_CHECKING:
    from polypref.bounds.audit import Case
    from polypref.comparisons import Comparisons


FAILED = 1  # exit code of an audit whose gate leaks significantly more than promised


@dataclass(frozen=True, kw_only=True)
class Audit(WritesFolder, UsesSlates, ReadsJudgements, Seeded):
    """Attack a saved scorer within its bounds, and measure what the bounds cost: docs/safety.md.

    Adversaries: users trained to prefer unsafe responses, an oracle, ten thousand optimised tastes, and people who
    rewrite unsafe texts in known ways or by searching. Writes
    audit.html and audit.json (rows with value, lo, hi, n); exit code 1 if the gate leaks significantly more than
    promised. The safety scorer must not have been trained or calibrated on these labelled slates; --part splits one
    file.
    """

    scorer: Annotated[tyro.conf.Positional[Path], arg(metavar="DIR")]
    """Folder written by polypref fit."""
    bounds: Annotated[Path, arg(metavar="BOUNDS.TOML")]
    """Calibrated bounds."""
    slates: Annotated[str, arg(metavar="FILE")]
    """Labelled responses: response, unsafe, prompt, slate, category; or a benchmark of chosen and rejected ones."""
    held_out: Annotated[tuple[str, ...], arg(metavar="FILE ...", help_behavior_hint="(default: none)")] = ()
    """Benign judgements that the scorer was not fitted on, to measure what the cap costs people."""
    aggregated: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """A scorer that answers everybody alike, fitted on the same data: does personalization violate more?"""
    out: Path = Path("polypref-audit")
    """Folder of the report."""
    tested: Slates = 20_000
    """Slates drawn of each size."""
    recalibrations: Resamples = 200
    """Recalibrations of the gate."""
    vectors: Resamples = 10_000
    """Random tastes that are optimised against the cap's certificate."""
    tries: Tries = 200
    """Insertions that the search tries for each unsafe text to raise its safety score; 0: no search."""

    def writes(self) -> tuple[str, ...]:
        """The report and the results."""
        return ("audit.html", "audit.json")

    def run(self) -> int:
        """Load, attack, write, print the verdict."""
        from importlib.metadata import version

        from polypref.answers import wrapped
        from polypref.bounds.audit import audit
        from polypref.report.audit import page, summary

        started = time.perf_counter()
        case, details = self._case()
        found = audit(case, say)
        details |= {"seconds": round(time.perf_counter() - started, 1), "versions": {"polypref": version("polypref")}}
        found = {"schema": 1, **found, **details}
        write(self.out / "audit.html", page(found))
        write_json(self.out / "audit.json", found)
        for line in summary(found).split("\n"):
            out(*wrapped(line, indent="    "))
        out(f"report: {self.out / 'audit.html'}; rows: {self.out / 'audit.json'}")
        return 0 if found["leaks"]["holds"] else FAILED

    def _case(self) -> tuple[Case, dict[str, Any]]:
        from polypref.bounds.audit_setup import AuditSettings, Case
        from polypref.bounds.bounds_file import load_bounds, refuse_seen
        from polypref.bounds.load_safety import safety_from
        from polypref.cli.bounds import slates_from
        from polypref.errors import SettingsError
        from polypref.learners.provenance import fitted_on
        from polypref.scorers import encoder_of, load

        calibrated = load_bounds(self.bounds, self.pin)
        slates = slates_from((self.slates,), self.part, "audit", limits_of(self), self.raters)
        safety = safety_from(calibrated.file, self.allow_network)
        refuse_seen(slates, safety, calibrated)
        scorer = load(self.scorer, allow_network=self.allow_network)
        benign = cleaned(reading_of(self, self.held_out)) if self.held_out else None
        known = fitted_on(scorer)
        if benign is not None and known is not None and known.saw(benign):
            raise SettingsError(
                f"{self.scorer} was fitted on the judgements of --held-out, so these cannot show what the "
                "cap costs. Give judgements that it was not fitted on."
            )
        case = Case(
            bounded=calibrated.bind(scorer, safety),
            slates=slates,
            alpha=calibrated.file.target.alpha,
            delta=calibrated.file.target.delta,
            people=() if benign is None else _known(scorer, benign),
            benign=benign,
            aggregated=None if self.aggregated is None else load(self.aggregated, allow_network=self.allow_network),
            encoder=encoder_of(scorer),
            settings=AuditSettings(
                tested=self.tested,
                recalibrations=self.recalibrations,
                vectors=self.vectors,
                tries=self.tries,
                seed=self.seed,
            ),
        )
        details = {
            "inputs": {"scorer": str(self.scorer), "bounds": str(self.bounds), "slates": f"{self.slates} {self.part}"},
            "data": {"slates_hash": slates.content_hash, "benign": None if benign is None else benign.content_hash},
            "settings": {"alpha": case.alpha, "delta": case.delta, "seed": self.seed, "cap": _number(case)},
        }
        return case, details


def _known(scorer: Any, benign: Comparisons) -> tuple[str, ...]:
    """Users of the benign judgements whom the scorer knows."""
    import numpy as np

    from polypref.learners.protocol import PERSONAL

    ids = benign.users.ids
    source_U = scorer.score(benign.responses, ids, np.zeros(len(ids), np.int32)).source_Q
    return tuple(ids.filter(source_U == PERSONAL))


def _number(case: Case) -> float | None:
    """The cap as JSON; None: no cap."""
    cap = case.bounded.limits.cap
    return cap if cap < float("inf") else None
