"""Judgements in training order, and as the network's input; the order depends only on data and seed.

A step's judgements do not depend on the number of processes or the size of their pieces: position p of the plan belongs
to step ``p // batch``, and a piece is a run of positions.

Suffixes here: ``_I`` positions of the training order, ``_V`` views of a judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.features.transformer import Tokens
from polypref.finetune.texts import Reader
from polypref.learners.canonical_order import Numbering


@dataclass(frozen=True, eq=False)
class Batches:
    """Makes the network's input for any positions of a plan.

    ``row_I``    the judgement at each position.
    ``shares``   weight of the loss under the judging user, and under the generic user; views without weight
                 are left out. Every judgement is read under both, so the meaning of the shares does not depend on how a
                 batch is cut.
    """

    reader: Reader
    texts_R: Sequence[Tokens]
    user_N: NDArray[np.int64]
    chosen_N: NDArray[np.int64]
    rejected_N: NDArray[np.int64]
    label_N: NDArray[np.float32]
    weight_N: NDArray[np.float32]
    row_I: NDArray[np.int64]
    shares: tuple[float, float]

    def __len__(self) -> int:
        return len(self.row_I)

    def __call__(self, positions: Sequence[int]) -> dict[str, Any]:
        """``label_B``, ``weight_B``, ``share_BV``, ``row_B`` and the network's arguments: B x V x 2 texts, flat."""
        import torch

        row_B = self.row_I[np.asarray(positions)]
        views = [(self.user_N[row_B], self.shares[0]), (np.zeros(len(row_B), np.int64), self.shares[1])]
        views = [(user_B, share) for user_B, share in views if share > 0]
        user_BV2 = np.repeat(np.stack([user_B for user_B, _ in views], axis=1)[:, :, None], 2, axis=2)
        pair_B2 = np.stack([self.chosen_N[row_B], self.rejected_N[row_B]], axis=1)
        response_BV2 = np.broadcast_to(pair_B2[:, None], user_BV2.shape)
        texts = [self.texts_R[r] for r in response_BV2.ravel().tolist()]
        return {
            "label_B": torch.from_numpy(self.label_N[row_B]),  # first, since Trainer takes its length as the batch's
            "weight_B": torch.from_numpy(self.weight_N[row_B]),
            "share_V": torch.tensor([share for _, share in views]),
            "row_B": torch.from_numpy(row_B),
            "network": {"texts": self.reader.inputs(texts, user_BV2.ravel().tolist())},
        }


def plan(rows: Comparisons, steps: int, batch: int, seed: int) -> NDArray[np.int64]:
    """The judgement at each of ``steps * batch`` positions: repeated passes over all rows, each in a different order.

    The passes start from an order by content, so the file's order does not matter.
    """
    numbers = Numbering.of(rows)
    user_N, chosen_N, _ = numbers.judges(rows)
    by_content = np.lexsort((chosen_N, user_N, rows.pair_key_N))
    rng = np.random.default_rng([seed, 2])
    passes = -(-steps * batch // len(rows))
    return np.concatenate([by_content[rng.permutation(len(rows))] for _ in range(passes)])[: steps * batch]
