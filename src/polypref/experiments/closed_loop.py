"""Closed-loop simulation: people use a system day by day while it learns from them. The slow risks use its log.

Source: our own, similar to closed-loop simulations of recommender systems. Each round, every person asks something. The
server shows the text, of n, that it values most for them; the person compares it with another of the n, chosen at
random; the server learns from the answer. Two references always run on the same prompts, texts and random draws: the
population's scorer, and random choice.

Covered: paired arms and seeds; a change of everybody's taste half-way. Not covered: people who leave, who only see what
is shown, or whose taste follows what they are shown; a population's scorer that keeps learning (it is the same fit's
answer to strangers); more than one text shown.

Suffixes here: ``_E`` judgements of a user, ``_F`` features that people care for, ``_M`` slates, ``_T`` rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray
from polypref.errors import SettingsError
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.protocol import Adapts, Learner, Scorer
from polypref.worlds.community import Community, Floats, People, Pool, draw, judgements


class Server(Protocol):
    """Chooses texts for people, and may learn from them."""

    def values(self, pool: Pool, people: People, slate_UC: IntArray) -> Floats:
        """The value of each text of each person's slate to them, (U, C)."""
        ...

    def learn(self, people: People, answers: Comparisons) -> None:
        """Take in everybody's answer of this round, one row per person in their order."""
        ...


@dataclass
class Fixed:
    """A scorer that never learns; strangers get the population's answer."""

    scorer: Scorer

    def values(self, pool: Pool, people: People, slate_UC: IntArray) -> Floats:
        """See ``Server``."""
        ids = people.users.ids.gather(np.repeat(np.arange(len(people)), slate_UC.shape[1]))
        return self.scorer.score(pool.responses, ids, slate_UC.ravel()).value_Q.reshape(slate_UC.shape)

    def learn(self, people: People, answers: Comparisons) -> None:
        """Do nothing."""


@dataclass
class Personal(Fixed):
    """A scorer that adapts to everybody again each round, from all their answers or the last ``memory``."""

    memory: int | None = None
    heard: list[Comparisons] = field(default_factory=list)
    fitted: Scorer = field(init=False)

    def __post_init__(self) -> None:
        self.fitted = self.scorer

    def learn(self, people: People, answers: Comparisons) -> None:
        """See ``Server``. Raises SettingsError for a scorer that cannot adapt."""
        self.heard = [*self.heard, answers][-(self.memory or 0) :]
        chosen_TU = np.stack([one.chosen_N for one in self.heard])
        rejected_TU = np.stack([one.rejected_N for one in self.heard])
        zero_T = np.zeros(len(self.heard), np.int32)
        self.scorer = self.fitted  # to which all that was heard is added
        for u, user_id in enumerate(people.users.ids):
            few = Comparisons(answers.responses, people.users, zero_T + u, chosen_TU[:, u], rejected_TU[:, u])
            self.scorer = adapting(self.scorer).adapt(user_id, few)


@dataclass
class Coin:
    """Random values."""

    rng: np.random.Generator

    def values(self, pool: Pool, people: People, slate_UC: IntArray) -> Floats:
        """See ``Server``."""
        return self.rng.random(slate_UC.shape)

    def learn(self, people: People, answers: Comparisons) -> None:
        """Do nothing."""


def adapting(scorer: Scorer) -> Adapts:
    """The scorer, if it can adapt to new people; raises SettingsError otherwise."""
    if not isinstance(scorer, Adapts):
        raise SettingsError(
            f"a scorer of kind {scorer.kind!r} cannot adapt to new people; fit 'hierarchical' or 'low-rank'."
        )
    return scorer


@dataclass(frozen=True)
class Life:
    """The course of a simulation.

    ``users``, ``rounds``, ``n``  people, rounds, and texts of a slate.
    ``founders``, ``each``        other people of the same community, and judgements of each, for the first fit.
    ``turns_at``                  round from which everybody's taste is reversed; None: never.
    """

    users: int = 50
    rounds: int = 30
    n: int = 8
    founders: int = 50
    each: int = 30
    turns_at: int | None = None
    learner: Learner = field(default_factory=Hierarchical)

    def __post_init__(self) -> None:
        small = {name: getattr(self, name) for name in ("rounds", "n", "founders", "each") if getattr(self, name) < 2}
        if small:
            raise SettingsError(f"{small}: too few for a simulation; expected at least 2 of each.")
        if self.rounds < 3:
            raise SettingsError(f"rounds = {self.rounds}: expected 3 or more, since the last third is reported.")


@dataclass(frozen=True, eq=False)
class Stage:
    """A community: its people, all texts that they will be shown, and the scorer fitted on the founders' judgements.

    Slates of the pool: first the founders' pairs, then one for each round and person, then ``probe_MC``, which nobody
    judges; its texts lean to either side in turn.
    """

    people: People
    pool: Pool
    base: Scorer
    slate_TUC: IntArray
    probe_MC: IntArray
    life: Life


def stage(community: Community, life: Life, seed: int, probes: int = 200) -> Stage:
    """Draw people and texts, let the founders judge, and fit."""
    pairs, slates = life.founders * life.each, life.rounds * life.users
    first = -(-pairs // (life.n // 2))
    leaning_MC = np.full((first + slates + probes, life.n), np.nan)
    leaning_MC[first + slates :] = np.resize([1.0, -1.0], life.n)
    pool = draw(first + slates + probes, life.n, seed, leaning_MC)
    old = community.people(life.founders, "founder", seed + 1)
    pair_UE2 = _pairs(pool, pairs, seed).reshape(life.founders, life.each, 2)
    base = life.learner.fit(judgements(old, pool, pair_UE2, seed), encoder=pool.encoder, seed=seed)
    slate_TUC = pool.slates(first, slates).reshape(life.rounds, life.users, life.n)
    people = community.people(life.users, "person", seed + 2)
    return Stage(people, pool, base, slate_TUC, pool.slates(first + slates, probes), life)


def _pairs(pool: Pool, pairs: int, seed: int) -> IntArray:
    """Pairs (N, 2) of texts of one slate, no text twice."""
    each = pool.n // 2
    mixed_MC = np.random.default_rng(seed).permuted(pool.slates(0, -(-pairs // each)), axis=1)
    return mixed_MC[:, : 2 * each].reshape(-1, 2)[:pairs]


@dataclass(frozen=True, eq=False)
class Log:
    """The log: the text that each person was shown in each round, ``served_TU``, and how good it was.

    ``good_TU``   share of the attainable gain: 0 a random text, 1 the best of the slate,
                  NaN if all texts are equally good.
    ``right_TU``  1 if the server's values predicted the person's answer, 0 if not, one half if they were equal.
    """

    stage: Stage
    served_TU: IntArray
    good_TU: Floats
    right_TU: Floats
    server: Server

    @property
    def kind_TU(self) -> IntArray:
        """The kind of the text shown."""
        return self.stage.pool.kind_R[self.served_TU]


def live(stage: Stage, server: Server, seed: int) -> Log:
    """Let everybody use ``server``; equal seeds give every server the same random draws."""
    rng = np.random.default_rng(seed)
    slate_TUC, pool, life = stage.slate_TUC, stage.pool, stage.life
    rounds, users, n = slate_TUC.shape
    other_TU, lot_TU = rng.integers(1, n, (rounds, users)), rng.random((rounds, users))
    served_TU = np.zeros((rounds, users), np.int32)
    good_TU, right_TU = np.zeros((rounds, users)), np.zeros((rounds, users))
    row_U = np.arange(users)
    people = stage.people
    for t in range(rounds):
        if t == life.turns_at:
            people = people.turned()
        slate_UC = slate_TUC[t]
        value_UC = server.values(pool, people, slate_UC)
        best_U = value_UC.argmax(axis=1)
        second_U = (best_U + other_TU[t]) % n
        shown_U, other_U = slate_UC[row_U, best_U], slate_UC[row_U, second_U]
        wins_U = lot_TU[t] < people.chance(pool.feature_RF[shown_U], pool.feature_RF[other_U])
        chosen_U, rejected_U = np.where(wins_U, shown_U, other_U), np.where(wins_U, other_U, shown_U)
        ahead_U = np.sign(value_UC[row_U, best_U] - value_UC[row_U, second_U])
        right_TU[t] = 0.5 + 0.5 * ahead_U * np.where(wins_U, 1.0, -1.0)
        served_TU[t] = shown_U
        good_UC = np.einsum("ucf,uf->uc", pool.feature_RF[slate_UC], people.good_UF)
        mean_U, most_U = good_UC.mean(axis=1), good_UC.max(axis=1)
        gained_U, there_U = good_UC[row_U, best_U] - mean_U, most_U - mean_U
        good_TU[t] = np.divide(gained_U, there_U, out=np.full(users, np.nan), where=there_U > 0)
        answers = Comparisons(pool.responses, people.users, row_U.astype(np.int32), chosen_U, rejected_U)
        server.learn(people, answers)
    return Log(stage, served_TU, good_TU, right_TU, server)


ARMS: Mapping[str, Callable[[Scorer, int], Server]] = {
    "personal": lambda base, seed: Personal(base),
    "population": lambda base, seed: Fixed(base),
    "random": lambda base, seed: Coin(np.random.default_rng(seed + 9)),
}


def arms(stage: Stage, seed: int) -> dict[str, Log]:
    """The logs of the personal server and of the two references."""
    return {name: live(stage, make(stage.base, seed), seed) for name, make in ARMS.items()}


def probe_values(log: Log) -> Floats:
    """The value of each text of each probe to every person after the last round, (U, M, C)."""
    people, probe_MC = log.stage.people, log.stage.probe_MC
    probe_UQ = np.tile(probe_MC.ravel(), (len(people), 1))
    return log.server.values(log.stage.pool, people, probe_UQ).reshape(len(people), *probe_MC.shape)


def picks(log: Log) -> NDArray[np.int64]:
    """The place (M, U) of the text of each probe that every person would be shown after the last round."""
    return probe_values(log).argmax(axis=2).T
