"""The placebo arm: training rows with shuffled user ids, which leave nothing to personalise.

Each judgement keeps its texts and its outcome, and each user keeps a number of judgements, but who judged what is drawn
at random. A learner's gain here over the population baseline is not personal: it is a better population part, a leak,
or luck.

Covered: anything that a learner could gain without knowing whose judgement it was. Shuffling is over all rows of a
part, not within pairs: within a pair of k judges, one label in k would stay with its owner, and all of them if judges
agree, so the placebo itself would carry taste.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from polypref.comparisons import Comparisons


def shuffle_users(comparisons: Comparisons, seed: int) -> Comparisons:
    """The same judgements with the users' ids permuted over rows; each user keeps the number of judgements."""
    order = np.random.default_rng([seed, 2]).permutation(len(comparisons))
    return replace(comparisons, user_N=comparisons.user_N[order])
