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

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from polypref.evaluation import verdict_text as say
from polypref.evaluation.results_table import COHORT, BoundedRow, ResultRow, ResultTable
from polypref.evaluation.verdict_evidence import (
    ENOUGH_HELD_OUT,
    ENOUGH_SHARED,
    HIGH_DISAGREEMENT,
    HIGH_GAIN,
    LOW_DISAGREEMENT,
    MARGIN,
    MIN_BETTER,
    MIN_USERS,
    SHARE_BETTER,
    Bounded,
    Compared,
    Evidence,
)
from polypref.stats.cluster_robust import FEW_USERS
from polypref.stats.per_user import ENOUGH_OWN
from polypref.wording import code, percent, share


def verdict(
    compared: Compared,
    personal: Collection[str],
    baseline: str | None,
    evidence: Evidence,
    people: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """``{"room", "best", "text", "reason", "passed", "until", "lacks"}``.

    ``personal`` names the learners that know users; ``people`` holds, for each of these, how many users are ``better``
    and ``worse`` off of those ``tested``, and ``sure`` ones. ``reason`` is the core of the text, ``passed`` names the
    learners that passed the test of the road that ``best`` took, ``until`` says what is short if anything is, and
    ``lacks`` what the comparison itself lacks: "baseline", "personal", "split" or nothing.
    """
    people = people or {}
    if baseline is None:
        return _found(
            "unclear", next(iter(sorted(personal)), ""), say.NO_BASELINE, say.NO_BASELINE_REASON, lacks="baseline"
        )
    gains, chance, knowing = (t.by_learner() for t in (compared.gains, compared.placebo, compared.over_shuffled))
    known = _bounded(gains, personal)
    sure, honest, real = _passed(known, chance, knowing)
    if evidence.leak:
        return _found(
            "unclear",
            baseline,
            say.leaks(known, baseline, evidence.leak),
            say.leak_reason(evidence.leak),
            lacks="split",
        )
    if real:
        best = max(real, key=lambda learner: real[learner].value)
        checks = (rows[best].bounded if best in rows else None for rows in (chance, knowing))
        return _found("yes", best, say.yes(real[best], baseline, *checks), say.FOR_ALL, real)
    served = _served(compared.these, personal, knowing)
    if served:
        best = max(served, key=lambda learner: served[learner][0].value)
        text = say.yes_for_these(served[best], known, people.get(best, {}))
        return _found("yes", best, text, say.FOR_THESE, served, say.until(known[best]))
    some = [n for n in known if n in people and _serves_some(known[n], people[n], chance.get(n), len(known))]
    if some:
        best = max(some, key=lambda learner: (people[learner]["sure"], known[learner].value))
        text = say.yes_for_some(known, best, baseline, people)
        return _found("yes", best, text, say.FOR_SOME, some, say.until(known[best]))
    if honest:
        top = max(honest, key=lambda learner: sure[learner].value)
        text = say.not_knowing(sure[top], baseline, knowing[top])
        return _found("unclear", baseline, text, say.not_knowing_reason(top), (), say.until(knowing[top]))
    if sure:
        top = max(sure, key=lambda learner: sure[learner].value)
        return _found("unclear", baseline, say.placebo_gains(top, baseline), say.placebo_reason(top))
    if not known:
        return _found("unclear", baseline, say.unmeasured(baseline), say.UNMEASURED_REASON, lacks="personal")
    missing = _missing(known, evidence)
    if missing:
        text, until = say.unclear(known, baseline, missing, people), say.until(known[say.leader(known)])
        return _found("unclear", baseline, text, say.unclear_reason(known, missing), (), until)
    why = say.no_reason(known, evidence, agree=not _agreement_lacks(known, evidence))
    return _found("no", baseline, say.no(baseline, evidence, why), why)


def _found(
    room: str,
    best: str,
    text: str,
    reason: str,
    passed: Iterable[str] = (),
    until: str = "",
    lacks: str = "",
) -> dict[str, Any]:
    """A verdict's keys in results.json."""
    found = {"room": room, "best": best, "text": text, "reason": reason, "passed": list(passed)}
    return found | {"until": until, "lacks": lacks}


def _bounded(rows: Mapping[str, ResultRow], personal: Collection[str]) -> dict[str, BoundedRow]:
    """The personal learners' rows whose value and interval are known."""
    return {name: row.bounded for name, row in rows.items() if name in personal and row.bounded is not None}


def _passed(
    known: Bounded, chance: Mapping[str, ResultRow], knowing: Mapping[str, ResultRow]
) -> tuple[Bounded, Bounded, Bounded]:
    """Of the personal learners ``known``: who surely gain; of these, who gain not much when users are shuffled; of
    these, who surely gain by knowing the user."""
    tests = len(known)
    sure = {n: row for n, row in known.items() if above_zero(row, tests)}
    honest = {n: row for n, row in sure.items() if n not in chance or _vanishes(chance[n], row, tests)}
    return sure, honest, {n: row for n, row in honest.items() if n not in knowing or above_zero(knowing[n], tests)}


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
    personal = placebo is not None and not placebo.better and not above_zero(placebo, tests)
    return enough and people["worse"] == 0 and row.value > 0 and personal


def _missing(known: Bounded, e: Evidence) -> list[str]:
    """What keeps the verdict from being "no", in words; empty when nothing does."""
    gain, agreement = _gain_lacks(known, e), _agreement_lacks(known, e)
    few = (
        [f"only {say.users(e.n_users)} {'was' if e.n_users == 1 else 'were'} compared"] if e.n_users < MIN_USERS else []
    )
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
        f"{say.users(e.n_users)} are too few to speak of others": MIN_USERS <= e.n_users < FEW_USERS,
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
    best = known[say.leader(known)]
    if best.hi >= margin:
        return f"a gain of {percent(best.hi)} points is not excluded"
    row = max(known.values(), key=lambda row: row.hi)
    return f"a gain of {percent(row.hi)} points by {code(row.learner)} is not excluded"


def above_zero(row: ResultRow, tests: int) -> bool:
    """Whether the 95 % interval lies above zero, and still would if ``tests`` learners shared the 5 % (Bonferroni).

    ``p`` is Student's with as many degrees of freedom as there are users (or pairs) less one; see ``Interval``.
    """
    return row.lo is not None and row.lo > 0 and row.p is not None and row.p * max(tests, 1) < 0.05


def _vanishes(placebo: ResultRow, real: BoundedRow, tests: int) -> bool:
    """Whether shuffled users leave no sure gain, or less than half of the real one's lower limit."""
    left = placebo.bounded
    return left is None or not above_zero(left, tests) or left.hi < real.lo / 2
