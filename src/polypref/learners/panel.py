"""Between the nouns and the solver: comparisons to a ``mixed.Problem``, and its effects to a scorer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Users
from polypref.learners import mixed
from polypref.learners.inputs import Inputs
from polypref.learners.linear import LinearScorer, ResponseEffects


@dataclass(frozen=True, eq=False)
class Panel:
    """Training rows with users and responses renumbered to those that occur: ``users_U`` and ``responses_R``."""

    inputs: Inputs
    train: Comparisons
    users_U: IntArray
    responses_R: IntArray
    task: mixed.Problem

    @classmethod
    def build(cls, train: Comparisons, inputs: Inputs) -> Panel:
        """Renumber, compute the inputs, sort into clusters."""
        users_U, user_N = np.unique(train.user_N, return_inverse=True)
        both = np.concatenate([train.chosen_N, train.rejected_N])
        responses_R, at_2N = np.unique(both, return_inverse=True)
        x_RK = inputs(train.responses.take(responses_R))
        n = len(train)
        task = mixed.problem(x_RK, user_N, at_2N[:n], at_2N[n:], train.label_N, train.weights_N)
        return cls(inputs, train, users_U, responses_R, task)

    def user_table(self) -> Users:
        """The users of the panel, in its order."""
        return Users(self.train.users.ids.gather(self.users_U))

    def margins(self, effects: mixed.Effects, personal: float, rows: Comparisons) -> NDArray[np.floating]:
        """Reward differences of other ``rows`` of the data set; unseen users and texts have no effects of their own."""
        scorer = self.scorer(effects, personal, {})
        return scorer_margins(scorer, rows)

    def scorer(
        self,
        effects: mixed.Effects,
        personal: float,
        selection: Mapping[str, float | str],
        kind: type[LinearScorer] = LinearScorer,
    ) -> LinearScorer:
        """The effects as an immutable scorer."""
        weights_UK = effects.w_K + effects.d_UK
        return kind(
            self.inputs, effects.w_K, self.user_table(), weights_UK, self.response_effects(effects, personal), selection
        )

    def response_effects(self, effects: mixed.Effects, personal: float) -> ResponseEffects:
        """Response effects by content key; empty when the model has none."""
        if not effects.a_R.any() and personal == 0:
            return ResponseEffects()
        keys = self.train.responses.keys_R[self.responses_R]
        order = np.argsort(keys)
        rank_R = np.empty(len(keys), np.int32)
        rank_R[order] = np.arange(len(keys))
        user: list[NDArray] = [np.zeros(0, np.int32)]
        response: list[NDArray] = [np.zeros(0, np.int32)]
        own: list[NDArray] = [np.zeros(0)]
        for bucket, alpha_BS in zip(self.task.buckets, effects.alpha, strict=True):
            used_BS = bucket.response_BS < len(keys)
            if personal > 0:
                user.append(np.repeat(bucket.user_B, used_BS.sum(axis=1)))
                response.append(rank_R[bucket.response_BS[used_BS]])
                own.append(personal * alpha_BS[used_BS])
        user_E, response_E, own_E = np.concatenate(user), np.concatenate(response), np.concatenate(own)
        sort = np.lexsort((response_E, user_E))
        return ResponseEffects(keys[order], effects.a_R[order], user_E[sort], response_E[sort], own_E[sort])


def scorer_margins(scorer: LinearScorer, rows: Comparisons) -> NDArray[np.floating]:
    """``protocol.margins`` of a linear scorer, values only."""
    from polypref.learners.protocol import margins

    return margins(scorer, rows).value_Q
