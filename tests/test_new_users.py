"""New people: held out whole, nested few comparisons, every route measured on the same rows; routes that recover."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize

from contract_cases import Words, fitted, small
from polypref.comparisons import Comparisons, Users
from polypref.errors import NotEnoughData, SettingsError
from polypref.learners import LEARNERS, Adapts
from polypref.learners.hierarchical import HierarchicalScorer
from polypref.learners.new_user_baselines import (
    ROUTES,
    FewShot,
    FewShotScorer,
    SimilarUser,
    SimilarUserScorer,
    _differences,
)
from polypref.learners.personalized import PersonalizedScorer
from polypref.learners.pooled import Pooled
from polypref.learners.protocol import PERSONAL, POPULATION, margins
from polypref.newcomers.cells import Cell, Job, read, run
from polypref.newcomers.hold_out import Newcomers, check, hold_out
from polypref.newcomers.new_users import _serves, named_routes, new_users
from polypref.newcomers.tables import CEILING, advice, gain_lines, table_lines
from polypref.worlds import simulate


@cache
def world() -> Comparisons:
    return simulate("two-tastes", users=20, judgements=50, judges=5).comparisons


@cache
def cut(seed: int = 0) -> Newcomers:
    return hold_out(world(), "pair", seed, 0.25)


# --- the cut


@pytest.mark.parametrize("rule", ["pair", "prompt", "response"])
def test_new_users_are_nowhere_in_training_and_test_rows_are_theirs(rule):
    c = world()
    found = hold_out(c, rule, 0, 0.25)
    seen = np.concatenate([found.train_rows, found.valid_rows])
    assert not np.isin(c.user_N[seen], found.users_V).any()
    assert set(c.user_N[found.test_rows]) == set(found.users_V.tolist())
    assert set(c.user_N[found.few_rows]) <= set(found.users_V.tolist())
    assert not np.intersect1d(c.pair_key_N[found.test_rows], c.pair_key_N[np.concatenate([seen, found.few_rows])]).size


def test_fewer_comparisons_are_part_of_more_and_belong_to_the_user():
    c, found = world(), cut()
    for v in range(len(found.users_V)):
        small_rows, large_rows, all_rows = (found.few(v, size) for size in (3, 10, None))
        assert len(small_rows) == 3
        assert list(large_rows[:3]) == list(small_rows)
        assert set(large_rows) <= set(all_rows)
        assert (c.user_N[all_rows] == found.users_V[v]).all()
        assert len(all_rows) == found.count_V[v]


def test_everybody_is_new_once_in_four_seeds_and_nobody_twice():
    new = [user for seed in range(4) for user in cut(seed).users_V.tolist()]
    assert sorted(new) == list(range(20))


def test_the_order_of_the_file_decides_nothing():
    c = world()
    order = np.random.default_rng(0).permutation(len(c))
    other = hold_out(c.take(order), "pair", 0, 0.25)
    assert (other.users_V == cut().users_V).all()
    for v in range(len(other.users_V)):
        one, two = c.pair_key_N[cut().few(v, 10)], c.pair_key_N[order[other.few(v, 10)]]
        assert (one == two).all()


def test_a_context_that_contains_the_target_pair_is_refused():
    found = cut()
    leaky = replace(found, few_rows=np.append(found.few_rows[:-1], found.test_rows[0]))
    with pytest.raises(SettingsError, match=r"leak: 1 pairs of the test rows are also in the training rows"):
        check(world(), leaky, "pair")


def test_a_new_user_in_training_is_refused():
    found = cut()
    leaky = replace(found, train_rows=np.append(found.train_rows, found.few_rows[0]))
    with pytest.raises(SettingsError, match=r"leak: 1 new users are in the training rows"):
        check(world(), leaky, "pair")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_cannot_be(share):
    with pytest.raises(SettingsError, match="between 0 and 1"):
        hold_out(world(), "pair", 0, share)


def test_too_few_users():
    c = simulate("tldr-like", users=4, judgements=20).comparisons
    with pytest.raises(NotEnoughData, match="4 users cannot be divided into 3 new and at least 2 seen"):
        hold_out(c, "pair", 0, 0.25)
    assert hold_out(simulate("tldr-like", users=5, judgements=20).comparisons, "pair", 0, 0.1).held_out == 3


# --- the routes


@cache
def seen_and_twin() -> tuple[Comparisons, Comparisons, str]:
    """Judgements of others, a majority user's own, and the name of who has the same taste most clearly."""
    c = world()
    return c.take(c.user_N != 3), c.take(c.user_N == 3), c.users.ids[3]


@cache
def route(name: str):
    return ROUTES[name].fit(seen_and_twin()[0], encoder=Words(), seed=0)


@pytest.mark.parametrize("name", list(ROUTES))
def test_a_route_serves_the_new_user_and_nobody_else_moves(name):
    """User 3 is of the minority that wants the opposite: the population is wrong about them, a route is not."""
    others, own, new = seen_and_twin()
    before = route(name)
    assert isinstance(before, Adapts)
    few, rest = own.take(np.arange(35)), own.take(np.arange(35, len(own)))
    after = before.adapt(new, few)
    assert (margins(before, rest).value_Q > 0).mean() < 0.45
    assert (margins(after, rest).value_Q > 0).mean() > 0.6
    assert (margins(after, others).value_Q == margins(before, others).value_Q).all()
    with pytest.raises(NotEnoughData, match="no comparisons to learn user 'x' from"):
        before.adapt("x", few.take(np.zeros(0, np.int64)))


@pytest.mark.parametrize("name", list(ROUTES))
def test_a_route_can_be_kept(name):
    _, own, new = seen_and_twin()
    scorer = route(name)
    config, arrays = scorer.state()
    again = type(scorer).from_state(config, arrays, Words())
    one, other = (margins(s.adapt(new, own), own).value_Q for s in (scorer, again))
    assert (one == other).all()


def test_similar_by_agreement_is_who_judged_shared_pairs_alike():
    scorer = route("similar-user-agreement")
    assert isinstance(scorer, SimilarUserScorer)
    c, others, own = world(), *seen_and_twin()[:2]
    minority = {u for u in range(20) if u % 4 == 3}
    shared = np.intersect1d(own.pair_key_N, others.pair_key_N)
    assert len(shared)
    nearest = scorer._agrees_most(own)
    assert nearest is not None
    assert int(c.users.index([scorer.users.ids[nearest]])[0]) in minority
    swapped = scorer._agrees_most(own.swapped())
    assert swapped is not None
    assert int(c.users.index([scorer.users.ids[swapped]])[0]) not in minority
    stranger = simulate("two-tastes", seed=9, users=8, judgements=10).comparisons
    assert scorer._agrees_most(stranger) is None  # nobody judged these pairs: the population answers
    after = scorer.adapt("x", stranger)
    assert np.array_equal(after.newcomers["x"].weights_K, scorer.population_K)


def test_further_fine_tuning_is_the_mode_around_the_pooled_reward():
    scorer = route("further-fine-tuning")
    assert isinstance(scorer, FewShotScorer)
    _, own, new = seen_and_twin()
    few = own.take(np.arange(10))
    d_NK, variance = _differences(scorer.inputs, few), scorer.variance_of[10]

    def objective(w_K):
        margin_N = d_NK @ w_K
        return np.logaddexp(0, -margin_N).sum() + ((w_K - scorer.population_K) ** 2).sum() / (2 * variance)

    oracle = minimize(objective, scorer.population_K).x
    assert scorer.adapt(new, few).newcomers[new].weights_K == pytest.approx(oracle, abs=2e-3)
    still = replace(scorer, variance_of={10: 1e-9}).adapt(new, few)
    assert still.newcomers[new].weights_K == pytest.approx(scorer.population_K, abs=1e-6)


def test_how_far_to_go_is_chosen_on_seen_users():
    """Where judgements are coins the pooled reward is held to; where people are opposed it is left."""
    coins = simulate("two-tastes", users=12, judgements=40, judges=4, temperature=1000.0).comparisons
    near, far = FewShot("pooled").fit(coins, encoder=Words(), seed=0), route("further-fine-tuning")
    assert isinstance(far, FewShotScorer)
    assert near.variance_of[10] < far.variance_of[10]


def test_similar_user_settings_name_two_routes():
    assert {one.by for one in ROUTES.values() if isinstance(one, SimilarUser)} == {"agreement", "accuracy"}


# --- adapting quickly is adapting rightly


@pytest.mark.parametrize("count", [1, 6, 30])
def test_one_users_solver_finds_what_the_general_one_finds(count):
    scorer = fitted("hierarchical")
    assert isinstance(scorer, HierarchicalScorer)
    assert scorer.prior.personal > 0
    c = small()
    few = replace(c, weight_N=1.0 + np.arange(len(c)) % 2, tie_N=np.arange(len(c)) % 7 == 0)
    few = few.take(np.flatnonzero(c.user_N == 2)[:count])
    quick, general = scorer.adapt("x", few).newcomers["x"], scorer._from_many(few, scorer.known_of("x"), scorer.prior)
    assert quick.weights_K == pytest.approx(general.weights_K, abs=1e-4)
    assert quick.covariance_KK == pytest.approx(general.covariance_KK, abs=1e-4)
    assert (quick.effects.key_R == general.effects.key_R).all()
    assert quick.effects.own_E == pytest.approx(general.effects.own_E, abs=1e-4)
    assert quick.effects.variance_E == pytest.approx(general.effects.variance_E, abs=1e-4)


@pytest.mark.parametrize("name", ["hierarchical", "low-rank", "personalized", "personalized-cluster"])
def test_a_user_without_comparisons_is_refused(name):
    scorer = fitted(name)
    assert isinstance(scorer, Adapts)
    with pytest.raises(NotEnoughData, match="no comparisons to learn user 'x' from"):
        scorer.adapt("x", small().take(np.zeros(0, np.int64)))


@pytest.mark.parametrize("users", ["individual", "cluster"])
def test_a_personalized_newcomer_is_at_the_mode(users):
    """Small steps of the new vector in any direction explain the comparisons worse under the prior."""
    scorer = fitted("personalized" if users == "individual" else "personalized-cluster")
    assert isinstance(scorer, PersonalizedScorer)
    few = small().take(np.arange(12))
    after = scorer.adapt("x", few)
    new = Users(pl.Series("id", ["x"]))
    mine = replace(few, users=new, user_N=np.zeros(len(few), np.int32))
    before, right = margins(scorer, mine), margins(after, mine)
    assert (right.source_Q == PERSONAL).all()
    assert (before.source_Q == POPULATION).all()
    lost = [np.logaddexp(0, -m.value_Q).mean() for m in (before, right)]
    assert lost[1] < lost[0]
    if users == "individual":
        at, rng = len(after.vectors_UE) - 1, np.random.default_rng(0)

        def energy(shift_E):
            moved = after.vectors_UE.copy()
            moved[at] += shift_E
            margin_N = margins(replace(after, vectors_UE=moved), mine).value_Q
            own_E = moved[at] - after.generic_E
            return after.alpha * np.logaddexp(0, -margin_N).sum() + after.user_penalty * (own_E @ own_E) / 2

        size = len(after.generic_E)
        assert all(energy(0.05 * rng.normal(size=size)) > energy(np.zeros(size)) for _ in range(10))


# --- the grid


def quick_grid(out=None, **more):
    settings = {"sizes": (0, 3, 10, 30, 300), "seeds": 2, "workers": 1, "quiet": True}
    return new_users(world(), ["hierarchical", "further-fine-tuning"], Words(), out=out, **(settings | more))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    out = tmp_path_factory.mktemp("new-users")
    return out, quick_grid(out)


def test_few_answers_beat_the_population_in_a_world_of_opposed_tastes(grid):
    _, found = grid
    gain = found.contents.gains.at("hierarchical", size=10)
    assert gain.value > 0.1
    assert gain.p < 0.2  # ten new people, five of whom the population serves as well
    assert found.contents.rows.at("hierarchical", size=30).value > found.contents.rows.at("individual", size=3).value
    assert abs(found.contents.gaps.at("hierarchical", size=30).value) < 0.06
    assert found.contents.rows.at(CEILING, size=10).value > 0.8


def test_sizes_that_users_do_not_have_are_counted_and_left_out(grid):
    _, found = grid
    by_size = {row["size"]: row for row in found.content["sizes"]}
    assert by_size[3]["left_out"] == 0
    assert by_size[300] == {"size": 300, "new_users": 0, "left_out": by_size[3]["new_users"]}
    assert not [row for row in found.content["rows"] if row["size"] == 300]
    assert "300" not in table_lines(found.contents)[0]
    uneven = world().take((world().user_N != cut().users_V[0]) | (np.arange(len(world())) % 4 == 0))
    some = new_users(uneven, ["further-fine-tuning"], Words(), sizes=(3, 30), seeds=1, workers=1, quiet=True)
    assert [(row["new_users"], row["left_out"]) for row in some.content["sizes"]] == [(5, 0), (4, 1)]
    assert dict(zip(*[table_lines(some.contents)[at] for at in (0, -1)], strict=True))["30"] == "1"


def test_every_route_is_measured_on_the_same_rows(grid):
    _, found = grid
    for size in (3, 10, 30):
        counts = {row["n_comparisons"] for row in found.content["rows"] if row["size"] == size}
        assert len(counts) == 1
    assert "individual" not in {row["learner"] for row in found.content["rows"] if row["size"] == 0}


def test_finished_cells_are_not_run_again_and_workers_give_the_same(grid, tmp_path):
    out, found = grid
    assert found.content["timing"]["cells_run"] > 0
    again = quick_grid(out)
    assert again.content["timing"]["cells_run"] == 0
    assert again.content["rows"] == found.content["rows"]
    other = new_users(world(), ["individual"], Words(), out=tmp_path, sizes=(3,), seeds=1, workers=2, quiet=True)
    here = new_users(world(), ["individual"], Words(), sizes=(3,), seeds=1, workers=1, quiet=True)
    assert other.content["rows"] == here.content["rows"]
    assert (out / "new_users.parquet").exists()


def test_a_cells_answers_stop_where_the_users_comparisons_do(tmp_path):
    job = Job(world(), Words(), {"individual": ROUTES["individual"]}, "pair", tmp_path, 0.25, (0, 3, 300, None))
    run(job, Cell("individual", 0))
    margin_AH = read(job, Cell("individual", 0)).margin_AH
    assert np.isfinite(margin_AH).all(axis=1).tolist() == [False, True, False, True]
    assert np.isnan(margin_AH[2]).all()


def test_what_is_printed(grid):
    _, found = grid
    lines = table_lines(found.contents)
    assert lines[0] == ["comparisons of the new person", "0", "3", "10", "30"]
    assert {len(line) for line in lines} == {5}
    assert next(line for line in lines if line[0] == "individual")[1] == "–"
    assert gain_lines(found.contents)[0] == lines[0]
    assert [line.split(":")[0] for line in advice(found.contents)] == [
        "3 comparisons",
        "10 comparisons",
        "30 comparisons",
    ]


def test_routes_by_name():
    assert list(named_routes(["low-rank"])) == ["pooled", "pooled-effects", "individual", "low-rank"]
    everyone = named_routes(None)
    assert set(ROUTES) <= set(everyone)
    assert {"hierarchical", "low-rank", "personalized"} <= set(everyone)
    with pytest.raises(SettingsError, match=r"unknown learner 'low-rnk'\. Did you mean 'low-rank'"):
        named_routes(["low-rnk"])


def test_learners_that_know_seen_users_only_are_refused():
    seen = [name for name, one in LEARNERS.items() if name not in ROUTES and _serves(one) == "seen_users"]
    for name in seen:
        with pytest.raises(SettingsError, match=f"{name}' knows only users seen in training"):
            named_routes([name])
    assert all(_serves(one) in ("population", "seen_users", "any_user") for one in LEARNERS.values())
    assert _serves(Pooled()) == "population"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sizes": ()}, "--sizes is empty"),
        ({"sizes": (3, -1)}, "sizes is -1; expected"),
        ({"share": 1.5}, "share is 1.5; expected"),
        ({"seeds": 0}, "seeds is 0; expected"),
        ({"workers": -1}, "workers is -1; expected"),
        ({"split": "user"}, "split is 'user'; expected"),
        ({"size": 3}, "unknown setting 'size'"),
    ],
)
def test_settings_that_cannot_be(wrong, said):
    with pytest.raises(SettingsError, match=said):
        quick_grid(**wrong)
