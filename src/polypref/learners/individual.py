"""One reward per user from that user's own judgements alone: the evaluation paper's Individual reward model.

Paper: Dong et al. 2025, "When Personalization Meets Reality", section 4.1. What we changed: a linear reward on frozen
features instead of one adapter per user; all users are fitted together, in one batch of small linear systems; the
ridge is one number for all, chosen on validation rows. A stranger gets the pooled reward, which the paper leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polypref.comparisons import Comparisons, concat
from polypref.features.protocol import Encoder
from polypref.learners import mixed, newton, validation
from polypref.learners.inputs import Inputs
from polypref.learners.linear import LinearScorer, ResponseEffects
from polypref.learners.panel import Panel
from polypref.learners.variances import Estimate, estimate


@dataclass(frozen=True)
class Individual:
    """Settings of the one-model-per-user baseline."""

    directions: int = 64
    """Principal directions of the encoder's space to use."""
    variances: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0)
    """Prior variances of a weight (the inverse of a ridge penalty) to try on validation rows."""

    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> LinearScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        panel, found, loss, warm = Panel.build(train, inputs), {}, {}, None
        for variance in self.variances:
            prior = _prior(inputs.size, variance)
            warm = newton.solve(panel.task, prior, warm, tolerance=1e-3)
            margin_N = panel.margins(warm, prior, valid)
            found[variance] = validation.measure(margin_N, valid)
            loss[variance] = validation.log_loss(margin_N, valid) if len(valid) else 0.0
        chosen = validation.best(loss)
        panel = Panel.build(whole, inputs)
        own = panel.scorer(newton.solve(panel.task, _prior(inputs.size, chosen)), _prior(inputs.size, chosen), {})
        how = Estimate(spread=False, personal=False, shared=False)
        everyone, prior = estimate(panel.task, how, seed)
        everyone = newton.solve(panel.task, prior, everyone)
        selection = {"variance": chosen, **found[chosen]}
        return LinearScorer(inputs, everyone.w_K, panel.user_table(), own.weights_UK, ResponseEffects(), selection)


def _prior(k: int, variance: float) -> mixed.Variances:
    return mixed.Variances(np.zeros(k), np.eye(k) * variance, 0.0, 0.0)
