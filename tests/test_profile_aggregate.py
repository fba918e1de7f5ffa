"""Cycles, Borda, groups and regret: planted structure is found, its absence is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from polypref.data.derived import origin
from polypref.profiling import bradley_terry
from polypref.profiling.consistency import own_triads
from polypref.profiling.groups import axes_above, effective_number, groups, regret, spectrum
from polypref.profiling.minorities import minorities
from polypref.profiling.social_choice import social_choice
from polypref.profiling.tournament import MAX_RESPONSES, borda, count, count_triads, design
from polypref.profiling.votes import votes
from profile_people import crowd, judged


def test_triads_as_counted_one_by_one():
    rng = np.random.default_rng(0)
    beats = {(i, j): rng.random() < 0.5 for i, j in itertools.combinations(range(12), 2) if rng.random() < 0.7}
    up = np.array([i if won else j for (i, j), won in beats.items()])
    down = np.array([j if won else i for (i, j), won in beats.items()])
    arrows = set(zip(up.tolist(), down.tolist(), strict=True))
    closed = cyclic = 0
    for a, b, c in itertools.combinations(range(12), 3):
        if all((x, y) in beats for x, y in ((a, b), (b, c), (a, c))):
            closed += 1
            cyclic += {(a, b), (b, c), (c, a)} <= arrows or {(b, a), (c, b), (a, c)} <= arrows
    assert cyclic > 0
    assert [round(float(x.sum())) for x in count_triads(up, down, 12)] == [closed, cyclic]


def test_a_longer_cycle_without_a_triad_is_a_cycle():
    ring = [(u, "p", f"t{i}", f"t{(i + 1) % 5}") for i in range(5) for u in "xyz"]
    graph, wins = design(votes(judged(ring)))
    seen = count(graph, wins)
    assert (seen.triads, seen.cyclic_prompts, graph.cyclable_P.tolist()) == (0, 1, [True])
    three = [(u, "p", f"t{i}", f"t{(i + 1) % 3}") for i in range(3) for u in "xyz"]
    assert count(*design(votes(judged(three)))).cyclic_prompts == 1
    chain = [row for row in ring if row[2] != "t4"]
    graph, wins = design(votes(judged(chain)))
    assert np.isnan(count(graph, wins).cyclic_prompts) and graph.cyclable_P.tolist() == [False]


def test_borda_may_reject_the_majority_winner():
    """Three of five put a > b > c, two put b > c > a: a beats everyone, b has the higher Borda score."""
    rows = []
    for u, order in enumerate(["abc"] * 3 + ["bca"] * 2):
        rows += [(f"u{u}", "p", better, worse) for better, worse in itertools.combinations(order, 2)]
    data = judged(rows)
    graph, wins = design(votes(data))
    scores = dict(zip([data.responses.texts_R[int(r)] for r in range(3)], borda(graph, wins).tolist(), strict=True))
    assert scores == pytest.approx({"a": 0.6, "b": 0.7, "c": 0.2})
    seen = count(graph, wins)
    assert (seen.condorcet_prompts, seen.borda_winners, seen.majorities) == (1, 1, 3)
    assert seen.borda_pairs == pytest.approx(1 / 3) and seen.cyclic_triads == 0


def test_only_pairs_with_two_judges_and_prompts_with_three_responses_count():
    rows = [
        ("u", "p", "a", "b"),
        ("v", "p", "a", "b"),
        ("u", "p", "b", "c"),
        ("u", "q", "a", "b"),
        ("v", "q", "a", "b"),
    ]
    assert len(design(votes(judged(rows)))[0].a_E) == 0
    assert social_choice(votes(judged(rows))).cyclic_triads.value is None


def test_a_prompt_with_too_many_responses_is_cut_to_the_most_compared():
    n = MAX_RESPONSES + 20
    rows = [(u, "p", f"t{i}", f"t{j}") for i in range(n) for j in (i + 1, i + 2) if j < n for u in "xy"]
    graph, _ = design(votes(judged(rows)))
    assert len(graph.prompt_R) <= MAX_RESPONSES


def test_strengths_are_the_penalised_maximum():
    from scipy.optimize import minimize

    graph, wins = design(votes(crowd("alike", 1, prompts=4)))
    fitted = bradley_terry.fit(graph, wins)

    def loss(s):
        gap = s[graph.a_E] - s[graph.b_E]
        return -(wins * gap - graph.judges_E * np.logaddexp(0, gap)).sum() + (s**2).sum() / (2 * fitted.spread**2)

    best = minimize(loss, np.zeros(len(graph.prompt_R)), method="BFGS").x
    assert fitted.strength_R == pytest.approx(best, abs=0.02)


def test_null_draws_keep_the_panels_and_the_spread():
    graph, wins = design(votes(crowd("alike", 2, prompts=40, judges=9)))
    fitted = bradley_terry.fit(graph, wins)
    assert fitted.spread == pytest.approx(1, abs=0.25)  # the crowd's strengths are standard normal
    drawn = np.array(list(fitted.draws(50, np.random.default_rng(0))))
    assert drawn.shape == (50, len(wins)) and (drawn <= graph.judges_E).all()
    assert np.corrcoef(drawn.mean(axis=0), wins)[0, 1] > 0.9


def test_drawn_strengths_have_the_posterior_covariance():
    rows = [(f"u{u}", "p", "a", "b") for u in range(9)] + [(f"u{u}", "p", "a", "c") for u in range(2)]
    graph, wins = design(votes(judged(rows)))
    fitted = bradley_terry.fit(graph, wins)
    share = 1 / (1 + np.exp(fitted.strength_R[graph.b_E] - fitted.strength_R[graph.a_E]))
    precision = np.eye(3) / fitted.spread**2
    for a, b, weight in zip(graph.a_E, graph.b_E, graph.judges_E * share * (1 - share), strict=True):
        precision[[a, b], [a, b]] += weight
        precision[[a, b], [b, a]] -= weight
    drawn = fitted.strengths(40_000, np.random.default_rng(0))
    assert np.cov(drawn.T) == pytest.approx(np.linalg.inv(precision), rel=0.05)
    assert drawn.mean(axis=0) == pytest.approx(fitted.strength_R, abs=0.05)


def test_prompts_of_different_size_do_not_mix():
    """Each prompt's strengths are the same with and without the other prompts, at one spread."""
    small, large = crowd("alike", 3, prompts=6, responses=3), crowd("alike", 4, prompts=3, responses=9)
    rows = [
        (
            u,
            f"{tag} {d.responses.prompts[int(d.responses.prompt_R[c])]}",
            d.responses.texts_R[int(c)],
            d.responses.texts_R[int(r)],
        )
        for tag, d in (("small", small), ("large", large))
        for u, c, r in zip(d.users.ids.gather(d.user_N), d.chosen_N, d.rejected_N, strict=True)
    ]
    graph, wins = design(votes(judged(rows)))
    fitted = bradley_terry.fit(graph, wins)
    assert len({block.shape for block, _ in fitted.factors}) == 2
    for p in range(graph.n_prompts):
        own = graph.prompt_R == p
        # at the mode, what data and prior ask for cancels out within each prompt: strengths sum to zero
        assert fitted.strength_R[own].sum() == pytest.approx(0, abs=0.02)


def test_a_planted_paradox_is_found_and_homogeneous_people_show_none():
    circle = social_choice(votes(crowd("circle", 0)))
    assert circle.cyclic_triads.p == 0.01 and circle.cyclic_triads.excess > 0.1
    assert circle.borda_pairs.p == 0.01
    tests = [social_choice(votes(crowd("alike", seed)), seed) for seed in range(12)]
    assert np.mean([s.cyclic_triads.value > 0 for s in tests]) == 1  # cycles are there, by chance
    for name in ("cyclic_triads", "cyclic_prompts", "borda_pairs"):
        assert np.mean([getattr(s, name).p <= 0.05 for s in tests]) <= 0.1


def test_two_camps_are_two_groups_and_their_smaller_is_the_minority():
    data = crowd("camps", 0)
    seen = votes(data)
    found = groups(seen)
    assert found.groups == 2 and found.axes.p == 0.01 and found.strongest_axis.p == 0.01
    assert found.worst_decile_regret.p == 0.01 and found.worst_decile_regret.excess > 0.2
    turned = np.array([int(i[1:]) % 4 == 0 for i in data.users.ids])
    minority = minorities(seen).minority_U
    assert not minority[~turned].any() and minority[turned].mean() > 0.7


def test_interchangeable_users_are_one_group():
    found = [groups(votes(crowd("alike", seed)), seed=seed) for seed in range(12)]
    assert np.mean([g.groups == 1 for g in found]) >= 0.8
    for name in ("axes", "strongest_axis", "worst_decile_regret"):
        assert np.mean([getattr(g, name).p <= 0.05 for g in found]) <= 0.2


def test_disjoint_crowds_are_separate_parts():
    rows = []
    for part in range(3):
        d = crowd("camps", part, users=12, prompts=8)
        for u, c, r in zip(d.users.ids.gather(d.user_N), d.chosen_N, d.rejected_N, strict=True):
            prompt = d.responses.prompts[int(d.responses.prompt_R[c])]
            texts = d.responses.texts_R
            rows.append((f"{part}-{u}", f"{part}-{prompt}", texts[int(c)], texts[int(r)]))
    found = groups(votes(judged(rows)))
    assert [part.n_users for part in found.parts] == [12, 12, 12] and found.axes.n == 36


def test_dealing_votes_anew_keeps_every_panel():
    seen = votes(crowd("camps", 1)).decided
    dealt = seen.permuted(np.random.default_rng(0))
    assert (dealt.plus_Y == seen.plus_Y).all() and (dealt.user_V == seen.user_V).all()
    assert (dealt.sign_V != seen.sign_V).any()


def test_effective_number_and_parallel_analysis():
    assert effective_number(np.array([1.0, 1, 1, 0])) == pytest.approx(3)
    assert np.isnan(effective_number(np.zeros(3)))
    null = [np.array([2.0, 1, 1])] * 20
    assert [axes_above([np.array(s), *null]) for s in ([3.0, 1, 0], [3.0, 2, 2], [1.0, 5, 5])] == [1, 3, 0]


def test_two_opposed_camps_have_one_axis():
    camp = np.array([1.0] * 6 + [-1.0] * 6)
    found = spectrum(np.outer(camp, camp) * 1000, np.full((12, 12), 1000.0))
    assert effective_number(found) == pytest.approx(1, abs=1e-6) and found[0] == pytest.approx(12, rel=0.1)


def test_regret_of_few_pairs_is_shrunk():
    rows = [(f"u{u}", f"p{q}", "a", "b") for u in range(1, 8) for q in range(40)]
    rows += [("u0", f"p{q}", "b", "a") for q in range(10)]
    worst, _ = regret(votes(judged(rows)).decided, np.ones(8, bool))
    assert 0.3 < worst < 1


def test_own_cycles():
    circle = [("u", "p", "a", "b"), ("u", "p", "b", "c"), ("u", "p", "c", "a")]
    share = own_triads(votes(judged(circle)))
    assert (share.value, share.n) == (1, 1)
    line = [("u", f"p{q}", *pair) for q in range(300) for pair in (("a", "b"), ("b", "c"), ("a", "c"))]
    share = own_triads(votes(judged(line)))
    assert (share.value, share.n) == (0, 300)


def test_derived_judgements_are_looked_at_by_response():
    liked = [(f"u{u}", "p", f"like {i}", f"dislike {j}") for u in range(6) for i in range(4) for j in range(4)]
    seen = votes(judged(liked))
    stances = seen.stances()
    assert (seen.n_pairs, stances.n_pairs, len(stances.user_V)) == (16, 8, 48)
    assert sorted(stances.margin_Y.tolist()) == [-6] * 4 + [6] * 4
    assert groups(seen, derived=True).unit == "responses"


def test_pairs_made_from_ratings_of_interchangeable_users_are_no_groups():
    by_response = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        likes = rng.random((30, 16)) < rng.random(16)  # every user likes each text with the same probability
        rows = [
            (f"u{u}", "p", f"t{i}", f"t{j}")
            for u in range(30)
            for i, j in itertools.product(range(16), range(16))
            if likes[u, i] and not likes[u, j]
        ]
        seen = votes(judged(rows))
        assert origin(judged(rows)).derived
        by_response.append(groups(seen, derived=True, seed=seed))
    by_pair = groups(seen)
    assert by_pair.groups > 3 and by_pair.axes.p == 0.01  # what counting pairs as independent would claim
    for name in ("axes", "strongest_axis", "worst_decile_regret"):
        assert np.mean([getattr(g, name).p for g in by_response]) > 0.25
    assert np.mean([g.groups for g in by_response]) <= 1.5
