"""Contexts and targets: what learners that read a user's own judgements practise on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from contract_cases import permuted, small
from polypref.comparisons import Comparisons
from polypref.learners.canonical_order import Numbering
from polypref.learners.training.episodes import Judged, Sizes, contexts, parts, practice


def judged(c: Comparisons) -> Judged:
    return Judged.of(c, Numbering.of(c))


def test_ties_repeats_and_contradictions_are_merged():
    c = small().take(np.array([0, 1, 2, 0, 1]))
    turned = np.array([False, False, False, False, True])
    c = replace(
        c,
        chosen_N=np.where(turned, c.rejected_N, c.chosen_N),
        rejected_N=np.where(turned, c.chosen_N, c.rejected_N),
        tie_N=np.array([False, False, True, False, False]),
    )
    found = judged(c)
    assert len(found) == 3
    item_N = found.item_N
    assert item_N[0] == item_N[3] and item_N[1] == item_N[4]
    assert found.label_I[item_N[0]] in (0.0, 1.0)  # said twice
    assert found.label_I[item_N[1]] == found.label_I[item_N[2]] == 0.5  # said both ways; a tie
    np.testing.assert_allclose(found.weight_I[item_N[:3]], np.array([2.0, 2.0, 1.0]) * 3 / 5)
    np.testing.assert_array_equal(found.spread(np.ones(3))[[1, 4]], [1, -1] if not found.turned_N[1] else [-1, 1])


def test_neither_row_order_nor_labels_decide_what_is_practised():
    sizes = Sizes(6, 4, 40)
    one, other, turned = judged(small()), judged(permuted(small())), judged(small().swapped())
    for name in ("user_I", "first_I", "second_I", "label_I", "weight_I"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(turned.label_I, 1.0 - one.label_I)
    for _, a, b in zip(range(5), practice(one, sizes, 0), practice(turned, sizes, 0), strict=False):
        np.testing.assert_array_equal(a.context.first, b.context.first)
        np.testing.assert_array_equal(a.target.second, b.target.second)


def held(episodes) -> tuple[list[set], list[set]]:
    """Pairs in each context and among its targets."""
    found = []
    for part in (episodes.context, episodes.target):
        here = part.weight > 0
        rows = zip(part.first, part.second, here, strict=True)
        found.append([set(zip(a[h].tolist(), b[h].tolist(), strict=True)) for a, b, h in rows])
    return found[0], found[1]


def test_a_context_never_holds_its_targets_pairs():
    c = small().take(np.arange(len(small())).repeat(2))  # every judgement twice
    whole, sizes = judged(c), Sizes(6, 4, 60)
    counts, empty, seen = [], 0, 0
    for _, episodes in zip(range(60), practice(whole, sizes, 0), strict=False):
        for context, target in zip(*held(episodes), strict=True):
            assert target and not context & target
            assert len(context) <= 6
            counts.append(len(context))
            empty += not context
            seen += len(context) + len(target)
    assert set(counts) == set(range(7))  # sizes differ, none at all among them
    assert empty > 0 and seen > len(whole)


def test_one_pass_deals_everything_once():
    whole, dealt = judged(small()), 0
    walk = practice(whole, Sizes(6, 4, 60), 0)
    while dealt < len(whole):
        dealt += sum(len(a) + len(b) for a, b in zip(*held(next(walk)), strict=True))
    assert dealt == len(whole)


def test_a_planted_leak_would_be_seen():
    episodes = next(practice(judged(small()), Sizes(6, 4, 60), 0))
    context, target = held(replace(episodes, context=episodes.target))
    assert all(a & b for a, b in zip(context, target, strict=True))


def test_parts_are_equal_and_capped():
    start_E, length_E = parts(np.repeat([0, 1, 2], [10, 1, 4]), 4)
    assert start_E.tolist() == [0, 4, 7, 10, 11]
    assert length_E.tolist() == [4, 3, 3, 1, 4]
    assert [len(found) for found in parts(np.zeros(0, np.int32), 4)] == [0, 0]


def test_contexts_are_capped_and_chosen_by_content():
    one, other = judged(small()), judged(permuted(small()))
    item_I, start_U, users = contexts(one, 5, 0)
    assert np.bincount(one.user_I[item_I]).tolist() == [5] * len(users)
    assert (one.user_I[item_I[start_U]] == users).all()
    np.testing.assert_array_equal(item_I, contexts(other, 5, 0)[0])
    assert (item_I != contexts(one, 5, 1)[0]).any()


def test_pairs_known_already_are_left_out():
    c = small()
    asked = judged(c.take(np.arange(0, len(c), 2)))
    rest = Judged.of(c, Numbering.of(c))
    numbers = Numbering.of(c)
    asked = Judged.of(c.take(np.arange(0, len(c), 2)), numbers)
    rest = Judged.of(c, numbers).without(asked)
    assert len(rest) == len(Judged.of(c, numbers)) - len(asked)
    codes = [set(zip(j.user_I, j.first_I, j.second_I, strict=True)) for j in (rest, asked)]
    assert not codes[0] & codes[1]
