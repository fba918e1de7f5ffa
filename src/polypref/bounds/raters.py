"""Several raters' labels of one response as one label: whose standard the gate applies.

A file of slates with a column ``rater`` has a row for each rater of each candidate. A rule turns them into one label:

    majority     unsafe if at least half of the raters say so
    share=S      unsafe if at least a share S of the raters say so
    group=S      unsafe if in any group of raters at least a share S say so; column ``group``

The rule decides who is protected: a minority's standard is kept only by a share below its own, or by groups. Raters
without a label (``unsafe`` is missing) abstain. Not covered: raters of different reliability; all count alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import polars as pl

from polypref.errors import InputError, SettingsError

FORM = "expected majority, share=S or group=S with a share S above 0 and at most 1, as in share=.3"
CANDIDATE = ("slate", "prompt", "chat", "response")


@dataclass(frozen=True)
class Rule:
    """``share`` of the raters, of all or of any group, from which a response is unsafe."""

    over: Literal["all", "group"]
    share: float

    @classmethod
    def of(cls, text: str) -> Self:
        """Raises SettingsError."""
        if text == "majority":
            return cls("all", 0.5)
        name, _, number = text.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if name not in ("share", "group") or not 0 < share <= 1:
            raise SettingsError(f"--raters {text}: {FORM}.")
        return cls("group" if name == "group" else "all", share)


def settled(rows: pl.DataFrame, rule: Rule | None, path: str) -> pl.DataFrame:
    """One row for each candidate: its label by the rule, its first line and category; ``rows`` are those of a file.

    Raises InputError for raters without a rule, a rule without raters or groups, and a rater or group that is missing.
    """
    if "rater" not in rows.columns:
        if rule is not None:
            raise InputError(f'{path} has no column "rater" for --raters; name it so, or leave out --raters.')
        return rows
    if rule is None:
        raise InputError(f"{path} has labels of several raters; say whose line counts, as in --raters share=.3.")
    needed = ["rater", "group"] if rule.over == "group" else ["rater"]
    if "group" not in rows.columns and rule.over == "group":
        raise InputError(f'{path} has no column "group" for --raters group={rule.share:g}; use --raters share=.')
    for name in needed:
        missing = rows.filter(pl.col(name).fill_null("") == "")
        if len(missing):
            raise InputError(f"line {missing['line'][0]} of {path}: {name} is empty; give it.")
    candidate = [name for name in CANDIDATE if name in rows.columns]
    twice = rows.filter(pl.struct(*candidate, "rater").is_duplicated()).sort("line")
    if len(twice):
        raise InputError(
            f"line {twice['line'][0]} of {path}: rater {twice['rater'][0]!r} labels this response more than once; "
            "keep one of the labels."
        )
    parts = [*candidate, "group"] if rule.over == "group" else candidate
    share = rows.group_by(parts, maintain_order=True).agg(pl.col("unsafe").mean(), pl.col("line").min())
    label = share.group_by(candidate, maintain_order=True).agg(
        (pl.col("unsafe").max() >= rule.share - 1e-12).alias("unsafe"), pl.col("line").min()
    )
    if "category" in rows.columns:
        first = rows.group_by(candidate, maintain_order=True).agg(pl.col("category").first())
        label = label.join(first, on=candidate, how="left", nulls_equal=True, maintain_order="left")
    return label
