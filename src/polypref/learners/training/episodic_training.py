"""Descent for learners that read a user's judgements: Adam on episodes, stopped by validation rows.

Validation rows are foretold from what their users judged in training. Where a user judged a validation pair in training
too, that judgement is left out of the context.
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
    """What is fitted: where it starts, what it is to lower, and how it answers from judgements it knows."""

    def start(self, seed: int) -> Parameters: ...

    def loss(self, now: Parameters, episodes: Episodes, step: int, noise: torch.Generator) -> Tensor: ...

    def answers(self, now: Parameters, known: Judged, asked: Judged) -> NDArray:
        """Reward(first) - reward(second) of each item of ``asked``, from its user's items of ``known``."""
        ...


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """The rows of a fit, none of which weighs nothing, and how to descend on them.

    Every ``every`` steps the validation rows are looked at; after ``patience`` looks without a gain the best one
    counts. Where there are no validation rows, ``unjudged`` steps are taken.
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
        """What validation users are known by, and what they are asked."""
        asked = Judged.of(self.valid, self.table.numbers)
        return Judged.of(self.train, self.table.numbers).without(asked), asked

    def attempt(self, model: Reader) -> tuple[Trial, Parameters]:
        """Fit ``model`` to the training rows for as long as the validation rows gain; the best look's parameters."""
        now = model.start(self.seed)
        if not len(self.valid) or not len(self.train):
            trial = Trial(self.unjudged if len(self.train) else 0, 0.0, {})
            return trial, self.finish(model, trial)
        known, asked = self.judged()

        def look(steps: int) -> Trial:
            margin_N = asked.spread(model.answers(now, known, asked))
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
        # eps: where a gradient vanishes by symmetry its rounding errors must not move anything
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
