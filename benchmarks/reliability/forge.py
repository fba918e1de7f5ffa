"""Artifacts changed by somebody who knows the format: other settings or arrays, under hashes that fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]


def arrays_file(folder: Path) -> Path:
    """The file of an artifact's arrays."""
    (found,) = folder.glob("arrays*.safetensors")
    return found


def forged(
    folder: Path,
    config: Callable[[Any], Any] = lambda config: config,
    arrays: Callable[[Arrays], Arrays] = lambda arrays: arrays,
) -> None:
    """Change an artifact in its place and hash it again; what cannot be written as JSON stays as it was."""
    from safetensors.numpy import load, save

    from polypref.artifact import sealed

    path = folder / "manifest.json"
    manifest, old = json.loads(path.read_text()), arrays_file(folder)
    payload = save({name: np.ascontiguousarray(one) for name, one in arrays(load(old.read_bytes())).items()})
    old.unlink()
    digest = sha256(payload).hexdigest()
    (folder / f"arrays-{digest}.safetensors").write_bytes(payload)
    body = {key: value for key, value in manifest.items() if key != "sha256"} | {"arrays": digest}
    body["config"] = config(manifest["config"])
    with suppress(ValueError):  # NaN, and no text at all: a hash of it cannot be had
        body = sealed(body)
    path.write_text(json.dumps(body), errors="surrogatepass")
