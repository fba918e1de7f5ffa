"""Training sizes as totals and per user: what is kept, what is refused, and what the results say of it."""

from __future__ import annotations

import numpy as np
import pytest

from polypref.comparisons import Comparisons
from polypref.data.split import split
from polypref.errors import SettingsError
from polypref.evaluation import compare
from polypref.evaluation.budgets import training_rows
from polypref.evaluation.cells import Cell
from polypref.worlds import simulate


@pytest.fixture(scope="module")
def world() -> Comparisons:
    """Twelve people, of whom the first answered only eight times."""
    data = simulate("two-tastes", seed=3, users=12, judgements=60).comparisons
    first = np.flatnonzero(data.user_N == 0)
    return data.take(np.setdiff1d(np.arange(len(data)), first[8:]))


def of_each(world: Comparisons, rows: np.ndarray) -> np.ndarray:
    return np.bincount(world.user_N[rows], minlength=len(world.users))


def test_each_user_keeps_as_many_and_who_has_fewer_keeps_all(world):
    parts = split(world, "pair", 0)
    available = of_each(world, np.concatenate([parts.train_rows, parts.valid_rows]))
    train, valid = training_rows(parts, 20, 0, "per-user", world.user_N)
    assert of_each(world, np.concatenate([train, valid])).tolist() == np.minimum(available, 20).tolist()
    assert available.min() < 20 < available.max()  # both kinds of user are there
    assert set(train) <= set(parts.train_rows)
    assert set(valid) <= set(parts.valid_rows)
    assert len(valid) > 0


def test_a_smaller_budget_is_part_of_a_larger_one_and_seeds_differ(world):
    parts = split(world, "pair", 0)
    small, large = (training_rows(parts, n, 0, "per-user", world.user_N) for n in (10, 25))
    assert all(set(few) <= set(many) for few, many in zip(small, large, strict=True))
    other = training_rows(parts, 10, 1, "per-user", world.user_N)
    assert set(other[0]) != set(small[0])


def test_a_total_favours_who_judged_most_and_a_budget_per_user_does_not(world):
    parts = split(world, "pair", 0)
    total = np.concatenate(training_rows(parts, 60, 0))
    assert len(total) == 60
    assert of_each(world, total)[0] < of_each(world, total).max()
    each = np.concatenate(training_rows(parts, 5, 0, "per-user", world.user_N))
    assert set(of_each(world, each)) == {5}


def test_budgets_that_cannot_be_cut_are_refused(world):
    parts = split(world, "pair", 0)
    with pytest.raises(SettingsError, match="cuts nothing: no user has more than"):
        training_rows(parts, 60, 0, "per-user", world.user_N)
    two = world.take(np.flatnonzero(world.user_N < 2))
    with pytest.raises(SettingsError, match=r"leaves no (validation|training) comparisons"):
        training_rows(split(two, "pair", 0), 1, 0, "per-user", two.user_N)
    with pytest.raises(SettingsError, match="budget is 'each'; expected"):
        compare(world, ["pooled"], "static", budget="each")


def test_results_say_which_sizes_were_cut_per_user(world):
    found = compare(world, ["individual"], "static", sizes=(5, 20), budget="per-user", seeds=2, workers=1, quiet=True)
    sizes = found.content["sizes"]
    assert [cut["per_user"] for cut in sizes] == [5, 20, None]
    assert sizes[0]["size"] == 5 * 12
    assert sizes[-1]["size"] == found.content["size"]
    assert {row["size"] for row in found.content["rows"]} == {cut["size"] for cut in sizes}
    total = compare(world, ["individual"], "static", sizes=(60,), seeds=2, workers=1, quiet=True)
    assert total.content["sizes"][0] == {"size": 60, "per_user": None}


def test_cells_of_the_two_budgets_are_not_taken_for_each_other():
    assert Cell("pooled", 20, 0, budget="per-user") != Cell("pooled", 20, 0)
    assert str(Cell("pooled", 20, 0, budget="per-user")) == "pooled, size 20 per user, seed 0"
