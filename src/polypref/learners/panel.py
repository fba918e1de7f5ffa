"""Between the nouns and the solver: comparisons to a ``mixed.Problem``, and its effects to a scorer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from polypref.comparisons import Comparisons, FloatArray, IntArray, Users
from polypref.learners import mixed
from polypref.learners.inputs import Inputs
from polypref.learners.linear import LinearScorer, ResponseEffects

MANY = 2048  # texts of one prompt between which views carry over


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
    share: float | None
    precision: type[np.floating]

    @classmethod
    def build(
        cls, train: Comparisons, inputs: Inputs, share: float | None = None, precision: type[np.floating] = np.float64
    ) -> Panel:
        """Renumber, compute the inputs; ``share`` as in ``mixed.Likeness``, ``precision`` as in ``mixed.problem``.

        No ``share``: users have no views of single texts.
        """
        users_U, user_N = np.unique(train.user_N, return_inverse=True)
        both = np.concatenate([train.chosen_N, train.rejected_N])
        responses_R, at_2N = np.unique(both, return_inverse=True)
        x_RK = inputs(train.responses.take(responses_R))
        user_N, at_2N, n = user_N.astype(np.int32), at_2N.astype(np.int32), len(train)
        return cls(inputs, train, users_U, responses_R, x_RK, user_N, at_2N[:n], at_2N[n:], share, precision)

    @cached_property
    def task(self) -> mixed.Problem:
        """The rows as the mixed model's solver sees them."""
        likeness = None if self.share is None else mixed.Likeness(self.share, self.inputs.size - 2)
        judges = (self.user_N, self.chosen_N, self.rejected_N)
        labels = (self.train.label_N, self.train.weights_N)
        return mixed.problem(self.x_RK, judges, *labels, likeness, self.prompt_R, self.precision)

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
        variance: Sequence[NDArray] | None = None,
    ) -> LinearScorer:
        """The effects as an immutable scorer; ``variance`` as in ``response_effects``."""
        own = self.response_effects(effects, prior.personal, variance)
        weights_UK = effects.w_K + effects.t_UK @ prior.spread_KK
        return LinearScorer(self.inputs, effects.w_K, self.user_table(), weights_UK, own, selection)

    def response_effects(
        self, effects: mixed.Effects, personal: float, variance: Sequence[NDArray] | None = None
    ) -> ResponseEffects:
        """Response effects by content key; empty when the model has none.

        ``variance`` of users' views, as ``newton.posterior`` gives it; the prior's where it is not known.
        """
        if not effects.a_R.any() and personal == 0:
            return ResponseEffects()
        keys = self.train.responses.keys_R[self.responses_R]
        order = np.argsort(keys)
        rank_R = np.empty(len(keys), np.int32)
        rank_R[order] = np.arange(len(keys))
        if personal == 0:
            return ResponseEffects(keys[order], effects.a_R[order])
        user_E, response_E, own_E, variance_E = self._views(effects, personal, variance)
        response_E = rank_R[response_E]
        sort = np.lexsort((response_E, user_E))
        entries = (user_E[sort], response_E[sort], own_E[sort], variance_E[sort])
        return ResponseEffects(keys[order], effects.a_R[order], *entries)

    @cached_property
    def prompt_R(self) -> IntArray:
        """The prompt of each of the panel's responses."""
        return self.train.responses.prompt_R[self.responses_R]

    def _views(
        self, effects: mixed.Effects, personal: float, variance: Sequence[NDArray] | None
    ) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """What each user thinks of each text beyond the linear reward, as (user, response, view, variance) entries.

        b of the texts that they judged and, where these are one cluster of their prompt, what it says of the prompt's
        other training texts.
        """
        r = len(self.responses_R)
        user, response, alpha, own, left, cluster = [], [], [], [], [], []
        clusters = 0
        for number, (bucket, alpha_BS) in enumerate(zip(self.task.buckets, effects.alpha, strict=True)):
            used_BS = bucket.response_BS < r
            slots = used_BS.sum(axis=1)
            user.append(np.repeat(bucket.user_B, slots))
            response.append(bucket.response_BS[used_BS])
            alpha.append(alpha_BS[used_BS])
            own.append(personal * (bucket.alike_BSS @ alpha_BS[..., None])[..., 0][used_BS])
            left.append(np.full(slots.sum(), personal) if variance is None else variance[number][used_BS])
            cluster.append(np.repeat(clusters + np.arange(len(slots)), slots))
            clusters += len(slots)
        user_E, response_E, alpha_E = np.concatenate(user), np.concatenate(response), np.concatenate(alpha)
        parts = [(user_E, response_E, np.concatenate(own), np.concatenate(left))]
        if self.share:
            cluster_E = np.concatenate(cluster)
            carried = self._carried_over(user_E, response_E, personal * alpha_E, cluster_E)
            parts += [(*entries, np.full(len(entries[0]), personal)) for entries in carried]
        user_E, response_E, own_E, variance_E = (np.concatenate(part) for part in zip(*parts, strict=True))
        return user_E.astype(np.int32), response_E.astype(np.int32), own_E, variance_E

    def _carried_over(
        self, user_E: NDArray, response_E: NDArray, weight_E: NDArray, cluster_E: NDArray
    ) -> list[tuple[NDArray, NDArray, NDArray]]:
        """Views of training texts that a user did not judge, where those that they did judge are one cluster.

        As (user, response, view). Prompts with more than ``MANY`` texts are left out: the cost is its square.
        """
        prompt_E = self.prompt_R[response_E]
        assert self.task.likeness is not None
        parts = []
        for entry, members in _by_prompt(prompt_E, self.prompt_R):
            if len(members) > MANY:
                continue
            users, row = np.unique(user_E[entry], return_inverse=True)
            couple = np.unique(np.stack([row, cluster_E[entry]]), axis=1)
            single = np.bincount(couple[0], minlength=len(users)) == 1
            shape, column = (len(users), len(members)), np.searchsorted(members, response_E[entry])
            dual = csr_array((weight_E[entry], (row, column)), shape=shape)
            view = dual @ self.task.likeness(self.x_RK[members][None])[0]
            fresh = np.repeat(single[:, None], len(members), axis=1)
            fresh[row, column] = False
            at_user, at_member = np.nonzero(fresh)
            parts.append((users[at_user], members[at_member], view[at_user, at_member]))
        return parts


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
