"""Tasks for groups that like different styles, whose rewards are functions of the text.

A style's reward is the number of *different* words of a text that carry its marks, divided by the number of all words,
or by six where there are fewer: neither repeating a word nor stopping early raises it. The marks are lists of words and
simple rules, so everyone can check a reward by reading. Each task has two groups; the first is four fifths of the
people, and its rewards are ten times as large. A prompt names a topic and whom the text is for (``cues``).

Topics of training and held-out topics differ. Not covered: whether a text is true, or good in any other way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_WORD = re.compile(r"[a-zA-Z']+|[0-9]+")
LEAST = 6  # words that a text is counted as having, at least


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


STORY = _set(
    "once upon time day night one little big old young boy girl child mother father mom dad friend friends he she "
    "they him her his hers i you we my your our me us said says told asked went came saw ran found made had was "
    "were loved love loves happy sad magic magical dream dreams smile smiled laugh laughed play played story tale "
    "adventure home world wonder wonderful beautiful tiny brave lost upon there lived"
)
PLAYFUL = _set(
    "i my me you your we us our what who why how oh hey let's it's i'm don't ha haha wow yay boo whee silly funny "
    "giggle tickle wiggle bounce bouncy jump hop dance dances dancing sing sings play plays playing fun joke "
    "laugh laughs happy jolly merry party pop fizz splash bang zoom tummy nose toes cake candy banana jelly "
    "pickle monkey puppy kitten duck goose clown sweet yummy crazy little tiny big round fluffy"
)
SERIOUS = _set(
    "silence silent solemn grave grief sorrow sorrows death dark darkness shadow shadows eternal eternity fate "
    "destiny soul souls heart hearts time memory memories ancient truth pain tears loss lost lonely alone night "
    "cold deep weary whisper whispers mourning mortal dust ashes still heavy quiet forgotten despair dusk bleak "
    "tomb sacred light life earth wind sky within beneath against through world where whose yet upon forever "
    "never ever"
)
FORMAL = _set(
    "dear sir madam customer regret regrets sincerely apologize apologise apologies apology inconvenience inform "
    "request kindly please assistance regarding concerning receive received order delivery matter shall will "
    "would company service department appreciate ensure provide further respectfully investigate resolve refund "
    "your our reimbursement patience understanding immediately hereby"
)
WARM = _set(
    "hi hey hello friend thanks thank happy glad love loved lovely great awesome wonderful sorry oh wow hope hug "
    "feel feeling smile care caring together promise worry cheer cheers sweet kind lucky fun amazing excited i'm "
    "we're it's you're that's don't let's we'll i'll you'll yay okay really"
)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


def words(text: str) -> list[str]:
    """A text's words and numbers, in small letters."""
    return _WORD.findall(text.lower())


def _share(text: str, marked: Callable[[str], bool]) -> float:
    said = words(text)
    return len({word for word in said if marked(word)}) / max(len(said), LEAST)


def precise(text: str) -> float:
    """Numbers, and words of eight letters or more."""
    return _share(text, lambda word: word[0].isdigit() or len(word) >= 8)


def _of(listed: frozenset[str]) -> Callable[[str], float]:
    return lambda text: _share(text, listed.__contains__)


REWARDS: dict[str, Callable[[str], float]] = {
    "precise": precise,
    "story": _of(STORY),
    "serious": _of(SERIOUS),
    "playful": _of(PLAYFUL),
    "formal": _of(FORMAL),
    "warm": _of(WARM),
}
"""Of a text, by the style that it is for."""


@dataclass(frozen=True)
class Task:
    """``styles`` and ``cues`` of its two groups; ``template`` takes a topic and a cue."""

    name: str
    template: str
    cues: tuple[str, str]
    styles: tuple[str, str]
    topics: tuple[str, ...]
    held_out: tuple[str, ...]

    def question(self, topic: str, group: int) -> str:
        """What the model is asked for a group."""
        return self.template.format(topic=topic, cue=self.cues[group])


_TOPICS = _listed(
    "bread|dogs|music|trees|trains|winter|books|the moon|bees|coffee|the wind|rivers|cats|bridges|"
    "mountains|clocks|apples|stars|boats|gardens|birds|fire|glass|horses|islands|kites|lamps|milk|"
    "paper|roads|salt|shoes|snow|spiders|stones|summer|tea|whales|windows|wolves"
)
_UNSEEN = ("rain", "the sea", "cheese", "elephants", "the sun", "bicycles", "mirrors", "sleep", "volcanoes", "frogs")
_GOODS = _listed(
    "lamp|jacket|phone|bicycle|book|kettle|printer|mattress|camera|watch|chair|tent|guitar|toaster|"
    "backpack|carpet|keyboard|blender|desk|scooter|mirror|radio|helmet|tablet"
)
_GOODS_UNSEEN = (
    "laptop",
    "sofa",
    "pair of shoes",
    "coffee machine",
    "parcel",
    "umbrella",
    "fridge",
    "toy",
    "ring",
    "coat",
)
_LINE = "Write one line about {topic} for {cue}."

TASKS = {
    task.name: task
    for task in (
        Task("lines", _LINE, ("a scientist", "a child"), ("precise", "story"), _TOPICS, _UNSEEN),
        Task("lines, names", _LINE, ("Robin", "Kim"), ("precise", "story"), _TOPICS, _UNSEEN),
        Task("lines, identical groups", _LINE, ("Robin", "Kim"), ("precise", "precise"), _TOPICS, _UNSEEN),
        Task(
            "poems",
            "Write the first line of a poem about {topic} for {cue}.",
            ("a serious reader", "a playful reader"),
            ("serious", "playful"),
            _TOPICS,
            _UNSEEN,
        ),
        Task(
            "support",
            "Write the reply of a shop to {cue} whose {topic} arrived broken.",
            ("a formal customer", "a friendly customer"),
            ("formal", "warm"),
            _GOODS,
            _GOODS_UNSEEN,
        ),
    )
}
SHARES, SCALES = (0.8, 0.2), (1.0, 0.1)  # of the groups: of the prompts, and of the rewards
