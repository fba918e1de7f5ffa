"""The settings of an alignment: what is trained for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polypref.arguments import AtLeastOne, Samples, Seed, Share, check_settings
from polypref.errors import SettingsError


@dataclass(frozen=True)
class Task:
    """What is trained for whom.

    ``model``     a causal language model: a folder, or a name on the hub.
    ``template``  of the model's input, with {group}, {prompt} and optionally {user}.
    ``min_judgements``  minimum judgements of a user to train for.
    ``samples``   answers per group before and after training; with fewer questions, questions are repeated.
    ``group_weight``  0: groups count by their size in users; 1: every group counts alike (``policy.group_weights``).
    ``trainer``   settings of ``PGRPOConfig`` by name.
    ``inputs``    the sources of everything, only for the report.
    """

    model: str
    template: str = "{group}: {prompt}\n"
    min_judgements: AtLeastOne = 10
    samples: Samples = 256
    seed: Seed = 0
    group_weight: Share = 0.5
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
