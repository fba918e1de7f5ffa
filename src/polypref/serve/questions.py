"""Which two answers to compare next: the most telling pair for one person, among prompts with candidate responses.

A scorer with a posterior is asked for the pair with the highest expected information (``newcomers.active``). Without a
posterior, and for people whose judgements are paused, the pair is drawn at random, and the answer says so.

Only pairs of which both texts pass the gate are asked. The side of each text is drawn at random and stored with the
question, as an answer whose candidates stand in the order shown. ``REPEATS`` of the questions repeat a pair that the
person judged at least ``GAP`` judgements ago, with the sides swapped: how often both judgements agree is the person's
consistency.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from polypref import content, strict_json
from polypref.comparisons import Comparisons, IntArray, Responses, Users
from polypref.errors import InputError, PolyprefError, SettingsError, reason
from polypref.newcomers.active import Asks, next_question
from polypref.regular_files import content_of
from polypref.serve.core import Answer, Core
from polypref.serve.people import State
from polypref.serve.store.contract import Judgement, Person, Stored, reading

QUESTION, REPEAT = "question", "repeat"  # routes of stored answers
INFORMATION, RANDOM, AGAIN = "expected information", "random", "repeat"  # how a pair was chosen
REPEATS, GAP = 0.08, 5
MOST_RESPONSES = 50  # of one prompt
MOST_PAIRS = 100_000  # of a file
EXPECTED = 'Each line is JSON: {"prompt": "...", "responses": ["...", "..."]}.'
MOST_WEIGHED = 300  # pairs, drawn from all that are open
MOST_SKIPPED = 200
ID = re.compile("[0-9a-f]{32}")  # of an answer


@dataclass(frozen=True)
class Question:
    """A prompt with two or more responses, of which any two can be compared. ``slate``: only to be shown in order."""

    prompt: str
    responses: tuple[str, ...]
    slate: bool = False


@dataclass(frozen=True)
class Asked:
    """A question to one person: two texts in the order shown; ``answer`` None: there is none, and ``why`` says why not.

    ``method`` is how the pair was chosen; ``why`` explains a random choice. ``left`` pairs are not judged yet.
    """

    left: int
    answer: Answer | None = None
    prompt: str = ""
    responses: tuple[str, ...] = ()
    method: str = ""
    why: str = ""


def read(path: Path | str) -> tuple[Question, ...]:
    """Questions of a JSONL file: ``prompt``, ``responses`` and perhaps ``slate`` in each line. Raises SettingsError."""
    found, where = [], str(path)
    try:
        for number, line in enumerate(content_of(path).splitlines(), 1):
            where = f"line {number} of {path}"
            if line.strip():
                found.append(question_of(strict_json.loads(line), where))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{where} cannot be read as questions: {reason(error)}. {EXPECTED}") from error
    if not found:
        raise SettingsError(f"{path} has no questions. {EXPECTED}")
    pairs = sum(comb(len(one.responses), 2) for one in found)
    if pairs > MOST_PAIRS:
        raise SettingsError(f"{path} has {pairs:,} pairs of responses; expected at most {MOST_PAIRS:,}.")
    return tuple(found)


def question_of(value: Any, where: str) -> Question:
    """A question from JSON. Raises SettingsError, naming ``where``, for anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise SettingsError(f"{where} has no prompt; expected an object with prompt and responses.")
    if unknown := value.keys() - {"prompt", "responses", "slate"}:
        raise SettingsError(f"{where} has {sorted(unknown)[0]!r}; expected prompt, responses and perhaps slate.")
    texts, slate = value.get("responses"), value.get("slate", False)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise SettingsError(f"{where}: responses is no list of texts.")
    if not 2 <= len(set(texts)) <= MOST_RESPONSES:
        raise SettingsError(f"{where} has {len(set(texts))} different responses; expected 2 to {MOST_RESPONSES}.")
    if not isinstance(slate, bool):
        raise SettingsError(f"{where}: slate is {slate!r}; expected true or false.")
    try:
        content.texts([value["prompt"], *texts], "text")
    except PolyprefError as error:
        raise SettingsError(f"{where}: {error}") from None
    return Question(value["prompt"], tuple(dict.fromkeys(texts)), slate)


def pair_key(prompt: Any, one: str, other: str) -> tuple[Any, frozenset[str]]:
    """What makes two comparisons the same question, whichever side a text was on."""
    return prompt if isinstance(prompt, str) else ("chat", content.canonical_chat(prompt)), frozenset((one, other))


class Questions:
    """Prompts with candidate responses, and what to ask somebody about them next."""

    def __init__(self, questions: Sequence[Question], rng: random.Random | None = None) -> None:
        self.questions, self._rng = tuple(questions), rng or random.SystemRandom()
        slates = [one for one in self.questions if one.slate]
        self.slate = slates[0] if slates else max(self.questions, key=lambda one: len(one.responses), default=None)
        asked = [one for one in self.questions if not one.slate]
        rows = [(one.prompt, *pair) for one in asked for pair in combinations(one.responses, 2)]
        self._place = {pair_key(*row): at for at, row in enumerate(rows)}
        self._pairs = _pairs(asked) if rows else None

    def prepare(self, core: Core) -> None:
        """Encode all texts, so that the first question comes at once."""
        prompts = [one.prompt for one in self.questions for _ in one.responses]
        texts = [text for one in self.questions for text in one.responses]
        if texts:
            core.in_force.prepare(Responses.of(prompts, texts)[0])

    async def ask(self, core: Core, person: Person, skip: Sequence[str] = ()) -> Asked:
        """The next question for this person, stored as an answer; ``skip`` are ids of questions not to ask again.

        Raises what ``Core.rank`` does.
        """
        if self._pairs is None:
            return Asked(0, why="this server has no questions; give it --questions FILE, or POST /v1/questions.")
        judged = await asyncio.to_thread(core.store.judgements, person)
        done = {self._place.get(_key(one.judgement), -1) for one in judged if one.judgement.rejected is not None}
        open_N = np.setdiff1d(np.arange(len(self._pairs)), list(done))
        left = len(open_N)
        if self._rng.random() < REPEATS and (again := self._repeatable(judged)):
            asked = await self._repeated(core, person, self._rng.choice(again), left)
            if asked is not None:
                return asked
        shown = await reading(core.store, lambda: [_offered(core, person, one) for one in skip[-MOST_SKIPPED:]])
        skipped = {self._place.get(key, -1) for key in shown if key is not None}
        drawn = np.random.default_rng(self._rng.getrandbits(128)).permutation(open_N).astype(np.int32)
        later = np.isin(drawn, list(skipped))
        for group in (drawn[~later], drawn[later]):
            for begin in range(0, len(group), MOST_WEIGHED):
                asked = await self._best(core, person, group[begin : begin + MOST_WEIGHED], left)
                if asked is not None:
                    return asked
        why = "every pair was judged." if not left else "the bounds hold back a text of every pair that is left."
        return Asked(left, why=why)

    async def _best(self, core: Core, person: Person, few: IntArray, left: int) -> Asked | None:
        """The most telling of some pairs; None where no pair may be shown."""
        assert self._pairs is not None
        rows = self._pairs.take(few)
        places, inverse = np.unique(np.concatenate([rows.chosen_N, rows.rejected_N]), return_inverse=True)
        state, passes_R = await core.passing(person, rows.responses.take(places.astype(np.int32)), together=2)
        may_N = passes_R[inverse[: len(few)]] & passes_R[inverse[len(few) :]]
        few, rows = few[may_N], rows.take(may_N)
        if not len(few):
            return None
        at, method, why = await core.computed(self._chosen, state, rows)
        prompt, texts = self._texts(int(few[at]))
        self._rng.shuffle(texts)
        return await self._offered(core, person, Asked(left, None, prompt, tuple(texts), method, why))

    def _chosen(self, state: State, rows: Comparisons) -> tuple[int, str, str]:
        """The number of a pair, how it was chosen, and why not by information."""
        if state.user is None:
            return self._rng.randrange(len(rows)), RANDOM, "your judgements are not used while they are paused."
        if not isinstance(state.scorer, Asks):
            why = f"a scorer of kind {state.scorer.kind!r} does not know how sure it is."
            return self._rng.randrange(len(rows)), RANDOM, why
        return next_question(state.scorer, state.user, rows), INFORMATION, ""

    async def _repeated(self, core: Core, person: Person, judged: Judgement, left: int) -> Asked | None:
        """A pair that was judged before, with the sides swapped; None where the bounds no longer show it."""
        assert judged.rejected is not None and isinstance(judged.prompt, str)
        was = [judged.chosen, judged.rejected]
        texts = was[::-1] if judged.context["position"] == "left" else was
        return await self._offered(core, person, Asked(left, None, judged.prompt, tuple(texts), AGAIN), REPEAT)

    async def _offered(self, core: Core, person: Person, asked: Asked, route: str = QUESTION) -> Asked | None:
        """The question once it is stored; None if the bounds hold back one of its texts after all."""
        answer = await core.rank(person, asked.prompt, asked.responses, route, stored="first")
        if answer.blocked:
            return None
        return Asked(asked.left, answer, asked.prompt, asked.responses, asked.method, asked.why)

    def _repeatable(self, judged: Sequence[Stored]) -> list[Judgement]:
        """Judgements of these questions that are old enough, whose sides are known and that were not repeated yet."""
        again = {_key(one.judgement) for one in judged if one.judgement.context.get(REPEAT)}
        return [
            one.judgement
            for one in judged[:-GAP]
            if "position" in one.judgement.context
            and not one.judgement.context.get(REPEAT)
            and (key := _key(one.judgement)) in self._place
            and key not in again
        ]

    def _texts(self, at: int) -> tuple[str, list[str]]:
        assert self._pairs is not None
        pool, sides = self._pairs.responses, (int(self._pairs.chosen_N[at]), int(self._pairs.rejected_N[at]))
        return pool.prompts[int(pool.prompt_R[sides[0]])], [pool.texts_R[side] for side in sides]


def _pairs(questions: Sequence[Question]) -> Comparisons:
    """All pairs of responses of each question, as comparisons of nobody; a prompt is not copied for each of them."""
    prompts = [one.prompt for one in questions for _ in one.responses]
    pool, place_Q = Responses.of(prompts, [text for one in questions for text in one.responses])
    ends = np.cumsum([len(one.responses) for one in questions])
    sides = [
        pair
        for one, end in zip(questions, ends.tolist(), strict=True)
        for pair in combinations(place_Q[end - len(one.responses) : end].tolist(), 2)
    ]
    chosen_N, rejected_N = np.array(sides, np.int32).T
    nobody = Users(pl.Series("id", ["nobody"], dtype=pl.String))
    return Comparisons(pool, nobody, np.zeros(len(sides), np.int32), chosen_N, rejected_N)


def _key(one: Judgement) -> tuple[Any, frozenset[str]]:
    return pair_key(one.prompt, one.chosen, one.rejected or "")


def _offered(core: Core, person: Person, request: str) -> tuple[Any, frozenset[str]] | None:
    """The pair of an earlier question to this person; None for any other id."""
    found = core.store.offer(person.tenant, request) if ID.fullmatch(request) else None
    if found is None or found[0] != person or len(found[1].texts) != 2:
        return None
    return pair_key(found[1].prompt, *found[1].texts)


def consistency(judged: Sequence[Stored]) -> dict[str, int]:
    """How many repeated questions were judged, and how many of them as the first time."""
    first: dict[Any, Judgement] = {}
    repeats = same = 0
    for one in (row.judgement for row in judged if row.judgement.rejected is not None):
        if not one.context.get(REPEAT):
            first[_key(one)] = one
        elif (before := first.get(_key(one))) is not None:
            repeats += 1
            same += before.kind == one.kind and (one.kind == "tie" or before.chosen == one.chosen)
    return {"repeats": repeats, "same": same}


def side_of(texts: Sequence[str], chosen: str, given: str | None) -> str | None:
    """The side on which the chosen text of a question was shown. Raises InputError where another one is ``given``."""
    shown = "left" if chosen == texts[0] else "right" if chosen == texts[1] else None
    if given is not None and given != shown:
        raise InputError(f"position is {given!r}; the chosen text was shown on the {shown or 'neither'} side.")
    return shown
