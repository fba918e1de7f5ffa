"""Both tables of methods under one naming: ``hierarchical`` on frozen features, ``finetune:personalized`` tuned."""

from __future__ import annotations

from pathlib import Path

from polypref import artifact, finetune, learners
from polypref.features.protocol import Encoder
from polypref.learners.protocol import Learner, Scorer


def learner(name: str) -> Learner:
    """The learner called ``name``; ``finetune:METHOD`` and ``finetune:METHOD:MODEL`` are of ``finetune.METHODS``.

    Raises SettingsError for an unknown name.
    """
    return finetune.learner(name) if name.startswith(finetune.PREFIX) else learners.learner(name)


def load(path: Path | str, encoder: Encoder) -> Scorer:
    """Read back a scorer of either kind. Raises ArtifactError, and EncoderError without a tuned scorer's backbone."""
    config, arrays = artifact.load(path, "scorer")
    kind = config.pop("scorer")
    if kind not in finetune.SCORERS:
        return learners.load(path, encoder)
    return finetune.SCORERS[kind].from_state(config, arrays, encoder)
