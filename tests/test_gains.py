"""Intervals of gains and the verdict in simulated worlds; benchmarks/truth in small."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

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
