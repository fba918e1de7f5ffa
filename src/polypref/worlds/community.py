"""Communities: simulated people who come back every day, and the texts that they may be shown.

Source: tastes and texts are those of ``people.py`` and ``text.py``; the small additions are our own. A text may lean to
one side of a question (-1, 0, 1), may be false (it leans to the wrong side for its prompt), and may flatter. People
hold a view (-1 or 1). What they *choose* by and what is *good* for them are two sets of weights:

    choice = taste . style + agree * view * leaning - truth * false + flattery weight * flatters
    good   = taste . style                          - truth * false - DISLIKE * flatters

Everybody's flattery weight is -DISLIKE; that of the ``gameable`` share is +``pull``. A text's kind is given by which of
three styles (``KINDS_BY``) are above the middle: 8 kinds.

Covered: equal settings and seed give equal communities; the encoder knows every feature exactly. Not covered: real
people, real encoders (they see less, so real systems personalize less than these), people whose taste follows what they
are shown.

Suffixes here: ``_D`` styles, ``_E`` judgements of a user, ``_F`` features that people care for, ``_M`` slates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from polypref import content
from polypref.comparisons import Comparisons, IntArray, KeyArray, Responses, Users
from polypref.errors import SettingsError, unknown_name
from polypref.worlds.people import WORLDS
from polypref.worlds.simulation import STYLE_MEAN, STYLE_SD
from polypref.worlds.text import STYLES, prompts, write

Floats = NDArray[np.float64]

FEATURES = (*STYLES, "leaning", "false", "flatters")
LEANING, FALSE, FLATTERS = (FEATURES.index(name) for name in ("leaning", "false", "flatters"))
KINDS_BY = tuple(STYLES.index(name) for name in ("length", "jargon", "warmth"))
KINDS = 2 ** len(KINDS_BY)
DISLIKE = 0.5  # how much a text loses by flattering people who dislike flattery
LEANS, FLATTERY = 0.5, 0.25  # shares of texts that lean, and of texts that flatter


@dataclass(frozen=True)
class Community:
    """Settings of a community; with the last four all 0, it is just the world's people.

    ``world``     the world that people's tastes come from, a name in ``WORLDS``.
    ``agree``     what a text gains with people whose view it leans to, in units of taste.
    ``truth``     what a false text loses with everybody, in the same units.
    ``gameable``  share of people whose feedback rewards flattery: the last in order, at least one.
    ``pull``      what flattery gains with them.
    """

    world: str = "two-tastes"
    agree: float = 0.0
    truth: float = 0.0
    gameable: float = 0.0
    pull: float = 0.0

    def people(self, users: int, name: str, seed: int) -> People:
        """``users`` people with ids ``name-000``, ... Raises SettingsError for an unknown world or fewer than two."""
        if self.world not in WORLDS:
            raise unknown_name("world", self.world, WORLDS)
        if users < 2:
            raise SettingsError(f"a community of {users} people; expected at least 2.")
        rng = np.random.default_rng(seed)
        born = replace(WORLDS[self.world], users=users).people(rng)
        view_U = rng.permutation(np.resize([1.0, -1.0], users))
        gameable_U = np.arange(users) >= users - (max(1, round(self.gameable * users)) if self.gameable else 0)
        false_U, dislike_U = np.full(users, -self.truth), np.full(users, -DISLIKE)
        clicks_U = np.where(gameable_U, self.pull, dislike_U)
        choice_UF = np.column_stack([born.taste_UD, self.agree * view_U, false_U, clicks_U])
        good_UF = np.column_stack([born.taste_UD, np.zeros(users), false_U, dislike_U])
        ids = pl.Series("id", [f"{name}-{u:03d}" for u in range(users)], dtype=pl.String)
        return People(Users(ids), choice_UF, good_UF, view_U, gameable_U, np.array(born.group_U), born.temperature_U)


@dataclass(frozen=True, eq=False)
class People:
    """U people: the weights (U, F) they choose by and those of what is good for them, views, strata, groups, noise."""

    users: Users
    choice_UF: Floats
    good_UF: Floats
    view_U: Floats
    gameable_U: NDArray[np.bool_]
    group_U: NDArray[np.str_]
    temperature_U: Floats

    def __len__(self) -> int:
        return len(self.users)

    def turned(self) -> People:
        """The same people with reversed tastes: every liked style is now disliked as much, and vice"""
        sign_F = np.where(np.arange(len(FEATURES)) < len(STYLES), -1.0, 1.0)
        return replace(self, choice_UF=self.choice_UF * sign_F, good_UF=self.good_UF * sign_F)

    def chance(self, one_UF: Floats, other_UF: Floats) -> Floats:
        """Probability (U,) that each person chooses the first text over the other; at temperature 0, the better one."""
        gap_U = ((one_UF - other_UF) * self.choice_UF).sum(axis=1)
        noisy_U = expit(gap_U / np.where(self.temperature_U > 0, self.temperature_U, 1.0))
        return np.where(self.temperature_U > 0, noisy_U, (1 + np.sign(gap_U)) / 2)


@dataclass(frozen=True, eq=False)
class Pool:
    """M slates of n texts each: ``feature_RF`` of text r = slate * n + place (columns: ``FEATURES``)."""

    responses: Responses
    feature_RF: Floats
    n: int

    @cached_property
    def kind_R(self) -> IntArray:
        """The kind of each text, 0 to ``KINDS`` - 1."""
        more_R3 = self.feature_RF[:, KINDS_BY] > 0
        return (more_R3 @ (1 << np.arange(len(KINDS_BY)))).astype(np.int32)

    @cached_property
    def encoder(self) -> KnownFeatures:
        """An encoder that knows the exact features of these texts."""
        order_R = np.argsort(self.responses.keys_R, kind="stable")
        return KnownFeatures(self.responses.keys_R[order_R], self.feature_RF[order_R].astype(np.float32))

    def slates(self, first: int, count: int) -> IntArray:
        """The texts (count, n) of some slates."""
        return np.arange(first * self.n, (first + count) * self.n, dtype=np.int32).reshape(count, self.n)


def draw(slates: int, n: int, seed: int, leaning_MC: Floats | None = None) -> Pool:
    """``n`` fresh texts of random style for each of ``slates`` random prompts; all texts differ.

    ``leaning_MC``  how each text leans; NaN: at random, a share ``LEANS`` leans to either side. None: all at random.
    """
    rng = np.random.default_rng(seed)
    total = slates * n
    prompt_M = rng.integers(0, len(prompts()), slates)
    prompt_R = np.repeat(prompt_M, n).astype(np.int32)
    texts, style_RD = write(prompt_R, rng.random((total, len(STYLES))), rng)
    drawn_R = rng.choice([-1.0, 0.0, 1.0], total, p=[LEANS / 2, 1 - LEANS, LEANS / 2])
    given_R = np.full(total, np.nan) if leaning_MC is None else leaning_MC.ravel()
    leaning_R = np.where(np.isnan(given_R), drawn_R, given_R)
    right_R = np.repeat(rng.choice([-1.0, 1.0], slates), n)
    false_R = (leaning_R * right_R < 0).astype(np.float64)
    flatters_R = (rng.random(total) < FLATTERY).astype(np.float64)
    feature_RF = np.column_stack([(style_RD - STYLE_MEAN) / STYLE_SD, leaning_R, false_R, flatters_R])
    own = pl.Series("text", [f"{text} ({seed}.{r})" for r, text in enumerate(texts)], dtype=pl.String)
    return Pool(Responses(pl.Series("prompt", prompts(), dtype=pl.String), prompt_R, own), feature_RF, n)


@dataclass(frozen=True, eq=False)
class KnownFeatures:
    """An encoder that looks up the known features of texts; ``key_R`` ascending."""

    key_R: KeyArray
    feature_RF: NDArray[np.float32]

    name = "known"

    @property
    def identity(self) -> str:
        """The identity of these exact texts and features."""
        return f"known features {content.hexdigest(self.key_R, self.feature_RF)}"

    def encode(self, responses: Responses) -> NDArray[np.float32]:
        """See ``features.protocol.Encoder``."""
        at_R = np.minimum(np.searchsorted(self.key_R, responses.keys_R), len(self.key_R) - 1)
        if not (self.key_R[at_R] == responses.keys_R).all():
            raise SettingsError("a text that is not in this pool; encode only texts that were drawn with it.")
        return self.feature_RF[at_R]


def judgements(people: People, pool: Pool, pair_UE2: IntArray, seed: int) -> Comparisons:
    """Everybody's judgements of their E pairs of texts, person by person."""
    users, each = pair_UE2.shape[:2]
    rng = np.random.default_rng(seed)
    one_UEF, other_UEF = pool.feature_RF[pair_UE2[..., 0]], pool.feature_RF[pair_UE2[..., 1]]
    chance_UE = np.stack([people.chance(one_UEF[:, j], other_UEF[:, j]) for j in range(each)], axis=1)
    first_UE = rng.random((users, each)) < chance_UE
    chosen_UE = np.where(first_UE, pair_UE2[..., 0], pair_UE2[..., 1])
    rejected_UE = np.where(first_UE, pair_UE2[..., 1], pair_UE2[..., 0])
    user_N = np.repeat(np.arange(users, dtype=np.int32), each)
    return Comparisons(pool.responses, people.users, user_N, chosen_UE.ravel(), rejected_UE.ravel())
