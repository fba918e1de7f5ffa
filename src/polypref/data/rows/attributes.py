"""Facts about users, from a JSON column: what is the same on all rows of a user is a fact about the user."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import BoolArray, IntArray

LOOKED_AT = 1000  # objects per batch that are looked at for their keys


class Attributes:
    """Collects the keys of JSON objects that have one value for each user.

    Keys that vary within any user (the topic of a prompt, the model that answered) are not about users.
    """

    def __init__(self) -> None:
        columns = {"user": pl.Int32, "key": pl.String, "value": pl.String, "varies": pl.Boolean}
        self._facts = pl.DataFrame(schema=columns)
        self._keys: dict[str, None] = {}

    def add(self, user_N: IntArray, json_N: pl.Series) -> BoolArray:
        """Note the objects ``json_N`` of users ``user_N``; gives which of them are not JSON objects (null is fine)."""
        rows = pl.DataFrame({"user": user_N, "json": json_N.str.replace_all(r"[\r\n]", " ")})
        told = rows.drop_nulls("json").unique()
        texts = told["json"].unique(maintain_order=True)
        for text in texts.head(LOOKED_AT):
            self._keys |= dict.fromkeys(_object(text) or ())
        objects, good = self._parse(texts)
        if self._keys and objects.height:
            long = told.join(objects, on="json").drop("json").unpivot(index="user", variable_name="key").drop_nulls()
            self._facts = _merge(pl.concat([self._facts, long.with_columns(varies=pl.lit(False))]))
        if good.all():
            return np.zeros(len(rows), bool)
        return rows["json"].is_in(texts.filter(pl.Series(~good)).implode()).fill_null(False).to_numpy()

    def _parse(self, texts: pl.Series) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
        schema = dict.fromkeys(self._keys, pl.String)
        good = np.ones(len(texts), bool)
        try:
            objects = pl.read_ndjson("\n".join(texts).encode(), schema=schema)
        except pl.exceptions.PolarsError:
            good = np.array([_object(text) is not None for text in texts], bool)
            texts = texts.filter(pl.Series(good))
            objects = pl.read_ndjson("\n".join(texts).encode(), schema=schema)
        names = [f"key {name}" for name in objects.columns]  # so that no key is taken for the column "json"
        objects.columns = names
        return objects.with_columns(texts.alias("json")), good

    def table(self, n_users: int) -> pl.DataFrame | None:
        """One row per user, one text column per fact that at least one user has; null where unknown."""
        varied = self._facts.filter("varies")["key"].unique()
        facts = self._facts.filter(~pl.col.key.is_in(varied.implode()))
        if facts.is_empty():
            return None
        wide = facts.with_columns(pl.col.key.str.strip_prefix("key ")).pivot(on="key", index="user", values="value")
        users = pl.DataFrame({"user": np.arange(n_users, dtype=np.int32)})
        return users.join(wide, on="user", how="left", maintain_order="left").drop("user")


def _merge(facts: pl.DataFrame) -> pl.DataFrame:
    return facts.group_by("user", "key", maintain_order=True).agg(
        pl.col.value.first(), varies=pl.col.varies.any() | (pl.col.value.n_unique() > 1)
    )


def _object(text: str) -> dict[str, object] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
