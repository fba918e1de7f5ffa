"""Which judgements a figure rests on, their order, and the numbers of users and texts: how every measurement begins.

Draws go by the numbers of users and texts, and the last digits of a sum by the order of rows. Both follow from what
judgements say here, so no figure moves with the order of rows, users and files, or with judgements of weight 0.

Suffixes here: ``_K`` codes that occur or all codes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from polypref.comparisons import OPTIONAL, Comparisons, IntArray, KeyArray, Users
from polypref.data.pool import mix

IN_ORDER = "in_order"  # set on what is in order; parts and copies with other columns lack it


def counted(comparisons: Comparisons) -> Comparisons:
    """The judgements of positive weight, over the users and texts that occur in them, all in the order of content.

    Users are ordered by id, prompts as texts, responses by content key, judgements by user, texts, answer, time and
    weight. Ties have the response with the lower number first; pair ids are numbered in the order of judgements.
    Columns that say nothing, such as weights that are all 1, are None.
    """
    if IN_ORDER in comparisons.__dict__:
        return comparisons
    kept = compact(comparisons.weighing())
    user_K = kept.users.ids.arg_sort().to_numpy().astype(np.int32)
    response_K = np.argsort(kept.responses.keys_R, kind="stable").astype(np.int32)
    found = _rows_in_order(_renumbered(_with_responses(kept, response_K), user_K))
    found.__dict__[IN_ORDER] = True
    return found


def compact(comparisons: Comparisons) -> Comparisons:
    """The same judgements over only those users and responses that occur in them, in the order in which they do."""
    sides_2N = np.concatenate([comparisons.chosen_N, comparisons.rejected_N])
    kept = _with_responses(comparisons, _first_seen(sides_2N, len(comparisons.responses)))
    return _renumbered(kept, _first_seen(comparisons.user_N, len(comparisons.users)))


def _with_responses(comparisons: Comparisons, response_K: IntArray) -> Comparisons:
    """Only the responses ``response_K``, in that order, and their prompts in the order of texts."""
    responses = comparisons.responses
    used_K = np.unique(responses.prompt_R[response_K])
    prompts = pl.DataFrame({"text": responses.prompts.gather(used_K), "chat": responses.is_chat_P[used_K]})
    order = prompts.select(pl.arg_sort_by("text", "chat")).to_series().to_numpy()
    new_R = _places(response_K, len(responses))
    return replace(
        comparisons,
        responses=responses.take(response_K, used_K[order].astype(np.int32)),
        chosen_N=new_R[comparisons.chosen_N],
        rejected_N=new_R[comparisons.rejected_N],
    )


def _renumbered(comparisons: Comparisons, user_K: IntArray) -> Comparisons:
    """Only the users ``user_K``, in that order; attributes that they have, by name."""
    users = comparisons.users
    about = None if users.attributes is None else users.attributes[user_K]
    if about is not None:
        known = sorted(name for name in about.columns if about[name].null_count() < len(about))
        about = about.select(known) if known else None
    new_U = _places(user_K, len(users))
    return replace(
        comparisons,
        users=Users(users.ids.gather(user_K), about),
        user_N=new_U[comparisons.user_N],
    )


def _rows_in_order(comparisons: Comparisons) -> Comparisons:
    """The judgements ordered by the numbers of their users and texts, and by what they say."""
    c = _without_defaults(comparisons)
    if c.tie_N is not None:
        low_N, high_N = np.minimum(c.chosen_N, c.rejected_N), np.maximum(c.chosen_N, c.rejected_N)
        sides = np.where(c.tie_N, low_N, c.chosen_N), np.where(c.tie_N, high_N, c.rejected_N)
        c = replace(c, chosen_N=sides[0], rejected_N=sides[1])
    rest = [np.unique(x_N, return_inverse=True)[1] for x_N in (c.time_N, c.weight_N) if x_N is not None]
    columns = [c.user_N, c.chosen_N, c.rejected_N, *([] if c.tie_N is None else [c.tie_N]), *rest]
    order_N = np.lexsort(columns[::-1])
    if c.pair_N is None:
        return c.take(order_N)
    differ_N = np.any([column_N[order_N][1:] != column_N[order_N][:-1] for column_N in columns], axis=0)
    place_N = np.empty(len(c), np.int32)
    place_N[order_N] = np.concatenate([np.zeros(min(len(c), 1), np.int32), np.cumsum(differ_N)])
    ordered = c.take(np.lexsort((c.pair_N, _pair_keys(c.pair_N, place_N), place_N)))
    assert ordered.pair_N is not None
    pairs = ordered.pair_N
    known_K = _first_seen(pairs[pairs >= 0], int(pairs.max()) + 1)
    return replace(ordered, pair_N=np.where(pairs < 0, -1, _places(known_K, int(pairs.max()) + 1)[pairs]))


def _without_defaults(comparisons: Comparisons) -> Comparisons:
    """The same with None for each column that has its default in every row."""
    gone = {}
    for name, missing, kind in OPTIONAL:
        column_N = getattr(comparisons, name)
        if column_N is not None and np.array_equal(column_N, np.full(len(comparisons), missing, kind), equal_nan=True):
            gone[name] = None
    return replace(comparisons, **gone) if gone else comparisons


def _pair_keys(pair_N: IntArray, place_N: IntArray) -> KeyArray:
    """A key of each row's pair id by the places of all rows that have it: ids are numbers by order of appearance."""
    key_K = np.zeros(int(pair_N.max()) + 1, np.uint64)
    known_N = pair_N >= 0
    np.add.at(key_K, pair_N[known_N], mix(place_N.astype(np.uint64), place_N)[known_N])
    return np.where(known_N, key_K[pair_N], 0)


def _first_seen(code_N: IntArray, many: int) -> IntArray:
    """The codes that occur, of ``many``, in order of first occurrence."""
    first_K = np.full(many, len(code_N), np.int64)
    first_K[code_N[::-1]] = np.arange(len(code_N))[::-1]  # the last value written stays, which is the first row
    order = np.argsort(first_K, kind="stable")
    return order[: np.count_nonzero(first_K < len(code_N))].astype(np.int32)


def _places(code_K: IntArray, many: int) -> IntArray:
    """The place of each of ``many`` codes in ``code_K``; -1 if absent."""
    place_K = np.full(many, -1, np.int32)
    place_K[code_K] = np.arange(len(code_K), dtype=np.int32)
    return place_K
