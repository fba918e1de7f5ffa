"""Shared by both forms of PAL: the map of items, people as mixtures of k prototypes, the choice of k, new people.

Suffixes here: ``_C`` prototypes, ``_V`` users and the stranger.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import erf, expit, softmax

from polypref import content
from polypref.comparisons import Comparisons, IntArray, Responses, Users
from polypref.features.protocol import Encoder
from polypref.learners.history import History, Rows
from polypref.learners.inputs import Inputs
from polypref.learners.likelihood import surprise
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.provenance import passed_on
from polypref.learners.training.gradient_descent import Batch, Descent, Model, Trial
from polypref.schema import Ids, Layout, Selection, floats

if TYPE_CHECKING:
    from torch import Tensor

Loss = Literal["logistic", "hinge"]
Floats = NDArray[np.float64]
ITEM_MAP = ("in_KK", "in_K", "mid_KK", "mid_K", "out_KK")
OTHER_START = 7919  # step between the seeds of two starts
LEAST = 1e-6  # added to squared lengths, since the root has no slope at zero


class Fields(TypedDict):
    """Settings that both forms save."""

    users: Ids
    user_penalty: float
    selection: Selection


LAYOUT = Layout(
    Fields,
    {
        "mixture_UC": floats("U", "C"),
        "mixture_C": floats("C"),
        **{f"network.{name}_KK": floats("K", "K") for name in ("in", "mid", "out")},
        **{f"network.{name}_K": floats("K") for name in ("in", "mid")},
        "network.sharpness": floats(1),
        **Inputs.layout(),
    },
    sizes={"U": "users"},
)


# --- the map of items: the residual network of the paper, two hidden layers as wide as its input


def start_item_map(inputs: int, normal: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Random hidden layers whose output weights are zero: the map starts as the identity."""
    import torch

    hidden = {name: normal(inputs, inputs, sd=inputs**-0.5) for name in ("in_KK", "mid_KK")}
    zeros = {"in_K": torch.zeros(inputs), "mid_K": torch.zeros(inputs), "out_KK": torch.zeros(inputs, inputs)}
    return hidden | zeros


def map_items(now: Mapping[str, Any], x_XK: Any, gelu: Callable[[Any], Any]) -> Any:
    """``x + out gelu(mid gelu(in x))``, in torch or numpy, as ``gelu`` is."""
    return x_XK + gelu(gelu(x_XK @ now["in_KK"] + now["in_K"]) @ now["mid_KK"] + now["mid_K"]) @ now["out_KK"]


def gelu(x: NDArray) -> NDArray:
    """x times the standard normal's distribution function."""
    return 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))


def map_slopes(net: Mapping[str, Floats], x_K: Floats, slopes_CK: Floats) -> Floats:
    """Derivatives (C, K) of the mapped item as the item ``x_K`` moves along each of C directions."""

    def slope(x: Floats) -> Floats:
        return 0.5 * (1.0 + erf(x / np.sqrt(2.0))) + x * np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)

    first_K = x_K @ net["in_KK"] + net["in_K"]
    second_K = gelu(first_K) @ net["mid_KK"] + net["mid_K"]
    moved_CK = ((slopes_CK @ net["in_KK"]) * slope(first_K)) @ net["mid_KK"]
    return slopes_CK + (moved_CK * slope(second_K)) @ net["out_KK"]


# --- fitting


def judged(rows: Batch, margin_B: Tensor, loss: Loss) -> Tensor:
    """Weighted mean loss of the margins; a tie is half a judgement each way."""
    if loss == "logistic":
        return rows.loss(margin_B)
    won_B, lost_B = (1.0 - margin_B).clamp(min=0.0), (1.0 + margin_B).clamp(min=0.0)
    return (rows.weight_B * (rows.label_B * won_B + (1.0 - rows.label_B) * lost_B)).mean()


def choose(descent: Descent, models: Mapping[int, Model], slack: float, starts: int) -> tuple[int, Descent, Trial]:
    """The smallest number of prototypes that is as good as the best on validation rows, and how to fit them.

    As good means a log loss larger by at most the share ``slack`` / sqrt(validation rows), about a standard error. If
    all training rows fit into one batch, a number of prototypes is represented by the best of several ``starts``.
    """
    seeds = range(starts if len(descent.train) <= descent.whole else 1)
    found = {}
    for count in sorted(models):
        walks = [replace(descent, seed=descent.seed + OTHER_START * start) for start in seeds]
        tried = [(walk, walk.attempt(models[count])) for walk in walks]
        found[count] = min(tried, key=lambda one: one[1].log_loss)
    least = min(trial.log_loss for _, trial in found.values())
    most = least * (1.0 + slack / max(len(descent.valid), 1) ** 0.5)
    chosen = next(count for count, (_, trial) in found.items() if trial.log_loss <= most)
    return chosen, *found[chosen]


# --- the scorer


@dataclass(frozen=True, eq=False, repr=False)
class MixtureScorer(RanksTexts, ABC):
    """People as mixtures ``mixture_UC`` of prototypes; strangers get their mean, ``mixture_C``.

    ``network`` is shared by all; ``adapt`` learns the mixture of one new person and nothing else.
    """

    inputs: Inputs
    users: Users
    mixture_UC: Floats
    mixture_C: Floats
    network: Mapping[str, Floats]
    user_penalty: float
    selection: Mapping[str, float | str]
    history: History = field(default_factory=History.empty, kw_only=True)

    kind: ClassVar[str]
    layout: ClassVar[Layout]
    serves: ClassVar[Serves] = "any_user"

    @abstractmethod
    def rewards(self, pool: Responses, x_RK: Floats, mixture_VC: Floats, user_Q: IntArray, place_Q: IntArray) -> Floats:
        """Reward of the pool's response ``place_Q`` under mixture number ``user_Q``."""

    @abstractmethod
    def reads(self, rows: Comparisons) -> Floats:
        """The numbers (N, X) of each judgement that a mixture is learned from."""

    @abstractmethod
    def margins(self, value_NX: Floats, mixture_C: Floats) -> tuple[Floats, Floats]:
        """The margins (N,) of judgements under a mixture, and their slopes (N, C)."""

    def remembering(self, rows: Comparisons) -> Self:
        """The same scorer with the judgements of its users, so that later ones are added to them."""
        return replace(self, history=History.of(rows, self.users, self.reads))

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        x_RK, pool, place_Q = self.inputs.used(responses, response_Q)
        user_Q = self.users.index(id_Q)
        mixture_VC = np.concatenate([self.mixture_UC, self.mixture_C[None]])  # -1: a stranger
        value_Q = self.rewards(pool, x_RK, mixture_VC, user_Q, place_Q)
        return Scores(value_Q, np.where(user_Q >= 0, PERSONAL, POPULATION).astype(np.int8))

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> Self:
        """See ``learners.protocol.Adapts``; the prior of the user's mixture is centred on the mean mixture."""
        user_id = content.one_id(user_id)
        rows = Rows.of(self.reads(few), few).after(self.history.of_user(user_id))
        center_C = np.log(np.maximum(self.mixture_C, 1e-9))

        def value(shift_C: Floats) -> tuple[float, Floats]:
            mixture_C = softmax(center_C + shift_C)
            margin_N, slope_NC = self.margins(rows.value_NX, mixture_C)
            loss_N = surprise(margin_N, rows.label_N)
            pull_C = (rows.weight_N * (expit(margin_N) - rows.label_N)) @ slope_NC
            slope_C = mixture_C * (pull_C - pull_C @ mixture_C) + self.user_penalty * shift_C
            return float(rows.weight_N @ loss_N + self.user_penalty * (shift_C @ shift_C) / 2), slope_C

        mixture_C = softmax(center_C + minimize(value, np.zeros(len(center_C)), jac=True, method="L-BFGS-B").x)
        others, users = self.users.with_last(user_id)
        mixture_UC = np.concatenate([self.mixture_UC[others], mixture_C[None]])
        return replace(self, users=users, mixture_UC=mixture_UC, history=self.history.with_newer(user_id, rows))

    def sides(self, few: Comparisons) -> tuple[Floats, Responses, IntArray]:
        """Inputs of the texts judged in ``few``, those texts, and the number of each side's, chosen first, (2N,)."""
        return self.inputs.used(few.responses, np.concatenate([few.chosen_N, few.rejected_N]))

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.inputs.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        own = {"mixture_UC": self.mixture_UC, "mixture_C": self.mixture_C}
        network = {f"network.{name}": value for name, value in self.network.items()}
        config = {"users": self.users.ids.to_list(), "user_penalty": self.user_penalty}
        arrays = own | network | self.inputs.arrays() | self.history.arrays(self.users)
        return config | {"selection": dict(self.selection)}, arrays

    @classmethod
    def common(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> dict[str, Any]:
        """The fields of this class from a saved state."""
        users = Users(pl.Series("id", config["users"], dtype=pl.String))
        return {
            "inputs": Inputs.from_arrays(encoder, arrays),
            "users": users,
            "history": History.from_arrays(arrays, users),
            "mixture_UC": arrays["mixture_UC"],
            "mixture_C": arrays["mixture_C"],
            "network": {n.removeprefix("network."): a for n, a in arrays.items() if n.startswith("network.")},
            "user_penalty": config["user_penalty"],
            "selection": config["selection"],
        }

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        return cls(**cls.common(config, arrays, encoder))
