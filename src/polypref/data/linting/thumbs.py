"""What likes and dislikes of single responses say as a whole: their share, and who gave one kind only."""

from __future__ import annotations

import numpy as np

from polypref.data.linting.findings import Inspection
from polypref.data.thumbs import bar_N, disliked_N, liked_N, one_kind_N
from polypref.wording import percent, share


def look(job: Inspection) -> None:
    """Leave out people with one kind of thumb, whose bar is unknown, and report the share of likes."""
    d = job.data
    thumbs_N = bar_N(d)
    if not thumbs_N.any():
        return
    _one_kind(job)
    kept_N = thumbs_N & ~job.dropped_N
    liked, disliked = liked_N(d) & kept_N, disliked_N(d) & kept_N
    many = int((liked | disliked).sum())
    if not many:
        return
    like_U, all_U = (np.bincount(d.user_N[rows_N], minlength=len(d.users)) for rows_N in (liked, liked | disliked))
    share_U = like_U[all_U > 0] / all_U[all_U > 0]
    low, middle, high = np.quantile(share_U, [0.1, 0.5, 0.9])
    text = (
        f"{share(liked.sum() / many)} of the likes and dislikes are likes; of a person's, {percent(low)} to "
        f"{percent(high)} % (the middle eight of ten people). Everyone is measured against their own bar"
    )
    figures = {"share": float(liked.sum() / many), "median": float(middle), "low": float(low), "high": float(high)}
    job.note("share of likes", (int(liked.sum()), many, "rows"), "counted", text, values=figures)


def _one_kind(job: Inspection) -> None:
    d = job.data
    alone_N = one_kind_N(d, ~job.dropped_N)
    if not alone_N.any():
        return
    row = int(np.argmax(alone_N))
    of = d.user_N[bar_N(d) & ~job.dropped_N]
    seen = (len(np.unique(d.user_N[alone_N])), len(np.unique(of)), "users")
    text = "people with one kind of thumb only: without both their bar is unknown, so nothing can be learned from them"
    job.note("one kind of thumb", seen, "dropped", text, row)
    job.dropped_N |= alone_N
