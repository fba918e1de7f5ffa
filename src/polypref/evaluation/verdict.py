"""The answer in two sentences: is there room to personalise, and which learner serves these people best.

yes      a personal learner gains over the population baseline and over itself trained on shuffled users, both beyond
         what chance over all personal learners explains (Bonferroni), and trained on shuffled users it does not gain,
         or less than half of what the real gain is at least.
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
    over_shuffled: Sequence[Row],
    personal: Collection[str],
    baseline: Mapping[str, Any] | None,
    disagreement: float | None,
) -> dict[str, str]:
    """``{"room", "best", "text"}`` from the rows at the full size.

    ``gains`` and ``placebo`` are over the baseline, trained on real and on shuffled users; ``over_shuffled`` is the one
    less the other, paired; both are empty when no placebo arm was run, and then the verdict does without.
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
    chance, knowing = ({row["learner"]: row for row in rows if _is_main(row)} for rows in (placebo, over_shuffled))
    sure = {learner: row for learner, row in known.items() if _above_zero(row, len(known))}
    honest = {n: row for n, row in sure.items() if n not in chance or _vanishes(chance[n], row, len(known))}
    real = {n: row for n, row in honest.items() if n not in knowing or _above_zero(knowing[n], len(known))}
    if real:
        best = max(real, key=lambda learner: real[learner]["value"])
        return {"room": "yes", "best": best, "text": _yes(real[best], name, chance.get(best), knowing.get(best))}
    little = disagreement is not None and disagreement < LOW_DISAGREEMENT
    small = bool(known) and all(row["hi"] < MARGIN for row in known.values())
    if sure:
        top = max(honest or sure, key=lambda learner: sure[learner]["value"])
        text = _not_knowing(sure[top], name, knowing[top]) if honest else _placebo_gains(top, name)
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
    text = f"{100 * value:.1f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def _interval(row: Row) -> str:
    return f"{_points(row['lo'])} to {_points(row['hi'])}"


def _yes(row: Row, baseline: str, placebo: Row | None, knowing: Row | None) -> str:
    checked = (
        "The gain rests on knowing the user: trained on shuffled users the same learner gets "
        f"{_points(knowing['value'])} points fewer of them right ({_interval(knowing)})"
        + (
            f", and its gain over {baseline} is {_points(placebo['value'])} ({_interval(placebo)})."
            if placebo is not None and placebo["lo"] is not None
            else "."
        )
        if knowing is not None
        else "Whether it rests on knowing the user was not checked, since no placebo arm was run."
    )
    return (
        f"There is something to personalise: {row['learner']} gets {_points(row['value'])} points more of the held-out "
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


def _not_knowing(row: Row, baseline: str, knowing: Row) -> str:
    by = (
        f"{_points(knowing['value'])} points ({_interval(knowing)})" if knowing["lo"] is not None else "it is not known"
    )
    return (
        f"{row['learner']} is better than {baseline} by {_points(row['value'])} points ({_interval(row)}), but whether "
        f"that rests on knowing the user is unclear: against itself trained on shuffled users it gains {by}. "
        f"Use {baseline} until there are more judgements."
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
