"""One shared reward that reads a learned vector of the user: P-RLHF, on frozen features.

Paper: Li et al. 2024, "Personalized Language Modeling from Personalized Human Feedback". With l the loss of one
judgement, -log sigmoid(r(chosen) - r(rejected)),

    L = alpha * mean l(under the judging user) + (1 - alpha) * mean l(under the generic user)

``users="individual"``: e_u = e_0 + o_u, and e_0 is the generic user. ``users="cluster"``: e_u is the mixture
softmax(s_u) of a few cluster vectors, and the generic user has a learned mixture of its own.

What we changed: a small network on frozen features instead of a tuned language model that reads the vector as soft
tokens,

    r(x, e) = w . x + v . tanh(A x + B e + b)

so rewards are not linear in the features and what the user's vector does depends on the text. Both means are over all
rows of a batch (the authors' alpha depends on what happens to be in a micro-batch). o_u and s_u start at zero, so a
person's name or number decides nothing; w and v start at zero, so swapped labels give exactly opposite rewards. Priors
N(0, 1/penalty) on the users' and the network's weights; the users' penalty and the number of steps are chosen on
validation rows. Strangers get the generic user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Responses, Users, concat
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.descent import Batch, Descent, Parameters, Table
from polypref.learners.inputs import Inputs
from polypref.learners.linear import CHUNK
from polypref.learners.protocol import PERSONAL, POPULATION, Scores, Serves

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Personalized:
    """Settings of P-RLHF on frozen features."""

    users: Literal["individual", "cluster"] = "individual"
    """A vector of each user's own around the generic user's, or a mixture of a few cluster vectors."""
    alpha: float = 0.5
    """Share of the loss under the judging user; the rest is under the generic user."""
    size: int = 8
    """Numbers in a user's vector."""
    clusters: int = 8
    """Cluster vectors, for users="cluster"."""
    hidden: int = 32
    """Hidden units of the shared reward."""
    penalty: float = 2.0
    """Inverse prior variance of the network's weights."""
    user_penalties: tuple[float, ...] = (2.0, 50.0)
    """Inverse prior variances of the users' own weights to try on validation rows."""
    most_steps: int = 800
    """Steps of Adam at most; validation rows usually stop it earlier."""
    directions: int = 64
    """Principal directions of the encoder's space to use."""

    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> PersonalizedScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        table = Table.build(whole, inputs)
        descent = Descent(table, train, valid, seed, rate=0.03, most=self.most_steps)
        models = {penalty: _Network(self, table, penalty, descent.weight) for penalty in self.user_penalties}
        trials = {penalty: descent.attempt(model) for penalty, model in models.items()}
        chosen = validation.best({penalty: trial.log_loss for penalty, trial in trials.items()})
        fitted = descent.finish(models[chosen], trials[chosen])
        selection = {"user_penalty": chosen, "steps": trials[chosen].steps, **trials[chosen].found}
        vectors_UE = _vectors(fitted)
        network = {name: fitted[name] for name in NETWORK}
        return PersonalizedScorer(inputs, table.users, vectors_UE[1:], vectors_UE[0], network, selection)


NETWORK = ("w_K", "v_H", "a_KH", "b_EH", "b_H")


def _vectors(now: Mapping[str, NDArray]) -> NDArray:
    """Everybody's vector, the generic user's first, (1 + U, E)."""
    if "own_UE" in now:
        return now["generic_E"] + np.concatenate([np.zeros((1, now["own_UE"].shape[1])), now["own_UE"]])
    odds = np.exp(now["mixture_VC"] - now["mixture_VC"].max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True) @ now["cluster_CE"]


@dataclass(frozen=True, eq=False)
class _Network:
    """The shared reward with its users, as ``descent.Model``."""

    how: Personalized
    table: Table
    user_penalty: float
    weight: float  # of all judgements: penalties are per fit, the loss is per judgement

    def start(self, seed: int) -> Parameters:
        """Random text and vector weights; nobody differs yet and no text is better than another."""
        import torch

        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, sd: float = 1.0) -> Tensor:
            return torch.randn(*shape, generator=generator) * sd

        how, users, k = self.how, len(self.table.users), self.table.x_RK.shape[1]
        now = {
            "w_K": torch.zeros(k),
            "v_H": torch.zeros(how.hidden),
            "a_KH": normal(k, how.hidden),
            "b_EH": normal(how.size, how.hidden, sd=how.size**-0.5),
            "b_H": normal(how.hidden, sd=0.5),
        }
        if how.users == "individual":
            return now | {"generic_E": normal(how.size, sd=0.1), "own_UE": torch.zeros(users, how.size)}
        return now | {
            "cluster_CE": normal(how.clusters, how.size),
            "mixture_VC": torch.zeros(1 + users, how.clusters),
        }

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``descent.Model``."""
        import torch
        from torch.nn.functional import embedding  # its gradient adds up in a fixed order, unlike indexing's

        base_RH = self.table.x_RK @ now["a_KH"] + now["b_H"]
        own_BH = embedding(rows.user_B, self._shift(now)[1:])
        chosen_BH, rejected_BH = embedding(rows.chosen_B, base_RH), embedding(rows.rejected_B, base_RH)
        hidden_BH = torch.tanh(chosen_BH + own_BH) - torch.tanh(rejected_BH + own_BH)
        return _difference(self.table.x_RK @ now["w_K"], rows) + hidden_BH @ now["v_H"]

    def loss(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``descent.Model``."""
        import torch

        base_RH = self.table.x_RK @ now["a_KH"] + now["b_H"]
        generic_R = self.table.x_RK @ now["w_K"] + torch.tanh(base_RH + self._shift(now)[0]) @ now["v_H"]
        generic = rows.loss(_difference(generic_R, rows))
        own = now["own_UE"] if "own_UE" in now else now["mixture_VC"]
        squares = self.user_penalty * (own**2).sum()
        squares = squares + self.how.penalty * ((now["a_KH"] ** 2).sum() + (now["v_H"] ** 2).sum())
        personal = rows.loss(self.margins(now, rows))
        return self.how.alpha * personal + (1.0 - self.how.alpha) * generic + squares / (2.0 * self.weight)

    def _shift(self, now: Parameters) -> Tensor:
        """What everybody's vector adds to the hidden units, the generic user's first, (1 + U, H)."""
        import torch

        if self.how.users == "individual":
            stranger = torch.zeros(1, self.how.size)
            return (now["generic_E"] + torch.cat([stranger, now["own_UE"]])) @ now["b_EH"]
        return torch.softmax(now["mixture_VC"], dim=1) @ now["cluster_CE"] @ now["b_EH"]


def _difference(reward_R: Tensor, rows: Batch) -> Tensor:
    from torch.nn.functional import embedding

    column_R1 = reward_R[:, None]
    return (embedding(rows.chosen_B, column_R1) - embedding(rows.rejected_B, column_R1))[:, 0]


@dataclass(frozen=True, eq=False)
class PersonalizedScorer:
    """The shared reward, ``vectors_UE`` of the known ``users``, ``generic_E`` for strangers."""

    inputs: Inputs
    users: Users
    vectors_UE: NDArray[np.float64]
    generic_E: NDArray[np.float64]
    network: Mapping[str, NDArray[np.float64]]
    selection: Mapping[str, float | str]

    kind: ClassVar[str] = "personalized"
    serves: ClassVar[Serves] = "seen_users"

    def score(
        self, responses: Responses, user_ids: pl.Series | Sequence[str], response_Q: IntArray | None = None
    ) -> Scores:
        """See ``learners.protocol.Scorer``."""
        x_RK, _, place_Q = self.inputs.used(responses, response_Q)
        user_Q = self.users.index(user_ids)
        shift_VH = np.concatenate([self.vectors_UE, self.generic_E[None]]) @ self.network["b_EH"]  # -1: the stranger
        base_RH = x_RK @ self.network["a_KH"] + self.network["b_H"]
        value_Q = (x_RK @ self.network["w_K"])[place_Q]
        for rows in np.array_split(np.arange(len(place_Q)), max(1, len(place_Q) // CHUNK)):
            value_Q[rows] += np.tanh(base_RH[place_Q[rows]] + shift_VH[user_Q[rows]]) @ self.network["v_H"]
        return Scores(value_Q, np.where(user_Q >= 0, PERSONAL, POPULATION).astype(np.int8))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        arrays = {"vectors_UE": self.vectors_UE, "generic_E": self.generic_E, **self.network, **self.inputs.arrays()}
        return {"users": self.users.ids.to_list(), "selection": dict(self.selection)}, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        return cls(
            Inputs.from_arrays(encoder, arrays),
            Users(pl.Series("id", config["users"], dtype=pl.String)),
            arrays["vectors_UE"],
            arrays["generic_E"],
            {name: arrays[name] for name in NETWORK},
            config["selection"],
        )
