"""From how many judgements a person it pays to know them.

Two sources, the second if there is one and it goes further down:

people   everybody has all of their judgements. Tested are the gains of all people, of the three quarters with fewest
         judgements, of half of the people and of a quarter, as far as that leaves FEW_PEOPLE; the last that is sure
         counts. A gain over judgements is mostly that of the busiest people, so its amount is what the people behind
         half of its test judgements have at least, or the least of all if that is about the same. The median person
         may have far fewer, and gain nothing. That a gain grows with the amount is taken for granted, and people who
         judge more may differ from others in other ways.
sizes    training sizes per user (``--sizes 10 20 --budget per-user``): the gain at each size over the baseline at that
         size, from the largest downward; the last that is sure counts.

The first that is not sure ends either (a fixed sequence, which needs no correction for its length). Each is tested as
the verdict tests: at 5 % shared by all personal learners (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polypref.evaluation.results_table import ResultRow, ResultTable
from polypref.evaluation.tables import Floats, gain_rows
from polypref.evaluation.verdict import above_zero
from polypref.stats.cluster_robust import FEW_USERS, Clusters, difference
from polypref.stats.metrics import accuracy_micro

PARTS = (1.0, 0.75, 0.5, 0.25)
FEW_PEOPLE = FEW_USERS
APART = 1.25  # amounts that differ by less are about the same


@dataclass(frozen=True)
class Pays:
    """``amount``: judgements a person from which it pays; None: not known. ``row``: the gain there.

    ``fewest``: whether no smaller amount was tested, so that fewer may do. ``source``: people or sizes.
    """

    amount: int | None = None
    row: ResultRow | None = None
    fewest: bool = False
    source: str = "people"


def by_amount(
    clusters: Clusters, margins: tuple[Floats, Floats], n_train_U: NDArray[np.int64], names: tuple[str, str]
) -> ResultTable:
    """Gain in micro accuracy of a learner over the baseline, for the parts of the people with fewest judgements.

    ``margins`` and ``names`` are the learner's and the baseline's. A row's ``size`` is the number of training
    judgements (validation rows too) behind its typical test judgement. All people come first.
    """
    rows = clusters.rows
    amount_U = np.sort(n_train_U[np.unique(rows.user_H)])
    amount_H, weight_H = n_train_U[rows.user_H], rows.weight_H * ~rows.tie_H
    found: list[ResultRow] = []
    for part in PARTS:
        most = amount_U[int(np.ceil(part * len(amount_U))) - 1]
        in_H = amount_H <= most
        amount = _typical(amount_H[in_H], weight_H[in_H])
        if found and ((amount_U <= most).sum() < FEW_PEOPLE or amount * APART > (found[-1].size or 0)):
            continue
        own, floor = (accuracy_micro(rows, in_H, margin_H) for margin_H in margins)
        common = {"size": amount, "cohort": "all", "metric": "accuracy_micro", "baseline": names[1]}
        found += gain_rows(clusters, {names[0]: difference(own, floor)}, common)
    return ResultTable(tuple(found))


def _typical(amount_H: NDArray[np.int64], weight_H: Floats) -> int:
    """What the people behind half of the weight have at least, or the smallest amount if that is about the same."""
    order = np.argsort(amount_H, kind="stable")
    below = np.cumsum(weight_H[order])
    half, least = int(amount_H[order][np.searchsorted(below, below[-1] / 2)]), int(amount_H.min())
    return least if half <= APART * least else half


def pays_from(people: ResultTable, sizes: ResultTable, tests: int) -> Pays:
    """The smallest amount that is sure; both tables have it as ``size``, in any order. ``tests``: personal learners."""
    by_people, by_size = _last_sure(people, tests, "people"), _last_sure(sizes, tests, "sizes")
    if by_size.amount is None or (by_people.amount is not None and by_people.amount <= by_size.amount):
        return by_people
    return by_size


def _last_sure(rows: ResultTable, tests: int, source: str) -> Pays:
    found = Pays(source=source)
    for row in sorted(rows, key=lambda row: row.size or 0, reverse=True):
        if row.value is None or not above_zero(row, tests):
            break
        found = Pays(row.size, row, row.size == rows.sizes[0], source)
    return found
