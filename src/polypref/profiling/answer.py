"""The last lines of ``profile``: do people differ, is anyone outvoted, is there enough to tell, and what to do next."""

from __future__ import annotations

from polypref.answers import Answer, Line
from polypref.profiling.summary import Profile
from polypref.stats.cluster_robust import FEW_USERS
from polypref.stats.per_user import ENOUGH_OWN
from polypref.wording import counted, share

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
    text = f"two people disagree on {share(found.value)}{ends} of {counted(found.n, 'pairs')} that several judged."
    return Line("differ", "Do people differ", text, data)


def _outvoted(profile: Profile) -> Line:
    figures = profile.minorities.as_dict()
    found, testable = figures["n_minority"], figures["n_testable"]
    data = {"minority": found if testable else None, "testable": testable}
    if not testable:
        nobody = "likes and dislikes are against people's own bars" if profile.only_thumbs else SHARES_NONE
        return Line("outvoted", "Who is outvoted", f"not measurable: {nobody}.", data)
    text = f"{found} of {counted(testable, 'people')} who share enough pairs are surely in the minority."
    return Line("outvoted", "Who is outvoted", text, data)


def _enough(profile: Profile) -> Line:
    users, judged = profile.sizes["users"], profile.sizes["judgements"]
    each = judged / max(users, 1)
    short = [f"{FEW_USERS} people"] if users < FEW_USERS else []
    short += [f"{ENOUGH_OWN} judgements a person"] if each < ENOUGH_OWN else []
    have = f"{counted(users, 'people')} with {each:.0f} judgements each on average"
    text = f"{have}; with fewer than {' and '.join(short)}, `compare` may be unclear." if short else f"yes, {have}."
    return Line("enough", "Is there enough", text, {"people": users, "judgements": judged, "enough": not short})


def _next(command: str) -> Line:
    return Line("next", "Next", "see who gains from personalization, and with which method:", {}, command)
