"""The methods, one file each, behind one contract (``protocol``). ``LEARNERS`` is the table of them.

To add one: write its file with a frozen dataclass of settings whose ``fit`` returns a scorer, add it to ``LEARNERS``,
and run the contract suite (``polypref.testing``), which covers everything in that table. The return annotation of
``fit`` names the scorer's class. A learner that reads text with a model of the user's choice goes into ``WITH_MODEL``
instead and is named ``name:model``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from polypref.errors import SettingsError, unknown_name
from polypref.learners.conditional import Conditional
from polypref.learners.dpl import Dpl
from polypref.learners.gpo import GPO
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.individual import Individual
from polypref.learners.jury import Jury
from polypref.learners.length import Length
from polypref.learners.low_rank import LowRank
from polypref.learners.meta_low_rank import MetaLowRank
from polypref.learners.nearest_neighbours import NearestNeighbours
from polypref.learners.new_user_baselines import ROUTES
from polypref.learners.pal_a import PalA
from polypref.learners.pal_b import PalB
from polypref.learners.persona import Persona
from polypref.learners.personalized import Personalized
from polypref.learners.pooled import Pooled
from polypref.learners.pretrained import Pretrained
from polypref.learners.protocol import Adapts, Learner, Scorer, Scores, Uncertain, by_kind, margins
from polypref.learners.random import Random
from polypref.learners.retrieval_judge import RetrievalJudge
from polypref.learners.reward_factors import RewardFactors
from polypref.learners.vpl import VPL

LEARNERS: dict[str, Learner] = {
    "random": Random(),
    "length": Length(),
    "pooled": Pooled(),
    "pooled-majority": Pooled(aggregate="majority"),
    "pooled-effects": Pooled(response_effects=True),
    "individual": Individual(),
    "personalized": Personalized(),
    "personalized-cluster": Personalized(users="cluster"),
    "low-rank": LowRank(),
    "hierarchical": Hierarchical(),
    "reward-factors": RewardFactors(),
    "conditional": Conditional(),
    "pal-a": PalA(),
    "pal-b": PalB(),
    "meta-low-rank": MetaLowRank(),
    "nearest-neighbours": NearestNeighbours(),
    "dpl": Dpl(),
    "vpl": VPL(),
    "vpl-swap": VPL(swap_guidance=0.1),
    "gpo": GPO(),
    "jury": Jury(),
}

STANDARD = tuple(LEARNERS)[:10]
"""The learners compared by default; ``all`` names every learner that needs no model."""

WITH_MODEL: dict[str, Callable[..., Learner]] = {
    "pretrained": Pretrained,
    "retrieval-judge": RetrievalJudge,
    "persona": Persona,
}
"""Learners that need a model, by the part of their name before the colon; called with the part after it."""

WITH_ATTRIBUTE: dict[str, Callable[..., Learner]] = {"jury": Jury}
"""Learners that may be given an attribute of the users instead of a model."""

SCORERS: dict[str, type[Scorer]] = by_kind([*LEARNERS.values(), *ROUTES.values(), *WITH_MODEL.values()])
"""The scorer classes of these learners by kind, as their ``fit`` declares them."""

__all__ = [
    "LEARNERS",
    "SCORERS",
    "STANDARD",
    "WITH_ATTRIBUTE",
    "WITH_MODEL",
    "Adapts",
    "Learner",
    "Scorer",
    "Scores",
    "Uncertain",
    "learner",
    "margins",
    "named_settings",
]


def learner(name: str) -> Learner:
    """The learner ``name``: a key of LEARNERS, or ``name:model`` with a key of WITH_MODEL, or of WITH_ATTRIBUTE.

    Settings may follow: ``pretrained:some/cost-model,sign=-1``. Raises SettingsError for other names.
    """
    if name in LEARNERS:
        return LEARNERS[name]
    method, _, what = name.partition(":")
    if method not in WITH_MODEL | WITH_ATTRIBUTE:
        more = [*(f"{method}:MODEL" for method in WITH_MODEL), *(f"{method}:ATTRIBUTE" for method in WITH_ATTRIBUTE)]
        raise unknown_name("learner", name, [*LEARNERS, *more])
    if not what:
        need = "a model: {}:MODEL, a folder or a hub name" if method in WITH_MODEL else "an attribute: {}:ATTRIBUTE"
        raise SettingsError(f"learner {method!r} needs {need.format(method)}.")
    make = (WITH_MODEL | WITH_ATTRIBUTE)[method]
    what, settings = named_settings(what)
    first, *allowed = (field.name for field in fields(make))  # type: ignore[arg-type]
    for setting in settings.keys() - set(allowed):
        raise unknown_name(f"setting of {method}", setting, allowed)
    return make(**{first: what}, **settings)


def named_settings(text: str) -> tuple[str, dict[str, Any]]:
    """The parts of ``model,key=value,...`` in a learner's name; a value is JSON if it parses, else text."""
    settings: dict[str, Any] = {}
    while found := re.fullmatch(r"(.+),(\w+)=([^,]*)", text):
        text, key, value = found.groups()
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return text, settings
