"""One reward per user, from that user's judgements alone: the evaluation paper's Individual reward model.

Paper: Dong et al. 2025, "When Personalization Meets Reality", section 4.1. What we changed: a linear reward on frozen
features instead of one adapter per user; all users are fitted together, in one batch of small linear systems; they
share one ridge, chosen on validation rows. A stranger gets the pooled reward; the paper leaves that open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polypref.comparisons import Comparisons, FloatArray, concat
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.bradley_terry import ridge
from polypref.learners.bradley_terry.panel import Panel
from polypref.learners.inputs import Inputs
from polypref.learners.linear import LinearScorer, ResponseEffects
from polypref.learners.protocol import margins
from polypref.learners.provenance import recorded


@dataclass(frozen=True)
class Individual:
    """Settings of the one-model-per-user baseline."""

    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""
    variances: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0)
    """Prior variances of a weight (the inverse of a ridge penalty) to try on validation rows."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> LinearScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        panel = Panel.build(train, inputs)
        groups, found, loss = _batches(panel), {}, {}
        weights: list[FloatArray | None] = [None] * len(groups)
        for variance in self.variances:
            weights = [ridge.solve(b, variance, w, 1e-2) for b, w in zip(groups, weights, strict=True)]
            scorer = _scorer(panel, groups, weights, np.zeros(inputs.size), {})
            margin_N = margins(scorer, valid).value_Q
            found[variance] = validation.measure(margin_N, valid)
            loss[variance] = validation.log_loss(margin_N, valid) if len(valid) else 0.0
        chosen = validation.best(loss)
        panel = Panel.build(whole, inputs)
        groups = _batches(panel)
        weights = [ridge.solve(b, chosen) for b in groups]
        return _scorer(panel, groups, weights, panel.pooled_weights(seed), {"variance": chosen, **found[chosen]})


def _batches(panel: Panel) -> list[ridge.Batch]:
    difference_NK = panel.x_RK[panel.chosen_N] - panel.x_RK[panel.rejected_N]
    return ridge.batches(difference_NK, panel.user_N, panel.train.label_N, panel.train.weights_N)


def _scorer(
    panel: Panel,
    groups: list[ridge.Batch],
    weights: Sequence[FloatArray | None],
    population_K: FloatArray,
    selection: Mapping[str, float | str],
) -> LinearScorer:
    weights_UK = np.zeros((len(panel.users_U), panel.inputs.size))
    for batch, w_BK in zip(groups, weights, strict=True):
        weights_UK[batch.user_B] = w_BK
    return LinearScorer(panel.inputs, population_K, panel.user_table(), weights_UK, ResponseEffects(), selection)
