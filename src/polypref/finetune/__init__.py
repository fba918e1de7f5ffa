"""The user models on a language model tuned with LoRA, through transformers' Trainer, PEFT and Accelerate.

``METHODS`` is the literal table. Outside this package they are named ``finetune:METHOD`` (the backbone is MiniLM) or
``finetune:METHOD:MODEL`` with a local folder or a name on the hub. Needs ``pip install 'polypref[finetune]'``.
"""

from __future__ import annotations

from dataclasses import replace

from polypref.errors import unknown_name
from polypref.finetune.methods import Conditional, Individual, Personalized, Pooled
from polypref.finetune.recipe import Recipe
from polypref.finetune.scorer import TunedScorer
from polypref.finetune.vpl import Vpl, VplScorer
from polypref.learners.protocol import Learner, Scorer

Method = Pooled | Individual | Conditional | Personalized | Vpl

METHODS: dict[str, Method] = {
    "pooled": Pooled(),
    "individual": Individual(),
    "conditional": Conditional(),
    "personalized": Personalized(),
    "personalized-cluster": Personalized(users="cluster"),
    "vpl": Vpl(),
}

SCORERS: dict[str, type[Scorer]] = {scorer.kind: scorer for scorer in (TunedScorer, VplScorer)}

PREFIX = "finetune:"

__all__ = ["METHODS", "PREFIX", "SCORERS", "Recipe", "learner"]


def learner(name: str) -> Learner:
    """The learner called ``finetune:METHOD`` or ``finetune:METHOD:MODEL``. Raises SettingsError for another name."""
    method, _, model = name.removeprefix(PREFIX).partition(":")
    if not name.startswith(PREFIX) or method not in METHODS:
        raise unknown_name("learner", name, [PREFIX + method for method in METHODS])
    found = METHODS[method]
    return replace(found, recipe=replace(found.recipe, backbone=model)) if model else found
