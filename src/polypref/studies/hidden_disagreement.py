"""Tests for hidden disagreement: DPL's r2 against its value if all users had one taste and made as many errors.

r2 (``dpl``) falls with disagreement, and with everything else that keeps a single reward from predicting the choice:
users' errors, weak features. Shuffling users cannot be the null, because DPL never sees them. The null here keeps the
users and the pairs and draws new choices: each user has the pooled reward, and is as decided on it as on their own,

    P(c over r) = sigmoid(t_u (pooled margin)),      t_u = rms of u's own margins / rms of u's pooled margins

Own and pooled margins are of pairs held out from their fit (two halves by text pair, each scored by the other's fit).

Covered: errors and weak features lower r2 and the null alike. Not covered: users who differ in ways that the features
cannot show, so that they look undecided even on their own reward; few judgements per user have the same effect. Both
make the null too low, so the test may miss disagreement but does not invent it.

Suffixes here: ``_V`` fits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from polypref.comparisons import Comparisons
from polypref.data.split import holdout
from polypref.features.protocol import Encoder
from polypref.learners.dpl import Dpl, Floats, interval, resampled
from polypref.learners.individual import Individual
from polypref.learners.protocol import margins, population_margins


@dataclass(frozen=True)
class HiddenDisagreement:
    """r2 with a 95 % interval over users, the null's r2, and how far r2 lies below it.

    ``gap`` is null minus r2, its interval paired by user; NaN for fewer than five users.
    """

    r2: float
    low: float
    high: float
    null: float
    null_low: float
    null_high: float
    gap: float
    gap_low: float
    gap_high: float

    @property
    def found(self) -> bool:
        """Whether people disagree more than their errors explain."""
        return self.gap_low > 0


def hidden_disagreement(
    comparisons: Comparisons, encoder: Encoder, *, how: Dpl | None = None, seed: int = 0
) -> HiddenDisagreement:
    """Fit DPL to the data and to the null. Raises NotEnoughData if there are too few pairs to halve."""
    how = how or Dpl()
    real_V, null_V = (
        resampled(how, rows, encoder, seed, None).r2_V for rows in (comparisons, one_taste(comparisons, encoder, seed))
    )
    if len(real_V) == 1:
        unknown = float("nan")
        (low, high), (null_low, null_high), half = (unknown, unknown), (unknown, unknown), unknown
    else:
        (low, high), (null_low, null_high) = interval(real_V), interval(null_V)
        half = 1.96 * float((null_V - real_V)[1:].std(ddof=1))
    r2, null = float(real_V[0]), float(null_V[0])
    return HiddenDisagreement(r2, low, high, null, null_low, null_high, null - r2, null - r2 - half, null - r2 + half)


def one_taste(rows: Comparisons, encoder: Encoder, seed: int) -> Comparisons:
    """The same users and pairs, with choices drawn from the pooled reward, each user as decided as in the data."""
    own_N, pooled_N = _held_out_margins(rows, encoder, seed)
    users = len(rows.users)
    own_U, pooled_U = (np.bincount(rows.user_N, margin_N**2, users) for margin_N in (own_N, pooled_N))
    decided_U = np.sqrt(own_U / np.maximum(pooled_U, 1e-12))
    # draws follow content, not row order, and are for the side whose text has the lower key
    keys_R = rows.responses.keys_R
    turned_N = keys_R[rows.chosen_N] > keys_R[rows.rejected_N]
    order_N = np.lexsort((turned_N, rows.user_N, rows.pair_key_N))
    coin_N = np.empty(len(rows))
    coin_N[order_N] = np.random.default_rng(seed).random(len(rows))
    first_wins_N = coin_N < expit(decided_U[rows.user_N] * np.where(turned_N, -pooled_N, pooled_N))
    stays_N = first_wins_N != turned_N
    return replace(
        rows,
        chosen_N=np.where(stays_N, rows.chosen_N, rows.rejected_N),
        rejected_N=np.where(stays_N, rows.rejected_N, rows.chosen_N),
    )


def _held_out_margins(rows: Comparisons, encoder: Encoder, seed: int) -> tuple[Floats, Floats]:
    """Margins (N,) under the user's own reward and under the pooled one, each fitted to the other half of the pairs."""
    own_N, pooled_N = np.empty(len(rows)), np.empty(len(rows))
    halves = holdout(rows, "pair", seed, 0.5)
    for fitted, held in (halves, halves[::-1]):
        scorer = Individual().fit(rows.take(fitted), encoder=encoder, seed=seed)
        half = rows.take(held)
        own_N[held] = margins(scorer, half).value_Q
        pooled_N[held] = population_margins(scorer, half).value_Q
    return own_N, pooled_N
