"""Ratings and rankings to comparisons, by stated rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from polypref.data.formats import Rows


def explode_rankings(rows: Rows) -> pl.DataFrame:
    """Every two responses of a ranked list as one judgement."""
    raise NotImplementedError
