"""User models on a language model tuned with LoRA, through transformers' Trainer, PEFT and Accelerate.

``LEARNERS`` is the table of learners. They are named ``finetune:METHOD`` (the backbone is MiniLM) or
``finetune:METHOD:MODEL`` with a local folder or a name on the hub; settings of the recipe or of the method may follow
the model, ``finetune:vpl:MODEL,steps=40,latent=16``. Needs ``pip install 'polypref[finetune]'``.
"""

from __future__ import annotations

from dataclasses import fields, replace

from polypref.arguments import check_settings
from polypref.errors import unknown_name
from polypref.finetune.methods import Conditional, Individual, Personalized, Pooled
from polypref.finetune.recipe import Recipe
from polypref.finetune.vpl import Vpl
from polypref.learners import named_settings
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

__all__ = ["LEARNERS", "PREFIX", "SCORERS", "Method", "Pooled", "Recipe", "learner"]


def learner(name: str) -> Learner:
    """The learner ``finetune:METHOD``, ``finetune:METHOD:MODEL`` or ``finetune:METHOD:MODEL,SETTING=VALUE,...``.

    Raises SettingsError for another name, an unknown setting or an impossible value.
    """
    method, _, rest = name.removeprefix(PREFIX).partition(":")
    found = LEARNERS.get(PREFIX + method)
    if not name.startswith(PREFIX) or found is None:
        raise unknown_name("learner", name, LEARNERS)
    if not rest:
        return found
    model, settings = named_settings(rest)
    own = {field.name for field in fields(found)} - {"recipe"}
    shared = {field.name for field in fields(Recipe)} - {"backbone"}
    for setting in settings.keys() - own - shared:
        raise unknown_name(f"setting of {PREFIX}{method}", setting, own | shared)
    shares = {key: value for key, value in settings.items() if key in shared}
    made = replace(found, **{key: value for key, value in settings.items() if key in own})
    made = replace(made, recipe=replace(made.recipe, backbone=model, **shares))
    check_settings(made)
    return made
