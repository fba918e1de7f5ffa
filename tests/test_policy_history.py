"""Running statistics of groups, against numpy's two-pass figures."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from polypref.policy.history import RewardHistory

finite = st.floats(-1e6, 1e6, allow_nan=False)
batches = st.lists(st.tuples(st.integers(0, 4), finite), max_size=40)


def told(rows: list[tuple[int, float]], history: RewardHistory | None = None) -> RewardHistory:
    history = RewardHistory() if history is None else history
    history.update(np.array([value for _, value in rows]), np.array([group for group, _ in rows], np.int64))
    return history


def equal(one: RewardHistory, other: RewardHistory) -> None:
    n = max(len(one), len(other))
    one.grow(n)
    other.grow(n)
    np.testing.assert_array_equal(one.count_G, other.count_G)
    np.testing.assert_allclose(one.mean_G, other.mean_G, rtol=1e-12, atol=1e-8)
    np.testing.assert_allclose(one.m2_G, other.m2_G, rtol=1e-7, atol=1e-5)


@given(batches)
def test_against_numpy(rows: list[tuple[int, float]]) -> None:
    history = told(rows)
    for group in range(len(history)):
        values = np.array([value for g, value in rows if g == group])
        count, mean, variance = (float(found[0]) for found in history.of(np.array([group])))
        assert count == len(values)
        if len(values):
            assert mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-9)
            assert variance == pytest.approx(values.var(), rel=1e-9, abs=1e-6)
        else:
            assert np.isnan(mean) and np.isnan(variance)


@pytest.mark.parametrize("offset", [1e9, -1e9])
@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_an_offset_costs_no_digits_of_the_spread(offset: float, spread: float) -> None:
    values = offset + spread * np.random.default_rng(0).standard_normal(10_000)
    history = RewardHistory()
    for part in np.array_split(values, 97):
        history.update(part, np.zeros(len(part), np.int64))
    _, mean, variance = history.of(np.zeros(1, np.int64))
    assert mean[0] - values.mean() == pytest.approx(0, abs=1e-6)
    assert variance[0] == pytest.approx(values.var(), rel=1e-5)
    naive = (values**2).mean() - values.mean() ** 2
    assert abs(naive / values.var() - 1) > 1e-3, "sums of squares would not have done"


@given(batches, st.randoms())
def test_the_order_of_a_batch_changes_no_bit(rows: list[tuple[int, float]], random) -> None:
    mixed = list(rows)
    random.shuffle(mixed)
    one, other = told(rows), told(mixed)
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])


@given(batches, st.integers(0, 40))
def test_splitting_and_merging_equal_concatenating(rows: list[tuple[int, float]], cut: int) -> None:
    whole = told(rows)
    equal(told(rows[cut:], told(rows[:cut])), whole)
    equal(told(rows[:cut]).merged(told(rows[cut:])), whole)


def test_what_is_not_finite_never_enters() -> None:
    history = told([(0, 1.0), (0, np.nan), (1, np.inf), (0, 3.0), (2, -np.inf)])
    np.testing.assert_array_equal(history.count_G, [2])
    np.testing.assert_array_equal(history.mean_G, [2])


def by_hand(values: NDArray, batch: int, half_life: float) -> tuple[float, float, float]:
    """Count, mean and variance with explicit weights: 2^(-later rewards / half-life), even within a batch."""
    steps = [values[i : i + batch] for i in range(0, len(values), batch)]
    weight = np.zeros(0)
    for step in steps:
        keep = 2 ** (-len(step) / half_life)
        fresh = sum(2 ** (-i / half_life) for i in range(len(step))) / len(step)
        weight = np.concatenate([weight * keep, np.full(len(step), fresh)])
    mean = float(weight @ values / weight.sum())
    return float(weight.sum()), mean, float(weight @ (values - mean) ** 2 / weight.sum())


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_a_half_life_is_of_the_groups_own_rewards(batch: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(3, 2, 350)
    history = RewardHistory(half_life=20)
    for start in range(0, 350, batch):
        part = values[start : start + batch]
        others = rng.normal(0, 9, 30)  # another group's many rewards make this one forget nothing
        history.update(np.concatenate([part, others]), np.r_[np.zeros(len(part), int), np.ones(30, int)])
    found = [float(figure[0]) for figure in history.of(np.zeros(1, np.int64))]
    np.testing.assert_allclose(found, by_hand(values, batch, 20), rtol=1e-10)
    assert found[0] == pytest.approx(1 / (1 - 2 ** (-1 / 20)), rel=1e-4), "what is remembered settles"


def test_forgetting_keeps_mean_and_variance() -> None:
    history = told([(0, float(v)) for v in range(100)] + [(1, 5.0), (1, 6.0)])
    before = [figure.copy() for figure in history.of(np.arange(2))]
    history.forget(np.arange(2), 10)
    count, mean, variance = history.of(np.arange(2))
    np.testing.assert_allclose(count, [10, 2])
    np.testing.assert_allclose([mean, variance], before[1:])


@settings(max_examples=20)
@given(batches)
def test_arrays_and_back(rows: list[tuple[int, float]]) -> None:
    history = told(rows)
    again = RewardHistory.from_arrays(history.arrays(), None)
    history.update(np.array([1.5]), np.array([0]))
    again.update(np.array([1.5]), np.array([0]))
    for name, array in history.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])


def test_a_million_groups_cost_24_bytes_each_and_5_ms_a_batch() -> None:
    rng = np.random.default_rng(0)
    history = RewardHistory()
    history.grow(1_000_000)
    assert sum(array.nbytes for array in history.arrays().values()) == 24_000_000
    seconds = []
    for _ in range(9):
        values, groups = rng.standard_normal(10_000), rng.integers(0, 1_000_000, 10_000)
        started = time.perf_counter()
        history.update(values, groups)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.005, seconds
