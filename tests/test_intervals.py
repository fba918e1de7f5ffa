"""Intervals: coverage by simulation where the truth is known, pairing, few clusters; many tests at once."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from polypref.stats.cluster_robust import Clusters, Interval, benjamini_hochberg, difference, paired_p, unseen_share
from polypref.stats.metrics import METRICS, HeldOut, Measured


def crossed(
    rng: np.random.Generator, users: int, pairs: int, n: int, sd: tuple[float, float]
) -> tuple[HeldOut, np.ndarray]:
    """Rows of users and pairs with user and pair effects (sd) on the margin."""
    user_H, pair_H = rng.integers(users, size=n), rng.integers(pairs, size=n)
    margin_H = (
        0.7 + sd[0] * rng.normal(size=users)[user_H] + sd[1] * rng.normal(size=pairs)[pair_H] + rng.normal(size=n)
    )
    return rows_of(user_H, pair_H, users, pairs), margin_H


def rows_of(user_H, pair_H, users: int, pairs: int) -> HeldOut:
    n = len(user_H)
    return HeldOut(
        np.zeros(n, int),
        user_H,
        pair_H,
        np.zeros(n, bool),
        np.ones(n),
        np.arange(n),
        {},
        n_seeds=1,
        n_users=users,
        n_pairs=pairs,
    )


def measure(name: str, rows: HeldOut, margin_H: np.ndarray) -> Measured:
    return METRICS[name](rows, np.ones(len(rows), bool), margin_H)


@pytest.mark.parametrize("sd", [(0.0, 0.0), (0.7, 0.0), (0.0, 0.7), (0.6, 0.6)])
def test_coverage_of_accuracy_intervals(sd):
    """The nominal 95 % hold under every mixture of user, pair and single-judgement noise, not by being too wide."""
    from scipy.stats import norm

    rng = np.random.default_rng(int(10 * sd[0] + 100 * sd[1]))
    truth = norm.cdf(0.7 / np.sqrt(1 + sd[0] ** 2 + sd[1] ** 2))
    hit = {"accuracy_micro": [], "accuracy_macro": []}
    for _ in range(250):
        rows, margin_H = crossed(rng, users=40, pairs=60, n=900, sd=sd)
        clusters = Clusters(rows)
        for name, hits in hit.items():
            interval = clusters.intervals([measure(name, rows, margin_H)], (0, 1))[0]
            hits.append(interval.lo <= truth <= interval.hi)
    for name, hits in hit.items():
        assert 0.90 <= np.mean(hits) <= 0.99, (name, np.mean(hits))


def test_coverage_of_a_paired_difference():
    """Two scorers that share users and pairs: no difference in truth, and about 5 % of intervals miss zero."""
    rng = np.random.default_rng(5)
    misses, widths, loose = [], [], []
    for _ in range(250):
        rows, margin_H = crossed(rng, users=30, pairs=50, n=700, sd=(0.8, 0.8))
        one, other = (measure("accuracy_micro", rows, margin_H + 0.3 * rng.normal(size=700)) for _ in range(2))
        clusters = Clusters(rows)
        interval, alone = clusters.intervals([difference(one, other), one])
        misses.append(not interval.lo <= 0 <= interval.hi)
        widths.append(interval.hi - interval.lo)
        loose.append(alone.hi - alone.lo)
    assert 0.01 <= np.mean(misses) <= 0.10
    assert np.mean(widths) < 0.6 * np.mean(loose)


def test_coverage_where_texts_are_misjudged_as_a_whole():
    """Every pair of a text shares its error: pairs as independent would miss the truth far more often than 5 %."""
    rng = np.random.default_rng(8)
    texts = 40
    ends_P2 = np.stack(np.triu_indices(texts, 1), axis=1)
    misses, naive = [], []
    for _ in range(200):
        user_H, pair_H = rng.integers(30, size=2000), rng.integers(len(ends_P2), size=2000)
        rows = rows_of(user_H, pair_H, 30, len(ends_P2))
        off_R = rng.normal(size=(2, texts))  # how far each of two learners is off on each text
        one, other = (
            measure("accuracy_micro", rows, 0.7 + (off[ends_P2[:, 0]] - off[ends_P2[:, 1]])[pair_H]) for off in off_R
        )
        for kind, found in ((replace(rows, text_Y2=ends_P2), misses), (rows, naive)):
            interval = Clusters(kind).intervals([difference(one, other)], (-1, 1))[0]
            found.append(not interval.lo <= 0 <= interval.hi)
    assert 0.005 <= np.mean(misses) <= 0.10
    assert np.mean(naive) > 0.2


def test_cell_noise_alone_gives_the_binomial_interval():
    """Where users and pairs do not matter the standard error is the textbook's; product weights give 1.7 times it."""
    rng = np.random.default_rng(2)
    ratio = []
    for _ in range(30):
        rows, margin_H = crossed(rng, users=200, pairs=300, n=2000, sd=(0.0, 0.0))
        measured = measure("accuracy_micro", rows, margin_H)
        textbook = np.sqrt(measured.value * (1 - measured.value) / 2000)
        ratio.append(Clusters(rows).intervals([measured])[0].se / textbook)
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    ("sd", "users", "pairs", "largest"),
    [((3.0, 0.0), 12, 600, "users"), ((0.0, 3.0), 300, 25, "pairs"), ((0.0, 0.0), 60, 600, "judgements")],
)
def test_the_largest_part_of_the_variance_is_what_is_short(sd, users, pairs, largest):
    """Few people who differ, few pairs that differ, or neither: then only the judgements are few."""
    rows, margin_H = crossed(np.random.default_rng(6), users, pairs, n=1200, sd=sd)
    parts = Clusters(rows).intervals([measure("accuracy_micro", rows, margin_H)])[0].parts
    assert parts is not None
    assert sum(parts.values()) == pytest.approx(1.0, abs=1e-3)
    assert parts[largest] > 0.6


def test_no_part_comes_from_users_that_are_not_redrawn():
    rows, margin_H = crossed(np.random.default_rng(6), users=6, pairs=300, n=600, sd=(3.0, 0.0))
    parts = Clusters(rows).intervals([measure("accuracy_micro", rows, margin_H)])[0].parts
    assert parts is not None and parts["users"] == 0.0


def test_repeating_rows_over_seeds_does_not_narrow():
    rng = np.random.default_rng(3)
    rows, margin_H = crossed(rng, users=40, pairs=60, n=800, sd=(0.3, 0.3))
    repeated = HeldOut(
        np.repeat(np.arange(5), 800),
        np.tile(rows.user_H, 5),
        np.tile(rows.pair_H, 5),
        np.zeros(4000, bool),
        np.ones(4000),
        np.tile(np.arange(800), 5),
        {},
        n_seeds=5,
        n_users=40,
        n_pairs=60,
    )
    one = Clusters(rows).intervals([measure("accuracy_micro", rows, margin_H)])[0]
    five = Clusters(repeated).intervals([measure("accuracy_micro", repeated, np.tile(margin_H, 5))])[0]
    assert five.se == pytest.approx(one.se, rel=1e-6)
    assert (five.lo, five.hi) == pytest.approx((one.lo, one.hi), abs=1e-6)


def test_equal_predictions_differ_by_nothing():
    rows, margin_H = crossed(np.random.default_rng(4), 30, 40, 500, (0.5, 0.5))
    measured = measure("accuracy_macro", rows, margin_H)
    assert Clusters(rows).intervals([difference(measured, measured)], (-1, 1))[0].p == 1.0


def test_few_users_are_taken_as_they_are():
    rng = np.random.default_rng(6)
    rows, margin_H = crossed(rng, users=4, pairs=200, n=600, sd=(3.0, 0.0))
    assert not Clusters(rows).by_user
    measured = measure("accuracy_micro", rows, margin_H)
    interval = Clusters(rows).intervals([measured])[0]
    assert interval.se < 0.05  # with four such different users, users in general would span most of [0, 1]


def test_one_pair_or_nobody_has_no_interval():
    rows = rows_of(np.arange(20), np.arange(20), 20, 20)
    alone = METRICS["accuracy_micro"](rows, rows.user_H == 3, np.ones(20))
    nobody = METRICS["accuracy_micro"](rows, rows.user_H < 0, np.ones(20))
    assert Clusters(rows).intervals([alone, nobody], (0, 1)) == [Interval()] * 2


def test_nothing_moves_is_not_certainty():
    """Twenty of twenty right: the exact interval of Clopper and Pearson; two learners that answer alike likewise."""
    from scipy.stats import beta

    rows = rows_of(np.arange(20), np.arange(20), 20, 20)
    sure = measure("accuracy_micro", rows, np.ones(20))
    lowest = beta.ppf(0.025, 20, 1)
    interval = Clusters(rows).intervals([sure], (0, 1))[0]
    assert (interval.lo, interval.hi, interval.se) == (pytest.approx(lowest), 1.0, None)
    assert lowest == pytest.approx(0.832, abs=1e-3)
    alike = Clusters(rows).intervals([difference(sure, sure)], (-1, 1))[0]
    assert (alike.lo, alike.hi, alike.se, alike.p) == (pytest.approx(lowest - 1), pytest.approx(1 - lowest), None, 1.0)
    loss = measure("log_loss", rows, np.ones(20))
    assert Clusters(rows).intervals([difference(loss, loss)]) == [Interval(p=1.0)]


@pytest.mark.parametrize("n", [3, 12])
def test_a_constant_gain_on_few_pairs_is_judged_by_their_number(n):
    rows = rows_of(np.arange(n), np.arange(n), n, n)
    won = difference(measure("accuracy_micro", rows, np.ones(n)), measure("accuracy_micro", rows, -np.ones(n)))
    interval = Clusters(rows).intervals([won], (-1, 1))[0]
    assert won.value == interval.hi == 1.0
    assert interval.p == 2.0 ** (1 - n)
    assert (interval.lo > 0) == (n == 12)


def test_where_several_pairs_move_no_floor_is_left():
    """Thirty pairs, six won and two lost: the textbook's interval, narrower than what no movement leaves open."""
    from scipy.stats import t

    rows = rows_of(np.arange(120) % 4, np.arange(120) // 4, 4, 30)
    won_H = np.where(rows.pair_H < 6, rows.user_H < 2, (rows.pair_H < 8) & (rows.user_H < 1))
    sign_H = np.where(rows.pair_H < 6, 1.0, -1.0)
    one, other = (measure("accuracy_micro", rows, np.where(won_H, way * sign_H, 1.0)) for way in (1.0, -1.0))
    gained = difference(one, other)
    interval = Clusters(rows).intervals([gained], (-1, 1))[0]
    by_pair = np.bincount(rows.pair_H, won_H * sign_H) / 4
    half = t.isf(0.025, 29) * by_pair.std(ddof=1) / np.sqrt(30)
    assert gained.value == pytest.approx(by_pair.mean())
    assert interval.hi - interval.lo == pytest.approx(2 * half, rel=0.02)
    assert interval.lo > 0
    assert half < 0.09 < unseen_share(np.array([30.0]))[0]


def test_one_judgement_that_moves_does_not_narrow():
    n = 60
    rows = rows_of(np.arange(n) % 12, np.arange(n), 12, n)
    right = measure("accuracy_micro", rows, np.ones(n))
    slip = measure("accuracy_micro", rows, np.where(np.arange(n) == 7, -1.0, 1.0))
    none, one = Clusters(rows).intervals([difference(right, right), difference(right, slip)], (-1, 1))
    assert one.hi - one.lo >= none.hi - none.lo - 1e-9 > 0.1


def test_coverage_where_nearly_all_is_right():
    """38 % of such samples show no error at all; the bootstrap alone would cover the truth in 62 %."""
    rng = np.random.default_rng(14)
    rows = rows_of(np.arange(24), np.arange(24), 24, 24)
    hits = []
    for _ in range(300):
        measured = measure("accuracy_micro", rows, np.where(rng.random(24) < 0.96, 1.0, -1.0))
        interval = Clusters(rows).intervals([measured], (0, 1))[0]
        hits.append(interval.lo <= 0.96 <= interval.hi)
    assert np.mean(hits) > 0.93


def test_the_variance_of_a_full_crossing_is_the_analysis_of_variance():
    """Every user judges every pair once: mean squares of users and of pairs, less that of all, by hand."""
    from scipy.stats import t

    users, pairs = 11, 40
    rng = np.random.default_rng(15)
    user_H, pair_H = (code.ravel() for code in np.indices((users, pairs)))
    rows, n = rows_of(user_H, pair_H, users, pairs), users * pairs
    better_UP, other_UP = (
        mean + 0.8 * rng.normal(size=(users, 1)) + 0.8 * rng.normal(size=pairs) + rng.normal(size=(users, pairs))
        for mean in (0.8, 0.4)
    )
    measured = difference(*(measure("accuracy_micro", rows, m_UP.ravel()) for m_UP in (better_UP, other_UP)))
    right_UP = (better_UP > 0).astype(float) - (other_UP > 0)
    of_users = pairs * right_UP.mean(axis=1).var(ddof=1) / n
    of_pairs = users * right_UP.mean(axis=0).var(ddof=1) / n
    of_all = right_UP.var(ddof=1) / n
    variance = of_users + of_pairs - of_all
    freedom = variance**2 / (
        (of_users**2 - of_all**2) / (users - 1) + (of_pairs**2 - of_all**2) / (pairs - 1) + of_all**2 / (n - 1)
    )
    interval = Clusters(rows).intervals([measured], (-1, 1))[0]
    assert interval.se == pytest.approx(variance**0.5)
    assert interval.hi - interval.lo == pytest.approx(2 * t.isf(0.025, freedom) * interval.se)
    assert interval.p == pytest.approx(2 * t.sf(abs(measured.value) / interval.se, freedom))
    assert interval.p > 2**-10
    assert freedom < 30


def paired(d_KN: np.ndarray) -> np.ndarray:
    """p of K rows of N independent differences, as ``per_user`` asks for it."""
    n = d_KN.shape[1]
    se_K, null_se_K = d_KN.std(axis=1) / np.sqrt(n - 1), np.sqrt((d_KN**2).mean(axis=1) / n)
    return paired_p(d_KN.mean(axis=1), se_K, null_se_K, np.full(len(d_KN), n), (d_KN != 0).sum(axis=1))


def test_paired_test_against_throwing_all_signs():
    rng = np.random.default_rng(7)
    for n in (4, 8, 12):
        d = rng.choice([-1.0, -0.5, 0.5, 1.0], n) + 0.3
        signs = np.array(list(product([-1, 1], repeat=n)))
        exact = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-9)
        assert paired(d[None])[0] == pytest.approx(exact, abs=0.12)
    assert paired(np.ones((1, 5)))[0] == pytest.approx(2 / 2**5)
    assert paired(np.zeros((1, 5)))[0] == 1.0


def test_benjamini_hochberg_by_hand_and_by_its_promise():
    p = np.array([0.041, 0.001, 0.6, 0.008, 0.039])
    assert benjamini_hochberg(p, 0.05).tolist() == [False, True, False, True, False]
    assert benjamini_hochberg(np.array([0.04, 0.041, 0.03]), 0.05).all()
    assert not len(benjamini_hochberg(np.zeros(0)))
    rng = np.random.default_rng(8)
    false_share = []
    for _ in range(300):
        null = rng.random(80)
        real = rng.random(20) * 1e-4
        fallen = benjamini_hochberg(np.concatenate([null, real]))
        false_share.append(fallen[:80].sum() / max(fallen.sum(), 1))
        assert fallen[80:].all()
    assert np.mean(false_share) <= 0.06
    assert np.mean(false_share) > 0.01


def test_null_users_are_seldom_called_different():
    """Thousand users without any true difference: family-wise, an error in about one run of twenty at most."""
    rng = np.random.default_rng(9)
    wrong = 0
    for _ in range(60):
        d = rng.choice([-1.0, 0.0, 0.0, 1.0], (1000, 20))
        wrong += benjamini_hochberg(paired(d)).any()
    assert wrong <= 8
    d[0] = 1.0
    assert benjamini_hochberg(paired(d))[0]
