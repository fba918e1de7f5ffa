"""The methods, one file each, behind one contract (``protocol``). ``LEARNERS`` is the literal table of them.

To add one: write its file with a frozen dataclass of settings whose ``fit`` returns a scorer, add it to ``LEARNERS``
and its scorer class to ``SCORERS``, and run the contract suite, which covers everything in these tables.
"""

from __future__ import annotations

from pathlib import Path

from polypref import artifact
from polypref.errors import ArtifactError
from polypref.features.protocol import Encoder
from polypref.learners.hierarchical import Hierarchical, HierarchicalScorer
from polypref.learners.individual import Individual
from polypref.learners.length import Length, LengthScorer
from polypref.learners.linear import LinearScorer, PopulationScorer
from polypref.learners.low_rank import LowRank, LowRankScorer
from polypref.learners.personalized import Personalized, PersonalizedScorer
from polypref.learners.pooled import Pooled
from polypref.learners.protocol import Adapts, Learner, Scorer, Scores, Uncertain, margins
from polypref.learners.random import Random, RandomScorer

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
}

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
    )
}

__all__ = ["LEARNERS", "SCORERS", "Adapts", "Learner", "Scorer", "Scores", "Uncertain", "load", "margins", "save"]


def save(scorer: Scorer, path: Path | str) -> None:
    """Write a scorer to the folder ``path``: settings as JSON, arrays as safetensors."""
    config, arrays = scorer.state()
    artifact.save(path, "scorer", {"scorer": scorer.kind, **config}, arrays)


def load(path: Path | str, encoder: Encoder) -> Scorer:
    """Read back a scorer; it answers exactly as the saved one did, given the same encoder.

    Raises ArtifactError when ``path`` holds no scorer, or one of a kind that this version does not know.
    """
    config, arrays = artifact.load(path, "scorer")
    kind = config.pop("scorer")
    if kind not in SCORERS:
        raise ArtifactError(f"{path} holds a scorer of kind {kind!r}; this version knows {', '.join(sorted(SCORERS))}.")
    return SCORERS[kind].from_state(config, arrays, encoder)
