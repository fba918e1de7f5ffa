"""Variational preference learning's network: infers a latent from judgements, and computes a reward from it.

Suffixes here: ``_C`` judgements of a context, ``_D`` the backbone's hidden size, ``_F`` embeddings of a pair side by
side, ``_I`` positions of the training order, ``_V`` views of a judgement, ``_X`` texts of a batch, ``_Z`` latent
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polypref.features.hf import Plan
from polypref.finetune.batches import Batches
from polypref.finetune.network import Asking, reward_network
from polypref.finetune.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn


START = -4.0
"""Initial log variance of the latent; at the prior's, 0, the decoder would ignore the latent as noise."""


SIZES = {"B": "sizes.embedding", "Z": "sizes.latent", "H": "sizes.hidden"}
ENDINGS = {
    "context_encoder.pair.0.weight": ("H", "2B"),
    "context_encoder.pair.2.weight": ("H", "H"),
    "context_encoder.pair.4.weight": ("Z", "H"),
    **{f"context_encoder.{name}.weight": ("Z", "Z") for name in ("query", "key", "value", "mean", "log_variance")},
    "reward_head.layers.0.weight": ("H", "D+Z"),
    "reward_head.layers.2.weight": ("H", "H"),
    "reward_head.last.weight": (1, "H"),
}
"""The trained arrays of a saved scorer whose sizes are those of ``Sizes``."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of an embedding, of the latent and of the hidden layers."""

    embedding: int
    latent: int
    hidden: int

    def assemble(self, recipe: Recipe, plan: Plan, asking: Asking, body: Any) -> Any:
        """See ``network.Assemble``."""
        decoder = latent_decoder()(int(body.config.hidden_size), self)
        return latent_network()(body, plan.pooling, decoder, context_encoder()(self))


@cache
def latent_network() -> Any:
    """The class of the network: the decoder sees the user, the backbone does not."""
    import torch

    class LatentNetwork(reward_network()):
        def __init__(self, body: Any, pooling: str, decoder: nn.Module, encoder: nn.Module) -> None:
            super().__init__(body, pooling, decoder, None)
            self.context_encoder = encoder

        def forward(
            self, texts: dict[str, Tensor], context: dict[str, Tensor] | None = None, latent_XZ: Any = None
        ) -> tuple[Tensor, Tensor]:
            """Rewards (X,) under given latents; in training (B x 2 views x 2 texts,) and the KL's part of the loss.

            The views are the user's latent, drawn with the context's noise, and the prior's mean.
            """
            hidden_XD = self.hidden(texts)
            with torch.autocast(hidden_XD.device.type, enabled=False):
                if context is None:
                    return self.reward_head(hidden_XD, latent_XZ), hidden_XD.new_zeros(())
                mean_BZ, log_variance_BZ = self.context_encoder(context["pair_BCF"], context["mask_BC"])
                own_BZ = mean_BZ + torch.exp(0.5 * log_variance_BZ) * context["noise_BZ"]
                own_XZ = own_BZ.repeat_interleave(2, dim=0)
                own_B2 = self.reward_head(hidden_XD, own_XZ).reshape(-1, 2)
                generic_B2 = self.reward_head(hidden_XD, torch.zeros_like(own_XZ)).reshape(-1, 2)
                kl_B = -0.5 * (1.0 + log_variance_BZ - mean_BZ**2 - log_variance_BZ.exp()).sum(1)
                return torch.stack([own_B2, generic_B2], 1).flatten(), context["kl"] * kl_B.mean()

    return LatentNetwork


@cache
def context_encoder() -> Any:
    """The class of q(z | judgements): each pair through a network, attention among pairs, mean, two linear maps."""
    import torch
    from torch import nn

    class ContextEncoder(nn.Module):
        def __init__(self, sizes: Sizes) -> None:
            super().__init__()
            e, z, h = sizes.embedding, sizes.latent, sizes.hidden
            self.pair = nn.Sequential(
                nn.Linear(2 * e, h), nn.LeakyReLU(0.2), nn.Linear(h, h), nn.LeakyReLU(0.2), nn.Linear(h, z)
            )
            self.query, self.key, self.value = nn.Linear(z, z), nn.Linear(z, z), nn.Linear(z, z)
            self.mean, self.log_variance = nn.Linear(z, z), nn.Linear(z, z)
            nn.init.constant_(self.log_variance.bias, START)

        def forward(self, pair_BCF: Tensor, mask_BC: Tensor) -> tuple[Tensor, Tensor]:
            """Mean and log variance (B, Z) of the latent; the prior's, 0 and 0, for an empty context."""
            code_BCZ = self.pair(pair_BCF)
            odds_BCC = self.query(code_BCZ) @ self.key(code_BCZ).transpose(1, 2) / code_BCZ.shape[-1] ** 0.5
            odds_BCC = odds_BCC.masked_fill(mask_BC[:, None] == 0, -1e9)
            seen_BCZ = torch.softmax(odds_BCC, dim=2) @ self.value(code_BCZ) * mask_BC[..., None]
            pooled_BZ = seen_BCZ.sum(1) / mask_BC.sum(1, keepdim=True).clamp(min=1)
            some_B1 = mask_BC.amax(1, keepdim=True)
            return self.mean(pooled_BZ) * some_B1, self.log_variance(pooled_BZ) * some_B1

    return ContextEncoder


@cache
def latent_decoder() -> Any:
    """The class of r(text, z): a network of two hidden layers on the text's vector and the latent."""
    import torch
    from torch import nn

    class LatentDecoder(nn.Module):
        def __init__(self, size: int, sizes: Sizes) -> None:
            super().__init__()
            h = sizes.hidden
            self.layers = nn.Sequential(
                nn.Linear(size + sizes.latent, h), nn.LeakyReLU(0.2), nn.Linear(h, h), nn.LeakyReLU(0.2)
            )
            self.last = nn.Linear(h, 1, bias=False)

        def forward(self, hidden_XD: Tensor, latent_XZ: Tensor) -> Tensor:
            """Rewards (X,)."""
            return self.last(self.layers(torch.cat([hidden_XD, latent_XZ], dim=1)))[:, 0]

    return LatentDecoder


@dataclass(frozen=True, eq=False)
class Contexts:
    """Everybody's judgements as pairs of embeddings, to draw contexts from.

    ``pair_NF``  embeddings of chosen and rejected, side by side. ``own_U`` rows of each user. ``key_N`` of each pair.
    """

    pair_NF: NDArray[np.float32]
    own_U: Sequence[NDArray[np.int64]]
    key_N: NDArray[np.uint64]
    size: int

    def draw(self, user: int, key: Any, rng: np.random.Generator) -> NDArray[np.int64]:
        """At most ``size`` judgements of a user (from 0), never one of the pair in question."""
        own = self.own_U[user]
        own = own[self.key_N[own] != key]
        return rng.permutation(own)[: self.size]

    def padded(self, chosen: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """``pair_BCF`` and ``mask_BC`` of B contexts."""
        mask_BC = np.zeros((len(chosen), self.size), np.float32)
        pair_BCF = np.zeros((*mask_BC.shape, self.pair_NF.shape[1]), np.float32)
        for b, rows in enumerate(chosen):
            pair_BCF[b, : len(rows)], mask_BC[b, : len(rows)] = self.pair_NF[rows], 1.0
        return pair_BCF, mask_BC


@dataclass(frozen=True, eq=False)
class ContextBatches:
    """Batches with each judgement's context, its noise and the weight of the KL; all drawn by position and seed.

    ``kl_I`` weight at each position; None: validation, without noise and KL.
    """

    inner: Batches
    contexts: Contexts
    key_N: NDArray[np.uint64]
    latent: int
    shares: tuple[float, float]
    kl_I: NDArray[np.float64] | None
    seed: int

    def __len__(self) -> int:
        return len(self.inner)

    def __call__(self, positions: Sequence[int]) -> Mapping[str, Any]:
        """See ``Batches``; the texts are read once, and both views share them."""
        import torch

        batch = self.inner(positions)
        drawn, noise_BZ = [], np.zeros((len(positions), self.latent), np.float32)
        for b, (position, row) in enumerate(zip(positions, batch["row_B"].tolist(), strict=True)):
            rng = np.random.default_rng([self.seed, 3, position])
            drawn.append(self.contexts.draw(int(self.inner.user_N[row]) - 1, self.key_N[row], rng))
            if self.kl_I is not None:
                noise_BZ[b] = rng.standard_normal(self.latent)
        pair_BCF, mask_BC = self.contexts.padded(drawn)
        context = {"pair_BCF": pair_BCF, "mask_BC": mask_BC, "noise_BZ": noise_BZ}
        tensors = {name: torch.from_numpy(array) for name, array in context.items()}
        tensors["kl"] = torch.tensor(0.0 if self.kl_I is None else float(self.kl_I[positions].mean()))
        return {**batch, "share_V": torch.tensor(self.shares), "network": {**batch["network"], "context": tensors}}
