"""Converts ratings and rankings to comparisons, by stated rules.

Suffixes here: ``_L`` lists of rated responses.
"""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.rows.rows import Rows

SEVERAL_RULE = "of one response and a list of several, each pair is one judgement."
LIST_OF_TEXTS = r'^\s*\[\s*"'
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


def explode_several(rows: Rows) -> None:
    """One row for each rejected response where several are listed beside one chosen response, and the reverse.

    Lists of equally many texts, and lists that begin with the prompt, are conversations.
    """
    if not {"chosen", "rejected"} & rows.nested:
        return
    listed = rows.frame.select(pl.any_horizontal(pl.col("chosen", "rejected").str.contains(LIST_OF_TEXTS)))
    at = listed.to_series().fill_null(False).arg_true().to_list()
    sides = {role: rows.frame[role].to_list() for role in ("chosen", "rejected")}
    prompts = rows.frame["prompt"].to_list() if rows.has("prompt") else [None] * rows.frame.height
    several = np.zeros(rows.frame.height, bool)
    for row in at:
        one, other = (_listed(sides[role][row]) for role in ("chosen", "rejected"))
        few, many = sorted((one, other), key=len)
        if len(few) == 1 and len(many) > 1 and many[0] != prompts[row]:
            several[row] = True
            sides["chosen"][row], sides["rejected"][row] = one, other
    if not several.any():
        return
    as_lists = {
        role: pl.Series(role, [v if isinstance(v, list) else [v] for v in values], dtype=pl.List(pl.String))
        for role, values in sides.items()
    }
    rows.note("several responses", pl.Series(several), SEVERAL_RULE)
    rows.frame = rows.frame.with_columns(**as_lists).explode("chosen").explode("rejected")


def _listed(text: str | None) -> list[str | None]:
    """The texts of a list; anything else as the only one."""
    try:
        return list(msgspec.json.decode(text or "", type=list[str])) or [text]
    except (msgspec.DecodeError, RecursionError):
        return [text]


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
