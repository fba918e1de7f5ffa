"""Thumbs and single ratings: one value for one response, with no second response to compare it with.

A column of thumbs is read under one meaning, decided from all of its values; a file with a value outside it is refused,
since what is left would look valid. A rating is a like above the mean of its user's ratings, and a dislike below.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from polypref.content import BAR
from polypref.data.pool import Pool
from polypref.data.rows.rows import Rows
from polypref.data.rows.values import as_text
from polypref.data.rows.vocabulary import Vocabulary
from polypref.errors import InputError
from polypref.wording import counted, shown

LIKE = (
    *("up", "thumbs up", "thumb up", "thumbsup", "like", "liked", "true", "yes", "y", "1", "+1", "positive", "pos"),
    *("good", "upvote", "upvoted", "helpful", "desirable", "👍", ":+1:", ":thumbsup:", "accepted", "accept"),
)
DISLIKE = (
    *("down", "thumbs down", "thumb down", "thumbsdown", "dislike", "disliked", "false", "no", "n", "-1", "negative"),
    *("neg", "bad", "downvote", "downvoted", "unhelpful", "not helpful", "undesirable", "👎", ":-1:", ":thumbsdown:"),
    *("rejected", "reject"),
)
NEITHER = ("none", "null", "nan", "neutral", "n/a", "na", "no feedback", "unrated")
NUMBERS = {"1", "+1", "-1", "true", "false"}  # what a column of ratings may hold as well
MOST = 8  # values that a rule lists

RULE = "thumbs: {} is a like, {} a dislike; each is one judgement of one response, against the person's own bar"
RATING_RULE = (
    "ratings of single responses: above the mean of the user's ratings is a like, below it a dislike, equal a tie; "
    "each is one judgement of one response, against the person's own bar"
)


@dataclass(frozen=True)
class Thumbs:
    """What a file's thumbs mean: value -> True (a like), False (a dislike) or None (neither), and the rule by which."""

    up: Mapping[str, bool | None] = field(default_factory=dict)
    rule: str = ""


def decide_thumbs(seen: Vocabulary, path: str, column: str) -> Thumbs:
    """The meaning of all of a file's thumbs.

    Raises InputError if a value has no known meaning, or if all thumbs are of one kind.
    """
    words = {value: _plain(value) for value in seen.counts}
    dislikes = DISLIKE if "-1" in words.values() else (*DISLIKE, "0")
    neither = (*NEITHER, "0")
    odd = next((value for value, word in words.items() if word not in {*LIKE, *dislikes, *neither}), None)
    if odd is not None or seen.others:
        what = "such a value" if odd is None else shown(odd)
        raise InputError(
            f'{path}: column "{column}" holds {seen}; {what} is neither a like '
            "nor a dislike. Write up or down (or 1 or 0) in that column; if it holds grades, name it as --columns "
            f"rating={column}."
        )
    up = {value: True if word in LIKE else False if word in dislikes else None for value, word in words.items()}
    liked, disliked = (_listed(seen, {value for value, is_up in up.items() if is_up is side}) for side in (True, False))
    if (liked or disliked) and not (liked and disliked):
        raise InputError(
            f'{path}: every thumb in column "{column}" is {liked or disliked}; expected likes and dislikes: with one '
            "kind alone nobody's taste can be learned."
        )
    return Thumbs(up, RULE.format(liked, disliked) if liked else "")


def are_thumbs(seen: Vocabulary) -> bool:
    """Whether a column of ratings holds words for likes and dislikes, and not numbers or true and false."""
    words = {_plain(value) for value in seen.counts}
    told = words - {*NEITHER}
    return bool(told) and told <= {*LIKE, *DISLIKE} - NUMBERS and not seen.others


def meaning_of_thumb(value: str) -> bool | None:
    """True for a like, False for a dislike; None for anything else."""
    word = _plain(value.strip())
    return True if word in LIKE else False if word in DISLIKE else None


def _plain(value: str) -> str:
    """A value in lower case, with spaces between its words and without the tone of an emoji's skin."""
    value = re.sub("[\U0001f3fb-\U0001f3ff\ufe0f]", "", value)
    return re.sub(r"[_\-\s]+(?=[^\W\d_])", " ", value.lower())


def _listed(seen: Vocabulary, some: Collection[str]) -> str:
    """Some of the values with their counts, the most frequent first."""
    counts = sorted(((value, seen.counts[value]) for value in some), key=lambda one: (-one[1], one[0]))
    first = [f"{shown(value)} ({count:,})" for value, count in counts[:MOST]]
    return ", ".join(first) + (f" and {len(counts) - MOST} more" if len(counts) > MOST else "")


def read_thumbs(rows: Rows, thumbs: Thumbs) -> None:
    """Thumbs to ``up``; rows without a like or a dislike are left out."""
    text = as_text(rows.frame["thumb"]).str.strip_chars()
    up = text.replace_strict(list(thumbs.up), list(thumbs.up.values()), default=None, return_dtype=pl.Boolean)
    rows.set(up=up)
    rows.frame = rows.frame.drop("thumb").filter(up.is_not_null())


def as_pairs(rated: pl.DataFrame) -> bool:
    """Whether coded ratings are read as pairs: at least half are of a prompt of which the user rated two responses."""
    return bool(
        rated.is_empty() or rated.select((pl.col.response.n_unique().over("user", "prompt") > 1).mean()).item() >= 0.5
    )


def against_bars(rated: pl.DataFrame, pool: Pool) -> pl.DataFrame:
    """Coded thumbs (``up``) or ratings as coded judgements of each response against its prompt's bar."""
    if rated.is_empty():
        return rated
    if "rating" in rated.columns:
        apart = pl.col.rating - pl.col.rating.mean().over("user")
        rated = rated.with_columns(up=apart >= 0, tie=apart.abs() < 1e-9)
    bars = pool.responses(pl.repeat(BAR, rated.height, dtype=pl.String, eager=True), rated["prompt"].to_numpy())
    text, up = rated["response"].to_numpy(), rated["up"].to_numpy()
    return rated.drop("prompt", "response", "rating", "up", "shown_first", strict=False).with_columns(
        chosen=pl.Series(np.where(up, text, bars)), rejected=pl.Series(np.where(up, bars, text))
    )


def unused(file: str, missing: int, rows: int) -> str:
    """What a file's rows without a thumb become, in one sentence."""
    return f"{missing:,} of {counted(rows, 'rows')} of {file} have no thumb and are not used"
