"""Gradient descent for the learners that need it: Adam on batches of judgements, stopped by validation rows.

Rows, users and texts are ordered by content (``canonical_order``) and drawn with a seeded generator, so neither the
order of a file nor a user's name changes a fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, Users, concat
from polypref.learners import validation
from polypref.learners.canonical_order import Numbering
from polypref.learners.inputs import Inputs

if TYPE_CHECKING:
    from torch import Tensor

AVERAGED = 0.1  # weight of the newest step in the running mean, which removes the batches' noise

Parameters = dict[str, "Tensor"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Judgements as tensors: users and responses by number, labels in [0, 1], weights with mean 1 over all rows."""

    user_B: Tensor
    chosen_B: Tensor
    rejected_B: Tensor
    label_B: Tensor
    weight_B: Tensor

    def __len__(self) -> int:
        return len(self.user_B)

    def take(self, rows: Tensor) -> Batch:
        """The judgements numbered ``rows``."""
        return Batch(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def balanced(self, users: int) -> Batch:
        """The same judgements, weighted so that every user of the batch weighs the same."""
        import torch

        total_U = torch.bincount(self.user_B, self.weight_B, minlength=users)
        weight_B = self.weight_B / total_U[self.user_B].clamp(min=1e-12)
        return replace(self, weight_B=weight_B * len(self) / (total_U > 0).sum())

    def loss(self, margin_B: Tensor) -> Tensor:
        """Weighted mean of -log P(label)."""
        from torch.nn.functional import softplus

        return (self.weight_B * (softplus(-margin_B) + (1.0 - self.label_B) * margin_B)).mean()


@dataclass(frozen=True, eq=False)
class Table:
    """One numbering of users and responses for all rows of a fit, and the inputs of those responses."""

    users: Users
    numbers: Numbering
    x_RK: Tensor

    @classmethod
    def build(cls, whole: Comparisons, inputs: Inputs) -> Self:
        """Number what occurs in ``whole``."""
        import torch

        numbers = Numbering.of(whole)
        x_RK = inputs(whole.responses.take(numbers.responses_R)).astype(np.float32)
        return cls(Users(whole.users.ids.gather(numbers.users_U)), numbers, torch.from_numpy(x_RK))

    def batch(self, rows: Comparisons) -> Batch:
        """All of ``rows``, in their order."""
        import torch

        columns = (
            *(code_N.astype(np.int64) for code_N in self.numbers.judges(rows)),
            rows.label_N.astype(np.float32),
            (rows.weights_N / max(rows.weights_N.mean(), 1e-12)).astype(np.float32),
        )
        return Batch(*map(torch.from_numpy, columns))


def of_rows(numbers_X: Tensor, table_RK: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of the table's rows ``numbers_X``, computed on the table or on these rows, whichever are fewer."""
    from torch.nn.functional import embedding  # sums its gradient in a fixed order, unlike indexing

    if len(table_RK) <= len(numbers_X):
        return embedding(numbers_X, function(table_RK))
    return function(embedding(numbers_X, table_RK))


class Model(Protocol):
    """The fitted model: its start, its margins, and its loss."""

    def start(self, seed: int) -> Parameters: ...

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """Reward(chosen) - reward(rejected) of each judgement under its own user."""
        ...

    def loss(self, now: Parameters, rows: Batch) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Trial:
    """A model's result on validation rows: the best number of steps, the log loss and figures there."""

    steps: int
    log_loss: float
    found: dict[str, float]


@dataclass(frozen=True, eq=False)
class Descent:
    """The rows of a fit, and the settings of the descent.

    Up to ``whole`` training rows, every step sees all of them; with more, it sees ``batch``, which costs a little
    accuracy and saves most of the time. Every ``every`` steps the validation rows are checked; after ``patience``
    checks without a gain the best one counts. Without validation rows, ``unjudged`` steps are taken.
    """

    table: Table
    train: Comparisons
    valid: Comparisons
    seed: int
    rate: float
    whole: int = 8192
    batch: int = 2048
    most: int = 800
    every: int = 10
    patience: int = 6
    unjudged: int = 100

    @property
    def size(self) -> int:
        """Maximum rows that a step sees."""
        return self.whole if len(self.train) <= self.whole else self.batch

    @property
    def weight(self) -> float:
        """Total weight of the training rows."""
        return max(float(self.train.weights_N.sum()), 1e-12)

    def attempt(self, model: Model) -> Trial:
        """Fit ``model`` to the training rows as long as validation improves."""
        if not len(self.valid):
            return Trial(self.unjudged, 0.0, {})
        rows = self.table.batch(self.valid)
        now = model.start(self.seed)
        walk = self._walk(model, now, self.train)
        best, since, at = self._judge(model, now, rows, 0), 0, 0
        while since < self.patience and at < self.most:
            for _ in range(self.every):
                now = next(walk)
            at += self.every
            trial = self._judge(model, now, rows, at)
            best, since = (trial, 0) if trial.log_loss < best.log_loss else (best, since + 1)
        return best

    def finish(self, model: Model, trial: Trial) -> dict[str, NDArray]:
        """Fit ``model`` to training and validation rows, with as many passes as the trial took."""
        whole = concat(self.train, self.valid)
        passes = max(1.0, len(whole) / self.size) / max(1.0, len(self.train) / self.size)
        now = model.start(self.seed)
        walk = self._walk(model, now, whole)
        for _ in range(round(trial.steps * passes)):
            now = next(walk)
        return {name: value.detach().numpy().astype(np.float64) for name, value in now.items()}

    def _judge(self, model: Model, now: Parameters, rows: Batch, steps: int) -> Trial:
        import torch

        with torch.no_grad():
            margin_N = model.margins(now, rows).numpy().astype(np.float64)
        return Trial(steps, validation.log_loss(margin_N, self.valid), validation.measure(margin_N, self.valid))

    def _walk(self, model: Model, start: Parameters, rows: Comparisons) -> Iterator[Parameters]:
        """Adam's parameters after one step, two, ...; if a step sees only part of the rows, their running mean."""
        import torch

        now = {name: value.clone().requires_grad_() for name, value in start.items()}
        adam = torch.optim.Adam(now.values(), lr=self.rate)
        mean = {name: value.clone() for name, value in start.items()}
        for batch in self._batches(rows):
            adam.zero_grad()
            model.loss(now, batch).backward()
            adam.step()
            if len(rows) <= self.size:
                yield now
                continue
            for name, value in now.items():
                mean[name].lerp_(value.detach(), AVERAGED)
            yield mean

    def _batches(self, rows: Comparisons) -> Iterator[Batch]:
        """Endless batches: all rows if they fit into one, otherwise shuffled again for every pass."""
        import torch

        user_N, chosen_N, _ = self.table.numbers.judges(rows)
        by_content = np.lexsort((chosen_N, user_N, rows.pair_key_N))
        whole = self.table.batch(rows.take(by_content))
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            if len(whole) <= self.size:
                yield whole
                continue
            order = torch.randperm(len(whole), generator=generator)
            for part in order.split(self.size)[: len(whole) // self.size]:  # the rest waits for the next pass
                yield whole.take(part)
