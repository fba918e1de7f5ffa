"""The verdict: what makes it yes, no or unclear, and what it says then."""

import numpy as np
import pytest
from scipy.stats import t

from polypref.evaluation import verdict as module
from polypref.evaluation.measure import evidence
from polypref.evaluation.results_table import ResultTable
from polypref.evaluation.tables import ALL_BUT_ONE
from polypref.evaluation.verdict import ENOUGH_HELD_OUT, MARGIN, Compared, Evidence
from polypref.stats.cluster_robust import unseen_share


def gain(learner: str, value: float, se: float, df: float = 200, **more) -> dict:
    """A row of gains as ``Clusters`` measures one on ``df`` + 1 users."""
    half = t.isf(0.025, df) * se
    return {"learner": learner, "metric": "accuracy_micro", "cohort": "all", "value": value, "se": se,
            "lo": value - half, "hi": value + half, "p": 2 * t.sf(abs(value) / se, df),
            "n_users": int(df) + 1, "n_comparisons": 3000, **more}  # fmt: skip


def people(disagreement: float | None, spread: float = 0.02, users: int = 200, own: float = 50, shared: int = 800):
    """Ample evidence, unless told otherwise."""
    if disagreement is None:
        return Evidence(users, own, 0)
    return Evidence(users, own, shared, disagreement, disagreement + spread)


BASELINE = "pooled"


def verdict(gains, placebo, over_shuffled, *more, these=()) -> dict:
    return module.verdict(Compared(*map(ResultTable.of, (gains, placebo, over_shuffled, these))), *more)


@pytest.mark.parametrize(
    ("gains", "placebo", "disagreement", "room", "best"),
    [
        ([gain("a", 0.05, 0.01), gain("b", 0.06, 0.01)], [gain("b", -0.01, 0.01)], 0.3, "yes", "b"),
        ([gain("a", 0.05, 0.01), gain("b", 0.06, 0.01)], [gain("b", 0.06, 0.01)], 0.3, "yes", "a"),
        ([gain("b", 0.06, 0.01)], [gain("b", 0.06, 0.01)], 0.3, "unclear", "pooled"),
        ([gain("a", 0.02, 0.02)], [], 0.3, "unclear", "pooled"),
        ([gain("a", 0.01, 0.01)], [], 0.05, "no", "pooled"),
        ([gain("a", 0.02, 0.02)], [], 0.05, "unclear", "pooled"),
        ([gain("a", 0.02, 0.02)], [], None, "unclear", "pooled"),
        ([gain("a", 0.001, 0.002)], [], 0.4, "no", "pooled"),
        ([gain("a", 0.001, 0.002), gain("b", 0.0, 0.02)], [], 0.4, "unclear", "pooled"),
        ([gain(str(i), 0.0205 if i == 0 else 0.0, 0.01) for i in range(8)], [], 0.4, "unclear", "pooled"),
        ([], [], None, "unclear", "pooled"),
    ],
)
def test_verdict(gains, placebo, disagreement, room, best):
    found = verdict(gains, placebo, [], [row["learner"] for row in gains], BASELINE, people(disagreement))
    assert (found["room"], found["best"]) == (room, best)
    assert found["text"].endswith(".")
    assert "nan" not in found["text"].lower()


def test_verdict_says_why_a_gain_above_zero_is_not_enough():
    gains = [gain(str(i), 0.0205 if i == 0 else 0.0, 0.01) for i in range(8)]
    assert (
        "may be chance when 8 are tried"
        in verdict(gains, [], [], [str(i) for i in range(8)], BASELINE, people(0.4))["text"]
    )


def test_verdict_without_a_population_learner():
    assert verdict([], [], [], ["own"], None, people(0.4))["room"] == "unclear"


@pytest.mark.parametrize(("df", "room"), [(200, "yes"), (10, "unclear")])
def test_allowing_for_several_learners_with_few_users_takes_student(df, room):
    """2.9 standard errors are enough for five learners by the normal law (2.58), not on 11 users (3.17)."""
    gains = [gain(str(i), 0.029 if i == 0 else 0.0, 0.01, df) for i in range(5)]
    assert gains[0]["lo"] > 0
    assert verdict(gains, [], [], [str(i) for i in range(5)], BASELINE, people(0.4))["room"] == room


@pytest.mark.parametrize(
    ("shuffled", "less", "room", "says"),
    [
        (gain("a", 0.0, 0.01), gain("a", 0.05, 0.012), "yes", "gets 5.0 points fewer of them right (2.6 to 7.4)"),
        (gain("a", 0.018, 0.012), gain("a", 0.02, 0.012), "unclear", "rests on knowing the user is unclear"),
        (gain("a", 0.05, 0.01), gain("a", 0.03, 0.01), "unclear", "so it is when the users are shuffled"),
    ],
)
def test_knowing_the_user_is_the_paired_difference(shuffled, less, room, says):
    """A shuffled arm that is not sure to gain is not enough: the real arm must be better than it, judgement by
    judgement. A shuffled arm that does gain is a fault, whatever the difference."""
    found = verdict([gain("a", 0.05, 0.01)], [shuffled], [less], ["a"], BASELINE, people(0.4))
    assert found["room"] == room
    assert says in found["text"]


def test_a_rounded_zero_has_no_sign():
    found = verdict(
        [gain("a", 0.05, 0.01)], [gain("a", -1e-4, 1e-4)], [gain("a", 0.05, 0.01)], ["a"], BASELINE, people(0.4)
    )
    assert "is 0.0 (0.0 to 0.0)" in found["text"]


NOTHING = gain("a", 0.001, 0.002)


@pytest.mark.parametrize(
    ("found", "told", "room", "says"),
    [
        (NOTHING, people(0.05), "no", "disagree on only 5 % of the pairs"),
        (NOTHING, people(0.4), "no", "none can plausibly gain more than 0.5 points"),
        (NOTHING, people(0.05, users=4), "no", "here among these 4 users"),
        (NOTHING, people(0.05, users=2), "unclear", "only 2 users were compared"),
        (NOTHING, people(0.4, users=4), "unclear", "4 users are too few to speak of others"),
        (NOTHING, people(0.4, own=7), "unclear", "half of the users have at most 7 judgements to learn from"),
        (NOTHING, people(0.05, own=7), "no", "5 % of the pairs"),
        (NOTHING, people(None, own=7), "unclear", "no two people judged the same pair"),
        (NOTHING | {"n_comparisons": 60}, people(0.4), "unclear", "only 60 held-out judgements"),
        (gain("a", 0.0, 0.01), people(0.05, shared=12, own=7), "unclear", "only 12 pairs were judged by two people"),
        (gain("a", 0.0, 0.01), people(0.1, spread=0.15), "unclear", "disagree on as many as 25 % of the pairs"),
        (gain("a", 0.0, 0.01), people(0.4), "unclear", "a gain of 2.0 points is not excluded"),
        (gain("a", 0.0, 0.01), people(0.05), "no", "5 % of the pairs"),
        (gain("a", 0.0, 0.04), people(0.05), "unclear", "a gain of 7.9 points is not excluded"),
        (gain("a", -0.1, 0.01), people(0.4), "unclear", "surely worse"),
        (gain("a", -0.1, 0.01), people(0.05), "no", "5 % of the pairs"),
    ],
)
def test_no_needs_evidence_and_unclear_says_what_is_missing(found, told, room, says):
    result = verdict([found], [], [], ["a"], BASELINE, told)
    assert (result["room"], result["best"]) == (room, "pooled")
    assert says in result["text"]
    assert result["text"].count(". ") == 1  # two sentences


def test_several_things_missing_are_listed():
    text = verdict([gain("a", 0.0, 0.04)], [], [], ["a"], BASELINE, people(0.05, shared=12, users=2))["text"]
    assert (
        "since only 2 users were compared, only 12 pairs were judged by two people or more and a gain of 7.9 points"
    ) in text


def test_so_many_held_out_pairs_exclude_a_gain_of_the_margin():
    assert unseen_share(np.array([ENOUGH_HELD_OUT - 1.0, ENOUGH_HELD_OUT])) == pytest.approx(MARGIN, rel=0.005)


def described(contested: dict, dependent: bool) -> dict:
    """What a profile says, as far as the verdict rests on it."""
    origin = {"why": "pairs were made from ratings", "dependent": dependent}
    return {
        "sizes": {"users": 12},
        "disagreement": {"at_panel": {"2": {"contested": contested}}},
        "origin": origin,
    }


@pytest.mark.parametrize(
    ("rule", "dependent"), [("pair", True), ("response", True), ("own-response", True), ("pair", False)]
)
@pytest.mark.parametrize(("value", "room"), [(0.3, "yes"), (0.0, "no")])
def test_a_split_that_leaks_is_said_and_nothing_is_sure(rule, dependent, value, room):
    contested = {"value": 0.4, "lo": 0.38, "hi": 0.42, "n": 800}
    told = evidence(described(contested, dependent), np.full(200, 50), rule)
    found = verdict([gain("a", value, 0.001)], [], [], ["a"], BASELINE, told)
    leaks = dependent and rule == "pair"
    assert found["room"] == ("unclear" if leaks else room)
    assert ("--split auto" in found["text"] and "pairs were made from ratings" in found["text"]) == leaks
    assert not leaks or found["best"] == BASELINE


def test_a_few_pairs_on_which_all_agree_leave_much_disagreement_possible():
    """Five of five pairs agreed upon: the bootstrap's upper limit is 0, Wilson's is 43 %."""
    pairs = {"value": 0.0, "lo": 0.0, "hi": 0.0, "n": 5}
    found = evidence(described(pairs, dependent=False), np.array([0, 30, 40, 50]), "pair")
    assert (found.n_users, found.own, found.shared, found.disagreement) == (12, 40.0, 5, 0.0)
    assert found.disagreement_hi == pytest.approx(0.434, abs=0.001)


FEW = {"variance_parts": {"users": 0.9, "pairs": 0.02, "judgements": 0.08}}
TWELVE = people(0.4, users=12)
SERVED = {"better": 4, "worse": 0, "tested": 12, "sure": 4}


def few(value: float = 0.25, **more) -> dict:
    """A large gain on 12 users that three learners could show by chance."""
    return gain("a", value, 0.1, df=11, **FEW, **more)


OTHERS = [gain(name, 0.1, 0.1, df=11) for name in ("b", "c")]


def these(learner: str = "a", value: float = 0.13, rest: float = 0.1, placebo: float = 0.0) -> list[dict]:
    """Gains of these users alone, all with a standard error of two points."""
    return [
        gain(learner, value, 0.02, baseline=BASELINE),
        gain(learner, rest, 0.02, baseline=BASELINE) | {"cohort": ALL_BUT_ONE},
        gain(learner, placebo, 0.02, baseline=BASELINE, arm="shuffled"),
    ]


def verdict_of_these(told: list[dict], knowing: float = 0.13) -> dict:
    own = [gain("a", knowing, 0.02), gain("b", 0.0, 0.02), gain("c", 0.0, 0.02)]
    told = [*told, *these("b", 0, 0, 0), *these("c", 0, 0, 0)]
    served = {"a": SERVED | {"sure": 0}}
    return verdict([few(), *OTHERS], [], own, ["a", "b", "c"], BASELINE, TWELVE, served, these=told)


@pytest.mark.parametrize(
    ("told", "knowing", "room"),
    [
        (these(), 0.13, "yes"),
        (these(value=0.055), 0.13, "yes"),
        (these(value=0.045), 0.13, "unclear"),
        (these(rest=0.03), 0.13, "unclear"),
        (these(placebo=0.13), 0.13, "unclear"),
        (these(), 0.045, "yes"),
        (these(), 0.03, "unclear"),
    ],
)
def test_a_sure_gain_of_these_users_is_a_second_road_to_yes(told, knowing, room):
    """Closed where three learners could show it by chance, where it rests on one user, where users that were shuffled
    gain as well, and where it may not rest on knowing them."""
    found = verdict_of_these(told, knowing)
    assert (found["room"], found["best"]) == (room, "a" if room == "yes" else "pooled")
    assert ("for these people" in found["text"]) == (room == "yes")
    assert found["text"].count(". ") == 1


def test_the_second_road_speaks_of_these_users_and_says_what_is_short():
    text = verdict_of_these(these())["text"]
    assert (
        "`a` gets 13.0 points more of their held-out judgements right than `pooled` (95 % interval 9.1 to 16.9)" in text
    )
    assert "13.0 more than if it had been trained on shuffled users (9.1 to 16.9); 4 of 12 users tested are sig" in text
    assert (
        "not yet of others, for whom the interval is 3.0 to 47.0, which may be chance when 3 are tried; use `a`" in text
    )
    assert text.endswith(
        "use `a` for them, and `pooled` for others until there are more people (more judgements by these 12 would "
        "hardly help: 90 % of the uncertainty is how much they differ)."
    )
    alone = verdict([few(), *OTHERS], [], [], ["a", "b", "c"], BASELINE, TWELVE, these=these())
    assert alone["room"] == "unclear", "a learner that is better for everyone alike is better for these, too"


@pytest.mark.parametrize(
    ("served", "value", "placebo", "room"),
    [
        ({}, 0.25, {}, "yes"),
        ({"sure": 2}, 0.25, {}, "yes"),
        ({"sure": 1}, 0.25, {}, "unclear"),
        ({"worse": 1}, 0.25, {}, "unclear"),
        ({"tested": 50}, 0.25, {}, "unclear"),
        ({}, -0.01, {}, "unclear"),
        ({}, 0.25, {"better": 1}, "unclear"),
        ({}, 0.25, gain("a", 0.2, 0.01), "unclear"),
    ],
)
def test_users_who_gain_one_by_one_are_a_third_road_to_yes(served, value, placebo, room):
    """Closed where one user gains, somebody loses, they are few of many, or shuffled users gain as well."""
    shuffled = gain("a", 0.0, 0.05, df=11) | {"better": 0} | placebo
    rows = [few(value), *OTHERS]
    found = verdict(rows, [shuffled], [], ["a", "b", "c"], BASELINE, TWELVE, {"a": SERVED | served})
    assert (found["room"], found["best"]) == (room, "a" if room == "yes" else "pooled")
    assert ("for some of these people" in found["text"]) == (room == "yes")
    assert found["text"].count(". ") == 1


def test_the_third_road_speaks_of_these_users_and_says_what_is_short():
    rows = [few(), *OTHERS]
    shuffled = [gain("a", 0.0, 0.05, df=11) | {"better": 0}]
    text = verdict(rows, shuffled, [], ["a", "b", "c"], BASELINE, TWELVE, {"a": SERVED})["text"]
    assert "under `a` 4 of 12 users tested are each significantly better off than under `pooled`, and than if" in text
    assert "This speaks of these users, not yet of others: the mean gain of 25.0 points" in text
    assert "may be chance when 3 are tried; use `a` for them" in text
    assert text.endswith(
        "use `a` for them, and `pooled` for others until there are more people (more judgements by these 12 would "
        "hardly help: 90 % of the uncertainty is how much they differ)."
    )
    unchecked = verdict(rows, [], [], ["a", "b", "c"], BASELINE, TWELVE, {"a": SERVED})
    assert unchecked["room"] == "unclear"


@pytest.mark.parametrize(
    ("served", "parts", "says"),
    [
        (
            {"better": 1},
            FEW,
            "1 of 12 users tested is significantly better off and none worse. Use `a` for that user, and",
        ),
        (
            {"better": 3},
            FEW,
            "3 of 12 users tested are significantly better off and none worse. Use `a` for those 3, and",
        ),
        ({"better": 3, "worse": 2}, FEW, "3 of 12 users tested are significantly better off and 2 worse. That there"),
        ({"better": 0}, FEW, "is not excluded; use `pooled` until there are more people (more judgements by these 12"),
        ({"better": 0}, {"variance_parts": {"users": 0.1, "pairs": 0.7, "judgements": 0.2}}, "until other pairs were"),
        (
            {"better": 0},
            {"variance_parts": {"users": 0.1, "pairs": 0.2, "judgements": 0.7}},
            "until there are more judg",
        ),
    ],
)
def test_unclear_says_who_gains_and_what_is_short(served, parts, says):
    row = gain("a", 0.2, 0.1, df=11) | parts
    found = verdict([row], [], [], ["a"], BASELINE, TWELVE, {"a": SERVED | {"sure": 0} | served})
    assert (found["room"], found["best"]) == ("unclear", "pooled")
    assert says in found["text"]
    assert found["text"].count(". ") == 1


def test_a_gain_that_is_not_excluded_is_the_leaders_or_names_its_learner():
    rows = [gain("a", 0.10, 0.05), gain("b", 0.0, 0.2)]
    text = verdict(rows, [], [], ["a", "b"], BASELINE, people(0.4))["text"]
    assert "interval 0.1 to 19.9" in text and "a gain of 19.9 points is not excluded" in text
    rows = [gain("a", 0.001, 0.002), gain("b", 0.0, 0.02)]
    text = verdict(rows, [], [], ["a", "b"], BASELINE, people(0.4))["text"]
    assert "a gain of 3.9 points by `b` is not excluded" in text


@pytest.mark.parametrize("held_out", [120, 367, 1000])
def test_where_nothing_changed_more_judgements_have_to_be_held_out(held_out):
    """The interval of no change at all has the width of that many judgements, which more seeds hold out as well."""
    half = max(1 - 0.025 ** (1 / held_out), MARGIN)
    row = gain("a", 0.0, 1.0) | {"se": None, "lo": -half, "hi": half, "p": 1.0, "n_comparisons": held_out}
    found = verdict([row], [], [], ["a"], BASELINE, people(None))
    assert found["room"] == "unclear"
    assert f"use `pooled` until more than {held_out:,} judgements are held out, with more `--seeds`" in found["text"]
