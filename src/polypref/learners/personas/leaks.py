"""No profile may contain the texts that are in question: what overlaps with them is left out before the judge reads it.

Covered: a sentence of a profile that shares ``SHARED`` words in a row with the prompt or one of the two responses; an
earlier judgement that holds at least half of the runs of words of one of the two responses. Not covered: a paraphrase;
texts of fewer words, which a sentence may well contain by chance; an earlier judgement of other responses to the same
prompt, which every learner may learn from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from polypref.learners.judge_prompts import Case
from polypref.learners.personas.traits import joined, sentences

SHARED = 8  # words in a row
HALF = 0.5

_word = re.compile(r"\w+")


@lru_cache(maxsize=1 << 12)
def runs(text: str) -> frozenset[tuple[str, ...]]:
    """All runs of ``SHARED`` words of a text, in lower case."""
    words = _word.findall(text.lower())
    return frozenset(tuple(words[at : at + SHARED]) for at in range(len(words) - SHARED + 1))


def without_quotes(profile: str, asked: Case) -> tuple[str, int]:
    """The profile without the sentences that quote the question, and how many those were."""
    if not profile:
        return profile, 0
    said = sentences(profile)
    forbidden = [runs(text) for text in (asked.prompt, asked.first, asked.second)]
    kept = [one for one in said if all(runs(one).isdisjoint(known) for known in forbidden)]
    return (profile, 0) if len(kept) == len(said) else (joined(kept), len(said) - len(kept))


def without_copies(cases: Sequence[Case], asked: Case) -> list[Case]:
    """The earlier judgements that do not show a response of the question."""
    forbidden = [known for text in (asked.first, asked.second) if (known := runs(text))]
    return [case for case in cases if not any(_copies(case, known) for known in forbidden)]


def _copies(case: Case, known: frozenset[tuple[str, ...]]) -> bool:
    return any(len(known & runs(text)) >= HALF * len(known) for text in (case.first, case.second))
