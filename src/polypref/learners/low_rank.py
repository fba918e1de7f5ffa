"""LoRe: everybody's reward is a mixture of a few basis rewards.

Paper: Bose et al. 2025, "LoRe: Personalizing LLMs via Low-Rank Reward Modeling", from its formula only:

    r_u(x) = x V softmax(s_u)        V: inputs x basis rewards,  s_u: basis scores of user u

V and s are fitted together by Adam to -log sigmoid of the reward differences; a new user gets their own scores while V
stays fixed.

What we changed: ridge penalties (priors N(anchor, 1/penalty) on V's columns, N(0, 1/user_penalty) on the scores)
instead of a fixed number of steps; the anchor is the pooled reward, where the paper's regularised version takes a
reference model's. All judgements weigh the same, as in that version; with ``average="user"`` all users do, as in its
plain one. V starts at the anchor and s at N(0, 1), so swapped labels give exactly opposite rewards. The paper's
constant 1/100 fits its own features; ours have variance 1 (``inputs``), so there is none. The number of basis rewards,
the penalty and the steps are chosen on validation rows. Strangers get the mean mixture.

Suffixes here: ``_C`` basis rewards that are learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from polypref import content
from polypref.comparisons import Comparisons, concat
from polypref.errors import NotEnoughData, not_converged
from polypref.features.protocol import Encoder
from polypref.learners import linear, validation
from polypref.learners.basis import BasisScorer, differences
from polypref.learners.bradley_terry.panel import Panel
from polypref.learners.history import History, Rows
from polypref.learners.inputs import Inputs
from polypref.learners.likelihood import surprise
from polypref.learners.linear import Newcomer, ResponseEffects
from polypref.learners.provenance import passed_on, recorded
from polypref.learners.training.gradient_descent import Batch, Descent, Model, Parameters, Table, Trial, of_rows
from polypref.schema import Layout, floats

if TYPE_CHECKING:
    from torch import Tensor

HALVINGS, STEPS = 20, 300

AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True)
class LowRank:
    """Settings of LoRe on frozen features."""

    anchor: Literal["pooled", "none"] = "pooled"
    """What basis rewards are shrunk towards: the pooled reward, or zero."""
    average: Literal["judgement", "user"] = "judgement"
    """The unit that weighs the same in the loss."""
    bases: tuple[int, ...] = (8, 4, 32)
    """Numbers of basis rewards to try on validation rows."""
    penalties: tuple[float, ...] = (1.0, 0.3, 3.0)
    """Inverse prior variances of a basis reward's weights to try on validation rows."""
    user_penalty: float = 0.3
    """Inverse prior variance of a user's basis scores."""
    most_steps: int = 800
    """Maximum steps of Adam; validation rows usually stop it earlier."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> LowRankScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        table = Table.build(whole, inputs)
        descent = Descent(table, train, valid, seed, rate=0.05, most=self.most_steps)
        model, trial = self._tune(descent, self._anchor(train, inputs, seed))
        fitted = descent.finish(replace(model, anchor_K=self._anchor(whole, inputs, seed)), trial)
        selection = {"bases": float(model.bases), "penalty": model.penalty, "steps": trial.steps, **trial.found}
        mixture_UC = softmax(fitted["score_UC"], axis=1)
        basis_KC = fitted["basis_KC"]
        return LowRankScorer(
            inputs,
            basis_KC @ mixture_UC.mean(axis=0),
            table.users,
            mixture_UC @ basis_KC.T,
            ResponseEffects(),
            selection,
            basis_KC=basis_KC,
            history=History.of(whole, table.users, partial(differences, inputs, basis_KC)),
            mixture_C=mixture_UC.mean(axis=0),
            user_penalty=self.user_penalty,
        )

    def _anchor(self, rows: Comparisons, inputs: Inputs, seed: int) -> NDArray[np.floating]:
        return np.zeros(inputs.size) if self.anchor == "none" else Panel.build(rows, inputs).pooled_weights(seed)

    def _tune(self, descent: Descent, anchor_K: NDArray[np.floating]) -> tuple[_Mixture, Trial]:
        """Choose first the penalty, at the first number of basis rewards, then that number."""
        first = _Mixture(self, descent.table, anchor_K, self.bases[0], self.penalties[0], descent.weight)
        best = (first, descent.attempt(first))
        for penalty in self.penalties[1:]:
            best = better(best, descent, replace(first, penalty=penalty))
        for bases in self.bases[1:]:
            best = better(best, descent, replace(best[0], bases=bases))
        return best


def better(best: tuple[AnyModel, Trial], descent: Descent, model: AnyModel) -> tuple[AnyModel, Trial]:
    """The better of two models on validation rows, with its trial."""
    trial = descent.attempt(model)
    return (model, trial) if trial.log_loss < best[1].log_loss else best


@dataclass(frozen=True, eq=False)
class _Mixture:
    """The basis and everybody's scores, as ``gradient_descent.Model``."""

    config: LowRank
    table: Table
    anchor_K: NDArray[np.floating]
    bases: int
    penalty: float
    weight: float  # of all judgements: penalties are per fit, the loss is per judgement

    def start(self, seed: int) -> Parameters:
        """Every basis reward starts at the anchor; scores are random, so that they diverge."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        basis_KC = torch.from_numpy(self.anchor_K.astype(np.float32))[:, None].repeat(1, self.bases)
        return {
            "basis_KC": basis_KC,
            "score_UC": torch.randn(len(self.table.users), self.bases, generator=generator),
        }

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        import torch
        from torch.nn.functional import embedding  # sums its gradient in a fixed order, unlike indexing

        both = torch.cat([rows.chosen_B, rows.rejected_B])
        chosen_BC, rejected_BC = of_rows(both, self.table.x_RK, lambda x: x @ now["basis_KC"]).split(len(rows))
        mixture_BC = embedding(rows.user_B, torch.softmax(now["score_UC"], dim=1))
        return ((chosen_BC - rejected_BC) * mixture_BC).sum(dim=1)

    def loss(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        import torch

        anchor_K1 = torch.from_numpy(self.anchor_K.astype(np.float32))[:, None]
        squares = self.penalty * ((now["basis_KC"] - anchor_K1) ** 2).sum()
        squares = squares + self.config.user_penalty * (now["score_UC"] ** 2).sum()
        margin_B = self.margins(now, rows)
        if self.config.average == "user":
            rows = rows.balanced(len(self.table.users))
        return rows.loss(margin_B) + squares / (2.0 * self.weight)


class Fields(linear.Fields):
    """Settings of a saved scorer."""

    user_penalty: float


@dataclass(frozen=True, eq=False, repr=False)
class LowRankScorer(BasisScorer):
    """``mixture_C`` is the mean of the known users' mixtures; ``user_penalty`` holds new users close to it."""

    mixture_C: NDArray[np.float64]
    user_penalty: float

    kind: ClassVar[str] = "low-rank"
    layout: ClassVar[Layout] = BasisScorer.layout.with_more(Fields, {"mixture_C": floats("C")})

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> LowRankScorer:
        """See ``learners.protocol.Adapts``; scores are drawn around those of the mean mixture.

        Raises NotEnoughData without comparisons.
        """
        user_id = content.one_id(user_id)
        if not len(few):
            raise NotEnoughData(f"no comparisons to learn user {user_id!r} from; give at least one.")
        scorer, rows = self.with_more_of(user_id, few)
        mixture_C = _mixture(rows, np.log(np.maximum(self.mixture_C, 1e-9)), self.user_penalty)
        return scorer.with_newcomer(user_id, Newcomer(self.basis_KC @ mixture_C))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config, arrays = super().state()
        return {**config, "user_penalty": self.user_penalty}, arrays | {"mixture_C": self.mixture_C}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        common = cls.common(config, arrays, encoder)
        return cls(**common, mixture_C=arrays["mixture_C"], user_penalty=config["user_penalty"])


def _mixture(few: Rows, center_C: NDArray, penalty: float) -> NDArray[np.float64]:
    """The most probable mixture of a user, from differences of basis rewards: scores ~ N(center, 1/penalty).

    Newton steps with the Gauss-Newton curvature, which is never negative, halved until they descend.
    """
    score_C = center_C.copy()

    def energy(score_C: NDArray) -> tuple[float, NDArray, NDArray]:
        mixture_C = softmax(score_C)
        margin_N = few.value_NX @ mixture_C
        loss_N = surprise(margin_N, few.label_N)
        shift_C = score_C - center_C
        return float(few.weight_N @ loss_N + penalty * (shift_C @ shift_C) / 2), margin_N, mixture_C

    before, margin_N, mixture_C = energy(score_C)
    for _ in range(STEPS):
        p_N = expit(margin_N)
        turn_NC = mixture_C * (few.value_NX - margin_N[:, None])  # derivative of the margins by the scores
        slope_C = (few.weight_N * (p_N - few.label_N)) @ turn_NC + penalty * (score_C - center_C)
        curve_CC = (turn_NC.T * (few.weight_N * p_N * (1 - p_N))) @ turn_NC + penalty * np.eye(len(score_C))
        step_C = np.linalg.solve(curve_CC, slope_C)
        now, size = before, 1.0
        for _ in range(HALVINGS):
            now, margin_N, mixture_C = energy(score_C - size * step_C)
            if now <= before:
                break
            size /= 2
        if now > before:  # at the mode, up to rounding
            return softmax(score_C)
        score_C = score_C - size * step_C
        if before - now < 1e-6:
            return mixture_C
        before = now
    not_converged("the new user's mixture", f"it still improved at the last of {STEPS} steps")
    return mixture_C
