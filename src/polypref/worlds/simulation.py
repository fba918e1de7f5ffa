"""Simulates a world: judgements of its people, and the truth behind them; also fresh candidates with true rewards.

Covered: equal settings and seed give equal worlds, on any machine and in any process. Not covered: other versions of
numpy may draw other numbers, and worlds of different sizes share no texts.

Suffixes here: ``_D`` styles, ``_E`` judgements of a user, ``_K`` tastes, ``_M`` prompts or pairs drawn, ``_T`` turns of
a user.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from polypref.arguments import Seed, check_settings, expect
from polypref.comparisons import Comparisons, IntArray, Responses, Users
from polypref.errors import SettingsError, unknown_name
from polypref.worlds.people import WORLDS, People, World
from polypref.worlds.text import STYLES, prompts, write

STYLE_MEAN, STYLE_SD = 0.5, 0.3
MOST_TRIES = 1000
MOST_JUDGEMENTS = 100_000_000


@dataclass(frozen=True, eq=False)
class SimulatedWorld:
    """Judgements and the truth behind them.

    ``comparisons``  with each user's true group in ``users.attributes``; a response is in one pair only.
    ``people``       tastes, groups and noise of the U users.
    ``chosen_pos_N`` 0 if the chosen response was shown first, else 1; random, without influence on choices.
    ``style_RD``     style of each response, as written (columns: ``STYLES``, from 0 to 1; length may exceed 1).
    """

    name: str
    settings: World
    seed: int
    comparisons: Comparisons
    people: People
    chosen_pos_N: NDArray[np.int8]
    style_RD: NDArray[np.float64]

    @cached_property
    def reward_UR(self) -> NDArray[np.float64]:
        """True reward of each response for each user; only differences within a user are meaningful."""
        return _rewards(self.people, self.style_RD)

    @cached_property
    def chance_N(self) -> NDArray[np.float64]:
        """True probability that the user chooses the response that was chosen.

        ``np.maximum(chance_N, 1 - chance_N).mean()`` is the expected accuracy of a scorer that knows the truth.
        """
        c = self.comparisons
        return _chance(self.people, self.style_RD, c.user_N, c.chosen_N, c.rejected_N)

    def table(self) -> pl.DataFrame:
        """The judgements as the rows of a preference file; ``attributes`` is JSON, ``chosen_pos`` 0 or 1."""
        c = self.comparisons
        assert c.pair_N is not None
        prompt_R = c.responses.prompts.gather(c.responses.prompt_R)
        attributes_U = pl.Series([json.dumps({"group": group}) for group in self.people.group_U])
        return pl.DataFrame(
            {
                "user_id": c.users.ids.gather(c.user_N),
                "pair_id": self.name + "-" + pl.Series(c.pair_N).cast(pl.String),
                "prompt": prompt_R.gather(c.chosen_N),
                "chosen": c.responses.texts_R.gather(c.chosen_N),
                "rejected": c.responses.texts_R.gather(c.rejected_N),
                "chosen_pos": self.chosen_pos_N,
                "attributes": attributes_U.gather(c.user_N),
            }
        )


@dataclass(frozen=True, eq=False)
class Candidates:
    """Fresh responses, ``n`` in a row for each prompt, and their true reward for each user, ``reward_UR``."""

    responses: Responses
    n: int
    reward_UR: NDArray[np.float64]


def candidates(world: SimulatedWorld, prompts_asked: int, n: int, seed: int = 0) -> Candidates:
    """``n`` responses of random style to each of ``prompts_asked`` random prompts, for a policy to choose from.

    Raises SettingsError for fewer than two responses or prompts.
    """
    if min(prompts_asked, n) < 2:
        raise SettingsError(f"{prompts_asked} prompts of {n} responses; expected at least 2 of each.")
    rng = np.random.default_rng(np.random.SeedSequence([world.seed, seed, n]))
    prompt_M = rng.integers(0, len(prompts()), prompts_asked)
    text_prompt_R = np.repeat(prompt_M, n).astype(np.int32)
    texts, style_RD = write(text_prompt_R, rng.random((prompts_asked * n, len(STYLES))), rng)
    prompt = pl.Series("prompt", [prompts()[p] for p in prompt_M], dtype=pl.String)
    own_R = np.repeat(np.arange(prompts_asked), n).astype(np.int32)
    responses = Responses(prompt, own_R, pl.Series("text", texts, dtype=pl.String))
    return Candidates(responses, n, _rewards(world.people, style_RD))


def _rewards(people: People, style_RD: NDArray[np.float64]) -> NDArray[np.float64]:
    return people.taste_UD @ ((style_RD - STYLE_MEAN) / STYLE_SD).T


def simulate(name: str, *, seed: int = 0, **changes: float) -> SimulatedWorld:
    """Simulate world ``name``; ``changes`` override its settings, as in ``simulate("two-tastes", users=100)``.

    Raises SettingsError for an unknown world or impossible settings.
    """
    if name not in WORLDS:
        raise unknown_name("world", name, WORLDS)
    expect("seed", seed, Seed)
    known = [field.name for field in fields(WORLDS[name])]
    for change in changes:
        if change not in known:
            raise unknown_name(f"setting of {name}", change, known)
    world = replace(WORLDS[name], **changes)
    check_settings(world)
    _check(world)
    text_rng, people_rng, choice_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    people = world.people(people_rng)
    distinct = world.judgements - world.repeats
    judges = min(world.judges, world.users)
    pairs = -(-world.users * distinct // judges)
    responses, style_RD = _write_pairs(pairs, people.taste_UD, world.contrast, text_rng)

    pair_UE = _deal(world.users, distinct, judges, choice_rng)
    again_UE = choice_rng.permuted(pair_UE, axis=1)[:, : world.repeats]
    user_N = np.repeat(np.arange(world.users, dtype=np.int32), world.judgements)
    pair_N = np.concatenate([pair_UE, again_UE], axis=1).ravel()
    code_N = np.concatenate([pair_UE, again_UE + pairs], axis=1).ravel()
    order_N = choice_rng.permutation(len(user_N))
    user_N, pair_N, code_N = user_N[order_N], pair_N[order_N], code_N[order_N]

    first_N, second_N = 2 * pair_N, 2 * pair_N + 1
    chose_first_N = choice_rng.random(len(user_N)) < _chance(people, style_RD, user_N, first_N, second_N)
    ids = pl.Series("id", [f"u{u}" for u in range(world.users)], dtype=pl.String)
    users = Users(ids, pl.DataFrame({"group": people.group_U}))
    chosen_N, rejected_N = np.where(chose_first_N, (first_N, second_N), (second_N, first_N))
    comparisons = Comparisons(responses, users, user_N, chosen_N, rejected_N, pair_N=code_N)
    chosen_pos_N = choice_rng.integers(0, 2, len(user_N), dtype=np.int8)
    return SimulatedWorld(name, world, seed, comparisons, people, chosen_pos_N, style_RD)


def _check(world: World) -> None:
    if world.users * world.judgements > MOST_JUDGEMENTS:
        raise SettingsError(
            f"{world.users:,} users with {world.judgements:,} judgements each are too many; expected at most "
            f"{MOST_JUDGEMENTS:,} judgements in total."
        )
    lowest = {"users": 1, "judges": 1, "judgements": 1, "repeats": 0, "temperature": 0, "contrast": 0, "alpha": 0}
    for setting, least in lowest.items():
        if (value := getattr(world, setting, least)) < least:
            raise SettingsError(f"{setting} is {value}; expected at least {least}.")
    if world.judgements < 2 * world.repeats:
        raise SettingsError(
            f"judgements is {world.judgements}; expected at least {2 * world.repeats}, since {world.repeats} of them "
            "repeat others. Ask for more judgements."
        )


def _write_pairs(
    pairs: int, taste_UD: NDArray[np.float64], contrast: float, rng: np.random.Generator
) -> tuple[Responses, NDArray[np.float64]]:
    """Responses 2m and 2m+1 are pair m and answer one prompt; all R = 2 * pairs texts differ."""
    prompt_M = rng.permuted(np.arange(-(-pairs // len(prompts())) * len(prompts())) % len(prompts()))[:pairs]
    level_RD = _levels(pairs, np.unique(taste_UD, axis=0), contrast, rng)
    prompt_R = np.repeat(prompt_M, 2).astype(np.int32)
    texts, style_RD = write(prompt_R, level_RD, rng)
    while len(twins := _twins(prompt_R, texts)):
        again, style_RD[twins] = write(prompt_R[twins], level_RD[twins], rng)
        for r, text in zip(twins.tolist(), again, strict=True):
            texts[r] = text
    used, index_R = np.unique(prompt_R, return_inverse=True)
    prompt = pl.Series("prompt", [prompts()[p] for p in used], dtype=pl.String)
    return Responses(prompt, index_R.astype(np.int32), pl.Series("text", texts, dtype=pl.String)), style_RD


def _twins(prompt_R: IntArray, texts: list[str]) -> NDArray[np.intp]:
    """Responses whose prompt and text equal those of an earlier response."""
    pool = pl.DataFrame({"prompt": prompt_R, "text": texts})
    return np.flatnonzero(~pool.select(pl.struct("prompt", "text").is_first_distinct()).to_series().to_numpy())


def _levels(
    pairs: int, taste_KD: NDArray[np.float64], contrast: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Styles to request, uniform over pairs whose rewards differ by ``contrast`` for every taste."""
    found, missing = [], pairs
    for _ in range(MOST_TRIES):
        level_M2D = rng.random((4 * pairs, 2, len(STYLES)))
        gap_MK = (level_M2D[:, 0] - level_M2D[:, 1]) @ taste_KD.T / STYLE_SD
        found.append(level_M2D[(np.abs(gap_MK) >= contrast).all(axis=1)][:missing])
        missing -= len(found[-1])
        if not missing:
            return np.concatenate(found).reshape(2 * pairs, len(STYLES))
    raise SettingsError(f"contrast is {contrast}; no two styles differ that much for every taste. Lower it.")


def _deal(users: int, each: int, judges: int, rng: np.random.Generator) -> IntArray:
    """The pairs that users judge, ``pair_UE``: ``each`` different pairs per user, ``judges`` different users per pair.

    Pairs are assigned to users in turn, ``judges`` at a time, in a random order of users that is drawn again whenever a
    round ends where it began.
    """
    slots = users * each
    turn = users * judges // int(np.gcd(users, judges))
    seats = np.tile(np.arange(users, dtype=np.int32), (-(-slots // turn), 1))
    seat_TU = rng.permuted(seats, axis=1)
    slot_N = np.arange(slots)
    user_N = seat_TU[slot_N // turn, slot_N % turn % users]
    return (slot_N // judges)[np.argsort(user_N, kind="stable")].reshape(users, each).astype(np.int32)


def _chance(
    people: People, style_RD: NDArray[np.float64], user_N: IntArray, a_N: IntArray, b_N: IntArray
) -> NDArray[np.float64]:
    """Probability that the user chooses response a over response b."""
    gap_N = ((style_RD[a_N] - style_RD[b_N]) * people.taste_UD[user_N]).sum(axis=1) / STYLE_SD
    temperature_N = people.temperature_U[user_N]
    noisy_N = expit(gap_N / np.where(temperature_N > 0, temperature_N, 1.0))
    return np.where(temperature_N > 0, noisy_N, (1 + np.sign(gap_N)) / 2)
