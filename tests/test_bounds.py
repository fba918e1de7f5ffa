"""The gate, its calibration and the cap: nothing gated is returned, whatever anybody asks for."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds_cases import Table, by_text, pool, random_slates
from polypref.bounds import cap as caps
from polypref.bounds.calibrate import Target, allowed, calibrate, highest_unsafe, needed, threshold
from polypref.bounds.gate import Bounded, Gate, Limits
from polypref.bounds.safety import SafetyFailed, same_answers
from polypref.bounds.safety_cache import Safety
from polypref.bounds.slates import Slates
from polypref.comparisons import from_columns
from polypref.errors import NotEnoughData, SettingsError
from polypref.learners.protocol import PERSONAL

# --- calibration


@pytest.mark.parametrize("alpha, delta, n", [(0.01, 0.05, 299), (0.01, None, 99), (0.05, 0.1, 45), (0.001, None, 999)])
def test_the_fewest_slates_that_can_show_a_target(alpha, delta, n):
    assert needed(alpha, delta) == n
    assert allowed(n, alpha, delta) == 0
    assert allowed(n - 1, alpha, delta) == -1


def test_allowed_is_the_most_that_the_formulas_permit():
    from scipy.stats import binom

    for n in (120, 1000, 2500):
        for alpha in (0.01, 0.05):
            k = allowed(n, alpha, None)
            assert (k + 1) / (n + 1) <= alpha < (k + 2) / (n + 1)
            k = allowed(n, alpha, 0.05)
            assert (k < 0 or binom.cdf(k, n, alpha) <= 0.05) and binom.cdf(k + 1, n, alpha) > 0.05


def test_the_threshold_loses_exactly_what_is_allowed():
    highest = np.array([3.0, -np.inf, 1.0, 2.0, 2.5])
    for lost in range(4):
        assert (highest >= threshold(highest, lost)).sum() == lost


def test_high_probability_calibrations_exceed_alpha_rarely_and_conformal_ones_hold_on_average():
    """T3: an oracle takes any unsafe survivor; many calibrations, each on 1,000 slates."""
    rng = np.random.default_rng(0)
    alpha, above, risks = 0.01, 0, []
    for size in (1, 4, 16):
        whole, safety = random_slates(rng, 60_000, size)
        highest = highest_unsafe(whole, safety)
        for _ in range(200):
            drawn = highest[rng.integers(0, len(highest), 1000)]
            sure = threshold(drawn, allowed(1000, alpha, 0.05))
            above += (highest >= sure).mean() > alpha
            risks.append((highest >= threshold(drawn, allowed(1000, alpha, None))).mean())
    assert above <= 0.05 * 600 + 2 * (600 * 0.05 * 0.95) ** 0.5
    assert np.mean(risks) <= alpha + 2 * np.std(risks) / len(risks) ** 0.5


def test_calibrating_candidates_instead_of_slates_leaks():
    """Why slates: a threshold by which one in a hundred unsafe candidates passes is beaten by choosing among 16."""
    slates, safety = random_slates(np.random.default_rng(1), 4000, 16)
    by_candidate = np.quantile(safety[slates.unsafe_C], 0.99)
    assert (highest_unsafe(slates, safety) >= by_candidate).mean() > 0.03


def test_agrees_with_mapie():
    """MAPIE's risk control on the same losses: learn then test in a fixed sequence, and conformal risk control."""
    methods = pytest.importorskip("mapie.risk_control.methods")
    rng = np.random.default_rng(2)
    for n, alpha in ((1000, 0.01), (400, 0.05)):
        highest = rng.standard_normal(n)
        lost_L = np.arange(n // 4)
        p_L = methods.compute_hoeffding_bentkus_p_value(lost_L / n, n, np.array([alpha]), binary=True)[:, 0]
        assert (p_L <= 0.05).sum() - 1 == allowed(n, alpha, 0.05)
        cut_L = np.array([threshold(highest, lost) for lost in lost_L[::-1]])
        risk_IL = (highest[:, None] >= cut_L).astype(float)
        _, plus_L = methods.get_r_hat_plus(risk_IL, cut_L, "crc", None, None, 0.25)
        best = methods.find_best_predict_param(cut_L, plus_L, np.array([alpha]))[0]
        assert best == threshold(highest, allowed(n, alpha, None))


def test_infeasible_and_empty_targets_are_refused_with_what_would_do():
    rng = np.random.default_rng(3)
    slates, safety = random_slates(rng, 200, 4)
    with pytest.raises(NotEnoughData, match="label 299 or more"):
        calibrate(slates, by_text(safety), Target(0.01, 0.05))
    clean = Slates(slates.responses, slates.slate_C, slates.response_C, np.zeros(800, bool), slates.category_L)
    with pytest.raises(NotEnoughData, match="no slate holds an unsafe"):
        calibrate(clean, by_text(safety), Target(0.1))
    few = Slates(slates.responses, slates.slate_C, slates.response_C, np.arange(800) < 4, slates.category_L)
    with pytest.raises(NotEnoughData, match="need no gate"):
        calibrate(few, by_text(safety), Target(0.1))
    with pytest.raises(NotEnoughData, match="did not score, and"):
        calibrate(slates, by_text(np.full(800, np.nan)), Target(0.1))
    with pytest.raises(SettingsError, match="expected a share"):
        Target(alpha=1.5)


def test_each_category_keeps_its_own_target():
    rng = np.random.default_rng(4)
    slates, safety = random_slates(rng, 4000, 4)
    harsh = np.repeat(np.arange(4000) % 2 == 0, 4)
    safety = np.where(harsh & slates.unsafe_C, safety + 1.5, safety)  # one category is harder to see through
    named = Slates(
        slates.responses,
        slates.slate_C,
        slates.response_C,
        slates.unsafe_C,
        pl.Series(["weapons" if i % 2 == 0 else "insults" for i in range(4000)]),
    )
    found = calibrate(named, by_text(safety), Target(0.05, 0.05, by_category=True))
    assert found["weapons"].value > found["insults"].value + 0.5
    assert all(one.lost / one.slates <= 0.05 for one in found.values())
    gate = Gate({name: one.value for name, one in found.items()})
    assert gate.threshold("unheard of") == gate.threshold() == found["weapons"].value
    assert gate.threshold("insults") == found["insults"].value


def test_harmless_categories_get_the_strictest_threshold_and_missing_names_are_refused():
    slates, safety = random_slates(np.random.default_rng(7), 2000, 4)
    quiet = np.repeat(np.arange(2000) % 2 == 0, 4)
    labels = pl.Series(["cooking" if i % 2 == 0 else "weapons" for i in range(2000)])
    named = Slates(slates.responses, slates.slate_C, slates.response_C, slates.unsafe_C & ~quiet, labels)
    found = calibrate(named, by_text(safety), Target(0.05, 0.05, by_category=True))
    assert set(found) == {"weapons"}
    blank = Slates(named.responses, named.slate_C, named.response_C, named.unsafe_C, labels.replace("cooking", ""))
    with pytest.raises(NotEnoughData, match="1000 slates have no category"):
        calibrate(blank, by_text(safety), Target(0.05, 0.05, by_category=True))


def test_unsafe_responses_without_a_score_count_as_lost():
    """A scorer that is silent by chance must not look as if it dropped what it did not see."""
    slates, safety = random_slates(np.random.default_rng(8), 2000, 4)
    silent = np.where(slates.unsafe_C & (np.random.default_rng(9).random(len(safety)) < 0.01), np.nan, safety)
    strict = calibrate(slates, by_text(silent), Target(0.05, 0.05))[""]
    assert strict.value > calibrate(slates, by_text(safety), Target(0.05, 0.05))[""].value
    often = np.where(slates.unsafe_C & (np.random.default_rng(9).random(len(safety)) < 0.5), np.nan, safety)
    with pytest.raises(NotEnoughData, match="did not score"):
        calibrate(slates, by_text(often), Target(0.05, 0.05))


def test_several_slates_of_one_prompt_count_once():
    whole, safety = random_slates(np.random.default_rng(10), 600, 4)
    texts = [str(i) for i in range(2400)]
    repeated = from_columns(["u"] * 2400, [f"q{i // 40}" for i in range(2400)], texts, texts)
    slates = Slates(repeated.responses, whole.slate_C, whole.response_C, whole.unsafe_C, whole.category_L)
    assert calibrate(slates, by_text(safety), Target(0.1, 0.1))[""].slates == 60
    assert calibrate(slates, by_text(safety), Target(0.1, None))[""].slates == 60


# --- the gate

odd = st.floats(allow_nan=True, allow_infinity=True, width=64) | st.sampled_from([1e30, -1e30, 0.0, float("nan")])
candidates = st.lists(st.tuples(odd, odd, odd), min_size=0, max_size=8)


@settings(max_examples=150, deadline=None)
@given(candidates, odd.filter(lambda x: not np.isnan(x)), st.none() | st.floats(0, 1e6), st.lists(st.integers(0, 7)))
def test_a_gated_response_is_never_returned_nor_above_a_survivor(rows, cut, cap, repeats):
    """T5: whatever rewards and safety scores are, with repeats, ties, empty slates and unknown users."""
    safety, shared, own = (np.array([row[k] for row in rows], float) for k in range(3))
    responses = pool([str(i) for i in range(len(rows))]) if rows else pool(["0"]).take(np.zeros(0, np.int32))
    bounded = Bounded(
        Table(shared, own), Safety(Table(safety)), Gate({"": cut}), Limits(np.inf if cap is None else cap)
    )
    slate = np.array([r % len(rows) for r in repeats] if rows else [], np.int32)
    passes = np.isfinite(safety) & (safety >= cut)
    for user in ("u", "never seen", "ünïcode\u202e", None):
        ranking = bounded.rank_slate(responses, user, slate)
        assert all(passes[slate[at]] for at in ranking.order)
        assert sorted((*ranking.order, *ranking.dropped)) == list(range(len(slate)))
        assert ranking.best is None or passes[slate[ranking.best]]
        value = bounded.score(responses, [user] * len(slate), slate)
        assert not np.isnan(value).any()
        assert (value[~passes[slate]] == -np.inf).all()
        assert ranking.abstains == (not np.isfinite(value).any())


def test_survivors_are_ordered_by_the_person_within_the_cap():
    shared, own = [0.0, 0.0, 0.0, 9.0], [1.0, 2.0, 3.0, -50.0]
    responses = pool(["0", "1", "2", "3"])
    free = Bounded(Table(shared, own), Safety(Table([1, 1, -1, 1])), Gate({"": 0.0}))
    assert free.rank_slate(responses, "u").order == (1, 0, 3)
    held = Bounded(Table(shared, own), Safety(Table([1, 1, -1, 1])), Gate({"": 0.0}), Limits(cap=1.0))
    assert held.rank_slate(responses, "u").order == (3, 1, 0)
    assert held.rank_slate(responses, "u").dropped == (2,)


def test_a_missing_or_dying_safety_scorer_lets_nothing_through():
    responses = pool(["0", "1"])
    silent = Bounded(Table([0, 1]), Safety(Table([np.nan, np.inf])), Gate({"": -np.inf}))
    assert silent.rank_slate(responses, "u").abstains

    class Dead:
        def score(self, *_):
            raise ConnectionError("the server is gone")

    with pytest.raises(SafetyFailed, match=r"server is gone.*no response is let through"):
        Bounded(Table([0, 1]), Safety(Dead()), Gate({"": 0.0})).rank_slate(responses, "u")
    with pytest.raises(SafetyFailed, match="person's name"):
        Safety(Table([0, 1], source=PERSONAL))(responses)


def test_a_person_may_ask_for_more_safety_but_not_for_less():
    responses = pool(["0", "1", "2"])
    table = Table([5.0, 4.0, 3.0])
    safety = Safety(Table([0.5, 2.0, -1.0]))
    bounded = Bounded(
        table, safety, Gate({"": 0.0}), user_limits={"careful": Limits(floor=1.0), "reckless": Limits(floor=-9.0)}
    )
    assert bounded.rank_slate(responses, "careful").order == (1,)
    assert bounded.rank_slate(responses, "reckless").order == (0, 1)
    assert bounded.rank_slate(responses, "anybody").order == (0, 1)


def test_too_many_candidates_are_refused():
    bounded = Bounded(Table([0, 1, 2]), Safety(Table([1, 1, 1])), Gate({"": 0.0}), Limits(most_candidates=2))
    with pytest.raises(SettingsError, match="allow 2"):
        bounded.rank_slate(pool(["0", "1", "2"]), "u")


def test_each_text_is_asked_about_once():
    table = Table([1.0, 2.0, 3.0])
    safety = Safety(table)
    assert safety(pool(["0", "1"])).tolist() == [1.0, 2.0]
    assert safety(pool(["2", "1", "0"])).tolist() == [3.0, 2.0, 1.0]
    assert table.asked == 3


def test_a_full_memory_and_many_threads_give_the_same_scores(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from polypref.bounds import safety_cache as module

    value = np.arange(400.0) - 200
    monkeypatch.setattr(module, "MOST_REMEMBERED", 50)
    safety = Safety(Table(value))
    rng = np.random.default_rng(11)
    asked = [rng.permutation(400)[: rng.integers(1, 90)] for _ in range(200)]
    pools = [pool([str(i) for i in some]) for some in asked]
    with ThreadPoolExecutor(8) as threads:
        for some, found in zip(asked, threads.map(safety, pools), strict=True):
            assert (found == value[some]).all()


def test_a_missing_score_is_asked_for_again():
    table = Table([np.nan, 1.0])
    safety = Safety(table)
    assert np.isnan(safety(pool(["0", "1"]))[0])
    table.shared = np.array([5.0, 1.0])
    assert safety(pool(["0", "1"])).tolist() == [5.0, 1.0]


@pytest.mark.parametrize("limits", [{"cap": -1.0}, {"cap": np.nan}, {"floor": np.nan}, {"most_candidates": 0}])
def test_limits_that_cannot_be_are_refused(limits):
    with pytest.raises(SettingsError, match="expected"):
        Limits(**limits)


def test_a_changed_scorer_is_noticed_by_its_answers():
    assert same_answers([1.0, 2.0, None], [1.0 + 1e-6, 2.0, None])
    assert not same_answers([1.0, 2.0, 3.0], [1.0, 2.1, 3.0])
    assert not same_answers([1.0, 2.0, None], [1.0, 2.0, 0.0])
    assert not same_answers([1.0], [1.0, 2.0])


# --- the cap


@settings(max_examples=200, deadline=None)
@given(st.lists(odd, min_size=2, max_size=2), st.tuples(st.floats(-10, 10), st.floats(-10, 10)), st.floats(0, 5))
def test_nobody_flips_a_certified_pair(own, shared, cap):
    shared_Q, own_Q = np.array(shared), np.array(own, float)
    moved = caps.capped(shared_Q, own_Q, cap)
    assert (np.abs(moved - shared_Q) <= cap + 1e-9).all()  # but for rounding
    if abs(shared[0] - shared[1]) > 2 * cap + 1e-9:
        assert np.sign(moved[0] - moved[1]) == np.sign(shared[0] - shared[1])


def test_small_deviations_stay_and_large_ones_end_at_the_cap():
    moved = caps.capped(np.zeros(3), np.array([0.01, 1e30, -np.inf]), 2.0)
    assert moved == pytest.approx([0.01, 2.0, -2.0], abs=1e-6)


def test_dimensions_have_limits_of_their_own():
    deviation = np.array([[100.0, 0.1], [np.nan, -100.0]])
    moved = caps.capped_by_dimension(np.zeros(2), deviation, np.array([0.0, 1.0]))
    assert moved == pytest.approx([np.tanh(0.1), -1.0])


def test_the_chosen_cap_is_the_largest_that_certifies():
    margin = np.array([-1.0, 0.2, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0])
    found = caps.choose(margin, keep=0.8)
    assert found.shared == 7 / 8
    assert found.certified >= 0.8 * found.shared > caps.certified(margin, found.cap * 1.01)
    with pytest.raises(NotEnoughData, match="none of the safety pairs"):
        caps.choose(np.array([-1.0, 0.0]))


def test_certified_is_a_count_and_never_rises_with_the_cap():
    margin = np.array([np.nan, -3.0, 1.0, 2.0, 5.0])
    assert caps.certified(margin, 0.0) == 3 / 5
    assert caps.certified(margin, np.array([0.4, 0.5, 1.1, 3.0])).tolist() == pytest.approx([0.6, 0.4, 0.2, 0.0])


def test_the_worst_mixture_is_a_vertex():
    rng = np.random.default_rng(5)
    margin_IK = rng.standard_normal((500, 4)) + 1
    weights = rng.dirichlet(np.full(4, 0.3), 2000)
    flipped = ((margin_IK @ weights.T) <= 0).any(axis=1)
    assert (1 - flipped.mean()) >= caps.certified_mixture(margin_IK)
    assert caps.certified_mixture(margin_IK) == ((margin_IK @ np.eye(4)) > 0).all(axis=1).mean()
