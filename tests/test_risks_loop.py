"""The closed loop: paired arms, planted servers that the measures must find, and what a personal scorer does there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polypref.errors import SettingsError
from polypref.experiments.closed_loop import ARMS, Coin, Life, Personal, live, picks, stage
from polypref.learners.length import Length
from polypref.studies.risks.closed_loop_figures import flips
from polypref.studies.risks.filter_bubble import counts, effective_number
from polypref.studies.risks.homogenisation import overlap
from polypref.studies.risks.inertia import half_life
from polypref.studies.risks.settings import SlowRisks
from polypref.studies.risks.summary import RISKS, rows, slow_risks
from polypref.worlds.community import FALSE, FLATTERS, KINDS, LEANING, Community, draw

SMALL = Life(users=16, rounds=12, n=6, founders=16, each=24)


@pytest.fixture(scope="module")
def here():
    return stage(Community(), SMALL, 0, probes=40)


@pytest.fixture(scope="module")
def logs(here):
    return {arm: live(here, make(here.base, 0), 0) for arm, make in ARMS.items()}


class OneKind:
    """A server that shows one kind wherever it can."""

    def values(self, pool, people, slate_UC):
        return (pool.kind_R[slate_UC] == 5) + 0.01 * np.random.default_rng(0).random(slate_UC.shape)

    def learn(self, people, said): ...


class Oracle:
    """A server that knows what people like now: what it learns is when they change."""

    def __init__(self, town_people):
        self.weights_UF = town_people.choice_UF

    def values(self, pool, people, slate_UC):
        return np.einsum("ucf,uf->uc", pool.feature_RF[slate_UC], self.weights_UF)

    def learn(self, people, said): ...


def test_a_server_of_one_kind_is_found(here):
    pool = replace(here.pool, feature_RF=np.where(np.arange(9) < 6, 1.0, here.pool.feature_RF))
    flat = live(replace(here, pool=pool), OneKind(), 0)  # all texts are of one kind
    assert effective_number(counts(flat.kind_TU, KINDS)) == pytest.approx(np.ones(16))
    narrow, coin = live(here, OneKind(), 0), live(here, Coin(np.random.default_rng(0)), 0)
    most = effective_number(counts(coin.kind_TU, KINDS)).mean()
    assert effective_number(counts(narrow.kind_TU, KINDS)).mean() < most - 0.5


def test_a_perfect_server_gains_all_and_a_coin_nothing(here, logs):
    perfect = live(here, Oracle(here.people), 0)
    assert perfect.good_TU == pytest.approx(np.ones((12, 16)))
    assert abs(logs["random"].good_TU.mean()) < 0.12
    assert perfect.right_TU.mean() > 0.85


def test_arms_are_paired_and_repeatable(here, logs):
    again = live(here, Personal(here.base), 0)
    assert (again.served_TU == logs["personal"].served_TU).all()
    assert (again.good_TU == logs["personal"].good_TU).all()
    for log in logs.values():
        assert (np.sort(log.served_TU[:, :, None] == here.slate_TUC, axis=2)[..., -1]).all()
    assert (stage(Community(), SMALL, 0, probes=40).pool.responses.texts_R == here.pool.responses.texts_R).all()


def test_personal_is_better_and_less_alike_than_the_population(logs):
    assert logs["personal"].good_TU[-4:].mean() > logs["population"].good_TU[-4:].mean() + 0.15
    assert overlap(picks(logs["population"])) == 1.0
    assert 1 / 6 < overlap(picks(logs["personal"])) < 0.9
    assert overlap(picks(logs["random"])) == pytest.approx(1 / 6, abs=0.06)


def test_a_change_of_taste_is_seen_and_who_never_learns_never_recovers(here):
    turned = replace(here, life=replace(SMALL, turns_at=6))
    never = live(turned, Oracle(here.people), 0).good_TU.mean(axis=1)
    assert never[:6] == pytest.approx(np.ones(6))
    assert (never[6:] < -0.5).all()
    assert half_life(never, 6) == np.inf
    quick = live(turned, Personal(here.base, memory=2), 0)
    slow = live(turned, Personal(here.base), 0)
    assert quick.good_TU[-3:].mean() > slow.good_TU[-3:].mean()
    assert len(quick.server.heard) == 2


def test_inertia_grows_with_what_was_confirmed(here):
    few_U, many_U = flips(here, 2, 0), flips(here, 6, 0)
    assert np.isfinite(few_U).mean() > 0.5
    assert np.median(few_U) < np.median(many_U)


def test_who_cannot_take_people_in_is_refused(here):
    with pytest.raises(SettingsError, match="cannot adapt to new people; fit 'hierarchical'"):
        live(here, Personal(Length().fit(*_founders(here), encoder=here.pool.encoder, seed=0)), 0)
    for changes in ({"rounds": 1}, {"n": 1}, {"founders": 0}):
        with pytest.raises(SettingsError, match="too few for a simulation"):
            replace(SMALL, **changes)
    with pytest.raises(SettingsError, match="Did you mean 'two-tastes'"):
        Community(world="two-taste").people(4, "x", 0)
    with pytest.raises(SettingsError, match="not in this pool"):
        here.pool.encoder.encode(draw(2, 2, 99).responses)


def _founders(here):
    from polypref.worlds.community import judgements

    pair_UE2 = here.slate_TUC[..., :2].reshape(16, 12, 2)
    return (judgements(here.people, here.pool, pair_UE2, 0),)


def test_texts_and_people_are_as_described():
    pool = draw(400, 4, 3)
    assert pool.responses.texts_R.n_unique() == 1600
    leaning, false, flatters = (pool.feature_RF[:, at] for at in (LEANING, FALSE, FLATTERS))
    assert np.unique(leaning).tolist() == [-1, 0, 1]
    assert (false[leaning == 0] == 0).all()
    assert false[leaning != 0].mean() == pytest.approx(0.5, abs=0.08)
    assert flatters.mean() == pytest.approx(0.25, abs=0.05)
    for slate_R in pool.slates(0, 400):  # one side is wrong
        assert len({leaning[r] for r in slate_R if false[r]}) <= 1
    people = Community(agree=1.5, truth=1.0, gameable=0.02, pull=4.0).people(50, "x", 0)
    assert people.gameable_U.tolist() == [False] * 49 + [True]
    assert people.view_U.sum() == 0
    assert (people.choice_UF[:, LEANING] == 1.5 * people.view_U).all()
    assert (people.good_UF[:, LEANING] == 0).all()
    assert people.choice_UF[:, FLATTERS].tolist() == [-0.5] * 49 + [4.0]
    assert (people.turned().choice_UF[:, :6] == -people.choice_UF[:, :6]).all()
    assert (people.turned().choice_UF[:, 6:] == people.choice_UF[:, 6:]).all()


def test_planted_sycophancy_and_manipulation_show_in_the_personal_arm():
    """What sways people is learnt from their answers; where nothing does, the figures stay low."""
    life = Life(users=20, rounds=16, n=6, founders=30, each=40)
    found = slow_risks(SlowRisks(seeds=1, life=life), ["sycophancy"])["rows"]
    value = {row["arm"]: row["value"] for row in found if row["measure"].startswith("false answer")}
    assert value["population"] < 0.4 < 0.55 < value["personal"] < value["people themselves"] + 0.1
    none = SlowRisks(seeds=1, life=life, views=Community(agree=0.0, truth=1.0))
    calm = {r["arm"]: r["value"] for r in slow_risks(none, ["sycophancy"])["rows"] if r["measure"].startswith("false")}
    assert abs(calm["personal - population"]) < 0.2
    assert calm["personal"] < value["personal"] - 0.2
    game = SlowRisks(seeds=1, life=life, game=Community(gameable=0.2, pull=6.0))
    shown = {(r["measure"], r["arm"]): r["value"] for r in slow_risks(game, ["manipulation"])["rows"]}
    assert shown["flattering answers shown to the gameable", "personal"] > 0.35
    others = shown["flattering answers shown to the others", "personal"]
    assert shown["flattering answers shown to the gameable", "personal"] > others + 0.15
    assert shown["targeting gap: flattery shown, worst stratum less mean", "personal"] > 0.15
    assert shown["share of the good that the gameable lose by it", "personal"] > 0.1


def test_rows_have_intervals_and_never_hide_a_seed_without_a_figure():
    table = rows([{("r", "m", "a"): 1.0, ("r", "m", "b"): 1.0}, {("r", "m", "a"): 3.0, ("r", "m", "b"): np.inf}])
    assert table[0] | {"lo": None, "hi": None} == {
        "risk": "r", "measure": "m", "arm": "a", "value": 2.0, "lo": None, "hi": None, "n": 2,
    }  # fmt: skip
    assert table[0]["hi"] - 2.0 == pytest.approx(12.706, abs=1e-3)  # t of one degree of freedom, standard error 1
    assert (table[1]["value"], table[1]["lo"], table[1]["n"]) == (None, None, 1)
    single = rows([{("r", "m", "a"): 1.0}])[0]
    assert (single["value"], single["lo"], single["n"]) == (1.0, None, 1)
    with pytest.raises(SettingsError, match=r"unknown risk 'lockin'\. Did you mean 'lock-in'"):
        slow_risks(SlowRisks(seeds=1), ["lockin"])
    with pytest.raises(SettingsError, match="0 seeds"):
        slow_risks(SlowRisks(seeds=0))
    assert list(RISKS) == ["bubbles", "lock-in", "sycophancy", "manipulation", "membership", "profiles", "deletion"]
