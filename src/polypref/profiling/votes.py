"""Comparisons as votes: which side each user takes on each pair of texts. Everything in ``profile`` starts here.

Suffixes here: ``_I`` judgements as given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.data.thumbs import bar_N

Ints = NDArray[np.int64]
Signs = NDArray[np.int8]
PairKey = Literal["text", "id"]


@dataclass(frozen=True, eq=False)
class Votes:
    """V votes, at most one per user and pair, sorted by pair; the judgements behind them are counted.

    ``sign_V``  +1 for the pair's first response, -1 for the second, 0 for a tie or for repeats that cancel out.
    ``plus_V``, ``minus_V``, ``tie_V``  how often this user judged this pair that way (used by test-retest).
    ``first_Y``, ``second_Y``  the pair's responses, numbered as in the pool; the order is arbitrary (text hash).
    ``prompt_Y`` the prompt they answer. ``same_text`` number of judgements whose two texts are equal: no votes.
    """

    user_V: Ints
    pair_V: Ints
    sign_V: Signs
    plus_V: Ints
    minus_V: Ints
    tie_V: Ints
    first_Y: Ints
    second_Y: Ints
    prompt_Y: Ints
    n_users: int
    same_text: int = 0

    @property
    def n_pairs(self) -> int:
        return len(self.first_Y)

    @cached_property
    def decided(self) -> Votes:
        """Only the votes that take a side; a tie, or repeats that cancel out, is an abstention."""
        return self.take(self.sign_V != 0)

    @cached_property
    def plus_Y(self) -> Ints:
        """Users for the first response of each pair."""
        return np.bincount(self.pair_V[self.sign_V > 0], minlength=self.n_pairs)

    @cached_property
    def minus_Y(self) -> Ints:
        """Users for the second response of each pair."""
        return np.bincount(self.pair_V[self.sign_V < 0], minlength=self.n_pairs)

    @property
    def panel_Y(self) -> Ints:
        """Users who took a side on each pair."""
        return self.plus_Y + self.minus_Y

    @property
    def margin_Y(self) -> Ints:
        """Users for the first minus users for the second response."""
        return self.plus_Y - self.minus_Y

    def take(self, rows_V: NDArray) -> Votes:
        """Some of the votes; pairs and users keep their numbers."""
        names = ("user_V", "pair_V", "sign_V", "plus_V", "minus_V", "tie_V")
        return replace(self, **{name: getattr(self, name)[rows_V] for name in names})

    def renumbered(self) -> Votes:
        """Without the users and pairs that have no vote; the others are renumbered in the same order."""
        users, user_V = np.unique(self.user_V, return_inverse=True)
        pairs, pair_V = np.unique(self.pair_V, return_inverse=True)
        ends = {name: getattr(self, name)[pairs] for name in ("first_Y", "second_Y", "prompt_Y")}
        return replace(self, user_V=user_V, pair_V=pair_V, n_users=len(users), **ends)

    def stances(self) -> Votes:
        """Votes on single responses instead of pairs: +1 if a user chose a response more often than not.

        For judgements derived from ratings or rankings: 200 pairs made of one user's 20 ratings are 20 observations.
        Here ``pair_V`` is a response, and ``first_Y`` equals ``second_Y``.
        """
        sided = self.decided
        first_V, second_V = self.first_Y[sided.pair_V], self.second_Y[sided.pair_V]
        n_responses = int(max(first_V.max(initial=0), second_V.max(initial=0))) + 1
        where = np.concatenate([first_V, second_V]) * np.int64(self.n_users) + np.tile(sided.user_V, 2)
        cells, cell = np.unique(where, return_inverse=True)
        votes_in = np.concatenate([sided.sign_V, -sided.sign_V])
        plus_V, minus_V = (np.bincount(cell[votes_in == s], minlength=len(cells)) for s in (1, -1))
        response_V = cells // self.n_users
        responses, pair_V = np.unique(response_V, return_inverse=True)
        prompt_R = np.zeros(n_responses, np.int64)
        prompt_R[first_V], prompt_R[second_V] = self.prompt_Y[sided.pair_V], self.prompt_Y[sided.pair_V]
        return replace(
            self,
            user_V=cells % self.n_users,
            pair_V=pair_V,
            sign_V=np.sign(plus_V - minus_V).astype(np.int8),
            plus_V=plus_V,
            minus_V=minus_V,
            tie_V=np.zeros_like(plus_V),
            first_Y=responses,
            second_Y=responses,
            prompt_Y=prompt_R[responses],
        )

    def permuted(self, rng: np.random.Generator) -> Votes:
        """The same panels and counts with each pair's votes shuffled among its users, which removes their tastes."""
        # pair_V is sorted, so sorting by (pair, random) keeps every pair's block of rows in place
        order = np.argsort(self.pair_V + 0.5 * rng.random(len(self.pair_V)))
        return replace(self, sign_V=self.sign_V[order])


def votes(comparisons: Comparisons, pairs: PairKey = "text", *, thumbs: bool = False) -> Votes:
    """Count the judgements of each user on each pair.

    ``pairs`` "text": the same two texts under one prompt are one pair, whatever their pair id (the default); "id": the
    data's own pair ids (a judgement without one uses its texts). Likes and dislikes of single responses count with
    ``thumbs`` alone: against a bar of their own, two people of one taste take two sides.
    """
    comparisons = comparisons.weighing()
    if not thumbs and (bar_I := bar_N(comparisons)).any():
        comparisons = comparisons.take(~bar_I)
    keys_R = comparisons.responses.keys_R
    a_I, b_I = keys_R[comparisons.chosen_N], keys_R[comparisons.rejected_N]
    differ_I = a_I != b_I
    sign_I = np.where(a_I < b_I, 1, -1)
    if comparisons.tie_N is not None:
        sign_I[comparisons.tie_N] = 0
    rows = np.flatnonzero(differ_I)
    key_I = comparisons.pair_key_N[rows]
    if pairs == "id" and comparisons.pair_N is not None:
        given_I = comparisons.pair_N[rows]
        key_I = np.where(given_I >= 0, given_I.astype(np.uint64), key_I)
    sign_I, user_I = sign_I[rows], comparisons.user_N[rows].astype(np.int64)
    _, at_Y, pair_I = np.unique(key_I, return_index=True, return_inverse=True)
    chosen_Y, rejected_Y = comparisons.chosen_N[rows[at_Y]], comparisons.rejected_N[rows[at_Y]]
    ordered_Y = (a_I < b_I)[rows[at_Y]]
    n_users = len(comparisons.users)
    _, at_V, vote_I = np.unique(pair_I * np.int64(n_users) + user_I, return_index=True, return_inverse=True)
    plus_V, minus_V, tie_V = (np.bincount(vote_I[sign_I == s], minlength=len(at_V)) for s in (1, -1, 0))
    return Votes(
        user_V=user_I[at_V],
        pair_V=pair_I[at_V],
        sign_V=np.sign(plus_V - minus_V).astype(np.int8),
        plus_V=plus_V,
        minus_V=minus_V,
        tie_V=tie_V,
        first_Y=np.where(ordered_Y, chosen_Y, rejected_Y).astype(np.int64),
        second_Y=np.where(ordered_Y, rejected_Y, chosen_Y).astype(np.int64),
        prompt_Y=comparisons.responses.prompt_R[chosen_Y].astype(np.int64),
        n_users=n_users,
        same_text=int(len(differ_I) - len(rows)),
    )
