"""A person's judgements as a writer of profiles sees them, and the judge that tries profiles on them.

Suffixes here: ``_A`` profiles that are tried.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray
from polypref.judges.protocol import LanguageModel
from polypref.learners.both_orders import margins_of
from polypref.learners.judge_prompts import Case, Choice, cases_of, prompt_texts

BYTES_PER_TOKEN = 4  # a rule of thumb: what a judge counts as a token is its own affair


@dataclass(frozen=True)
class Judged:
    """A decided judgement as text."""

    prompt: str
    chosen: str
    rejected: str

    def asked(self) -> Case:
        """The judgement as a question whose first response is the chosen one."""
        return Case(self.prompt, self.chosen, self.rejected)


@dataclass(frozen=True, eq=False)
class Person:
    """One person's judgements, ordered by content.

    ``unit_N`` numbers what is independent of the rest: distinct pairs of texts, or, for everybody taken together, the
    people.
    """

    judged: Sequence[Judged]
    cases: Sequence[Case]
    """The same as examples to show."""
    unit_N: IntArray

    @classmethod
    def of(cls, rows: Comparisons, unit_N: NDArray[np.integer]) -> Person:
        """The judgements ``rows``, all decided."""
        prompts, texts = prompt_texts(rows.responses), rows.responses.texts_R.to_list()
        prompt_N = rows.responses.prompt_R[rows.chosen_N].tolist()
        each = zip(prompt_N, rows.chosen_N.tolist(), rows.rejected_N.tolist(), strict=True)
        judged = [Judged(prompts[p], texts[chosen], texts[rejected]) for p, chosen, rejected in each]
        return cls(judged, cases_of(rows), np.unique(unit_N, return_inverse=True)[1].astype(np.int32))

    def __len__(self) -> int:
        return len(self.judged)

    def take(self, kept: NDArray[np.integer]) -> Person:
        """Some of the judgements."""
        rows = kept.tolist()
        return Person([self.judged[n] for n in rows], [self.cases[n] for n in rows], self.unit_N[kept])

    def halves(self, held_out: float, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Rows to write from and rows to choose by: the units are divided, so no pair is in both."""
        units = int(self.unit_N.max()) + 1 if len(self) else 0
        held = min(max(round(held_out * units), 1), units - 1) if units > 1 else 0
        held_X = np.isin(np.arange(units), rng.permutation(units)[:held])
        held_N = held_X[self.unit_N]
        return np.flatnonzero(~held_N).astype(np.int32), np.flatnonzero(held_N).astype(np.int32)


T = TypeVar("T")
Asking = Generator[list[Choice], NDArray[np.float64], T]
"""Yields questions, is sent the margin of each first response (NaN: no answer), and returns what it was for."""


@dataclass(eq=False)
class Trials:
    """Foretells one person's choices with profiles, and counts what that costs.

    ``calls`` are questions, each order by itself, whether or not the answer was known from an earlier run; ``tokens``
    are those of the questions, a fourth of their bytes.
    """

    characters: int
    calls: int = 0
    tokens: int = 0
    _known: dict[Choice, float] = field(default_factory=dict)

    def margins(
        self, profiles: Sequence[str], person: Person, shown: Sequence[Sequence[Case]] | None = None
    ) -> Asking[NDArray[np.float64]]:
        """``margin_AN`` of each chosen response with each profile, NaN where the judge answers in neither order.

        ``shown`` are the examples that go with each profile.
        """
        examples = shown or [()] * len(profiles)
        asked = [
            Choice(one.asked(), tuple(cases), self.characters, profile)
            for profile, cases in zip(profiles, examples, strict=True)
            for one in person.judged
        ]
        margin_N = yield from self.of(asked)
        return margin_N.reshape(len(profiles), len(person))

    def of(self, asked_N: Sequence[Choice]) -> Asking[NDArray[np.float64]]:
        """Margins (N,) of the first response of each question; none is asked twice."""
        new = [choice for choice in dict.fromkeys(asked_N) if choice not in self._known]
        if new:
            margin_N = yield new
            self._known |= dict(zip(new, margin_N.tolist(), strict=True))
            self.calls += 2 * len(new)
            self.tokens += 2 * sum(-(-len(choice.text().encode()) // BYTES_PER_TOKEN) for choice in new)
        return np.array([self._known[choice] for choice in asked_N], np.float64)


def together(model: LanguageModel, each: Sequence[Asking[T]]) -> list[T]:
    """Runs all of them to their end in step: what they ask at one time is one batch. Raises EncoderError as the judge.

    Answers are cached batch by batch, so an interrupted run asks nothing twice.
    """
    found: dict[int, T] = {}
    answers: dict[int, NDArray[np.float64] | None] = dict.fromkeys(range(len(each)))
    while answers:
        asked: dict[int, list[Choice]] = {}
        for at, answer in answers.items():
            try:
                asked[at] = next(each[at]) if answer is None else each[at].send(answer)
            except StopIteration as end:
                found[at] = end.value
        margin_N, unanswered_N = margins_of(model, [choice for choices in asked.values() for choice in choices])
        margin_N[unanswered_N == 1] = np.nan
        ends = np.cumsum([len(choices) for choices in asked.values()])
        answers = dict(zip(asked, np.split(margin_N, ends[:-1]), strict=True)) if asked else {}
    return [found[at] for at in range(len(each))]


def chance(margin_AN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean probability of the person's choices with each profile, (A,); one half without any answer."""
    answered_AN = np.isfinite(margin_AN)
    chance_AN = np.where(answered_AN, 1 / (1 + np.exp(-np.nan_to_num(margin_AN))), 0.0)
    answered_A = answered_AN.sum(axis=1)
    return np.where(answered_A > 0, chance_AN.sum(axis=1) / np.maximum(answered_A, 1), 0.5)
