"""Thumbs and single ratings: one value for one response, with no second response to compare it with.

A column of thumbs is read under one meaning, decided from all of its values; a file with a value outside it is refused,
since what is left would look valid. A rating is a like above the mean of its user's ratings, and a dislike below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from polypref.content import BAR
from polypref.data.pool import Pool
from polypref.data.rows.rows import Rows
from polypref.data.rows.values import as_text
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
NEITHER = ("", "none", "null", "nan", "neutral", "n/a", "na", "no feedback", "unrated")
MOST = 8  # values that a message lists

RULE = "thumbs: {} is a like, {} a dislike; each is one judgement of one response, against the person's own bar"
RATING_RULE = (
    "ratings of single responses: above the mean of the user's ratings is a like, below it a dislike, equal a tie; "
    "each is one judgement of one response, against the person's own bar"
)


def read_thumbs(rows: Rows) -> None:
    """Thumbs as plain lower-case words; rows without one are left out, and the others wait for the whole column."""
    words = as_text(rows.frame["thumb"]).str.strip_chars().str.to_lowercase().str.replace_all(r"[_\-\s]+(\pL)", " $1")
    rows.set(thumb=words)
    rows.frame = rows.frame.filter(~words.fill_null("").is_in(NEITHER))


def decided(frames: Sequence[pl.DataFrame], file: str, column: str) -> tuple[list[pl.DataFrame], str]:
    """The frames of one file with the Boolean ``up`` for ``thumb``, and the rule by which; neutral thumbs are dropped.

    Raises InputError if a value has no known meaning, or if all thumbs are of one kind.
    """
    words = pl.concat([frame["thumb"] for frame in frames]) if frames else pl.Series("thumb", [], dtype=pl.String)
    counts = dict(words.value_counts(sort=True).iter_rows())
    dislikes = (*DISLIKE, "0") if "-1" not in counts else DISLIKE
    known = {*LIKE, *dislikes, "0"}
    if odd := [value for value in counts if value not in known]:
        raise InputError(
            f'{file}: column "{column}" holds {_listed(counts)}; {shown(odd[0])} is neither a like nor a dislike. '
            "Write up or down (or 1 or 0) in that column; if it holds grades, name it as --columns rating="
            f"{column}."
        )
    up, down = (_listed({v: n for v, n in counts.items() if v in side}) for side in (LIKE, dislikes))
    if counts and not (up and down):
        raise InputError(
            f'{file}: every thumb in column "{column}" is {up or down}; expected likes and dislikes: with one kind '
            "alone nobody's taste can be learned."
        )
    kept = [
        frame.filter(pl.col.thumb.is_in([*LIKE, *dislikes])).with_columns(up=pl.col.thumb.is_in(LIKE)).drop("thumb")
        for frame in frames
    ]
    return kept, RULE.format(up, down)


def _listed(counts: dict[str, int]) -> str:
    """Values with their counts, the most frequent first."""
    first = [f"{shown(value)} ({count:,})" for value, count in list(counts.items())[:MOST]]
    return ", ".join(first) + (f" and {len(counts) - MOST} more" if len(counts) > MOST else "")


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
