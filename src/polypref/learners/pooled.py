"""One Bradley-Terry reward for everyone: the evaluation paper's Vanilla reward model, on frozen features.

Paper: Dong et al. 2025, "When Personalization Meets Reality", section 4.1; the loss is -log sigmoid(r_chosen -
r_rejected). What we changed: a linear reward on frozen features instead of a tuned language model, with its ridge
estimated from the data (``variances``). ``aggregate`` offers both readings of the paper: all judgements (its code) and
majority labels (its text). With ``response_effects`` every judged text also has a latent quality that features do not
explain, which improves the population wherever training texts recur in test pairs. Scores do not depend on user ids.

Judgements of the same texts are not independent evidence about features. So without response effects each judgement
weighs 1 / (1 + (m - 1) rho), the design effect of clusters (Kish 1965): m is how often its texts are judged
(``discounted``), rho the share of text quality in the variance of an answer, estimated by fitting response effects.
Without it, three judges of each pair gave a log loss above a coin's on new prompts (pandalm).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from polypref.arguments import NotNegative
from polypref.comparisons import Comparisons, concat
from polypref.errors import NotEnoughData
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.bradley_terry.panel import Panel, scorer_margins
from polypref.learners.inputs import Inputs
from polypref.learners.linear import PopulationScorer, no_users
from polypref.learners.provenance import recorded
from polypref.learners.swapped import SWAPS


@dataclass(frozen=True)
class Pooled:
    """Settings of the population model."""

    aggregate: Literal["concat", "majority"] = "concat"
    """All judgements, or one per text pair with the majority's label (pairs without a majority are left out)."""
    response_effects: bool = False
    """Also learn a quality of each text that its features do not explain."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""
    swaps: NotNegative = SWAPS
    """How much the population is told that answers stay with their questions (``swapped``): a share of the judgements'
    weight; 0 for nothing."""

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> PopulationScorer:
        """See ``learners.protocol.Learner``. Nothing is chosen on ``valid``; it is measured, then joins the fit."""
        train, valid = validation.cut(train, valid, seed)
        first = self.scorer_of(self.panel_of(train, encoder, seed), seed)
        found = validation.measure(scorer_margins(first, valid), valid)
        if not len(valid):
            return replace(first, selection=found)
        return replace(self.scorer_of(self.panel_of(concat(train, valid), encoder, seed), seed), selection=found)

    def panel_of(self, rows: Comparisons, encoder: Encoder, seed: int) -> Panel:
        """The panel to fit, with the design effects in its weights unless text quality is learned."""
        if self.aggregate == "majority":
            rows = majority(rows)
        panel = Panel.build(rows, Inputs.fit(encoder, rows, self.directions), swaps=self.swaps)
        if self.response_effects:
            return panel
        _, prior = panel.population(True, seed)
        return Panel.build(discounted(rows, prior.shared), panel.inputs, swaps=self.swaps)

    def scorer_of(self, panel: Panel, seed: int) -> PopulationScorer:
        """The scorer of the rows of ``panel``, by their weights."""
        effects, _ = panel.population(self.response_effects, seed)
        return PopulationScorer(
            panel.inputs, effects.w_K, no_users(), effects.t_UK[:0], panel.response_effects(effects, 0.0), {}
        )


def discounted(rows: Comparisons, quality: float) -> Comparisons:
    """The judgements with weights reduced by their design effect; ``quality``: variance of the texts' quality.

    m of a judgement is the mean number of judgements of its two texts, times n / (n - c) / 2 for n texts in c connected
    sets of pairs, of whose differences n - c are independent: k for pairs of their own texts that are judged k times.
    rho = 2 quality / (2 quality + pi^2 / 3), by the variance of the logistic distribution.
    """
    texts, at_2N = np.unique(np.concatenate([rows.chosen_N, rows.rejected_N]), return_inverse=True)
    edges = coo_array((np.ones(len(rows)), tuple(np.split(at_2N, 2))), shape=(len(texts), len(texts)))
    sets, _ = connected_components(edges, directed=False)
    judged_X = np.bincount(at_2N, np.tile(rows.weights_N, 2))
    mean_N = judged_X[at_2N].reshape(2, -1).mean(axis=0) / 2
    each_N = np.maximum(mean_N * len(texts) / max(len(texts) - sets, 1), 1.0)
    rho = 2 * quality / (2 * quality + np.pi**2 / 3)
    return replace(rows, weight_N=rows.weights_N / (1 + (each_N - 1) * rho))


def majority(rows: Comparisons) -> Comparisons:
    """One judgement per text pair, won by the text with more weight; tied pairs are left out.

    Raises NotEnoughData if no pair has a majority.
    """
    keys_R = rows.responses.keys_R
    sign_N = np.where(keys_R[rows.chosen_N] <= keys_R[rows.rejected_N], 1.0, -1.0)
    _, first, at_N = np.unique(rows.pair_key_N, return_index=True, return_inverse=True)
    vote = np.bincount(at_N, sign_N * (2 * rows.label_N - 1) * rows.weights_N)
    decided = np.flatnonzero(np.abs(vote) > 1e-9)
    if not len(decided):
        raise NotEnoughData(f"none of {len(first)} text pairs has a majority label; use aggregate='concat'.")
    chosen = rows.take(first[decided])
    flip = vote[decided] * sign_N[first[decided]] < 0
    return replace(
        chosen,
        chosen_N=np.where(flip, chosen.rejected_N, chosen.chosen_N),
        rejected_N=np.where(flip, chosen.chosen_N, chosen.rejected_N),
        tie_N=None,
        weight_N=None,
    )
