"""What pairs were made from: the stated error rates on worlds of known origin, and real sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from derived_cases import (
    MADE,
    MIXED,
    ONE_BY_ONE,
    comparisons_of,
    every,
    judged,
    judges,
    lists,
    lot,
    rated,
    raters,
    sparse,
    together,
    twice,
)
from polypref.comparisons import Comparisons, from_columns
from polypref.data.derived import evidence, origin
from polypref.data.judgement_graph import Graph
from polypref.profiling.disagreement import disagreement, independent_pairs
from polypref.profiling.tournament import count_triads
from polypref.profiling.votes import votes

DATA = Path(__file__).parents[2] / "shared" / "data"


def cyclic(data: Comparisons) -> float:
    graph = Graph.of(data)
    triads_R, cyclic_R = count_triads(graph.tail_M, graph.head_M, graph.nodes)
    return cyclic_R.sum() / triads_R.sum()


@pytest.mark.parametrize("world", [name for name in ONE_BY_ONE if name.startswith("strict")])
def test_careful_judges_are_seldom_taken_for_raters(world) -> None:
    """At the null. Stated: at most 5 %, of which 16 sets of each kind may show two."""
    rng = np.random.default_rng(9)
    assert sum(origin(ONE_BY_ONE[world](rng)).derived is True for _ in range(16)) <= 2


def test_the_null_is_as_strict_as_stated() -> None:
    rng = np.random.default_rng(9)
    assert np.mean([cyclic(judges(10, 10, 4, 5.5, rng)) for _ in range(25)]) == pytest.approx(0.014, abs=0.004)


@pytest.mark.parametrize("world", [name for name in ONE_BY_ONE if "coin" in name or "inconsistent" in name])
def test_people_who_contradict_themselves_are_recognised_or_nothing_is_said(world) -> None:
    rng = np.random.default_rng(3)
    assert not any(origin(ONE_BY_ONE[world](rng)).derived for _ in range(5))
    if "ties" not in world:
        assert all(origin(ONE_BY_ONE[world](rng)).derived is False for _ in range(5))


@pytest.mark.parametrize("world", MADE)
def test_pairs_that_were_made_are_never_split_by_pair(world) -> None:
    rng = np.random.default_rng(4)
    found = [origin(MADE[world](rng)) for _ in range(5)]
    assert all(one.dependent and one.derived is not False for one in found)


@pytest.mark.parametrize("world", list(MIXED)[:3])
def test_some_raters_among_judges_are_found(world) -> None:
    found = origin(MIXED[world](np.random.default_rng(5)))
    assert found.derived
    assert "some pairs look made from" in found.why


def test_a_few_raters_among_judges_do_not_matter() -> None:
    assert origin(MIXED[list(MIXED)[-1]](np.random.default_rng(5))).derived is False


def test_ratings_with_ties_and_four_cyclic_triads_in_a_thousand_are_recognised() -> None:
    rng = np.random.default_rng(1)
    data = [raters(60, 10, 6, 5, rng, flawed=0.004) for _ in range(8)]
    assert 0.003 < np.mean([cyclic(one) for one in data]) < 0.005
    assert all(one.tie_N is not None for one in data)
    assert all(origin(one).derived for one in data)


def test_two_hundred_chances_without_a_cycle_are_enough_and_few_are_treated_as_enough() -> None:
    rng = np.random.default_rng(2)
    one = lot(rng)
    assert 190 < origin(one).loops < 220
    assert (origin(one).derived, origin(one).dependent, origin(one).worth) == (True, True, 12 * 7)
    few = one.take(np.flatnonzero(one.user_N < 4))
    assert (origin(few).derived, origin(few).dependent, origin(few).worth) == (None, True, 4 * 7)
    assert origin(few).why.startswith("pairs may be made from")


def test_the_order_of_rows_users_and_texts_decides_nothing() -> None:
    rng = np.random.default_rng(3)
    for data in (
        judged(every(200, 8, 30, rng), 5.5, rng),
        rated(sparse(50, 20, 12, rng), 7, rng),
        MADE["votes on 12 of 60 texts, 40 users"](rng),
        MIXED["a fifth raters, others inconsistent, 40 users, 12 of 30 texts"](rng),
    ):
        order = rng.permutation(len(data))
        ids, texts = data.users.ids.gather(data.user_N), data.responses.texts_R
        prompts = data.responses.prompts.gather(data.responses.prompt_R[data.chosen_N])
        columns = (ids, prompts, texts.gather(data.chosen_N), texts.gather(data.rejected_N))
        tie_N = None if data.tie_N is None else data.tie_N[order]
        shuffled = replace(from_columns(*(column.gather(order) for column in columns)), tie_N=tie_N)
        assert evidence(Graph.of(shuffled)) == evidence(Graph.of(data)) != 0
        assert origin(shuffled) == origin(data)


def test_rows_that_stand_twice_do_not_make_judges_raters() -> None:
    rng = np.random.default_rng(6)
    for data in (judged(sparse(50, 20, 12, rng), 5.5, rng), lot(rng)):
        one, other = origin(data), origin(twice(data))
        assert (one.loops, one.circular, one.returning) == (other.loops, other.circular, other.returning)
        assert other.derived is not (not one.derived)
        assert evidence(Graph.of(twice(data))).ratio <= evidence(Graph.of(data)).ratio


def test_a_pair_that_was_judged_both_ways_says_nothing() -> None:
    rng = np.random.default_rng(7)
    data = lot(rng)
    both = together(data, data.take(np.arange(20)).swapped())
    assert len(Graph.of(replace(both, user_N=np.r_[data.user_N, data.user_N[:20]])).tail_M) == len(data) - 20


def test_ties_say_nothing_since_ratings_that_hardly_differ_are_ties_too() -> None:
    """Ratings from 0 to 100, a tie where they differ by less than ten: a = b, b = c and a > c are no contradiction."""
    rng = np.random.default_rng(8)
    pairs = every(30, 10, 30, rng)
    rating = rng.uniform(0, 100, (30, 3200))
    gap = rating[pairs[0], pairs[1]] - rating[pairs[0], pairs[2]]
    assert origin(comparisons_of(pairs, np.where(abs(gap) < 10, 0.5, gap > 0))).derived


def test_one_reference_against_many_others_is_no_vote() -> None:
    """Nothing could contradict it, and everybody thinks so: nothing is concluded, and texts are held out."""
    rows = [(f"u{u}", f"p{p}", f"t{i}", "reference") for u in range(30) for p in range(5) for i in range(6)]
    assert origin(from_columns(*zip(*rows, strict=True))).derived is None


def test_nothing_to_tell_from() -> None:
    one = from_columns(["u"], ["p"], ["a"], ["b"])
    assert (origin(one).derived, origin(one).dependent) == (None, False)
    assert origin(replace(one, tie_N=np.array([True]))).worth == 0
    assert origin(one.take(np.zeros(0, int))).derived is None


def test_a_rating_that_stands_in_two_pairs_is_enough_where_lists_were_read() -> None:
    """Two of three ratings are equal: no loop is closed, and yet the third one stands on both sides of a cut."""
    data = rated(lists(5, 3, 3, np.random.default_rng(1)), 2, np.random.default_rng(1), drop=True)
    assert origin(replace(data, lists="ratings")).loops == 0
    assert origin(replace(data, lists="ratings")).derived


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
