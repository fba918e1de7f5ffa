"""Formats a profile as sentences and table rows; it computes nothing."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from polypref import wording
from polypref.data.derived import Origin
from polypref.profiling.consistency import Consistency
from polypref.profiling.disagreement import Disagreement
from polypref.profiling.groups import Groups
from polypref.profiling.minorities import Minorities
from polypref.profiling.room import Room
from polypref.profiling.social_choice import SocialChoice
from polypref.stats.estimate import Estimate, Tested
from polypref.wording import counted

UNKNOWN = "unknown"
SURE = 0.05


class Row(NamedTuple):
    """One quantity of a profile, ready to print."""

    dimension: str
    name: str
    value: str
    interval: str
    of: str


def percent(value: float | None) -> str:
    """A share in whole percent."""
    return UNKNOWN if value is None else wording.share(value)


def share(value: float | None) -> str:
    """A share to three decimals."""
    return UNKNOWN if value is None else wording.number(value)


def between(lo: float | None, hi: float | None, digits: int = 3) -> str:
    """Two ends; empty if one is unknown."""
    return wording.interval({"lo": lo, "hi": hi}, partial(wording.number, digits=digits))


def _sure(estimate: Estimate) -> str:
    """A share with its interval, in percent."""
    ends = wording.interval({"lo": estimate.lo, "hi": estimate.hi}, partial(wording.percent, digits=0))
    return percent(estimate.value) + (f" ({ends})" if ends else "")


def of_disagreement(d: Disagreement) -> str:
    """How often the judges of a pair disagree."""
    if d.divergence.value is None:
        return "Disagreement is unknown: no pair was judged by two users who took a side."
    raw, what = (d.contested, "three") if d.contested.n else (d.divergence, "two")
    high = d.highly_contested if d.contested.n else d.high_divergence
    text = (
        f"Of {counted(raw.n, 'pairs')} with {what} or more judges {_sure(raw)} are contested and {_sure(high)} highly."
    )
    three = d.at_panel[3][0]
    if three.value is None:
        return text
    return f"{text} With exactly three judges each it would be {_sure(three)}."


def of_origin(o: Origin) -> str:
    """Whether a user's judgements are independent of each other, and how many independent ones they are worth."""
    text = f"{o.why[0].upper()}{o.why[1:]}."
    return f"{text} They are worth {counted(o.worth, 'independent judgements')}." if o.dependent else text


def of_consistency(c: Consistency) -> str:
    """How often users repeat their answer."""
    triads = c.cyclic_triads
    tail = "" if not triads.n else f" Of {counted(triads.n, 'triads')} judged by one user, {_sure(triads)} are cyclic."
    if c.retest.value is None:
        return f"Consistency is unknown: nobody judged the same two texts twice.{tail}"
    people = counted(c.n_users, "users")
    text = f"On a repeat, {people} gave the same answer in {_sure(c.retest)} of {counted(c.retest.n, 'repeats')}"
    if c.retest_no_ties.n not in (0, c.retest.n):
        text += f"; in {_sure(c.retest_no_ties)} of {c.retest_no_ties.n:,} where no answer was a tie"
    return f"{text}.{tail}"


def of_minorities(m: Minorities) -> str:
    """How many users the majority does not represent."""
    figures = m.as_dict()
    if not figures["n_users"]:
        return "Minorities are unknown: no user's vote can be compared with a majority of others."
    testable, found = figures["n_testable"], figures["n_minority"]
    if not testable:
        return "Minorities are unknown: no user shares enough pairs with others for a bound at 95 %."
    side = "sides" if found == 1 else "side"
    text = f"{found:,} of {counted(testable, 'users')} with enough shared pairs {side} with the others' majority less "
    text += "than half of the time, at 95 % confidence"
    text += f" (by chance alone: at most {figures['at_most_by_chance']:.0f})."
    # in two balanced camps of three, three of the other five oppose each person
    balanced = (
        f" Balanced opposed camps cause this; with the user's own vote counted it is {figures['n_below_half']:,}."
    )
    return text + balanced if 2 * found > testable else text


def of_room(r: Room) -> str:
    """What personalization could add."""
    if r.lo is None or r.hi is None:
        return "Room is unknown: no pair has three judges, so a majority's accuracy cannot be measured."
    population = (
        share(r.population_lo) if r.population_lo == r.population_hi else between(r.population_lo, r.population_hi)
    )
    text = f"The best answer for everyone ({r.source}) is right in {population} of the judgements; "
    if r.measured:
        return f"{text}with this consistency a personal one could add {between(r.lo, r.hi)}."
    given = [(c, room) for c, room in (r.at_ceiling or {}).items() if room is not None]
    options = "; ".join(f"{between(*room)} if people agree with themselves at {c:g}" for c, room in given)
    return f"{text}consistency is unknown, so a personal one could add {options}."


def of_social_choice(s: SocialChoice) -> str:
    """Whether majorities are cyclic more often than by chance."""
    triads = s.cyclic_triads
    if triads.value is None:
        return "Whether majorities are cyclic is unknown: no three responses were all compared by two judges."
    verdict = "more than" if triads.p is not None and triads.p <= SURE else "no more than"
    return (
        f"Of {counted(triads.n, 'triads')} of majorities {wording.share(triads.value, 1)} are cyclic, "
        f"{verdict} expected by chance if everybody agreed on each response's quality "
        f"({wording.share(triads.null or 0.0, 1)}, p = {triads.p:.2f})."
    )


def of_groups(g: Groups) -> str:
    """Whether users form groups, and whom the aggregate serves badly."""
    regret = g.worst_decile_regret
    if regret.value is None:
        return "Groups and regret are unknown: no user shares ten pairs with others."
    tail = (
        f" The majority decides against the worst decile of the users in {percent(regret.value)} of their {g.unit} "
        f"({percent(regret.null)} if users were interchangeable, p = {regret.p:.2f})."
    )
    if g.groups is None or g.axes.value is None:
        return f"Groups are unknown: fewer than five users share pairs.{tail}"
    if g.groups == 1:
        return f"No groups beyond chance among {counted(g.axes.n, 'users')}.{tail}"
    axes = "1 axis" if g.groups == 2 else f"{g.groups - 1} axes"
    return (
        f"Users are not interchangeable: {g.axes.n:,} of them differ along {axes} beyond chance, as would at least "
        f"{g.groups} groups (of different taste or different care).{tail}"
    )


def disagreement_rows(d: Disagreement) -> list[Row]:
    """Divergence, raw and at fixed panel sizes."""
    rows = [
        _row("disagreement", "contested (>= 3 judges)", d.contested, "pairs"),
        _row("disagreement", "highly contested (>= 3 judges)", d.highly_contested, "pairs"),
        _row("disagreement", "divergence (>= 2 judges)", d.divergence, "pairs"),
        _row("disagreement", "high divergence (>= 2 judges)", d.high_divergence, "pairs"),
    ]
    for k, (contested, high) in d.at_panel.items():
        rows.append(_row("disagreement", f"contested at {k} judges", contested, "pairs"))
        if k > 3:  # one of three is already above 30 %
            rows.append(_row("disagreement", f"highly contested at {k} judges", high, "pairs"))
    return rows


def consistency_rows(c: Consistency) -> list[Row]:
    """Test-retest, reliabilities and users' own cycles."""
    return [
        _row("consistency", "test-retest, ties a label", c.retest, "repeats"),
        _row("consistency", "test-retest, without ties", c.retest_no_ties, "repeats"),
        _row("consistency", "alpha of a judgement and its repeat", c.retest_alpha, "repeats"),
        _row("consistency", "reliability of one judge", c.judge_reliability, "pairs"),
        _row("consistency", "alpha of a panel", c.panel_alpha, "pairs"),
        _row("consistency", "own cyclic triads", c.cyclic_triads, "triads"),
    ]


def minority_rows(m: Minorities) -> list[Row]:
    """Majority-vote accuracy and minority users."""
    figures = m.as_dict()
    low, high, n = m.mv_acc_range
    span = Row("minorities", "MV-ACC, own vote included", between(low, high) or UNKNOWN, "", counted(n, "users"))
    found = str(figures["n_minority"]) if figures["n_testable"] else UNKNOWN
    return [
        span,
        _row("minorities", "agrees with the others' majority", m.others, "judgements"),
        Row("minorities", "minority users, 95 % sure", found, "", counted(figures["n_testable"], "users")),
    ]


def room_rows(r: Room) -> list[Row]:
    """Both ends of the room, and the room."""
    population = between(r.population_lo, r.population_hi) or UNKNOWN
    source = "measured" if r.measured else "assumed"
    return [
        Row("room", "population accuracy", population, "", r.source),
        Row("room", "consistency ceiling", between(r.ceiling_lo, r.ceiling_hi), "", source),
        Row("room", "room", between(r.lo, r.hi) or UNKNOWN, "", ""),
    ]


def aggregation_rows(s: SocialChoice, g: Groups) -> list[Row]:
    """Paradoxes, groups and regret, each with its null."""
    groups = UNKNOWN if g.groups is None else str(g.groups)
    return [
        _tested("aggregation", "cyclic triads of majorities", s.cyclic_triads, "triads"),
        _tested("aggregation", "prompts with a Condorcet cycle", s.cyclic_prompts, "prompts"),
        _tested("aggregation", "Borda against the majority", s.borda_pairs, "pairs"),
        _tested("aggregation", "Borda winner not the Condorcet winner", s.borda_winners, "prompts"),
        _tested("aggregation", "axes along which users differ", g.axes, "users", 1),
        _tested("aggregation", "share of the strongest axis", g.strongest_axis, "users"),
        Row("aggregation", "groups beyond chance, at least", groups, "", counted(g.axes.n, "users")),
        _tested("aggregation", "regret of the worst user", g.worst_user_regret, "users"),
        _tested("aggregation", "regret of the worst decile", g.worst_decile_regret, "users"),
    ]


def _row(dimension: str, name: str, estimate: Estimate, unit: str) -> Row:
    interval = between(estimate.lo, estimate.hi)
    return Row(dimension, name, share(estimate.value), interval, counted(estimate.n, unit))


def _tested(dimension: str, name: str, t: Tested, unit: str, digits: int = 3) -> Row:
    if t.value is None:
        return Row(dimension, name, UNKNOWN, "", counted(t.n, unit))
    beside = f"null {between(t.null_lo, t.null_hi, digits)}, p = {t.p:.2f}"
    return Row(dimension, name, wording.number(float(t.value), digits), beside, counted(t.n, unit))
