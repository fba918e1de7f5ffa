"""The sentences of a verdict. They say what ``verdict.py`` found and decide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polypref.evaluation.results_table import BoundedRow, ResultRow
from polypref.evaluation.verdict_evidence import MARGIN, Bounded, Evidence
from polypref.stats.cluster_robust import FEW_USERS
from polypref.wording import code, counted, listed, percent, share

FOR_ALL, FOR_THESE, FOR_SOME = "", "for these people", "for some of these people"  # whom a yes speaks of
NO_BASELINE = "No population learner was compared, so nobody's gain can be measured. Add `pooled` to the learners."
NO_BASELINE_REASON = "no learner that treats everyone alike was compared"
UNMEASURED_REASON = "no learner that knows people was compared"


def leader(known: Bounded) -> str:
    """The personal learner with the largest gain."""
    return max(known, key=lambda learner: known[learner].value)


def _interval(row: BoundedRow) -> str:
    return f"{percent(row.lo)} to {percent(row.hi)}"


def yes(row: BoundedRow, baseline: str, placebo: BoundedRow | None, knowing: BoundedRow | None) -> str:
    """A gain for people like these."""
    checked = (
        "The gain rests on knowing the user: trained on shuffled users the same learner gets "
        f"{percent(knowing.value)} points fewer of them right ({_interval(knowing)})"
        + (
            f", and its gain over {code(baseline)} is {percent(placebo.value)} ({_interval(placebo)})."
            if placebo is not None
            else "."
        )
        if knowing is not None
        else "Whether it rests on knowing the user was not checked, since no placebo arm was run."
    )
    return (
        f"There is something to personalise: {code(row.learner)} gets {percent(row.value)} points more of the held-out "
        f"judgements right than {code(baseline)}, the learner that treats everyone alike and is best on validation "
        f"rows (95 % interval {_interval(row)}). {checked}"
    )


def yes_for_these(rows: tuple[BoundedRow, BoundedRow], known: Bounded, counted: Mapping[str, int]) -> str:
    """A gain for these people."""
    gain, knowing = rows
    best, floor = code(gain.learner), code(gain.baseline)
    better, worse, others = counted.get("better", 0), counted.get("worse", 0), known[gain.learner]
    each = f"; {better} of {users(counted['tested'])} tested are significantly better off" if better else ""
    each += f" and {worse or 'none'} worse" if better else ""
    return (
        f"There is something to personalise for these people: {best} gets {percent(gain.value)} points more of "
        f"their held-out judgements right than {floor} (95 % interval {_interval(gain)}), and "
        f"{percent(knowing.value)} more than if it had been trained on shuffled users ({_interval(knowing)}){each}. "
        f"This speaks of these {users(gain.n_users)}, not yet of others, for whom the interval is "
        f"{_interval(others)}{_may_be_chance(known, others)}; use {best} for them, and {floor} for "
        f"others {until(others)}."
    )


def yes_for_some(known: Bounded, best: str, baseline: str, people: Mapping[str, Mapping[str, int]]) -> str:
    """Gains of single people."""
    row, served = known[best], people[best]
    return (
        f"There is something to personalise for some of these people: under {code(best)} {served['sure']} of "
        f"{users(served['tested'])} tested are each significantly better off than under {code(baseline)}, and than if "
        "it had been trained on shuffled users, and nobody is worse off. "
        "This speaks of these users, not yet of others: "
        f"the mean gain of {percent(row.value)} points (95 % interval {_interval(row)}) may be "
        f"chance{_when_tried(known)}; use {code(best)} for them, and {code(baseline)} for others {until(row)}."
    )


def no_reason(known: Bounded, evidence: Evidence, agree: bool) -> str:
    """Why there is little to gain; ``agree``: whether people surely agree."""
    if evidence.disagreement is not None and agree:
        return f"two people who judge the same pair disagree on only {share(evidence.disagreement)} of the pairs"
    return f"none can plausibly gain more than {percent(max(row.hi for row in known.values()))} points"


def no(baseline: str, evidence: Evidence, why: str) -> str:
    """No room."""
    among = f" among these {users(evidence.n_users)}" if evidence.n_users < FEW_USERS else ""
    return (
        f"There is no room to personalise here{among}: no personal learner is surely better than {code(baseline)}, "
        f"and {why}. Use {code(baseline)}."
    )


def placebo_gains(learner: str, baseline: str) -> str:
    """A gain that shuffled users show as well."""
    return (
        f"{code(learner)} is better than {code(baseline)}, but so it is when the users are shuffled, so the gain is "
        f"not personal. Whether these people differ in ways that can be learned is unclear; use "
        f"{code(baseline)} until it is."
    )


def not_knowing(row: BoundedRow, baseline: str, knowing: ResultRow) -> str:
    """A gain that may not rest on knowing the user."""
    less = knowing.bounded
    by = f"{percent(less.value)} points ({_interval(less)})" if less is not None else "it is not known"
    return (
        f"{code(row.learner)} is better than {code(baseline)} by {percent(row.value)} points ({_interval(row)}), but "
        f"whether that rests on knowing the user is unclear: against itself trained on shuffled users it gains {by}. "
        f"Use {code(baseline)} {until(knowing)}."
    )


def leaks(known: Mapping[str, BoundedRow], baseline: str, why: str) -> str:
    """A split that leaks."""
    best, gain = known[leader(known)] if known else None, ""
    if best:
        gain = f" ({code(best.learner)} seems to gain {percent(best.value)} points over {code(baseline)})"
    return (
        "Whether there is room to personalise is unclear, because with --split pair held-out pairs may follow from "
        f"training pairs of the same user: {why}. Gains come out too high{gain}. Measure with --split auto."
    )


def leak_reason(why: str) -> str:
    """The same in short."""
    return f"with --split pair, held-out pairs may follow from training pairs of the same user: {why}"


def placebo_reason(learner: str) -> str:
    """The same in short."""
    return f"{code(learner)} gains as much when the users are shuffled, so its gain is not personal"


def not_knowing_reason(learner: str) -> str:
    """The same in short."""
    return f"{code(learner)} gains, but perhaps not by knowing the user: trained on shuffled users it may gain as much"


def unclear_reason(known: Bounded, missing: Sequence[str]) -> str:
    """What keeps the verdict from being yes or no, in short."""
    row = known[leader(known)]
    chance = f"the best gain may be chance{_when_tried(known)}" if row.value > 0 else "no personal learner gains"
    return f"{chance}, but {listed(missing)}"


def unmeasured(baseline: str) -> str:
    """No personal learner took part."""
    return (
        f"No personal learner was measured against {code(baseline)}, so whether there is room to personalise is "
        "unknown. Add one, such as `hierarchical`."
    )


def unclear(known: Bounded, baseline: str, missing: Sequence[str], people: Mapping[str, Mapping[str, int]]) -> str:
    """Neither yes nor no."""
    row = known[leader(known)]
    best, floor = code(row.learner), code(baseline)
    chance = _may_be_chance(known, row)
    gained = f"gains {percent(row.value)} points over" if row.value > 0 else "gains nothing over"
    first = (
        f"Whether there is room to personalise is unclear: the best personal learner, {best}, {gained} {floor} "
        f"(95 % interval {_interval(row)}){chance}"
    )
    none = f"That there is none cannot be said either, since {listed(missing)}"
    served = people.get(row.learner, {})
    better, worse = served.get("better", 0), served.get("worse", 0)
    if not better:
        return f"{first}. {none}; use {floor} {until(row)}."
    of = f"{better} of {users(served['tested'])} tested {'is' if better == 1 else 'are'} significantly better off"
    if worse:
        return f"{first}, {of} and {worse} worse. {none}; use {floor} {until(row)}."
    return f"{first}, {of} and none worse. Use {best} for {_these(better)}, and {floor} for others {until(row)}."


def _may_be_chance(known: Bounded, row: BoundedRow) -> str:
    """Why an interval above zero is not enough."""
    return f", which may be chance{_when_tried(known)}" if row.lo > 0 else ""


def _when_tried(known: Bounded) -> str:
    return f" when {len(known)} are tried" if len(known) > 1 else ""


def until(row: ResultRow) -> str:
    """What is short: people, other pairs, or judgements, by where the width of the interval comes from."""
    parts = row.variance_parts or {}
    largest = max(parts, key=lambda name: parts[name]) if parts else ""
    n, most = row.n_users, share(parts.get(largest, 0.0))
    if n is None or n < FEW_USERS:
        return "until there are more people and more judgements"
    if row.se is None and row.value == 0 and row.n_comparisons:  # nothing changed: their number alone is the width
        return f"until more than {row.n_comparisons:,} judgements are held out, with more `--seeds` or more data"
    if row.hi is None or row.hi < MARGIN or largest not in ("users", "pairs"):
        return "until there are more judgements"
    if largest == "users":
        return (
            f"until there are more people (more judgements by these {n} would hardly help: {most} of the "
            "uncertainty is how much they differ)"
        )
    return f"until other pairs were judged ({most} of the uncertainty is how much pairs differ)"


def users(n: int) -> str:
    """``12 users``."""
    return counted(n, "users")


def _these(n: int) -> str:
    return "that user" if n == 1 else f"those {n}"
