"""The last lines of ``profile``: do people differ, is anyone outvoted, is there enough to tell, and what to do next."""

from __future__ import annotations

from math import ceil

from polypref.answers import Answer, Line
from polypref.data.split import TEST_SHARE
from polypref.profiling.summary import Profile
from polypref.stats.cluster_robust import FEW_USERS
from polypref.stats.per_user import ENOUGH_OWN
from polypref.wording import counted, share

ENOUGH = ceil(ENOUGH_OWN / (1 - TEST_SHARE["pair"]))  # so that ENOUGH_OWN of them are learned from
SHARES_NONE = "nobody shares enough pairs with others"


def answer_of(profile: Profile, command: str) -> Answer:
    """Four lines; ``command`` compares the learners on the same files."""
    return Answer((_differ(profile), _outvoted(profile), _enough(profile), _next(command)))


def _differ(profile: Profile) -> Line:
    found = profile.disagreement.at_panel[2][0]
    data = {"value": found.value, "lo": found.lo, "hi": found.hi, "n": found.n}
    if found.value is None:
        once = not profile.sizes["shared_pairs"]
        if profile.only_thumbs:
            why = "likes and dislikes of single answers are each against the person's own bar"
        else:
            why = "every pair was judged by one person" if once else "no two people took a side on the same pair"
        text = (
            f"cannot be known here, since {why}; nor can how much could be gained at most. `compare` can still tell "
            "who gains by being known: it tests everybody on judgements of their own that were held out."
        )
        return Line("differ", "Do people differ", text, data)
    ends = "" if found.lo is None else f" (95 % interval {share(found.lo)} to {share(found.hi)})"
    text = f"two people disagree on {share(found.value)}{ends} of {counted(found.n, 'pairs')} that several judged"
    again = profile.consistency.retest_no_ties
    data["repeats"] = {"value": None if again.value is None else 1 - again.value, "n": again.n}
    if again.value is None or again.lo is None or again.hi is None:
        text += "; how much of that is carelessness cannot be told, since nobody took a side on one pair twice."
        return Line("differ", "Do people differ", text, data)
    ends = f" ({share(1 - again.hi)} to {share(1 - again.lo)})"
    own = f"{share(1 - again.value)}{ends} of {counted(again.n, 'repeats')}"
    text += f"; asked again, the same person disagrees on {own}."
    return Line("differ", "Do people differ", text, data)


def _outvoted(profile: Profile) -> Line:
    figures = profile.minorities.as_dict()
    found, testable = figures["n_minority"], figures["n_testable"]
    data = {"minority": found if testable else None, "testable": testable}
    if not testable:
        nobody = "likes and dislikes are against people's own bars" if profile.only_thumbs else SHARES_NONE
        return Line("outvoted", "Who is outvoted", f"not measurable: {nobody}.", data)
    text = (
        f"{found} of {counted(testable, 'people')} who share enough pairs side with the others' majority less than "
        f"half of the time, each at 95 % confidence (by chance alone: at most {figures['at_most_by_chance']:.0f})."
    )
    return Line("outvoted", "Who is outvoted", text, data | {"at_most_by_chance": figures["at_most_by_chance"]})


def _enough(profile: Profile) -> Line:
    """By what half of the people have, as the verdict of ``compare`` counts it: a few busy ones make a high mean."""
    users, judged = profile.sizes["users"], profile.sizes["judgements"]
    typical = int(profile.sizes["typical"] * profile.origin.worth / max(judged, 1))
    short = [f"{FEW_USERS} people"] if users < FEW_USERS else []
    short += [f"{ENOUGH} judgements a person"] if typical < ENOUGH else []
    each = "independent judgements" if profile.origin.worth < judged else "judgements"
    have = f"{counted(users, 'people')}, half of them with {counted(typical, each)} or more"
    text = f"{have}; with fewer than {' and '.join(short)}, `compare` may be unclear." if short else f"yes, {have}."
    data = {"people": users, "judgements": judged, "typical": typical, "enough": not short}
    return Line("enough", "Is there enough", text, data)


def _next(command: str) -> Line:
    return Line("next", "Next", "see who gains from personalization, and with which method:", {}, command)
