"""The transformer of group preference optimization, as functions of named parameters.

Suffixes here: ``_A`` attention heads, ``_C`` places of a context, ``_E`` people, ``_L`` places of context and targets,
``_M`` numbers of a token, ``_T`` targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polypref.schema import Arrays, floats

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from polypref.learners.training.gradient_descent import Parameters

NOTHING = -1e9  # attention to an empty place


@dataclass(frozen=True)
class Shape:
    """Numbers in a token, layers, heads, hidden units of a layer; ``self_edge``: targets also see themselves."""

    width: int = 128
    layers: int = 6
    heads: int = 4
    feed: int = 128
    self_edge: bool = False


def layout(layers: int) -> Arrays:
    """Weights and biases by name, for M numbers in a token, F hidden units and K inputs."""
    sizes: dict[str, tuple[str | int, str | int]] = {"embed.0": ("M", "K+1")}
    sizes |= {f"embed.{at}": ("M", "M") for at in range(1, 4)}
    for at in range(layers):
        sizes |= {f"{at}.attend": ("3M", "M"), f"{at}.out": ("M", "M")}
        sizes |= {f"{at}.feed.0": ("F", "M"), f"{at}.feed.1": ("M", "F")}
    sizes |= {"predict.0": ("M", "M"), "predict.1": (2, "M")}
    found = {f"{name}.weight": floats(*size, dtype="float32") for name, size in sizes.items()}
    found |= {f"{name}.bias": floats(size[0], dtype="float32") for name, size in sizes.items()}
    norms = [f"{at}.norm.{which}.{what}" for at in range(layers) for which in (0, 1) for what in ("weight", "bias")]
    return found | {name: floats("M", dtype="float32") for name in norms}


@dataclass(frozen=True, eq=False)
class Tokens:
    """The known judgements of E people: responses, labels from -1 to 1, and weights (0: an empty place)."""

    x_ECK: Tensor
    label_EC: Tensor
    weight_EC: Tensor


def start(inputs: int, shape: Shape, generator: torch.Generator) -> Parameters:
    """Random parameters for responses of ``inputs`` numbers; width, heads and feed must be even.

    The start is our own: the second half of every layer mirrors the first, with opposite weights on labels and opposite
    weights of the mean. At first, rewards are an odd function of the context's labels, and zero without a context. So
    swapped labels give exactly opposite rewards at the start and, since descent keeps the mirror image, at the end.
    Weights on texts and labels are N(0, 1), since the inputs' variances add up to about 1.
    """
    import torch

    def mirrored(columns: int, rows: int) -> Tensor:
        ours, theirs = (
            (torch.rand(2, rows // 2, columns // 2, generator=generator) * 2.0 - 1.0) * columns**-0.5
        ).unbind()
        return torch.cat([torch.cat([ours, theirs], dim=1), torch.cat([theirs, ours], dim=1)])

    def layer(name: str, columns: int, rows: int, blocks: int = 1) -> Parameters:
        weight = torch.cat([mirrored(columns, rows) for _ in range(blocks)])
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(blocks * rows)}

    width = shape.width
    half = torch.randn(width // 2, inputs + 2, generator=generator)
    opposite = torch.cat([half[:, : inputs + 1], half[:, : inputs + 1]])
    opposite[width // 2 :, -1] *= -1.0
    now: Parameters = {"embed.0.weight": opposite, "embed.0.bias": 0.5 * half[:, -1].repeat(2)}
    for at in range(1, 4):
        now |= layer(f"embed.{at}", width, width)
    for at in range(shape.layers):
        now |= layer(f"{at}.attend", width, width, blocks=3) | layer(f"{at}.out", width, width)
        now |= layer(f"{at}.feed.0", width, shape.feed) | layer(f"{at}.feed.1", shape.feed, width)
        for norm in ("norm.0", "norm.1"):
            now |= {f"{at}.{norm}.weight": torch.ones(width), f"{at}.{norm}.bias": torch.zeros(width)}
    ends = (torch.rand(2, width // 2, generator=generator) * 2.0 - 1.0) * width**-0.5
    ends = torch.cat([ends, ends], dim=1)
    ends[0, width // 2 :] *= -1.0
    return now | layer("predict.0", width, width) | {"predict.1.weight": 0.3 * ends, "predict.1.bias": torch.zeros(2)}


def predict(now: Parameters, shape: Shape, context: Tokens, target_ETK: Tensor) -> Tensor:
    """Reward and log of its standard deviation of each target, (E, T, 2).

    All tokens attend to the context only. Attention weighs judgements; an empty context adds nothing.
    """
    import torch
    from torch.nn.functional import linear, relu

    known = torch.cat([context.x_ECK, context.label_EC[:, :, None]], dim=2)
    targets = torch.cat([target_ETK, torch.zeros_like(target_ETK[:, :, :1])], dim=2)
    h_ELM = torch.cat([known, targets], dim=1)
    for at in range(4):
        h_ELM = linear(relu(h_ELM) if at else h_ELM, now[f"embed.{at}.weight"], now[f"embed.{at}.bias"])
    log_EC = torch.where(context.weight_EC > 0, context.weight_EC.clamp(min=1e-12).log(), NOTHING)
    for at in range(shape.layers):
        h_ELM = _layer(
            {name.partition(".")[2]: v for name, v in now.items() if name.startswith(f"{at}.")}, shape, h_ELM, log_EC
        )
    h_ETM = h_ELM[:, log_EC.shape[1] :]
    return linear(
        relu(linear(h_ETM, now["predict.0.weight"], now["predict.0.bias"])),
        now["predict.1.weight"],
        now["predict.1.bias"],
    )


def _layer(own: Parameters, shape: Shape, h_ELM: Tensor, log_EC: Tensor) -> Tensor:
    """Attention to the context and a network of two layers, each added and then normalised."""
    from torch.nn.functional import layer_norm, linear, relu

    def normed(value: Tensor, name: str) -> Tensor:
        return layer_norm(value, value.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"])

    seen = linear(_attend(own, shape, h_ELM, log_EC), own["out.weight"], own["out.bias"])
    h_ELM = normed(h_ELM + seen, "norm.0")
    inner = relu(linear(h_ELM, own["feed.0.weight"], own["feed.0.bias"]))
    return normed(h_ELM + linear(inner, own["feed.1.weight"], own["feed.1.bias"]), "norm.1")


def _attend(own: Parameters, shape: Shape, h_ELM: Tensor, log_EC: Tensor) -> Tensor:
    import torch
    from torch.nn.functional import linear

    e, s, m = h_ELM.shape
    c = log_EC.shape[1]
    query, key, value = linear(h_ELM, own["attend.weight"], own["attend.bias"]).view(e, s, 3, shape.heads, -1).unbind(2)
    query = query / query.shape[-1] ** 0.5
    score_EALC = torch.einsum("eshm,echm->ehsc", query, key[:, :c]) + log_EC[:, None, None, :]
    if not shape.self_edge:
        weight_EALC = torch.softmax(score_EALC, dim=3) * (log_EC > NOTHING).any(dim=1)[:, None, None, None]
        return torch.einsum("ehsc,echm->eshm", weight_EALC, value[:, :c]).reshape(e, s, m)
    own_EAL1 = (query * key).sum(dim=3).transpose(1, 2)[:, :, :, None]
    own_EAL1 = torch.cat([torch.full_like(own_EAL1[:, :, :c], NOTHING), own_EAL1[:, :, c:]], dim=2)
    weight = torch.softmax(torch.cat([score_EALC, own_EAL1], dim=3), dim=3)
    seen = torch.einsum("ehsc,echm->eshm", weight[..., :c], value[:, :c])
    return (seen + weight[..., c:].transpose(1, 2) * value).reshape(e, s, m)
