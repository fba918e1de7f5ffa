"""The answer in two sentences: is there room to personalise, and which learner serves these people best.

yes      on one of three roads. For people like these: a personal learner gains over the population baseline and over
         itself trained on shuffled users, both beyond what chance over all personal learners explains (Bonferroni), and
         trained on shuffled users it does not gain, or less than half of what the real gain is at least.
         For these people: all of that holds for them on new pairs, whoever others may be (``Compared.these``), and the
         gain is there without the user who gains most, who may be two people with one account; only the gain over
         itself must still be sure for people like these, at 95 %, since a fit may suit a dozen people by luck.
         For some of these people, one by one: MIN_BETTER users or more, and SHARE_BETTER of those tested, are each
         better off than under the baseline and than under the learner trained on shuffled users, beyond what chance
         over all users and personal learners explains (``people.sure``), nobody is significantly worse off, and
         shuffled users leave nobody better. Where people differ, the mean over new ones is not sure with a few dozen of
         them, however sure each; that the second and third road say nothing of others, the text says.
no       no learner does, and there is enough evidence, of one of two kinds, that there is little to gain. Little gain:
         no personal learner can plausibly gain MARGIN (upper ends of the intervals) and the best is not surely worse,
         on at least FEW_USERS users with ENOUGH_OWN training judgements and ENOUGH_HELD_OUT held-out ones. Little
         disagreement: two people who judge a pair disagree on fewer than LOW_DISAGREEMENT of at least
         ENOUGH_SHARED pairs, surely on fewer than HIGH_DISAGREEMENT, and none can plausibly gain HIGH_GAIN. Two
         people who agree say nothing of a third, so that MIN_USERS are needed for either.
unclear  anything else: what gains does so for another reason than the user, or evidence is missing, and the text says
         which. Always where the split leaks: a held-out pair may follow from a user's training pairs.

Each road says yes by chance in one run of forty at most if nobody gains, all together in one of twenty: the last two
rest on the same judgements.

``best`` is the learner with the largest gain among those that passed the test; without one it is the baseline, since a
difference that may be chance is no reason for a more complicated method.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from polypref.evaluation.results_table import COHORT, BoundedRow, ResultRow, ResultTable
from polypref.stats.cluster_robust import FEW_USERS
from polypref.wording import counted, percent, share

Bounded = Mapping[str, BoundedRow]

MARGIN = 0.01
HIGH_GAIN = 0.05
LOW_DISAGREEMENT = 0.15
HIGH_DISAGREEMENT = 0.20
MIN_USERS = 3
MIN_BETTER = 2  # one may be two people who share an account
SHARE_BETTER = 0.1
ENOUGH_SHARED = 50
ENOUGH_OWN = 20
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


def verdict(
    compared: Compared,
    personal: Collection[str],
    baseline: str | None,
    evidence: Evidence,
    people: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, str]:
    """``{"room", "best", "text"}``.

    ``personal`` names the learners that know users; ``people`` holds, for each of these, how many users are ``better``
    and ``worse`` off of those ``tested``, and ``sure`` ones.
    """
    people = people or {}
    if baseline is None:
        best = next(iter(sorted(personal)), "")
        return {
            "room": "unclear",
            "best": best,
            "text": "No population learner was compared, so nobody's gain can be measured. Add pooled to the learners.",
        }
    gains, chance, knowing = (t.by_learner() for t in (compared.gains, compared.placebo, compared.over_shuffled))
    known = _bounded(gains, personal)
    sure, honest, real = _passed(known, chance, knowing)
    if evidence.leak:
        return {"room": "unclear", "best": baseline, "text": _leaks(known, baseline, evidence.leak)}
    if real:
        best = max(real, key=lambda learner: real[learner].value)
        checks = (rows[best].bounded if best in rows else None for rows in (chance, knowing))
        return {"room": "yes", "best": best, "text": _yes(real[best], baseline, *checks)}
    served = _served(compared.these, personal, knowing)
    if served:
        best = max(served, key=lambda learner: served[learner][0].value)
        return {"room": "yes", "best": best, "text": _yes_for_these(served[best], known, people.get(best, {}))}
    some = [n for n in known if n in people and _serves_some(known[n], people[n], chance.get(n), len(known))]
    if some:
        best = max(some, key=lambda learner: (people[learner]["sure"], known[learner].value))
        return {"room": "yes", "best": best, "text": _yes_for_some(known, best, baseline, people)}
    if sure:
        top = max(honest or sure, key=lambda learner: sure[learner].value)
        text = _not_knowing(sure[top], baseline, knowing[top]) if honest else _placebo_gains(top, baseline)
        return {"room": "unclear", "best": baseline, "text": text}
    if not known:
        return {"room": "unclear", "best": baseline, "text": _unmeasured(baseline)}
    missing = _missing(known, evidence)
    if missing:
        return {"room": "unclear", "best": baseline, "text": _unclear(known, baseline, missing, people)}
    return {"room": "no", "best": baseline, "text": _no(known, baseline, evidence)}


def _bounded(rows: Mapping[str, ResultRow], personal: Collection[str]) -> dict[str, BoundedRow]:
    """The personal learners' rows whose value and interval are known."""
    return {name: row.bounded for name, row in rows.items() if name in personal and row.bounded is not None}


def _passed(
    known: Bounded, chance: Mapping[str, ResultRow], knowing: Mapping[str, ResultRow]
) -> tuple[Bounded, Bounded, Bounded]:
    """Of the personal learners ``known``: who surely gain; of these, who gain not much when users are shuffled; of
    these, who surely gain by knowing the user."""
    tests = len(known)
    sure = {n: row for n, row in known.items() if _above_zero(row, tests)}
    honest = {n: row for n, row in sure.items() if n not in chance or _vanishes(chance[n], row, tests)}
    return sure, honest, {n: row for n, row in honest.items() if n not in knowing or _above_zero(knowing[n], tests)}


def _served(
    these: ResultTable, personal: Collection[str], knowing: Mapping[str, ResultRow]
) -> dict[str, tuple[BoundedRow, BoundedRow]]:
    """The second road to yes: learner -> the gain of these users, and what it is worth to know a user like these.

    Closed without a placebo arm: a learner that is better for everyone alike is better for these people, too.
    """
    real = these.where(arm=None)
    own = _bounded({row.learner: row for row in real if row.cohort == COHORT}, personal)
    rest = {row.learner: row for row in real if row.cohort != COHORT}
    _, honest, _ = _passed(own, {row.learner: row for row in these.where(arm="shuffled")}, {})
    known = {n: row for n, row in _bounded(knowing, honest).items() if row.kind == rest[n].kind == "better"}
    return {n: (honest[n], row) for n, row in known.items()}


def _serves_some(row: BoundedRow, people: Mapping[str, int], placebo: ResultRow | None, tests: int) -> bool:
    """The third road to yes: some users gain for being known, none loses, and with shuffled users nobody gains.

    Closed without a placebo arm: a learner that is better for everyone alike is better for many users, too.
    """
    enough = people["sure"] >= max(MIN_BETTER, SHARE_BETTER * people["tested"])
    personal = placebo is not None and not placebo.better and not _above_zero(placebo, tests)
    return enough and people["worse"] == 0 and row.value > 0 and personal


def _missing(known: Bounded, e: Evidence) -> list[str]:
    """What keeps the verdict from being "no", in words; empty when nothing does."""
    gain, agreement = _gain_lacks(known, e), _agreement_lacks(known, e)
    few = [f"only {_users(e.n_users)} {'was' if e.n_users == 1 else 'were'} compared"] if e.n_users < MIN_USERS else []
    if not few and not (gain and agreement):
        return []
    if e.disagreement is not None and e.disagreement < LOW_DISAGREEMENT:
        return few + agreement
    alone = ["no two people judged the same pair"] if not e.shared else []
    return few + alone + gain


def _gain_lacks(known: Bounded, e: Evidence) -> list[str]:
    """What is missing to say that nothing can be gained, whether people agree or not."""
    top = max(row.hi for row in known.values())
    held_out = max(row.n_comparisons for row in known.values())
    lacks = {
        _not_excluded(known, MARGIN): top >= MARGIN,
        "every personal learner that was tried is surely worse, which says little of a better one": top < 0,
        f"{_users(e.n_users)} are too few to speak of others": MIN_USERS <= e.n_users < FEW_USERS,
        f"there are only {held_out} held-out judgements": held_out < ENOUGH_HELD_OUT,
        f"half of the users have at most {e.own:.0f} judgements to learn from": e.own < ENOUGH_OWN,
    }
    return [text for text, so in lacks.items() if so]


def _agreement_lacks(known: Bounded, e: Evidence) -> list[str]:
    """What is missing to say that people agree."""
    if e.disagreement is None or e.disagreement_hi is None:
        return ["no two people judged the same pair"]
    top = max(row.hi for row in known.values())
    lacks = {
        f"two people disagree on {share(e.disagreement)} of the pairs": e.disagreement >= LOW_DISAGREEMENT,
        f"only {e.shared} pairs were judged by two people or more": e.shared < ENOUGH_SHARED,
        f"two people may disagree on as many as {share(e.disagreement_hi)} of the pairs": (
            e.disagreement_hi >= HIGH_DISAGREEMENT > LOW_DISAGREEMENT > e.disagreement
        ),
        _not_excluded(known, HIGH_GAIN): top >= HIGH_GAIN,
    }
    return [text for text, so in lacks.items() if so]


def _not_excluded(known: Bounded, margin: float) -> str:
    """The gain that may yet be there: of the learner that the text speaks of, or else of the one it names."""
    best = known[_leader(known)]
    if best.hi >= margin:
        return f"a gain of {percent(best.hi)} points is not excluded"
    row = max(known.values(), key=lambda row: row.hi)
    return f"a gain of {percent(row.hi)} points by {row.learner} is not excluded"


def _leader(known: Bounded) -> str:
    """The personal learner with the largest gain."""
    return max(known, key=lambda learner: known[learner].value)


def _above_zero(row: ResultRow, tests: int) -> bool:
    """Whether the 95 % interval lies above zero, and still would if ``tests`` learners shared the 5 % (Bonferroni).

    ``p`` is Student's with as many degrees of freedom as there are users (or pairs) less one; see ``Interval``.
    """
    return row.lo is not None and row.lo > 0 and row.p is not None and row.p * max(tests, 1) < 0.05


def _vanishes(placebo: ResultRow, real: BoundedRow, tests: int) -> bool:
    """Whether shuffled users leave no sure gain, or less than half of the real one's lower limit."""
    left = placebo.bounded
    return left is None or not _above_zero(left, tests) or left.hi < real.lo / 2


def _interval(row: BoundedRow) -> str:
    return f"{percent(row.lo)} to {percent(row.hi)}"


def _yes(row: BoundedRow, baseline: str, placebo: BoundedRow | None, knowing: BoundedRow | None) -> str:
    checked = (
        "The gain rests on knowing the user: trained on shuffled users the same learner gets "
        f"{percent(knowing.value)} points fewer of them right ({_interval(knowing)})"
        + (
            f", and its gain over {baseline} is {percent(placebo.value)} ({_interval(placebo)})."
            if placebo is not None
            else "."
        )
        if knowing is not None
        else "Whether it rests on knowing the user was not checked, since no placebo arm was run."
    )
    return (
        f"There is something to personalise: {row.learner} gets {percent(row.value)} points more of the held-out "
        f"judgements right than {baseline}, the learner that treats everyone alike and is best on validation rows "
        f"(95 % interval {_interval(row)}). {checked}"
    )


def _yes_for_these(rows: tuple[BoundedRow, BoundedRow], known: Bounded, counted: Mapping[str, int]) -> str:
    gain, knowing = rows
    better, worse, others = counted.get("better", 0), counted.get("worse", 0), known[gain.learner]
    each = f"; {better} of {_users(counted['tested'])} tested are significantly better off" if better else ""
    each += f" and {worse or 'none'} worse" if better else ""
    return (
        f"There is something to personalise for these people: {gain.learner} gets {percent(gain.value)} points more of "
        f"their held-out judgements right than {gain.baseline} (95 % interval {_interval(gain)}), and "
        f"{percent(knowing.value)} more than if it had been trained on shuffled users ({_interval(knowing)}){each}. "
        f"This speaks of these {_users(gain.n_users)}, not yet of others, for whom the interval is "
        f"{_interval(others)}{_may_be_chance(known, others)}; use {gain.learner} for them, and {gain.baseline} for "
        f"others {_until(others)}."
    )


def _yes_for_some(known: Bounded, best: str, baseline: str, people: Mapping[str, Mapping[str, int]]) -> str:
    row, served = known[best], people[best]
    return (
        f"There is something to personalise for some of these people: under {best} {served['sure']} of "
        f"{_users(served['tested'])} tested are each significantly better off than under {baseline}, and than if it "
        "had been trained on shuffled users, and nobody is worse off. This speaks of these users, not yet of others: "
        f"the mean gain of {percent(row.value)} points (95 % interval {_interval(row)}) may be "
        f"chance{_when_tried(known)}; use {best} for them, and {baseline} for others {_until(row)}."
    )


def _no(known: Bounded, baseline: str, e: Evidence) -> str:
    top = max(row.hi for row in known.values())
    if e.disagreement is not None and not _agreement_lacks(known, e):
        why = f"two people who judge the same pair disagree on only {share(e.disagreement)} of the pairs"
    else:
        why = f"none can plausibly gain more than {percent(top)} points"
    among = f" among these {_users(e.n_users)}" if e.n_users < FEW_USERS else ""
    return (
        f"There is no room to personalise here{among}: no personal learner is surely better than {baseline}, "
        f"and {why}. Use {baseline}."
    )


def _placebo_gains(learner: str, baseline: str) -> str:
    return (
        f"{learner} is better than {baseline}, but so it is when the users are shuffled, so the gain is not personal. "
        f"Whether these people differ in ways that can be learned is unclear; use {baseline} until it is."
    )


def _not_knowing(row: BoundedRow, baseline: str, knowing: ResultRow) -> str:
    less = knowing.bounded
    by = f"{percent(less.value)} points ({_interval(less)})" if less is not None else "it is not known"
    return (
        f"{row.learner} is better than {baseline} by {percent(row.value)} points ({_interval(row)}), but whether "
        f"that rests on knowing the user is unclear: against itself trained on shuffled users it gains {by}. "
        f"Use {baseline} {_until(knowing)}."
    )


def _leaks(known: Mapping[str, BoundedRow], baseline: str, why: str) -> str:
    best = known[_leader(known)] if known else None
    gain = f" ({best.learner} seems to gain {percent(best.value)} points over {baseline})" if best else ""
    return (
        "Whether there is room to personalise is unclear, because with --split pair held-out pairs may follow from "
        f"training pairs of the same user: {why}. Gains come out too high{gain}. Measure with --split auto."
    )


def _unmeasured(baseline: str) -> str:
    return (
        f"No personal learner was measured against {baseline}, so whether there is room to personalise is unknown. "
        "Add one, such as hierarchical."
    )


def _unclear(known: Bounded, baseline: str, missing: Sequence[str], people: Mapping[str, Mapping[str, int]]) -> str:
    best = _leader(known)
    row = known[best]
    chance = _may_be_chance(known, row)
    gained = f"gains {percent(row.value)} points over" if row.value > 0 else "gains nothing over"
    first = (
        f"Whether there is room to personalise is unclear: the best personal learner, {best}, {gained} {baseline} "
        f"(95 % interval {_interval(row)}){chance}"
    )
    listed = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
    none = f"That there is none cannot be said either, since {listed}"
    served = people.get(best, {})
    better, worse = served.get("better", 0), served.get("worse", 0)
    if not better:
        return f"{first}. {none}; use {baseline} {_until(row)}."
    of = f"{better} of {_users(served['tested'])} tested {'is' if better == 1 else 'are'} significantly better off"
    if worse:
        return f"{first}, {of} and {worse} worse. {none}; use {baseline} {_until(row)}."
    return f"{first}, {of} and none worse. Use {best} for {_these(better)}, and {baseline} for others {_until(row)}."


def _may_be_chance(known: Bounded, row: BoundedRow) -> str:
    """Why an interval above zero is not enough."""
    return f", which may be chance{_when_tried(known)}" if row.lo > 0 else ""


def _when_tried(known: Bounded) -> str:
    return f" when {len(known)} are tried" if len(known) > 1 else ""


def _until(row: ResultRow) -> str:
    """What is short: people, other pairs, or judgements, by where the width of the interval comes from."""
    parts = row.variance_parts or {}
    largest = max(parts, key=lambda name: parts[name]) if parts else ""
    n, most = row.n_users, share(parts.get(largest, 0.0))
    if n is None or n < FEW_USERS:
        return "until there are more people and more judgements"
    if row.hi is None or row.hi < MARGIN or largest not in ("users", "pairs"):
        return "until there are more judgements"
    if largest == "users":
        return (
            f"until there are more people (more judgements by these {n} would hardly help: {most} of the "
            "uncertainty is how much they differ)"
        )
    return f"until other pairs were judged ({most} of the uncertainty is how much pairs differ)"


def _users(n: int) -> str:
    return counted(n, "users")


def _these(n: int) -> str:
    return "that user" if n == 1 else f"those {n}"
