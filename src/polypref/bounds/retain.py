"""Anchors: a retain set for reward models, so that learning from users forgets less. A mitigation, not a bound.

The intended loss, with safety (or other) pairs as anchors and the shared model's reward r_0 as base, is

    L = L_user + mu L_BT(anchors) + nu mean over anchors of (dr - dr_0)^2        dr = r(chosen) - r(rejected)

Here it is expressed as judgements: every user gets a judgement of every anchor, and a user's anchors together weigh mu
times the user's own judgements. So any learner can be fitted on them, on features or by fine-tuning. What we changed:
the squared distance is replaced by the cross entropy to the base's probabilities (each anchor in both directions, by
sigmoid(dr_0)); it has the same minimum, at dr = dr_0, with curvature p (1 - p) instead of 2.

Always run the control as well: the same mu with anchors unrelated to safety.

Covered: users with few judgements have light anchors; users' own weights, ties and order do not change. Not covered:
any guarantee, since enough opposed judgements of a user outweigh the anchors, and pairs unlike the anchors are not
protected. The rows grow by users times anchors, three times that with mu and nu. Validation rows hold no anchors.

Suffixes here: ``_K`` users with judgements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from scipy.special import expit

from polypref.comparisons import Comparisons, FloatArray, concat
from polypref.data.pool import Pool
from polypref.errors import NotEnoughData, SettingsError
from polypref.learners.protocol import Scorer, population_margins


@dataclass(frozen=True)
class Retain:
    """Weight of a user's anchors; 1 is the weight of all of the user's own training rows (without rows that choose
    settings and then join the final fit).

    ``mu``  of the anchors as they were judged.
    ``nu``  of the base's predictions for them; needs a base.
    """

    mu: float = 1.0
    nu: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mu", "nu"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise SettingsError(f"{name} is {value!r}; expected a weight, 0 or more.")


@dataclass(frozen=True, eq=False)
class Anchored:
    """``train`` followed by the anchors, and ``valid`` unchanged, over one pool, as learners need them."""

    train: Comparisons
    valid: Comparisons


def with_anchors(
    train: Comparisons, valid: Comparisons, anchors: Comparisons, how: Retain, base: Scorer | None = None
) -> Anchored:
    """The judgements of ``train``, then those of ``anchors`` (who judged them does not matter) by each of its users.

    ``base``  whose population's reward ``how.nu`` holds on to. Users without any weight in ``train`` get no anchors.
    Raises NotEnoughData without anchors, SettingsError for ``nu`` without a base.
    """
    assert train.responses is valid.responses and train.users is valid.users, "parts of one data set only"
    total = anchors.weights_N.sum()
    if not total > 0:
        raise NotEnoughData("no anchor weighs anything; expected one judgement or more, of safety pairs for instance.")
    if how.nu and base is None:
        raise SettingsError(f"nu is {how.nu:g} and there is no base; give base, or set nu to 0.")
    train, valid, told = _one_pool(train, valid, anchors)
    share_N = anchors.weights_N / total
    parts = [_by_each(train, told, how.mu * share_N)] if how.mu else []
    if how.nu and base is not None:
        chance_N, said = expit(population_margins(base, told).value_Q), replace(told, tie_N=None)
        parts.append(_by_each(train, said, how.nu * share_N * chance_N))
        parts.append(_by_each(train, said.swapped(), how.nu * share_N * (1 - chance_N)))
    return Anchored(reduce(concat, parts, train), valid)


def _one_pool(train: Comparisons, valid: Comparisons, anchors: Comparisons) -> list[Comparisons]:
    """All three over one pool of texts and the users of ``train``."""
    pool, code_R = Pool(), {}
    for found in (train.responses, anchors.responses):
        prompt_P = pool.prompts(found.prompts, found.is_chat_P)
        code_R[id(found)] = pool.responses(found.texts_R, prompt_P[found.prompt_R])
    responses, _ = pool.finish(None)
    return [
        replace(
            part,
            responses=responses,
            users=train.users,
            chosen_N=code_R[id(part.responses)][part.chosen_N],
            rejected_N=code_R[id(part.responses)][part.rejected_N],
        )
        for part in (train, valid, anchors)
    ]


def _by_each(train: Comparisons, anchors: Comparisons, share_N: FloatArray) -> Comparisons:
    """``anchors`` as judged by each user of ``train``, at ``share_N`` of the user's own weight."""
    own_U = np.bincount(train.user_N, train.weights_N, len(train.users))
    user_K = np.flatnonzero(own_U > 0).astype(np.int32)
    row_N = np.tile(np.arange(len(anchors)), len(user_K))
    user_N = np.repeat(user_K, len(anchors))
    told = replace(anchors, time_N=None, pair_N=None, weight_N=None).take(row_N)
    return replace(told, user_N=user_N, weight_N=own_U[user_N] * share_N[row_N])
