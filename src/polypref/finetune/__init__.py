"""User models on a language model tuned with LoRA, through transformers' Trainer, PEFT and Accelerate.

``LEARNERS`` is the table of learners. They are named ``finetune:METHOD`` (the backbone is MiniLM) or
``finetune:METHOD:MODEL`` with a local folder or a name on the hub. Needs ``pip install 'polypref[finetune]'``.
"""

from __future__ import annotations

from dataclasses import replace

from polypref.errors import unknown_name
from polypref.finetune.methods import Conditional, Individual, Personalized, Pooled
from polypref.finetune.recipe import Recipe
from polypref.finetune.vpl import Vpl
from polypref.learners.protocol import Learner, Scorer, by_kind

Method = Pooled | Individual | Conditional | Personalized | Vpl

PREFIX = "finetune:"

LEARNERS: dict[str, Method] = {
    "finetune:pooled": Pooled(),
    "finetune:individual": Individual(),
    "finetune:conditional": Conditional(),
    "finetune:personalized": Personalized(),
    "finetune:personalized-cluster": Personalized(users="cluster"),
    "finetune:vpl": Vpl(),
}

SCORERS: dict[str, type[Scorer]] = by_kind(LEARNERS.values())
"""The scorer classes of these learners by kind, as their ``fit`` declares them."""

__all__ = ["LEARNERS", "PREFIX", "SCORERS", "Recipe", "learner"]


def learner(name: str) -> Learner:
    """The learner ``finetune:METHOD`` or ``finetune:METHOD:MODEL``. Raises SettingsError for another name."""
    method, _, model = name.removeprefix(PREFIX).partition(":")
    found = LEARNERS.get(PREFIX + method)
    if not name.startswith(PREFIX) or found is None:
        raise unknown_name("learner", name, LEARNERS)
    return replace(found, recipe=replace(found.recipe, backbone=model)) if model else found
