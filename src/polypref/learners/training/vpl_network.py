"""The networks of variational preference learning, as functions of named parameters.

Suffixes here: ``_C`` places of a context, ``_E`` contexts, ``_Z`` latent numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polypref.schema import floats

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from polypref.learners.training.gradient_descent import Parameters

SLOPE = 0.2  # of the leaky ReLUs, left of zero
NOTHING = -1e9  # attention to an empty place

SIZES = {
    "pair.0": ("W", "2K"),
    "pair.1": ("W", "W"),
    "pair.2": ("Z", "W"),
    **dict.fromkeys(("query", "key", "value", "mean", "logvar"), ("Z", "Z")),
    "reward.0": ("W", "K+Z"),
    "reward.1": ("W", "W"),
    "reward.2": (1, "W"),
}
LAYOUT = {f"{name}.weight": floats(*sizes, dtype="float32") for name, sizes in SIZES.items()}
LAYOUT |= {f"{name}.bias": floats(sizes[0], dtype="float32") for name, sizes in SIZES.items()}


def start(inputs: int, latent: int, hidden: int, generator: torch.Generator) -> Parameters:
    """Random parameters for responses of ``inputs`` numbers, the same for the encoder and the decoder.

    Two starts are our own. Both halves of the pair encoder's first layer are equal and the reward's last layer is zero:
    at first, choices and texts have no effect, so swapped labels give exactly opposite rewards. Weights on texts are
    N(0, 1), since the inputs' variances add up to about 1.
    """

    import torch

    def layer(name: str, columns: int, rows: int) -> Parameters:
        bound = columns**-0.5
        weight = (torch.rand(rows, columns, generator=generator) * 2.0 - 1.0) * bound
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(rows)}

    def texts() -> Tensor:
        return torch.randn(hidden, inputs, generator=generator)

    now: Parameters = {}
    half = texts()
    now |= {"pair.0.weight": torch.cat([half, half], dim=1) / 2.0, "pair.0.bias": torch.zeros(hidden)}
    now |= layer("pair.1", hidden, hidden) | layer("pair.2", hidden, latent)
    for name in ("query", "key", "value", "mean", "logvar"):
        now |= layer(name, latent, latent)
    first = layer("reward.0", latent, hidden)
    now |= {"reward.0.weight": torch.cat([texts(), first["reward.0.weight"]], dim=1)}
    now |= {"reward.0.bias": torch.randn(hidden, generator=generator) * 0.5} | layer("reward.1", hidden, hidden)
    return now | {"reward.2.weight": torch.zeros(1, hidden), "reward.2.bias": torch.zeros(1)}


def _layers(now: Parameters, name: str, h: Tensor) -> Tensor:
    """The second and third layer of network ``name``, after the first one's activation."""
    from torch.nn.functional import leaky_relu, linear

    h = leaky_relu(linear(h, now[f"{name}.1.weight"], now[f"{name}.1.bias"]), SLOPE)
    return linear(h, now[f"{name}.2.weight"], now[f"{name}.2.bias"])


def both_ways(now: Parameters, x_XK: Tensor) -> Tensor:
    """A text's contribution to the pair encoder's first layer, as chosen and then as rejected, (X, 2H)."""
    import torch
    from torch.nn.functional import linear

    chosen_WK, rejected_WK = now["pair.0.weight"].chunk(2, dim=1)
    return linear(x_XK, torch.cat([chosen_WK, rejected_WK]))


def encode(now: Parameters, pair_ECW: Tensor, weight_EC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance (E, Z) of the latent of the person who made the judgements; weights are counts.

    ``pair_ECW`` is the sum of both texts' contributions to the first layer, see ``both_ways``. Attention and the mean
    after it both weigh judgements; an empty context gives only the biases.
    """
    import torch
    from torch.nn.functional import leaky_relu, linear

    code_ECZ = _layers(now, "pair", leaky_relu(pair_ECW + now["pair.0.bias"], SLOPE))
    query, key, value = (linear(code_ECZ, now[f"{n}.weight"], now[f"{n}.bias"]) for n in ("query", "key", "value"))
    log_EC = torch.where(weight_EC > 0, weight_EC.clamp(min=1e-12).log(), NOTHING)
    score_ECC = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5 + log_EC[:, None, :]
    seen_ECZ = torch.softmax(score_ECC, dim=2) @ value
    total_E1 = weight_EC.sum(dim=1, keepdim=True).clamp(min=1e-12)
    mean_EZ = (weight_EC[:, :, None] * seen_ECZ).sum(dim=1) / total_E1
    return tuple(linear(mean_EZ, now[f"{n}.weight"], now[f"{n}.bias"]) for n in ("mean", "logvar"))  # type: ignore[return-value]


def reward(now: Parameters, x_QK: Tensor, z_QZ: Tensor) -> Tensor:
    """Reward of each response under its latent, (Q,)."""
    from torch.nn.functional import leaky_relu, linear

    weight = now["reward.0.weight"]
    k = x_QK.shape[1]
    h_QW = linear(x_QK, weight[:, :k]) + linear(z_QZ, weight[:, k:]) + now["reward.0.bias"]
    return _layers(now, "reward", leaky_relu(h_QW, SLOPE))[:, 0]
