"""GPO: a transformer reads a person's judgements and scores new texts without gradient steps, on frozen features.

Paper: Zhao et al. 2024, "Group Preference Optimization: Few-Shot Alignment of Large Language Models". Tokens are
(features, label) of the responses that a person judged and (features, 0) of the responses to score. All attend to the
judged ones only; there are no positions. Each response to score gets a mean and a standard deviation. The two means of
a pair share one softmax,

    P(chosen over rejected) = sigmoid(mean(chosen) - mean(rejected))

and the mean is the reward. Training splits many people's judgements into context and targets.

What we changed: 3 layers of width 16, which validation rows prefer to the paper's 6 of width 128. Labels are 1 and -1
(the paper: 1 and 0), so a target's 0 is not a label. Rewards are added to the pooled ones, and start as an odd function
of the labels (``gpo_network.start``): from a plain start the network learned the average and then nothing from
contexts. Swapped labels also give exactly opposite rewards now. In a share of the episodes (``turned``) all of a
person's labels are flipped, so that contexts are worth reading even if most people agree. The loss is -log P(label);
``loss="normal"`` is the paper's, the label's density under N(P, deviation^2), whose deviation nothing else needs.
Context sizes are random and include zero, which is what strangers get; the authors' code has no defined answer for
them. Empty places are masked, not marked by zero features. Gradients are reset before each batch; the number of steps
is chosen on validation rows, not on the test users. Those rows then join the contexts, and the network is not fitted
again: when it begins to read contexts varies by chance, and a second fit may stop too early.

Suffixes here: ``_A`` answers, ``_E`` people, ``_I`` merged judgements, ``_T`` targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Comparisons, FloatArray, IntArray, Responses, Users, concat
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.bradley_terry.panel import Panel
from polypref.learners.inputs import Inputs
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.provenance import passed_on, recorded
from polypref.learners.training import gpo_network
from polypref.learners.training.episodes import Episodes, Judged, Pairs, Sizes, padded, parts
from polypref.learners.training.episodic_training import Rehearsal
from polypref.learners.training.gpo_network import Shape
from polypref.learners.training.gradient_descent import Parameters, Table
from polypref.learners.training.known_judgements import COLUMNS, Known, both
from polypref.schema import Array, Arrays, Ids, Layout, Selection, floats

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHOWN = (0, 4, 16, 64)  # context sizes at which validation rows are measured
TARGETS = 256  # responses scored with one context
PORTION = 1 << 15  # tokens processed at once
MOST_LAYERS = 1000  # of a saved scorer


@dataclass(frozen=True)
class GPO:
    """Settings of group preference optimization on frozen features."""

    width: int = 16
    """Width of a token."""
    layers: int = 3
    """Layers of attention."""
    heads: int = 2
    """Heads of attention."""
    feed: int = 16
    """Hidden units of a layer."""
    self_edge: bool = False
    """Targets attend to themselves too."""
    context: int = 64
    """Maximum judgements in a context."""
    loss: Literal["logistic", "normal"] = "logistic"
    """-log P(label), or the paper's density of the label."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Over a person's targets; a sum, as in the paper, weighs people by their number of targets."""
    turned: float = 0.25
    """Share of the training episodes in which all of a person's labels are flipped."""
    most_steps: int = 600
    """Maximum steps of Adam; validation rows usually stop it earlier."""
    rate: float = 0.001
    """Adam's learning rate."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""

    @property
    def shape(self) -> Shape:
        """The transformer's sizes."""
        return Shape(self.width, self.layers, self.heads, self.feed, self.self_edge)

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> GPOScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        table = Table.build(whole, inputs)
        sizes = Sizes(self.context, self.context // 2, 512)
        rehearsal = Rehearsal(table, train, valid, seed, sizes, self.rate, self.most_steps)
        model = _Transformer(self, table, Panel.build(train, inputs).pooled_weights(seed))
        trial, now = rehearsal.attempt(model)
        found = {"steps": trial.steps, **trial.found, **model.diagnosis(now, rehearsal)}
        known = Known.of(Judged.of(whole, table.numbers), table, self.context, seed)
        network = {name: value.numpy() for name, value in now.items()}
        users = Users(table.users.ids.gather(known.users))
        return GPOScorer(inputs, self, model.pooled_K, users, known, network, found)


@dataclass(frozen=True, eq=False)
class _Transformer:
    """The transformer over the pooled reward, as ``episodic_training.Reader``."""

    how: GPO
    table: Table
    pooled_K: FloatArray

    def start(self, seed: int) -> Parameters:
        """See ``gpo_network.start``."""
        import torch

        return gpo_network.start(self.table.x_RK.shape[1], self.how.shape, torch.Generator().manual_seed(seed))

    def loss(self, now: Parameters, episodes: Episodes, step: int, noise: torch.Generator) -> Tensor:
        """See ``episodic_training.Reader``."""
        import torch

        x_RK = self.table.x_RK
        context, target = self._turned(episodes, noise)
        tokens = both(x_RK[context.first], x_RK[context.second], context.label, context.weight)
        a_ETK, b_ETK = x_RK[target.first], x_RK[target.second]
        found = gpo_network.predict(now, self.how.shape, tokens, torch.cat([a_ETK, b_ETK], dim=1))
        t = a_ETK.shape[1]
        margin_ET = found[:, :t, 0] - found[:, t:, 0] + (a_ETK - b_ETK) @ torch.from_numpy(self.pooled_K).float()
        if self.how.loss == "logistic":
            mean = Episodes(context, target).loss(margin_ET)
        else:
            mean = _density_loss(margin_ET, found[:, :t, 1], found[:, t:, 1], target)
        if self.how.loss_reduction == "mean":
            return mean
        return mean * (target.weight > 0).sum() / len(margin_ET)

    def _turned(self, episodes: Episodes, noise: torch.Generator) -> tuple[Pairs, Pairs]:
        """Contexts and targets, with all labels flipped in a share of the episodes that have a context."""
        import torch

        turn_E1 = torch.rand(len(episodes.context.weight), 1, generator=noise) < self.how.turned
        turn_E1 = turn_E1 & (episodes.context.weight > 0).any(dim=1, keepdim=True)
        context, target = episodes.context, episodes.target
        return tuple(
            replace(part, label=torch.where(turn_E1, 1.0 - part.label, part.label)) for part in (context, target)
        )  # type: ignore[return-value]

    def answers(self, now: Parameters, known: Judged, queries: Judged) -> NDArray:
        """See ``episodic_training.Reader``."""
        return self._answers(now, Known.of(known, self.table, self.how.context, 0), queries, self.how.context)

    def diagnosis(self, now: Parameters, rehearsal: Rehearsal) -> dict[str, float]:
        """Accuracy on validation rows by size of the context."""
        if not len(rehearsal.valid):
            return {}
        judged, queries = rehearsal.judged()
        known = Known.of(judged, self.table, self.how.context, 0)
        found = {}
        for size in sorted({min(size, self.how.context) for size in SHOWN}):
            margin_N = queries.spread(self._answers(now, known, queries, size))
            figures = validation.measure(margin_N, rehearsal.valid)
            if "valid_accuracy" in figures:
                found[f"accuracy_with_context_{size}"] = figures["valid_accuracy"]
        return found

    def _answers(self, now: Parameters, known: Known, queries: Judged, most: int) -> NDArray:
        many = len(self.table.x_RK)
        place_U = np.full(len(self.table.users), len(known.users))
        place_U[known.users] = np.arange(len(known.users))
        user_I = place_U[queries.user_I]
        code_2I = np.concatenate([user_I * many + queries.first_I, user_I * many + queries.second_I])
        code_A, at_2I = np.unique(code_2I, return_inverse=True)
        user_A, response_A = np.divmod(code_A, many)
        value_A = rewards(now, self.how, known, self.table.x_RK, user_A, response_A, most=most)
        x_RK = self.table.x_RK.numpy()
        pooled_I = (x_RK[queries.first_I] - x_RK[queries.second_I]) @ self.pooled_K
        return pooled_I + value_A[at_2I[: len(queries)]] - value_A[at_2I[len(queries) :]]


def _density_loss(margin_ET: Tensor, first_ET: Tensor, second_ET: Tensor, target: Pairs) -> Tensor:
    """Negative log density of both options' labels, 1 and 0, under N(P, exp(s)^2), per target."""
    import torch

    wins_ET = torch.sigmoid(margin_ET)
    total_ET = torch.zeros_like(margin_ET)
    for found_ET, label_ET, s_ET in (
        (wins_ET, target.label, first_ET),
        (1.0 - wins_ET, 1.0 - target.label, second_ET),
    ):
        total_ET = total_ET - torch.distributions.Normal(found_ET, s_ET.exp()).log_prob(label_ET)
    return (target.weight * total_ET).sum() / (target.weight > 0).sum()


def rewards(
    now: Parameters, how: GPO, known: Known, x_RK: Tensor, user_A: NDArray, response_A: NDArray, *, most: int
) -> NDArray[np.float64]:
    """The transformer's part of the reward of response ``response_A`` for person ``user_A`` (ascending), (A,)."""
    import torch

    start_E, length_E = parts(user_A, TARGETS)
    value_A = np.zeros(len(user_A))
    order_E = np.argsort(length_E, kind="stable")
    tokens_E = 2 * min(how.context, PORTION) + length_E[order_E]
    cuts = np.flatnonzero(np.diff(np.cumsum(tokens_E) // PORTION)) + 1
    for some in np.split(order_E, cuts):
        if not len(some):
            continue
        index_ET, here_ET = padded(start_E[some], length_E[some])
        index_ET = np.where(here_ET, index_ET, start_E[some][:, None])
        target_ETK = x_RK[torch.from_numpy(response_A[index_ET])]
        with torch.no_grad():
            context = known.tokens(user_A[start_E[some]], most)
            found_ET = gpo_network.predict(now, how.shape, context, target_ETK)[:, :, 0].numpy()
        value_A[index_ET[here_ET]] = found_ET[here_ET]
    return value_A


class Fields(TypedDict):
    """Settings of a saved scorer."""

    how: GPO
    users: Ids
    selection: Selection


def _arrays(config: Mapping[str, Any]) -> Arrays:
    network = gpo_network.layout(min(config["how"]["layers"], MOST_LAYERS))
    known = {
        "count_U": Array(("U",), "int32", below="I+1"),
        "users": Array(("U",), "int32"),
        **{name: floats("I", "K", dtype="float32") for name in ("first_IK", "second_IK")},
        **{name: floats("I", dtype="float32") for name in ("label_I", "weight_I")},
    }
    return {
        "pooled_K": floats("K"),
        **{f"known.{name}": known[name] for name in (*COLUMNS, "count_U", "users")},
        **{f"network.{name}": one for name, one in network.items()},
        **Inputs.layout(),
    }


def _wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    how = config["how"]
    if how["heads"] < 1 or how["width"] % how["heads"]:
        return f"{how['width']} numbers cannot be divided among {how['heads']} heads"
    counted, there = int(arrays["known.count_U"].sum()), len(arrays["known.label_I"])
    return None if counted == there else f"the users' counts add up to {counted} judgements, but the file has {there}"


@dataclass(frozen=True, eq=False, repr=False)
class GPOScorer(RanksTexts):
    """Pooled weights, the transformer, and the ``known`` judgements of the ``users``; strangers have no context."""

    inputs: Inputs
    how: GPO
    pooled_K: FloatArray
    users: Users
    known: Known
    network: Mapping[str, NDArray[np.float32]]
    selection: Mapping[str, float | str]

    kind: ClassVar[str] = "gpo"
    layout: ClassVar[Layout] = Layout(
        Fields, _arrays, sizes={"U": "users", "M": "how.width", "F": "how.feed"}, rule=_wrong
    )
    serves: ClassVar[Serves] = "any_user"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        import torch

        x_RK, _, place_Q = self.inputs.used(responses, response_Q)
        found_Q = self.users.index(id_Q)
        user_Q = np.where(found_Q >= 0, found_Q, len(self.users)).astype(np.int64)
        code_A, at_Q = np.unique(user_Q * len(x_RK) + place_Q, return_inverse=True)
        user_A, place_A = np.divmod(code_A, len(x_RK))
        x, now = torch.from_numpy(x_RK.astype(np.float32)), self._now()
        value_A = rewards(now, self.how, self.known, x, user_A, place_A, most=self.how.context)
        value_A += (x_RK @ self.pooled_K)[place_A]
        return Scores(value_A[at_Q], np.where(found_Q >= 0, PERSONAL, POPULATION).astype(np.int8))

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> GPOScorer:
        """See ``learners.protocol.Adapts``; nothing changes without comparisons of positive weight.

        If there are more than a context holds, the latest are kept; of more than that, a seeded choice by content.
        """
        user_id = content.one_id(user_id)
        few = few.weighing()
        if not len(few):
            return replace(self)
        few = replace(few, users=Users(pl.Series("id", [user_id])), user_N=np.zeros(len(few), np.int32))
        table = Table.build(few, self.inputs)
        new = Known.of(Judged.of(few, table.numbers), table, self.how.context, 0)
        own = self.users.index([user_id])
        new = new.ahead_of(self.known.only(own[own >= 0]), self.how.context)
        others, users = self.users.with_last(user_id)
        return replace(self, users=users, known=self.known.only(others).with_more(new))

    def _now(self) -> Parameters:
        import torch

        return {name: torch.from_numpy(value) for name, value in self.network.items()}

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.inputs.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        arrays = {f"network.{name}": value for name, value in self.network.items()}
        arrays |= {f"known.{name}": getattr(self.known, name) for name in Known.__dataclass_fields__}
        arrays |= {"pooled_K": self.pooled_K, **self.inputs.arrays()}
        config = {"how": asdict(self.how), "users": self.users.ids.to_list(), "selection": dict(self.selection)}
        return config, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        return cls(
            Inputs.from_arrays(encoder, arrays),
            GPO(**config["how"]),
            arrays["pooled_K"],
            Users(pl.Series("id", config["users"], dtype=pl.String)),
            Known(*(arrays[f"known.{name}"] for name in Known.__dataclass_fields__)),
            {name[8:]: value for name, value in arrays.items() if name.startswith("network.")},
            config["selection"],
        )
