"""LoRA for ``polypref align``: which layers are adapted, and adapters that say which weights they belong to.

Hu et al. (2022), arXiv 2106.09685, through PEFT. Dropout is always 0: with dropout, the log-probabilities that are
trained would be those of another policy than the one that was sampled. Adapters are float32, whatever the model is.

Covered: all linear layers of the blocks, or those named; only the uppermost blocks; starting from an adapter that an
earlier run has saved. Refused: an adapter of other weights or of another shape or
kind, or whose files are links out of its folder; its own settings decide nothing. Not covered: the embeddings and the
output layer, which are never adapted.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polypref import strict_json
from polypref.arguments import AtLeastOne, AtLeastZero, check_settings
from polypref.errors import ArtifactError, EncoderError, MissingExtra, SettingsError, reason
from polypref.features.transformer import sha256_of
from polypref.files import write_json
from polypref.regular_files import content_of, ensure_within
from polypref.wording import listed

ABOUT = "polypref.json"  # beside an adapter: the weights that it belongs to
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
NOTES = ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision")  # decide no answer
BLOCK = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Lora:
    """What LoRA adapts.

    ``targets``  endings of the names of the layers; empty: every linear layer of the blocks.
    ``upper``    only this many of the uppermost blocks; 0: all.
    ``start``    folder of an adapter of the same shape to start from; empty: the model itself.
    """

    rank: AtLeastOne = 16
    alpha: AtLeastOne = 32
    targets: tuple[str, ...] = ()
    upper: AtLeastZero = 0
    start: str = ""

    def __post_init__(self) -> None:
        check_settings(self)

    def settings(self) -> dict[str, Any]:
        """As JSON holds them, with the start by its content."""
        path = Path(self.start) / WEIGHTS
        try:
            start = sha256_of(path) if self.start else ""
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({reason(error)}); start from a saved adapter.") from error
        return {**asdict(self), "targets": list(self.targets), "start": start}


def adapted(model: Any, lora: Lora, base: str) -> tuple[Any, Any]:
    """The model, and PEFT's settings for the trainer; with ``start``, the model with that adapter, and None.

    ``base`` names the content of the model's weights. Raises SettingsError, ArtifactError, MissingExtra.
    """
    try:
        from peft import LoraConfig, PeftModel
    except ImportError as error:
        raise MissingExtra("LoRA", "policy") from error

    names = layers(model, lora)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=names, task_type="CAUSAL_LM"
    )
    if not lora.start:
        return model, config
    ensure_base(Path(lora.start), base)
    ensure_shape(Path(lora.start), config.to_dict())
    try:
        adapter = PeftModel.from_pretrained(model, lora.start, is_trainable=True, config=config)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"the adapter in {lora.start} cannot be loaded: {reason(error)}.") from error
    return adapter, None


def layers(model: Any, lora: Lora) -> list[str]:
    """Full names of the layers to adapt. Raises SettingsError where there are none."""
    import torch
    from transformers.pytorch_utils import Conv1D

    linear = [name for name, one in model.named_modules() if isinstance(one, torch.nn.Linear | Conv1D)]
    block_of = {name: int(found[1]) for name in linear if (found := BLOCK.search(name))}
    if not block_of:
        raise SettingsError("the model has no numbered blocks of linear layers; LoRA cannot be placed, leave it out.")
    count = max(block_of.values()) + 1
    if lora.upper > count:
        raise SettingsError(f"lora: upper is {lora.upper}; the model has {count} blocks.")
    lowest = count - lora.upper if lora.upper else 0
    chosen = [
        name
        for name, block in block_of.items()
        if block >= lowest and (not lora.targets or name.endswith(tuple(lora.targets)))
    ]
    if not chosen:
        kinds = ", ".join(sorted({name.rpartition(".")[2] for name in block_of}))
        raise SettingsError(f"lora: targets {', '.join(lora.targets)} match no layer; there are: {kinds}.")
    return chosen


def ensure_shape(folder: Path, ours: dict[str, Any]) -> None:
    """Raise SettingsError unless the adapter in ``folder`` is what ``ours`` says; PEFT never reads its settings.

    Raises ArtifactError for settings that cannot be read, and for files that are links out of the folder.
    """
    path = folder / CONFIG
    try:
        ensure_within(folder / WEIGHTS, folder)
        was = strict_json.loads(content_of(path, within=folder))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} or the weights beside it cannot be read ({reason(error)}).") from error
    if not isinstance(was, dict):
        raise ArtifactError(f"{path} holds no settings of an adapter; start from one that polypref align saved.")
    now = {"rank" if name == "r" else name: value for name, value in ours.items() if name not in NOTES}
    was = {"rank" if name == "r" else name: value for name, value in was.items() if name not in NOTES}
    if differs := [name for name in sorted({*now, *was}) if _plain(was.get(name)) != _plain(now.get(name))]:
        raise SettingsError(
            f"the adapter in {folder} has another shape: {listed(differs)} differ; give its settings, or leave "
            "start out."
        )


def _plain(value: Any) -> Any:
    """As JSON holds it, in one order."""
    return sorted(map(str, value)) if isinstance(value, set | list | tuple) else value


def ensure_base(folder: Path, base: str) -> None:
    """Raise ArtifactError unless the adapter in ``folder`` was trained on the weights that ``base`` names."""
    try:
        about = strict_json.loads(content_of(folder / ABOUT, within=folder))
        was = about["base"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / ABOUT}, which names the weights of the adapter, cannot be read ({reason(error)}); start from "
            "an adapter that polypref align saved."
        ) from error
    if was != base:
        raise ArtifactError(
            f"the adapter in {folder} was trained on other weights ({str(was)[:12]}) than this model's ({base[:12]}); "
            "give the model that it was trained on."
        )


def mark(folder: Path, base: str, model: str) -> None:
    """Write beside an adapter which weights it belongs to."""
    write_json(folder / ABOUT, {"base": base, "model": model})


def merged(model: Any, folder: Path) -> Any:
    """``model`` with the adapter in ``folder`` added to its weights, rounded to their type."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EncoderError(f"the adapter in {folder} cannot be merged: {reason(error)}.") from error
