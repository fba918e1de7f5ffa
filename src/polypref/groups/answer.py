"""The answer of ``groups`` in a few lines: the groups, what each likes, how sure that is, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping

from polypref.answers import Answer, Line
from polypref.groups.grouping import Grouping
from polypref.groups.likes import Like, Likes
from polypref.wording import code, counted, percent, share, shown

NAMED = 6  # groups with a line of their own
TRAITS = 3  # of a group, in its line
FEW_SHARED = 0.5


def answer_of(grouping: Grouping, size_of: Mapping[str, int], found: Likes, commands: Mapping[str, str]) -> Answer:
    """The lines; ``size_of`` counts the people of each group, ``commands`` are ``fit`` and ``compare`` for the file."""
    sizes = ", ".join(f"{code(name)} {counted(size, 'people')}" for name, size in list(size_of.items())[:NAMED] if size)
    more = len([size for size in size_of.values() if size]) - NAMED
    sizes += f" and {more} more" if more > 0 else ""
    first = Line("groups", "Groups", f"{grouping.finding()} {sizes}.", {"sizes": dict(size_of)})
    return Answer((first, *_likes(found), _sure(found), _next(found, commands)))


def _likes(found: Likes) -> list[Line]:
    """A line for each group that surely differs, or one that says that none does."""
    if found.why_not:
        return [Line("likes", "What they like", f"not compared: {found.why_not}.", {"differs": None})]
    if not found.differs:
        text = f"no group surely differs from the others in any of {_looked(found)}."
        return [Line("likes", "What they like", text, {"differs": False})]
    lines = [_of_group(name, found) for name in found.names[:NAMED]]
    if (more := len(found.names) - NAMED) > 0:
        lines.append(Line("likes more", "Others", f"{counted(more, 'groups')} more; the report has them."))
    return lines


def _of_group(name: str, found: Likes) -> Line:
    traits, texts = found.of(name), found.of(name, "texts")
    data = {"differs": bool(traits or texts), "traits": [one.text for one in traits]}
    if not traits and not texts:
        return Line(f"likes {name}", code(name), "does not surely differ from the others in anything.", data)
    told = [trait_text(one) for one in traits[:TRAITS]]
    told += [f"{counted(len(traits) - TRAITS, 'traits')} more"] if len(traits) > TRAITS else []
    if texts:
        first = shown(texts[0].text, 40)
        told.append(f"{counted(len(texts), 'texts')} more than the others do" + (f", first {first}" if first else ""))
    return Line(f"likes {name}", code(name), f"likes {'; '.join(told)}.", data)


def trait_text(one: Like) -> str:
    """``longer responses (76 % of the time, the others 28 %: 48 points apart, 95 % interval 37 to 60)``."""
    ends = f"{percent(one.lo, 0)} to {percent(one.hi, 0)}"
    return (
        f"{one.text} ({share(one.own)} of the time, the others {share(one.others)}: "
        f"{percent(one.value, 0)} points apart, 95 % interval {ends})"
    )


def _looked(found: Likes) -> str:
    traits, texts = found.looked_at
    return f"{counted(traits, 'traits')} and {counted(texts, 'texts')}" if texts else counted(traits, "traits")


def _sure(found: Likes) -> Line:
    data = {"looked_at": list(found.looked_at), "judgements": found.judgements, "on_shared_pairs": found.shared}
    data |= {"kept_out": found.kept_out}
    if found.why_not:
        return Line("sure", "How sure", "nothing was compared.", data)
    text = (
        "shares are of the judgements whose responses differ in the trait, as the mean over people; the intervals "
        f"are over people and hold for all of {_looked(found)} at once"
    )
    if found.kept_out:
        text += f". They rest on {counted(found.judgements, 'judgements')} kept out when the groups were found again"
    if found.shared is not None and found.shared < FEW_SHARED:
        text += (
            f". Only {share(found.shared)} of the judgements are on pairs that another group judged too, so the "
            "questions may make part of a difference"
        )
    return Line("sure", "How sure", f"{text}.", data)


def _next(found: Likes, commands: Mapping[str, str]) -> Line:
    if len(found.names) > 1 and found.differs:
        text = "fit a scorer of these judgements, from which `align` trains a policy for the groups:"
        return Line("next", "Next", text, {}, commands["fit"])
    text = "see whether it helps to know each person instead of a group:"
    return Line("next", "Next", text, {}, commands["compare"])
