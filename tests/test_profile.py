"""Disagreement, consistency, minorities, room: closed forms, brute force, planted cases, odd inputs."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from polypref.comparisons import from_columns
from polypref.profiling import minority_users, profile, room
from polypref.profiling.consistency import consistency
from polypref.profiling.disagreement import Side, disagreement, is_high
from polypref.profiling.minorities import minorities
from polypref.profiling.votes import votes
from polypref.stats.estimate import against_null, clustered_proportion, proportion, wilson
from profile_people import crowd, judged, panel


def test_votes_ignore_pair_ids_text_order_and_row_order():
    rows = [("u", "p", "a", "b"), ("v", "p", "b", "a"), ("u", "p", "a", "b")]
    data = judged(rows, pairs=[1, 2, 3])
    seen = votes(data)
    assert (seen.n_pairs, len(seen.user_V), sorted(seen.sign_V.tolist())) == (1, 2, [-1, 1])
    assert (seen.plus_V + seen.minus_V).tolist() == [2, 1]
    assert votes(data, "id").n_pairs == 3
    swapped = votes(data.swapped())
    assert swapped.sign_V.tolist() == (-seen.sign_V).tolist()
    shuffled = votes(data.take(np.array([2, 1, 0])))
    assert shuffled.sign_V.tolist() == seen.sign_V.tolist()


def test_equal_texts_under_different_prompts_are_different_pairs():
    assert votes(judged([("u", "p", "a", "b"), ("u", "q", "a", "b")])).n_pairs == 2


def test_repeats_that_cancel_out_and_ties_abstain():
    rows = [("u", "p", "a", "b"), ("u", "p", "b", "a"), ("v", "p", "a", "b"), ("w", "p", "a", "b")]
    seen = votes(judged(rows, ties=[False, False, False, True]))
    assert seen.panel_Y.tolist() == [1]
    assert sorted(seen.sign_V.tolist()) in ([-1, 0, 0], [0, 0, 1])


def test_rates_by_hand():
    d = disagreement(votes(judged(panel(["aaa", "aab", "ab.", "a.."]))))
    assert (d.contested.value, d.contested.n) == (0.5, 2)
    assert (d.divergence.value, d.divergence.n) == (pytest.approx(2 / 3), 3)
    assert d.mean_panel == pytest.approx(8 / 3)


def test_three_of_ten_is_high_dissent_and_two_of_seven_is_not():
    assert is_high(3, 10) and is_high(1, 3) and not is_high(2, 7) and not is_high(29, 100)


def test_fixed_panels_are_the_mean_over_all_sub_panels():
    outcomes = ["aaaaa", "aaaab", "aabba", "abab.", "aab..", "ab..."]
    got = disagreement(votes(judged(panel(outcomes)))).at_panel
    for k in (2, 3, 5):
        contested, high = [], []
        for letters in (o.replace(".", "") for o in outcomes):
            subs = [sum(x == "a" for x in sub) for sub in itertools.combinations(letters, k)]
            if subs:
                contested.append(np.mean([0 < a < k for a in subs]))
                high.append(np.mean([min(a, k - a) >= 0.3 * k for a in subs]))
        assert got[k][0].value == pytest.approx(np.mean(contested)) and got[k][0].n == len(contested)
        assert got[k][1].value == pytest.approx(np.mean(high))


def test_subset_products_are_sums_over_subsets():
    weight = np.array([0.3, 1.7, 2.2, 0.9])
    side = Side.of(np.arange(4), np.zeros(4, int), 1)
    got = side.subset_products(weight)[:, 0]
    for k in range(6):
        assert got[k] == pytest.approx(sum(math.prod(s) for s in itertools.combinations(weight, k)))


def test_rates_grow_with_the_panel_and_fixed_panels_do_not():
    few, many = (disagreement(votes(crowd("alike", 3, judges=judges))) for judges in (3, 12))
    assert many.contested.value > few.contested.value + 0.15
    assert many.at_panel[3][0].value == pytest.approx(few.at_panel[3][0].value, abs=0.06)


def test_fixed_panel_intervals_hold_the_truth():
    # many judges of the same pairs tell the truth for these pairs; few judges must cover it
    held = 0
    for seed in range(10):
        truth = disagreement(votes(crowd("alike", seed, users=60, prompts=8, judges=50))).at_panel[3][0].value
        e = disagreement(votes(crowd("alike", seed, users=60, prompts=8, judges=5)), seed).at_panel[3][0]
        assert e.lo is not None and e.hi is not None and truth is not None
        held += e.lo <= truth <= e.hi
    assert held >= 8


def test_pairs_that_all_agree_are_no_certainty():
    """Three pairs, all contested by five judges each: nothing to redraw, so Wilson's interval, within 0 and 1."""
    for outcome, value, ends in (("aaabb", 1.0, wilson(1.0, 3)), ("aaaaa", 0.0, wilson(0.0, 3))):
        five = disagreement(votes(judged(panel([outcome] * 3)))).at_panel[5][0]
        assert (five.value, five.n) == (value, 3)
        assert (five.lo, five.hi) == pytest.approx(ends)
    crowded = disagreement(votes(judged(panel(["aaabb", "aabbb", "ababa", "aabab"] * 3)))).at_panel
    for estimate in (e for both in crowded.values() for e in both):
        assert 0.0 <= estimate.lo <= estimate.value <= estimate.hi <= 1.0
        assert estimate.hi > estimate.lo


def test_one_of_a_kind_is_singular():
    told = profile(judged(panel(["aab"])))
    rows = {row.name: row.of for row in told.rows()}
    assert rows["contested (>= 3 judges)"] == "1 pair" and told.sentences()["disagreement"].startswith("Of 1 pair with")
    assert rows["agrees with the others' majority"].endswith(("judgement", "judgements"))


def test_retest_counts_couples_and_ties_as_a_label():
    rows = [("u", "p", "a", "b")] * 3 + [
        ("u", "q", "a", "b"),
        ("u", "q", "b", "a"),
        ("v", "p", "a", "b"),
        ("v", "p", "b", "a"),
    ]
    ties = [False, False, True, False, False, True, True]
    seen = votes(judged(rows, ties))
    c = consistency(seen, disagreement(seen))
    # u on p: a a tie -> 1 of 3; u on q: a b -> 0 of 1; v on p: tie tie -> 1 of 1
    assert (c.retest.value, c.retest.n, c.n_users) == (pytest.approx(2 / 5), 5, 2)
    assert (c.retest_no_ties.value, c.retest_no_ties.n) == (pytest.approx(1 / 2), 2)
    assert c.retest_alpha.value is None  # two repeats are not enough


def test_no_repeats_is_unknown_never_one():
    c = profile(judged(panel(["aaa", "aab"]))).consistency
    assert (c.retest.value, c.retest.n, c.ceiling) == (None, 0, None)
    assert profile(judged(panel(["aaa"]) * 2)).consistency.retest.value == 1  # planted: the same rows twice


def test_repeats_under_other_pair_ids_are_repeats_whatever_makes_a_pair():
    rows = [("u", "p", "a", "b"), ("u", "p", "a", "b"), ("v", "p", "b", "a")]
    for pairs, shared in (("text", 1), ("id", 0)):
        p = profile(judged(rows, pairs=[1, 2, 3]), pairs=pairs)
        assert (p.consistency.retest.n, p.sizes["shared_pairs"]) == (1, shared)


def test_alpha_and_ceiling_follow_from_agreement():
    rng = np.random.default_rng(0)
    rows = []
    for u in range(30):
        for q in range(20):
            for _ in range(2):  # each user takes "a" with probability 0.9, whatever he said before
                a = rng.random() < 0.9
                rows.append((f"u{u}", f"p{u}-{q}", "a" if a else "b", "b" if a else "a"))
    c = profile(judged(rows)).consistency
    agree = c.retest_no_ties.value
    assert agree == pytest.approx(0.82, abs=0.04)  # 0.9^2 + 0.1^2
    assert c.retest_alpha.value == pytest.approx(2 - 1 / agree)
    low, high = c.ceiling
    assert low < 0.9 < high and (1 + math.sqrt(2 * agree - 1)) / 2 == pytest.approx(0.9, abs=0.02)


def test_majority_accuracy_with_and_without_the_own_vote():
    m = minorities(votes(judged(panel(["aab", "aab", "ab."]))))
    assert m.shared_U.tolist() == [3, 3, 2]
    assert m.own_U.tolist() == pytest.approx([(1 + 1 + 0.5) / 3, (1 + 1 + 0.5) / 3, 0])
    # without u0: a against b has no majority; without u0 on the third pair, b is the majority
    assert m.decided_U.tolist() == [1, 1, 2] and m.others_U.tolist() == [0, 0, 0]


def test_the_minority_is_found_with_enough_judgements_and_not_before():
    against = [("abbb" if q % 2 else "baaa") for q in range(12)]
    assert minority_users(judged(panel(against))).tolist() == [True, False, False, False]
    assert not minority_users(judged(panel(against[:4]))).any()  # 0 of 4 happens to one in sixteen


def test_people_who_flip_coins_are_rarely_called_a_minority():
    rng = np.random.default_rng(1)
    outcomes = ["".join(rng.choice(["a", "b"], 9)) for _ in range(60)]
    called = [
        minority_users(judged(panel(["".join(rng.permutation(list(o))) for o in outcomes]))).mean() for _ in range(60)
    ]
    assert np.mean(called) <= 0.07


def test_pairs_made_from_few_ratings_count_as_few():
    """One user's 100 pairs of 10 likes over 10 dislikes are 20 answers, 100 pairs of 200 texts are 100."""
    others, own_few, own_many = [], [], []
    for q, (i, j) in enumerate(itertools.product(range(10), range(10))):
        for u in "xyz":
            others += [(u, "p", f"like {i}", f"dislike {j}"), (u, f"p{q}", "a", "b")]
        wrong = i < 6  # against the others wherever one of six ratings comes in
        pick = (f"dislike {j}", f"like {i}") if wrong else (f"like {i}", f"dislike {j}")
        own_few.append(("u", "p", *pick))
        own_many.append(("u", f"p{q}", *(("b", "a") if wrong else ("a", "b"))))
    for own, sure in ((own_few, False), (own_many, True)):
        data = judged(own + others)
        m = minorities(votes(data))
        u = int(data.users.index(["u"])[0])
        assert (m.decided_U[u], m.others_U[u]) == (100, pytest.approx(0.4))
        assert (m.effective_U[u] > 80) == sure and m.minority_U[u] == sure


def test_room_is_an_interval_and_open_without_repeats():
    known = profile(judged(panel(["aab", "aba", "aaa"] * 10) + panel(["aab", "aba", "aaa"] * 10)))
    assert known.room.measured and known.room.at_ceiling is None
    unknown = profile(judged(panel(["aab", "aba", "aaa"])))
    assert (unknown.room.measured, unknown.room.ceiling_lo, unknown.room.ceiling_hi) == (False, 0.7, 1.0)
    given = room(0.8, unknown.consistency)
    assert (given.lo, given.hi) == (0, pytest.approx(0.2))
    assert given.at_ceiling == {0.7: None, 0.9: pytest.approx((0.1, 0.1)), 1.0: pytest.approx((0.2, 0.2))}
    assert room(np.float32(0.8), unknown.consistency).hi == pytest.approx(0.2)
    assert room(None, unknown.consistency).hi is None
    both = room((0.6, 0.7), unknown.consistency)
    assert both.at_ceiling[0.9] == pytest.approx((0.2, 0.3))


def test_balanced_camps_outvote_everybody_and_the_profile_says_so():
    """Two camps of two on every pair: each faces two of the other three."""
    p = profile(judged(panel(["aabb" if q % 2 else "bbaa" for q in range(20)])))
    facts = p.minorities.as_dict()
    assert (facts["n_minority"], facts["n_below_half"]) == (4, 0) and "opposed camps" in p.sentences()["minorities"]
    assert (p.room.population_lo, p.room.population_hi) == (0.5, 0.5)
    alone = profile(judged(panel(["abbb" if q % 2 else "baaa" for q in range(20)])))
    assert "opposed camps" not in alone.sentences()["minorities"]


def test_the_best_population_accuracy_lies_between_both_majorities():
    """Everyone takes "a" with probability 0.8, so nothing can beat 0.8 and a large panel's majority reaches it."""
    rng = np.random.default_rng(2)
    outcomes = ["".join("a" if x else "b" for x in rng.random(5) < 0.8) for _ in range(800)]
    r = profile(judged(panel(outcomes))).room
    assert r.population_lo < 0.8 < r.population_hi


ODD = {
    "one user": [("u", f"p{q}", "a", "b") for q in range(30)],
    "one judgement": [("u", "p", "a", "b")],
    "no shared pairs": [(f"u{q % 3}", f"p{q}", "a", "b") for q in range(30)],
    "one judgement per user": [(f"u{q}", f"p{q % 5}", "a", "b") for q in range(30)],
    "equal texts": [("u", "p", "a", "a"), ("v", "p", "a", "a")],
    "one contradicting himself": [("u", "p", "a", "b"), ("u", "p", "b", "a")],
    "unanimous": [(f"u{u}", f"p{q}", "a", "b") for u in range(6) for q in range(20)],
    "a user called __proto__": [("__proto__", "p", "a", "b"), ("1", "p", "b", "a"), (" ", "p", "a", "b")],
    "emoji and right-to-left": [(f"u{u}", "שלום", "👍🏽" * 50, "مرحبا") for u in range(4)],
}


@pytest.mark.parametrize("ties", [False, True], ids=["sides", "all ties"])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_odd_inputs_are_unknown_not_zero(name, ties):
    p = profile(judged(ODD[name], [True] * len(ODD[name]) if ties else None))
    text = json.dumps(p.as_dict(), allow_nan=False)
    assert json.loads(text)["sizes"]["judgements"] == len(ODD[name])
    assert all(p.sentences().values()) and p.rows() and "|" in p.table2()
    panels = p.disagreement
    for estimate in (panels.contested, panels.divergence, p.consistency.retest, p.minorities.others):
        assert (estimate.value is None) == (estimate.n == 0)
    if ties or name in ("one user", "one judgement", "no shared pairs", "equal texts"):
        assert panels.divergence.value is None and p.minorities.others.value is None
        assert p.room.lo is None and p.groups.groups is None and p.social_choice.cyclic_triads.value is None
        assert "unknown" in p.sentences()["disagreement"]


def test_no_judgement_at_all():
    data = judged(ODD["one user"]).take(np.array([], int))
    p = profile(data)
    assert p.sizes["users"] == 0 and p.disagreement.divergence.n == 0
    json.dumps(p.as_dict(), allow_nan=False)


def test_a_seed_gives_the_same_profile_and_row_order_does_not_matter():
    data = crowd("camps", 5, prompts=6)
    order = np.random.default_rng(0).permutation(len(data))
    first, again = profile(data, seed=3).as_dict(), profile(data, seed=3).as_dict()
    assert first == again
    moved = profile(data.take(order), seed=3).as_dict()
    assert moved["disagreement"] == first["disagreement"] and moved["consistency"] == first["consistency"]


def test_the_input_is_left_as_it_was():
    data = crowd("alike", 0, prompts=3)
    before = [getattr(data, name).copy() for name in ("user_N", "chosen_N", "rejected_N")]
    profile(data)
    for name, copy in zip(("user_N", "chosen_N", "rejected_N"), before, strict=True):
        assert (getattr(data, name) == copy).all()


def test_intervals():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Wilson (1927), by hand
    for n in np.linspace(1, 60, 300):
        for share in (0.0, 0.5, 1.0):
            lo, hi = wilson(share, n)
            assert 0 <= lo <= share <= hi <= 1
    assert proportion(np.array([])).value is None
    sure, unsure = np.full(50, 20.0), np.full(10, 100.0)
    rng = np.random.default_rng(0)
    spread = rng.binomial(100, rng.beta(2, 2, 10)).astype(float)
    alone = clustered_proportion(rng.binomial(20, 0.5, 50).astype(float), sure)
    together = clustered_proportion(spread, unsure)
    assert together.hi - together.lo > 2 * (alone.hi - alone.lo)  # as many trials, but users differ
    assert clustered_proportion(np.full(3, 5.0), np.full(3, 5.0)).lo < 0.5  # three users at 1 are not certainty


def test_p_values():
    null = np.arange(99.0)
    assert against_null(200.0, null, 5).p == pytest.approx(0.01) and against_null(-1.0, null, 5).p == 1
    assert against_null(-1.0, null, 5, larger_is_extreme=False).p == pytest.approx(0.01)
    assert against_null(1.0, np.ones(99), 5).p == 1  # a tie with the null is no evidence
    assert against_null(1.0, np.full(9, np.nan), 5).value is None and against_null(1.0, null, 0).value is None


def test_table2_row_is_ready_to_paste():
    data = from_columns(*(list(c) for c in zip(*panel(["aab"] * 12) + panel(["aab"] * 12), strict=True)))
    lines = profile(data).table2("mine").splitlines()
    assert lines[2] == "| mine | 72 | 3 | 100 % | 100 % | 0.00–1.00 | 1.000 |"
    assert len({line.count("|") for line in lines}) == 1
    assert profile(data).table2("mine", header=False) == lines[2]
