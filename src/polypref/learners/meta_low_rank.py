"""MRM: low-rank with a meta-learned start, from which a user's scores are learned in one gradient step.

Paper: "Meta Reward Modeling", arXiv 2601.18731 (2026). With L_u the mean loss of a user's judgements and

    r_u(x) = x V softmax(w_u),      w_u = w - rate * n_u / (n_u + half) * grad L_u(w)

V, w, rate and half minimise the loss of judgements that the step has not seen: the users' judgements are split into two
halves by text pair, and each half is predicted after a step on the other. A new user's scores come from the same step.

What we changed: the step follows the gradient itself, with a learned length that is shorter for users with few
judgements. The authors' step is Adam's: w moves by the rate in every coordinate whatever the data, 1e-3 in their
scripts, which leaves everybody with the shared reward. Steps, basis rewards and the number of inner steps are chosen on
validation rows, not on test users. All judgements weigh the same; with ``average="user"`` all users do, as in the
paper. ``tail`` is the authors' option to weigh badly served users more: sigmoid((L_u - tau) / width), tau the quantile
1 - tail of the users' losses. ``order`` is exact (through the step) or first-order. Basis rewards start at the pooled
reward and diverge along random directions whose learned length starts at zero, so swapped labels give exactly opposite
rewards; the prior N(pooled, 1/penalty) on V is low-rank's. Strangers get w.

Suffixes here: ``_C`` basis rewards that are learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from polypref import content
from polypref.comparisons import Comparisons, concat
from polypref.features.protocol import Encoder
from polypref.learners import linear, validation
from polypref.learners.basis import BasisScorer, differences
from polypref.learners.bradley_terry.panel import Panel
from polypref.learners.history import History, Rows
from polypref.learners.inputs import Inputs
from polypref.learners.linear import Newcomer, ResponseEffects
from polypref.learners.low_rank import better
from polypref.learners.provenance import passed_on, recorded
from polypref.learners.training.gradient_descent import Batch, Descent, Parameters, Table, Trial
from polypref.schema import Layout, floats

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
FIRST_RATE, FIRST_HALF = 5.0, 10.0  # of the inner step, before learning


@dataclass(frozen=True)
class MetaLowRank:
    """Settings of MRM on frozen features."""

    order: Literal["exact", "first"] = "exact"
    """Whether the outer gradient goes through the inner step."""
    average: Literal["judgement", "user"] = "judgement"
    """The unit that weighs the same in the loss."""
    tail: float = 0.0
    """Share of the worst-served users that the loss focuses on; 0: all users alike. The authors use .5."""
    tail_width: float = 0.5
    """Softness of the tail's cut-off, in units of loss."""
    bases: tuple[int, ...] = (8, 4)
    """Numbers of basis rewards to try on validation rows."""
    inner_steps: tuple[int, ...] = (1, 4)
    """Numbers of steps from the start to a user's scores to try on validation rows."""
    penalty: float = 1.0
    """Inverse prior variance of a basis reward's weights."""
    most_steps: int = 800
    """Maximum outer steps of Adam; validation rows usually stop it earlier."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> MetaLowRankScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        table = Table.build(whole, inputs)
        descent = Descent(table, train, valid, seed, rate=0.05, most=self.most_steps)
        model, trial = self._tune(descent, Panel.build(train, inputs).pooled_weights(seed))
        model = replace(model, rows=whole, anchor_K=Panel.build(whole, inputs).pooled_weights(seed))
        fitted = descent.finish(model, trial)
        mixture_UC, basis_KC = softmax(model.final_scores(fitted), axis=1), model.basis(fitted)
        step = Step(model.inner_steps, float(np.exp(fitted["log_rate"][0])), float(np.exp(fitted["log_half"][0])))
        found = {"bases": float(model.bases), "inner_steps": float(step.times), "rate": step.rate, "half": step.half}
        return MetaLowRankScorer(
            inputs,
            basis_KC @ softmax(fitted["start_C"]),
            table.users,
            mixture_UC @ basis_KC.T,
            ResponseEffects(),
            found | {"steps": float(trial.steps), **trial.found},
            basis_KC=basis_KC,
            history=History.of(whole, table.users, partial(differences, inputs, basis_KC)),
            start_C=fitted["start_C"],
            step=step,
        )

    def _tune(self, descent: Descent, anchor_K: NDArray[np.floating]) -> tuple[_Meta, Trial]:
        """Choose first the inner steps, at the first number of basis rewards, then that number."""
        first = _Meta(self, descent.table, descent.train, anchor_K, self.bases[0], self.inner_steps[0], descent.seed)
        best = (first, descent.attempt(first))
        for times in self.inner_steps[1:]:
            best = better(best, descent, replace(first, inner_steps=times))
        for bases in self.bases[1:]:
            best = better(best, descent, replace(best[0], bases=bases))
        return best


@dataclass(frozen=True, eq=False)
class _Meta:
    """Basis, start and inner step, as ``gradient_descent.Model``; ``rows`` are the judgements that describe users."""

    config: MetaLowRank
    table: Table
    rows: Comparisons
    anchor_K: NDArray[np.floating]
    bases: int
    inner_steps: int
    seed: int

    def start(self, seed: int) -> Parameters:
        """Every basis reward starts at the pooled one; the scores' start is random, so that they diverge."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return {
            "move_KC": torch.zeros(len(self.anchor_K), self.bases),
            "apart": torch.zeros(1),
            "start_C": torch.randn(self.bases, generator=generator),
            "log_rate": torch.full((1,), FIRST_RATE).log(),
            "log_half": torch.full((1,), FIRST_HALF).log(),
        }

    @cached_property
    def _random_KC(self) -> Floats:
        return np.random.default_rng(self.seed).normal(size=(len(self.anchor_K), self.bases))

    @cached_property
    def _known(self) -> Batch:
        return self.table.batch(self.rows)

    @cached_property
    def _half_R(self) -> Tensor:
        """A random bit per text: equal bits put a pair into the first half, different bits into the second."""
        import torch

        keys_R = self.rows.responses.keys_R[self.table.numbers.responses_R]
        return torch.from_numpy(((keys_R >> np.uint64(17)) & np.uint64(1)).astype(np.int64))

    def basis(self, now: Mapping[str, Any]) -> Any:
        """Basis rewards (K, C), in torch or numpy, as ``now`` is."""
        anchor_K1, random_KC = self.anchor_K[:, None], self._random_KC
        if not isinstance(now["apart"], np.ndarray):
            import torch

            anchor_K1, random_KC = (torch.from_numpy(value.astype(np.float32)) for value in (anchor_K1, random_KC))
        return anchor_K1 + now["move_KC"] + now["apart"] * random_KC

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``: after steps on all judgements of the users."""
        import torch

        everything = torch.ones(len(self._known))
        return self._margins_of(self._differences(now, rows), self._stepped(now, self._known, everything), rows)

    def final_scores(self, fitted: Mapping[str, Floats]) -> Floats:
        """Everybody's scores (U, C) after steps on all their judgements."""
        import torch

        now = {name: torch.from_numpy(value.astype(np.float32)) for name, value in fitted.items()}
        with torch.no_grad():
            return self._stepped(now, self._known, torch.ones(len(self._known))).numpy().astype(np.float64)

    def loss(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``: each half of the rows is predicted after steps on the other."""
        import torch

        second_B = (self._half_R[rows.chosen_B] != self._half_R[rows.rejected_B]).float()
        difference_BC = self._differences(now, rows)
        after_first_B = self._margins_of(difference_BC, self._stepped(now, rows, 1.0 - second_B), rows)
        after_second_B = self._margins_of(difference_BC, self._stepped(now, rows, second_B), rows)
        margin_B = torch.where(second_B > 0, after_first_B, after_second_B)
        shift_KC = self.basis(now) - torch.from_numpy(self.anchor_K.astype(np.float32))[:, None]
        squares = self.config.penalty * (shift_KC**2).sum() / (2.0 * max(float(self.rows.weights_N.sum()), 1e-12))
        return self._outer(margin_B, rows) + squares

    def _outer(self, margin_B: Tensor, rows: Batch) -> Tensor:
        import torch
        from torch.nn.functional import softplus

        users = len(self.table.users)
        if self.config.tail == 0.0:
            return (rows.balanced(users) if self.config.average == "user" else rows).loss(margin_B)
        loss_B = rows.weight_B * (softplus(-margin_B) + (1.0 - rows.label_B) * margin_B)
        weight_U = torch.bincount(rows.user_B, rows.weight_B, minlength=users)
        present = weight_U > 0
        loss_U = torch.zeros(users).index_add(0, rows.user_B, loss_B)[present] / weight_U[present]
        tau = torch.quantile(loss_U, 1.0 - self.config.tail)
        return (torch.sigmoid((loss_U - tau) / self.config.tail_width) * loss_U).mean()

    def _differences(self, now: Parameters, rows: Batch) -> Tensor:
        from torch.nn.functional import embedding  # sums its gradient in a fixed order, unlike indexing

        basis_RC = self.table.x_RK @ self.basis(now)
        return embedding(rows.chosen_B, basis_RC) - embedding(rows.rejected_B, basis_RC)

    def _margins_of(self, difference_BC: Tensor, score_UC: Tensor, rows: Batch) -> Tensor:
        import torch
        from torch.nn.functional import embedding

        return (difference_BC * embedding(rows.user_B, torch.softmax(score_UC, dim=1))).sum(dim=1)

    def _stepped(self, now: Parameters, rows: Batch, marked_B: Tensor) -> Tensor:
        """Everybody's scores (U, C) after the inner steps on the marked rows; in closed form, so exact to any order."""
        import torch
        from torch.nn.functional import embedding

        mean_weight = float(self.rows.weights_N.mean())
        weight_B = marked_B * rows.weight_B * mean_weight
        users = len(self.table.users)
        count_U = torch.bincount(rows.user_B, weight_B, minlength=users).float()
        rate_U1 = (now["log_rate"].exp() / (count_U + now["log_half"].exp()))[:, None]
        difference_BC = self._differences(now, rows)
        score_UC = now["start_C"].repeat(users, 1)
        for _ in range(self.inner_steps):
            mixture_BC = embedding(rows.user_B, torch.softmax(score_UC, dim=1))
            margin_B1 = (difference_BC * mixture_BC).sum(dim=1, keepdim=True)
            pull_B1 = (weight_B * (torch.sigmoid(margin_B1[:, 0]) - rows.label_B))[:, None]
            slope_BC = pull_B1 * mixture_BC * (difference_BC - margin_B1)
            slope_UC = torch.zeros(users, self.bases).index_add(0, rows.user_B, slope_BC)
            score_UC = score_UC - rate_U1 * (slope_UC.detach() if self.config.order == "first" else slope_UC)
        return score_UC


@dataclass(frozen=True)
class Step:
    """How scores are learned from judgements: ``times`` steps of ``rate``, half as long at ``half`` judgements."""

    times: int
    rate: float
    half: float

    def scores(self, start_C: Floats, rows: Rows) -> Floats:
        """One user's scores (C,), from the differences of the basis rewards in all of their judgements."""
        rate = self.rate / (rows.weight_N.sum() + self.half)
        score_C = start_C
        for _ in range(self.times):
            mixture_C = softmax(score_C)
            margin_N = rows.value_NX @ mixture_C
            pull_C = (rows.weight_N * (expit(margin_N) - rows.label_N)) @ (rows.value_NX - margin_N[:, None])
            score_C = score_C - rate * mixture_C * pull_C
        return score_C


class Fields(linear.Fields):
    """Settings of a saved scorer."""

    step: Step


MOST_STEPS = 10_000  # for a new user, in a saved scorer


def _wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    times, half = config["step"]["times"], config["step"]["half"]
    return None if 0 <= times <= MOST_STEPS and half > 0 else f"{times} steps, half as long at {half} judgements"


@dataclass(frozen=True, eq=False, repr=False)
class MetaLowRankScorer(BasisScorer):
    """``start_C`` and ``step`` lead to a new user's scores."""

    start_C: Floats
    step: Step

    kind: ClassVar[str] = "meta-low-rank"
    layout: ClassVar[Layout] = BasisScorer.layout.with_more(Fields, {"start_C": floats("C")}, rule=_wrong)

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> MetaLowRankScorer:
        """See ``learners.protocol.Adapts``."""
        user_id = content.one_id(user_id)
        scorer, rows = self.with_more_of(user_id, few)
        score_C = self.step.scores(self.start_C, rows)
        return scorer.with_newcomer(user_id, Newcomer(self.basis_KC @ softmax(score_C)))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config, arrays = super().state()
        return config | {"step": asdict(self.step)}, arrays | {"start_C": self.start_C}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        common = cls.common(config, arrays, encoder)
        return cls(**common, start_C=arrays["start_C"], step=Step(**config["step"]))
