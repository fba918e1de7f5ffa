"""What a person's, a group's or the population's reward likes, in words: traits with intervals.

A trait has pairs of texts, one on each of X topics, that answer alike but for the trait (``pairs.toml``, written for
this). A person's value of it is the mean difference of their reward between the two sides, in units of the spread of
their reward over all texts of the table (within topics): what the trait moves, against what texts move at all.

The interval has two sources: other topics would give another mean (t, over pairs), and the person's weights are known
as well as their posterior says (scorers of ``hierarchical``; others have none, and ``rests_on`` says so). The mean of a
group varies with the people in it, too. Degrees of freedom are Satterthwaite's (1946). The intervals of
one person hold for all traits at once at 95 % (Bonferroni). A liking is called clear if its interval excludes zero and
it is worth at least LEAST of the spread.

Covered: length, which the pairs match and whose rest is taken off; traits that are none (``Table.placebo``) are called
clear for at most 5 % of people. Not covered: a person's views of single texts; whether the person would agree; likings
that depend on the topic, which widen the interval; languages other than English.

Suffixes here: ``_T`` traits, ``_X`` pairs of a trait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from polypref import content
from polypref.comparisons import FloatArray
from polypref.errors import SettingsError
from polypref.learners.hierarchical import HierarchicalScorer
from polypref.learners.protocol import POPULATION, Scorer
from polypref.traits.table import Table, packaged
from polypref.wording import code, counted, listed

LEVEL = 0.95
LEAST = 0.2  # of the spread of rewards
CHUNK = 2048  # users
KNOWN, UNKNOWN = "and how surely the weights are known", "how surely the weights are known is not in the interval"


@dataclass(frozen=True)
class Trait:
    """The value of a trait with its interval, and how far it is from the population's; in units of the spread."""

    name: str
    more: str
    less: str
    value: float
    lo: float
    hi: float
    against: float | None = None
    against_lo: float | None = None
    against_hi: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the liking is clear."""
        return _clear(self.value, self.lo, self.hi)

    @property
    def differs(self) -> bool:
        """Whether it is clearly another one than the population's."""
        ends = self.against, self.against_lo, self.against_hi
        return None not in ends and _clear(*ends)  # type: ignore[arg-type]

    @property
    def liked(self) -> str:
        """What is liked, however surely: ``shorter answers``."""
        return self.more if self.value > 0 else self.less

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "clear": self.clear, "differs": self.differs, "text": self.text}

    @property
    def text(self) -> str:
        """In words."""
        own = f"clearly prefers {self.liked} to {self.less if self.value > 0 else self.more}" if self.clear else ""
        more = self.more if (self.against or 0) > 0 else self.less
        other = f"likes {more} clearly more than people in general do" if self.differs else ""
        none = f"no clear preference between {self.more} and {self.less}"
        return " and ".join(filter(None, (own, other))) or none


@dataclass(frozen=True)
class Described:
    """What is liked by ``who``: a user's id, a group's name, or None for the population; the clearest trait first."""

    who: str | None
    traits: tuple[Trait, ...]
    rests_on: str

    @property
    def text(self) -> str:
        """The sentence: ``Prefers shorter answers and lists (clearly). No clear preference in the other 5 traits.``"""
        clear = [one.liked for one in self.traits if one.clear]
        if not clear:
            own = [f"No clear preference in any of {len(self.traits)} traits."]
        else:
            own = [f"Prefers {listed(clear)} (clearly)."]
            if other := len(self.traits) - len(clear):
                own.append(f"No clear preference in the other {counted(other, 'traits')}.")
        more = [one.more if (one.against or 0) > 0 else one.less for one in self.traits if one.differs]
        return " ".join([*own, *([f"More than people in general: {listed(more)}."] if more else [])])

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        traits = [one.as_dict() for one in self.traits]
        return {"who": self.who, "text": self.text, "traits": traits, "rests_on": self.rests_on}


def describe(
    scorer: Scorer, user_ids: Sequence[str | None] | pl.Series, *, table: Table | None = None
) -> list[Described]:
    """What each user likes by the scorer's rewards; None is the population. One pass of the encoder for all.

    Raises SettingsError for users that the scorer does not know.
    """
    table = table or packaged()
    id_U = content.ids(user_ids, nobody=True)
    found = []
    for at in range(0, len(id_U), CHUNK):
        some_U = id_U[at : at + CHUNK]
        reward_UR, population_R = _rewards(scorer, some_U, table)
        variance_UT = _variances(scorer, some_U, table)
        for user, reward_R, variance_T in zip(some_U.to_list(), reward_UR, variance_UT, strict=True):
            told = f"{table.more_TX.shape[1]} pairs of texts for each trait"
            told += f", {KNOWN}" if np.isfinite(variance_T).all() else f"; {UNKNOWN}"
            base_R = None if user is None else population_R
            found.append(_described(user, reward_R, base_R, np.nan_to_num(variance_T), table, told))
    return found


def describe_group(
    scorer: Scorer, name: str, user_ids: Sequence[str] | pl.Series, *, table: Table | None = None
) -> Described:
    """What a group of users likes on average, each in units of their own spread; they stand for others like them.

    Raises SettingsError for fewer than two users, and for users that the scorer does not know.
    """
    table = table or packaged()
    id_U = content.ids(user_ids)
    if len(id_U) < 2:
        raise SettingsError(f"group {code(name)} has {len(id_U)} users that the scorer knows; expected two or more.")
    reward_UR, population_R = _rewards(scorer, id_U, table)
    contrast_TXR = table.contrasts_TXR()
    unit_UR = reward_UR / spread(reward_UR, table)[:, None]
    people_UT = np.einsum("txr,ur->ut", contrast_TXR, unit_UR) / contrast_TXR.shape[1]
    unsure_UT = np.nan_to_num(_variances(scorer, id_U, table)) / spread(reward_UR, table)[:, None] ** 2
    among_T = (people_UT.var(axis=0, ddof=1) + unsure_UT.mean(axis=0)) / len(id_U)
    told = f"{contrast_TXR.shape[1]} pairs of texts for each trait and {len(id_U):,} people"
    mean_R = unit_UR.mean(axis=0)
    return _described(name, mean_R, population_R, (among_T, len(id_U) - 1), table, told, unit=1.0)


def describe_rewards(name: str | None, reward_R: FloatArray, *, table: Table | None = None) -> Described:
    """What a reward of the texts of ``table.pool`` likes, with an interval over pairs alone."""
    table = table or packaged()
    told = f"{table.more_TX.shape[1]} pairs of texts for each trait; {UNKNOWN}"
    return _described(name, reward_R, None, np.zeros(len(table.names_T)), table, told)


def spread(reward_UR: FloatArray, table: Table) -> FloatArray:
    """The spread (U,) of rewards over the texts of the table, within topics; 1 for a reward that is constant."""
    prompt_R, many = table.pool.prompt_R, len(table.pool.prompts)
    in_PR = (np.arange(many)[:, None] == prompt_R) / np.bincount(prompt_R, minlength=many)[:, None]
    within_UR = reward_UR - (reward_UR @ in_PR.T)[:, prompt_R]
    found_U = np.sqrt((within_UR**2).mean(axis=1))
    return np.where(found_U > 1e-9, found_U, 1.0)


def _clear(value: float, lo: float, hi: float) -> bool:
    return (lo > 0 or hi < 0) and abs(value) >= LEAST


def _rewards(scorer: Scorer, id_U: pl.Series, table: Table) -> tuple[FloatArray, FloatArray]:
    """Each user's rewards of the texts (U, R), and the population's (R,)."""
    many = len(table.pool)
    asked_U = pl.concat([id_U.alias("id").cast(pl.String), pl.Series("id", [None], dtype=pl.String)])
    at_Q = np.repeat(np.arange(len(asked_U)), many)
    scores = scorer.score(table.pool, asked_U.gather(at_Q), np.tile(np.arange(many, dtype=np.int32), len(asked_U)))
    reward_UR = np.asarray(scores.value_Q, np.float64).reshape(-1, many)
    nobody_U = (scores.source_Q.reshape(-1, many)[:-1] == POPULATION).all(axis=1) & id_U.is_not_null().to_numpy()
    if nobody_U.any():
        unknown = id_U.filter(pl.Series(nobody_U)).to_list()
        raise SettingsError(
            f"user {code(unknown[0])} is not known to this scorer"
            + (f", nor are {len(unknown) - 1:,} others" if len(unknown) > 1 else "")
            + "; it can only say what people in general like. Give a user whose judgements it was fitted on."
        )
    return reward_UR[:-1], reward_UR[-1]


def _variances(scorer: Scorer, id_U: pl.Series, table: Table) -> FloatArray:
    """The posterior variance (U, T) of each mean difference, by the users' weights; NaN where there is none."""
    found_UT = np.full((len(id_U), len(table.names_T)), np.nan)
    if isinstance(scorer, HierarchicalScorer):
        gradient_TK = table.contrasts_TXR().mean(axis=1) @ scorer.inputs(table.pool)
        for at, user in enumerate(id_U.to_list()):
            covariance_KK = None if user is None else scorer.known_of(user).covariance_KK
            if covariance_KK is not None:
                found_UT[at] = np.einsum("tk,kl,tl->t", gradient_TK, covariance_KK, gradient_TK)
    return found_UT


def _described(
    who: str | None,
    reward_R: FloatArray,
    population_R: FloatArray | None,
    unsure: FloatArray | tuple[FloatArray, float],
    table: Table,
    told: str,
    unit: float | None = None,
) -> Described:
    """The traits of one reward; ``unsure`` is the other variance of the values, with its degrees of freedom."""
    contrast_TXR = table.contrasts_TXR()
    scale = float(spread(reward_R[None], table)[0]) if unit is None else unit
    other_T, freedom = unsure if isinstance(unsure, tuple) else (unsure / scale**2, np.inf)
    own = _intervals(contrast_TXR @ reward_R / scale, other_T, freedom)
    rows = [own]
    if population_R is not None:
        base_R = population_R / (float(spread(population_R[None], table)[0]) if unit is not None else scale)
        rows.append(_intervals(contrast_TXR @ (reward_R / scale - base_R), other_T, freedom))
    figures_T = np.concatenate(rows).T.tolist()
    words = zip(table.names_T, table.words_T, figures_T, strict=True)
    traits = [Trait(name, more, less, *figures) for name, (more, less), figures in words]
    traits.sort(key=lambda one: -abs(one.value) * one.clear - abs(one.value) / 1e3)
    return Described(who, tuple(traits), told)


def _intervals(value_TX: FloatArray, other_T: FloatArray, freedom: float) -> FloatArray:
    """Mean, and the ends of its interval at LEVEL for all traits at once: (3, T)."""
    traits, pairs = value_TX.shape
    of_pairs_T = value_TX.var(axis=1, ddof=1) / pairs
    total_T = np.maximum(of_pairs_T + other_T, 1e-300)
    freedom_T = total_T**2 / np.maximum(of_pairs_T**2 / (pairs - 1) + other_T**2 / freedom, 1e-300)
    reach_T = stdtrit(np.minimum(freedom_T, 1e9), 1 - (1 - LEVEL) / (2 * traits)) * np.sqrt(total_T)
    mean_T = value_TX.mean(axis=1)
    return np.stack([mean_T, mean_T - reach_T, mean_T + reach_T])


def counts(found: Sequence[Described]) -> dict[str, tuple[int, int]]:
    """Of each trait, how many clearly prefer more of it, and how many less."""
    clear = [one for described in found for one in described.traits if one.clear]
    names = [one.name for one in found[0].traits] if found else []
    more, less = ([one.name for one in clear if (one.value > 0) is way] for way in (True, False))
    return {name: (more.count(name), less.count(name)) for name in names}
