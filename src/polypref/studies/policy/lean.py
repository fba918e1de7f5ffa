"""A lean engine for policy gradients on a small Llama: it samples, scores and updates a LoRA on one core.

The loss is that of TRL's GRPO trainer with one update per batch (``loss_type="dapo"``,
``use_bias_correction_kl=False``): over the T tokens of all completions of a batch,

    - sum over tokens of (A log pi(token) - beta k3) / T    k3 = exp(d) - d - 1, d = log ref - log pi

with A each completion's advantage, and log ref the same model's without the LoRA. Its gradient equals TRL's, which a
test holds. What makes it lean: only the upper layers have a LoRA, so the lower ones run once per token, while sampling,
and never again (a prompt's, once per run); a prompt's tokens are computed once for all of its completions; and the
vocabulary is only scored at completions.

A LoRA lies on four matrices of a layer, of which two are joined: query, key and value share one first factor, and so do
gate and up. Covered: Llama models with plain rotary positions. Not covered: dropout, several updates per batch,
truncated sampling.

Suffixes here: ``_A`` heads, ``_D`` width of the hidden state, ``_E`` width of a head, ``_L`` positions of a prompt,
``_T`` tokens of a completion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

RANK, ALPHA = 8, 16
MATRICES = ("qkv", "o", "gate_up", "down")


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer's frozen weights; ``qkv`` and ``gate_up`` are joined along their outputs."""

    attention_norm: Tensor
    qkv: Tensor
    o: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, eq=False)
class Trunk:
    """A frozen Llama. ``first`` is the number of the first layer that has a LoRA."""

    layers: list[Layer]
    embedding: Tensor
    norm: Tensor
    head: Tensor
    heads: int
    kv_heads: int
    epsilon: float
    theta: float
    first: int

    @classmethod
    def of(cls, model: Any, upper: int, dtype: Any) -> Trunk:
        """Of a ``LlamaForCausalLM``, whose ``upper`` last layers get a LoRA."""
        import torch

        def joined(*parts: Any) -> Tensor:
            return torch.cat([part.weight.detach() for part in parts]).to(dtype)

        layers = [
            Layer(
                layer.input_layernorm.weight.detach().float(),
                joined(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                joined(layer.self_attn.o_proj),
                layer.post_attention_layernorm.weight.detach().float(),
                joined(layer.mlp.gate_proj, layer.mlp.up_proj),
                joined(layer.mlp.down_proj),
            )
            for layer in model.model.layers
        ]
        config = model.config
        embedding = model.model.embed_tokens.weight.detach().to(dtype)
        tied = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        return cls(
            layers,
            embedding,
            model.model.norm.weight.detach().float(),
            embedding if tied else joined(model.lm_head),
            config.num_attention_heads,
            config.num_key_value_heads,
            config.rms_norm_eps,
            config.rope_parameters["rope_theta"],
            len(layers) - upper,
        )

    @property
    def width(self) -> int:
        return self.embedding.shape[1] // self.heads

    def normed(self, x_XD: Tensor, weight: Tensor) -> Tensor:
        """RMS norm, in single precision."""
        import torch

        wide = x_XD.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon) * weight).to(x_XD.dtype)

    def turned(self, x_XAE: Tensor, place_X: Tensor) -> Tensor:
        """Rotary positions."""
        import torch

        half = self.width // 2
        angle = place_X[:, None].float() * self.theta ** (-torch.arange(half).float() / half)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = x_XAE.float().split(half, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x_XAE.dtype)

    def logits(self, x_XD: Tensor) -> Tensor:
        """Of the next token, in single precision."""
        return (self.normed(x_XD, self.norm) @ self.head.T).float()


Factors = list[dict[str, tuple["Tensor", "Tensor"]]]  # of each upper layer: the two factors by matrix


def fresh_lora(trunk: Trunk, seed: int, rank: int = RANK) -> Factors:
    """Second factors are 0, so the model is still the frozen one. Drawn on the CPU: the same for every device."""
    import torch

    draw, device = torch.Generator(device="cpu").manual_seed(seed), trunk.head.device
    made: Factors = []
    for layer in trunk.layers[trunk.first :]:
        pairs = {}
        for name in MATRICES:
            out, into = getattr(layer, name).shape
            down = ((torch.rand(rank, into, generator=draw, device="cpu") * 2 - 1) / into**0.5).to(device)
            pairs[name] = (down.requires_grad_(), torch.zeros(out, rank, device=device).requires_grad_())
        made.append(pairs)
    return made


def parameters(lora: Factors) -> list[Tensor]:
    """All factors, in a fixed order."""
    return [factor for pairs in lora for name in MATRICES for factor in pairs[name]]


def cast(lora: Factors, trunk: Trunk) -> Factors:
    """In the trunk's precision, and scaled; gradients pass through."""
    kind = trunk.head.dtype
    return [{name: (a.to(kind), (b * (ALPHA / len(a))).to(kind)) for name, (a, b) in pairs.items()} for pairs in lora]


def _times(x_XD: Tensor, layer: Layer, name: str, pairs: Any) -> Tensor:
    y = x_XD @ getattr(layer, name).T
    if pairs is not None:
        a, b = pairs[name]
        y = y + (x_XD @ a.T) @ b.T
    return y


def _attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Queries (n, T, A, E) over keys and values (n, S, A / g, E), where ``mask`` (n, T, S) allows.

    The g heads that share a key are taken as more queries, so that no key is copied.
    """
    from torch.nn.functional import scaled_dot_product_attention as attention

    n, tokens, heads, width = q.shape
    shared = heads // k.shape[2]
    q = q.view(n, tokens, -1, shared, width).permute(0, 2, 3, 1, 4).flatten(2, 3)
    found = attention(q, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask.repeat(1, shared, 1)[:, None])
    return found.unflatten(2, (shared, tokens)).permute(0, 3, 1, 2, 4).flatten(2, 3)


class Pass:
    """Rows of several sequences through layers: the prompts', and the completions' after them.

    ``x_XD`` holds the prompts' rows (P, L) and then the completions' (B, T), flattened; each completion also attends to
    its own prompt. ``pad_P`` is how many positions of each prompt are padding, on the left.
    """

    def __init__(self, trunk: Trunk, pad_P: Tensor, length: int, of_B: Tensor, tokens: int) -> None:
        import torch

        self.trunk, self.of_B, self.length, self.tokens = trunk, of_B, length, tokens
        at_L, at_T = torch.arange(length), torch.arange(tokens)
        seen_PL = at_L >= pad_P[:, None]
        causal_LL = at_L[:, None] >= at_L
        self.mask_P = seen_PL[:, None, :] & causal_LL | torch.eye(length, dtype=torch.bool)
        own = (at_T[:, None] >= at_T).expand(len(of_B), tokens, tokens)
        self.mask_B = torch.cat([seen_PL[of_B][:, None, :].expand(-1, tokens, -1), own], 2)
        place_PL = (at_L - pad_P[:, None]).clamp(min=0)
        place_BT = (length - pad_P[of_B])[:, None] + at_T
        self.place_X = torch.cat([place_PL.flatten(), place_BT.flatten()])

    def __call__(self, x_XD: Tensor, layer: Layer, pairs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's output, and all rows' keys and values."""
        import torch
        from torch.nn.functional import silu

        trunk, prompts, batch = self.trunk, len(self.mask_P), len(self.of_B)
        qkv = _times(trunk.normed(x_XD, layer.attention_norm), layer, "qkv", pairs)
        qkv = qkv.view(len(x_XD), -1, trunk.width)
        q, k, v = qkv.split([trunk.heads, trunk.kv_heads, trunk.kv_heads], 1)
        q, k = trunk.turned(q, self.place_X), trunk.turned(k, self.place_X)
        cut = prompts * self.length
        parts = [
            (x[:cut].unflatten(0, (prompts, self.length)), x[cut:].unflatten(0, (batch, self.tokens)))
            for x in (q, k, v)
        ]
        (q_P, q_B), (k_P, k_B), (v_P, v_B) = parts
        found = [_attended(q_P, k_P, v_P, self.mask_P).flatten(0, 1)]
        if self.tokens:
            keys, values = torch.cat([k_P[self.of_B], k_B], 1), torch.cat([v_P[self.of_B], v_B], 1)
            found.append(_attended(q_B, keys, values, self.mask_B).flatten(0, 1))
        x_XD = x_XD + _times(torch.cat(found).flatten(1), layer, "o", pairs)
        gate, up = _times(trunk.normed(x_XD, layer.mlp_norm), layer, "gate_up", pairs).chunk(2, -1)
        return x_XD + _times(silu(gate) * up, layer, "down", pairs), k, v


@dataclass(eq=False)
class Batch:
    """Sampled completions.

    ``token_BT``   of completions; ``said_BT``: which are theirs, the end included.
    ``lower_PLD``, ``lower_BTD``  what the lower layers made of prompts and completions.
    """

    of_B: Tensor
    pad_P: Tensor
    token_BT: Tensor
    said_BT: Tensor
    lower_PLD: Tensor
    lower_BTD: Tensor


@dataclass(eq=False)
class Engine:
    """Samples from a trunk with a LoRA, and gives the loss of what was sampled.

    ``end``  the token that ends a completion.
    """

    trunk: Trunk
    end: int
    most: int = 16
    _known: dict[tuple[int, ...], tuple[Tensor, list[tuple[Tensor, Tensor]]]] = field(default_factory=dict)

    def _lower(self, prompt: tuple[int, ...]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """A prompt's hidden states before the upper layers (L, D), and the lower layers' keys and values."""
        import torch

        if prompt not in self._known:
            one = Pass(self.trunk, torch.zeros(1, dtype=torch.long), len(prompt), torch.zeros(0, dtype=torch.long), 0)
            x, kept = self.trunk.embedding[torch.tensor(prompt)], []
            for layer in self.trunk.layers[: self.trunk.first]:
                x, k, v = one(x, layer, None)
                kept.append((k, v))
            self._known[prompt] = (x, kept)
        return self._known[prompt]

    def sample(self, prompts: list[tuple[int, ...]], of_B: Any, draw_BT: Any, lora: Factors | None) -> Batch:
        """Completions of ``prompts[of_B]`` at temperature 1, each token by its uniform number ``draw_BT``."""
        import torch

        with torch.no_grad():
            return self._sampled(prompts, torch.as_tensor(of_B), torch.as_tensor(draw_BT), lora)

    def _sampled(self, prompts: list[tuple[int, ...]], of_B: Tensor, draw_BT: Tensor, lora: Factors | None) -> Batch:
        import torch

        trunk, length = self.trunk, max(map(len, prompts))
        pad_P = torch.tensor([length - len(prompt) for prompt in prompts])
        lower_PLD = torch.zeros(len(prompts), length, trunk.embedding.shape[1], dtype=trunk.head.dtype)
        shape = (len(of_B), length + self.most, trunk.kv_heads, trunk.width)
        caches = [[torch.zeros(shape, dtype=trunk.head.dtype) for _ in "kv"] for _ in trunk.layers]
        for p, prompt in enumerate(prompts):
            hidden, kept = self._lower(prompt)
            lower_PLD[p, pad_P[p] :] = hidden
            for cache, pair in zip(caches, kept, strict=False):
                for into, x in zip(cache, pair, strict=True):
                    into[of_B == p, pad_P[p] : length] = x
        pairs = [None] * trunk.first + (cast(lora, trunk) if lora else [None] * (len(trunk.layers) - trunk.first))
        whole = Pass(trunk, pad_P, length, torch.zeros(0, dtype=torch.long), 0)
        x = lower_PLD.flatten(0, 1)
        for at in range(trunk.first, len(trunk.layers)):
            x, *pair = whole(x, trunk.layers[at], pairs[at])
            for into, y in zip(caches[at], pair, strict=True):
                into[:, :length] = y.unflatten(0, (len(prompts), length))[of_B]
        last = x.unflatten(0, (len(prompts), length))[:, -1]
        chance = torch.softmax(trunk.logits(last), -1)[of_B]
        seen = (torch.arange(length + self.most) >= pad_P[of_B][:, None])[:, None]
        said = torch.ones(len(of_B), dtype=torch.bool)
        tokens, saids, lowers = [], [], []
        for t in range(self.most):
            token = torch.searchsorted(chance.cumsum(-1), draw_BT[:, t : t + 1].float() * chance.sum(-1, keepdim=True))
            token = token[:, 0].clamp(max=chance.shape[1] - 1)
            tokens.append(token)
            saids.append(said)
            said = said & (token != self.end)
            if t == self.most - 1 or not said.any():
                break
            x = trunk.embedding[token]
            place = length - pad_P[of_B] + t
            for at, layer in enumerate(trunk.layers):
                if at == trunk.first:
                    lowers.append(x)
                x = self._step(x, layer, pairs[at], caches[at], place, length + t, seen)
            chance = torch.softmax(trunk.logits(x), -1)
        lower_BTD = torch.stack(lowers, 1) if lowers else torch.zeros(len(of_B), 0, lower_PLD.shape[2]).to(lower_PLD)
        return Batch(of_B, pad_P, torch.stack(tokens, 1), torch.stack(saids, 1), lower_PLD, lower_BTD)

    def _step(self, x: Tensor, layer: Layer, pairs: Any, cache: Any, place: Tensor, at: int, seen: Tensor) -> Tensor:
        """One token of every completion through a layer."""
        from torch.nn.functional import silu

        trunk = self.trunk
        qkv = _times(trunk.normed(x, layer.attention_norm), layer, "qkv", pairs).view(len(x), -1, trunk.width)
        q, k, v = qkv.split([trunk.heads, trunk.kv_heads, trunk.kv_heads], 1)
        q, k = trunk.turned(q, place), trunk.turned(k, place)
        cache[0][:, at], cache[1][:, at] = k, v
        keys, values = cache[0][:, : at + 1], cache[1][:, : at + 1]
        found = _attended(q[:, None], keys, values, seen[..., : at + 1])
        x = x + _times(found.flatten(1), layer, "o", pairs)
        gate, up = _times(trunk.normed(x, layer.mlp_norm), layer, "gate_up", pairs).chunk(2, -1)
        return x + _times(silu(gate) * up, layer, "down", pairs)

    def log_chances(self, batch: Batch, lora: Factors | None) -> Tensor:
        """Of each token of the completions (B, T)."""
        import torch

        trunk, (prompts, length, width) = self.trunk, batch.lower_PLD.shape
        size, tokens = batch.lower_BTD.shape[:2]
        whole = Pass(trunk, batch.pad_P, length, batch.of_B, tokens)
        x = torch.cat([batch.lower_PLD.reshape(-1, width), batch.lower_BTD.reshape(-1, width)]).clone()
        cut = prompts * length
        made = cast(lora, trunk) if lora else [None] * (len(trunk.layers) - trunk.first)
        for layer, pairs in zip(trunk.layers[trunk.first :], made, strict=True):
            x, _, _ = whole(x, layer, pairs)
        last = x[:cut].unflatten(0, (prompts, length))[:, -1]
        rest = x[cut:].unflatten(0, (size, tokens))
        first = torch.log_softmax(trunk.logits(last), -1)[batch.of_B, batch.token_BT[:, 0]]
        said = batch.said_BT[:, 1:]
        logits = trunk.logits(rest[said])
        later = torch.zeros(said.shape)
        chosen = torch.log_softmax(logits, -1).gather(1, batch.token_BT[:, 1:][said][:, None])[:, 0]
        return torch.cat([first[:, None], later.masked_scatter(said, chosen)], 1)

    def loss(self, batch: Batch, advantage_B: Any, kl: float, lora: Factors) -> tuple[Tensor, float]:
        """The loss of a batch, and the KL divergence per token from the model without the LoRA (k3)."""
        import torch

        own_BT = self.log_chances(batch, lora)
        with torch.no_grad():
            reference_BT = self.log_chances(batch, None)
        apart_BT = reference_BT - own_BT
        k3_BT = apart_BT.exp() - apart_BT - 1
        advantage_B1 = torch.as_tensor(np.asarray(advantage_B), dtype=torch.float32)[:, None]
        ratio_BT = (own_BT - own_BT.detach()).exp()
        term_BT = (advantage_B1 * ratio_BT - kl * k3_BT) * batch.said_BT
        many = batch.said_BT.sum()
        return -term_BT.sum() / many, float((k3_BT.detach() * batch.said_BT).sum() / many)
