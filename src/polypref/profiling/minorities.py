"""How well the majority represents each user, and who is a minority user: the only definition in the package.

Source: Dong et al., EMNLP Findings 2025, section 3 (MV-ACC); SC12 of the social-choice list. Changed: (1) their MV-ACC
counts the user's own vote, which makes anybody in a panel of three look represented; the definition here uses the
*others'* majority. (2) The point rule MV-ACC < 0.5 mislabels users with few judgements; here a one-sided 95 % upper
bound must lie below one half. (3) Judgements that share a response are not independent (200 pairs derived from 20 votes
are not 200 observations), so the bound uses an effective number of judgements.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polypref.comparisons import BoolArray, Comparisons
from polypref.profiling.votes import Ints, PairKey, Votes
from polypref.profiling.votes import votes as as_votes
from polypref.stats.binomial import upper_bound
from polypref.stats.estimate import Estimate, Floats, clustered_proportion, none_if_nan

CONFIDENCE = 0.95
TABLE_MIN_SHARED = 10  # users in the MV-ACC range, as in the data's README


@dataclass(frozen=True, eq=False)
class Minorities:
    """Figures per user (arrays over U, NaN if unknown) and overall. Only pairs on which two users took a side count.

    ``shared_U``    pairs this user shares with at least one other user.
    ``own_U``       MV-ACC with the own vote in the majority; a split panel counts one half (the paper's).
    ``decided_U``   shared pairs on which the others have a majority.
    ``others_U``    share of those on which the user sides with the others' majority.
    ``effective_U`` number of independent judgements that these are worth.
    ``upper_U``     one-sided 95 % upper bound of ``others_U``.
    ``minority_U``  ``upper_U < 0.5``.
    """

    shared_U: Ints
    own_U: Floats
    decided_U: Ints
    others_U: Floats
    effective_U: Floats
    upper_U: Floats
    minority_U: BoolArray
    others: Estimate = field(default_factory=Estimate)

    @property
    def mv_acc_range(self) -> tuple[float | None, float | None, int]:
        """Lowest and highest MV-ACC (own vote included) over users with >= 10 shared pairs, and how many they are."""
        own = self.own_U[self.shared_U >= TABLE_MIN_SHARED]
        return (float(own.min()), float(own.max()), len(own)) if len(own) else (None, None, 0)

    def as_dict(self) -> dict[str, Any]:
        lo, hi, n = self.mv_acc_range
        testable = int((self.effective_U >= np.log(1 - CONFIDENCE) / np.log(0.5)).sum())
        return {
            "n_users": int((self.decided_U > 0).sum()),
            "n_testable": testable,
            "n_minority": int(self.minority_U.sum()),
            "at_most_by_chance": round((1 - CONFIDENCE) * testable, 1),
            "n_below_half": int((self.own_U < 0.5).sum()),
            "mv_acc": {"lo": lo, "hi": hi, "n_users": n, "min_shared": TABLE_MIN_SHARED},
            "agrees_with_others": self.others.as_dict(),
            "mean_over_users": none_if_nan(np.nanmean(self.others_U)) if (self.decided_U > 0).any() else None,
        }


def minority_users(comparisons: Comparisons, pairs: PairKey = "text") -> BoolArray:
    """Which users are minority users (U): agree with the others' majority less than half of the time, at 95 %."""
    return minorities(as_votes(comparisons, pairs)).minority_U


def minorities(votes: Votes) -> Minorities:
    """Majority-vote accuracy of each user, with and without the own vote, and the bound that makes a minority user."""
    votes = votes.decided
    votes = votes.take((votes.panel_Y >= 2)[votes.pair_V])
    user_V, n = votes.user_V, votes.n_users
    with_own_V, without_own_V = side_with_majority(votes)
    shared_U = np.bincount(user_V, minlength=n)
    majority_V = without_own_V != 0.5
    decided_U = np.bincount(user_V[majority_V], minlength=n)
    agree_U = np.bincount(user_V[majority_V], weights=without_own_V[majority_V], minlength=n)
    with np.errstate(invalid="ignore"):
        own_U = np.bincount(user_V, weights=with_own_V, minlength=n) / shared_U
        others_U = agree_U / decided_U
    effective_U = effective_judgements(votes.take(majority_V), without_own_V[majority_V], others_U)
    upper_U = upper_bound(others_U, effective_U, CONFIDENCE)
    return Minorities(
        shared_U=shared_U,
        own_U=own_U,
        decided_U=decided_U,
        others_U=others_U,
        effective_U=effective_U,
        upper_U=upper_U,
        minority_U=upper_U < 0.5,  # NaN, i.e. unknown, is not below
        others=clustered_proportion(agree_U, decided_U),
    )


def side_with_majority(votes: Votes) -> tuple[Floats, Floats]:
    """Whether each vote agrees with the majority (V), with and without the own vote: 1 yes, 0 no, 0.5 for a split."""
    margin_V = votes.margin_Y[votes.pair_V]
    with_own_V = 0.5 + 0.5 * np.sign(margin_V * votes.sign_V)
    without_own_V = 0.5 + 0.5 * np.sign((margin_V - votes.sign_V) * votes.sign_V)
    return with_own_V, without_own_V


def effective_judgements(votes: Votes, agree_V: Floats, share_U: Floats) -> Floats:
    """How many independent judgements each user's votes are worth (U): at most their number.

    Two votes of one user that share a response may err together; the dyadic variance ``(sum_r (sum_{pairs with r} e)^2
    - sum e^2) / n^2`` (Aronow, Samii & Assenova 2015) counts such couples. The effective number is the binomial
    variance divided by it. If all votes agree, the variance cannot be estimated; half the number of distinct responses
    is then used, which equals the number of votes if no response recurs.
    """
    n_U = np.bincount(votes.user_V, minlength=votes.n_users).astype(float)
    error_V = agree_V - share_U[votes.user_V]
    sides = np.concatenate([votes.first_Y[votes.pair_V], votes.second_Y[votes.pair_V]])
    n_responses = int(sides.max(initial=0)) + 1
    touched, at = np.unique(np.tile(votes.user_V, 2) * n_responses + sides, return_inverse=True)
    summed = np.bincount(at, weights=np.tile(error_V, 2), minlength=len(touched))
    owner = touched // n_responses
    responses_U = np.bincount(owner, minlength=votes.n_users)
    squares_U = np.bincount(votes.user_V, weights=error_V**2, minlength=votes.n_users)
    dyadic_U = np.bincount(owner, weights=summed**2, minlength=votes.n_users) - squares_U
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio_U = squares_U / np.maximum(dyadic_U, squares_U)  # sharing never adds information
        same_U = squares_U <= 1e-9
        return np.where(same_U, responses_U / 2, n_U * ratio_U)
