"""The methods, one file each, behind one contract (``protocol``). ``LEARNERS`` is the literal table of them.

To add one: write its file with a frozen dataclass of settings whose ``fit`` returns a scorer, add it to ``LEARNERS``
and its scorer class to ``SCORERS``, and run the contract suite, which covers everything in these tables. One that reads
text with a model of the user's choice goes into ``WITH_MODEL`` instead and is named ``name:model``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from polypref import artifact
from polypref.errors import ArtifactError, SettingsError, unknown_name
from polypref.features.protocol import Encoder
from polypref.learners.conditional import Conditional, ConditionalScorer
from polypref.learners.dpl import Dpl, DplScorer
from polypref.learners.gpo import GPO, GPOScorer
from polypref.learners.hierarchical import Hierarchical, HierarchicalScorer
from polypref.learners.individual import Individual
from polypref.learners.length import Length, LengthScorer
from polypref.learners.linear import LinearScorer, PopulationScorer
from polypref.learners.low_rank import LowRank, LowRankScorer
from polypref.learners.meta_low_rank import MetaLowRank, MetaLowRankScorer
from polypref.learners.nearest_neighbours import NearestNeighbours, NeighboursScorer
from polypref.learners.pal_a import IdealPointScorer, PalA
from polypref.learners.pal_b import HeadsScorer, PalB
from polypref.learners.personalized import Personalized, PersonalizedScorer
from polypref.learners.pooled import Pooled
from polypref.learners.pretrained import Pretrained, PretrainedScorer
from polypref.learners.protocol import Adapts, Learner, Scorer, Scores, Uncertain, margins
from polypref.learners.random import Random, RandomScorer
from polypref.learners.retrieval_judge import RetrievalJudge, RetrievalJudgeScorer
from polypref.learners.reward_factors import FactorsScorer, RewardFactors
from polypref.learners.saved import encoder_for
from polypref.learners.vpl import VPL, VPLScorer

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
}

STANDARD = tuple(LEARNERS)[:10]
"""What is compared when nothing is named; ``all`` names every learner that needs no model."""

WITH_MODEL: dict[str, Callable[..., Learner]] = {
    "pretrained": Pretrained,
    "retrieval-judge": RetrievalJudge,
}
"""Learners that need a model, by the part of their name before the colon; called with the part behind it."""

SCORERS: dict[str, type[Scorer]] = {
    scorer.kind: scorer
    for scorer in (
        RandomScorer,
        LengthScorer,
        LinearScorer,
        PopulationScorer,
        PersonalizedScorer,
        LowRankScorer,
        HierarchicalScorer,
        FactorsScorer,
        ConditionalScorer,
        PretrainedScorer,
        RetrievalJudgeScorer,
        IdealPointScorer,
        HeadsScorer,
        MetaLowRankScorer,
        NeighboursScorer,
        DplScorer,
        VPLScorer,
        GPOScorer,
    )
}

__all__ = [
    "LEARNERS",
    "SCORERS",
    "STANDARD",
    "WITH_MODEL",
    "Adapts",
    "Learner",
    "Scorer",
    "Scores",
    "Uncertain",
    "learner",
    "load",
    "margins",
    "save",
]


def learner(name: str) -> Learner:
    """The learner called ``name``, a key of LEARNERS or ``name:model`` with a key of WITH_MODEL.

    Settings may stand behind the model: ``pretrained:some/cost-model,sign=-1``. Raises SettingsError for other names.
    """
    if name in LEARNERS:
        return LEARNERS[name]
    method, _, model = name.partition(":")
    if method not in WITH_MODEL:
        raise unknown_name("learner", name, [*LEARNERS, *(f"{method}:MODEL" for method in WITH_MODEL)])
    if not model:
        raise SettingsError(f"learner {method!r} needs a model: {method}:MODEL, a folder or a hub name.")
    model, settings = _settings(model)
    allowed = {field.name for field in fields(WITH_MODEL[method])} - {"model"}  # type: ignore[arg-type]
    for setting in settings.keys() - allowed:
        raise unknown_name(f"setting of {method}", setting, allowed)
    return WITH_MODEL[method](model, **settings)


def _settings(text: str) -> tuple[str, dict[str, Any]]:
    """``model,key=value,...`` in its parts; a value is JSON where it can be, else text."""
    settings: dict[str, Any] = {}
    while found := re.fullmatch(r"(.+),(\w+)=([^,]*)", text):
        text, key, value = found.groups()
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return text, settings


def save(scorer: Scorer, path: Path | str) -> None:
    """Write a scorer to the folder ``path``: settings as JSON, arrays as safetensors."""
    config, arrays = scorer.state()
    artifact.save(path, "scorer", {"scorer": scorer.kind, **config}, arrays)


def load(path: Path | str, encoder: Encoder | str | None = None) -> Scorer:
    """Read back a scorer; it answers exactly as the saved one did, given the same encoder.

    ``encoder`` is one, or its name; a scorer that ``polypref fit`` saved knows it. Raises ArtifactError when ``path``
    holds no scorer, or one of a kind that this version does not know, SettingsError when the encoder is not known or
    gives other features than those the scorer was fitted on.
    """
    encoder = encoder_for(Path(path), encoder)
    config, arrays = artifact.load(path, "scorer")
    kind = config.pop("scorer")
    if kind not in SCORERS:
        raise ArtifactError(f"{path} holds a scorer of kind {kind!r}; this version knows {', '.join(sorted(SCORERS))}.")
    return SCORERS[kind].from_state(config, arrays, encoder)
