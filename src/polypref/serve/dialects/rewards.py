"""Rewards of single texts, for clients that ask about each text instead of a slate: scores, and rewards for trainers.

Texts of one person and one prompt are one slate, so the bounds on slates hold here too. A blocked text gets the floor
(``Core.floor``), and allowed texts with bounds in force get at least ``STEP`` more, whatever the scorer says. The floor
is one number for all requests, because trainers compare rewards of different requests; so a blocked text is always
worse than an allowed one, and every reward is finite. ``raised`` tells which rewards were moved up for that.

Covered: a text with marks of turns, of which only a part counts as the response; ``within`` has to pass the gate too.
Not covered: rewards are not stored as answers, since nobody was shown the texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polypref.bounds.gate import DROPPED
from polypref.content import canonical_chat
from polypref.errors import InputError
from polypref.serve.core import MOST_TEXTS, Answer, Core, Prompt, Slate, squashed
from polypref.serve.in_force import InForce
from polypref.serve.running.log import note
from polypref.serve.store.contract import Person

STEP = 1.0  # between the floor and the least reward of an allowed text
AT_ONCE = 16  # people of one request; other requests are answered in between


@dataclass(frozen=True)
class Asked:
    """One text, the prompt it answers, and the person whose reward is asked for.

    ``within`` is the longer text that this one was cut from; the gate reads that too.
    """

    person: Person
    prompt: Prompt
    text: str
    within: str | None = None


@dataclass(frozen=True)
class Given:
    """The reward of one text, finite. ``probability`` is 0 for a blocked text, else between 0 and 1."""

    reward: float
    probability: float
    blocked: bool
    raised: bool
    answer: Answer


async def rewards_of(core: Core, asked: Sequence[Asked], route: str, category: str = "") -> list[Given]:
    """The reward of each text, in the order asked. Raises as ``Core.rank`` does."""
    if len(asked) > MOST_TEXTS:
        raise InputError(f"{len(asked)} texts; expected at most {MOST_TEXTS}.")
    in_force = core.in_force
    slates, places = _slates([(one.person, one.prompt, one.text) for one in asked])
    longer = [(one.person, one.prompt, one.within) for one in asked if one.within not in (None, one.text)]
    around, around_places = _slates([(person, prompt, text or "") for person, prompt, text in longer])
    answers, wholes = await asyncio.gather(
        _answers(core, in_force, slates, category), _answers(core, in_force, around, category)
    )
    blocked = iter([wholes[slate].rewards[at] == DROPPED for slate, at in around_places])
    given = []
    for one, (slate, at) in zip(asked, places, strict=True):
        cut = next(blocked) if one.within not in (None, one.text) else False
        given.append(_given(core, answers[slate], at, cut))
    note(dialect=route, source=answers[0].source, blocked=sum(one.blocked for one in given))
    return given


def _given(core: Core, answer: Answer, at: int, cut: bool) -> Given:
    """The reward of text ``at`` of an answer; ``cut``: the text that it was cut from is blocked."""
    found = answer.rewards[at]
    if found == DROPPED or cut:
        return Given(core.floor, 0.0, True, False, answer)
    least = core.floor + STEP if answer.policy is not None else found
    return Given(max(found, least), float(squashed(np.array(found))), False, found < least, answer)


def _slates(asked: Sequence[tuple[Person, Prompt, str]]) -> tuple[list[tuple[Person, Slate]], list[tuple[int, int]]]:
    """Slates of one person and one prompt each, and the slate and the place in it of every text."""
    number: dict[tuple[Person, bool, str], int] = {}
    slates: list[tuple[Person, Prompt, list[str]]] = []
    places = []
    for person, prompt, text in asked:
        chat = not isinstance(prompt, str)
        key = (person, chat, canonical_chat(prompt) if chat else prompt)
        at = number.setdefault(key, len(slates))
        if at == len(slates):
            slates.append((person, prompt, []))
        places.append((at, len(slates[at][2])))
        slates[at][2].append(text)
    return [(person, Slate(prompt, texts)) for person, prompt, texts in slates], places


async def _answers(
    core: Core, in_force: InForce, slates: Sequence[tuple[Person, Slate]], category: str
) -> list[Answer]:
    """The answer to each slate; those of one person are scored together, ``AT_ONCE`` people's encoded together."""
    of: dict[Person, list[int]] = {}
    for at, (person, _) in enumerate(slates):
        of.setdefault(person, []).append(at)
    free = asyncio.Semaphore(AT_ONCE)

    async def ranked(person: Person, places: list[int]) -> list[Answer]:
        async with free:
            given = await core.rank_many(person, [slates[at][1] for at in places], category, in_force)
            await asyncio.sleep(0)  # what is in memory is answered without waiting: others have their turn here
            return given

    found = await asyncio.gather(*(ranked(person, places) for person, places in of.items()))
    answers = {
        at: one for places, many in zip(of.values(), found, strict=True) for at, one in zip(places, many, strict=True)
    }
    return [answers[at] for at in range(len(slates))]
