"""What was planted is found again: the span of a basis, by low-rank and by its meta-learned form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from polypref.learners.low_rank import LowRank
from polypref.learners.meta_low_rank import MetaLowRank
from recovery_worlds import DIMENSIONS, Normal, linear_tastes

PLANTED_GD = np.linalg.qr(np.random.default_rng(7).normal(size=(DIMENSIONS, 2)))[0].T


LEARNERS = {
    "low-rank": LowRank(bases=(4,), penalties=(1.0,)),
    "meta-low-rank": MetaLowRank(bases=(4,), inner_steps=(4,)),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_the_span_of_the_planted_basis_is_found(name):
    """Principal angles between the two main directions of people's weights and the planted plane, in degrees."""

    def worst_angle(basis_GD: np.ndarray) -> float:
        c = linear_tastes(basis_GD, 30, 50)
        scorer = LEARNERS[name].fit(c, encoder=Normal(), seed=0)
        weights_UD = scorer.weights_UK[:, :-2] @ scorer.inputs.directions_DK.T
        main_2D = np.linalg.svd(weights_UD, full_matrices=False)[2][:2]
        return float(np.degrees(subspace_angles(main_2D.T, PLANTED_GD.T).max()))

    assert worst_angle(PLANTED_GD) < 20
    other_GD = np.linalg.qr(np.random.default_rng(8).normal(size=(DIMENSIONS, 2)))[0].T
    assert worst_angle(other_GD) > 40  # another plane would be seen
