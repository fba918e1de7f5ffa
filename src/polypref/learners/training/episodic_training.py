"""Gradient descent for learners that read a user's judgements: Adam on episodes, stopped by validation rows.

Validation rows are predicted from their users' training judgements. If a user also judged a validation pair in
training, that judgement is left out of the context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from numpy.typing import NDArray

from polypref.comparisons import Comparisons, concat
from polypref.errors import Diverged
from polypref.learners import validation
from polypref.learners.training.episodes import Episodes, Judged, Sizes, practice
from polypref.learners.training.gradient_descent import Parameters, Table, Trial

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Reader(Protocol):
    """The fitted model: its start, its loss, and its answers given known judgements."""

    def start(self, seed: int) -> Parameters: ...

    def loss(self, now: Parameters, episodes: Episodes, step: int, noise: torch.Generator) -> Tensor: ...

    def answers(self, now: Parameters, known: Judged, queries: Judged) -> NDArray:
        """Reward(first) - reward(second) of each item of ``queries``, from its user's items of ``known``."""
        ...


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """The rows of a fit, all of positive weight, and the settings of the descent.

    Every ``every`` steps the validation rows are checked; after ``patience`` checks without a gain the best one counts.
    Without validation rows, ``unjudged`` steps are taken.
    """

    table: Table
    train: Comparisons
    valid: Comparisons
    seed: int
    sizes: Sizes
    rate: float
    most: int
    every: int = 20
    patience: int = 8
    unjudged: int = 200

    def judged(self) -> tuple[Judged, Judged]:
        """The known judgements of validation users, and the validation items."""
        queries = Judged.of(self.valid, self.table.numbers)
        return Judged.of(self.train, self.table.numbers).without(queries), queries

    def attempt(self, model: Reader) -> tuple[Trial, Parameters]:
        """Fit ``model`` to the training rows as long as validation improves; returns the best check's parameters."""
        now = model.start(self.seed)
        if not len(self.valid) or not len(self.train):
            trial = Trial(self.unjudged if len(self.train) else 0, 0.0, {})
            return trial, self.finish(model, trial)
        known, queries = self.judged()

        def look(steps: int) -> Trial:
            margin_N = queries.spread(model.answers(now, known, queries))
            found = validation.measure(margin_N, self.valid)
            return Trial(steps, validation.log_loss(margin_N, self.valid), found)

        walk = self._walk(model, now, self.train)
        best, kept, since, at = look(0), _copied(now), 0, 0
        while since < self.patience and at < self.most:
            for _ in range(self.every):
                now = next(walk)
            at += self.every
            trial = look(at)
            since += 1
            if trial.log_loss < best.log_loss:
                best, kept, since = trial, _copied(now), 0
        return best, kept

    def finish(self, model: Reader, trial: Trial) -> Parameters:
        """Fit ``model`` to training and validation rows, with as many passes as the trial took."""
        whole = concat(self.train, self.valid)
        passes = max(1.0, len(whole) / self.sizes.batch) / max(1.0, len(self.train) / self.sizes.batch)
        now = model.start(self.seed)
        walk = self._walk(model, now, whole)
        for _ in range(round(min(trial.steps, self.most) * passes)):
            now = next(walk)
        return _copied(now)

    def _walk(self, model: Reader, start: Parameters, rows: Comparisons) -> Iterator[Parameters]:
        """Adam's parameters after one step, two steps, ..."""
        import torch

        now = {name: value.clone().requires_grad_() for name, value in start.items()}
        # eps: rounding errors of a gradient that vanishes by symmetry must not move anything
        adam = torch.optim.Adam(now.values(), lr=self.rate, eps=1e-6)
        noise = torch.Generator().manual_seed(self.seed)
        judged = Judged.of(rows, self.table.numbers)
        for at, batch in enumerate(practice(judged, self.sizes, self.seed)):
            adam.zero_grad()
            loss = model.loss(now, batch, at, noise)
            if not bool(torch.isfinite(loss)):
                raise Diverged(
                    f"the loss is {loss.item()} at step {at + 1}, in a batch of {len(batch.context.weight)} contexts "
                    f"and {int((batch.target.weight > 0).sum())} judgements; check the features for values that are "
                    "not finite, or lower the learning rate."
                )
            loss.backward()
            adam.step()
            yield now


def _copied(now: Parameters) -> Parameters:
    return {name: value.detach().clone() for name, value in now.items()}
