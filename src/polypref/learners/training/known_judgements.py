"""The judgements of people that a network reads as contexts, as inputs and labels.

Suffixes here: ``_C`` places of a context, ``_E`` people, ``_I`` merged judgements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import IntArray
from polypref.learners.training.episodes import Judged, contexts, padded
from polypref.learners.training.gpo_network import Tokens
from polypref.learners.training.gradient_descent import Table

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("first_IK", "second_IK", "label_I", "weight_I")


@dataclass(frozen=True, eq=False)
class Known:
    """The known judgements of U people: ``count_U`` from ``start_U`` on, in random order, as inputs and labels.

    ``users`` are the people's numbers in the source table.
    """

    first_IK: NDArray[np.float32]
    second_IK: NDArray[np.float32]
    label_I: NDArray[np.float32]
    weight_I: NDArray[np.float32]
    count_U: IntArray
    users: IntArray

    @classmethod
    def of(cls, judged: Judged, table: Table, most: int, seed: int) -> Self:
        """At most ``most`` judgements of each user in ``judged``."""
        item_I, start_U, users = contexts(judged, most, seed)
        x_RK = table.x_RK.numpy()
        first_IK, second_IK = x_RK[judged.first_I[item_I]], x_RK[judged.second_I[item_I]]
        count_U = np.diff(np.append(start_U, len(item_I))).astype(np.int32)
        label_I, weight_I = judged.label_I[item_I], judged.weight_I[item_I]
        return cls(first_IK, second_IK, label_I.astype(np.float32), weight_I.astype(np.float32), count_U, users)

    def tokens(self, user_E: NDArray[np.integer], most: int) -> Tokens:
        """Contexts of people ``user_E`` with their first ``most`` judgements; number U has an empty context."""
        import torch

        starts = np.append(np.cumsum(self.count_U) - self.count_U, 0)
        count_E = np.minimum(np.append(self.count_U, 0)[user_E], most)
        index_EC, here_EC = padded(starts[user_E], count_E)
        if not len(self.label_I):
            x = torch.zeros(*index_EC.shape, self.first_IK.shape[1])
            label = weight = torch.zeros(index_EC.shape)
            return both(x, x, label, weight)
        at = np.where(here_EC, index_EC, 0)
        columns = (self.first_IK[at], self.second_IK[at], self.label_I[at], self.weight_I[at] * here_EC)
        return both(*map(torch.from_numpy, columns))

    def only(self, kept: IntArray) -> Known:
        """The judgements of the people at some places (ascending)."""
        kept_I = np.isin(np.repeat(np.arange(len(self.count_U)), self.count_U), kept)
        cut = {name: getattr(self, name)[kept_I] for name in COLUMNS}
        return replace(self, **cut, count_U=self.count_U[kept], users=self.users[kept])

    def ahead_of(self, earlier: Known, most: int) -> Known:
        """One person's judgements, then their earlier ones, ``most`` in all."""
        cut = {name: np.concatenate([getattr(self, name), getattr(earlier, name)])[:most] for name in COLUMNS}
        return replace(self, **cut, count_U=np.array([len(cut["label_I"])], np.int32))

    def with_more(self, other: Known) -> Known:
        """These people, followed by ``other``."""
        names = Known.__dataclass_fields__
        return Known(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


def both(first_ECK: Tensor, second_ECK: Tensor, label_EC: Tensor, weight_EC: Tensor) -> Tokens:
    """Two tokens per judgement, of opposite labels."""
    import torch

    sign_EC = 2.0 * label_EC - 1.0
    x_ECK, label = torch.cat([first_ECK, second_ECK], dim=1), torch.cat([sign_EC, -sign_EC], dim=1)
    return Tokens(x_ECK, label, torch.cat([weight_EC, weight_EC], dim=1).float())
