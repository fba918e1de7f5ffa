"""The identity of a safety scorer: a hash of its settings, its arrays and its encoder.

Covered: any change of a detector or a saved scorer, whatever it answers to the probe texts; an encoder or a local model
with other content. Not covered: the model behind a server, of which only address and name are known, and an object
without ``state``; for these, only the answers to the probe texts are compared.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from polypref import artifact
from polypref.strict_json import canonical


def identity_of(scorer: Any) -> str | None:
    """SHA-256, 64 hex digits, of what decides a scorer's answers; None for an object that has no ``state``."""
    if not hasattr(scorer, "state"):
        return None
    config, arrays = scorer.state()
    encoder = getattr(scorer, "encoder", None)
    kind = getattr(scorer, "kind", None) or type(scorer).__name__
    names = {"kind": kind, "config": config, "encoder": None if encoder is None else encoder.identity}
    digest = sha256(canonical(names).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(canonical([name, array.dtype.str, list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def artifact_in(folder: Path) -> str | None:
    """SHA-256 of the artifact in ``folder``, with all that it says of itself; None where none is there.

    Raises ArtifactError for a damaged one.
    """
    kind = artifact.kind_of(folder)
    return None if kind is None else artifact.digest_of(folder, kind)
