"""Episodes for learners that read a user's own judgements: contexts, targets, and random batches of both.

A user's judgements of one text pair are merged into one. Its texts are ordered by content, and its label is the share
of the weight on the first text, so ties, repeats and contradictions need no special rule. So a context never contains
its target's pair, not even from another row.

An *episode* is some judgements of one user: a context of random size, possibly empty, and targets. Every pass over the
data splits each user's judgements into new episodes. They are drawn by content and seed, so neither the order of a file
nor a user's name matters. Contexts have unequal sizes: empty places have weight 0.

Suffixes here: ``_C`` places of a context, ``_E`` episodes, ``_I`` merged judgements, ``_L`` places, ``_T`` places of
the targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, FloatArray, IntArray
from polypref.learners.canonical_order import Numbering

if TYPE_CHECKING:
    from torch import Tensor

BARE = 0.125  # share of the episodes without context, so that the answer for strangers is trained too


@dataclass(frozen=True, eq=False)
class Judged:
    """Merged judgements, by user and then by content; users and responses in the numbers of a ``Numbering``.

    ``label_I`` is the share of ``weight_I`` on the first of the two responses, weights have mean 1. Row n of the
    comparisons is item ``item_N[n]``, with the texts swapped where ``turned_N[n]``.
    """

    user_I: IntArray
    first_I: IntArray
    second_I: IntArray
    label_I: FloatArray
    weight_I: FloatArray
    item_N: IntArray
    turned_N: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Comparisons, numbers: Numbering) -> Self:
        """Merge ``rows``, all of which must have positive weight."""
        user_N, chosen_N, rejected_N = (code_N.astype(np.int64) for code_N in numbers.judges(rows))
        many = len(numbers.responses_R)
        turned_N = chosen_N > rejected_N
        first_N, second_N = np.minimum(chosen_N, rejected_N), np.maximum(chosen_N, rejected_N)
        code_I, item_N = np.unique((user_N * many + first_N) * many + second_N, return_inverse=True)
        weight_I = np.bincount(item_N, rows.weights_N, len(code_I))
        share_N = np.where(turned_N, 1.0 - rows.label_N, rows.label_N)
        share_N[first_N == second_N] = 0.5  # a text against itself carries no information
        label_I = np.bincount(item_N, rows.weights_N * share_N, len(code_I)) / weight_I
        pair_I, second_I = np.divmod(code_I, many)
        user_I, first_I = np.divmod(pair_I, many)
        if len(weight_I):
            weight_I = weight_I / weight_I.mean()
        user, first, second, item = (code.astype(np.int32) for code in (user_I, first_I, second_I, item_N))
        return cls(user, first, second, label_I.astype(np.float32), weight_I.astype(np.float32), item, turned_N)

    def __len__(self) -> int:
        return len(self.user_I)

    def without(self, other: Judged) -> Judged:
        """The items whose user did not judge the same pair in ``other``."""
        mine_3I, their_3I = (np.stack([judged.user_I, judged.first_I, judged.second_I]) for judged in (self, other))
        both = np.concatenate([their_3I, mine_3I], axis=1)
        _, at = np.unique(both, axis=1, return_inverse=True)
        at = at.ravel()
        return self.take(np.flatnonzero(~np.isin(at[len(other) :], at[: len(other)])))

    def take(self, items: NDArray) -> Judged:
        """The items numbered ``items``, no longer linked to rows."""
        cut = {name: getattr(self, name)[items] for name in ("user_I", "first_I", "second_I", "label_I", "weight_I")}
        return replace(self, **cut, item_N=np.zeros(0, np.int32), turned_N=np.zeros(0, bool))

    def spread(self, margin_I: NDArray) -> NDArray[np.float64]:
        """Reward(chosen) - reward(rejected) of each row from reward(first) - reward(second) of each item."""
        margin_N = np.asarray(margin_I, np.float64)[self.item_N]
        return np.where(self.turned_N, -margin_N, margin_N)

    @cached_property
    def columns(self) -> tuple[Tensor, ...]:
        """First, second, label and weight as tensors."""
        import torch

        codes = (torch.from_numpy(code_I.astype(np.int64)) for code_I in (self.first_I, self.second_I))
        return (*codes, *(torch.from_numpy(np.float32(column)) for column in (self.label_I, self.weight_I)))

    def pairs(self, item_EL: NDArray, here_EL: NDArray) -> Pairs:
        """The items numbered ``item_EL`` as tensors of that shape; their weight is 0 where ``here_EL`` is False."""
        import torch

        at, here = torch.from_numpy(np.where(here_EL, item_EL, 0)), torch.from_numpy(here_EL)
        first, second, label, weight = (column[at] for column in self.columns)
        return Pairs(first, second, label, weight * here)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Judgements as tensors of one shape; weight 0: an empty place."""

    first: Tensor
    second: Tensor
    label: Tensor
    weight: Tensor

    def take(self, index: tuple[Tensor, ...]) -> Pairs:
        """The judgements at these places."""
        return Pairs(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Episodes:
    """E contexts (E, C) with their targets (E, T)."""

    context: Pairs
    target: Pairs

    def loss(self, margin_ET: Tensor) -> Tensor:
        """Weighted mean of -log P(label) over the targets."""
        from torch.nn.functional import softplus

        target = self.target
        loss_ET = softplus(-margin_ET) + (1.0 - target.label) * margin_ET
        return (target.weight * loss_ET).sum() / (target.weight > 0).sum()


def parts(user_I: IntArray, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and lengths of parts of each user's run in ``user_I`` (ascending): similar lengths, at most ``size``."""
    _, start_U, count_U = np.unique(user_I, return_index=True, return_counts=True)
    place_I = np.arange(len(user_I)) - np.repeat(start_U, count_U)
    many_I, count_I = np.repeat(-(-count_U // size), count_U), np.repeat(count_U, count_U)
    part_I = place_I * many_I // np.maximum(count_I, 1)
    new_I = np.append(True, (np.diff(user_I) != 0) | (np.diff(part_I) != 0))[: len(user_I)]
    start_E = np.flatnonzero(new_I)
    return start_E, np.diff(np.append(start_E, len(user_I)))


def padded(start_E: NDArray, length_E: NDArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places ``start .. start + length`` of each episode in a row, (E, L), and which of them exist; L >= 1."""
    place_L = np.arange(max(int(length_E.max(initial=0)), 1))
    return start_E[:, None] + place_L, place_L < length_E[:, None]


@dataclass(frozen=True)
class Sizes:
    """Maximum judgements in a context, targets with the largest context, and judgements in a batch."""

    context: int
    targets: int
    batch: int


def practice(judged: Judged, sizes: Sizes, seed: int) -> Iterator[Episodes]:
    """Endless batches of episodes; each pass splits every user's judgements into new contexts and targets."""
    rng = np.random.default_rng(seed)
    while True:
        shuffled_I = np.lexsort((rng.random(len(judged)), judged.user_I))
        start_E, length_E = parts(judged.user_I, sizes.context + sizes.targets)
        many_E = np.minimum(length_E - 1, sizes.context) + 1
        context_E = (rng.random(len(start_E)) * many_E).astype(np.int64) * (rng.random(len(start_E)) >= BARE)
        for batch in _batches(length_E, sizes.batch, rng):
            start, context, length = start_E[batch], context_E[batch], length_E[batch]
            index_EC, here_EC = padded(start, context)
            index_ET, here_ET = padded(start + context, length - context)
            last = len(judged) - 1
            known = judged.pairs(shuffled_I[np.minimum(index_EC, last)], here_EC)
            targets = judged.pairs(shuffled_I[np.minimum(index_ET, last)], here_ET)
            yield Episodes(known, targets)


def _batches(length_E: NDArray, size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Random batches of episodes of similar length, about ``size`` judgements each, with little padding."""
    like_E = np.ceil(np.log2(length_E)).astype(np.int64)
    order_E = np.lexsort((rng.random(len(length_E)), like_E))
    before_E = np.cumsum(length_E[order_E]) - length_E[order_E]
    key_E = np.stack([like_E[order_E], before_E // size])
    cuts = np.flatnonzero((np.diff(key_E) != 0).any(axis=0)) + 1
    batches = np.split(order_E, cuts)
    return [batches[b] for b in rng.permutation(len(batches))]


def contexts(judged: Judged, most: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], IntArray]:
    """At most ``most`` items of each user, a seeded choice by content.

    Returns the items, (I',), sorted by user, the start of each user's items, and the users.
    """
    rng = np.random.default_rng(seed)
    shuffled_I = np.lexsort((rng.random(len(judged)), judged.user_I))
    users, start_U, count_U = np.unique(judged.user_I, return_index=True, return_counts=True)
    place_I = np.arange(len(judged)) - np.repeat(start_U, count_U)
    chosen = shuffled_I[place_I < most]
    return chosen, np.cumsum(np.minimum(count_U, most)) - np.minimum(count_U, most), users
