"""The question about a judgement, with what the judge is told of the person.

Suffixes here: ``_A`` profiles of one person, ``_K`` neighbours, ``_M`` remembered judgements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Users
from polypref.learners.judge_prompts import Case, Choice, cases_of, prompt_texts
from polypref.learners.personas.leaks import without_copies, without_quotes
from polypref.learners.personas.profile import Profile
from polypref.learners.retrieval import Memory

EQUAL = 1e-9  # probabilities that differ by less are equal


class Asked(NamedTuple):
    """Questions, and how many sentences and earlier choices were left out because they share text with them."""

    questions: list[Choice]
    sentences: int
    copies: int


@dataclass(frozen=True, eq=False)
class Told:
    """What is known of ``users``: their profiles and remembered judgements, of which ``neighbours`` are looked up.

    ``nearest``: only the most similar of the remembered judgements count, else all are shown.
    """

    users: Users
    profiles: Sequence[Profile]
    memory: Memory
    neighbours: int
    nearest: bool
    characters: int

    def questions(self, comparisons: Comparisons, owner_N: IntArray) -> Asked:
        """The question about each judgement with the profile of user ``owner_N[n]``; -1: without one."""
        prompts, texts = prompt_texts(comparisons.responses), comparisons.responses.texts_R.to_list()
        prompt_N = comparisons.responses.prompt_R[comparisons.chosen_N].tolist()
        remembered_N = self._remembered(comparisons, owner_N)
        questions, sentences, copies = list[Choice](), 0, 0
        each = zip(prompt_N, comparisons.chosen_N.tolist(), comparisons.rejected_N.tolist(), strict=True)
        for (p, chosen, rejected), owner, rows in zip(each, owner_N.tolist(), remembered_N, strict=True):
            asked = Case(prompts[p], texts[chosen], texts[rejected])
            profile, quotes = without_quotes(self._profile(owner, rows), asked)
            cases = [] if self._judged[owner] is not None else [self._cases[m] for m in rows]
            shown = without_copies(cases, asked)
            sentences, copies = sentences + quotes, copies + len(cases) - len(shown)
            questions.append(Choice(asked, tuple(shown), self.characters, profile))
        return Asked(questions, sentences, copies)

    def _profile(self, owner: int, rows: Sequence[int]) -> str:
        """Of a person's profiles, the best on the judgements ``rows``; the last where that is not known."""
        if owner < 0:
            return ""
        texts, agreement_AM = self.profiles[owner].texts, self._judged[owner]
        if agreement_AM is None or not rows:
            return texts[-1]
        chance_A = agreement_AM[:, np.array(rows) - self._start_U[owner]].mean(axis=1)
        return texts[int(np.flatnonzero(chance_A >= chance_A.max() - EQUAL)[-1])]

    def _remembered(self, comparisons: Comparisons, owner_N: IntArray) -> list[list[int]]:
        """Rows of the memory for each judgement, the most similar last; never the judgement itself."""
        if self.nearest:
            user_N = np.where(owner_N < 0, len(self.users), owner_N).astype(np.int32)
            asked = replace(comparisons, users=self.users.with_nobody(), user_N=user_N)
            found_NK = self.memory.nearest(asked, self.neighbours)[:, ::-1]
            return [[m for m in row if m >= 0] for row in found_NK.tolist()]
        keys, starts, ends = self.memory.rows.pair_key_N, self._start_U[owner_N], self._end_U[owner_N]
        pairs = zip(starts.tolist(), ends.tolist(), comparisons.pair_key_N, strict=True)
        return [[m for m in range(start, end) if keys[m] != key] for start, end, key in pairs]

    @cached_property
    def _start_U(self) -> NDArray[np.int64]:
        """The first row of each user in the memory; for those without any, and for nobody (-1), an empty span."""
        return self._edges(0)

    @cached_property
    def _end_U(self) -> NDArray[np.int64]:
        return self._edges(1)

    def _edges(self, side: int) -> NDArray[np.int64]:
        known = self.memory.rows
        edges = np.searchsorted(known.user_N, np.arange(len(known.users) + 1))
        place_U = known.users.index(self.users.ids)  # the memory has its own order
        return np.append(np.where(place_U >= 0, np.append(edges, 0)[place_U + side], 0), 0)

    @cached_property
    def _judged(self) -> list[NDArray[np.float64] | None]:
        """How well each person's profiles foretell their remembered judgements, (A, M); None: not known, and nobody."""
        return [np.array(one.agreement) if one.agreement else None for one in self.profiles] + [None]

    @cached_property
    def _cases(self) -> list[Case]:
        return cases_of(self.memory.rows)
