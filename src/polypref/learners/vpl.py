"""VPL: a latent vector, inferred from a person's judgements, decides their reward; on frozen features.

Paper: Poddar et al. 2024, "Personalizing Reinforcement Learning from Human Feedback with Variational Preference
Learning". A context of judgements C gives mean and log variance of a latent z, and with l the loss of a judgement,
-log sigmoid(r(chosen, z) - r(rejected, z)),

    L = mean l(z ~ N(mean(C), variance(C))) + kl * s(step) * mean KL(N(mean(C), variance(C)) || N(0, 1))

Each pair of the context passes through a network of three layers. An attention of one head then combines the pairs, and
its mean gives mean and log variance. The reward is a network of three layers on (features, z). A new person needs
judgements but no gradient steps.

``swap_guidance`` adds the remedy of Kim et al. 2026, "SPL" (swap-guided preference learning), against uninformative
latents: for the same context with all choices flipped, the mean must point the other way and the variance stay,

    guidance * mean [ (1 + cos(mean, mean')) / 2 + 0.1 * (1 - cos(logvar, logvar')) / 2 ]

and the first ``free_nats`` of a context's KL cost nothing. SPL's flow and its other decoder are not implemented.

What we changed: networks of 32 units and 8 latent numbers on frozen features, which validation rows prefer to the
paper's 512 and 512. The reward is added to the pooled one, and starts at zero. Contexts exclude their targets' pairs
and are sometimes empty, with z = 0, which is what strangers get. By default there is no clamp of mean and variance
(beyond it gradients vanish) and no normalised z in training (its rewards have another size than those of z = mean, used
afterwards); both are settings. A person with more judgements than a context holds gets the mean of several contexts'
latents. The KL is averaged over contexts. Encoders read prompt and response together, so the decoder sees the prompt.

Suffixes here: ``_A`` distinct pairs of a user and a response, ``_C`` places of a context, ``_E`` episodes, ``_I``
merged judgements, ``_T`` targets, ``_V`` users and the stranger, ``_Z`` latent numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Comparisons, FloatArray, IntArray, Responses, Users, concat
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.bradley_terry.panel import Panel
from polypref.learners.inputs import Inputs
from polypref.learners.linear import CHUNK
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.learners.provenance import passed_on, recorded
from polypref.learners.training import vpl_network
from polypref.learners.training.episodes import Episodes, Judged, Pairs, Sizes, padded, parts
from polypref.learners.training.episodic_training import Rehearsal
from polypref.learners.training.gradient_descent import Parameters, Table, of_rows
from polypref.schema import Array, Ids, Layout, Selection, floats

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ACTIVE = 0.01  # a latent number is informative if its mean varies more than this over contexts

PATIENCE = 24  # checks without improvement: with few people the latent becomes informative only after hundreds of steps

ALONE = 40  # steps before guidance: at the start a flipped context gives the same latent, and guidance has no slope


@dataclass(frozen=True)
class VPL:
    """Settings of variational preference learning on frozen features."""

    latent: int = 8
    """Numbers in a person's latent vector."""
    hidden: int = 32
    """Hidden units of the networks."""
    context: int = 64
    """Maximum judgements in a context."""
    kl: float = 0.03
    """Weight of the divergence from the prior."""
    anneal: int = 200
    """Period in steps over which that weight grows from a tenth, repeatedly; 0: constant weight."""
    clamp: float = 0.0
    """Limit of the latent's mean and log variance; 0: none."""
    normalise_z_train: bool = False
    """Scale z to length sqrt(latent) in training, as the paper's code does."""
    normalise_z_eval: bool = False
    """The same after training, which the paper's code does not do."""
    swap_guidance: float = 0.0
    """Weight of SPL's guidance by flipped contexts; 0: none."""
    free_nats: float = 0.0
    """Divergence of a context that costs nothing."""
    rate: float = 0.003
    """Adam's learning rate."""
    most_steps: int = 600
    """Maximum steps of Adam; validation rows usually stop it earlier."""
    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> VPLScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        table = Table.build(whole, inputs)
        sizes = Sizes(self.context, self.context // 2, 2048)
        rows = (train, valid)
        rehearsal = Rehearsal(table, *rows, seed, sizes, self.rate, self.most_steps, patience=PATIENCE)
        model = _Latents(self, table, Panel.build(train, inputs).pooled_weights(seed))
        trial, best = rehearsal.attempt(model)
        found = {"steps": trial.steps, **trial.found, **model.diagnosis(best, rehearsal)}
        model = replace(model, pooled_K=Panel.build(whole, inputs).pooled_weights(seed))
        now = rehearsal.finish(model, trial)
        judged = Judged.of(whole, table.numbers)
        z_UZ, count_U = model.latents(now, judged, len(table.users))
        known_U = count_U > 0
        network = {name: value.numpy() for name, value in now.items()}
        users = Users(table.users.ids.filter(pl.Series(known_U)))
        return VPLScorer(inputs, self, model.pooled_K, users, z_UZ[known_U], network, found, count_U[known_U])


@dataclass(frozen=True, eq=False)
class _Latents:
    """Encoder and reward, as ``episodic_training.Reader``."""

    how: VPL
    table: Table
    pooled_K: FloatArray

    def start(self, seed: int) -> Parameters:
        """See ``vpl_network.start``."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return vpl_network.start(self.table.x_RK.shape[1], self.how.latent, self.how.hidden, generator)

    def loss(self, now: Parameters, episodes: Episodes, step: int, noise: torch.Generator) -> Tensor:
        """See ``episodic_training.Reader``."""
        import torch

        context = episodes.context
        mean_EZ, logvar_EZ = self._encode(now, context)
        known_E1 = (context.weight > 0).any(dim=1, keepdim=True)
        draw_EZ = mean_EZ + (0.5 * logvar_EZ).exp() * torch.randn(mean_EZ.shape, generator=noise)
        z_EZ = torch.where(known_E1, _scaled(draw_EZ) if self.how.normalise_z_train else draw_EZ, 0.0)
        episode, place = (episodes.target.weight > 0).nonzero(as_tuple=True)
        target = episodes.target.take((episode, place))
        margin_T = self._margins(now, target, z_EZ[episode])
        bt = Episodes(context, target).loss(margin_T)
        nats_E = -0.5 * (1.0 + logvar_EZ - mean_EZ**2 - logvar_EZ.exp()).sum(dim=1)
        nats_E = nats_E.clamp(min=self.how.free_nats) if self.how.free_nats else nats_E
        prior = (nats_E * known_E1[:, 0]).mean()
        total = bt + self.how.kl * annealed(step, self.how.anneal) * prior
        if self.how.swap_guidance and step >= ALONE:
            turned = self._encode(now, replace(context, label=1.0 - context.label))
            total = total + self.how.swap_guidance * guidance((mean_EZ, logvar_EZ), turned, known_E1)
        return total

    def answers(self, now: Parameters, known: Judged, queries: Judged) -> NDArray:
        """See ``episodic_training.Reader``."""
        return self._answers(now, self.latents(now, known, len(self.table.users))[0], queries)

    def diagnosis(self, now: Parameters, rehearsal: Rehearsal) -> dict[str, float]:
        """The number of informative latent numbers, and the accuracy on validation rows with other people's latents."""
        if not len(rehearsal.valid):
            return {}
        known, queries = rehearsal.judged()
        _, mean_EZ, _ = self._codes(now, known)
        variance_Z = mean_EZ.var(axis=0) if len(mean_EZ) else np.zeros(self.how.latent)
        found = {"active_units": float((variance_Z > ACTIVE).sum())}
        z_UZ, _ = self.latents(now, known, len(self.table.users))
        shifts = np.unique(np.linspace(1, len(z_UZ) - 1, 8).astype(int)) if len(z_UZ) > 1 else []
        others = [self._answers(now, np.roll(z_UZ, shift, axis=0), queries) for shift in shifts]
        figures = [validation.measure(queries.spread(margin_I), rehearsal.valid) for margin_I in others]
        right = [figure["valid_accuracy"] for figure in figures if "valid_accuracy" in figure]
        return found | ({"shuffled_context_accuracy": float(np.mean(right))} if right else {})

    def latents(self, now: Parameters, known: Judged, users: int) -> tuple[NDArray[np.float32], FloatArray]:
        """Everybody's z, (U, Z), and how many judgements are behind each; z = 0 without any."""
        user_E, mean_EZ, length_E = self._codes(now, known)
        total_U = np.bincount(user_E, length_E, users)
        z_UZ = np.zeros((users, self.how.latent), np.float32)
        np.add.at(z_UZ, user_E, (mean_EZ * (length_E / total_U[user_E])[:, None]).astype(np.float32))
        return z_UZ, total_U.astype(np.float64)

    def _codes(self, now: Parameters, known: Judged) -> tuple[IntArray, NDArray, NDArray]:
        """Users, latent means and sizes of as many contexts as are needed for all judgements."""
        import torch

        order_I = np.lexsort((np.random.default_rng(0).random(len(known)), known.user_I))
        start_E, length_E = parts(known.user_I, self.how.context)
        mean_EZ = np.zeros((len(start_E), self.how.latent), np.float32)
        sort_E = np.argsort(length_E, kind="stable")
        portions = min(len(sort_E) * self.how.context // CHUNK, len(sort_E))
        for some in np.array_split(sort_E, max(1, portions)):
            index_EC, here_EC = padded(start_E[some], length_E[some])
            pairs = known.pairs(order_I[np.minimum(index_EC, len(known) - 1)], here_EC) if len(some) else None
            if pairs is not None:
                with torch.no_grad():
                    mean = self._encode(now, pairs)[0]
                    mean_EZ[some] = (_scaled(mean) if self.how.normalise_z_eval else mean).numpy()
        return known.user_I[start_E], mean_EZ, length_E

    def _answers(self, now: Parameters, z_UZ: NDArray, queries: Judged) -> NDArray:
        import torch

        z = torch.from_numpy(z_UZ)
        margins = [np.zeros(0)]
        for some in np.array_split(np.arange(len(queries)), max(1, len(queries) // CHUNK)):
            pairs = queries.pairs(some, np.ones(len(some), bool))
            with torch.no_grad():
                margins.append(self._margins(now, pairs, z[queries.user_I[some].astype(np.int64)]).numpy())
        return np.concatenate(margins)

    def _encode(self, now: Parameters, context: Pairs) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent behind each context, (E, Z); a tie counts half for each choice."""
        import torch

        texts_2EC = torch.stack([context.first, context.second])
        ways_XW = of_rows(texts_2EC.flatten(), self.table.x_RK, partial(vpl_network.both_ways, now))
        (a_ECW, a_lost_ECW), (b_ECW, b_lost_ECW) = (w.chunk(2, dim=-1) for w in ways_XW.unflatten(0, texts_2EC.shape))
        label_EC1 = context.label[:, :, None]
        pair_ECW = (a_ECW + b_lost_ECW) * label_EC1 + (b_ECW + a_lost_ECW) * (1.0 - label_EC1)
        mean_EZ, logvar_EZ = vpl_network.encode(now, pair_ECW, context.weight)
        if not self.how.clamp:
            return mean_EZ, logvar_EZ
        return mean_EZ.clamp(-self.how.clamp, self.how.clamp), logvar_EZ.clamp(-self.how.clamp, self.how.clamp)

    def _margins(self, now: Parameters, pairs: Pairs, z_QZ: Tensor) -> Tensor:
        import torch

        a_QK, b_QK = self.table.x_RK[pairs.first], self.table.x_RK[pairs.second]
        pooled_K = torch.from_numpy(self.pooled_K.astype(np.float32))
        own_Q = vpl_network.reward(now, a_QK, z_QZ) - vpl_network.reward(now, b_QK, z_QZ)
        return (a_QK - b_QK) @ pooled_K + own_Q


def annealed(step: int, period: int) -> float:
    """Share of the KL's weight at a step: from .1 to 1 along half a cosine, repeated every ``period`` steps."""
    if not period:
        return 1.0
    return 0.1 + 0.9 * (np.cos(np.pi * ((step % period) / period - 1.0)) + 1.0) / 2.0


def _scaled(z_EZ: Tensor) -> Tensor:
    return z_EZ / z_EZ.norm(dim=1, keepdim=True).clamp(min=1e-6) * z_EZ.shape[1] ** 0.5


def guidance(actual: tuple[Tensor, Tensor], turned: tuple[Tensor, Tensor], known_E1: Tensor) -> Tensor:
    """SPL's loss: flipped choices must flip the mean and keep the variance."""
    from torch.nn.functional import cosine_similarity

    mean_E, logvar_E = (cosine_similarity(one, other, dim=1) for one, other in zip(actual, turned, strict=True))
    return ((0.5 * (1.0 + mean_E) + 0.05 * (1.0 - logvar_E)) * known_E1[:, 0]).mean()


class Fields(TypedDict):
    """Settings of a saved scorer."""

    how: VPL
    users: Ids
    selection: Selection


@dataclass(frozen=True, eq=False, repr=False)
class VPLScorer(RanksTexts):
    """Pooled weights, the networks, and the latents ``z_UZ`` of the known ``users``; z = 0 for strangers.

    ``count_U`` judgements are behind each latent, which is their mean.
    """

    inputs: Inputs
    how: VPL
    pooled_K: FloatArray
    users: Users
    z_UZ: NDArray[np.float32]
    network: Mapping[str, NDArray[np.float32]]
    selection: Mapping[str, float | str]
    count_U: FloatArray

    kind: ClassVar[str] = "vpl"
    layout: ClassVar[Layout] = Layout(
        Fields,
        {
            "pooled_K": floats("K"),
            "z_UZ": floats("U", "Z", dtype="float32"),
            "count_U": Array(("U",), positive=True),
            **{f"network.{name}": one for name, one in vpl_network.LAYOUT.items()},
            **Inputs.layout(),
        },
        sizes={"U": "users", "Z": "how.latent", "W": "how.hidden"},
    )
    serves: ClassVar[Serves] = "any_user"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        import torch

        x_RK, _, place_Q = self.inputs.used(responses, response_Q)
        user_Q = self.users.index(id_Q)
        queries, at_Q = np.unique(user_Q.astype(np.int64) * len(x_RK) + place_Q, return_inverse=True)
        user_A, place_A = np.divmod(queries, len(x_RK))
        z_VZ = torch.from_numpy(np.concatenate([self.z_UZ, np.zeros((1, self.how.latent), np.float32)]))  # -1: stranger
        x = torch.from_numpy(x_RK.astype(np.float32))
        value_A = (x_RK @ self.pooled_K)[place_A]
        with torch.no_grad():
            for rows in np.array_split(np.arange(len(queries)), max(1, len(queries) // CHUNK)):
                value_A[rows] += vpl_network.reward(self._now(), x[place_A[rows]], z_VZ[user_A[rows]]).numpy()
        return Scores(value_A[at_Q], np.where(user_Q >= 0, PERSONAL, POPULATION).astype(np.int8))

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> VPLScorer:
        """See ``learners.protocol.Adapts``; the latent is the mean over all the user's judgements.

        Without comparisons of positive weight nothing changes.
        """
        user_id = content.one_id(user_id)
        few = few.weighing()
        if not len(few):
            return replace(self)
        few = replace(few, users=Users(pl.Series("id", [user_id])), user_N=np.zeros(len(few), np.int32))
        table = Table.build(few, self.inputs)
        model = _Latents(self.how, table, self.pooled_K)
        z_1Z, count_1 = model.latents(self._now(), Judged.of(few, table.numbers), 1)
        if (place := int(self.users.index([user_id])[0])) >= 0:
            earlier, total_1 = self.count_U[place], count_1 + self.count_U[place]
            z_1Z = ((earlier * self.z_UZ[place] + count_1[0] * z_1Z) / total_1[0]).astype(np.float32)
            count_1 = total_1
        others, users = self.users.with_last(user_id)
        z_UZ, count_U = np.concatenate([self.z_UZ[others], z_1Z]), np.append(self.count_U[others], count_1)
        return replace(self, users=users, z_UZ=z_UZ, count_U=count_U)

    def _now(self) -> Parameters:
        import torch

        return {name: torch.from_numpy(value) for name, value in self.network.items()}

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.inputs.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        from dataclasses import asdict

        arrays = {f"network.{name}": value for name, value in self.network.items()}
        arrays |= {"pooled_K": self.pooled_K, "z_UZ": self.z_UZ, "count_U": self.count_U, **self.inputs.arrays()}
        config = {"how": asdict(self.how), "users": self.users.ids.to_list(), "selection": dict(self.selection)}
        return config, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        network = {name[8:]: value for name, value in arrays.items() if name.startswith("network.")}
        return cls(
            Inputs.from_arrays(encoder, arrays),
            VPL(**config["how"]),
            arrays["pooled_K"],
            Users(pl.Series("id", config["users"], dtype=pl.String)),
            arrays["z_UZ"],
            network,
            config["selection"],
            arrays["count_U"],
        )
