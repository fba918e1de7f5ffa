"""The verdict: what makes it yes, no or unclear, and what it says then."""

import pytest
from scipy.stats import t

from polypref.evaluation.verdict import verdict


def gain(learner: str, value: float, se: float, df: float = 200, **more) -> dict:
    """A row of gains as ``Clusters`` measures one on ``df`` + 1 users."""
    half = t.isf(0.025, df) * se
    return {"learner": learner, "metric": "accuracy_micro", "cohort": "all", "value": value, "se": se,
            "lo": value - half, "hi": value + half, "p": 2 * t.sf(abs(value) / se, df), **more}  # fmt: skip


BASELINE = {"learner": "pooled"}


@pytest.mark.parametrize(
    ("gains", "placebo", "disagreement", "room", "best"),
    [
        ([gain("a", 0.05, 0.01), gain("b", 0.06, 0.01)], [gain("b", -0.01, 0.01)], 0.3, "yes", "b"),
        ([gain("a", 0.05, 0.01), gain("b", 0.06, 0.01)], [gain("b", 0.06, 0.01)], 0.3, "yes", "a"),
        ([gain("b", 0.06, 0.01)], [gain("b", 0.06, 0.01)], 0.3, "unclear", "pooled"),
        ([gain("a", 0.02, 0.02)], [], 0.3, "unclear", "pooled"),
        ([gain("a", 0.02, 0.02)], [], 0.05, "no", "pooled"),
        ([gain("a", 0.02, 0.02)], [], None, "unclear", "pooled"),
        ([gain("a", 0.001, 0.002)], [], 0.4, "no", "pooled"),
        ([gain("a", 0.001, 0.002), gain("b", 0.0, 0.02)], [], 0.4, "unclear", "pooled"),
        ([gain(str(i), 0.0205 if i == 0 else 0.0, 0.01) for i in range(8)], [], 0.4, "unclear", "pooled"),
        ([], [], None, "unclear", "pooled"),
    ],
)
def test_verdict(gains, placebo, disagreement, room, best):
    found = verdict(gains, placebo, [], [row["learner"] for row in gains], BASELINE, disagreement)
    assert (found["room"], found["best"]) == (room, best)
    assert found["text"].endswith(".")
    assert "nan" not in found["text"].lower()


def test_verdict_says_why_a_gain_above_zero_is_not_enough():
    gains = [gain(str(i), 0.0205 if i == 0 else 0.0, 0.01) for i in range(8)]
    assert "may be chance when 8 are tried" in verdict(gains, [], [], [str(i) for i in range(8)], BASELINE, 0.4)["text"]


def test_verdict_without_a_population_learner():
    assert verdict([], [], [], ["own"], None, 0.4)["room"] == "unclear"


@pytest.mark.parametrize(("df", "room"), [(200, "yes"), (10, "unclear")])
def test_allowing_for_several_learners_with_few_users_takes_student(df, room):
    """2.9 standard errors are enough for five learners by the normal law (2.58), not on 11 users (3.17)."""
    gains = [gain(str(i), 0.029 if i == 0 else 0.0, 0.01, df) for i in range(5)]
    assert gains[0]["lo"] > 0
    assert verdict(gains, [], [], [str(i) for i in range(5)], BASELINE, 0.4)["room"] == room


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
    found = verdict([gain("a", 0.05, 0.01)], [shuffled], [less], ["a"], BASELINE, 0.4)
    assert found["room"] == room
    assert says in found["text"]


def test_a_rounded_zero_has_no_sign():
    found = verdict([gain("a", 0.05, 0.01)], [gain("a", -1e-4, 1e-4)], [gain("a", 0.05, 0.01)], ["a"], BASELINE, 0.4)
    assert "is 0.0 (0.0 to 0.0)" in found["text"]
