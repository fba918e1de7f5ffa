"""The network: a backbone with LoRA, the user's part, and a reward head; PEFT saves what is trained.

The head has no bias (only differences of rewards are meaningful) and starts at zero, so swapped labels give exactly
opposite rewards. Classes are defined in functions because importing this module must not load torch.

Suffixes here: ``_C`` clusters of users, ``_D`` the backbone's hidden size, ``_E`` numbers of a user, ``_K`` soft tokens
of a user, ``_V`` users and the generic one or tokens of the vocabulary, ``_X`` texts of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from polypref.features.hf import POSITIONS_AFTER_PADDING, Plan
from polypref.features.transformer import Pooling, pool
from polypref.finetune.recipe import Recipe, load_body

if TYPE_CHECKING:
    from torch import Tensor, nn

State = Mapping[str, NDArray[np.float32]]

SAVED = ("reward_head", "user_tokens", "context_encoder")
"""Modules trained in full besides LoRA, including the head; they are saved with the adapter."""


@dataclass(frozen=True)
class Asking:
    """How a user enters the network; number 0 is the generic user, 1 ... ``users`` are people.

    ``form``  "nobody": not at all; "id": a number as text before the prompt; "tokens": each user's own learned
              vectors around the generic user's; "clusters": a learned mixture of a few sets of vectors.
    """

    form: Literal["nobody", "id", "tokens", "clusters"] = "nobody"
    users: int = 0
    tokens: int = 0
    clusters: int = 0

    @property
    def soft(self) -> bool:
        return self.form in ("tokens", "clusters")

    def user_tokens_V(self, tokenizer: Any) -> list[list[int]]:
        """The tokens of each user's part of a text, the generic user's first (1 + U)."""
        if self.form != "id":
            return [[0] * self.tokens * self.soft] * (1 + self.users)
        names = ["generic", *map(str, range(1, 1 + self.users))]
        return tokenizer([f"User ID: {name}\n" for name in names], add_special_tokens=False)["input_ids"]


Assemble = Callable[[Recipe, Plan, Asking, Any], Any]
"""(recipe, plan, asking, body) -> network"""


def build(recipe: Recipe, plan: Plan, asking: Asking, seed: int, assemble: Assemble | None = None) -> Any:
    """The network at its start, wrapped by PEFT; the caller's random state is restored."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = load_body(recipe, plan)
        torch.manual_seed(seed)  # loading may draw an unknown number of random numbers
        return adapted(recipe, (assemble or plain)(recipe, plan, asking, body))


def plain(recipe: Recipe, plan: Plan, asking: Asking, body: Any) -> Any:
    """A linear head over the backbone, with soft tokens if ``asking`` has some."""
    import torch

    tokens = user_tokens(asking, body.get_input_embeddings().weight.detach().float()) if asking.soft else None
    head = torch.nn.Linear(body.config.hidden_size, 1, bias=False)
    if recipe.head_trained:
        torch.nn.init.zeros_(head.weight)
    return reward_network()(body, plan.pooling, head, tokens)


def adapted(recipe: Recipe, network: Any) -> Any:
    """``network`` with LoRA in its backbone and its own modules trained in full, in float32."""
    import warnings

    from peft import LoraConfig, get_peft_model

    own = [name for name in SAVED if getattr(network, name, None) is not None]
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.dropout,
        target_modules=lora_targets(network.body, recipe.targets),
        modules_to_save=own,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about transformers' own heads, which are not used
        model = get_peft_model(network, config)
    for name, parameter in model.named_parameters():
        if "reward_head" in name and not recipe.head_trained:
            parameter.requires_grad_(False)
    return model


def lora_targets(body: nn.Module, endings: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers to adapt. Raises SettingsError if ``endings`` match none."""
    import torch

    from polypref.errors import SettingsError

    linear = [name for name, module in body.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = [f"body.{name}" for name in linear if not endings or name.endswith(endings)]
    if not chosen:
        kinds = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise SettingsError(f"recipe.targets = {', '.join(endings)} match no linear layer; there are: {kinds}.")
    return chosen


@cache
def reward_network() -> Any:
    """The class of the plain network: text and user in, one reward out."""
    import torch

    class RewardNetwork(torch.nn.Module):
        def __init__(self, body: Any, pooling: Pooling, head: nn.Module, tokens: nn.Module | None) -> None:
            super().__init__()
            self.body, self.reward_head, self.user_tokens = body, head, tokens
            self.pooling: Pooling = pooling
            self.config = body.config  # Trainer, FSDP and DeepSpeed ask for these two
            self._no_split_modules = getattr(body, "_no_split_modules", None)

        def hidden(self, texts: dict[str, Tensor]) -> Tensor:
            """One vector per text (X, D, float32), from the tokens of prompt and response."""
            mask_XT, slot_XT = texts["attention_mask"], texts["slot"]
            extra = {name: texts[name] for name in ("token_type_ids",) if name in texts}
            if self.config.model_type not in POSITIONS_AFTER_PADDING:
                extra["position_ids"] = texts["position"]
            if self.user_tokens is None:
                extra["input_ids"] = texts["input_ids"]
            else:
                embedded_XTD = self.body.get_input_embeddings()(texts["input_ids"])
                own_XKD = self.user_tokens(texts["user"]).to(embedded_XTD.dtype)
                extra["inputs_embeds"] = embedded_XTD.masked_scatter(slot_XT[..., None].bool(), own_XKD)
            hidden_XTD = self.body(attention_mask=mask_XT, **extra).last_hidden_state
            return pool(hidden_XTD, mask_XT - slot_XT, self.pooling)

        def forward(self, texts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            """Rewards (X,), and no extra penalty of the loss."""
            hidden_XD = self.hidden(texts)
            with torch.autocast(hidden_XD.device.type, enabled=False):
                reward_X = self.reward_head(hidden_XD)[:, 0]
            return reward_X, reward_X.new_zeros(())

    return RewardNetwork


def user_tokens(asking: Asking, embedding_VD: Tensor) -> nn.Module:
    """Soft tokens: the generic user's and the clusters' start at vocabulary vectors drawn without replacement."""
    import torch

    sets = max(1, asking.clusters)
    again = -(-sets * asking.tokens // len(embedding_VD))  # repeat a very small vocabulary
    drawn = torch.cat([torch.randperm(len(embedding_VD)) for _ in range(again)])[: sets * asking.tokens]
    start = embedding_VD[drawn].reshape(sets, -1)
    return (own_tokens if asking.form == "tokens" else cluster_tokens)()(asking, start)


@cache
def own_tokens() -> type[nn.Module]:
    """The class of ``e_u = e_0 + o_u``; the offsets start at zero, so that a user's number has no effect."""
    import torch
    from torch.nn.functional import embedding

    class OwnTokens(torch.nn.Module):
        def __init__(self, asking: Asking, start_1E: Tensor) -> None:
            super().__init__()
            self.tokens = asking.tokens
            self.generic = torch.nn.Parameter(start_1E[0].clone())
            self.own = torch.nn.Parameter(torch.zeros(asking.users, start_1E.shape[1]))

        def forward(self, user_X: Tensor) -> Tensor:
            """Vectors (X, K, D) of the user of each text; 0 is the generic user, who has no offset."""
            own_XE = embedding((user_X - 1).clamp(min=0), self.own) * (user_X > 0)[:, None]
            return (self.generic + own_XE).reshape(len(user_X), self.tokens, -1)

    return OwnTokens


@cache
def cluster_tokens() -> type[nn.Module]:
    """The class of ``e_u = softmax(s_u) . clusters``; all users, also the generic one, start as the even mixture."""
    import torch
    from torch.nn.functional import embedding

    class ClusterTokens(torch.nn.Module):
        def __init__(self, asking: Asking, start_CE: Tensor) -> None:
            super().__init__()
            self.tokens = asking.tokens
            self.cluster = torch.nn.Parameter(start_CE.clone())
            self.mixture = torch.nn.Parameter(torch.zeros(1 + asking.users, asking.clusters))

        def forward(self, user_X: Tensor) -> Tensor:
            """Vectors (X, K, D) of the user of each text."""
            share_XC = torch.softmax(embedding(user_X, self.mixture), dim=1)
            return (share_XC @ self.cluster).reshape(len(user_X), self.tokens, -1)

    return ClusterTokens


def trained(model: Any) -> dict[str, NDArray[np.float32]]:
    """All trained weights, by PEFT's names."""
    from peft import get_peft_model_state_dict

    return {name: value.detach().float().cpu().numpy() for name, value in get_peft_model_state_dict(model).items()}


def put(model: Any, state: State) -> None:
    """The inverse of ``trained``. Raises ArtifactError if the state is of another network."""
    import torch
    from peft import set_peft_model_state_dict

    from polypref.errors import ArtifactError

    there = trained(model)
    if {name: value.shape for name, value in there.items()} != {name: value.shape for name, value in state.items()}:
        differ = sorted(there.keys() ^ state.keys()) or [n for n in there if there[n].shape != state[n].shape]
        raise ArtifactError(f"the trained weights are of another network: {differ[0]} differs; tune it again.")
    set_peft_model_state_dict(model, {name: torch.from_numpy(np.array(value)) for name, value in state.items()})
