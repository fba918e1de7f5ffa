"""What a verdict rests on: the gains at the full size, the evidence besides them, and the thresholds of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polypref.evaluation.results_table import BoundedRow, ResultTable

Bounded = Mapping[str, BoundedRow]

MARGIN = 0.01
HIGH_GAIN = 0.05
LOW_DISAGREEMENT = 0.15
HIGH_DISAGREEMENT = 0.20
MIN_USERS = 3
MIN_BETTER = 2  # one may be two people who share an account
SHARE_BETTER = 0.1
ENOUGH_SHARED = 50
ENOUGH_HELD_OUT = 368  # if all were independent, so many without any change would exclude MARGIN: 1 - 0.025^(1/368)


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on besides the gains.

    ``n_users``       users compared; ``own`` training judgements of the median one.
    ``shared``        pairs judged by two people or more.
    ``disagreement``  how often two judges of such a pair disagree, ``disagreement_hi`` its upper 95 % limit; None when
                      no pair has two judges.
    ``leak``          why held-out pairs may follow from training pairs; empty where the split rules that out.
    """

    n_users: int
    own: float
    shared: int
    disagreement: float | None = None
    disagreement_hi: float | None = None
    leak: str = ""


@dataclass(frozen=True)
class Compared:
    """What was measured at the full size.

    ``gains`` and ``placebo`` are over the baseline, trained on real and on shuffled users; ``over_shuffled`` is the one
    less the other, paired; both are empty when no placebo arm was run, and then the first road does without.
    ``these``: gains and placebo for these users alone, as ``tables.of_these_users`` gives them.
    """

    gains: ResultTable
    placebo: ResultTable = field(default_factory=ResultTable)
    over_shuffled: ResultTable = field(default_factory=ResultTable)
    these: ResultTable = field(default_factory=ResultTable)
