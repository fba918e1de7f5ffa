"""What pairs were made from: the stated error rates on judges and raters of known flaws, and real sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from derived_cases import comparisons_of, judges, raters
from polypref.comparisons import Comparisons, from_columns
from polypref.data.derived import Graph, evidence, origin
from polypref.profile.disagreement import disagreement, independent_pairs
from polypref.profile.tournament import count_triads
from polypref.profile.votes import votes

DATA = Path(__file__).parents[2] / "shared" / "data"
SURE = np.log(20)


def cyclic(data: Comparisons) -> float:
    graph = Graph.of(data)
    triads_R, cyclic_R = count_triads(graph.tail_M, graph.head_M, graph.nodes)
    return cyclic_R.sum() / triads_R.sum()


@pytest.mark.parametrize("shape", [(10, 20, 3), (10, 10, 4), (10, 5, 6)])
def test_careful_judges_are_seldom_taken_for_raters(shape) -> None:
    """At the null: Bradley-Terry judges, 1.4 % of whose triads go round. Stated: at most 5 %."""
    rng = np.random.default_rng(9)
    data = [judges(*shape, 5.5, rng) for _ in range(25)]
    assert np.mean([cyclic(one) for one in data]) < 0.018
    found = np.array([evidence(one) for one in data])
    assert (found >= SURE).mean() <= 0.05
    assert found.mean() < 0


def test_ratings_with_ties_and_four_cyclic_triads_in_a_thousand_are_recognised() -> None:
    rng = np.random.default_rng(1)
    data = [raters(60, 10, 6, 5, rng, flawed=0.004) for _ in range(8)]
    assert 0.003 < np.mean([cyclic(one) for one in data]) < 0.005
    assert all(one.tie_N is not None for one in data)
    assert all(origin(one).derived for one in data)


def test_300_chances_without_a_circle_are_enough_and_few_are_not() -> None:
    rng = np.random.default_rng(2)
    one = raters(15, 20, 3, 1000, rng)
    assert (origin(one).loops, origin(one).derived, origin(one).worth) == (300, True, 600)
    few = one.take(np.flatnonzero(one.user_N < 6))
    assert origin(few).derived is None
    assert origin(few).worth == len(few), "nothing is known, so every judgement counts"
    assert "too little to tell" in origin(few).why


def test_the_order_of_rows_users_and_texts_decides_nothing() -> None:
    data = judges(10, 10, 4, 5.5, np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(len(data))
    ids, texts = data.users.ids.gather(data.user_N), data.responses.texts_R
    prompts = data.responses.prompts.gather(data.responses.prompt_R[data.chosen_N])
    columns = (ids, prompts, texts.gather(data.chosen_N), texts.gather(data.rejected_N))
    shuffled = from_columns(*(column.gather(order) for column in columns))
    assert evidence(shuffled) == evidence(data) != 0


def test_votes_of_two_levels_are_recognised() -> None:
    rows = [(f"u{u}", "p", f"like {i}", f"dislike {j}") for u in range(40) for i in range(8) for j in range(8)]
    assert origin(from_columns(*zip(*rows, strict=True))).derived


@pytest.mark.parametrize(("texts", "pairs"), [(12, 30), (30, 60)])
def test_judges_of_sparse_pairs_are_seldom_taken_for_raters(texts, pairs) -> None:
    rng, found = np.random.default_rng(6), []
    for _ in range(20):
        user = np.repeat(np.arange(20), pairs)
        first = rng.integers(0, texts, len(user))
        second = (first + rng.integers(1, texts, len(user))) % texts
        reward = rng.normal(0, 5.5, (20, texts))
        chance = 1 / (1 + np.exp(reward[user, second] - reward[user, first]))
        found.append(evidence(comparisons_of(user, first, second, (rng.random(len(user)) < chance).astype(float))))
    assert (np.array(found) >= SURE).mean() <= 0.1, "5 % in the long run"


def test_a_text_that_always_loses_is_no_rating() -> None:
    """One reference against many others: nothing could contradict it, and nothing is concluded."""
    rows = [(f"u{u}", f"p{p}", f"t{i}", "reference") for u in range(30) for p in range(5) for i in range(6)]
    assert origin(from_columns(*zip(*rows, strict=True))).derived is None


def test_nothing_to_tell_from() -> None:
    one = from_columns(["u"], ["p"], ["a"], ["b"])
    assert origin(one).derived is None
    assert origin(replace(one, tie_N=np.array([True]))).worth == 0
    assert origin(one.take(np.zeros(0, int))).derived is None


def test_pairs_that_share_a_rating_widen_the_intervals() -> None:
    couples = [(f"t{i}", f"t{j}") for i in range(8) for j in range(i)]
    rows = [(f"u{u}", f"p{p}", *couple) for u in range(6) for p in range(9) for couple in couples]
    rng = np.random.default_rng(5)
    rows = [row if rng.random() < 0.8 else (*row[:2], row[3], row[2]) for row in rows]
    seen = votes(from_columns(*zip(*rows, strict=True)))
    assert independent_pairs(seen, np.ones(seen.n_pairs, bool)) == 9 * 7
    plain, shared = disagreement(seen), disagreement(seen, derived=True)
    for name in ("contested", "divergence"):
        one, other = getattr(plain, name), getattr(shared, name)
        assert one.value == other.value and one.n == other.n
        assert (other.hi - other.lo) > 1.5 * (one.hi - one.lo)
    one, other = plain.at_panel[3][0], shared.at_panel[3][0]
    assert one.value == other.value and (other.hi - other.lo) > (one.hi - one.lo)


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wmt23_mqm_zhen", True),
        ("dices350", True),
        ("squality_humaneval", True),
        ("ukpconvarg1", False),
        ("llmfao", False),
        ("pandalm", False),
    ],
)
def test_real_sets(name, expected) -> None:
    rows = pl.read_parquet(DATA / f"{name}.parquet", n_rows=30_000)
    data = from_columns(rows["user_id"], rows["prompt"], rows["chosen"], rows["rejected"])
    assert origin(data).derived is expected
