"""The settings of an alignment: what is trained for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from polypref.align.lora import Lora
from polypref.arguments import AtLeastOne, AtLeastZero, Dtype, Samples, Seed, Share, check_settings
from polypref.errors import SettingsError


@dataclass(frozen=True)
class Task:
    """What is trained for whom.

    ``model``     a causal language model: a folder, or a name on the hub.
    ``template``  of the model's input, with {group}, {prompt} and optionally {user}.
    ``min_judgements``  minimum judgements of a user to train for.
    ``samples``   answers per group before and after training; with fewer questions, questions are repeated.
    ``group_weight``  0: groups count by their size in users; 1: every group counts alike (``policy.group_weights``).
    ``chat``      ask through the model's chat template, if it has one.
    ``dtype``     of the model's weights; with LoRA, what is trained is float32 in any case.
    ``lora``      train an adapter (``align.lora``); None: all weights.
    ``collapse_floor``, ``collapse_steps``  when training stops (``align.watch``); 0 steps: never.
    ``trainer``   settings of ``PGRPOConfig`` by name.
    ``inputs``    the sources of everything, only for the report.
    """

    model: str
    template: str = "{group}: {prompt}\n"
    min_judgements: AtLeastOne = 10
    samples: Samples = 256
    seed: Seed = 0
    group_weight: Share = 0.5
    chat: bool = True
    dtype: Dtype = "stored"
    lora: Lora | None = None
    collapse_floor: Share = 0.2
    collapse_steps: AtLeastZero = 3
    trainer: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self)
        try:
            filled = self.template.format(group="\0g", prompt="\0p", user="\0u")
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            message = f"template {self.template!r} cannot be filled ({error!r}); use {{group}} and {{prompt}}."
            raise SettingsError(message) from error
        if "\0p" not in filled or ("\0g" not in filled and "\0u" not in filled):
            raise SettingsError(
                f"template {self.template!r} lacks {{prompt}}, or both {{group}} and {{user}}: a model that does not "
                "know whom it answers can please only the mixture."
            )

    def settings(self) -> dict[str, Any]:
        """All that decides the result, as JSON holds it."""
        found = {name: value for name, value in asdict(self).items() if name != "inputs"}
        return found | {"lora": self.lora and self.lora.settings()}
