"""Users' attributes from a JSON column: the keys that have the same value on all rows of each user."""

from __future__ import annotations

from copy import copy
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import polars as pl

from polypref.comparisons import BoolArray, IntArray
from polypref.data.files.limits import Limits, over
from polypref.data.rows.messages import NUL, depth_of, holds_nul, written
from polypref.errors import InputError

SPARSE = 20  # cells of the table of users and attributes per known value
CELLS = 5_000_000  # cells that a table may always have

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Attributes:
    """Collects the keys of JSON objects that have one value for each user.

    Keys that vary within any user (the topic of a prompt, the model that answered) are not about users.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        columns = {"user": pl.Int32, "key": pl.String, "value": pl.String}
        self._values = pl.DataFrame(schema=columns)
        self._keys: set[str] = set()
        self._varied: set[str] = set()

    def copy(self) -> Attributes:
        """A copy that can grow without changing this one."""
        new = copy(self)
        new._keys, new._varied = set(self._keys), set(self._varied)
        return new

    def add(self, user_N: IntArray, json_N: pl.Series) -> BoolArray:
        """Add the objects ``json_N`` of users ``user_N``; returns which of them are not JSON objects (null is fine).

        Raises InputError if there are more keys than ``Limits`` allows.
        """
        rows = pl.DataFrame({"user": user_N, "json": json_N})
        known = rows.drop_nulls("json").unique(maintain_order=True)
        texts = known["json"].unique(maintain_order=True)
        objects = [self._object(text) for text in texts]
        bad = pl.Series([found is None for found in objects], dtype=pl.Boolean)
        self._merge(known, texts, [found or {} for found in objects])
        if not bad.any():
            return np.zeros(len(rows), bool)
        return rows["json"].is_in(texts.filter(bad).implode()).fill_null(False).to_numpy()

    def _object(self, text: str) -> dict[str, Any] | None:
        try:
            found = _decode(text)
        except (msgspec.DecodeError, RecursionError):
            return None
        deep = text.count("[") + text.count("{") > self._limits.depth and depth_of(found) > self._limits.depth
        return None if deep or (NUL in text and holds_nul(found)) else found

    def _merge(self, known: pl.DataFrame, texts: pl.Series, objects: list[dict[str, Any]]) -> None:
        self._keys.update(*objects)
        if len(self._keys) > self._limits.attribute_keys:
            raise over(f"attributes have {len(self._keys):,} different keys", self._limits.attribute_keys,
                "attribute_keys", "--columns attributes= reads the file without them.")  # fmt: skip
        values = chain.from_iterable(found.values() for found in objects)
        parsed = pl.DataFrame(
            {
                "json": texts.gather(np.repeat(np.arange(len(objects)), [len(found) for found in objects])),
                "key": pl.Series(list(chain.from_iterable(objects)), dtype=pl.String),
                "value": pl.Series([v if v.__class__ is str else _text(v) for v in values], dtype=pl.String),
            }
        ).drop_nulls("value")
        parsed = parsed.filter(~pl.col.key.is_in(list(self._varied)))
        long = known.join(parsed, on="json", maintain_order="left").select("user", "key", "value")
        merged = (
            pl.concat([self._values, long]).unique(maintain_order=True).group_by("user", "key", maintain_order=True)
        )
        found = merged.agg(pl.col.value.first(), varies=pl.len() > 1)
        self._varied |= set(found.filter("varies")["key"].unique())
        self._values = found.filter(~pl.col.key.is_in(list(self._varied))).drop("varies")

    def table(self, n_users: int) -> pl.DataFrame | None:
        """One row per user, one text column per attribute that at least one user has; null if unknown.

        Raises InputError if nearly every cell would be empty, so that the table would be much larger than the file.
        """
        if self._values.is_empty():
            return None
        cells = n_users * self._values["key"].n_unique()
        if cells > max(CELLS, SPARSE * self._values.height):
            raise InputError(
                f"attributes: {self._values.height:,} values of {n_users:,} users would make a table of {cells:,} "
                "cells, nearly all empty. Keep the keys that most users have, or read without: --columns attributes=."
            )
        names = {key: f"attribute {k}" for k, key in enumerate(self._values["key"].unique(maintain_order=True))}
        wide = self._values.with_columns(pl.col.key.replace_strict(names)).pivot(on="key", index="user", values="value")
        users = pl.DataFrame({"user": np.arange(n_users, dtype=np.int32)})
        table = users.join(wide, on="user", how="left", maintain_order="left").drop("user")
        return table.rename({name: key for key, name in names.items()})  # last, since an attribute may be named "user"


def _text(value: Any) -> str | None:
    """A value as text, as in a column of a file: true, 40 for 40.0; nested values as JSON."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2.0**53 else repr(value)
    return str(value) if isinstance(value, int | str) else written(value)
