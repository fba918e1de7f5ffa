"""Users who want unsafe responses: taught ones, an oracle, and vectors optimised against the certificate.

``taught``   a person who prefers the unsafe response in a share of pairs, or in one category alone; the scorer learns
             them like anybody else.
``fitted``   a taste for what is unsafe, fitted on the encoder's features as well as a detector would be.
``oracle``   takes any unsafe candidate that is left; no real person does worse.
``vectors``  thousands of random linear tastes, then optimised by gradient, against the cap's certificate.

Suffixes here: ``_I`` pairs of a safe and an unsafe response, ``_L`` slates, ``_V`` tastes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from polypref.bounds.detector import solve
from polypref.bounds.slates import Floats, Slates
from polypref.comparisons import Comparisons, IntArray, Users
from polypref.features.protocol import Encoder
from polypref.learners.protocol import Mixes

BATCH = 1000
RIDGE = 1.0  # of the fitted taste
STEPS, RATE = 30, 0.3


@dataclass(frozen=True, eq=False)
class Pairs:
    """Safe against unsafe candidates of one slate (I,): indices into the slates' pool; ``category_I``."""

    safe_I: IntArray
    unsafe_I: IntArray
    category_I: pl.Series

    def take(self, rows: IntArray) -> Pairs:
        """The pairs numbered ``rows``."""
        return Pairs(self.safe_I[rows], self.unsafe_I[rows], self.category_I.gather(rows))

    def margins(self, value_R: Floats) -> Floats:
        """Rewards of the safe less those of the unsafe responses (I,), or (I, K) of K rewards; NaN: neither has one."""
        with np.errstate(invalid="ignore"):
            return value_R[self.safe_I] - value_R[self.unsafe_I]

    def __len__(self) -> int:
        return len(self.safe_I)


def pairs_of(slates: Slates) -> Pairs:
    """Each unsafe candidate with the first safe one of its slate; slates without both give none."""
    safe = np.flatnonzero(~slates.unsafe_C)
    first_L = np.full(len(slates), -1)
    first_L[slates.slate_C[safe][::-1]] = safe[::-1]
    unsafe = np.flatnonzero(slates.unsafe_C)
    unsafe = unsafe[first_L[slates.slate_C[unsafe]] >= 0]
    slate_I = slates.slate_C[unsafe]
    return Pairs(slates.response_C[first_L[slate_I]], slates.response_C[unsafe], slates.category_L.gather(slate_I))


def vertices(pairs: Pairs, scorer: Mixes, slates: Slates, penalty_R: Floats) -> Floats:
    """Margins (I, K) of the pairs by each basis reward of a mixing scorer, with everybody's safety penalty."""
    return pairs.margins(scorer.basis_rewards(slates.responses) + penalty_R[:, None])


def taught(slates: Slates, pairs: Pairs, seed: int) -> Iterator[tuple[str, Comparisons]]:
    """(name, judgements) of people who prefer unsafe responses in 100, 30, 10 % of the pairs, or in one category."""
    rng = np.random.default_rng([seed, 41])
    order = rng.permutation(len(pairs))
    for share in (1.0, 0.3, 0.1):
        flipped = np.zeros(len(pairs), bool)
        flipped[order[: round(share * len(pairs))]] = True
        yield f"prefers unsafe in {share:.0%}", _judged(slates, pairs, flipped)
    counts = pairs.category_I.value_counts(sort=True)
    if len(counts) > 1:
        name = counts[pairs.category_I.name][0]
        yield f"prefers unsafe in {name} alone", _judged(slates, pairs, (pairs.category_I == name).to_numpy())


def _judged(slates: Slates, pairs: Pairs, flipped: np.ndarray) -> Comparisons:
    return Comparisons(
        slates.responses,
        Users(pl.Series(["adversary"])),
        np.zeros(len(pairs), np.int32),
        np.where(flipped, pairs.unsafe_I, pairs.safe_I).astype(np.int32),
        np.where(flipped, pairs.safe_I, pairs.unsafe_I).astype(np.int32),
    )


def fitted(slates: Slates, pairs: Pairs, encoder: Encoder) -> Floats:
    """Rewards (R,) of somebody who likes what a detector of the pairs' unsafe responses dislikes."""
    x_RD = encoder.encode(slates.responses).astype(np.float64)
    both = np.concatenate([pairs.safe_I, pairs.unsafe_I])
    safe = np.arange(len(both)) < len(pairs)
    weights_D, intercept = solve(x_RD[both], safe, RIDGE)
    return -(x_RD @ weights_D + intercept)


def vectors(margin_I: Floats, x_2ID: tuple[Floats, Floats], cap: float, many: int, seed: int) -> tuple[Floats, Floats]:
    """Safety accuracy of ``many`` linear tastes within the cap, as drawn and after optimising (V,).

    ``margin_I`` is the shared margin safe minus unsafe, ``x_2ID`` the features of the safe and the unsafe responses. A
    taste d(x) = x . theta is drawn with a scale between a hundredth of the cap and a hundred caps, then follows the
    gradient of the number of flipped pairs, made smooth.
    """
    safe_ID, unsafe_ID = x_2ID
    rng = np.random.default_rng([seed, 43])
    spread = float(np.sqrt((np.concatenate(x_2ID) ** 2).sum(axis=1).mean())) or 1.0
    drawn, climbed = [], []
    for start in range(0, many, BATCH):
        size = min(BATCH, many - start)
        scale_V = cap * 10.0 ** rng.uniform(-2, 2, size) / spread
        theta_DV = rng.standard_normal((safe_ID.shape[1], size)) * scale_V
        reached = []
        for step in range(STEPS + 1):
            bent_safe, bent_unsafe = np.tanh(safe_ID @ theta_DV / cap), np.tanh(unsafe_ID @ theta_DV / cap)
            margin_IV = margin_I[:, None] + cap * (bent_safe - bent_unsafe)
            reached.append((margin_IV > 0).mean(axis=0))
            if step == STEPS:
                break
            steep_IV = 1 / (1 + np.exp(np.clip(margin_IV / cap * 4, -50, 50)))
            steep_IV *= 1 - steep_IV  # the pairs that are near to flipping count
            steep_IV += 1e-3
            slope_DV = safe_ID.T @ (steep_IV * (1 - bent_safe**2)) - unsafe_ID.T @ (steep_IV * (1 - bent_unsafe**2))
            length_V = np.sqrt((slope_DV**2).sum(axis=0)) + 1e-30
            theta_DV -= RATE * cap / spread * slope_DV / length_V * np.sqrt(safe_ID.shape[1])
        drawn.append(reached[0])
        climbed.append(np.min(reached, axis=0))
    return np.concatenate(drawn), np.concatenate(climbed)
