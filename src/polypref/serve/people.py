"""The scorer adapted to a person's judgements: computed from the store and the scorer in force, and from nothing else.

A state is the scorer after ``adapt`` on all stored judgements of the person. It is cached, within a limit, with the
person's version and computed again when that version changes, so every process gives the same answer at once, and
nothing has to be rebuilt after a crash.

Thumbs and ratings are compared within one person and prompt: the text with the higher last value is preferred to each
with a lower one. Those without another value for the same prompt are stored and have no effect yet. Pairs of one list
share values, so each has a weight, with which they count as what they know (``data.preferred``).
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import msgspec

from polypref.comparisons import Comparisons, from_columns
from polypref.content import Message
from polypref.data.preferred import preferred, worth
from polypref.learners.protocol import Adapts, Scorer
from polypref.serve.in_force import InForce
from polypref.serve.store.contract import Person, Standing, Store, Stored
from polypref.serve.who.person import scorer_id

MOST_KEPT = 10_000  # states
MOST_PAIRS = 2_000  # the newest that a state is derived from
MOST_LINKED = 100  # texts of one prompt that comparisons connect; learning from them costs the cube of their number


@dataclass(frozen=True)
class State:
    """A scorer that knows one person, under ``user``; ``standing`` is what it was derived from.

    ``user`` is None for nobody, and while judgements are paused; ``whose`` limits hold is known all the same.
    """

    scorer: Scorer
    user: str | None
    standing: Standing
    whose: str | None = None


class People:
    """States of people under a scorer, with the most recently used ones in memory.

    A scorer that follows makes them all anew, each when its person asks.
    """

    def __init__(self, in_force: InForce, store: Store, most: int = MOST_KEPT) -> None:
        self.store, self.most, self._keeping = store, most, Lock()
        self._now: tuple[InForce, OrderedDict[Person, State]] = in_force, OrderedDict()  # replaced together

    @property
    def in_force(self) -> InForce:
        """Whose states are kept."""
        return self._now[0]

    @property
    def scorer(self) -> Scorer:
        """The one in force."""
        return self.in_force.scorer

    @property
    def learns(self) -> bool:
        """Whether judgements can change answers."""
        return self.in_force.learns

    def follow(self, successor: InForce) -> None:
        """From now on states are of this scorer; those of its predecessor are given up."""
        self._now = successor, OrderedDict()

    def kept(self, person: Person, in_force: InForce) -> tuple[State | None, Standing]:
        """The state in memory if it is current, and what the store says about the person now."""
        if person.user is None:
            return State(in_force.scorer, None, Standing()), Standing()
        now = self.store.standing(person)
        latest, kept = self._now
        state = kept.get(person) if in_force is latest else None
        if state is None or state.standing != now:
            if in_force.learns and now.judgements and not now.paused:
                return None, now
            state = State(in_force.scorer, None if now.paused else scorer_id(person), now, scorer_id(person))
        self._keep(person, state, in_force)
        return state, now

    def derived(self, person: Person, in_force: InForce) -> State:
        """The state derived from the store; this takes as long as encoding the new texts."""
        state, now = self.kept(person, in_force)
        if state is None:
            user = scorer_id(person)
            scorer = knowing(in_force.scorer, person, self.store.judgements(person))
            state = State(scorer, user, now, user)
            self._keep(person, state, in_force)
        return state

    def _keep(self, person: Person, state: State, in_force: InForce) -> None:
        latest, kept = self._now
        if in_force is not latest:  # of a request that began before the scorer was replaced
            return
        with self._keeping:
            kept[person] = state
            kept.move_to_end(person)
            while len(kept) > self.most:
                kept.popitem(last=False)


def knowing(scorer: Scorer, person: Person, stored: Sequence[Stored]) -> Scorer:
    """The scorer after it has learned a person's judgements; itself if it cannot, or they give no comparison."""
    few, user = judged(person, stored), scorer_id(person)
    return scorer.adapt(user, few) if few is not None and isinstance(scorer, Adapts) and user is not None else scorer


class Row(NamedTuple):
    """A comparison that judgements give, the number of the last of them, and its weight."""

    prompt: str | tuple[Message, ...]
    chosen: str
    rejected: str
    tie: bool
    seq: int
    weight: float = 1.0


def rows_of(stored: Sequence[Stored]) -> list[Row]:
    """The comparisons that the judgements of one person give, in the order in which they were complete.

    Older ones that would connect more than ``MOST_LINKED`` texts of one prompt are left out.
    """
    rows: list[Row] = []
    valued: defaultdict[Any, dict[str, float]] = defaultdict(dict)
    seq_of: defaultdict[Any, dict[str, int]] = defaultdict(dict)
    for seq, one in ((row.seq, row.judgement) for row in stored):
        if one.rejected is not None:
            rows.append(Row(one.prompt, one.chosen, one.rejected, one.kind == "tie", seq))
        elif one.value is not None:
            key = _prompt_key(one.prompt), one.kind
            valued[key][one.chosen], seq_of[key][one.chosen] = one.value, seq
    prompts = {_prompt_key(row.judgement.prompt): row.judgement.prompt for row in stored}
    for key, all_values in valued.items():
        last = seq_of[key]
        newest = sorted(last, key=last.__getitem__)[-MOST_LINKED:]
        value_of = {text: all_values[text] for text in newest}
        weight = worth(value_of)
        rows += [
            Row(prompts[key[0]], better, other, False, max(last[better], last[other]), weight)
            for better, other in preferred(value_of)
        ]
    return affordable(sorted(rows, key=lambda row: row.seq))


def affordable(rows: list[Row], most: int = MOST_LINKED) -> list[Row]:
    """The rows, from the newest on, that connect at most ``most`` texts of one prompt; in the same order."""
    if len(rows) < most:
        return rows
    leader: dict[tuple[str, str], tuple[str, str]] = {}
    size: dict[tuple[str, str], int] = {}

    def group_of(text: tuple[str, str]) -> tuple[str, str]:
        while (above := leader.setdefault(text, text)) != text:
            leader[text] = text = leader.setdefault(above, above)
        return text

    kept = []
    for row in reversed(rows):
        prompt = _prompt_key(row.prompt)
        one, other = sorted((group_of((prompt, row.chosen)), group_of((prompt, row.rejected))))
        together = size.get(one, 1) + (size.get(other, 1) if one != other else 0)
        if together <= most:
            leader[other], size[one] = one, together
            kept.append(row)
    return kept[::-1]


def judged(person: Person, stored: Sequence[Stored]) -> Comparisons | None:
    """The judgements as comparisons of one person, the newest ``MOST_PAIRS``; None where they give none."""
    rows = rows_of(stored)[-MOST_PAIRS:]
    return compared([scorer_id(person) or ""] * len(rows), rows) if rows else None


def compared(users: Sequence[str], rows: Sequence[Row]) -> Comparisons:
    """Rows as comparisons of ``users``, one for each."""
    asked, chosen, rejected, tie, _, weight = zip(*rows, strict=True)
    weighted = None if set(weight) == {1.0} else list(weight)
    return from_columns(users, asked, chosen, rejected, tie_N=list(tie), weight_N=weighted)


def _prompt_key(prompt: str | tuple[Message, ...]) -> str:
    return msgspec.json.encode(prompt).decode()
