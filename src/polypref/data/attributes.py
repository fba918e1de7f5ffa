"""Facts about users, from a JSON column: what is the same on all rows of a user is a fact about the user."""

from __future__ import annotations

import numpy as np
import polars as pl

from polypref.comparisons import IntArray

UNSEEN, VARIES = -1, -2


class Attributes:
    """Collects the keys of JSON objects that hold one value for each user; keys that vary within a user are not about users."""

    def __init__(self) -> None:
        self._facts: dict[str, tuple[IntArray, dict[str, int]]] = {}

    def add(self, user_N: IntArray, json_N: pl.Series) -> None:
        """Note the objects ``json_N`` of users ``user_N``."""

    def table(self, n_users: int) -> pl.DataFrame | None:
        """One row per user, one text column per fact that at least one user has; null where unknown."""
        return None
