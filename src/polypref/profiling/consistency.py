"""Consistency: how often a person who judges the same pair twice gives the same answer, and the accuracy ceiling.

Source: Dong et al., EMNLP Findings 2025, section 3 (consistency); Cronbach (1951) for alpha. Changed: the paper assumes
consistency where its data have no repeats. Here it is unknown (None) until measured: two judgements by one user on the
same two texts, also under different pair ids. Without repeats, a user's own cyclic triads still show noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from polypref.profiling.disagreement import Disagreement
from polypref.profiling.tournament import count_triads
from polypref.profiling.votes import Votes
from polypref.stats.estimate import Estimate, clustered_proportion

MIN_FOR_ALPHA = 20  # with fewer repeats (or shared pairs), a correlation is too uncertain


@dataclass(frozen=True)
class Consistency:
    """Test-retest agreement and reliabilities; ``n`` counts pairs of judgements. Unknown is value None, n = 0.

    ``retest``          share of repeated judgements with the same label (a tie is a label); interval over users.
    ``retest_no_ties``  the same over repeats where both judgements took a side.
    ``retest_alpha``    Cronbach's alpha of a judgement and its repeat, ``2 - 1 / retest_no_ties``.
    ``judge_reliability`` correlation of two random judges of a pair, ``1 - 2 * divergence at panel size 2``.
    ``panel_alpha``     Cronbach's alpha of the mean of ``panel_size`` judges (Spearman-Brown of the former): how well a
                        panel's mean is determined, which is about disagreement as much as about noise.
    ``n_users``         users with a repeat.
    ``cyclic_triads``   share of a user's own closed triads (they judged all three pairs) that are cyclic: 0 for a
                        consistent ranking, 1/4 for coin flips.
    """

    retest: Estimate
    retest_no_ties: Estimate
    retest_alpha: Estimate
    judge_reliability: Estimate
    panel_alpha: Estimate
    panel_size: float | None
    n_users: int
    cyclic_triads: Estimate

    @property
    def ceiling(self) -> tuple[float, float] | None:
        """Bounds of the accuracy that a perfect personal predictor could reach; None if consistency is unknown.

        With P(user prefers a) = p on a pair, repeats agree with probability A = p^2 + (1 - p)^2 and the best prediction
        is right with probability max(p, 1 - p), which is at least A. Averaged over pairs it is at most
        (1 + sqrt(2A - 1)) / 2 (Jensen). The 95 % interval of A widens both ends.
        """
        agree = self.retest_no_ties
        if agree.lo is None or agree.hi is None:
            return None
        return max(agree.lo, 0.5), (1 + math.sqrt(max(2 * agree.hi - 1, 0.0))) / 2

    def as_dict(self) -> dict[str, object]:
        names = ("retest", "retest_no_ties", "retest_alpha", "judge_reliability", "panel_alpha", "cyclic_triads")
        estimates = {name: getattr(self, name).as_dict() for name in names}
        return estimates | {
            "panel_size": self.panel_size,
            "n_users": self.n_users,
            "ceiling": None if self.ceiling is None else list(self.ceiling),
        }


def consistency(votes: Votes, disagreement: Disagreement) -> Consistency:
    """Test-retest agreement of the judgements behind the votes; reliabilities where there is enough data."""
    plus_V, minus_V, tie_V = votes.plus_V, votes.minus_V, votes.tie_V
    sided_V = _couples(plus_V) + _couples(minus_V)
    retest = _by_user(votes, sided_V + _couples(tie_V), _couples(plus_V + minus_V + tie_V))
    no_ties = _by_user(votes, sided_V, _couples(plus_V + minus_V))
    two = disagreement.at_panel[2][0]
    reliability = _transformed(two, lambda d: 1 - 2 * d, falling=True)
    size = disagreement.mean_panel
    return Consistency(
        retest=retest,
        retest_no_ties=no_ties,
        retest_alpha=_transformed(no_ties, lambda a: 2 - 1 / a if a > 0 else -math.inf),
        judge_reliability=reliability,
        panel_alpha=Estimate()
        if size is None
        else _transformed(reliability, lambda r: size * r / (1 + (size - 1) * r)),
        panel_size=size,
        n_users=len(np.unique(votes.user_V[plus_V + minus_V + tie_V >= 2])),
        cyclic_triads=own_triads(votes),
    )


def own_triads(votes: Votes) -> Estimate:
    """Share of the users' own closed triads that are cyclic (interval over users)."""
    votes = votes.decided
    first_V, second_V = votes.first_Y[votes.pair_V], votes.second_Y[votes.pair_V]
    for_first_V = votes.sign_V > 0
    up_V, down_V = np.where(for_first_V, first_V, second_V), np.where(for_first_V, second_V, first_V)
    # a node is a response as seen by one user
    n_responses = int(max(first_V.max(initial=0), second_V.max(initial=0))) + 1
    own = votes.user_V * n_responses
    nodes, ends = np.unique(np.concatenate([own + up_V, own + down_V]), return_inverse=True)
    up, down = ends[: len(up_V)], ends[len(up_V) :]
    triads_R, cyclic_R = count_triads(up, down, len(nodes))
    owner_R = nodes // n_responses
    triads_U, cyclic_U = (np.bincount(owner_R, weights=x, minlength=votes.n_users) for x in (triads_R, cyclic_R))
    return clustered_proportion(cyclic_U, triads_U)


def _couples(n_V: np.ndarray) -> np.ndarray:
    """The number of pairs among n things."""
    return n_V * (n_V - 1) // 2


def _by_user(votes: Votes, hit_V: np.ndarray, total_V: np.ndarray) -> Estimate:
    hit_U, total_U = (np.bincount(votes.user_V, weights=w, minlength=votes.n_users) for w in (hit_V, total_V))
    return clustered_proportion(hit_U, total_U)


def _transformed(estimate: Estimate, rule, falling: bool = False) -> Estimate:
    """A monotone function of an estimate if its n is large enough; otherwise unknown."""
    if estimate.value is None or estimate.n < MIN_FOR_ALPHA:
        return Estimate()

    def image(x: float | None) -> float | None:
        return None if x is None or not math.isfinite(rule(x)) else rule(x)

    lo, hi = (estimate.hi, estimate.lo) if falling else (estimate.lo, estimate.hi)
    return Estimate(image(estimate.value), image(lo), image(hi), estimate.n)
