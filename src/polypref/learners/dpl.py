"""DPL: rewards as distributions, whose spread is a diagnostic of hidden disagreement.

Paper: Siththaranjan, Laidlaw & Hadfield-Menell 2024, "Distributional Preference Learning". A text's reward is a
distribution, which stands for what the model does not see: who judges. P(c over r) = P(reward of c > reward of r):

    mean-variance   Normal(mu(x), sigma(x)^2):  P = Phi(z),  z = (mu_c - mu_r) / sqrt(sigma_c^2 + sigma_r^2)
    categorical     p(x) over 10 values from 0 to 1:  P = sum_ij p_c,i p_r,j [i > j, one half of i = j]

    r2 = Var(mu) / (Var(mu) + E[sigma^2])      low where people disagree or err, or features are weak

What we changed: linear heads on frozen features. Phi itself, where the authors use sigmoid(sqrt(2 pi) z)
(``link="logistic"``), which is too steep. Only differences within a pair are known, so Var(mu) is half the mean square
of mu_c - mu_r, and E[sigma^2] the mean over the same texts: the authors' figure where pairs are drawn at random. sigma
is 1 at the mean input, since the scale of rewards is free. A ridge chosen on validation rows instead of few steps.
Everybody gets the same answer, the mean in units of log odds.

r2 alone cannot separate disagreement from error: both lower it. ``hidden_disagreement`` compares it with a null, and
says what that covers.

Suffixes here: ``_C`` atoms of a distribution, ``_V`` fits, ``_X`` columns of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax

from polypref.comparisons import Comparisons, IntArray, Responses, concat
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.inputs import Inputs
from polypref.learners.protocol import POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.provenance import recorded
from polypref.learners.training.gradient_descent import Batch, Descent, Parameters, Table, of_rows
from polypref.schema import Arrays, Layout, Selection, floats

if TYPE_CHECKING:
    from torch import Tensor

ATOMS = 10
FEWEST_USERS = 5  # for resampling
ONE = float(np.log(np.e - 1.0))  # its softplus is 1
SLOPE = 1.702  # Phi(z) is close to sigmoid(1.702 z)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Dpl:
    """Settings of distributional preference learning on frozen features."""

    form: Literal["mean-variance", "categorical"] = "mean-variance"
    """How a text's reward is distributed."""
    link: Literal["normal", "logistic"] = "normal"
    """For mean-variance: the normal distribution function, or the authors' approximation of it."""
    penalties: tuple[float, ...] = (3.0, 0.3, 30.0)
    """Inverse prior variances of the heads' weights to try on validation rows."""
    spread_penalty: float = 0.0
    """Weight on the mean variance, for mean-variance (the authors' option)."""
    entropy_bonus: float = 0.0
    """Weight on the mean entropy, for categorical; the authors have .1."""
    resamples: int = 20
    """Bootstrap resamples of users for the interval of r2."""
    most_steps: int = 600
    """Maximum steps of Adam; validation rows usually stop it earlier."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> DplScorer:
        """See ``learners.protocol.Learner``. ``selection`` has ``r2`` and, with five users, ``r2_low``, ``r2_high``."""
        fits = resampled(self, train, encoder, seed, valid)
        found = {"r2": float(fits.r2_V[0])}
        if len(fits.r2_V) > 1:
            found["r2_low"], found["r2_high"] = interval(fits.r2_V)
        first = {name: value[..., 0] for name, value in fits.heads.items()}
        return DplScorer(fits.inputs, self.form, first, fits.unit, found | fits.selection)


class Fits(NamedTuple):
    """V fits: heads (last axis: fit), their inputs, r2 of each fit, one log odd in rewards of the first, what was
    chosen.

    The first fit is that of the data; every other one weighs each user by how often they were drawn.
    """

    heads: dict[str, Floats]
    inputs: Inputs
    r2_V: Floats
    unit: float
    selection: dict[str, float]


def resampled(config: Dpl, train: Comparisons, encoder: Encoder, seed: int, valid: Comparisons | None) -> Fits:
    """Fit to the data and, at the same time, to bootstrap resamples of its users."""
    train, valid = validation.cut(train, valid, seed)
    whole = concat(train, valid)
    inputs = Inputs.fit(encoder, whole, config.directions)
    table = Table.build(whole, inputs)
    descent = Descent(table, train, valid, seed, rate=0.03, most=config.most_steps)
    drawn_UV = _draw(config, table, seed)
    tried = {penalty: _Heads(config, table, drawn_UV[:, :1], penalty, descent.weight) for penalty in config.penalties}
    trials = {penalty: descent.attempt(model) for penalty, model in tried.items()}
    chosen = validation.best({penalty: trial.log_loss for penalty, trial in trials.items()})
    heads = descent.finish(_Heads(config, table, drawn_UV, chosen, descent.weight), trials[chosen])
    user_N, chosen_N, rejected_N = table.numbers.judges(whole)
    weight_NV = whole.weights_N[:, None] * drawn_UV[user_N]
    mean_RV, variance_RV = moments(heads, table.x_RK.numpy().astype(np.float64), config.form)
    r2_V = explained(mean_RV, variance_RV, chosen_N, rejected_N, weight_NV)
    unit = float(np.sqrt(2.0 * variance_RV[:, 0].mean()) / SLOPE)
    return Fits(heads, inputs, r2_V, unit, {"penalty": chosen, "steps": trials[chosen].steps, **trials[chosen].found})


def _draw(config: Dpl, table: Table, seed: int) -> Floats:
    """How often each user counts in each fit, (U, V): once in the first."""
    users = len(table.users)
    times = config.resamples if users >= FEWEST_USERS else 0
    drawn_VU = np.random.default_rng(seed).multinomial(users, np.full(users, 1.0 / users), size=times)
    return np.concatenate([np.ones((users, 1)), drawn_VU.T.astype(np.float64)], axis=1)


def moments(heads: Mapping[str, Floats], x_RK: Floats, form: str) -> tuple[Floats, Floats]:
    """Mean and variance of each response's reward under each fit, (R, V) each."""
    if form == "mean-variance":
        return x_RK @ heads["mean_KV"], np.logaddexp(0.0, ONE + x_RK @ heads["spread_KV"]) ** 2
    atom_C = np.linspace(0.0, 1.0, ATOMS)[:, None]
    share_RCV = softmax(np.tensordot(x_RK, heads["atom_KCV"], 1) + heads["atom_CV"], axis=1)
    mean_RV = (share_RCV * atom_C).sum(axis=1)
    return mean_RV, (share_RCV * atom_C**2).sum(axis=1) - mean_RV**2


def explained(mean_RV: Floats, variance_RV: Floats, one_N: IntArray, other_N: IntArray, weight_NV: Floats) -> Floats:
    """r2 of each fit, (V,): variance between the means of paired texts over that plus each text's own variance."""
    between_V = (weight_NV * (mean_RV[one_N] - mean_RV[other_N]) ** 2 / 2.0).sum(axis=0)
    within_V = (weight_NV * (variance_RV[one_N] + variance_RV[other_N]) / 2.0).sum(axis=0)
    return between_V / np.maximum(between_V + within_V, 1e-12)


def interval(r2_V: Floats) -> tuple[float, float]:
    """95 % interval of the first fit's r2 from the spread of the others, in log odds."""
    at_V = logit(np.clip(r2_V, 1e-9, 1.0 - 1e-9))
    half = 1.96 * at_V[1:].std(ddof=1)
    return float(expit(at_V[0] - half)), float(expit(at_V[0] + half))


@dataclass(frozen=True, eq=False)
class _Heads:
    """The heads of V parallel fits, as ``gradient_descent.Model``; validation rows judge the first."""

    config: Dpl
    table: Table
    drawn_UV: Floats
    penalty: float
    weight: float  # of all judgements: penalties are per fit, the loss is per judgement

    def start(self, seed: int) -> Parameters:
        """The start: no text is better than another."""
        import torch

        k, fits = self.table.x_RK.shape[1], self.drawn_UV.shape[1]
        if self.config.form == "mean-variance":
            return {"mean_KV": torch.zeros(k, fits), "spread_KV": torch.zeros(k, fits)}
        return {"atom_KCV": torch.zeros(k, ATOMS, fits), "atom_CV": torch.zeros(ATOMS, fits)}

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        return self._judge(now, rows)[0][:, 0]

    def loss(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``: the sum over fits."""
        import torch
        from torch.nn.functional import embedding, softplus

        margin_BV, extra_BV = self._judge(now, rows)
        drawn_BV = embedding(rows.user_B, torch.from_numpy(self.drawn_UV.astype(np.float32)))
        loss_BV = softplus(-margin_BV) + (1.0 - rows.label_B[:, None]) * margin_BV + extra_BV
        squares = self.penalty * sum((value**2).sum() for name, value in now.items() if "K" in name)
        return (rows.weight_B[:, None] * drawn_BV * loss_BV).mean(dim=0).sum() + squares / (2.0 * self.weight)

    def _judge(self, now: Parameters, rows: Batch) -> tuple[Tensor, Tensor | float]:
        """Log odds of each judgement, (B, V), and the penalty to add to the loss."""
        import torch
        from torch.nn.functional import softplus

        def sides(name: str) -> tuple[Tensor, Tensor]:
            head_KX, x_RK = now[name].flatten(1), self.table.x_RK
            both = torch.cat([rows.chosen_B, rows.rejected_B])
            value_2BX = of_rows(both, x_RK, lambda x: x @ head_KX)
            one, other = value_2BX.unflatten(1, now[name].shape[1:]).split(len(rows))
            return one, other

        if self.config.form == "mean-variance":
            (mean_BV, other_BV), spreads = sides("mean_KV"), sides("spread_KV")
            variance_BV = sum(softplus(ONE + spread_BV).square() for spread_BV in spreads)
            z_BV = (mean_BV - other_BV) / variance_BV.sqrt()  # type: ignore[union-attr]
            if self.config.link == "logistic":
                return float(np.sqrt(2.0 * np.pi)) * z_BV, self.config.spread_penalty * variance_BV
            return torch.special.log_ndtr(z_BV) - torch.special.log_ndtr(
                -z_BV
            ), self.config.spread_penalty * variance_BV
        shares = [torch.softmax(logit_BCV + now["atom_CV"], dim=1) for logit_BCV in sides("atom_KCV")]
        entropy_BV = sum(-(share * share.clamp(min=1e-12).log()).sum(dim=1) for share in shares)
        wins_BV, losses_BV = _wins(shares[0], shares[1]), _wins(shares[1], shares[0])
        margin_BV = wins_BV.clamp(min=1e-12).log() - losses_BV.clamp(min=1e-12).log()
        return margin_BV, -self.config.entropy_bonus * entropy_BV


def _wins(one_BCV: Tensor, other_BCV: Tensor) -> Tensor:
    """Probability that the first is greater, one half where they are equal."""
    below_BCV = other_BCV.cumsum(dim=1) - other_BCV / 2.0
    return (one_BCV * below_BCV).sum(dim=1)


class Fields(TypedDict):
    """Settings of a saved scorer."""

    form: Literal["mean-variance", "categorical"]
    unit: float
    selection: Selection


def _arrays(config: Mapping[str, Any]) -> Arrays:
    if config["form"] == "mean-variance":
        return {"heads.mean_KV": floats("K"), "heads.spread_KV": floats("K"), **Inputs.layout()}
    return {"heads.atom_KCV": floats("K", ATOMS), "heads.atom_CV": floats(ATOMS), **Inputs.layout()}


@dataclass(frozen=True, eq=False, repr=False)
class DplScorer(RanksTexts):
    """The mean of each text's reward, the same for everyone; ``moments`` also has its spread.

    ``unit`` is one log odd of a choice, near even chances, in rewards of the fit.
    """

    inputs: Inputs
    form: str
    heads: Mapping[str, Floats]
    unit: float
    selection: Mapping[str, float | str]

    kind: ClassVar[str] = "dpl"
    layout: ClassVar[Layout] = Layout(
        Fields, _arrays, rule=lambda config, _: None if config["unit"] > 0 else "the unit is not above 0"
    )
    serves: ClassVar[Serves] = "population"

    def moments(self, responses: Responses) -> tuple[Floats, Floats]:
        """Mean and variance of each response's reward, (R,) each, in log odds."""
        return self._moments(self.inputs(responses))

    def _moments(self, x_RK: Floats) -> tuple[Floats, Floats]:
        wide = {name: value[..., None] for name, value in self.heads.items()}
        mean_R1, variance_R1 = moments(wide, x_RK, self.form)
        return mean_R1[:, 0] / self.unit, variance_R1[:, 0] / self.unit**2

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        _, response_Q = resolved(responses, user_ids, response_Q)
        x_RK, _, place_Q = self.inputs.used(responses, response_Q)
        return Scores(self._moments(x_RK)[0][place_Q], np.full(len(place_Q), POPULATION, np.int8))

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.inputs.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        arrays = {f"heads.{name}": value for name, value in self.heads.items()}
        return {"form": self.form, "unit": self.unit, "selection": dict(self.selection)}, arrays | self.inputs.arrays()

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        heads = {name.removeprefix("heads."): value for name, value in arrays.items() if name.startswith("heads.")}
        return cls(Inputs.from_arrays(encoder, arrays), config["form"], heads, config["unit"], config["selection"])
