"""Features of the whole pool, encoded once by the parent and shared with all workers as a memory-mapped file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Responses
from polypref.content import Identities
from polypref.features import question
from polypref.features.encode_missing import Cache, place_of
from polypref.features.prompts import prompt_texts
from polypref.features.protocol import Encoder, Read, read_by, reads_prompt
from polypref.files import TMPDIR, writing


@dataclass(frozen=True, eq=False)
class Encoded:
    """An encoder that reads a known pool's features from ``folder`` and uses ``inner`` for any other text.

    Its name, identity and features are those of ``inner``; it is only faster, and computes nothing in a worker.
    """

    inner: Encoder
    folder: Path

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def identity(self) -> str:
        return self.inner.identity

    @cached_property
    def _pool(self) -> tuple[Identities, NDArray[np.int64], NDArray[np.float32]]:
        """Sorted keys, the place of each in the pool, and the pool's features."""
        keys_R = np.load(self.folder / "keys.npy")
        order = np.argsort(keys_R, kind="stable")
        return keys_R[order], order, np.load(self.folder / "features.npy", mmap_mode="r")

    @property
    def features(self) -> Read:
        return read_by(self.inner)

    @property
    def reads_prompt(self) -> bool:
        return reads_prompt(self.inner)

    @property
    def cache(self) -> Cache:
        return place_of(self.inner)[1]

    @property
    def cache_folder(self) -> Path | str | None:
        return place_of(self.inner)[0]

    @cached_property
    def _columns(self) -> NDArray[np.float32] | None:
        path = self.folder / "columns.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    def columns(self, responses: Responses) -> NDArray[np.float32] | None:
        """See ``question.KnowsColumns``."""
        if self._columns is None:
            return None
        sorted_keys, at_sorted, _ = self._pool
        at = content.places(sorted_keys, responses.identity_R)
        return None if (at < 0).any() else self._columns[at_sorted[at]]

    def encode(self, responses: Responses) -> NDArray[np.float32]:
        """``features_RD`` of each (prompt, response), in the pool's order."""
        sorted_keys, at_sorted, features = self._pool
        keys = responses.identity_R
        at = content.places(sorted_keys, keys)
        if (at < 0).any():
            return self._of_prompts(responses)
        rows = at_sorted[at]
        if len(rows) == len(features) and np.array_equal(rows, np.arange(len(rows))):
            return features
        return features[rows]

    def _of_prompts(self, responses: Responses) -> NDArray[np.float32]:
        """Features of the pool's prompts as texts, from the folder if it holds all of them, else of the encoder."""
        if (self.folder / "prompts.npy").exists():
            keys_P = np.load(self.folder / "prompt_keys.npy")
            order = np.argsort(keys_P, kind="stable")
            at = content.places(keys_P[order], responses.identity_R)
            if (at >= 0).all():
                return np.load(self.folder / "prompts.npy")[order[at]]
        return self.inner.encode(responses)

    def __getstate__(self) -> dict[str, object]:
        return {"inner": self.inner, "folder": self.folder}


def encode_once(encoder: Encoder, responses: Responses, folder: Path) -> Encoded:
    """Encode the pool's texts, without bars, and its prompts, and write their features to ``folder`` for the workers.

    Raises CacheError if they cannot be written, and the encoder's errors.
    """
    if responses.bar_R.any():
        responses = responses.take(np.flatnonzero(~responses.bar_R).astype(np.int32))
    features = np.ascontiguousarray(encoder.encode(responses), np.float32)
    arrays = {"keys.npy": responses.identity_R, "features.npy": features}
    if read_by(encoder) == "pair":
        arrays["columns.npy"] = question.columns(encoder, responses, features)
        prompts, _ = prompt_texts(responses)
        arrays |= {"prompt_keys.npy": prompts.identity_R, "prompts.npy": encoder.encode(prompts)}
    for name, array in arrays.items():
        with writing(folder / name, TMPDIR) as output:
            np.save(output, array)  # type: ignore[arg-type]  # any object with ``write`` works
    return Encoded(encoder, folder)
