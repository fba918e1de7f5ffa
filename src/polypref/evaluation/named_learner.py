"""The one personal learner that ``compare``, its report and ``table`` speak of."""

from __future__ import annotations

from polypref.evaluation.results_schema import CompareContents


def named_learner(contents: CompareContents) -> str | None:
    """The learner to take if the verdict is yes, or else the personal one with the largest gain, if any is known.

    Gains with an interval go before those without.
    """
    if contents.verdict["room"] == "yes" and contents.method["learner"] is not None:
        return contents.method["learner"]
    gains = contents.gains.by_learner()
    known = {name: row for name, row in gains.items() if contents.serves.get(name) != "population"}
    value = {name: row.value for name, row in known.items() if row.value is not None}
    bounded = [name for name in value if known[name].bounded is not None]
    return max(bounded or value, key=lambda name: value[name], default=None)
