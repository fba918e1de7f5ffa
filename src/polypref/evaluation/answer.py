"""The answer of ``compare`` in five lines, from the content of results.json; it decides nothing that is not there.

1 personalise   yes, no or unclear, and why
2 method        which one; of several that are level, the simplest
3 amount        from how many judgements a person it pays, and for how many of these people that holds
4 people        how many surely gain, how many surely lose; of the rest it is not known
5 next          a command for this very file
"""

from __future__ import annotations

from typing import Any

from polypref.answers import Answer, Line
from polypref.evaluation.named_learner import named_learner
from polypref.evaluation.results_schema import CompareContents
from polypref.evaluation.results_table import COHORT, ResultRow
from polypref.evaluation.verdict_text import FOR_ALL, FOR_SOME, FOR_THESE
from polypref.stats.per_user import MIN_PAIRS
from polypref.wording import code, counted, interval, listed, percent

MEASURE = "`--sizes {} --budget per-user`"


def answer_of(contents: CompareContents) -> Answer:
    """The five lines. Empty if there is no verdict."""
    if contents.verdict["text"] is None or contents.method["learner"] is None:
        return Answer()
    lines = (_personalise, _method, _amount, _people, _next)
    return Answer(tuple(line(contents) for line in lines))


def _personalise(contents: CompareContents) -> Line:
    verdict, learner = contents.verdict, named_learner(contents)
    room, reason = verdict["room"], verdict["reason"]
    data = {"value": room, "learner": learner, "baseline": contents.floor, **_figures(contents, learner)}
    gain = _gain_text(contents, learner)
    if room != "yes":
        text = f"{room}, since {reason}."
        text += f" The best personal method, {code(learner)}, {gain}." if gain else ""
    elif reason == FOR_ALL:
        text = f"yes. {code(learner)} {gain}."
    else:
        whom = "some of these people, one by one" if reason == FOR_SOME else "these people"
        text = f"yes, for {whom}; of others this says nothing yet. {code(learner)} {gain}."
    return Line("personalise", "Personalise", text, data)


def _figures(contents: CompareContents, learner: str | None) -> dict[str, Any]:
    """Gain over judgements and over people, each with its ends."""
    found = {}
    for name, metric in (("gain", "accuracy_micro"), ("gain_of_people", "accuracy_macro")):
        row = _gain(contents, learner, metric)
        found[name] = None if row is None else {"value": row.value, "lo": row.lo, "hi": row.hi}
    return found


def _gain(contents: CompareContents, learner: str | None, metric: str) -> ResultRow | None:
    """The gain that the verdict rests on: of these users alone if it speaks of them alone."""
    if learner is None:
        return None
    if contents.verdict["reason"] == FOR_THESE and metric == "accuracy_micro":
        own = contents.gains_of_these_users.where(learner=learner, cohort=COHORT, arm=None)
        return next(iter(own), None)
    return contents.gains.at(learner, metric)


def _gain_text(contents: CompareContents, learner: str | None) -> str:
    """``gains 2.0 points over `pooled` (95 % interval 1.0 to 3.0), and 1.8 as the mean over people (0.9 to 2.7)``."""
    micro, macro = (_gain(contents, learner, metric) for metric in ("accuracy_micro", "accuracy_macro"))
    if micro is None or micro.value is None:
        return ""
    ends = _ends(micro)
    text = f"gains {percent(micro.value)} points over {code(contents.floor)} on all judgements"
    text += f" (95 % interval {ends})" if ends else ""
    if macro is not None and macro.value is not None:
        ends = _ends(macro)
        text += f", and {percent(macro.value)} as the mean over people" + (f" ({ends})" if ends else "")
    return text


def _ends(row: ResultRow) -> str:
    return interval(row.ends, percent).replace("–", " to ")


def _method(contents: CompareContents) -> Line:
    learner, names = contents.method["learner"], list(contents.method["level"])
    best, data = contents.verdict["best"], {"learner": learner, "level": names}
    if contents.verdict["room"] != "yes":
        text = f"{code(learner)}, the best on validation rows of the methods that treat everyone alike"
        if contents.floor is None:
            text = "not known"
        return Line("method", "Method", f"{text}{_for_those(contents)}.", data)
    row = contents.behind_best.at(learner) if learner != best else None
    if len(names) > 1:
        text = f"{len(names)} are level: {listed([code(name) for name in names])}. Take the simplest, {code(learner)}"
        if row is not None and row.value is not None:
            text += f" ({percent(row.value)} points behind {code(best)}, 95 % interval {_ends(row)})"
    elif len(contents.verdict["passed"]) > 1:
        text = f"{code(learner)}, surely ahead of the others that pass the test"
    else:
        text = f"{code(learner)}, the only one that passes the test"
    return Line("method", "Method", f"{text}.", data)


def _for_those(contents: CompareContents) -> str:
    """An unclear verdict advises the personal learner for those who surely gain, if nobody loses."""
    learner = named_learner(contents)
    if learner is None or contents.verdict["room"] != "unclear" or contents.verdict["lacks"]:
        return ""
    counts = contents.counts(learner)
    if not counts["better"] or counts["worse"]:
        return ""
    those = "person who surely gains" if counts["better"] == 1 else f"{counts['better']} people who surely gain"
    return f"; for the {those}, {code(learner)}"


def _amount(contents: CompareContents) -> Line:
    pays = contents.pays
    amount, of, median = pays["amount"], pays["of"], pays["median"]
    data = {name: pays[name] for name in ("amount", "people", "of", "median")}
    have = "" if median is None else f"; half of these people have {median:.0f} or more to learn from"
    if contents.verdict["room"] == "no":
        text = f"it does not pay at any amount that was tried{have}"
    elif contents.verdict["room"] == "unclear":
        text = f"not known{have}"
    elif amount is None:
        text = f"it pays over all amounts together, but from how many cannot be told{have}"
    else:
        about = "about " if pays["source"] == "people" else ""
        text = (
            f"from {about}{amount:,} a person: there the gain is {percent(pays['value'])} points (95 % interval "
            f"{percent(pays['lo'])} to {percent(pays['hi'])}). {pays['people']:,} of {counted(of, 'people')} "
            "gave as many"
        )
        text += f". Fewer were not measured; {MEASURE.format(_smaller(amount))} measures them" if pays["fewest"] else ""
    return Line("amount", "Judgements needed", f"{text}.", data)


def _smaller(amount: int) -> str:
    """Sizes below an amount, to be measured."""
    sizes = [size for size in (3, 10, 30, 100, 300) if size < amount]
    return " ".join(map(str, sizes[-2:] or [max(1, amount - 1)]))


def _people(contents: CompareContents) -> Line:
    learner = named_learner(contents)
    counts, people = contents.counts(learner or ""), contents.data["n_users"]
    better, worse, tested = counts["better"], counts["worse"], counts["tested"]
    if better is None or people is None:
        return Line("people", "Who gains", "not measured.", {"learner": learner})
    unknown = people - better - worse
    data = {"learner": learner, "better": better, "worse": worse, "unknown": unknown, "tested": tested}
    under = "" if contents.verdict["room"] == "yes" else f"with {code(learner)} "
    text = (
        f"{under}{better} of {counted(people, 'people')} surely gain{'s' if better == 1 else ''}, "
        f"{worse or 'none'} surely lose{'s' if worse <= 1 else ''}; of {unknown or 'nobody else'} it is not known"
    )
    few = people - tested
    text += f" ({few} of them have fewer than {MIN_PAIRS} test pairs)" if few else ""
    return Line("people", "Who gains", f"{text}.", data)


def _next(contents: CompareContents) -> Line:
    lacks, until, learner = contents.verdict["lacks"], contents.verdict["until"], contents.method["learner"]
    again: dict[str, str] = contents.reproduce.get("again", {})
    if lacks == "split" or lacks == "personal":
        more, what = {
            "split": ("", "measure with a split that does not leak"),
            "personal": (" --learners hierarchical", "compare a method that knows people"),
        }[lacks]
        command = f"{again['compare']}{more}" if again else "polypref.compare(comparisons)"
        return Line("next", "Next", f"{what}:", {}, command)
    if lacks == "baseline":
        return Line("next", "Next", "compare again with `pooled` among the learners.", {})
    text = f"fit {code(learner)} on all of these judgements"
    if contents.verdict["room"] == "unclear":
        text = f"use {code(learner)} {until or 'for now'}, and then compare again"
    return Line("next", "Next", f"{text}:", {}, _fit(contents, learner, again))


def _fit(contents: CompareContents, learner: str, again: dict[str, str]) -> str:
    if again:
        return f"{again['fit']} --learner {learner} --out scorer"
    encoder = f"polypref.encoder({contents.encoder['name']!r})"
    return f"polypref.LEARNERS[{learner!r}].fit(comparisons, encoder={encoder}, seed=0)"
