"""The worlds: their people, what each person likes, and how noisily they choose.

A person's reward of a response is ``taste . z``, with ``z = (style - 1/2) / 0.3``: styles in standard deviations. Shown
responses a and b, the person chooses a with probability ``sigmoid((reward(a) - reward(b)) / temperature)``; at
temperature 0 always the better one, or either at random if both are equally good. Each world states the row of the
evaluation paper's Table 2 that it imitates.

Suffixes here: ``_D`` styles, ``_F`` functions of a style.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from polypref.worlds.text import STYLES


@dataclass(frozen=True)
class Row:
    """Disagreement as in Table 2: shares of pairs, and the lowest and highest user's majority-vote accuracy.

    ``divergence``  pairs on which the judges do not all agree.
    ``highly``      pairs on which at least 30 % of the judges deviate from the majority.
    ``mv_low``, ``mv_high``  share of a user's judgements that agree with the majority (own vote included); a split
                    majority counts one half.
    """

    users: int
    divergence: float
    highly: float
    mv_low: float
    mv_high: float


@dataclass(frozen=True, eq=False)
class People:
    """U people: what they like (``taste_UD``, columns as in ``STYLES``), their group, and their noise."""

    taste_UD: NDArray[np.float64]
    group_U: tuple[str, ...]
    temperature_U: NDArray[np.float64]


@dataclass(frozen=True)
class World(ABC):
    """Settings that all worlds share.

    ``users``        people.
    ``judgements``   of each person, including repeats.
    ``judges``       people per pair; everybody if there are fewer people.
    ``repeats``      judgements of each person that repeat an earlier pair, under another pair id.
    ``temperature``  multiplies the noise that the world gives each person; 0: no errors.
    ``contrast``     smallest difference in reward, for every taste, between the two styles requested for a pair.
    """

    users: int = 40
    judgements: int = 60
    judges: int = 8
    repeats: int = 3
    temperature: float = 1.0
    contrast: float = 0.0

    about: ClassVar[str]
    row: ClassVar[Row]

    @abstractmethod
    def people(self, rng: np.random.Generator) -> People:
        """The people of this world."""


def _taste(**likes: float) -> NDArray[np.float64]:
    assert likes.keys() <= set(STYLES), likes
    return np.array([likes.get(style, 0.0) for style in STYLES])


def _cycle(kinds: list[tuple[str, NDArray[np.float64], float]], world: World) -> People:
    """Person i is of kind i modulo the number of kinds, so the first people of a world are always well mixed."""
    kind_U = [kinds[i % len(kinds)] for i in range(world.users)]
    temperature_U = world.temperature * np.array([noise for _, _, noise in kind_U])
    return People(np.array([taste for _, taste, _ in kind_U]), tuple(name for name, _, _ in kind_U), temperature_U)


@dataclass(frozen=True)
class TwoTastes(World):
    """Three people in four like plain, warm and detailed answers; the fourth likes exactly the opposite.

    One reward for everyone agrees with about .95 of the majority's judgements and .05 of the minority's. No row of
    Table 2 looks like that; ``row`` is the world's own.
    """

    contrast: float = 2.5

    about: ClassVar[str] = "75 % / 25 % with opposed tastes: a majority and a minority"
    row: ClassVar[Row] = Row(users=40, divergence=0.92, highly=0.32, mv_low=0.11, mv_high=0.97)

    def people(self, rng: np.random.Generator) -> People:
        """The fourth, eighth, ... person is in the minority."""
        taste = _taste(length=0.6, jargon=-0.8, warmth=0.7, formality=-0.5)
        kinds = [("majority", taste, 0.25)] * 3 + [("minority", -taste, 0.25)]
        return _cycle(kinds, self)


@dataclass(frozen=True)
class PsoupsLike(World):
    """Three pairs of people with opposed wishes: expertise, informativeness, friendliness.

    Table 2, P-SOUPS: 6 users, 100 % divergence, 98 % highly, majority-vote accuracy .51-.59. The two people of a couple
    nearly always choose differently, so the majority is random unless one of the two errs; couples differ in how often
    that happens.
    """

    users: int = 6
    judgements: int = 200
    judges: int = 6
    contrast: float = 1.0

    about: ClassVar[str] = "six people in three couples who want opposite things"
    row: ClassVar[Row] = Row(users=6, divergence=1.00, highly=0.98, mv_low=0.51, mv_high=0.59)

    def people(self, rng: np.random.Generator) -> People:
        """Couples are adjacent: 0 and 1, 2 and 3, 4 and 5."""
        couples = (
            ("expertise", "expert", "layman", _taste(jargon=1.0), 0.25),
            ("informativeness", "detailed", "concise", _taste(length=0.8, examples=0.6), 0.5),
            ("friendliness", "friendly", "matter-of-fact", _taste(warmth=1.0, formality=-0.3), 0.75),
        )
        kinds = [
            (f"{couple}: {name}", sign * taste, noise)
            for couple, one, other, taste, noise in couples
            for name, sign in ((one, 1.0), (other, -1.0))
        ]
        return _cycle(kinds, self)


@dataclass(frozen=True)
class PersonalLLMLike(World):
    """People who choose by reward functions: one each, or a mixture drawn from a Dirichlet distribution.

    Table 2, PersonalLLM: 8 users, 87 % divergence, 16 % highly, majority-vote accuracy .33-.93. The users of that row
    are single reward models (``alpha=0``): six similar ones, one different, one nearly opposed; they never contradict
    themselves (``temperature=0``). With ``alpha > 0`` a person's weights of the functions are ``Dirichlet(alpha)``, as
    in the data set's own paper: near one-hot at .01, near everyone's mean at 5.
    """

    users: int = 8
    judgements: int = 200
    judges: int = 8
    temperature: float = 0.0
    alpha: float = 0.0

    about: ClassVar[str] = "people who mix eight reward functions, most of them alike"
    row: ClassVar[Row] = Row(users=8, divergence=0.87, highly=0.16, mv_low=0.33, mv_high=0.93)
    functions_FD: ClassVar[tuple[tuple[float, ...], ...]] = (
        (0.8, 0.0, -0.2, 0.5, 0.3, 0.6),
        (0.6, 0.1, -0.2, 0.5, -0.1, 0.5),
        (0.5, -0.1, -0.1, 0.4, 0.2, 0.3),
        (0.5, 0.1, -0.3, 0.9, -0.1, 0.5),
        (0.6, 0.0, 0.1, 0.6, 0.2, 0.6),
        (0.5, 0.2, 0.0, 0.7, 0.3, 0.4),
        (0.7, 0.5, 0.1, 0.2, 0.5, -0.2),
        (-0.6, 0.3, 0.6, -0.1, 0.3, -0.4),
    )

    def people(self, rng: np.random.Generator) -> People:
        """A person's group is the function with the largest weight."""
        taste_FD = np.array(self.functions_FD)
        many = len(taste_FD)
        if self.alpha == 0:
            weight_UF = np.eye(many)[np.arange(self.users) % many]
        else:
            weight_UF = rng.dirichlet(np.full(many, self.alpha), self.users)
        group_U = tuple(f"function {f}" for f in weight_UF.argmax(axis=1))
        return People(weight_UF @ taste_FD, group_U, np.full(self.users, self.temperature))


@dataclass(frozen=True)
class TldrLike(World):
    """Annotators who mostly want the same and often err; two in five do not mind jargon.

    Table 2, TL;DR: 5 users, 49 % divergence, 27 % highly, majority-vote accuracy .81-.87.
    """

    users: int = 5
    judgements: int = 200
    judges: int = 5

    about: ClassVar[str] = "mild differences and noisy judgements"
    row: ClassVar[Row] = Row(users=5, divergence=0.49, highly=0.27, mv_low=0.81, mv_high=0.87)

    def people(self, rng: np.random.Generator) -> People:
        """Five kinds of annotators, repeated."""
        taste_FD = np.array(
            (
                (0.7, 0.1, -0.6, 0.5, -0.4, 0.4),
                (0.6, 0.5, -0.3, 0.4, -0.5, 0.2),
                (0.5, 0.2, -0.6, 0.8, -0.4, 0.3),
                (0.7, 0.4, -0.3, 0.4, 0.2, -0.2),
                (0.9, 0.5, -0.3, 0.5, 0.3, -0.2),
            )
        )
        groups = ("plain", "plain", "plain", "technical", "technical")
        return _cycle([(g, taste, 0.3) for g, taste in zip(groups, taste_FD, strict=True)], self)


WORLDS: dict[str, World] = {
    "two-tastes": TwoTastes(),
    "psoups-like": PsoupsLike(),
    "personalllm-like": PersonalLLMLike(),
    "tldr-like": TldrLike(),
}
