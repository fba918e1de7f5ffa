"""Both tables of methods under one naming: ``hierarchical`` on frozen features, ``finetune:personalized`` tuned."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from polypref import artifact, finetune, learners
from polypref.features.protocol import Encoder
from polypref.learners.protocol import Adapts, Learner, Scorer
from polypref.learners.saved import encoder_for


def learner(name: str) -> Learner:
    """The learner called ``name``; ``finetune:METHOD`` and ``finetune:METHOD:MODEL`` are of ``finetune.METHODS``.

    Raises SettingsError for an unknown name.
    """
    return finetune.learner(name) if name.startswith(finetune.PREFIX) else learners.learner(name)


def load(path: Path | str, encoder: Encoder | str | None = None) -> Scorer:
    """Read back a scorer of either kind; it answers exactly as the saved one did, given the same encoder.

    ``encoder`` is one, or its name; a scorer that ``polypref fit`` saved knows it, and a tuned one asks it only to read
    new users. Raises ArtifactError when ``path`` holds no scorer, or one of a kind, version or backbone that this
    version does not know, SettingsError when the encoder is not known or another, EncoderError without the backbone.
    """
    folder = Path(path)
    if not (folder / "manifest.json").exists():
        return learners.load(folder, encoder)  # says what is missing
    config, arrays = artifact.load(folder, "scorer")
    tuned = finetune.SCORERS.get(config.pop("scorer"))
    if tuned is None:
        return learners.load(folder, encoder)
    asked = encoder_for(folder, encoder) if issubclass(tuned, Adapts) else encoder
    return tuned.from_state(config, arrays, cast(Encoder, asked))
