"""Biases of the judgements as a whole: position, length, haste. 95 % intervals are clustered by user."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import wording
from polypref.comparisons import IntArray
from polypref.data.linting.findings import Inspection
from polypref.data.read import Reading
from polypref.data.thumbs import bar_N

# Adults read 238 words of English a minute (Brysbaert 2019, J. Memory and Language 109); three times that is
# implausible.
FASTEST_WPM = 3 * 238
NARROW = 0.2  # an interval around one half narrower than this excludes a relevant bias
ONE_SIDED, ENOUGH = 0.95, 6  # from this share of at least so many judgements, one position wins too often
SHOWN_BOTH_WAYS = 0.05  # below this share of pairs shown in both orders, order and text are confounded


def look(job: Inspection) -> None:
    """Add findings about one-sided labels, position, length and haste."""
    _one_sided(job)
    _position(job)
    _length(job)
    _haste(job)


def rate(hit_N: NDArray[np.bool_], user_N: IntArray) -> tuple[float, float, float]:
    """Share of hits with its 95 % interval from the spread between users (of one user: between rows).

    Cluster-robust: the variance is the sum over users of their squared total residual, but at least that of
    independent rows. If all rows agree, it is Clopper and Pearson's with one trial per user.
    """
    from scipy.special import stdtrit

    share, n = float(hit_N.mean()), len(hit_N)
    residual_U = np.sort(np.bincount(user_N, weights=hit_N) - share * np.bincount(user_N))  # a sum in one order
    n_users = len(np.unique(user_N))
    if n_users < 2:
        residual_U, n_users = np.sort(hit_N - share), n
    if share in (0.0, 1.0):
        unseen = 1 - 0.025 ** (1 / n_users)
        return (0.0, 0.0, unseen) if share == 0 else (1.0, 1 - unseen, 1.0)
    squares = max((residual_U**2).sum() * n_users / max(n_users - 1, 1), n * share * (1 - share))
    spread = np.sqrt(squares) / n
    half = float(stdtrit(max(n_users - 1, 1), 0.975) * spread)  # Student's t, since annotators may be few
    return share, max(0.0, share - half), min(1.0, share + half)


def _placed(reading: Reading) -> NDArray[np.bool_]:
    """Which judgements (N,) prefer a response whose position is known."""
    tie_N = reading.comparisons.tie_N
    return (reading.shown_first_N >= 0) & (True if tie_N is None else ~tie_N)


def one_sided(reading: Reading) -> tuple[int, int, str] | None:
    """``(wins, judgements, sentence)`` of the position that wins nearly always; None if none does."""
    first_N = reading.shown_first_N[_placed(reading)]
    n, first = len(first_N), int((first_N == 1).sum())
    wins = max(first, n - first)
    if n < ENOUGH or wins < ONE_SIDED * n:
        return None
    side = "first" if first == wins else "second"
    asked = "are the labels, and which response is which, read right?"
    rule = next((f" ({rule})" for rule in reading.rules if rule.startswith(("labels in", "positions in"))), "")
    text = f"the response shown {side} won {wording.share(wins / n, 1)} of {wording.counted(n, 'judgements')}"
    return wins, n, f"{text}; {asked}{rule}"


def _one_sided(job: Inspection) -> None:
    """At the head of all findings."""
    if (found := one_sided(job.reading)) is not None:
        wins, n, text = found
        job.note("one-sided labels", (wins, n, "rows"), "counted", text)
        job.findings.insert(0, job.findings.pop())


def _position(job: Inspection) -> None:
    d, first_N = job.data, job.reading.shown_first_N
    known_N = _placed(job.reading) & ~job.dropped_N
    if not known_N.any():
        return
    share, low, high = rate(first_N[known_N] == 1, d.user_N[known_N])
    text = f"the response shown first won {_percent(share, low, high)}"
    text += _sign(low, high)
    a_N = np.where(first_N == 1, d.chosen_N, d.rejected_N)[known_N]
    b_N = np.where(first_N == 1, d.rejected_N, d.chosen_N)[known_N]
    orders = pl.DataFrame({"low": np.minimum(a_N, b_N), "high": np.maximum(a_N, b_N), "flip": a_N > b_N})
    both = orders.select((pl.col.flip.n_unique().over("low", "high") > 1).mean()).item()
    if both < SHOWN_BOTH_WAYS and not low <= 0.5 <= high:
        text += "; pairs have one order only, so it may be the texts, not the position"
    figures = {"share": share, "low": low, "high": high, "shown_both_ways": both}
    seen = (int((first_N[known_N] == 1).sum()), int(known_N.sum()), "rows")
    job.note("position bias", seen, "counted", text, values=figures)


def _length(job: Inspection) -> None:
    d = job.data
    length_R = d.responses.lengths_R
    longer_N = length_R[d.chosen_N] - length_R[d.rejected_N]
    known_N = (longer_N != 0) & ~job.dropped_N & ~bar_N(d)  # a bar has no length
    if d.tie_N is not None:
        known_N &= ~d.tie_N
    if not known_N.any():
        return
    share, low, high = rate(longer_N[known_N] > 0, d.user_N[known_N])
    text = f"the longer response won {_percent(share, low, high)}"
    text += _sign(low, high)
    figures = {"share": share, "low": low, "high": high}
    seen = (int((longer_N[known_N] > 0).sum()), int(known_N.sum()), "rows")
    job.note("length bias", seen, "counted", text, values=figures)


def _sign(low: float, high: float) -> str:
    """The conclusion from an interval around one half: no bias only if it excludes all but a small one."""
    if not low <= 0.5 <= high:
        return ""
    return "; no sign of bias" if high - low <= NARROW else "; too few to tell whether there is a bias"


def _percent(share: float, low: float, high: float) -> str:
    return f"{wording.share(share, 1)} ({wording.interval({'lo': low, 'hi': high}, wording.percent)})"


def _haste(job: Inspection) -> None:
    """Answers given faster than the two responses can be read; gaps between times bound the reading time."""
    d, seconds_N = job.data, job.reading.seconds_N
    has_seconds = np.isfinite(seconds_N).any()
    if not has_seconds and d.time_N is None:
        return
    words_R = d.responses.texts_R.str.count_matches(r"\S+").to_numpy().astype(np.float64) * ~d.responses.bar_R
    words_N = words_R[d.chosen_N] + words_R[d.rejected_N]
    speed_N = words_N / np.maximum(seconds_N, 1e-3) * 60 if has_seconds else _speed_between(job, words_N)
    known_N = np.isfinite(speed_N) & ~job.dropped_N
    fast_N = known_N & (speed_N > FASTEST_WPM)
    if fast_N.any():
        row, clock = int(np.argmax(fast_N)), "time taken" if has_seconds else "time since the user's previous answers"
        example = f"{words_N[row]:.0f} words, {clock}: {words_N[row] / speed_N[row] * 60:.1f} s each. {job.tell(row)}"
        text = f"read at more than {FASTEST_WPM} words a minute, by the {clock}"
        seen = (int(fast_N.sum()), int(known_N.sum()), "rows")
        job.note("faster than reading", seen, "kept", text, row, example)


def _speed_between(job: Inspection, words_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Words a minute if a user read during all the time since their previous answers; NaN for a user's first answers.

    Answers with equal times (a form sent as a whole) share the time since the previous ones.
    """
    d = job.data
    assert d.time_N is not None
    table = pl.DataFrame({"user": d.user_N, "time": d.time_N, "words": words_N, "row": np.arange(len(d))})
    table = table.filter(pl.col.time.is_not_nan() & ~pl.Series(job.dropped_N))
    moments = table.group_by("user", "time").agg(pl.col.words.sum()).sort("user", "time")
    moments = moments.with_columns(speed=60 * pl.col.words / (pl.col.time - pl.col.time.shift(1).over("user")))
    table = table.join(moments.select("user", "time", "speed"), on=["user", "time"], how="left", maintain_order="left")
    speed_N = np.full(len(d), np.nan)
    speed_N[table["row"].to_numpy()] = table["speed"].fill_null(np.nan).to_numpy()
    return speed_N
