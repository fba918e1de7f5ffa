"""Variational preference learning on a tuned language model: a latent vector inferred from a person's judgements.

Paper: Poddar et al. 2024, "Personalizing Reinforcement Learning from Human Feedback with Variational Preference
Learning". With z ~ q(z | some of the user's judgements) and h the language model's vector of prompt and response,

    L = mean -log sigmoid(r(h_chosen, z) - r(h_rejected, z)) + w s(t) KL(q || N(0, 1))

with s rising from .1 to 1 as half a cosine. Contexts are frozen embeddings of pairs, from the encoder given to ``fit``.

What we changed. z is never rescaled: the authors normalise it in training but not in use. Mean and log variance are not
clamped, since a clamp stops their gradient. A context never holds the pair in question, and contexts come from training
rows only. s rises once over the whole fit instead of in cycles of 10,000 steps. h goes to the decoder without a
projection. The loss is shared with z = 0, the prior's mean, which answers strangers (``alpha=1`` is the authors'). In
use, a person's latent is the mean over all their judgements, in contexts of the training size. The latent's variance
starts at exp(-4): near 1 the noise hides the mean, and the latent collapses. ``selection`` shows the value of the
latent: active units (variance over users of the mean above .01), and validation accuracy if everybody gets somebody
else's latent.

Suffixes here: ``_C`` judgements of a context, ``_E`` numbers of an embedding, ``_F`` embeddings of a pair side by side,
``_I`` positions of the training order, ``_V`` users and the generic one, ``_X`` texts of a batch, ``_Z`` latent
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Comparisons, IntArray
from polypref.errors import NotEnoughData, SettingsError
from polypref.features.protocol import Encoder
from polypref.finetune import scorer as tuned
from polypref.finetune import vpl_network
from polypref.finetune.fitting import Study
from polypref.finetune.network import Asking, Assemble
from polypref.finetune.recipe import Recipe
from polypref.finetune.scorer import TunedScorer
from polypref.finetune.tuning import tune
from polypref.finetune.vpl_network import ContextBatches, Contexts, Sizes
from polypref.learners import validation
from polypref.learners.protocol import Serves, margins
from polypref.learners.provenance import passed_on, recorded
from polypref.schema import Arrays, Layout, floats

ACTIVE = 0.01


@dataclass(frozen=True)
class Vpl:
    """Settings of variational preference learning on a tuned language model."""

    recipe: Recipe = field(default_factory=Recipe)
    latent: int = 64
    """Numbers in a person's latent vector; the authors' is 512."""
    hidden: int = 256
    """Hidden units of the pair encoder and of the decoder; the authors' are 512."""
    context: int = 8
    """Maximum judgements in a context."""
    kl: float = 1e-4
    """Weight of the divergence from the prior."""
    alpha: float = 0.5
    """Share of the loss under the user's latent; the rest is under the prior's mean."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> VplScorer:
        """See ``learners.protocol.Learner``; ``encoder`` gives the embeddings of contexts."""
        if min(self.latent, self.hidden, self.context) < 1 or not 0.0 <= self.alpha <= 1.0:
            raise SettingsError(f"latent, hidden, context must be 1 or more and alpha a share; got {self}.")
        study = Study.of(self.recipe, train, valid, seed)
        embedding_RE = encoder.encode(study.train.responses)
        scale = 1.0 / max(float(np.sqrt((embedding_RE.astype(np.float64) ** 2).mean())), 1e-12)
        contexts = _contexts(study.train, study.numbers.users_U, embedding_RE * np.float32(scale), self.context)
        asking, sizes = Asking(users=len(study.users)), Sizes(embedding_RE.shape[1], self.latent, self.hidden)
        reader, texts = study.texts(asking)

        def batches(rows: Comparisons, order: NDArray | None) -> ContextBatches:
            inner = study.batches(reader, texts, rows, (0.0, 1.0))
            shares, kl_I = (1.0, 0.0), None
            if order is not None:
                inner, shares = replace(inner, row_I=order), (self.alpha, 1.0 - self.alpha)
                kl_I = self.kl * _anneal(np.arange(len(order)) // self.recipe.batch, self.recipe.steps)
            return ContextBatches(inner, contexts, rows.pair_key_N, self.latent, shares, kl_I, seed)

        task = study.task(
            asking,
            batches(study.train, study.order(study.train)),
            batches(study.valid, None),
            assemble=sizes.assemble,
            vpl=[self.latent, self.hidden, self.context, self.kl, encoder.identity],
        )
        tuned = tune(task)
        start = TunedScorer(study.recipe, study.plan, asking, study.users, [tuned.state], {"steps": float(tuned.steps)})
        blank = np.zeros((1 + len(study.users), self.latent), np.float32)
        scorer = VplScorer(
            **_fields(start),
            sizes=sizes,
            latents_VZ=blank,
            counts=tuple(map(len, contexts.own_U)),
            scale=scale,
            context=self.context,
            encoder=encoder,
        )
        latents_UZ = np.stack([scorer.infer(contexts, own) for own in contexts.own_U])
        return _measured(replace(scorer, latents_VZ=np.concatenate([blank[:1], latents_UZ])), study.valid)


class Fields(tuned.Fields):
    """Settings of a saved scorer."""

    sizes: Sizes
    counts: list[int]
    scale: float
    context: int


def _endings(config: Mapping[str, Any]) -> Arrays:
    sizes = tuned.LORA | vpl_network.ENDINGS | {tuned.LATENTS: ("1+U", "Z")}
    return {ending: floats(*shape, dtype="float32") for ending, shape in sizes.items()}


def _wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    if config["asking"]["form"] != "nobody" or config["context"] < 1:
        return "users enter by their latents, and contexts have a judgement or more"
    if len(config["counts"]) != len(config["users"]) or min(config["counts"], default=0) < 0:
        return "expected a number of judgements for each user"
    return tuned.wrong(config, arrays)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class VplScorer(TunedScorer):
    """The tuned network and everybody's latent; ``latents_VZ[0]`` is the prior's mean, the strangers'.

    ``counts`` says of how many judgements each user's latent is the mean.
    """

    sizes: Sizes
    latents_VZ: NDArray[np.float32]
    counts: tuple[int, ...]
    scale: float
    context: int
    encoder: Encoder

    kind: ClassVar[str] = "finetune-vpl"
    layout: ClassVar[Layout] = Layout(Fields, sizes=tuned.SIZES | vpl_network.SIZES, rule=_wrong, endings=_endings)
    serves: ClassVar[Serves] = "any_user"

    @property
    def _assemble(self) -> Assemble | None:
        return self.sizes.assemble

    def _ask(self, model: Any, inputs: dict[str, Any], user_B: NDArray[np.int64]) -> Any:
        import torch

        latent_BZ = torch.from_numpy(self.latents_VZ[user_B]).to(inputs["input_ids"].device)
        return model(inputs, latent_XZ=latent_BZ)[0]

    def infer(self, contexts: Contexts, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The latent (Z,) of judgements: the mean over contexts of at most the training size."""
        import torch

        if not len(rows):
            return np.zeros(self.sizes.latent, np.float32)
        pair_BCF, mask_BC = contexts.padded(np.array_split(rows, -(-len(rows) // contexts.size)))
        with self._built.lock, torch.inference_mode():
            model = self.model(self.adapters[0])
            device = next(model.parameters()).device
            encode = model.get_base_model().context_encoder
            mean_BZ, _ = encode(torch.from_numpy(pair_BCF).to(device), torch.from_numpy(mask_BC).to(device))
            return np.average(mean_BZ.float().cpu().numpy(), axis=0, weights=mask_BC.sum(1)).astype(np.float32)

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> VplScorer:
        """See ``learners.protocol.Adapts``; the latent is the mean over all the user's judgements, without gradients.

        Raises NotEnoughData without comparisons.
        """
        user_id = content.one_id(user_id)
        if not len(few):
            raise NotEnoughData(f"no comparisons to learn {user_id!r} from; expected 1 or more.")
        used_R, place = np.unique(np.concatenate([few.chosen_N, few.rejected_N]), return_inverse=True)
        embedding_RE = self.encoder.encode(few.responses.take(used_R.astype(np.int32))) * np.float32(self.scale)
        pair_NF = np.concatenate([embedding_RE[place[: len(few)]], embedding_RE[place[len(few) :]]], axis=1)
        everything = np.arange(len(few))
        size = min(self.context, len(few))
        latent_Z = self.infer(Contexts(pair_NF, [everything], few.pair_key_N, size), everything)
        place, count = int(self.users.index([user_id])[0]), len(few)
        if place >= 0:
            count += self.counts[place]
            share = np.float32(self.counts[place] / count)
            latent_Z = share * self.latents_VZ[1 + place] + (1 - share) * latent_Z
        others, users = self.users.with_last(user_id)
        latents_VZ = np.concatenate([self.latents_VZ[:1], self.latents_VZ[1:][others], latent_Z[None]])
        counts = (*(self.counts[at] for at in others.tolist()), count)
        asking = replace(self.asking, users=len(users))
        return replace(self, users=users, latents_VZ=latents_VZ, counts=counts, asking=asking)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config, arrays = super().state()
        config |= {"sizes": asdict(self.sizes), "scale": self.scale, "context": self.context}
        config["counts"] = list(self.counts)
        return config, {**arrays, "latents_VZ": self.latents_VZ}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``TunedScorer``; ``encoder`` must be that of the fit; it reads the judgements of new users."""
        plain = TunedScorer.from_state(config, arrays, encoder)
        more = {"sizes": Sizes(**config["sizes"]), "scale": config["scale"], "context": config["context"]}
        more["counts"] = tuple(config["counts"])
        return cls(**_fields(plain), latents_VZ=arrays["latents_VZ"], encoder=encoder, **more)


def _fields(scorer: TunedScorer) -> dict[str, Any]:
    names = ("recipe", "plan", "asking", "users", "adapters", "selection", "batch", "_built")
    return {name: getattr(scorer, name) for name in names}


def _contexts(rows: Comparisons, users_U: IntArray, embedding_RE: NDArray[np.float32], size: int) -> Contexts:
    pair_NF = np.concatenate([embedding_RE[rows.chosen_N], embedding_RE[rows.rejected_N]], axis=1)
    by_content = np.lexsort((rows.chosen_N, rows.pair_key_N))  # independent of the file's order and of chance
    judge_N = rows.user_N[by_content]
    return Contexts(pair_NF, [by_content[judge_N == user] for user in users_U], rows.pair_key_N, size)


def _anneal(step_I: NDArray[np.int64], steps: int) -> NDArray[np.float64]:
    return 0.1 + 0.9 * (np.cos(np.pi * (step_I / steps - 1.0)) + 1.0) / 2.0


def _measured(scorer: VplScorer, valid: Comparisons) -> VplScorer:
    """Adds validation figures, active units, and the accuracy if everybody has the next person's latent."""
    own_UZ = scorer.latents_VZ[1:]
    found: dict[str, float] = {"active_units": float((own_UZ.var(axis=0) > ACTIVE).sum())}
    if len(valid):
        found |= validation.measure(margins(scorer, valid).value_Q, valid)
        other = replace(scorer, latents_VZ=np.concatenate([scorer.latents_VZ[:1], np.roll(own_UZ, 1, axis=0)]))
        shuffled = validation.measure(margins(other, valid).value_Q, valid)
        if "valid_accuracy" in shuffled:
            found["valid_accuracy_shuffled"] = shuffled["valid_accuracy"]
    return replace(scorer, selection={**scorer.selection, **found})
