"""An encoder that keeps the features of recently used texts in memory, for a process that answers requests.

It gets missing features from the encoder that it wraps, which stores features on disk as usual, so the same texts give
the same features bit for bit. Threads may share one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Responses
from polypref.features import question
from polypref.features.cache import Features
from polypref.features.protocol import Encoder, Read, read_by

MOST_TEXTS = 100_000


class Remembered:
    """``encoder`` with a memory; features, columns, name and identity are its own."""

    def __init__(self, encoder: Encoder, most: int = MOST_TEXTS) -> None:
        self.encoder, self.most = encoder, most
        self._features: OrderedDict[bytes, NDArray] = OrderedDict()
        self._columns: OrderedDict[bytes, NDArray] = OrderedDict()
        self._reads_columns, self._lock = False, Lock()

    @property
    def name(self) -> str:
        """The encoder's."""
        return self.encoder.name

    @property
    def identity(self) -> str:
        """The encoder's."""
        return self.encoder.identity

    @property
    def features(self) -> Read:
        """The encoder's."""
        return read_by(self.encoder)

    def encode(self, responses: Responses) -> Features:
        """See ``features.protocol.Encoder``."""
        return self._of(self._features, responses, self.encoder.encode)

    def columns(self, responses: Responses) -> Features:
        """See ``features.question.KnowsColumns``."""
        self._reads_columns = True
        return self._of(self._columns, responses, self._computed)

    def knows(self, responses: Responses) -> bool:
        """Whether all that has been asked of other texts is in memory for these."""
        asked = (self._features, self._columns) if self._reads_columns else (self._features,)
        with self._lock:
            return all(key in kept for key in responses.identity_R.tolist() for kept in asked)

    def _computed(self, responses: Responses) -> Features:
        return question.columns(self.encoder, responses, self.encode(responses))

    def _of(
        self, kept: OrderedDict[bytes, NDArray], responses: Responses, ask: Callable[[Responses], Features]
    ) -> Features:
        keys = responses.identity_R.tolist()
        if not keys:
            return ask(responses)
        with self._lock:
            found = {key: kept[key] for key in keys if key in kept}
        missing = [at for at, key in enumerate(keys) if key not in found]
        if missing:
            found |= zip([keys[at] for at in missing], ask(responses.take(np.array(missing, np.int32))), strict=True)
        with self._lock:
            for key in keys:
                kept[key] = found[key]
                kept.move_to_end(key)
            while len(kept) > self.most:
                kept.popitem(last=False)
        return np.array([found[key] for key in keys])
