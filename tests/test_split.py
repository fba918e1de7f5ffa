"""Splits: what each rule keeps apart, planted leaks, cuts that stay put, the rule chosen from data."""

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.comparisons import Comparisons, from_columns
from polypref.data.derived import origin
from polypref.data.split import RULES, EmptySide, check_leaks, choose_rule, holdout, split
from polypref.errors import NotEnoughData, SettingsError

DATA = Path(__file__).parents[2] / "shared" / "data"

ABC = (("a", "b"), ("b", "c"), ("a", "c"))


def judged(n: int = 4000, users: int = 30, prompts: int = 20, texts: int = 12, seed: int = 0) -> Comparisons:
    """Judgements made one by one, with noise, over ``texts`` texts to each of ``prompts`` prompts."""
    rng = np.random.default_rng(seed)
    prompt, first = rng.integers(prompts, size=n), rng.integers(texts, size=n)
    second = (first + rng.integers(1, texts, size=n)) % texts
    swap = rng.random(n) < 1 / (1 + np.exp(0.3 * (second - first)))
    chosen, rejected = np.where(swap, second, first), np.where(swap, first, second)
    return from_columns(
        [f"u{u}" for u in rng.integers(users, size=n)],
        [f"prompt {p}" for p in prompt],
        [f"text {p}.{t}" for p, t in zip(prompt, chosen, strict=True)],
        [f"text {p}.{t}" for p, t in zip(prompt, rejected, strict=True)],
    )


def voted(users: int = 100, texts: int = 60, seed: int = 0) -> Comparisons:
    """Every text a user agrees with against a few that the user disagrees with, as the Polis set has it."""
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(users):
        agrees = rng.random(texts) < 0.5
        for c in rng.choice(np.flatnonzero(agrees), 5, replace=False):
            rows += [(f"u{u}", "p", f"t{c}", f"t{r}") for r in rng.choice(np.flatnonzero(~agrees), 5, replace=False)]
    return from_columns(*zip(*rows, strict=True))


def content(comparisons: Comparisons, rows: np.ndarray) -> set[tuple[str, str, str]]:
    texts, ids = comparisons.responses.texts_R.to_list(), comparisons.users.ids.to_list()
    cut = comparisons.take(rows)
    return {(ids[u], texts[c], texts[r]) for u, c, r in zip(cut.user_N, cut.chosen_N, cut.rejected_N, strict=True)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_parts_are_disjoint_and_leak_nothing(rule, seed):
    comparisons = judged()
    parts = split(comparisons, rule, seed)
    rows = np.concatenate([parts.train_rows, parts.valid_rows, parts.test_rows])
    assert len(np.unique(rows)) == len(rows) == len(comparisons) - parts.dropped
    assert min(len(parts.train_rows), len(parts.valid_rows), len(parts.test_rows)) > 50
    assert (parts.dropped > 0) == (rule in ("response", "own-response"))
    check_leaks(comparisons, parts)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("side", ["train_rows", "valid_rows"])
def test_planted_leak_is_seen(rule, side):
    comparisons = judged()
    parts = split(comparisons, rule, 0)
    planted = replace(parts, **{side: np.append(getattr(parts, side), parts.test_rows[7])})
    with pytest.raises(SettingsError, match=r"leak: .* of the test rows are also in the"):
        check_leaks(comparisons, planted)


def test_same_texts_told_the_other_way_round_are_one_pair():
    comparisons = judged()
    both = replace(
        comparisons,
        user_N=np.tile(comparisons.user_N, 2),
        chosen_N=np.concatenate([comparisons.chosen_N, comparisons.rejected_N]),
        rejected_N=np.concatenate([comparisons.rejected_N, comparisons.chosen_N]),
    )
    n = len(comparisons)
    _, held = holdout(both, "pair", 0, 0.2)
    assert set(held[held < n]) == set(held[held >= n] - n)


def test_one_text_under_two_prompts_is_one_text():
    comparisons = from_columns(
        ["u"] * 200,
        [f"p{i % 2}" for i in range(200)],
        [f"t{i // 2}" for i in range(200)],
        [f"s{i // 2}" for i in range(200)],
    )
    parts = split(comparisons, "response", 3, test_share=0.5, valid_share=0.5)
    crossing = replace(parts, train_rows=np.append(parts.train_rows, parts.test_rows[0] ^ 1))
    with pytest.raises(SettingsError, match="leak"):
        check_leaks(comparisons, crossing)


@pytest.mark.parametrize("rule", RULES)
def test_order_of_rows_and_added_data_move_nothing(rule):
    comparisons = judged()
    _, held = holdout(comparisons, rule, 5, 0.25)
    shuffled = comparisons.take(np.random.default_rng(0).permutation(len(comparisons)))
    assert content(comparisons, held) == content(shuffled, holdout(shuffled, rule, 5, 0.25)[1])
    first = np.arange(len(comparisons) // 2)
    _, held_before = holdout(comparisons.take(first), rule, 5, 0.25)
    assert set(held_before) == set(held[held < len(first)])


@pytest.mark.parametrize("rule", RULES)
def test_seeds_differ_and_repeat(rule):
    comparisons = judged()
    cuts = [split(comparisons, rule, seed).test_rows for seed in (0, 1, 0)]
    assert np.array_equal(cuts[0], cuts[2])
    assert not np.array_equal(cuts[0], cuts[1])


def test_share_is_kept_on_many_pairs():
    comparisons = judged(n=6000)
    pairs = len(np.unique(comparisons.pair_key_N))
    held_pairs = len(np.unique(comparisons.pair_key_N[holdout(comparisons, "pair", 0, 0.2)[1]]))
    assert abs(held_pairs / pairs - 0.2) < 4 * np.sqrt(0.2 * 0.8 / pairs)


def test_few_prompts_always_leave_a_test_side():
    comparisons = judged(prompts=3)
    for seed in range(20):
        kept, held = holdout(comparisons, "prompt", seed, 0.05)
        assert len(kept) and len(held)


def test_what_cannot_be_split_says_so():
    comparisons = judged(n=50, prompts=1)
    with pytest.raises(NotEnoughData, match="cannot be split by prompt"):
        holdout(comparisons, "prompt", 0, 0.2)
    with pytest.raises(SettingsError, match=r"unknown split 'pairs'\. Did you mean 'pair'"):
        holdout(comparisons, "pairs", 0, 0.2)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"share of 1\.5"):
        holdout(comparisons, "pair", 0, 1.5)


def test_loops_and_cycles_counted_by_hand():
    triangle = [("u", "p", "a", "b"), ("u", "p", "b", "c"), ("u", "p", "a", "c")]
    cycle = [("v", "p", "a", "b"), ("v", "p", "b", "c"), ("v", "p", "c", "a")]
    both_ways = [("w", "p", "a", "b"), ("w", "p", "b", "a")]
    for rows, expected in ((triangle, (1, 0)), (cycle, (1, 3)), ([*triangle, *cycle, *both_ways], (2, 3))):
        found = origin(from_columns(*zip(*rows, strict=True)))
        assert (found.loops, found.circular) == expected


def test_votes_are_split_by_response_and_judgements_by_pair():
    rule, why = choose_rule(voted())
    assert rule == "response"
    assert "in all of their pairs or in none; test texts never occur in training." in why
    assert choose_rule(judged())[0] == "pair"


@pytest.mark.parametrize(("shape", "expected"), [("rankings", "response"), ("ratings", "response"), ("", "prompt")])
def test_pairs_of_lists_are_not_split_by_pair(shape, expected):
    """Too few loops to tell from the judgements alone: they are treated as what they may be."""
    rows = [(f"u{u}", f"p{k}", f"{k}.{a}", f"{k}.{b}") for u in range(4) for k in range(12) for a, b in ABC]
    comparisons = replace(from_columns(*zip(*rows, strict=True)), lists=shape)
    rule, why = choose_rule(comparisons)
    assert rule == expected
    assert why.startswith(f"pairs were made from {shape};" if shape else "pairs may be made from ratings, rankings or")
    assert shape or "since users had 48 chances to contradict themselves and never did" in why
    found = origin(comparisons)
    assert (found.derived, found.dependent, found.worth) == (True if shape else None, True, 96)


def test_where_there_are_too_few_texts_each_user_is_tested_on_texts_of_their_own():
    rows = [
        (f"u{u}", "p", f"t{a}", f"t{b}")
        for u in range(9)
        for a in range(11)
        for b in range(11)
        if a * 7 % 11 > b * 7 % 11
    ]
    rule, why = choose_rule(replace(from_columns(*zip(*rows, strict=True)), lists="ratings"))
    assert rule == "own-response"
    said = "nobody is tested on texts that they judged in training; others may have judged them there."
    assert why == f"pairs were made from ratings; {said}"


def test_what_the_user_says_goes_before_what_the_judgements_look_like():
    assert origin(voted()).derived
    assert origin(replace(voted(), lists="pairs")).dependent is False
    assert "one by one, as you said (users had" in choose_rule(replace(judged(), lists="pairs"))[1]


def test_lists_of_two_are_judgements_of_their_own():
    rows = [(f"u{u}", f"p{k}", f"{k}.a", f"{k}.b") for u in range(4) for k in range(12)]
    rule, why = choose_rule(replace(from_columns(*zip(*rows, strict=True)), lists="ratings"))
    assert rule == "pair"
    assert "ratings of two responses each" in why


def test_texts_that_hardly_ever_return_leave_nothing_to_follow():
    rows = [(f"u{u}", f"p{k}", f"{k}.{u}.a", f"{k}.{u}.b") for u in range(4) for k in range(12)]
    comparisons = from_columns(*zip(*rows, strict=True))
    assert choose_rule(comparisons)[0] == "pair"
    assert "one by one, since no user judged a text in two pairs" in choose_rule(comparisons)[1]
    returning = from_columns(*zip(*rows, *[("u0", "p0", "0.0.a", f"more {i}") for i in range(6)], strict=True))
    assert choose_rule(returning)[0] != "pair"
    assert origin(returning).returning == pytest.approx(7 / 54)


def test_cycles_are_the_evidence_for_judgements_one_by_one():
    rule, why = choose_rule(judged())
    assert rule == "pair"
    assert re.search(r"one by one, since users had [\d,]+ chances to .*, and [1-9][\d,]* judgements form cycles", why)


def test_few_texts_judged_very_often_are_split_by_response():
    rule, why = choose_rule(judged(n=4000, prompts=2, texts=20))
    assert rule == "response"
    assert "only 40 texts" in why


@st.composite
def tiny(draw):
    """2 to 30 judgements by 1 to 5 people of 2 to 12 texts: made from ratings, or anything."""
    texts, users, prompts = draw(st.integers(2, 12)), draw(st.integers(1, 5)), draw(st.sampled_from([1, 1, 3]))
    ratings = draw(st.none() | st.lists(st.lists(st.integers(1, 7), min_size=12, max_size=12), min_size=5, max_size=5))
    rows = []
    for _ in range(draw(st.integers(2, 30))):
        user, a, b = (draw(st.integers(0, most - 1)) for most in (users, texts, texts))
        if a != b:
            a, b = (b, a) if ratings and ratings[user][a] < ratings[user][b] else (a, b)
            prompt = draw(st.integers(0, prompts - 1))
            rows.append((f"u{user}", f"p{prompt}", f"text {a}", f"text {b}"))
    rows = rows or [("u0", "p", "text 0", "text 1")]
    return rows, draw(st.sampled_from(["", "ratings", "rankings", "pairs"]))


def more(rows, users=5, texts=24):
    """Every user of a few rates many more texts under another prompt, pair by pair."""
    added = [(f"u{u}", "q", f"new {a}", f"new {b}") for u in range(users) for a in range(texts) for b in range(a)]
    return [*rows, *added]


@given(tiny())
@settings(max_examples=150, deadline=None)
def test_the_split_of_tiny_data_is_honest_or_refused_in_a_line_that_helps(data):
    rows, lists = data

    def chosen(rows):
        comparisons = replace(from_columns(*zip(*rows, strict=True)), lists=lists)
        rule, why = choose_rule(comparisons, lambda rule: [split(comparisons, rule, seed) for seed in range(5)])
        for seed in range(5):
            check_leaks(comparisons, split(comparisons, rule, seed))
        assert rule != "pair" or not origin(comparisons).dependent
        assert "\n" not in why and why.endswith(".")

    try:
        chosen(rows)
    except EmptySide as refused:
        text = str(refused)
        assert "\n" not in text and "--split" not in text
        assert re.search(r"Give judgements of more (texts|pairs)", text)
        chosen(more(rows))


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("llmfao", "pair"), ("ukpconvarg1", "pair"), ("pandalm", "pair"), ("polis_opendata", "response")],
)
def test_rule_chosen_on_real_data(name, expected):
    rows = pl.read_parquet(DATA / f"{name}.parquet", n_rows=60_000)
    comparisons = from_columns(rows["user_id"], rows["prompt"], rows["chosen"], rows["rejected"])
    rule, why = choose_rule(comparisons)
    assert rule == expected, why


def answers(texts: int, prompts: int, own: bool, made: str | None, seed: int) -> Comparisons:
    """Ten people rank ``texts`` texts to each prompt: the prompt's own ones, or the same under all."""
    rng, rows = np.random.default_rng(seed), []
    for user, prompt in np.ndindex(10, prompts):
        order = rng.permutation(texts)[:4]
        name = f"{prompt}." if own else ""
        rows += [(f"u{user}", f"p{prompt}", f"{name}{a}", f"{name}{b}") for a, b in combinations(order, 2)]
    return replace(from_columns(*zip(*rows, strict=True)), lists=made)


@pytest.mark.parametrize("made", [None, "ratings", "pairs"])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("texts", "prompts"), [(4, 1), (6, 12), (30, 3), (8, 40)])
def test_texts_on_both_sides_are_said(texts, prompts, own, made) -> None:
    """Whatever rule is chosen, or fallen back to: no prompt, text or person's text is silently on both sides."""
    data = answers(texts, prompts, own, made, seed=texts)
    try:
        rule, why = choose_rule(data)
    except EmptySide:
        return
    parts = split(data, rule, 0)
    sides = data.take(np.concatenate([parts.train_rows, parts.valid_rows])), data.take(parts.test_rows)
    learned, tested = ({*text_of(side, "chosen_N"), *text_of(side, "rejected_N")} for side in sides)
    if learned & tested:
        assert "may" in why.rsplit("; ", 1)[-1], (rule, why)
    assert made != "ratings" or rule != "pair"


def text_of(comparisons: Comparisons, side: str) -> list[str]:
    return comparisons.responses.texts_R.gather(getattr(comparisons, side)).to_list()
