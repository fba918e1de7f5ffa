"""The recipe of tuning: settings shared by all methods of ``polypref.finetune``, and the loading of their backbone.

The default is the evaluation paper's recipe (Dong et al. 2025, appendix): LoRA of rank 16 and alpha 32, learning rate
3e-4, and the same number of optimisation steps whatever the size of the data. The paper leaves these open: LoRA on
every linear layer, no dropout (so rewards are the same in training and in use), linear decay after a short warm-up.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from polypref.arguments import check_settings
from polypref.errors import EncoderError, MissingExtra, SettingsError
from polypref.features import minilm
from polypref.features.encode_missing import TextMode
from polypref.features.hf import HuggingFace, Plan
from polypref.features.transformer import LOCAL, WEIGHTS, quiet

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Recipe:
    """What is tuned, for how long, and in which pieces; ``micro_batch`` and later fields do not affect values."""

    backbone: str = "minilm"
    """``minilm``, a local folder or a name on the hub."""
    rank: int = 16
    lora_alpha: int = 32
    targets: tuple[str, ...] = ()
    """Endings of the names of the layers that LoRA adapts; empty: every linear layer."""
    head_trained: bool = True
    """False keeps the reward head at its random start, as the evaluation paper's personalized model does."""
    rate: float = 3e-4
    warmup: float = 0.03
    """Share of the steps over which the rate rises; it falls linearly afterwards."""
    decay: float = 0.0
    """Weight decay of AdamW."""
    dropout: float = 0.0
    """Dropout of LoRA's input; the backbone's own dropout is off."""
    steps: int = 300
    batch: int = 32
    """Comparisons per step, over all processes."""
    looks: int = 10
    """How often validation rows are checked; the check with the least loss gives the scorer."""
    text: TextMode = "joint"
    """Read prompt and response, or the response alone."""
    max_length: int | None = None
    """Tokens read, including the user's; None: the backbone's limit, at most 2,048."""
    bf16: bool = False
    """Keep the frozen weights in bfloat16 and compute in it; trained weights stay in float32."""
    micro_batch: int = 8
    """Maximum comparisons at a time in one process: bounds memory. Fewer are taken if memory runs out."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    attention: str | None = None
    """``sdpa``, ``flash_attention_2``, ...; None: transformers' choice."""
    checkpoints: str | None = None
    """Folder from which an interrupted fit resumes at its last check; None: no checkpoints."""

    def __post_init__(self) -> None:
        check_settings(self)
        positive = ("rank", "lora_alpha", "steps", "batch", "looks", "micro_batch", "rate")
        for name in positive:
            if not getattr(self, name) > 0:
                raise SettingsError(f"recipe.{name} = {getattr(self, name)}; expected a number above 0.")

    def pieces(self) -> tuple[int, int]:
        """``(comparisons at a time in one process, pieces per step)``: one step is always ``batch`` comparisons.

        Raises SettingsError if the processes cannot share a step evenly.
        """
        many = processes()
        size = min(self.micro_batch, max(1, self.batch // many))
        if self.batch % (size * many):
            raise SettingsError(
                f"recipe.batch = {self.batch} cannot be divided among {many} processes that take "
                f"{size} comparisons at a time; expected a multiple of {size * many}."
            )
        return size, self.batch // (size * many)


def processes() -> int:
    """How many processes fit together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def locate(recipe: Recipe) -> Plan:
    """The backbone's files and its reading plan.

    Raises EncoderError if it is missing or cannot be tuned, MissingExtra without PEFT or Accelerate.
    """
    for package in ("peft", "accelerate"):
        if find_spec(package) is None:
            raise MissingExtra("tuning a language model", "finetune")
    folder = str(minilm.weights_folder()) if recipe.backbone == "minilm" else recipe.backbone
    return HuggingFace(folder, text=recipe.text, max_length=recipe.max_length).plan()


def load_body(recipe: Recipe, plan: Plan) -> nn.Module:
    """The backbone without any head and without dropout, on the CPU. Raises EncoderError if it cannot be loaded."""
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        with quiet():
            config = AutoConfig.from_pretrained(plan.folder, **LOCAL)
            _no_dropout(config)
            options: dict[str, Any] = {"config": config, "dtype": torch.bfloat16 if recipe.bf16 else torch.float32}
            if recipe.attention is not None:
                options["attn_implementation"] = recipe.attention
            body = AutoModel.from_pretrained(plan.folder, **WEIGHTS, **options)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise EncoderError(f"the backbone in {plan.folder} cannot be loaded: {reason}.") from error
    if getattr(body, "pooler", None) is not None:
        body.pooler = None  # we pool ourselves; its weights would be tuned but never used
    if recipe.gradient_checkpointing:
        body.gradient_checkpointing_enable({"use_reentrant": False})
        body.config.use_cache = False
    return body


def load_tokenizer(plan: Plan) -> Any:
    """The backbone's tokenizer; whether it has a padding token does not matter. Raises EncoderError."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(plan.folder, **LOCAL)
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise EncoderError(f"the tokenizer in {plan.folder} cannot be loaded: {reason}.") from error


def reads_types(tokenizer: Any, plan: Plan) -> bool:
    """Whether the backbone distinguishes the prompt's tokens from the response's."""
    from transformers import AutoConfig

    kinds = getattr(AutoConfig.from_pretrained(plan.folder, **LOCAL), "type_vocab_size", 0)
    return kinds > 1 and "token_type_ids" in tokenizer.model_input_names


def _no_dropout(config: Any) -> None:
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
