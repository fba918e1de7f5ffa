"""Between the nouns and the solver: comparisons to a ``mixed.Problem``, and its effects to a scorer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from polypref.comparisons import Comparisons, FloatArray, IntArray, Users
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
    x_RK: FloatArray
    user_N: IntArray
    chosen_N: IntArray
    rejected_N: IntArray
    share: float
    precision: type[np.floating]

    @classmethod
    def build(
        cls, train: Comparisons, inputs: Inputs, share: float = 0.0, precision: type[np.floating] = np.float64
    ) -> Panel:
        """Renumber, compute the inputs; ``share`` as in ``mixed.Likeness``, ``precision`` as in ``mixed.problem``."""
        users_U, user_N = np.unique(train.user_N, return_inverse=True)
        both = np.concatenate([train.chosen_N, train.rejected_N])
        responses_R, at_2N = np.unique(both, return_inverse=True)
        x_RK = inputs(train.responses.take(responses_R))
        user_N, at_2N, n = user_N.astype(np.int32), at_2N.astype(np.int32), len(train)
        return cls(inputs, train, users_U, responses_R, x_RK, user_N, at_2N[:n], at_2N[n:], share, precision)

    @cached_property
    def task(self) -> mixed.Problem:
        """The rows as the mixed model's solver sees them."""
        likeness = mixed.Likeness(self.share, self.inputs.size - 2)
        judges = (self.user_N, self.chosen_N, self.rejected_N)
        return mixed.problem(self.x_RK, judges, self.train.label_N, self.train.weights_N, likeness, self.precision)

    def user_table(self) -> Users:
        """The users of the panel, in its order."""
        return Users(self.train.users.ids.gather(self.users_U))

    def margins(self, effects: mixed.Effects, prior: mixed.Variances, rows: Comparisons) -> NDArray[np.floating]:
        """Reward differences of other ``rows`` of the data set; unseen users and texts have no effects of their own."""
        scorer = self.scorer(effects, prior, {})
        return scorer_margins(scorer, rows)

    def scorer(
        self,
        effects: mixed.Effects,
        prior: mixed.Variances,
        selection: Mapping[str, float | str],
        kind: type[LinearScorer] = LinearScorer,
    ) -> LinearScorer:
        """The effects as an immutable scorer."""
        weights_UK = effects.w_K + effects.t_UK @ prior.spread_KK
        return kind(
            self.inputs,
            effects.w_K,
            self.user_table(),
            weights_UK,
            self.response_effects(effects, prior.personal),
            selection,
        )

    def response_effects(self, effects: mixed.Effects, personal: float) -> ResponseEffects:
        """Response effects by content key; empty when the model has none."""
        if not effects.a_R.any() and personal == 0:
            return ResponseEffects()
        keys = self.train.responses.keys_R[self.responses_R]
        order = np.argsort(keys)
        rank_R = np.empty(len(keys), np.int32)
        rank_R[order] = np.arange(len(keys))
        if personal == 0:
            return ResponseEffects(keys[order], effects.a_R[order])
        user_E, response_E, own_E = self._views(effects, personal)
        response_E = rank_R[response_E]
        sort = np.lexsort((response_E, user_E))
        return ResponseEffects(keys[order], effects.a_R[order], user_E[sort], response_E[sort], own_E[sort])

    def _views(self, effects: mixed.Effects, personal: float) -> tuple[IntArray, IntArray, NDArray[np.floating]]:
        """What each user thinks of each text beyond the linear reward: b of the texts they judged, and, as far as those
        are alike, of the other training texts of the same prompts."""
        r = len(self.responses_R)
        entries = [(b.user_B, b.response_BS, alpha) for b, alpha in zip(self.task.buckets, effects.alpha, strict=True)]
        used = [response_BS < r for _, response_BS, _ in entries]
        user_E = np.concatenate([np.repeat(u, m.sum(axis=1)) for (u, _, _), m in zip(entries, used, strict=True)])
        response_E = np.concatenate([response[m] for (_, response, _), m in zip(entries, used, strict=True)])
        alpha_E = np.concatenate([alpha[m] for (_, _, alpha), m in zip(entries, used, strict=True)])
        prompt_R = self.train.responses.prompt_R[self.responses_R]
        parts = []
        for entry, members in _by_prompt(prompt_R[response_E], prompt_R):
            users, row = np.unique(user_E[entry], return_inverse=True)
            dual = csr_array(
                (alpha_E[entry], (row, np.searchsorted(members, response_E[entry]))), shape=(len(users), len(members))
            )
            view = personal * (dual @ self.task.likeness(self.x_RK[members][None])[0])
            parts.append((np.repeat(users, len(members)), np.tile(members, len(users)), view.ravel()))
        user, response, own = (np.concatenate(part) for part in zip(*parts, strict=True))
        kept = own != 0.0
        return user[kept].astype(np.int32), response[kept].astype(np.int32), own[kept]


def _by_prompt(prompt_E: NDArray, prompt_R: NDArray) -> Iterator[tuple[NDArray, NDArray]]:
    """For each prompt: its entries, and its responses, ascending."""
    order_E, order_R = np.argsort(prompt_E, kind="stable"), np.argsort(prompt_R, kind="stable")
    for prompt in np.unique(prompt_E):
        cut_E = np.searchsorted(prompt_E[order_E], [prompt, prompt + 1])
        cut_R = np.searchsorted(prompt_R[order_R], [prompt, prompt + 1])
        yield order_E[slice(*cut_E)], order_R[slice(*cut_R)]


def scorer_margins(scorer: LinearScorer, rows: Comparisons) -> NDArray[np.floating]:
    """``protocol.margins`` of a linear scorer, values only."""
    from polypref.learners.protocol import margins

    return margins(scorer, rows).value_Q
