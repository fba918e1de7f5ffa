"""Intervals of gains and the verdict in simulated worlds; benchmarks/truth in small."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from polypref.evaluation.tables import ALL_BUT_ONE, Arm, of_these_users
from polypref.stats.cluster_robust import Clusters
from polypref.stats.metrics import HeldOut

FOLDER = Path(__file__).parent.parent / "benchmarks" / "truth"


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(
    ("pairs", "users", "kind"),
    [(30, 3, "both"), (30, 300, "both"), (100, 30, "alike"), (300, 10, "pairs")],
)
def test_intervals_of_gains_hold_the_truth(pairs, users, kind):
    """Over gains of 0, 5 and 10 points: neither below .93 nor above .975, but for the luck of 360 draws."""
    import gains

    found = [gains.simulate(gains.World(pairs, users, gain, kind), 120) for gain in (0.0, 0.05, 0.10)]
    luck = 2.5 * np.sqrt(0.95 * 0.05 / 360)
    for metric in gains.METRICS:
        coverage = np.mean([one.coverage[metric] for one in found])
        assert 0.93 - luck < coverage < 0.975 + luck / 2, (metric, coverage)


def test_a_gain_of_ten_points_can_be_called_on_thirty_pairs():
    """Where 300 people judged them; and none is called where there is none, but for one in twenty."""
    import gains

    gained, none = (gains.simulate(gains.World(30, 300, gain), 120) for gain in (0.10, 0.0))
    assert max(gained.half.values()) < 0.09
    assert min(gained.called.values()) > 0.7
    assert max(none.called.values()) < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 120)


def test_the_verdict_is_yes_where_every_fourth_is_opposed_and_not_where_all_are_alike():
    """24 people, 40 judgements each; for these people, since the mean over others is not sure with so few."""
    import verdict

    opposed = [verdict.answer(True, 1.5, seed) for seed in range(12)]
    assert sum(one["room"] == "yes" for one in opposed) >= 9
    assert sum("for these people" in one["text"] for one in opposed) >= 6
    assert sum(verdict.answer(False, 1.5, seed)["room"] == "yes" for seed in range(12)) <= 2


def test_a_gain_of_one_user_is_not_there_without_that_user():
    rng = np.random.default_rng(0)
    user_H, pair_H = np.repeat(np.arange(12), 30), np.arange(360)
    rows = HeldOut(
        *(np.zeros(360, int), user_H, pair_H, np.zeros(360, bool), np.ones(360), pair_H),
        cohort_H={"all": np.ones(360, bool)},
        n_seeds=1,
        n_users=12,
        n_pairs=360,
    )
    base_H = np.where(rng.random(360) < 0.7, 1.0, -1.0)
    base_H[user_H == 7] = -1.0
    own_H = np.where(user_H == 7, 1.0, base_H)
    real = {"pooled": Arm("pooled", "population", (), base_H), "own": Arm("own", "seen_users", (), own_H)}
    found = of_these_users(Clusters(rows), real, {"own": Arm("own", "seen_users", (), base_H)}, "pooled", 0)
    told = {(row.cohort, row.arm, row.baseline): row for row in found}
    assert told["all", None, "pooled"].kind == "better"
    assert told["all", None, "pooled"].value == pytest.approx(1 / 12)
    assert (told[ALL_BUT_ONE, None, "pooled"].value, told[ALL_BUT_ONE, None, "pooled"].n_users) == (0.0, 11)
    assert told["all", "shuffled", "pooled"].value == 0.0
