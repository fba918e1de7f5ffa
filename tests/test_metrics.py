"""Metrics against their definitions spelt out, and their derivatives against finite differences and the jackknife."""

from dataclasses import replace

import numpy as np
import pytest

from polypref.stats.cluster_robust import difference
from polypref.stats.metrics import METRICS, MIN_DECILE_ROWS, HeldOut, correctness, log_losses


def some_rows(
    n: int = 600, users: int = 25, pairs: int = 80, seeds: int = 2, seed: int = 0
) -> tuple[HeldOut, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = HeldOut(
        seed_H=rng.integers(seeds, size=n),
        user_H=rng.integers(users, size=n),
        pair_H=rng.integers(pairs, size=n),
        tie_H=rng.random(n) < 0.1,
        weight_H=rng.choice([0.5, 1.0, 2.0], n),
        judgement_H=np.arange(n),
        cohort_H={},
        n_seeds=seeds,
        n_users=users,
        n_pairs=pairs,
    )
    margin_H = rng.normal(0.5, 1.5, n)
    margin_H[:20] = 0.0
    return rows, margin_H


def everyone(rows: HeldOut) -> np.ndarray:
    return np.ones(len(rows), bool)


def spelt_out(name: str, rows: HeldOut, margin_H: np.ndarray) -> float:
    """The metric with loops, from its words alone."""
    values = []
    for s in range(rows.n_seeds):
        here = [
            (int(u), bool(tie), float(w), float(m))
            for seed, u, tie, w, m in zip(rows.seed_H, rows.user_H, rows.tie_H, rows.weight_H, margin_H, strict=True)
            if seed == s
        ]
        decided = [(u, w, 1.0 if m > 0 else 0.5 if m == 0 else 0.0) for u, tie, w, m in here if not tie]
        if name == "accuracy_micro":
            values.append(sum(w * a for _, w, a in decided) / sum(w for _, w, _ in decided))
        elif name in ("accuracy_macro", "accuracy_worst_decile"):
            own = {}
            for u, w, a in decided:
                own.setdefault(u, []).append((w, a))
            if name == "accuracy_macro":
                values.append(np.mean([sum(w * a for w, a in r) / sum(w for w, _ in r) for r in own.values()]))
            else:
                means = sorted(
                    sum(w * a for w, a in r) / sum(w for w, _ in r) for r in own.values() if len(r) >= MIN_DECILE_ROWS
                )
                k = len(means) / 10
                parts = [min(1.0, max(0.0, k - i)) for i in range(len(means))]
                values.append(sum(p * m for p, m in zip(parts, means, strict=True)) / k)
        elif name == "calibration_error":  # both sides of every judgement, twenty bins
            bins = {}
            for _, tie, w, m in here:
                for margin, won in ((m, 1.0), (-m, 0.0)):
                    p, label = 1 / (1 + np.exp(-margin)), 0.5 if tie or m == 0 else won
                    side = (p > 0.5, min(int(abs(p - 0.5) * 20), 9)) if m else ("even", won)
                    bins.setdefault(side, []).append(w * (label - p))
            values.append(sum(abs(sum(b)) for b in bins.values()) / sum(2 * w for _, _, w, _ in here))
        else:
            losses = []
            for _, tie, w, m in here:
                p, label = 1 / (1 + np.exp(-m)), 0.5 if tie else 1.0
                loss = -(label * np.log(p) + (1 - label) * np.log(1 - p)) if name == "log_loss" else (label - p) ** 2
                losses.append((w, loss))
            values.append(sum(w * x for w, x in losses) / sum(w for w, _ in losses))
    return float(np.mean(values))


@pytest.mark.parametrize("name", METRICS)
def test_value_is_the_definition(name):
    rows, margin_H = some_rows()
    measured = METRICS[name](rows, everyone(rows), margin_H)
    assert measured.value == pytest.approx(spelt_out(name, rows, margin_H), abs=1e-9)


@pytest.mark.parametrize("name", ["accuracy_micro", "log_loss", "brier", "calibration_error"])
def test_what_a_row_adds_is_the_finite_difference(name):
    """Within one seed; over several the deviation is from the mean of them all."""
    rows, margin_H = some_rows(seeds=1)
    measured = METRICS[name](rows, everyone(rows), margin_H)
    h = 1e-6
    moved = 0
    for t in range(0, len(rows), 7):
        up = rows.weight_H.copy()
        up[t] *= 1 + h
        changed = METRICS[name](replace(rows, weight_H=up), everyone(rows), margin_H).value
        assert (changed - measured.value) / h == pytest.approx(measured.row_H[t], abs=2e-6)
        moved += measured.row_H[t] != 0
    assert moved >= 3


@pytest.mark.parametrize("name", METRICS)
def test_shares_say_how_much_of_the_value_rests_on_each_row_and_user(name):
    rows, margin_H = some_rows(n=3000, users=40)
    measured = METRICS[name](rows, everyone(rows), margin_H)
    assert measured.share_H.sum() == pytest.approx(1)
    assert measured.share_U.sum() == pytest.approx(1)
    assert measured.row_H.sum() == pytest.approx(0, abs=1e-12)
    assert measured.user_U.sum() == pytest.approx(0, abs=1e-12)
    if name.startswith("accuracy"):
        right_H = correctness(margin_H)
        assert measured.share_H @ right_H == pytest.approx(measured.value)
        np.testing.assert_allclose(measured.row_H, measured.share_H * (right_H - measured.value), atol=1e-15)
    if name in ("accuracy_micro", "accuracy_macro"):
        np.testing.assert_allclose(np.bincount(rows.user_H, measured.row_H, rows.n_users), measured.user_U, atol=1e-15)


@pytest.mark.parametrize("name", ["accuracy_micro", "accuracy_macro", "log_loss", "brier"])
def test_user_derivatives_agree_with_leaving_the_user_out(name):
    rows, margin_H = some_rows(seeds=1)
    measured = METRICS[name](rows, everyone(rows), margin_H)
    assert measured.user_U.sum() == pytest.approx(0, abs=1e-12)
    left_out = np.array([METRICS[name](rows, rows.user_H != u, margin_H).value for u in range(rows.n_users)])
    shift = measured.value - left_out
    assert np.corrcoef(shift, measured.user_U)[0, 1] > 0.995
    assert np.ptp(shift) > 0.001


def test_worst_decile_user_derivatives_sum_to_zero_and_spare_the_others():
    rows, margin_H = some_rows(n=3000, users=40, seeds=1)
    measured = METRICS["accuracy_worst_decile"](rows, everyone(rows), margin_H)
    assert measured.user_U.sum() == pytest.approx(0, abs=1e-12)
    touched = np.unique(rows.user_H[measured.row_H != 0])
    assert 3 <= len(touched) <= 4


@pytest.mark.parametrize(("users", "known"), [(19, False), (20, True)])
def test_a_tenth_of_fewer_than_twenty_users_is_nobody(users, known):
    """Below, the figure would be one person's luck; it is absent, and says how many users there were."""
    rows, margin_H = some_rows(n=3000, users=users, seeds=2)
    worst = METRICS["accuracy_worst_decile"](rows, everyone(rows), margin_H)
    assert (worst.value is not None) == known
    assert worst.n_users == users
    assert np.any(worst.row_H != 0) == np.any(worst.user_U != 0) == known
    assert METRICS["accuracy_macro"](rows, everyone(rows), margin_H).value is not None
    gain = difference(worst, worst)
    assert (gain.value is not None, gain.n_users) == (known, users)


def test_a_seed_with_too_few_users_takes_no_part_in_the_worst_decile():
    rows, margin_H = some_rows(n=4000, users=24, seeds=2)
    few = (rows.seed_H == 0) | (rows.user_H < 10)
    both = METRICS["accuracy_worst_decile"](rows, few, margin_H)
    first = METRICS["accuracy_worst_decile"](rows, rows.seed_H == 0, margin_H)
    assert (both.value, both.n_users, both.n_judgements) == (first.value, first.n_users, first.n_judgements)


def test_equal_scores_are_one_half_and_ties_count_only_in_losses():
    assert correctness(np.array([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]
    losses = log_losses(np.zeros(2), np.array([False, True]))
    assert losses == pytest.approx([np.log(2)] * 2)
    sides = log_losses(np.array([1.3, -1.3]), np.array([True, True]))
    assert sides[0] == pytest.approx(sides[1])
    rows, margin_H = some_rows()
    flipped = np.where(rows.tie_H, -margin_H, margin_H)
    for name in ("accuracy_micro", "accuracy_macro", "accuracy_worst_decile"):
        before, after = (METRICS[name](rows, everyone(rows), m).value for m in (margin_H, flipped))
        assert before == after
    assert METRICS["accuracy_micro"](rows, everyone(rows), margin_H).n_judgements == int((~rows.tie_H).sum())
    assert METRICS["log_loss"](rows, everyone(rows), margin_H).n_judgements == len(rows)


@pytest.mark.parametrize("name", METRICS)
def test_empty_cohort_is_absent_not_zero(name):
    rows, margin_H = some_rows()
    measured = METRICS[name](rows, np.zeros(len(rows), bool), margin_H)
    assert (measured.value, measured.n_users, measured.n_judgements) == (None, 0, 0)


def test_perfectly_calibrated_margins_have_little_calibration_error():
    rng = np.random.default_rng(1)
    rows, _ = some_rows(n=40_000, seeds=1)
    rows = replace(rows, tie_H=np.zeros(len(rows), bool), weight_H=np.ones(len(rows)))
    truth = rng.normal(0, 1.5, len(rows))
    margin_H = np.where(rng.random(len(rows)) < 1 / (1 + np.exp(-truth)), truth, -truth)
    good = METRICS["calibration_error"](rows, everyone(rows), margin_H).value
    overconfident = METRICS["calibration_error"](rows, everyone(rows), 3 * margin_H).value
    assert good < 0.01 < 0.08 < overconfident


def test_huge_margins_stay_finite():
    rows, _ = some_rows(n=400, seeds=1)
    margin_H = np.where(np.arange(400) % 2, 1e6, -1e6).astype(float)
    assert all(np.isfinite(metric(rows, everyone(rows), margin_H).value) for metric in METRICS.values())
