"""PReF: a small network finds the factors of people's rewards; each person has their own weights of these.

Paper: Shenfeld et al. 2025, "Language Model Personalization via Reward Factorization":

    r_u(x) = lambda_u . phi(x)          phi: C factors of a response,  lambda_u: user u's weights of these

fitted together to -log sigmoid of the reward differences; a new user gets their own weights while phi stays fixed.

What we changed: phi is a small network on frozen features instead of a tuned language model,

    r_u(x) = p . x + (1, lambda_u) . phi(x)         phi(x) = W x + V gelu(A x + b)

so that people's rewards need not be linear in the features. p is the pooled reward, and the first factor has the same
weight for everybody. W and V start at zero: at first everybody has the pooled reward, and swapped labels give exactly
opposite rewards. The paper starts lambda at a singular value decomposition of the table of users and pairs, for which
pairs must have many judges; here it starts at random orthogonal columns. Priors N(0, 1/penalty) on the network and N(0,
1/user_penalty) on lambda; the network's penalty and the number of steps are chosen on validation rows. Strangers get
the mean weights; the prior of a new user's has this mean and the known users' covariance.

Suffixes here: ``_C`` factors, ``_V`` users and the stranger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from polypref import content
from polypref.comparisons import Comparisons, IntArray, Responses, Users, concat
from polypref.errors import NotEnoughData
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.bradley_terry.panel import Panel
from polypref.learners.history import History, Rows
from polypref.learners.inputs import Inputs
from polypref.learners.likelihood import surprise
from polypref.learners.linear import CHUNK
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.prototypes import gelu
from polypref.learners.provenance import passed_on, recorded
from polypref.learners.training.gradient_descent import Batch, Descent, Parameters, Table, of_rows
from polypref.schema import Ids, Layout, Selection, floats

if TYPE_CHECKING:
    from torch import Tensor

NETWORK = ("a_KW", "b_W", "w_KC", "v_WC")
SPREAD = 0.1  # of the hidden units' first weights
APART = 2.0  # length of a user's first weights, if there are no more users than factors


@dataclass(frozen=True)
class RewardFactors:
    """Settings of reward factorization on frozen features."""

    factors: int = 8
    """Factors with individual weights, besides the one that is the same for everybody."""
    hidden: int = 128
    """Hidden units of the network."""
    penalties: tuple[float, ...] = (0.1, 3.0)
    """Inverse prior variances of the network's weights to try on validation rows."""
    user_penalty: float = 1.0
    """Inverse prior variance of a user's weights."""
    rate: float = 0.01
    """Adam's learning rate."""
    most_steps: int = 1600
    """Maximum steps of Adam; validation rows usually stop it earlier."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> FactorsScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        table = Table.build(whole, inputs)
        descent = Descent(table, train, valid, seed, rate=self.rate, most=self.most_steps)
        pooled_K = Panel.build(train, inputs).pooled_weights(seed)
        models = {penalty: _Network(self, table, pooled_K, penalty, descent.weight) for penalty in self.penalties}
        trials = {penalty: descent.attempt(model) for penalty, model in models.items()}
        chosen = validation.best({penalty: trial.log_loss for penalty, trial in trials.items()})
        pooled_K = Panel.build(whole, inputs).pooled_weights(seed)
        fitted = descent.finish(replace(models[chosen], pooled_K=pooled_K), trials[chosen])
        network = {"pooled_K": pooled_K.astype(np.float64), **{name: fitted[name] for name in NETWORK}}
        found = {"penalty": chosen, "steps": trials[chosen].steps, **trials[chosen].found}
        weight_UC = fitted["weight_UC"]
        off_UC = weight_UC - weight_UC.mean(axis=0)
        # as if one more user had the prior's covariance
        covariance_CC = (off_UC.T @ off_UC + np.eye(self.factors) / self.user_penalty) / (len(weight_UC) + 1)
        history = History.of(whole, table.users, partial(_gaps, inputs, network))
        mean_C = weight_UC.mean(axis=0)
        return FactorsScorer(inputs, table.users, weight_UC, mean_C, covariance_CC, network, found, history)


@dataclass(frozen=True, eq=False)
class _Network:
    """Network and everybody's weights, as ``gradient_descent.Model``."""

    config: RewardFactors
    table: Table
    pooled_K: NDArray[np.floating]
    penalty: float
    weight: float  # of all judgements: penalties are per fit, the loss is per judgement

    def start(self, seed: int) -> Parameters:
        """The start: nearly linear hidden units with zero output weights; users' weights differ from the first step."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        config, users, k = self.config, len(self.table.users), self.table.x_RK.shape[1]
        weight_UC = torch.nn.init.orthogonal_(torch.empty(users, config.factors), generator=generator)
        return {
            "a_KW": torch.randn(k, config.hidden, generator=generator) * SPREAD,
            "b_W": torch.randn(config.hidden, generator=generator) * SPREAD,
            "w_KC": torch.zeros(k, 1 + config.factors),
            "v_WC": torch.zeros(config.hidden, 1 + config.factors),
            "weight_UC": APART * max(users / config.factors, 1.0) ** 0.5 * weight_UC,
        }

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        import torch
        from torch.nn.functional import embedding, gelu  # embedding sums its gradient in a fixed order

        pooled_K1 = torch.from_numpy(self.pooled_K.astype(np.float32))[:, None]

        def factors(x_XK: Tensor) -> Tensor:
            found_XC = x_XK @ now["w_KC"] + gelu(x_XK @ now["a_KW"] + now["b_W"]) @ now["v_WC"]
            return torch.cat([x_XK @ pooled_K1 + found_XC[:, :1], found_XC[:, 1:]], dim=1)

        both = torch.cat([rows.chosen_B, rows.rejected_B])
        chosen_BC, rejected_BC = of_rows(both, self.table.x_RK, factors).split(len(rows))
        gap_BC = chosen_BC - rejected_BC
        return gap_BC[:, 0] + (gap_BC[:, 1:] * embedding(rows.user_B, now["weight_UC"])).sum(dim=1)

    def loss(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        squares = self.config.user_penalty * (now["weight_UC"] ** 2).sum()
        for name in ("a_KW", "w_KC", "v_WC"):
            squares = squares + self.penalty * (now[name] ** 2).sum()
        return rows.loss(self.margins(now, rows)) + squares / (2.0 * self.weight)


class Fields(TypedDict):
    """Settings of a saved scorer."""

    users: Ids
    selection: Selection


@dataclass(frozen=True, eq=False, repr=False)
class FactorsScorer(RanksTexts):
    """The network and ``weight_UC`` of the known ``users``; strangers get ``mean_C``.

    A new user's weights have the prior N(``mean_C``, ``covariance_CC``), estimated from the fitted users.
    """

    inputs: Inputs
    users: Users
    weight_UC: NDArray[np.float64]
    mean_C: NDArray[np.float64]
    covariance_CC: NDArray[np.float64]
    network: Mapping[str, NDArray[np.float64]]
    selection: Mapping[str, float | str]
    history: History

    kind: ClassVar[str] = "reward-factors"
    layout: ClassVar[Layout] = Layout(
        Fields,
        {
            "pooled_K": floats("K"),
            "weight_UC": floats("U", "C"),
            "mean_C": floats("C"),
            "covariance_CC": floats("C", "C"),
            "a_KW": floats("K", "W"),
            "b_W": floats("W"),
            "w_KC": floats("K", "C+1"),
            "v_WC": floats("W", "C+1"),
            **Inputs.layout(),
            **History.layout("C+1"),
        },
        sizes={"U": "users"},
    )
    serves: ClassVar[Serves] = "any_user"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        x_RK, _, place_Q = self.inputs.used(responses, response_Q)
        user_Q = self.users.index(id_Q)
        weight_VC = np.concatenate([self.weight_UC, self.mean_C[None]])  # -1: a stranger
        factors_RC = _factors(self.network, x_RK)
        value_Q = factors_RC[place_Q, 0] + (factors_RC[place_Q, 1:] * weight_VC[user_Q]).sum(axis=1)
        return Scores(value_Q, np.where(user_Q >= 0, PERSONAL, POPULATION).astype(np.int8))

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> FactorsScorer:
        """A new scorer that also knows ``user_id`` from ``few`` (whose ids are ignored); other users' scores stay.

        Raises NotEnoughData without comparisons.
        """
        user_id = content.one_id(user_id)
        if not len(few):
            raise NotEnoughData(f"no comparisons to learn user {user_id!r} from; give at least one.")
        from scipy.optimize import minimize

        rows = Rows.of(_gaps(self.inputs, self.network, few), few).after(self.history.of_user(user_id))
        mean_C = self.mean_C
        root_CC = np.linalg.cholesky(self.covariance_CC)  # weights are mean + root z, with z ~ N(0, 1)
        gap_NC = rows.value_NX[:, 1:]
        base_N, turn_NC = rows.value_NX[:, 0] + gap_NC @ mean_C, gap_NC @ root_CC

        def value(z_C: NDArray) -> tuple[float, NDArray]:
            margin_N = base_N + turn_NC @ z_C
            loss_N = surprise(margin_N, rows.label_N)
            slope_C = (rows.weight_N * (expit(margin_N) - rows.label_N)) @ turn_NC + z_C
            return float(rows.weight_N @ loss_N + z_C @ z_C / 2), slope_C

        z_C = minimize(value, np.zeros(len(mean_C)), jac=True, method="L-BFGS-B").x
        others, users = self.users.with_last(user_id)
        weight_UC = np.concatenate([self.weight_UC[others], (mean_C + root_CC @ z_C)[None]])
        return replace(self, users=users, weight_UC=weight_UC, history=self.history.with_newer(user_id, rows))

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.inputs.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config = {"users": self.users.ids.to_list(), "selection": dict(self.selection)}
        arrays = {"weight_UC": self.weight_UC, "mean_C": self.mean_C, "covariance_CC": self.covariance_CC}
        return config, {**arrays, **self.network, **self.inputs.arrays(), **self.history.arrays(self.users)}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        users = Users(pl.Series("id", config["users"], dtype=pl.String))
        return cls(
            Inputs.from_arrays(encoder, arrays),
            users,
            arrays["weight_UC"],
            arrays["mean_C"],
            arrays["covariance_CC"],
            {name: arrays[name] for name in ("pooled_K", *NETWORK)},
            config["selection"],
            History.from_arrays(arrays, users),
        )


def _factors(network: Mapping[str, NDArray[np.float64]], x_RK: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part common to everybody, with the pooled reward, and the individually weighted factors, (R, 1 + C)."""
    found_RC = x_RK @ network["w_KC"]
    for rows in np.array_split(np.arange(len(x_RK)), max(1, len(x_RK) // CHUNK)):
        found_RC[rows] += gelu(x_RK[rows] @ network["a_KW"] + network["b_W"]) @ network["v_WC"]
    found_RC[:, 0] += x_RK @ network["pooled_K"]
    return found_RC


def _gaps(inputs: Inputs, network: Mapping[str, NDArray[np.float64]], rows: Comparisons) -> NDArray[np.float64]:
    """The factors of the chosen minus those of the rejected responses, (N, 1 + C)."""
    x_RK, _, place_2N = inputs.used(rows.responses, np.concatenate([rows.chosen_N, rows.rejected_N]))
    chosen_NC, rejected_NC = _factors(network, x_RK)[place_2N].reshape(2, len(rows), -1)
    return chosen_NC - rejected_NC
