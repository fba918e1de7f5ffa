"""Two more tables beside the evaluation paper's: what shuffled users gain, and the tax on RewardBench.

The first has no counterpart in the paper. The second needs ``tax/LEARNER/tax.json`` in a set's folder, as
``polypref reproduce`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polypref import wording as words
from polypref.evaluation.collect_results import Collected
from polypref.report.table import Cell, Column, Row, Table

SECTIONS = {"Safety": "Safety", "Reason.": "Reasoning", "Chat": "Chat", "Chat-H": "Chat Hard"}  # theirs -> ours
ARMS = ("base", "pooled", "personal", "shuffled")


def placebos(results: Sequence[Collected]) -> Table | None:
    """Gains of personal learners at full size, and of the same learners trained on shuffled users."""
    found = [one for one in results if len(one.contents.placebo)]
    if not found:
        return None
    columns = [Column(title, one.name) for one in found for title in ("gain", "shuffled users")]
    rows = []
    for learner in dict.fromkeys(row.learner for one in found for row in one.contents.placebo):
        cells = []
        for one in found:
            for table in (one.contents.gains, one.contents.placebo):
                row = table.by_learner().get(learner)
                value = None if row is None or row.value is None else words.points(row.value)
                ends = None if row is None else words.interval(row.ends, words.points) or None
                cells.append(Cell(value, None, ends))
        rows.append(Row(learner, tuple(cells)))
    remark = "Points of accuracy over the baseline. A learner that gains on shuffled users has learned something else."
    return Table("placebo", "Gains, and gains on shuffled users", "learner", tuple(columns), tuple(rows), (remark,))


def taxes(results: Sequence[Collected], paper: Mapping[str, Any], key_of: Mapping[str, str | None]) -> list[Table]:
    """The score of each arm in each section, one table a set; ``paper`` is ``published()``.

    ``key_of``  the published set that each folder stands for; None: show no published figures.
    """
    return [_tax(one, paper, key_of.get(one.name)) for one in results if one.taxes]


def _tax(one: Collected, paper: Mapping[str, Any], key: str | None) -> Table:
    scheme = next(iter(one.taxes.values()))["suite"]["scheme"]
    theirs = paper["tax"].get(key, {}) if key and scheme == "RewardBench" else {}
    sections = list(dict.fromkeys(row["section"] for tax in one.taxes.values() for row in tax["scores"]))
    of = {ours: name for name, ours in SECTIONS.items()}
    rows, shown = [], set()
    for learner, tax in one.taxes.items():
        for arm in ARMS:
            method = {"base": "pretrained", "pooled": "pooled", "personal": learner}.get(arm)
            known = {row["section"]: row for row in tax["scores"] if row["arm"] == arm}
            if not known or method in shown:
                continue
            shown.add(method or f"{learner} {arm}")
            label = {"base": "before tuning", "pooled": "pooled", "personal": learner}.get(arm, f"{learner}, shuffled")
            published = dict(zip(paper["tax"]["columns"], theirs.get(method or "", ()), strict=False))
            cells = (_score(known.get(section), published.get(of.get(section, ""))) for section in sections)
            rows.append(Row(label, tuple(cells)))
    remarks = ["Share of items won; of personal learners the mean over users."]
    if theirs:
        remarks.append(f"Published: {paper['cite']}, {paper['tax']['source']}. {paper['notes']['tax-rewardbench']}.")
    title = f"{one.name}: {scheme} after tuning"
    return Table(f"tax-{one.name}", title, "arm", tuple(map(Column, sections)), tuple(rows), tuple(remarks))


def _score(row: Mapping[str, Any] | None, known: float | None) -> Cell:
    beside = None if known is None else words.number(known, 2)
    if row is None or words.finite(row.get("value")) is None:
        return Cell(None, beside)
    return Cell(words.number(float(row["value"])), beside, words.interval({"lo": row["lo"], "hi": row["hi"]}) or None)
