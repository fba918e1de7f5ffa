"""TRL's preference formats: chat prompts stay chat, chat responses become text, implicit prompts are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from polypref.data.formats import Rows


def is_chat(texts_N: pl.Series) -> pl.Series:
    """Which texts are JSON lists of chat messages, by their shape: a list of objects that have a role."""
    start = texts_N.str.head(64).str.strip_chars_start().str.contains(r"^\[\s*\{").fill_null(False)
    if not start.any():
        return start
    return (
        start
        & texts_N.str.contains(r'"role"\s*:').fill_null(False)
        & texts_N.str.contains(r"\}\s*\]\s*$").fill_null(False)
    )


def read_chats(rows: Rows, sides: Sequence[str]) -> None:
    """Sets ``prompt`` and ``chat`` and turns the ``sides`` (response columns) into text."""
    if not rows.has("prompt"):
        rows.set(prompt=pl.Series([None] * rows.frame.height, dtype=pl.String))
    rows.set(chat=pl.Series(np.zeros(rows.frame.height, bool)))
