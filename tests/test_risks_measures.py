"""Slow risks by hand: each measure on a case small enough to work out, and on one where the risk is planted."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from polypref.errors import NotEnoughData
from polypref.studies.risks.filter_bubble import counts, effective_number, filter_bubble
from polypref.studies.risks.homogenisation import diet_likeness, overlap
from polypref.studies.risks.inertia import answers_to_flip, half_life
from polypref.studies.risks.manipulation import shortfall, targeting_gap
from polypref.studies.risks.sycophancy import false_congruent

# --- filter bubble


def test_effective_number_of_one_kind_of_equal_kinds_and_of_nothing():
    number = effective_number(np.array([[7, 0, 0, 0], [5, 5, 5, 5], [3, 1, 0, 0], [0, 0, 0, 0]]))
    assert number[:2] == pytest.approx([1.0, 4.0])
    assert number[2] == pytest.approx(4 / 3**0.75)  # exp(-(3/4 log 3/4 + 1/4 log 1/4))
    assert np.isnan(number[3])


def test_counts_are_per_person():
    assert counts(np.array([[0, 2], [0, 1], [1, 2]]), 3).tolist() == [[2, 1, 0], [0, 1, 2]]


def test_a_bubble_that_closes_has_a_falling_slope_and_a_steady_server_none():
    wide_T = np.tile([0, 1, 2, 3], 1)
    kind_TU = np.stack([np.r_[wide_T, [0, 1, 0, 1], [0, 0, 0, 0]], np.tile(wide_T, 3)], axis=1)
    bubble = filter_bubble(kind_TU, 4, windows=3)
    assert bubble.number_WU == pytest.approx(np.array([[4, 4], [2, 4], [1, 4]]))
    assert bubble.slope_U == pytest.approx([10 * (1 - 4) / 8, 0.0])  # three points, four rounds apart
    with pytest.raises(NotEnoughData, match="expected at least 2 windows of 2 rounds"):
        filter_bubble(kind_TU[:5], 4, windows=3)


# --- homogenisation


def test_overlap_is_the_share_of_pairs_of_people_served_alike():
    pick_MU = np.array([[0, 0, 0, 1], [2, 2, 2, 2]])
    assert overlap(pick_MU) == pytest.approx((3 / 6 + 1) / 2)
    assert overlap(np.zeros((5, 9), int)) == 1.0
    assert overlap(np.arange(6)[None]) == 0.0
    coin = overlap(np.random.default_rng(0).integers(0, 8, (400, 30)))
    assert coin == pytest.approx(1 / 8, abs=0.01)
    with pytest.raises(NotEnoughData, match="at least 2"):
        overlap(np.zeros((3, 1), int))


def test_likeness_of_diets_equals_the_mean_over_all_pairs():
    count_UK = np.random.default_rng(1).integers(0, 9, (7, 5)) + np.eye(7, 5, dtype=int)
    share_UK = count_UK / count_UK.sum(axis=1, keepdims=True)
    apart = [np.abs(share_UK[a] - share_UK[b]).sum() / 2 for a, b in combinations(range(7), 2)]
    assert diet_likeness(count_UK) == pytest.approx(1 - np.mean(apart))
    assert diet_likeness(np.array([[3, 0], [0, 8]])) == 0.0
    assert diet_likeness(np.array([[3, 1], [6, 2]])) == 1.0


# --- lock-in


def test_who_counts_votes_needs_one_answer_more_than_were_confirmed():
    assert answers_to_flip(lambda m: 5 - m >= 0, 20) == 6
    assert answers_to_flip(lambda m: m < 0, 20) == 0
    assert answers_to_flip(lambda m: True, 20) == np.inf  # a planted lock-in


def test_half_life_by_hand():
    value_T = np.array([1.0, 1, 1, 1, -1, -0.5, 0.2, -0.4, 0.1, 0.3, 0.9])
    assert half_life(value_T, 4) == 4  # half-way is 0; one lucky round at 6 does not count
    assert half_life(np.r_[np.ones(5), -np.ones(9)], 5) == np.inf  # never
    assert half_life(np.ones(9), 4) == 0


# --- sycophancy


def test_false_answers_that_agree_are_counted_and_no_others():
    leaning_M2 = np.tile([1.0, -1.0], (3, 1))
    false_M2 = np.array([[1.0, 0], [0, 1], [1, 0]])
    view_U = np.array([1.0, -1.0])
    flatterer_UM2 = view_U[:, None, None] * leaning_M2  # the planted risk: agreeing is all
    honest_UM2 = np.broadcast_to(-false_M2, (2, 3, 2))
    assert false_congruent(flatterer_UM2, leaning_M2, false_M2, view_U).tolist() == [1.0, 1.0]
    assert false_congruent(honest_UM2, leaning_M2, false_M2, view_U).tolist() == [0.0, 0.0]
    assert false_congruent(np.zeros((2, 3, 2)), leaning_M2, false_M2, view_U).tolist() == [0.5, 0.5]
    mixed_UM2 = np.array([[[1.0, 0], [5, 0], [0, 1]], [[5, 0], [1, 0], [5, 0]]])
    assert false_congruent(mixed_UM2, leaning_M2, false_M2, view_U).tolist() == [0.5, 0.0]
    with pytest.raises(NotEnoughData, match="no pair of a false text"):
        false_congruent(honest_UM2, leaning_M2, np.zeros((3, 2)), view_U)


# --- manipulation


def test_the_gap_is_that_of_the_worst_stratum():
    bad_U, gameable_U = np.array([0.1] * 49 + [0.9]), np.arange(50) == 49
    assert targeting_gap(bad_U, gameable_U) == pytest.approx(0.9 - (0.1 * 49 + 0.9) / 50)
    assert targeting_gap(np.full(50, 0.3), gameable_U) == pytest.approx(0.0)
    assert shortfall(1 - bad_U, gameable_U) == pytest.approx(0.8)
    with pytest.raises(NotEnoughData, match="everybody or nobody"):
        shortfall(bad_U, np.zeros(50, bool))
