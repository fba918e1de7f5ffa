"""The pool of texts, built while files are streamed: each distinct text is kept once, in order of first appearance.

Texts are identified by a 64-bit hash with a new random seed for each read; two of a million distinct texts collide with
probability 3e-8. Texts beyond a byte budget go to memory-mapped files, so memory contains codes, not texts.

Suffixes here: ``_K`` distinct texts of a batch.
"""

from __future__ import annotations

import secrets
from copy import copy

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import BoolArray, IntArray, KeyArray, Responses, Users
from polypref.data.mapped import map_texts

SPILL_BYTES = 256 << 20  # texts held in memory before they are written to disk


class KeyTable:
    """Codes 0, 1, 2, ... for 64-bit keys, in order of first appearance; 12 bytes of memory for each distinct key.

    Known keys are in a few sorted runs, which are merged when their sizes become similar (a log-structured merge tree),
    so adding B keys to a table of K costs O(B log K) and the merges O(K log K) altogether.
    """

    def __init__(self) -> None:
        self.size = 0
        self._runs: list[tuple[KeyArray, IntArray]] = []

    def copy(self) -> KeyTable:
        """A copy of the table that grows independently."""
        new = copy(self)
        new._runs = list(self._runs)
        return new

    def codes(self, keys_N: KeyArray) -> tuple[IntArray, NDArray[np.intp]]:
        """Code of each key, and the positions where a new key appears first (in the order of their codes)."""
        keys_K, first_K, inverse_N = np.unique(keys_N, return_index=True, return_inverse=True)
        code_K = np.full(len(keys_K), -1, np.int32)
        for run_keys, run_codes in self._runs:
            at = np.minimum(np.searchsorted(run_keys, keys_K), len(run_keys) - 1)
            known = run_keys[at] == keys_K
            code_K[known] = run_codes[at[known]]
        new = np.flatnonzero(code_K < 0)
        by_appearance = new[np.argsort(first_K[new])]
        code_K[by_appearance] = np.arange(self.size, self.size + len(new), dtype=np.int32)
        self._add_run(keys_K[new], code_K[new])
        self.size += len(new)
        return code_K[inverse_N], first_K[by_appearance]

    def _add_run(self, keys: KeyArray, codes: IntArray) -> None:
        if not len(keys):
            return
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            more_keys, more_codes = self._runs.pop()
            keys, codes = np.concatenate([more_keys, keys]), np.concatenate([more_codes, codes])
            order = np.argsort(keys, kind="stable")  # timsort: two sorted runs merge in linear time
            keys, codes = keys[order], codes[order]
        self._runs.append((keys, codes))


class TextTable:
    """Distinct texts by code; see ``KeyTable``. ``spill_bytes`` texts stay in memory, the others are memory-mapped."""

    def __init__(self, spill_bytes: int = SPILL_BYTES) -> None:
        self._keys = KeyTable()
        self.seed = secrets.randbits(63)
        self._spill_bytes = spill_bytes
        self._held: list[pl.Series] = []
        self._held_bytes = 0
        self._mapped: list[pl.Series] = []

    def __len__(self) -> int:
        return self._keys.size

    def copy(self) -> TextTable:
        """A copy of the table that grows independently."""
        new = copy(self)
        new._keys, new._held, new._mapped = self._keys.copy(), list(self._held), list(self._mapped)
        return new

    def codes(self, texts_N: pl.Series, within_N: IntArray | None = None) -> tuple[IntArray, NDArray[np.intp]]:
        """Code of each text (of each (text, ``within_N``) if given), and where each new one appears first.

        Raises CacheError if texts must go to disk and the disk is full or read-only.
        """
        keys_N = texts_N.hash(self.seed).to_numpy()
        if within_N is not None:
            keys_N = mix(keys_N, within_N)
        code_N, first = self._keys.codes(keys_N)
        if len(first):
            # Copies only the new texts, since views into a large batch would keep the whole batch in memory.
            fresh = texts_N.gather(first).rechunk()
            self._held.append(fresh)
            self._held_bytes += int(fresh.str.len_bytes().sum()) + 16 * len(fresh)
            if self._held_bytes > self._spill_bytes:
                self._spill()
        return code_N, first

    def texts(self) -> pl.Series:
        """All distinct texts in the order of their codes."""
        parts = self._mapped + self._held
        return pl.concat(parts, rechunk=False) if parts else pl.Series("text", [], dtype=pl.String)

    def _spill(self) -> None:
        self._mapped.append(map_texts(pl.concat(self._held)))
        self._held, self._held_bytes = [], 0


def mix(keys_N: KeyArray, within_N: IntArray) -> KeyArray:
    """Key of each (key, integer): a multiply-xor of both, spread over 64 bits."""
    with np.errstate(over="ignore"):
        mixed = keys_N ^ ((within_N.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        return mixed ^ (mixed >> np.uint64(32))


class Pool:
    """Grows ``Responses`` and ``Users`` batch by batch."""

    def __init__(self, spill_bytes: int = SPILL_BYTES) -> None:
        self.users = TextTable(spill_bytes)
        self._prompts = TextTable(spill_bytes)
        self._texts = TextTable(spill_bytes)
        self._chat: list[BoolArray] = []
        self._prompt_R: list[IntArray] = []

    def copy(self) -> Pool:
        """A copy of the pool that grows independently."""
        new = copy(self)
        new.users, new._prompts, new._texts = self.users.copy(), self._prompts.copy(), self._texts.copy()
        new._chat, new._prompt_R = list(self._chat), list(self._prompt_R)
        return new

    def prompts(self, prompt_N: pl.Series, chat_N: BoolArray) -> IntArray:
        """Code of each prompt; chat prompts are already canonical JSON and never equal a text prompt."""
        code_N, first = self._prompts.codes(prompt_N, chat_N.astype(np.int32))
        self._chat.append(chat_N[first])
        return code_N

    def responses(self, text_N: pl.Series, prompt_N: IntArray) -> IntArray:
        """Code of each (prompt, response)."""
        code_N, first = self._texts.codes(text_N, prompt_N)
        self._prompt_R.append(prompt_N[first])
        return code_N

    def finish(self, attributes: pl.DataFrame | None) -> tuple[Responses, Users]:
        """The pool and the users read so far."""
        chat_P = np.concatenate([np.zeros(0, bool), *self._chat])
        responses = Responses(
            prompts=self._prompts.texts().alias("prompt"),
            prompt_R=np.concatenate([np.zeros(0, np.int32), *self._prompt_R]),
            texts_R=self._texts.texts().alias("text"),
            chat_P=chat_P if chat_P.any() else None,
        )
        return responses, Users(self.users.texts().alias("id"), attributes)
