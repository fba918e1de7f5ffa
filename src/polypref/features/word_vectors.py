"""Word vectors without a network: MiniLM's own table of word pieces, weighted by frequency and centred.

A text's vector is the weighted mean of its pieces' rows, at unit length (zero for an empty text): smooth inverse
frequency, Arora et al. (2017), with frequencies by Zipf's law, since the vocabulary is in order of frequency. It takes
microseconds a text, and needs MiniLM's weights but not the network.

Suffixes here: ``_V`` word pieces of the vocabulary, ``_T`` pieces of X texts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.features import minilm

SIF = 1e-4
TABLE = "embeddings.word_embeddings.weight"
MOST_FREQUENT = "the"  # words follow it in order of frequency; before it are signs and letters, as frequent as it

RECIPE = f"table-of={minilm.SHA256} centred sif={SIF} recipe=1"


def vectors(texts_X: pl.Series) -> NDArray[np.float32]:
    """Vectors (X, 384) of texts. Raises EncoderError without MiniLM's weights."""
    tokenizer, table_VD = load()
    ids = [one.ids for one in tokenizer.encode_batch_fast(texts_X.to_list(), add_special_tokens=False)]
    size_X = np.fromiter(map(len, ids), np.int64, len(ids))
    id_T = np.fromiter((i for one in ids for i in one), np.int64, int(size_X.sum()))
    sum_XD = np.zeros((len(ids), table_VD.shape[1]), np.float32)
    filled = np.flatnonzero(size_X)
    if len(filled):
        starts = (np.cumsum(size_X) - size_X)[filled]
        sum_XD[filled] = np.add.reduceat(table_VD[id_T], starts, axis=0)
    return sum_XD / np.maximum(np.linalg.norm(sum_XD, axis=1, keepdims=True), 1e-12)


@lru_cache(maxsize=1)
def load() -> tuple[Any, NDArray[np.float32]]:
    """The tokenizer and the weighted table (V, 384)."""
    from safetensors import safe_open

    folder = minilm.checked_folder()
    tokenizer = minilm.pieces(folder)
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        table_VD = weights.get_tensor(TABLE).astype(np.float64)
    rank_V = np.maximum(np.arange(len(table_VD)) - tokenizer.token_to_id(MOST_FREQUENT) + 1, 1)
    share_V = 1 / rank_V / (1 / np.arange(1, rank_V.max() + 1)).sum()
    centred_VD = table_VD - table_VD[rank_V > 1].mean(axis=0)
    return tokenizer, (centred_VD * (SIF / (SIF + share_V))[:, None]).astype(np.float32)
