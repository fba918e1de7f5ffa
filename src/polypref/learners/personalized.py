"""P-RLHF: one shared reward that reads a learned vector of the user, on frozen features.

Paper: Li et al. 2024, "Personalized Language Modeling from Personalized Human Feedback". With l the loss of one
judgement, -log sigmoid(r(chosen) - r(rejected)),

    L = alpha * mean l(under the judging user) + (1 - alpha) * mean l(under the generic user)

``users="individual"``: e_u = e_0 + o_u, and e_0 is the generic user. ``users="cluster"``: e_u is the mixture
softmax(s_u) of a few cluster vectors, and the generic user has its own learned mixture.

What we changed: a small network on frozen features instead of a tuned language model that reads the vector as soft
tokens,

    r(x, e) = w . x + v . tanh(A x + B e + b)

so rewards are not linear in the features, and the effect of the user's vector depends on the text. Both means are over
all rows of a batch (the authors' alpha depends on the content of a micro-batch). o_u and s_u start at zero, so a
person's name or number has no effect; w and v start at zero, so swapped labels give exactly opposite rewards. Priors
N(0, 1/penalty) on the users' and the network's weights; the users' penalty and the number of steps are chosen on
validation rows. Strangers get the generic user. A new user, for whom the paper uses the generic user, gets the most
probable o_u (or s_u) under that prior, with everything else fixed.

Suffixes here: ``_C`` clusters of users, ``_E`` numbers of a user's vector, ``_V`` users and the stranger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, softmax

from polypref import content
from polypref.comparisons import Comparisons, IntArray, Responses, Users, concat
from polypref.errors import NotEnoughData
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.history import History, Rows
from polypref.learners.inputs import Inputs
from polypref.learners.likelihood import surprise
from polypref.learners.linear import CHUNK
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.provenance import passed_on, recorded
from polypref.learners.training.gradient_descent import Batch, Descent, Parameters, Table, of_rows
from polypref.schema import Ids, Layout, Selection, floats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Personalized:
    """Settings of P-RLHF on frozen features."""

    users: Literal["individual", "cluster"] = "individual"
    """Each user's own vector around the generic user's, or a mixture of a few cluster vectors."""
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
    """Maximum steps of Adam; validation rows usually stop it earlier."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""

    @recorded
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
        clusters_CE = fitted.get("cluster_CE", np.zeros((0, self.size)))
        history = History.of(whole, table.users, partial(_read, inputs, network))
        own = (vectors_UE[1:], vectors_UE[0], network, selection, clusters_CE, chosen, self.alpha)
        return PersonalizedScorer(inputs, table.users, *own, history)


NETWORK = ("w_K", "v_W", "a_KW", "b_EW", "b_W")


def _vectors(now: Mapping[str, NDArray]) -> NDArray:
    """Everybody's vector, the generic user's first, (1 + U, E)."""
    if "own_UE" in now:
        return now["generic_E"] + np.concatenate([np.zeros((1, now["own_UE"].shape[1])), now["own_UE"]])
    odds = np.exp(now["mixture_VC"] - now["mixture_VC"].max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True) @ now["cluster_CE"]


@dataclass(frozen=True, eq=False)
class _Network:
    """The shared reward with its users, as ``gradient_descent.Model``."""

    config: Personalized
    table: Table
    user_penalty: float
    weight: float  # of all judgements: penalties are per fit, the loss is per judgement

    def start(self, seed: int) -> Parameters:
        """The start: random text and vector weights; users do not differ and no text is better than another."""
        import torch

        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, sd: float = 1.0) -> Tensor:
            return torch.randn(*shape, generator=generator) * sd

        config, users, k = self.config, len(self.table.users), self.table.x_RK.shape[1]
        now = {
            "w_K": torch.zeros(k),
            "v_W": torch.zeros(config.hidden),
            "a_KW": normal(k, config.hidden),
            "b_EW": normal(config.size, config.hidden, sd=config.size**-0.5),
            "b_W": normal(config.hidden, sd=0.5),
        }
        if config.users == "individual":
            return now | {"generic_E": normal(config.size, sd=0.1), "own_UE": torch.zeros(users, config.size)}
        return now | {
            "cluster_CE": normal(config.clusters, config.size),
            "mixture_VC": torch.zeros(1 + users, config.clusters),
        }

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        from torch.nn.functional import embedding  # sums its gradient in a fixed order, unlike indexing

        return _margins(now, self._texts(now, rows), embedding(rows.user_B, self._shift(now)[1:]))

    def loss(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        from torch.nn.functional import embedding

        texts, shift_VW = self._texts(now, rows), self._shift(now)
        generic = rows.loss(_margins(now, texts, shift_VW[:1]))
        personal = rows.loss(_margins(now, texts, embedding(rows.user_B, shift_VW[1:])))
        own = now["own_UE"] if "own_UE" in now else now["mixture_VC"]
        squares = self.user_penalty * (own**2).sum()
        squares = squares + self.config.penalty * ((now["a_KW"] ** 2).sum() + (now["v_W"] ** 2).sum())
        return self.config.alpha * personal + (1.0 - self.config.alpha) * generic + squares / (2.0 * self.weight)

    def _texts(self, now: Parameters, rows: Batch) -> tuple[Tensor, Tensor]:
        """The part that does not depend on the user, for chosen and rejected: hidden inputs and w . x, (B, H + 1)."""
        import torch

        weights = torch.cat([now["a_KW"], now["w_K"][:, None]], dim=1)
        bias = torch.cat([now["b_W"], torch.zeros(1)])
        both = torch.cat([rows.chosen_B, rows.rejected_B])
        chosen, rejected = of_rows(both, self.table.x_RK, lambda x: x @ weights + bias).split(len(rows))
        return chosen, rejected

    def _shift(self, now: Parameters) -> Tensor:
        """The contribution of everybody's vector to the hidden units, the generic user's first, (1 + U, H)."""
        import torch

        if self.config.users == "individual":
            generic = torch.zeros(1, self.config.size)
            return (now["generic_E"] + torch.cat([generic, now["own_UE"]])) @ now["b_EW"]
        return torch.softmax(now["mixture_VC"], dim=1) @ now["cluster_CE"] @ now["b_EW"]


def _margins(now: Parameters, texts: tuple[Tensor, Tensor], shift_BW: Tensor) -> Tensor:
    """Reward(chosen) - reward(rejected) under vectors that shift the hidden inputs by ``shift_BW``."""
    import torch

    one, other = texts
    hidden_BW = torch.tanh(one[:, :-1] + shift_BW) - torch.tanh(other[:, :-1] + shift_BW)
    return one[:, -1] - other[:, -1] + hidden_BW @ now["v_W"]


class Fields(TypedDict):
    """Settings of a saved scorer."""

    users: Ids
    selection: Selection
    user_penalty: float
    alpha: float


@dataclass(frozen=True, eq=False, repr=False)
class PersonalizedScorer(RanksTexts):
    """The shared reward, ``vectors_UE`` of the known ``users``, ``generic_E`` for strangers.

    ``clusters_CE`` (none with users="individual"), ``user_penalty`` and ``alpha`` are used to learn a new user.
    """

    inputs: Inputs
    users: Users
    vectors_UE: NDArray[np.float64]
    generic_E: NDArray[np.float64]
    network: Mapping[str, NDArray[np.float64]]
    selection: Mapping[str, float | str]
    clusters_CE: NDArray[np.float64]
    user_penalty: float
    alpha: float
    history: History

    kind: ClassVar[str] = "personalized"
    layout: ClassVar[Layout] = Layout(
        Fields,
        {
            "w_K": floats("K"),
            "v_W": floats("W"),
            "a_KW": floats("K", "W"),
            "b_EW": floats("E", "W"),
            "b_W": floats("W"),
            "vectors_UE": floats("U", "E"),
            "generic_E": floats("E"),
            "clusters_CE": floats("C", "E"),
            **Inputs.layout(),
            **History.layout("2W+1"),
        },
        sizes={"U": "users"},
    )
    serves: ClassVar[Serves] = "any_user"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        x_RK, _, place_Q = self.inputs.used(responses, response_Q)
        user_Q = self.users.index(id_Q)
        vectors_VE = np.concatenate([self.vectors_UE, self.generic_E[None]])  # -1: a stranger
        # not a matrix product, whose last bits may depend on how many other users there are
        shift_VW = np.einsum("ve,eh->vh", vectors_VE, self.network["b_EW"])
        base_RW = x_RK @ self.network["a_KW"] + self.network["b_W"]
        value_Q = (x_RK @ self.network["w_K"])[place_Q]
        for rows in np.array_split(np.arange(len(place_Q)), max(1, len(place_Q) // CHUNK)):
            value_Q[rows] += np.tanh(base_RW[place_Q[rows]] + shift_VW[user_Q[rows]]) @ self.network["v_W"]
        return Scores(value_Q, np.where(user_Q >= 0, PERSONAL, POPULATION).astype(np.int8))

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> PersonalizedScorer:
        """A new scorer that also knows ``user_id`` from ``few`` (whose ids are ignored); other users' scores stay.

        Raises NotEnoughData without comparisons.
        """
        user_id = content.one_id(user_id)
        if not len(few):
            raise NotEnoughData(f"no comparisons to learn user {user_id!r} from; give at least one.")
        rows = Rows.of(_read(self.inputs, self.network, few), few).after(self.history.of_user(user_id))
        vector_E = self._learnt(rows)
        others, users = self.users.with_last(user_id)
        vectors_UE = np.concatenate([self.vectors_UE[others], vector_E[None]])
        return replace(self, users=users, vectors_UE=vectors_UE, history=self.history.with_newer(user_id, rows))

    def _learnt(self, few: Rows) -> NDArray[np.float64]:
        """The vector of one new user: the minimum of the fit's loss in o_u (or s_u) alone."""
        from scipy.optimize import minimize

        sign_2N = np.repeat([1.0, -1.0], len(few))
        fixed_N, base_N2W = few.value_NX[:, 0], few.value_NX[:, 1:]
        base_2NW = np.concatenate(np.split(base_N2W, 2, axis=1))
        mixed, outer_EW, v_W = len(self.clusters_CE) > 0, self.network["b_EW"], self.network["v_W"]
        if mixed:
            outer_EW = self.clusters_CE @ outer_EW
        else:
            base_2NW += self.generic_E @ outer_EW
        weight_N = self.alpha * few.weight_N

        def value(own_E: NDArray) -> tuple[float, NDArray]:
            share_E = softmax(own_E) if mixed else own_E
            hidden_2NW = np.tanh(base_2NW + share_E @ outer_EW)
            margin_N = fixed_N + (sign_2N * (hidden_2NW @ v_W)).reshape(2, -1).sum(axis=0)
            loss_N = surprise(margin_N, few.label_N)
            force_2N = sign_2N * np.tile(weight_N * (expit(margin_N) - few.label_N), 2)
            slope_E = outer_EW @ (v_W * (force_2N @ (1.0 - hidden_2NW**2)))
            slope_E = share_E * (slope_E - slope_E @ share_E) if mixed else slope_E
            energy = self.user_penalty * (own_E @ own_E) / 2
            return float(weight_N @ loss_N + energy), slope_E + self.user_penalty * own_E

        own_E = minimize(value, np.zeros(len(outer_EW)), jac=True, method="L-BFGS-B").x
        return softmax(own_E) @ self.clusters_CE if mixed else self.generic_E + own_E

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.inputs.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        arrays = {"vectors_UE": self.vectors_UE, "generic_E": self.generic_E, "clusters_CE": self.clusters_CE}
        config = {"users": self.users.ids.to_list(), "selection": dict(self.selection)}
        config |= {"user_penalty": self.user_penalty, "alpha": self.alpha}
        return config, {**arrays, **self.network, **self.inputs.arrays(), **self.history.arrays(self.users)}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        users = Users(pl.Series("id", config["users"], dtype=pl.String))
        return cls(
            Inputs.from_arrays(encoder, arrays),
            users,
            arrays["vectors_UE"],
            arrays["generic_E"],
            {name: arrays[name] for name in NETWORK},
            config["selection"],
            arrays["clusters_CE"],
            config["user_penalty"],
            config["alpha"],
            History.from_arrays(arrays, users),
        )


def _read(inputs: Inputs, network: Mapping[str, NDArray[np.float64]], rows: Comparisons) -> NDArray[np.float64]:
    """What a user's vector is learned from: the linear part's margin and both texts' hidden inputs, (N, 1 + 2 W)."""
    x_RK, _, place_2N = inputs.used(rows.responses, np.concatenate([rows.chosen_N, rows.rejected_N]))
    both_RW = np.column_stack([x_RK @ network["w_K"], x_RK @ network["a_KW"] + network["b_W"]])
    chosen_NW, rejected_NW = both_RW[place_2N].reshape(2, len(rows), -1)
    return np.column_stack([chosen_NW[:, 0] - rejected_NW[:, 0], chosen_NW[:, 1:], rejected_NW[:, 1:]])
