"""Likes and dislikes of single responses ("thumbs"), which products log where nobody is shown two answers.

A thumb is a comparison with a *bar*, whose level is the person's own: response r of prompt p is liked by user u with

    P(like) = sigmoid(reward_u(r) - bar_u(p))

so a like is the judgement "r over the bar" and a dislike "the bar over r". Every learner of comparisons then reads
thumbs. Each prompt has one bar in the pool. It is no text: its content is ``BAR``, which no file can hold, no encoder
reads it, and its inputs are those of the average text plus one input of its own, the level (``learners.inputs``).

Thumbs are measured by ranking: for each person, every held-out like is compared with held-out dislikes of the same
person. The share of such pairs in which the like has the higher reward is the area under the ROC curve within a person
(Hanley & McNeil 1982). The person's bar cancels in it, so knowing who likes often gains nothing. It is not the accuracy
on pairs of answers to one question: the two answers of such a pair answer different questions.

Covered: people who like much or little. Not covered: a person whose bar moves with time; thumbs given only to
remarkable answers, which say nothing of the others.

Suffixes here: ``_M`` pairs of a like and a dislike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import BoolArray, Comparisons, IntArray, Message, Responses, Users
from polypref.content import BAR
from polypref.data.split import EmptySide
from polypref.errors import InputError, SettingsError
from polypref.wording import counted

PARTNERS = 4  # dislikes that each like is ranked against, or likes each dislike, whichever are fewer
ENOUGH_PAIRS = 500  # real pairs from which on these are the test, and thumbs are only learned from

AREA = "area under the ROC curve"
READING = (
    f"These are likes and dislikes of single answers, so accuracy is here the {AREA} within each "
    "person: the share of held-out pairs of a like and a dislike of one person that are ranked right. It is not the "
    "accuracy on two answers to one question, which such data cannot show."
)
VALID = (
    "valid_accuracy and valid_log_loss of likes and dislikes are against each person's own bar: whether the answer is "
    "liked, not which of two is better"
)


def bar_N(comparisons: Comparisons) -> BoolArray:
    """Which judgements are thumbs: of a single response, against a bar."""
    bar_R = comparisons.responses.bar_R
    return bar_R[comparisons.chosen_N] | bar_R[comparisons.rejected_N]


def liked_N(comparisons: Comparisons) -> BoolArray:
    """Which judgements are likes. A tie with the bar is neither a like nor a dislike."""
    liked_N = comparisons.responses.bar_R[comparisons.rejected_N]
    return liked_N if comparisons.tie_N is None else liked_N & ~comparisons.tie_N


def disliked_N(comparisons: Comparisons) -> BoolArray:
    """Which judgements are dislikes."""
    disliked_N = comparisons.responses.bar_R[comparisons.chosen_N]
    return disliked_N if comparisons.tie_N is None else disliked_N & ~comparisons.tie_N


def judged_N(comparisons: Comparisons) -> IntArray:
    """The response that each thumb is about."""
    return np.where(comparisons.responses.bar_R[comparisons.chosen_N], comparisons.rejected_N, comparisons.chosen_N)


def by_ranking(comparisons: Comparisons) -> bool:
    """Whether results are measured by ranking thumbs: there are some, and too few real pairs to test on."""
    thumbs_N = bar_N(comparisons)
    return bool(thumbs_N.any()) and int((~thumbs_N).sum()) < ENOUGH_PAIRS


def tested(comparisons: Comparisons, rows: NDArray[np.integer]) -> Comparisons:
    """The judgements that measure a learner on the held-out ``rows``.

    These rows themselves where the data are pairs; the real pairs among them where thumbs come with enough of them;
    else the likes among them against the dislikes of the same person (``ranked``). Raises EmptySide if none is left.
    """
    part = comparisons.take(rows)
    thumbs_N = bar_N(part)
    if not thumbs_N.any():
        return part
    if not by_ranking(comparisons):
        if thumbs_N.all():
            raise EmptySide("no pair of answers is held out; give more pairs.", "no pair of answers would be held out")
        return part.take(~thumbs_N)
    pairs = ranked(part.take(thumbs_N))
    if not len(pairs):
        raise EmptySide(
            f"none of {counted(len(np.unique(part.user_N)), 'users')} gave both a like and a dislike among "
            f"{counted(len(part), 'held-out thumbs')}; give more thumbs per person.",
            "nobody would have both a like and a dislike held out",
        )
    return pairs


def ranked(thumbs: Comparisons) -> Comparisons:
    """Pairs of a like (chosen) and a dislike (rejected) of one person, of different responses.

    Each thumb of a person's more frequent kind is paired with ``PARTNERS`` of the other kind, or all if there are
    fewer, drawn by content. All pairs of a person have one weight, and together that of the independent pairs which
    can be made of m likes and n dislikes, 2 m n / (m + n).
    """
    key_R, text_N, many = thumbs.responses.keys_R, judged_N(thumbs), len(thumbs.users)
    likes, dislikes = (np.flatnonzero(side_N) for side_N in (liked_N(thumbs), disliked_N(thumbs)))
    likes, dislikes = (rows[np.lexsort((key_R[text_N[rows]], thumbs.user_N[rows]))] for rows in (likes, dislikes))
    like_U, dislike_U = (np.bincount(thumbs.user_N[rows], minlength=many) for rows in (likes, dislikes))
    more_U, fewer_U = np.maximum(like_U, dislike_U), np.minimum(like_U, dislike_U)
    turns_U = np.minimum(fewer_U, PARTNERS)
    size_U = more_U * turns_U
    user_M = np.repeat(np.arange(many), size_U)
    turn_M, place_M = np.divmod(np.arange(len(user_M)) - _starts(size_U)[user_M], more_U[user_M])
    other_M = (place_M + turn_M) % fewer_U[user_M]
    more_likes_M = (like_U >= dislike_U)[user_M]
    like_M = likes[_starts(like_U)[user_M] + np.where(more_likes_M, place_M, other_M)]
    dislike_M = dislikes[_starts(dislike_U)[user_M] + np.where(more_likes_M, other_M, place_M)]
    weight_U = 2 * fewer_U / np.maximum(like_U + dislike_U, 1) / np.maximum(turns_U, 1)
    differ_M = text_N[like_M] != text_N[dislike_M]
    return Comparisons(
        responses=thumbs.responses,
        users=thumbs.users,
        user_N=user_M[differ_M].astype(np.int32),
        chosen_N=text_N[like_M][differ_M].astype(np.int32),
        rejected_N=text_N[dislike_M][differ_M].astype(np.int32),
        weight_N=weight_U[user_M[differ_M]],
        lists="ratings",
    )


def _starts(count_U: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where each user's rows start among rows sorted by user."""
    return np.cumsum(count_U) - count_U


def one_kind_N(comparisons: Comparisons, kept_N: BoolArray) -> BoolArray:
    """Which of the thumbs ``kept_N`` are of people who gave one kind only, so that their bar is unknown."""
    many = len(comparisons.users)
    likes_U, dislikes_U = (
        np.bincount(comparisons.user_N[kept_N & side_N], minlength=many)
        for side_N in (liked_N(comparisons), disliked_N(comparisons))
    )
    return kept_N & bar_N(comparisons) & ((likes_U == 0) | (dislikes_U == 0))[comparisons.user_N]


def refuse(comparisons: Comparisons, what: str) -> None:
    """Raise SettingsError where ``what`` cannot learn from thumbs, and there are some."""
    if bar_N(comparisons).any():
        raise SettingsError(
            f"{what} needs judgements of two answers each, and these are likes and dislikes of single answers; "
            "compare, fit, adapt, score and profile read those, with the learners of --learners all."
        )


def from_thumbs(
    user_ids: Sequence[str] | pl.Series,
    prompts: Sequence[str | Sequence[Message]] | pl.Series,
    responses: Sequence[str] | pl.Series,
    liked: Sequence[bool] | NDArray[np.bool_],
) -> Comparisons:
    """Build Comparisons from N likes (True) and dislikes (False) of single responses, held in memory.

    Raises InputError for values that are not text, for NUL characters, for empty user ids, and for columns of
    different lengths.
    """
    id_N = content.ids(user_ids).alias("id")
    pool, text_N = Responses.of(prompts, responses)
    liked_N = np.asarray(liked)
    if liked_N.dtype != np.bool_ or len({len(id_N), len(text_N), len(liked_N)}) > 1:
        raise InputError(
            f"{len(id_N)} user ids, {len(text_N)} responses and liked, an array of {liked_N.dtype} of length "
            f"{len(liked_N)}; expected True or False for each response."
        )
    users = Users(id_N.unique(maintain_order=True))
    pool, bar_P = with_bars(pool)
    return against_bars(pool, users, users.index(id_N), text_N, bar_P[pool.prompt_R[text_N]], liked_N)


def with_bars(responses: Responses) -> tuple[Responses, IntArray]:
    """The pool with one bar for each prompt, and the number ``bar_P`` of each prompt's."""
    prompts, known = len(responses.prompts), len(responses)
    bars = pl.repeat(BAR, prompts, dtype=pl.String, eager=True).alias(responses.texts_R.name)
    bar_P = np.arange(known, known + prompts, dtype=np.int32)
    prompt_R = np.concatenate([responses.prompt_R, np.arange(prompts, dtype=np.int32)])
    return replace(responses, prompt_R=prompt_R, texts_R=pl.concat([responses.texts_R, bars])), bar_P


def against_bars(
    responses: Responses, users: Users, user_N: IntArray, text_N: IntArray, own_bar_N: IntArray, liked_N: BoolArray
) -> Comparisons:
    """Thumbs as comparisons of each response ``text_N`` with the bar of its prompt, ``own_bar_N``."""
    chosen_N, rejected_N = np.where(liked_N, text_N, own_bar_N), np.where(liked_N, own_bar_N, text_N)
    return Comparisons(responses, users, user_N, chosen_N.astype(np.int32), rejected_N.astype(np.int32), lists="thumbs")
