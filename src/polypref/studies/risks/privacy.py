"""Privacy attacks: who was in the training data, what a user's vector reveals, and whether two halves of a user match.

Sources. *Membership*: an attack on the loss with a threshold calibrated for each user on refits without them: offline
LiRA (Carlini et al. 2022) without its normal densities, at the level of users (Kandpal et al. 2023, "User Inference
Attacks on Large Language Models"). The attacker knows the target's judgements, may query the shared model without
limit, and can refit it as often as we do. Refits come in pairs: each pair splits the users into two halves and fits
both, so everybody is in half of the refits. *Attributes*: a ridge probe on the user's vector, against the same probe on
their raw judgements. *Re-identification*: nearest neighbour by cosine between vectors from two halves of each user's
judgements.

Covered: the shared part, as it answers unknown users. Not covered: the saved file itself, which names its users;
attacks that change the training data; stronger attacks. A low figure does not prove safety.

Suffixes here: ``_F`` features of a response, ``_K`` numbers of a vector, ``_M`` pairs of refits or of texts, ``_V``
refits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.errors import NotEnoughData
from polypref.learners.likelihood import surprise
from polypref.learners.protocol import Scorer, population_margins

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Margins = Callable[[Comparisons], Floats]
Fit = Callable[[Comparisons, int], Margins]

FALSE_ALARMS = 0.01
DRAWS = 200


@dataclass(frozen=True)
class Membership:
    """Area under the attack's curve (one half: chance) with its 95 % interval over users, and its true positive rate
    at ``FALSE_ALARMS`` (that rate: chance)."""

    auc: float
    auc_lo: float
    auc_hi: float
    tpr: float
    tpr_lo: float
    tpr_hi: float
    n_users: int


def auc(score_X: Floats, positive_X: Bools) -> float:
    """Chance that a positive scores higher than a negative, ties one half; NaN without positives or negatives."""
    high_M, low_sorted = score_X[positive_X], np.sort(score_X[~positive_X])
    if not len(high_M) or not len(low_sorted):
        return np.nan
    below_M = np.searchsorted(low_sorted, high_M, "left") + np.searchsorted(low_sorted, high_M, "right")
    return float(below_M.mean() / (2 * len(low_sorted)))


def tpr_at(score_X: Floats, positive_X: Bools, false_alarms: float = FALSE_ALARMS) -> float:
    """Share of positives above a threshold that at most ``false_alarms`` of the negatives exceed."""
    low_sorted = np.sort(score_X[~positive_X])
    if not len(low_sorted) or not positive_X.any():
        return np.nan
    allowed = int(false_alarms * len(low_sorted) + 1e-9)
    if allowed >= len(low_sorted):
        return 1.0
    return float((score_X[positive_X] > low_sorted[len(low_sorted) - 1 - allowed]).mean())


def halves(users: int, pairs: int, seed: int) -> Bools:
    """``member_VU`` of ``pairs`` pairs of refits: the second of a pair has the users that the first lacks."""
    rng = np.random.default_rng(seed)
    first_MU = rng.permuted(np.tile(np.arange(users) < users // 2, (pairs, 1)), axis=1)
    return np.stack([first_MU, ~first_MU], axis=1).reshape(2 * pairs, users)


def calibrated(fitness_VU: Floats, member_VU: Bools) -> Floats:
    """How much better each refit fits each user than the *other* refits without them do on average."""
    out_VU = np.where(member_VU, 0.0, fitness_VU)
    count_VU = (~member_VU).sum(axis=0) - ~member_VU
    return fitness_VU - (out_VU.sum(axis=0) - out_VU) / count_VU


def membership(fit: Fit, comparisons: Comparisons, pairs: int, seed: int) -> Membership:
    """Attack ``2 * pairs`` refits. ``fit(rows, seed)`` returns the shared model: a function from rows to margins.

    Raises NotEnoughData for fewer than two pairs or four users.
    """
    users = len(comparisons.users)
    if pairs < 2 or users < 4:
        raise NotEnoughData(f"{users} users in {pairs} pairs of refits; expected at least 4 users and 2 pairs.")
    member_VU = halves(users, pairs, seed)
    given_U = np.bincount(comparisons.user_N, minlength=users)
    fitness_VU = np.zeros(member_VU.shape)
    for s, member_U in enumerate(member_VU):
        answer = fit(comparisons.take(member_U[comparisons.user_N]), seed + s)
        loss_N = surprise(answer(comparisons), comparisons.label_N)
        fitness_VU[s] = -np.bincount(comparisons.user_N, loss_N, users) / np.maximum(given_U, 1)
    fits_VU = calibrated(fitness_VU, member_VU)[:, given_U > 0]
    member_VU = member_VU[:, given_U > 0]
    drawn_BU = np.random.default_rng(seed).integers(0, fits_VU.shape[1], (DRAWS, fits_VU.shape[1]))
    found = [_with_ends(measure, fits_VU, member_VU, drawn_BU) for measure in (auc, tpr_at)]
    return Membership(*found[0], *found[1], fits_VU.shape[1])


def _with_ends(
    measure: Callable[[Floats, Bools], float], fits_VU: Floats, member_VU: Bools, drawn_BU: NDArray[np.int64]
) -> tuple[float, float, float]:
    """A measure, and the ends of its 95 % bootstrap interval over users."""
    again_B = [measure(fits_VU[:, at_U].ravel(), member_VU[:, at_U].ravel()) for at_U in drawn_BU]
    lo, hi = np.quantile(again_B, [0.025, 0.975])
    return measure(fits_VU.ravel(), member_VU.ravel()), float(lo), float(hi)


def as_strangers(scorer: Scorer) -> Margins:
    """The margins of ``scorer`` for any rows, as it answers unknown users."""

    def answer(rows: Comparisons) -> Floats:
        return population_margins(scorer, rows).value_Q

    return answer


def votes(comparisons: Comparisons) -> Floats:
    """Everybody's raw judgements (U, pairs): 1 or -1 for the text pairs they judged, 0 for ties and all other pairs."""
    keys_R = comparisons.responses.keys_R
    sign_N = np.where(keys_R[comparisons.chosen_N] <= keys_R[comparisons.rejected_N], 1.0, -1.0)
    pairs, at_N = np.unique(comparisons.pair_key_N, return_inverse=True)
    vote_UM = np.zeros((len(comparisons.users), len(pairs)))
    np.add.at(vote_UM, (comparisons.user_N, at_N), sign_N * (2 * comparisons.label_N - 1))
    return np.sign(vote_UM)


def mean_differences(comparisons: Comparisons, x_RF: Floats) -> Floats:
    """Mean features of what each user chose minus those of what they rejected (U, F); ties count zero."""
    side_N = 2 * comparisons.label_N - 1
    moved_NF = side_N[:, None] * (x_RF[comparisons.chosen_N] - x_RF[comparisons.rejected_N])
    total_UF = np.zeros((len(comparisons.users), x_RF.shape[1]))
    np.add.at(total_UF, comparisons.user_N, moved_NF)
    return total_UF / np.maximum(np.bincount(comparisons.user_N, minlength=len(total_UF)), 1)[:, None]


def probe_auc(x_UK: Floats, has_U: Bools, seed: int, folds: int = 5) -> float:
    """How well a ridge probe, cross-validated over users, predicts an attribute: mean area over the folds.

    Columns are standardised on the training users; the penalty is one per column. Raises NotEnoughData if a fold would
    lack users with or without it.
    """
    if min(has_U.sum(), (~has_U).sum()) < folds:
        raise NotEnoughData(
            f"{int(has_U.sum())} of {len(has_U)} users have it; expected at least {folds} with and {folds} without."
        )
    rng = np.random.default_rng(seed)
    fold_U = np.zeros(len(has_U), np.int64)
    for sort in (has_U, ~has_U):
        fold_U[sort] = rng.permutation(np.arange(sort.sum()) % folds)
    found = []
    for fold in range(folds):
        train_U = fold_U != fold
        center_K, scale_K = x_UK[train_U].mean(axis=0), x_UK[train_U].std(axis=0)
        z_UK = (x_UK - center_K) / np.where(scale_K > 1e-12, scale_K, 1.0)
        gram_UU = z_UK @ z_UK[train_U].T
        label_U = has_U[train_U] - has_U[train_U].mean()
        dual_U = np.linalg.solve(gram_UU[train_U] + z_UK.shape[1] * np.eye(train_U.sum()), label_U)
        found.append(auc((gram_UU @ dual_U)[~train_U], has_U[~train_U]))
    return float(np.mean(found))


def rank_one(one_UK: Floats, other_UK: Floats) -> float:
    """Share of users whose vector from one half is nearest, by cosine, to their own from the other half.

    1 / U is chance; if several are nearest, each counts its share. The mean of its half is subtracted from each vector.
    """
    unit = []
    for half_UK in (one_UK, other_UK):
        moved_UK = half_UK - half_UK.mean(axis=0)
        unit.append(moved_UK / np.maximum(np.linalg.norm(moved_UK, axis=1, keepdims=True), 1e-300))
    like_UU = unit[0] @ unit[1].T
    nearest_UU = like_UU >= like_UU.max(axis=1, keepdims=True) - 1e-12
    return float((np.diag(nearest_UU) / nearest_UU.sum(axis=1)).mean())
