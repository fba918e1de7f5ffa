"""Metrics on test rows, with the influence of each row and each user.

Held-out rows are those of all seeds in turn (a judgement held out under two seeds occurs twice). A margin is
reward(chosen) - reward(rejected). Every metric is the mean over seeds of the metric within a seed.

accuracy_micro         mean over decided judgements of 1 (margin > 0), 1/2 (equal scores), 0
accuracy_macro         mean over users of the user's own accuracy; every user counts once
accuracy_worst_decile  mean accuracy of the tenth of the users who are served worst, among users with at least
                       MIN_DECILE_ROWS decided test rows in the seed; absent with fewer than MIN_DECILE_USERS such
                       users, since a tenth is then less than two people. The lowest accuracies are partly bad luck,
                       more so with few test rows, equally for every learner
log_loss               mean of -log sigmoid(margin); a tie counts half for each side
brier                  mean squared error of sigmoid(margin), on the same rows
calibration_error      expected calibration error over 2 N_BINS equal-width bins of the predicted probability; each
                       judgement counts from both sides, which equals N_BINS bins of the preferred side

Ties take part in the last three only: nobody can be right about a tie, but a probability can. Each metric is
a weighted mean over rows, and comes with what each row and each user adds to its deviation, which the intervals need.
Deviations are from the mean over all seeds, not from that of the row's own seed: a seed holds few pairs out, and its
own mean follows them.

Suffixes here: ``_K`` codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_BINS = 10
WORST = 0.1
MIN_DECILE_ROWS = 5
MIN_DECILE_USERS = 20


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The test rows of all seeds, the same for every learner, training size and arm.

    ``seed_H``    0 .. n_seeds - 1; ``user_H`` index of the user; ``pair_H`` code of the text pair, < n_pairs.
    ``tie_H``     the user called it a tie; ``weight_H`` weight of the judgement.
    ``judgement_H``  number of the judgement in the data, < n_judgements.
    ``cohort_H``  cohort name -> which rows belong to it (a user may belong under one seed and not under another).
    ``text_Y2``   the two texts of each pair, as any codes; None: no two pairs share a text.
    """

    seed_H: NDArray[np.int64]
    user_H: NDArray[np.int64]
    pair_H: NDArray[np.int64]
    tie_H: NDArray[np.bool_]
    weight_H: Floats
    judgement_H: NDArray[np.int64]
    cohort_H: dict[str, NDArray[np.bool_]]
    n_seeds: int
    n_users: int
    n_pairs: int
    text_Y2: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.seed_H)

    @cached_property
    def texts_Y2(self) -> NDArray[np.int64]:
        """``text_Y2``, or two separate texts for every pair."""
        return np.arange(2 * self.n_pairs).reshape(-1, 2) if self.text_Y2 is None else self.text_Y2


@dataclass(frozen=True, eq=False)
class Measured:
    """A metric's value and what moves it; absent (value None) where the cohort has no rows, or too few users.

    ``share_H``  how much of the value rests on each of all H rows (0 outside the cohort); they sum to 1.
    ``row_H``    what a row adds to the deviation: its share times its distance from the value.
    ``share_U``  how much of the sample each user is; they sum to 1.
    ``user_U``   what a user adds: the derivative by the user's weight.
    ``n_users``, ``n_judgements``, ``n_pairs``  how many distinct ones, over all seeds, the value rests on.
    """

    value: float | None
    share_H: Floats
    row_H: Floats
    share_U: Floats
    user_U: Floats
    n_users: int = 0
    n_judgements: int = 0
    n_pairs: int = 0


Metric = Callable[[HeldOut, NDArray[np.bool_], Floats], Measured]


def correctness(margin_H: Floats) -> Floats:
    """1 if the chosen response scores higher, 0 if lower, one half if equal."""
    return np.where(margin_H > 0, 1.0, np.where(margin_H < 0, 0.0, 0.5))


def log_losses(margin_H: Floats, tie_H: NDArray[np.bool_]) -> Floats:
    """-log sigmoid(margin); for a tie the mean over both sides."""
    lost_H = np.logaddexp(0.0, -margin_H)
    return np.where(tie_H, lost_H + margin_H / 2, lost_H)


def accuracy_micro(rows: HeldOut, in_H: NDArray[np.bool_], margin_H: Floats) -> Measured:
    """Mean over decided judgements."""
    return _row_mean(rows, in_H & ~rows.tie_H, correctness(margin_H))


def log_loss(rows: HeldOut, in_H: NDArray[np.bool_], margin_H: Floats) -> Measured:
    """Mean over all judgements, ties included."""
    return _row_mean(rows, in_H, log_losses(margin_H, rows.tie_H))


def brier(rows: HeldOut, in_H: NDArray[np.bool_], margin_H: Floats) -> Measured:
    """Mean over all judgements, ties included."""
    label_H = np.where(rows.tie_H, 0.5, 1.0)
    return _row_mean(rows, in_H, (label_H - _sigmoid(margin_H)) ** 2)


def accuracy_macro(rows: HeldOut, in_H: NDArray[np.bool_], margin_H: Floats) -> Measured:
    """Mean over users of their own accuracy."""
    return _user_mean(rows, in_H & ~rows.tie_H, correctness(margin_H))


def accuracy_worst_decile(rows: HeldOut, in_H: NDArray[np.bool_], margin_H: Floats) -> Measured:
    """Mean over the tenth of the users with the lowest accuracy."""
    return _user_mean(rows, in_H & ~rows.tie_H, correctness(margin_H), WORST, MIN_DECILE_ROWS, MIN_DECILE_USERS)


def calibration_error(rows: HeldOut, in_H: NDArray[np.bool_], margin_H: Floats) -> Measured:
    """Expected calibration error; biased upwards if bins have few rows, equally for every learner."""
    sure_H = _sigmoid(np.abs(margin_H))  # probability of the side that the learner prefers, in [1/2, 1]
    right_H = np.where(rows.tie_H, 0.5, correctness(margin_H))
    bin_H = np.minimum((sure_H - 0.5) * 2 * N_BINS, N_BINS - 1).astype(np.int64) + N_BINS * rows.seed_H
    weight_H = np.where(in_H, rows.weight_H, 0.0)
    gap_K = summed(bin_H, weight_H * (right_H - sure_H), rows.n_seeds * N_BINS)
    return _row_mean(rows, in_H, np.sign(gap_K)[bin_H] * (right_H - sure_H))


METRICS: dict[str, Metric] = {
    "accuracy_micro": accuracy_micro,
    "accuracy_macro": accuracy_macro,
    "accuracy_worst_decile": accuracy_worst_decile,
    "log_loss": log_loss,
    "brier": brier,
    "calibration_error": calibration_error,
}
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error"})


def summed(code_K: NDArray[np.int64], value_K: NDArray, size: int = 0) -> Floats:
    """Sum of the values of each code 0 .. size - 1."""
    return np.bincount(code_K, value_K, size).astype(np.float64, copy=False)


def distinct(code_K: NDArray[np.int64]) -> int:
    """The number of different codes."""
    return int(np.count_nonzero(np.bincount(code_K))) if len(code_K) else 0


def _sigmoid(margin_H: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -margin_H))


def _row_mean(rows: HeldOut, in_H: NDArray[np.bool_], value_H: Floats) -> Measured:
    """Weighted mean over rows within each seed, then over the seeds that have rows."""
    weight_H = np.where(in_H, rows.weight_H, 0.0)
    total_S = summed(rows.seed_H, weight_H, rows.n_seeds)
    seeds = int((total_S > 0).sum())
    if not seeds:
        return _absent(rows)
    safe_S = np.where(total_S > 0, total_S, 1.0)
    share_H = weight_H / safe_S[rows.seed_H] / seeds
    value = float((summed(rows.seed_H, weight_H * value_H, rows.n_seeds) / safe_S).sum() / seeds)
    row_H = share_H * (value_H - value)
    share_U, row_U = (summed(rows.user_H, one_H, rows.n_users) for one_H in (share_H, row_H))
    return Measured(value, share_H, row_H, share_U, row_U, **_counts(rows, weight_H > 0))


def _user_mean(
    rows: HeldOut,
    in_H: NDArray[np.bool_],
    value_H: Floats,
    share: float = 1.0,
    min_rows: int = 1,
    min_users: int = 1,
) -> Measured:
    """Mean over the ``share`` of users with the lowest means within each seed, then over seeds.

    A fraction of a user counts by that fraction. Users with fewer than ``min_rows`` rows in a seed are left out, and
    seeds with fewer than ``min_users`` users.
    """
    weight_H = np.where(in_H, rows.weight_H, 0.0)
    code_H = rows.seed_H * rows.n_users + rows.user_H
    size = rows.n_seeds * rows.n_users
    total_SU = summed(code_H, weight_H, size)
    safe_SU = np.where(total_SU > 0, total_SU, 1.0)
    mean_SU = summed(code_H, weight_H * value_H, size) / safe_SU
    counted_SU = (total_SU > 0) & (summed(code_H, weight_H > 0, size) >= min_rows)
    share_SU = np.zeros((rows.n_seeds, rows.n_users))  # of the seed's value that rests on each user
    user_U, share_U = np.zeros(rows.n_users), np.zeros(rows.n_users)
    counted_S = np.ones(rows.n_seeds, bool)
    values = []
    for s, (mean_U, counted_U) in enumerate(
        zip(mean_SU.reshape(share_SU.shape), counted_SU.reshape(share_SU.shape), strict=True)
    ):
        present = np.flatnonzero(counted_U)
        if len(present) < min_users:
            counted_S[s] = False
            continue
        worst = present[np.argsort(mean_U[present], kind="stable")]
        k = share * len(present)
        part = np.clip(k - np.arange(len(worst)), 0.0, 1.0)
        share_SU[s, worst] = part / k
        share_U[present] += 1 / len(present)
        values.append(float(part @ mean_U[worst] / k))
        edge = mean_U[worst[min(int(np.ceil(k)), len(worst)) - 1]]
        user_U[worst] += part / k * (mean_U[worst] - edge) + edge / len(worst)
    in_code = counted_SU[code_H] & (weight_H > 0)
    if not values:
        return replace(_absent(rows), **_counts(rows, in_code))
    value, share_U = float(np.mean(values)), share_U / len(values)
    share_H = share_SU.ravel()[code_H] * weight_H / safe_SU[code_H] / len(values)
    moved = share_H, share_H * (value_H - value), share_U, user_U / len(values) - share_U * value
    return Measured(value, *moved, **_counts(rows, in_code & counted_S[rows.seed_H]))


def _counts(rows: HeldOut, counted_H: NDArray[np.bool_]) -> dict[str, int]:
    codes = {"n_users": rows.user_H, "n_judgements": rows.judgement_H, "n_pairs": rows.pair_H}
    return {name: distinct(code_H[counted_H]) for name, code_H in codes.items()}


def _absent(rows: HeldOut) -> Measured:
    nothing_H, nothing_U = np.zeros(len(rows)), np.zeros(rows.n_users)
    return Measured(None, nothing_H, nothing_H, nothing_U, nothing_U)
