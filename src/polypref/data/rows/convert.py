"""Converts ratings and rankings to comparisons, by stated rules.

Suffixes here: ``_L`` lists of rated responses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.rows.messages import NotMessages, text_in
from polypref.data.rows.rows import Rows
from polypref.wording import shown

RANKING_RULE = "rankings: every two responses of a list are one judgement; rank 1 is best, equal ranks are a tie"

HELD = 10_000  # lists that are kept parsed

ONE_PROMPT_RULE = (
    "no prompt column (--columns prompt=NAME names one): all responses that a user rated answer the same, empty prompt"
)


def rating_rule(gap: float) -> str:
    """The rule by which ratings become comparisons, in one sentence."""
    tied = f"ratings less than {gap:g} apart are a tie" if gap > 0 else "equal ratings are a tie"
    return f"ratings: every two responses one user rated for one prompt are one judgement; higher is preferred, {tied}"


def pairs_within(sizes_L: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs (first < second) of positions within consecutive groups of the given sizes, group after group."""
    starts = np.cumsum(sizes_L, dtype=np.int64) - sizes_L
    firsts, seconds, groups = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for size in np.unique(sizes_L[sizes_L > 1]):
        a, b = np.triu_indices(size, 1)
        of_size = np.flatnonzero(sizes_L == size)
        firsts.append((starts[of_size, None] + a).ravel())
        seconds.append((starts[of_size, None] + b).ravel())
        groups.append(np.repeat(of_size, len(a)))
    order = np.argsort(np.concatenate(groups), kind="stable")
    return np.concatenate(firsts)[order], np.concatenate(seconds)[order]


def json_lists(texts_N: pl.Series, read: Callable[[Any], str | None]) -> tuple[pl.Series, pl.Series]:
    """JSON lists as lists of texts, each element by ``read``; null, and the reason, for a text that is none."""
    found: dict[str, list[str | None] | str] = {}
    lists = []
    for text in texts_N:
        if text not in found:
            found = found if len(found) < HELD else {}
            found[text] = _json_list(text, read)
        lists.append(found[text])
    told = [found if isinstance(found, str) else "" for found in lists]
    lists = [None if isinstance(found, str) else found for found in lists]
    return pl.Series(texts_N.name, lists, dtype=pl.List(pl.String)), pl.Series(told, dtype=pl.String)


def _json_list(text: str, read: Callable[[Any], str | None]) -> list[str | None] | str:
    """The list in a text, or what is wrong with it."""
    try:
        return [read(one) for one in msgspec.json.decode(text, type=list[Any])]
    except NotMessages as error:
        return str(error)
    except (msgspec.DecodeError, RecursionError):
        return "not a JSON list"


def _as_written(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def explode_rankings(rows: Rows) -> pl.DataFrame:
    """Converts rows with JSON lists ``responses`` and ``ranking`` to rows with ``chosen``, ``rejected``, ``tie``."""
    unread: set[str] = set()

    def response(value: Any) -> str | None:
        return None if value is None else text_in(value, rows.limits.depth, unread)

    for role, read in (("responses", response), ("ranking", _as_written)):
        lists, why = json_lists(rows.frame[role].cast(pl.String).fill_null(""), read)
        rows.set(**{f"_{role}": lists})
        reason = next(filter(None, why), "")
        of = "texts, or of objects with one text each" if role == "responses" else "numbers"
        rows.drop(f"unreadable {role}", lists.is_null(), role, f"a JSON list of {of} ({reason})")
    if unread:
        keys = shown(", ".join(sorted(unread)))
        text = f"ranked responses have the keys {keys}; only their texts are read."
        rows.note("unread response keys", pl.Series(np.ones(rows.frame.height, bool)), text)
    ranks = rows.frame["_ranking"].list.eval(pl.element().cast(pl.Float64, strict=False))
    rows.set(_ranking=ranks)
    wrong = ranks.list.eval(pl.element().is_null()).list.any() | (
        ranks.list.len() != rows.frame["_responses"].list.len()
    )
    rows.drop("unreadable ranking", wrong.fill_null(True), "ranking", "one number for each response, 1 for the best")
    rows.drop("one response ranked", rows.frame["_ranking"].list.len() < 2, "ranking", "at least two ranked responses")
    each = rows.frame.explode("_responses", "_ranking")
    first, second = pairs_within(rows.frame["_responses"].list.len().to_numpy().astype(np.int64))
    rank = each["_ranking"].to_numpy()
    better = rank[first] <= rank[second]
    texts = each["_responses"].fill_null("")
    return each.drop("_responses", "_ranking", "responses", "ranking")[first].with_columns(
        chosen=texts.gather(np.where(better, first, second)),
        rejected=texts.gather(np.where(better, second, first)),
        tie=pl.Series(rank[first] == rank[second], dtype=pl.Boolean),
    )


def pair_ratings(rated: pl.DataFrame, gap: float) -> pl.DataFrame:
    """Converts coded rated responses (``user``, ``prompt``, ``response``, ``rating``, ...) to coded judgements.

    A judgement has the line and file of the later of its two rows, the later of their times, the lower of their
    weights, and their pair id if it is the same; the durations of single ratings are meaningless for a comparison and
    are left out.
    """
    rated = rated.sort("user", "prompt", maintain_order=True).drop("seconds", "shown_first", strict=False)
    group = rated.select(pl.struct("user", "prompt").rle_id()).to_series()
    first, second = pairs_within(np.bincount(group.to_numpy()) if len(group) else np.zeros(0, np.int64))
    response, rating = rated["response"].to_numpy(), rated["rating"].to_numpy()
    different = response[first] != response[second]
    first, second = first[different], second[different]
    better = rating[first] >= rating[second]
    apart = np.abs(rating[first] - rating[second])
    judged = rated.drop("prompt", "response", "rating")[second].with_columns(
        chosen=pl.Series(response[np.where(better, first, second)]),
        rejected=pl.Series(response[np.where(better, second, first)]),
        tie=pl.Series((apart == 0) | (apart < gap), dtype=pl.Boolean),
    )
    if "weight" in rated.columns:
        weight = rated["weight"].fill_null(1.0).to_numpy()
        judged = judged.with_columns(weight=np.minimum(weight[first], weight[second]))
    if "time" in rated.columns:
        time = rated["time"].fill_null(np.nan).to_numpy()
        judged = judged.with_columns(time=np.fmax(time[first], time[second]))
    if "pair" in rated.columns:
        pair = rated["pair"].fill_null(-1).to_numpy()
        judged = judged.with_columns(pair=pl.Series(np.where(pair[first] == pair[second], pair[second], -1)))
    return judged
