"""The answer in two sentences: is there room to personalise, and which learner serves these people best.

yes      a personal learner gains over the population baseline, beyond what chance over all personal learners explains
         (Bonferroni), and the same learner trained on shuffled users does not.
no       no learner does, and either no personal learner can plausibly gain MARGIN (the upper ends of all their
         intervals are below it), or two people who judge a pair disagree on fewer than LOW_DISAGREEMENT of the pairs.
unclear  anything else: too few data, or what gains does so for another reason than the user.

``best`` is the learner with the largest gain among those that passed the test; without one it is the baseline, since a
difference that may be chance is no reason for a more complicated method.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

MARGIN = 0.01
LOW_DISAGREEMENT = 0.15
METRIC = "accuracy_micro"

Row = Mapping[str, Any]


def verdict(
    gains: Sequence[Row],
    placebo: Sequence[Row],
    personal: Collection[str],
    baseline: Mapping[str, Any] | None,
    disagreement: float | None,
) -> dict[str, str]:
    """``{"room", "best", "text"}`` from the gains and placebo rows at the full size.

    ``personal`` names the learners that know users; ``disagreement`` is how often two judges of a pair disagree.
    """
    if baseline is None:
        best = next(iter(sorted(personal)), "")
        return {
            "room": "unclear",
            "best": best,
            "text": "No population learner was compared, so nobody's gain can be measured. Add pooled to the learners.",
        }
    name = str(baseline["learner"])
    own = {row["learner"]: row for row in gains if row["learner"] in personal and _is_main(row)}
    known = {learner: row for learner, row in own.items() if row["value"] is not None and row["lo"] is not None}
    chance = {row["learner"]: row for row in placebo if _is_main(row)}
    sure = {learner: row for learner, row in known.items() if _above_zero(row, len(known))}
    real = {n: row for n, row in sure.items() if n not in chance or _vanishes(chance[n], row, len(known))}
    if real:
        best = max(real, key=lambda learner: real[learner]["value"])
        return {"room": "yes", "best": best, "text": _yes(best, real[best], name, chance.get(best))}
    little = disagreement is not None and disagreement < LOW_DISAGREEMENT
    small = bool(known) and all(row["hi"] < MARGIN for row in known.values())
    if sure:
        text = _placebo_gains(max(sure, key=lambda learner: sure[learner]["value"]), name)
        return {"room": "unclear", "best": name, "text": text}
    if known and (little or small):
        return {"room": "no", "best": name, "text": _no(known, name, disagreement if little else None)}
    return {"room": "unclear", "best": name, "text": _unclear(known, name)}


def _is_main(row: Row) -> bool:
    return row["metric"] == METRIC and row.get("cohort", "all") == "all"


def _above_zero(row: Row, tests: int) -> bool:
    """Whether the 95 % interval lies above zero, and still would if ``tests`` learners shared the 5 % (Bonferroni).

    ``p`` is Student's with as many degrees of freedom as there are users (or pairs) less one; see ``Interval``.
    """
    return row["lo"] is not None and row["lo"] > 0 and row["p"] * max(tests, 1) < 0.05


def _vanishes(placebo: Row, real: Row, tests: int) -> bool:
    """Whether shuffled users leave no sure gain, or less than half of the real one's lower limit."""
    return not _above_zero(placebo, tests) or placebo["hi"] < real["lo"] / 2


def _points(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def _interval(row: Row) -> str:
    return f"{_points(row['lo'])} to {_points(row['hi'])}"


def _yes(best: str, row: Row, baseline: str, placebo: Row | None) -> str:
    checked = (
        "The gain rests on knowing the user: trained on shuffled users it is "
        f"{_points(placebo['value'])} points ({_interval(placebo)})."
        if placebo is not None and placebo["lo"] is not None
        else "Whether it rests on knowing the user was not checked, since no placebo arm was run."
    )
    return (
        f"There is something to personalise: {best} gets {_points(row['value'])} points more of the held-out "
        f"judgements right than {baseline}, the best learner that treats everyone alike (95 % interval "
        f"{_interval(row)}). {checked}"
    )


def _no(known: Mapping[str, Row], baseline: str, disagreement: float | None) -> str:
    if disagreement is not None:
        why = f"two people who judge the same pair disagree on only {100 * disagreement:.0f} % of the pairs"
    else:
        top = max(row["hi"] for row in known.values())
        why = f"none can plausibly gain more than {_points(top)} points" if top > 0 else "none of them gains anything"
    return (
        f"There is no room to personalise here: no personal learner is surely better than {baseline}, and {why}. "
        f"Use {baseline}."
    )


def _placebo_gains(learner: str, baseline: str) -> str:
    return (
        f"{learner} is better than {baseline}, but so it is when the users are shuffled, so the gain is not personal. "
        f"Whether these people differ in ways that can be learned is unclear; use {baseline} until it is."
    )


def _unclear(known: Mapping[str, Row], baseline: str) -> str:
    if not known:
        return (
            f"No personal learner was measured against {baseline}, so whether there is room to personalise is unknown. "
            "Add one, such as hierarchical."
        )
    best = max(known, key=lambda learner: known[learner]["value"])
    chance = f", which may be chance when {len(known)} are tried" if known[best]["lo"] > 0 else ", which may be chance"
    return (
        f"Whether there is room to personalise is unclear: the best personal learner, {best}, gains "
        f"{_points(known[best]['value'])} points over {baseline} (95 % interval {_interval(known[best])}){chance}. "
        f"Use {baseline} until there are more judgements."
    )
