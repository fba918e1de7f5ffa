"""Responses that are longer than an encoder reads: how many, and which answers are equal for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.features.protocol import Encoder
from polypref.wording import are, counted

LOOKED_AT = 5000  # texts whose pieces are counted; of more, evenly spaced ones stand for all


@runtime_checkable
class ReadsBeginnings(Protocol):
    """Only encoders that read the beginning of a long text and can tell where they stop."""

    @property
    def reads(self) -> int | None:
        """How many word pieces, the tokenizer's own marks among them; None: all of a text."""
        ...

    def beginnings(self, texts_X: pl.Series) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Whether each text is longer than that, and a number that is equal for texts that are equal so far."""
        ...


@dataclass(frozen=True)
class LongTexts:
    """What an encoder does not read of the responses that were judged.

    ``longer`` of ``responses`` are longer than it ``reads``; ``equal`` of these are equal so far to another answer to
    the same prompt, and ``judgements`` compare two such answers. ``sampled``: of how many texts all of this was
    estimated (``longer``) or counted; 0: it was counted on all.
    """

    encoder: str
    reads: int
    responses: int
    longer: int
    equal: int
    judgements: int
    sampled: int

    def __str__(self) -> str:
        about = "about " if self.sampled else ""
        told = f"{about}{self.longer:,} of {counted(self.responses, 'responses')} {are(self.longer)} longer"
        if self.equal:
            least = "at least " if self.sampled else ""
            told += f"; {least}{self.equal:,} of them {are(self.equal)} equal for it to another answer to the same "
            told += "prompt"
            told += f" ({counted(self.judgements, 'judgements')} between such answers)" if self.judgements else ""
        return (
            f"long texts: {self.encoder} reads the first {self.reads} word pieces of a text; {told}. "
            "Read whole texts with --encoder minilm-windows (compare, fit)."
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"text": str(self)}


def of_default(rows: Comparisons) -> LongTexts | None:
    """``long_texts`` of the default encoder; None if its weights are not on this machine."""
    from polypref.features import minilm

    return long_texts(minilm.MiniLM(), rows) if minilm.at_hand() else None


def long_texts(encoder: Encoder, rows: Comparisons) -> LongTexts | None:
    """What ``encoder`` does not read of the responses of ``rows``; None if it reads all, or cannot tell.

    Raises EncoderError if the encoder's files are not on this machine.
    """
    if not isinstance(encoder, ReadsBeginnings) or encoder.reads is None:
        return None
    used_R = np.unique(np.concatenate([rows.chosen_N, rows.rejected_N]))
    pool = rows.responses.take(used_R[~rows.responses.bar_R[used_R]])
    bytes_R = pool.texts_R.str.len_bytes().to_numpy()
    may_R = np.flatnonzero(bytes_R > encoder.reads // 2)  # a piece has at least a byte; some are the tokenizer's marks
    if not len(may_R):
        return None
    step = max(-(-len(may_R) // LOOKED_AT), 1)
    looked_R = may_R[::step]
    longer_X, code_X = encoder.beginnings(pool.texts_R.gather(looked_R))
    if not longer_X.any():
        return None
    group_X = pool.prompt_R[looked_R].astype(np.int64) * len(looked_R) + code_X
    _, group_X = np.unique(group_X, return_inverse=True)
    equal_G = (np.bincount(group_X) > 1) & (np.bincount(group_X, longer_X) > 0)
    group_R = np.full(len(rows.responses), -1, np.int64)
    group_R[used_R[~rows.responses.bar_R[used_R]][looked_R]] = np.where(equal_G[group_X], group_X, -1)
    same_N = (group_R[rows.chosen_N] >= 0) & (group_R[rows.chosen_N] == group_R[rows.rejected_N])
    return LongTexts(
        encoder.name,
        encoder.reads,
        len(pool),
        round(longer_X.sum() * len(may_R) / len(looked_R)),
        int((equal_G[group_X] & longer_X).sum()),
        int(same_N.sum()),
        len(looked_R) if step > 1 else 0,
    )
