"""Lists of responses to comparisons: by ranks or ratings, by the index of the best one, by what is in each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from polypref.data.rows import words
from polypref.data.rows.convert import pairs_within
from polypref.data.rows.messages import NotMessages, text_in
from polypref.data.rows.rows import Rows
from polypref.data.rows.vocabulary import Vocabulary
from polypref.errors import InputError
from polypref.wording import shown

EVERY_TWO = "every two responses of a list are one judgement"
RANKING_RULE = f"rankings: {EVERY_TWO}; rank 1 is best, equal ranks are a tie"
RANKS = ("rank",)  # the keys of ranked responses that say which is better, best first
RATINGS = ("rating", "score", "overall_score", "pm_score", "stars")
HELD = 10_000  # lists that are kept parsed
NUMBERS = re.compile(r"\s*[\[(]?\s*-?\d+(?:\.\d+)?(?:[\s,;]+-?\d+(?:\.\d+)?)*\s*[\])]?\s*")  # as numpy prints them


@dataclass(frozen=True)
class Ranked:
    """``within``: the key of each response that says its rank or rating. ``counts_from``: the index of the first."""

    within: str = ""
    counts_from: int = 0
    rule: str = ""


def ratings_rule(column: str, what: str = "") -> str:
    """How lists of ratings are read."""
    return f'ratings in "{column}"{what}: {EVERY_TWO}; the higher rating is preferred, equal ratings are a tie'


def decide_best(seen: Vocabulary, path: str, column: str) -> Ranked:
    """What the index of the best response counts from. Raises InputError for values that are no indexes."""
    found = [words.meaning(value) for value in seen.counts]
    numbers = {one.value for one in found if isinstance(one, words.Number)}
    known = all(isinstance(one, words.Number | words.Nothing) for one in found) and not seen.others
    if not known or not numbers or any(number != int(number) or number < 0 for number in numbers) or numbers == {1.0}:
        raise InputError(
            f'{path}: column "{column}" holds {seen}; expected, beside a list of responses, the index of the best one, '
            "from 0 or from 1. Write a list of ranks for each row, 1 for the best, and name it: --columns ranking=NAME."
        )
    start = 0 if 0.0 in numbers else 1
    rule = f'"{column}" is the index of the best response, from {start}; it against each other one is one judgement'
    return Ranked(counts_from=start, rule=rule)


def rank_within(column: pl.Series, name: str) -> Ranked | None:
    """The key by which responses that are objects are ranked; None if they have none."""
    first = next((text for text in column.cast(pl.String).drop_nulls() if len(text) > 2), "")
    try:
        found = msgspec.json.decode(first, type=list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError):
        return None
    key = next((key for key in (*RANKS, *RATINGS) if found and all(_is_number(one.get(key)) for one in found)), None)
    if key is None:
        return None
    if key in RATINGS:
        return Ranked(key, rule=ratings_rule(name, f' (key "{key}")'))
    return Ranked(key, rule=f'{RANKING_RULE} ("{key}" in "{name}")')


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
        return "not a JSON list" if not NUMBERS.fullmatch(text) else list(re.findall(r"-?\d+(?:\.\d+)?", text))


def _as_written(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def explode_rankings(rows: Rows, ranked: Ranked) -> pl.DataFrame:
    """Converts rows with JSON lists of responses to rows with ``chosen``, ``rejected``, ``tie``."""
    _read_lists(rows, ranked)
    ranks = rows.frame["_ranking"]
    role = next((role for role in ("ranking", "ratings", "label") if rows.has(role)), "responses")
    wrong = ranks.list.eval(pl.element().is_null()).list.any() | (
        ranks.list.len() != rows.frame["_responses"].list.len()
    )
    expected = "the index of one of the responses" if role == "label" else "one number for each response"
    rows.drop("unreadable ranking", wrong.fill_null(True), role, expected)
    rows.drop("one response ranked", rows.frame["_ranking"].list.len() < 2, role, "at least two ranked responses")
    each = rows.frame.explode("_responses", "_ranking")
    first, second = pairs_within(rows.frame["_responses"].list.len().to_numpy().astype(np.int64))
    rank = each["_ranking"].to_numpy()
    if role == "label":  # nothing is said about two responses that are not the best
        apart = rank[first] != rank[second]
        first, second = first[apart], second[apart]
    better = rank[first] <= rank[second]
    texts = each["_responses"].fill_null("")
    gone = ("_responses", "_ranking", "responses", "ranking", "ratings", "label")
    return each.drop(*gone, strict=False)[first].with_columns(
        chosen=texts.gather(np.where(better, first, second)),
        rejected=texts.gather(np.where(better, second, first)),
        tie=pl.Series(rank[first] == rank[second], dtype=pl.Boolean),
    )


def _read_lists(rows: Rows, ranked: Ranked) -> None:
    """Set ``_responses``, and ``_ranking``: a number for each of them, the least for the best."""
    unread: set[str] = set()

    def response(value: Any) -> str | None:
        return None if value is None else text_in(value, rows.limits.depth, unread)

    def number_within(value: Any) -> str | None:
        found = value.get(ranked.within) if isinstance(value, dict) else None
        return _as_written(found) if _is_number(found) else None

    reads = {"responses": response, "ranking": _as_written, "ratings": _as_written}
    for role in [role for role in reads if rows.has(role)]:
        lists, why = json_lists(rows.frame[role].cast(pl.String).fill_null(""), reads[role])
        rows.set(**{f"_{role}": lists})
        reason = next(filter(None, why), "")
        of = "texts, or of objects with one text each" if role == "responses" else "numbers"
        rows.drop(f"unreadable {role}", lists.is_null(), role, f"a JSON list of {of} ({reason})")
    unread -= {ranked.within}
    if unread:
        keys = shown(", ".join(sorted(unread)))
        text = f"ranked responses have the keys {keys}; only their texts are read."
        rows.note("unread response keys", pl.Series(np.ones(rows.frame.height, bool)), text)
    if rows.has("label"):
        rows.set(_ranking=_by_index(rows, ranked.counts_from))
        return
    if ranked.within:
        whole = rows.frame["responses"].cast(pl.String)
        rows.set(_ranking=json_lists(whole, number_within)[0])
    source = "_ratings" if rows.has("_ratings") else "_ranking"
    numbers = rows.frame[source].list.eval(pl.element().cast(pl.Float64, strict=False))
    higher = rows.has("_ratings") or ranked.within in RATINGS
    rows.set(_ranking=numbers.list.eval(-pl.element()) if higher else numbers)
    rows.frame = rows.frame.drop("_ratings", strict=False)


def _by_index(rows: Rows, start: int) -> pl.Series:
    """1 for the best response of each row and 2 for the others; null where the index is of none."""
    sizes = rows.frame["_responses"].list.len().to_list()
    best = rows.frame["label"].cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False).to_list()
    ranks = [
        [2.0 - (at == index - start) for at in range(size)] if index is not None and 0 <= index - start < size else None
        for index, size in zip(best, sizes, strict=True)
    ]
    return pl.Series(ranks, dtype=pl.List(pl.Float64))
