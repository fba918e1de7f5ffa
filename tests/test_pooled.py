"""``pooled``: how much judgements of the same texts weigh."""

from __future__ import annotations

import numpy as np
import pytest

from polypref.comparisons import Comparisons, from_columns
from polypref.learners import LEARNERS, validation
from polypref.learners.pooled import discounted
from polypref.learners.protocol import log_odds
from recovery_worlds import Normal, judged


def panel(pairs: int, judges: int, seed: int) -> tuple[Comparisons, Comparisons]:
    """Pairs whose texts have qualities that no feature shows, each judged by all judges alike; and new pairs."""
    rng = np.random.default_rng(seed)
    texts = [[f"{seed} {side} {at}" for at in range(pairs)] for side in "ab"]
    first = rng.random(pairs) < 0.5
    best, worst = (np.where(first == way, *map(np.array, texts)) for way in (True, False))
    ids = [f"j{judge}" for judge in range(judges) for _ in range(pairs)]
    rows = from_columns(ids, ["p"] * len(ids), list(np.tile(best, judges)), list(np.tile(worst, judges)))
    half = rows.user_N * 0 + np.tile(np.arange(pairs) < pairs // 2, judges)
    return rows.take(half == 1), rows.take(half == 0)


def test_the_design_effect() -> None:
    rows, _ = panel(60, 3, 0)
    assert discounted(rows, 0.0).weights_N.sum() == 90  # texts of one quality: all judgements count
    assert discounted(rows, 1e9).weights_N.sum() == pytest.approx(30)  # 30 pairs of texts of their own
    rho = 1 / (1 + np.pi**2 / 6)
    assert discounted(rows, 1.0).weights_N[0] == pytest.approx(1 / (1 + 2 * rho))
    own = judged(4, 25, lambda user_N, x_ND: x_ND[:, 0])
    assert (discounted(own, 1e9).weights_N == 1).all()  # all texts are judged once
    ring = from_columns(["a"] * 4, ["p"] * 4, list("abcd"), list("bcda"))
    assert discounted(ring, 1e9).weights_N.sum() == pytest.approx(3)  # the fourth difference follows from three


def test_what_no_feature_shows_is_not_learned_from_the_same_texts() -> None:
    losses = []
    for seed in range(12):
        train, test = panel(80, 5, seed)
        scorer = LEARNERS["pooled"].fit(train, encoder=Normal(), seed=0, valid=train.take(np.zeros(0, int)))
        losses.append(validation.log_loss(log_odds(scorer, test).value_Q, test))
    assert np.mean(losses) < np.log(2) + 0.02  # .77 with full weights


def test_a_few_pairs_that_many_judge_do_not_outweigh_the_others() -> None:
    ids = [*(f"j{judge}" for judge in range(20) for _ in range(5)), *["once"] * 30]
    chosen = [*(f"a{at}" for _ in range(20) for at in range(5)), *(f"c{at}" for at in range(30))]
    rejected = [*(f"b{at}" for _ in range(20) for at in range(5)), *(f"d{at}" for at in range(30))]
    rows = from_columns(ids, ["p"] * len(ids), chosen, rejected)
    weight_N = discounted(rows, 1e9).weights_N
    np.testing.assert_allclose(weight_N, np.where(np.arange(130) < 100, 1 / 20, 1.0))
