"""Turns comparisons into a ``mixed.Problem`` for the solver, and the solved effects into a scorer.

Suffixes here: ``_B`` clusters of a bucket, ``_C`` cells of a user and a prompt, ``_E`` entries: a response as one user
saw it, ``_L`` the clusters' slots for responses (padded), ``_M`` responses of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, FloatArray, IntArray, Users
from polypref.learners.bradley_terry import mixed, newton
from polypref.learners.bradley_terry.variances import Estimate, estimate
from polypref.learners.canonical_order import Numbering
from polypref.learners.inputs import Inputs
from polypref.learners.linear import LinearScorer, ResponseEffects
from polypref.learners.swapped import SWAPS, differences

MANY = 2048  # maximum texts of one prompt between which views carry over
FEW = 16  # up to this many texts per prompt, many prompts are processed at once
PORTION = 1 << 22  # numbers held at once


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
    swaps: float

    @classmethod
    def build(
        cls,
        train: Comparisons,
        inputs: Inputs,
        share: float | None = None,
        precision: type[np.floating] = np.float64,
        swaps: float = SWAPS,
    ) -> Panel:
        """Renumber, compute the inputs; ``share`` as in ``mixed.Likeness``, ``precision`` as in ``mixed.problem``.

        Without ``share`` users have no views of single texts. ``swaps``: the weight of all answers swapped between
        questions together, as a share of the judgements' (``swapped``); 0: none.
        """
        numbers = Numbering.of(train)
        x_RK = inputs(train.responses.take(numbers.responses_R))
        numbered = (numbers.users_U, numbers.responses_R, x_RK, *numbers.judges(train))
        return cls(inputs, train, *numbered, share, precision, swaps)

    @cached_property
    def task(self) -> mixed.Problem:
        """The rows in the form of the mixed model's solver."""
        likeness = None if self.share is None else mixed.Likeness(self.share, self.inputs.kinds[0])
        judges = (self.user_N, self.chosen_N, self.rejected_N)
        labels = (self.train.label_N, self.train.weights_N)
        task = mixed.problem(self.x_RK, judges, *labels, likeness, self.prompt_R, self.precision)
        return replace(task, kinds=self.inputs.kinds, agreed=self._agreed)

    @property
    def _agreed(self) -> mixed.Agreed | None:
        """Answers that stay with their questions against the same swapped, if there are any."""
        if not self.swaps:
            return None
        x_XK = differences(self.inputs, self.train.responses.take(self.responses_R))
        return mixed.Agreed(x_XK, self.swaps * float(self.train.weights_N.sum()) / len(x_XK)) if len(x_XK) else None

    def pooled_weights(self, seed: int) -> FloatArray:
        """Weights (K,) of the one reward for everyone that fits the rows, without response effects."""
        return self.population(False, seed)[0].w_K

    def population(self, shared: bool, seed: int) -> tuple[mixed.Effects, mixed.Variances]:
        """The one reward for everyone that fits the rows, with response effects or without, and its variances."""
        effects, prior = estimate(self.task, Estimate(spread=False, personal=False, shared=shared), seed)
        return newton.solve(self.task, prior, effects), prior

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
        """Response effects by content key; empty if the model has none.

        ``variance`` of users' views, as ``newton.posterior`` gives it; the prior's if not given.
        """
        if not effects.a_R.any() and personal == 0:
            return ResponseEffects()
        key_R = self.train.responses.identity_R[self.responses_R]
        ascending = np.argsort(key_R, kind="stable")
        texts = (key_R[ascending], effects.a_R[ascending])
        if personal == 0:
            return ResponseEffects(*texts)
        user_E, response_E, own_E, variance_E = self._views(effects, personal, variance)
        response_E = np.argsort(ascending).astype(np.int32)[response_E]
        sort = np.lexsort((response_E, user_E))
        return ResponseEffects(*texts, user_E[sort], response_E[sort], own_E[sort], variance_E[sort])

    @cached_property
    def prompt_R(self) -> IntArray:
        """The prompt of each of the panel's responses."""
        return self.train.responses.prompt_R[self.responses_R]

    def _views(
        self, effects: mixed.Effects, personal: float, variance: Sequence[NDArray] | None
    ) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """Each user's view of each text beyond the linear reward, as (user, response, view, variance) entries.

        This is b of the texts that they judged and, if these are one cluster of their prompt, its prediction for the
        prompt's other training texts.
        """
        r = len(self.responses_R)
        user, response, alpha, own, left, cluster = [], [], [], [], [], []
        clusters = 0
        for number, (bucket, alpha_BL) in enumerate(zip(self.task.buckets, effects.alpha, strict=True)):
            used_BL = bucket.response_BL < r
            slots = used_BL.sum(axis=1)
            user.append(np.repeat(bucket.user_B, slots))
            response.append(bucket.response_BL[used_BL])
            alpha.append(alpha_BL[used_BL])
            own.append(personal * (bucket.alike_BLL @ alpha_BL[..., None])[..., 0][used_BL])
            left.append(np.full(slots.sum(), personal) if variance is None else variance[number][used_BL])
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
        """Views of training texts that a user did not judge, if those that they judged are one cluster.

        Entries are (user, response, view). Prompts with more than ``MANY`` texts are left out, since the cost is
        quadratic.
        """
        assert self.task.likeness is not None
        order_R = np.argsort(self.prompt_R, kind="stable")
        _, first_P, prompt_R, size_P = np.unique(
            self.prompt_R[order_R], return_index=True, return_inverse=True, return_counts=True
        )
        place_R = np.empty((2, len(order_R)), np.int64)  # each response's prompt, and its place among that prompt's
        place_R[:, order_R] = prompt_R, np.arange(len(order_R)) - first_P[prompt_R]
        prompt_E, slot_E = place_R[:, response_E]
        # a group is one user's entries of one prompt; groups are sorted by prompt
        group_C, group_E, entries_C = np.unique(
            prompt_E * (user_E.max() + 1) + user_E, return_inverse=True, return_counts=True
        )
        prompt_C, user_C = np.divmod(group_C, user_E.max() + 1)
        couples = np.unique(group_E * (cluster_E.max() + 1) + cluster_E) // (cluster_E.max() + 1)
        size_C = size_P[prompt_C]
        open_C = (np.bincount(couples) == 1) & (entries_C < size_C) & (size_C <= MANY)
        kept = np.lexsort((prompt_C, size_C))
        kept = kept[open_C[kept]]
        rank_C = np.full(len(group_C), -1)
        rank_C[kept] = np.arange(len(kept))
        entry = np.argsort(rank_C[group_E], kind="stable")
        rank = rank_C[group_E[entry]]
        parts = []
        for low, high in _portions(size_C[kept], prompt_C[kept]):
            mine = slice(*np.searchsorted(rank, [low, high]))
            dual_CM = np.zeros((high - low, size_C[kept[low]]))
            fresh_CM = np.ones(dual_CM.shape, bool)
            dual_CM[rank[mine] - low, slot_E[entry[mine]]] = weight_E[entry[mine]]
            fresh_CM[rank[mine] - low, slot_E[entry[mine]]] = False
            prompts, prompt = np.unique(prompt_C[kept[low:high]], return_inverse=True)
            members_PM = order_R[first_P[prompts][:, None] + np.arange(dual_CM.shape[1])]
            alike_PMM = self.task.likeness(self.x_RK[members_PM])
            at_group, at_member = np.nonzero(fresh_CM)
            if len(prompts) == 1:
                view_CM = dual_CM @ alike_PMM[0]
            else:
                view_CM = (dual_CM[:, None] @ alike_PMM[prompt])[:, 0]
            members = members_PM[prompt[at_group], at_member]
            parts.append((user_C[kept[low + at_group]], members, view_CM[at_group, at_member]))
        return parts


def _portions(size_C: NDArray, prompt_C: NDArray) -> Iterator[tuple[int, int]]:
    """Ranges of groups (sorted by size, then prompt) to process at once: one prompt, or many with equally few texts."""
    few = int(np.searchsorted(size_C, FEW, "right"))
    for size in np.unique(size_C[:few]).tolist():
        low, high = np.searchsorted(size_C, [size, size + 1]).tolist()
        step = PORTION // size**2
        yield from ((at, min(at + step, high)) for at in range(low, high, step))
    edges = few + np.flatnonzero(np.diff(prompt_C[few:], prepend=-1))
    yield from pairwise([*edges.tolist(), len(prompt_C)])


def scorer_margins(scorer: LinearScorer, rows: Comparisons) -> NDArray[np.floating]:
    """``protocol.margins`` of a linear scorer, values only."""
    from polypref.learners.protocol import margins

    return margins(scorer, rows).value_Q
