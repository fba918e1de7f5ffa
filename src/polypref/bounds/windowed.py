"""A safety score that added text cannot raise: the lowest over all windows of the prompt and of the response.

The score of a (prompt, response) is the lowest score of any window of the prompt with any window of the response, in
any reading (``windows``, ``readings``). If whole sentences are added before or after a text, all its windows remain, so
its score cannot rise, however long the addition. This holds for every scorer, since it is only asked about windows.

Covered: no part of a text goes unread. A text with more than ``MOST_WINDOWS`` windows, or a pair of texts with more
than ``MOST_PAIRS`` pairs of windows, gets no score; neither does a text with a pair that has none, or a text beyond the
limits of ``readings``. The gate drops what has no score. The turns of a user are also read as one text. Not covered: a
sentence inserted between two others removes the windows that hold both; the windows of each sentence remain.

Suffixes here: ``_W`` distinct windows, ``_T`` texts, ``_I`` windows of texts, ``_K`` pairs of windows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.bounds.readings import MOST_LETTERS, windows_read
from polypref.bounds.safety import Answers, SafetyFailed, answered_by_population
from polypref.comparisons import IntArray, Responses
from polypref.learners.protocol import POPULATION, Scores, UserIds, resolved

Floats = NDArray[np.float64]
Found = TypeVar("Found")

READS = "least over windows, 3"  # changes with whatever changes a window or a reading
MOST_WINDOWS, MOST_PAIRS = 4096, 16_384
AT_ONCE = 65_536  # pairs that a scorer is asked about together
USUAL_ROLES = ("system", "developer", "user", "assistant", "tool", "function")  # these and the next say nothing
USUAL_KEYS = (
    *("role", "content", "name", "type", "text", "refusal", "id", "index"),
    *("tool_calls", "tool_call_id", "function_call", "function", "arguments"),
)


@dataclass(frozen=True, eq=False)
class Read:
    """Texts as windows: text t has the distinct windows ``window_I[start_T[t]:start_T[t + 1]]``, none if unread."""

    windows: list[str]
    window_I: IntArray
    start_T: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> Read:
        """Each text in one or several forms, all of which are read."""
        place: dict[str, int] = {}
        found, start = [], [0]
        for forms in texts:
            found += [place.setdefault(window, len(place)) for window in _windows(forms)]
            start.append(len(found))
        return cls(list(place), np.array(found, np.int32), np.array(start))

    def of_text(self, text: int) -> IntArray:
        """The windows of one text."""
        return self.window_I[self.start_T[text] : self.start_T[text + 1]]

    @property
    def many_T(self) -> NDArray[np.int64]:
        """How many windows each text has."""
        return np.diff(self.start_T)

    def least(self, value_W: Floats) -> Floats:
        """The least value of each text's windows (T,); NaN for an unread text, or where one is not finite."""
        return self.reduced(np.minimum, np.where(np.isfinite(value_W), value_W, np.nan)[self.window_I])

    def reduced(self, by: np.ufunc, value_I: Floats) -> Floats:
        """The values of each text's windows, reduced (T,); NaN for an unread text."""
        value_T, read_T = np.full(len(self.many_T), np.nan), self.many_T > 0
        if read_T.any():
            value_T[read_T] = by.reduceat(value_I, self.start_T[:-1][read_T])
        return value_T


def _windows(forms: Sequence[str]) -> list[str]:
    """The distinct windows of all forms; none where they are too many."""
    found: dict[str, None] = {}
    for form in forms:
        read = windows_read(form, MOST_WINDOWS) if len(form) <= MOST_LETTERS else None
        if read is None:
            return []
        found |= dict.fromkeys(read)
    return list(found) if len(found) <= MOST_WINDOWS else []


def forms_of_prompt(responses: Responses, prompt: int) -> list[str]:
    """The prompt as one text; of chat messages, the strings of all turns, and those of the user's turns alone."""
    messages = responses.messages(prompt)
    turns = [(message.get("role"), "\n".join(_strings(message))) for message in messages]
    whole, users = "\n".join(text for _, text in turns), "\n".join(text for role, text in turns if role == "user")
    return [whole] if users in (whole, "") else [whole, users]


def _strings(value: Any, key: str = "") -> Iterator[str]:
    """All texts in a message, including roles and names of keys, except those that every chat has."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name not in USUAL_KEYS:
                yield name
            yield from _strings(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif value is not None and not (key == "role" and value in USUAL_ROLES):
        yield value if isinstance(value, str) else json.dumps(value)


def _once(read: Callable[[Responses], Found]) -> Callable[[Responses], Found]:
    """``read``, whose result is kept as long as the pool is: safety scorers and the rule of scripts read the same."""
    kept: WeakKeyDictionary[Responses, Found] = WeakKeyDictionary()

    def once(responses: Responses) -> Found:
        found = kept.get(responses)
        if found is None:
            found = kept[responses] = read(responses)
        return found

    return wraps(read)(once)


@_once
def read_prompts(responses: Responses) -> tuple[Read, IntArray]:
    """Windows of the prompts that are answered, and the number of each response's prompt among them (R,)."""
    used_P, at_R = np.unique(responses.prompt_R, return_inverse=True)
    return Read.of([forms_of_prompt(responses, p) for p in used_P.tolist()]), at_R.astype(np.int32)


@_once
def read_responses(responses: Responses) -> Read:
    """Windows of the responses."""
    return Read.of([[text] for text in responses.texts_R])


class Windowed:
    """``scorer``, asked about each pair of windows; the lowest answer counts."""

    reads = READS

    def __init__(self, scorer: Answers) -> None:
        self.scorer = scorer

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """The population's lowest score, NaN if it has none. Raises SafetyFailed for a score in a person's name."""
        _, response_Q = resolved(responses, user_ids, response_Q)
        prompts, at_R = read_prompts(responses)
        texts = read_responses(responses)
        many_R = prompts.many_T[at_R] * texts.many_T
        asked = np.flatnonzero((many_R > 0) & (many_R <= MOST_PAIRS))
        value_R = np.full(len(responses), np.nan)
        for part in _parts(asked, many_R):
            value_R[part] = self._least(prompts, at_R, texts, part)
        return Scores(value_R[response_Q], np.full(len(response_Q), POPULATION, np.int8))

    def _least(self, prompts: Read, at_R: IntArray, texts: Read, part: NDArray[np.int64]) -> Floats:
        """The lowest score of each response of ``part`` over its pairs of windows."""
        head_K, tail_K = [], []
        for r in part.tolist():
            head, tail = prompts.of_text(int(at_R[r])), texts.of_text(r)
            head_K.append(np.repeat(head, len(tail)))
            tail_K.append(np.tile(tail, len(head)))
        heads = pl.Series("prompt", prompts.windows, pl.String).gather(np.concatenate(head_K))
        tails = pl.Series("response", texts.windows, pl.String).gather(np.concatenate(tail_K))
        pool, pair_K = Responses.of(heads, tails)
        scores = self.scorer.score(pool, None)
        value = np.asarray(scores.value_Q, np.float64)
        if value.shape != (len(pool),) or not answered_by_population(scores, len(pool)):
            raise SafetyFailed(
                f"the safety scorer gave {value.shape} answers, some in a person's name, for {len(pool)} texts; "
                "expected the population's for each."
            )
        value = np.where(np.isfinite(value), value, np.nan)
        if scores.unanswered_Q is not None:
            value[scores.unanswered_Q > 0] = np.nan
        start = np.concatenate([[0], np.cumsum([len(one) for one in head_K])[:-1]])
        return np.minimum.reduceat(value[pair_K], start)


def windowed(scorer: Answers) -> Answers:
    """The scorer itself where it reads windows already."""
    return scorer if getattr(scorer, "reads", None) == READS else Windowed(scorer)


def _parts(asked: NDArray[np.int64], many_R: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """``asked`` in parts of at most ``AT_ONCE`` pairs."""
    if not len(asked):
        return
    yield from np.split(asked, np.flatnonzero(np.diff(np.cumsum(many_R[asked]) // AT_ONCE)) + 1)
